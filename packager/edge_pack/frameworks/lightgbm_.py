"""LightGBM: text files, ``Booster`` and the classes of its scikit-learn interface.

Guards: a file that is cut off is refused, although the library would load what is left of it;
nothing of its log reaches a user's terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edge_contract.errors import BuildFault
from edge_contract.manifest import Label, Task
from edge_pack.extras import need
from edge_pack.frameworks.boosters import Said, fault_of, frame
from edge_pack.intake import Rows
from edge_pack.trees import read_lightgbm
from edge_pack.trees.form import Forest

PURPOSE = "packaging a model of LightGBM"


@dataclass(frozen=True)
class LightGBM:
    """A ``Booster``, or an estimator of the scikit-learn interface around one."""

    booster: Any
    estimator: Any = None

    @cached_property
    def document(self) -> read_lightgbm.Document:
        """The model's own text, up to its best iteration."""
        return read_lightgbm.document(self.booster.model_to_string())

    @cached_property
    def shape(self) -> Forest:
        """The trees, which also say what the model answers."""
        classes = getattr(self.estimator, "classes_", None)
        labels = () if classes is None else tuple(np.asarray(classes).tolist())
        return read_lightgbm.read(self.document, labels)

    @property
    def names(self) -> tuple[str, ...]:
        """As its training had them; () where LightGBM made them up."""
        names = self.document.names
        made_up = tuple(f"Column_{i}" for i in range(len(names)))
        return () if names == made_up else names

    @property
    def width(self) -> int:
        """Columns."""
        return len(self.document.names)

    @cached_property
    def categories(self) -> dict[int, tuple[Any, ...]]:
        """The categories that a data frame had in training, by column."""
        return read_lightgbm.stored_categories(self.document)

    @property
    def texts(self) -> Mapping[int, tuple[str, ...]]:
        """Those of text."""
        return {
            i: tuple(map(str, known))
            for i, known in self.categories.items()
            if any(isinstance(item, str) for item in known)
        }

    @property
    def task(self) -> Task:
        """By its objective."""
        return "classification" if self.labels else "regression"

    @property
    def labels(self) -> tuple[Label, ...]:
        """The estimator's classes, else 0, 1, ..."""
        return self.shape.labels

    @property
    def probabilities(self) -> bool:
        """Every classifier of LightGBM has them."""
        return bool(self.labels)

    @property
    def refusals(self) -> tuple[type[Exception], ...]:
        """What predict raises."""
        return (need("lightgbm", PURPOSE).basic.LightGBMError, ValueError, TypeError)

    def ready(self, rows: Rows) -> Callable[[], Said]:
        """Rows as a frame where training had one, else as an array."""
        given = self._given(rows)
        model = self.estimator
        if model is not None and self.labels:
            return lambda: (np.asarray(model.predict(given)), model.predict_proba(given))
        asked = self.booster if model is None else model

        def call() -> Said:
            said = np.asarray(asked.predict(given))
            if not self.labels:
                return said, None
            if said.ndim == 1:
                return (said > 0.5).astype(np.int64), said
            return said.argmax(axis=1), said

        return call

    def _given(self, rows: Rows) -> Any:
        if self.categories or self.names:
            return frame(rows, self.names or list(rows.columns), self.categories)
        return rows.matrix()

    def forest(self, rows: Rows) -> Forest:
        """Its trees."""
        return self.shape


def load(path: Any, data: bytes) -> LightGBM:
    """The model in the bytes of a text file.

    Raises InputFault when it is not LightGBM's or not whole, BuildFault for what it cannot be.
    """
    lightgbm = need("lightgbm", PURPOSE)
    lightgbm.register_logger(_Quiet())
    text = check_whole(path, data)
    try:
        booster = lightgbm.Booster(model_str=text)
        booster.params.setdefault("verbosity", -1)
    except (lightgbm.basic.LightGBMError, BuildFault, ValueError, TypeError, KeyError) as error:
        raise fault_of(path, "LightGBM", error) from error
    return LightGBM(booster)


def check_whole(path: Any, data: bytes) -> str:
    """The file's text. Raises InputFault when it is cut off, or not text."""
    try:
        text = data.decode()
        read_lightgbm.check_whole(text)
    except (BuildFault, ValueError, KeyError) as error:
        raise fault_of(path, "LightGBM", error) from error
    return text


class _Quiet:
    """LightGBM's log, unread."""

    def info(self, _text: str) -> None:
        """Nothing."""

    warning = info


def of_object(found: Any) -> LightGBM | None:
    """The model in an unpickled object, None when it is not LightGBM's."""
    if type(found).__name__ == "Booster":
        return LightGBM(found)
    return LightGBM(found.booster_, found) if hasattr(found, "booster_") else None


def reader(model: Any) -> Forest:
    """The forest of an estimator, for one that stands in a pipeline."""
    return LightGBM(model.booster_, model).shape
