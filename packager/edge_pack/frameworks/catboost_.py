"""CatBoost: ``.cbm`` and JSON files, ``CatBoost`` and its classes.

Guards: the hash of a category is the library's own (it writes it beside a small model that it is
asked to export), so no hash function of ours can differ from it. An empty cell is the category "",
as in CatBoost's own files.
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edge_contract.errors import BuildFault
from edge_contract.manifest import Label, Task
from edge_pack.extras import need
from edge_pack.frameworks.boosters import Said, fault_of
from edge_pack.intake import Rows
from edge_pack.trees import read_catboost
from edge_pack.trees.form import ABOVE_ZERO, Forest

PURPOSE = "packaging a model of CatBoost"
EXPONENT = ("Poisson", "Tweedie")
"""Losses for which ``CatBoostRegressor.predict`` answers exp(total)."""


@dataclass(frozen=True)
class CatBoost:
    """A model of any of CatBoost's classes."""

    model: Any

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The model's own JSON."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.json"
            try:
                self.model.save_model(str(path), format="json")
            except need("catboost", PURPOSE).CatBoostError as error:
                said = str(error).strip().splitlines()[-1]
                raise BuildFault(
                    f"CatBoost cannot write this model as JSON: {said[:300]}",
                    advice="Train on columns of numbers and categories alone.",
                ) from error
            return read_catboost.document(path.read_bytes())

    @cached_property
    def meaning(self) -> str:
        """binary, classes or value."""
        return read_catboost.meaning(self.document)[1]

    @property
    def names(self) -> tuple[str, ...]:
        """As its training had them; () where CatBoost made them up."""
        names = tuple(map(str, self.model.feature_names_))
        return () if names == tuple(map(str, range(len(names)))) else names

    @property
    def width(self) -> int:
        """Columns."""
        return len(self.model.feature_names_)

    @cached_property
    def texts(self) -> Mapping[int, tuple[str, ...]]:
        """Categorical columns; of their categories the model keeps hashes only."""
        return {int(column): () for column in self.model.get_cat_feature_indices()}

    @property
    def task(self) -> Task:
        """By its loss."""
        if self.labels:
            return "classification"
        outputs = len(self.document["scale_and_bias"][1])
        return "tensors" if outputs > 1 else "regression"

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """The class names of training."""
        return read_catboost.labels(self.document)

    @property
    def probabilities(self) -> bool:
        """Every classifier has them."""
        return bool(self.labels)

    @property
    def refusals(self) -> tuple[type[Exception], ...]:
        """What predict raises."""
        return (need("catboost", PURPOSE).CatBoostError, ValueError, TypeError)

    def ready(self, rows: Rows) -> Callable[[], Said]:
        """Rows as a Pool under the model's own names."""
        pool = self._pool(rows)
        model = self.model
        if not self.labels:
            loss = read_catboost.loss(self.document)
            kind = "Exponent" if loss in EXPONENT else "RawFormulaVal"
            return lambda: (np.asarray(_predict(model, pool, kind)), None)
        names = {str(label): label for label in self.labels}

        def call() -> Said:
            said = np.asarray(_predict(model, pool, "Class")).ravel().tolist()
            found = np.array([names.get(_name(item), item) for item in said], dtype=object)
            return found, np.asarray(_predict(model, pool, "Probability"))

        return call

    def _pool(self, rows: Rows) -> Any:
        catboost = need("catboost", PURPOSE)
        pandas = need("pandas", "asking the original model")
        names = list(self.model.feature_names_)
        columns = {
            name: np.array(["" if cell is None else cell for cell in column.tolist()], dtype=object)
            if i in self.texts
            else column
            for i, (name, column) in enumerate(zip(names, rows.columns.values(), strict=True))
        }
        return catboost.Pool(pandas.DataFrame(columns), cat_features=list(self.texts))

    def forest(self, rows: Rows) -> Forest:
        """Its trees, over the texts that the rows show of each categorical column."""
        names = list(rows.columns)
        columns = {
            i: tuple(sorted({cell for cell in rows.columns[names[i]].tolist() if cell}))
            for i in self.texts
        }
        hashes = _hashes(sorted({text for known in columns.values() for text in known}))
        forest = read_catboost.read(self.document, read_catboost.Texts(columns, hashes))
        return replace(forest, threshold=self._threshold(), labels=self.labels)

    def _threshold(self) -> float:
        """The least total that means the second of two labels."""
        share = float(self.model.get_metadata().get("binclass_probability_threshold", 0.5) or 0.5)
        return (
            float(np.nextafter(np.log(share / (1 - share)), np.inf)) if share != 0.5 else ABOVE_ZERO
        )


def _predict(model: Any, pool: Any, kind: str) -> Any:
    base = need("catboost", PURPOSE).CatBoost
    return base.predict(model, pool, prediction_type=kind)


def _name(item: Any) -> str:
    """A label as text; whole numbers trained as float without their point."""
    return str(int(item)) if isinstance(item, float) and item.is_integer() else str(item)


def _hashes(texts: Sequence[str]) -> dict[str, int]:
    """CatBoost's own hash of each text, and of "".

    It writes them beside a model exported as Python code, here one of a single tree.
    """
    catboost = need("catboost", PURPOSE)
    words = sorted({*texts, "", "a", "b"})
    pool = catboost.Pool(
        [[word] for word in words], label=[float(i % 2) for i in range(len(words))],
        cat_features=[0],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hashes.py"
        model = catboost.CatBoostRegressor(
            iterations=1, depth=1, thread_count=1, verbose=0, allow_writing_files=False
        )
        model.fit(pool).save_model(str(path), format="python", pool=pool)
        code = path.read_text(encoding="utf-8")
    table = code[code.index("\ncat_features_hashes = {") :]
    lines = table[: table.index("\n}\n")].splitlines()[2:]
    return dict(map(_hash_line, lines))


def _hash_line(line: str) -> tuple[str, int]:
    """``    "text": -123,`` with the text's bytes escaped as in C."""
    quoted, _, number = line.strip().rstrip(",").rpartition(": ")
    return ast.literal_eval("b" + quoted).decode(), int(number)


def load(path: Any, data: bytes, kind: str) -> CatBoost:
    """The model in the bytes of a file. ``kind``: cbm or json.

    Raises InputFault when CatBoost cannot read it.
    """
    catboost = need("catboost", PURPOSE)
    model = catboost.CatBoost()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model"
        copy.write_bytes(data)
        try:
            model.load_model(str(copy), format=kind)
        except (catboost.CatBoostError, ValueError, TypeError, KeyError) as error:
            raise fault_of(path, "CatBoost", error) from error
    return CatBoost(model)


def of_object(found: Any) -> CatBoost | None:
    """The model in an unpickled object, None when it is not a fitted one of CatBoost's."""
    fitted = getattr(found, "is_fitted", None)
    return CatBoost(found) if fitted is not None and fitted() else None


def reader(model: Any) -> Forest | None:
    """The forest of an estimator, for one that stands in a pipeline; None with categories."""
    found = CatBoost(model)
    return None if found.texts else found.forest(Rows(0, {}, {}))
