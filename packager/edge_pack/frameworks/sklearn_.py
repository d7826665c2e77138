"""A fitted scikit-learn estimator or pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_contract.errors import InputFault
from edge_contract.manifest import Feature, Tensor
from edge_pack import convert, originals
from edge_pack.intake import INPUT, Column, Intake, Rows, held_out, listed
from edge_pack.originals import EstimatorOriginal
from edge_pack.steps import (
    float32_hint,
    free_text,
    ignored_columns,
    reads_names,
    reads_one_text,
    text_columns,
)
from edge_pack.subject import Converted, Original
from edge_pack.tables import Table


@dataclass(frozen=True)
class Estimator:
    """A fitted estimator. ``kind``: joblib, pickle or skops."""

    kind: str
    sha256: str
    model: Any

    @property
    def hint(self) -> str:
        """What to do where float32 loses what the model needs."""
        return float32_hint(self.model)

    def plan(self, table: Table, target: str, time_column: str) -> Intake:
        """Its columns by name where it has names; text only where the fitted model reads text."""
        named = [str(name) for name in getattr(self.model, "feature_names_in_", ())]
        return _plan(self.model, table, held_out(table, target, time_column, named), named)

    def original(self, intake: Intake, rows: Rows) -> EstimatorOriginal:
        """The estimator itself."""
        text = any(column.text for column in intake.columns)
        return originals.of_estimator(self.model, rows, text=text)

    def convert(
        self,
        original: Original,
        intake: Intake,
        rows: Rows,
        features: Sequence[Feature],
        floor: str,
    ) -> Converted:
        """See ``convert.from_estimator``."""
        assert isinstance(original, EstimatorOriginal)
        return convert.from_estimator(original, intake, rows, features, floor)


def _plan(model: Any, table: Table, available: list[str], named: list[str]) -> Intake:
    names = named
    width = int(getattr(model, "n_features_in_", len(names) or len(available)))
    if names and table.unnamed:
        raise InputFault(
            f"the model was trained on named columns ({listed(names)}), but {table.path} has no "
            f"names for its {len(available)} columns",
            advice="Add an array 'columns' with the names to the NPZ file.",
        )
    if not width:
        raise InputFault(
            "the model takes no columns, so it answers the same whatever it is sent",
            advice="Train it on at least one feature.",
        )
    if not names:
        if reads_one_text(model):
            width = 1
        if len(available) != width:
            raise InputFault(
                f"the model takes {width} columns, {table.path} has {len(available)}: "
                f"{listed(available)}",
                advice="Name the answer's column with --target, and drop what is no feature.",
            )
        names = available
    missing = [name for name in names if name not in available]
    if missing:
        raise InputFault(
            f"{table.path} lacks {listed(missing)}, which the model was trained on",
            advice=f"It has {listed(available)}.",
        )
    texts = text_columns(model, names)
    ignored = ignored_columns(model, names)
    for name in ignored:  # nothing is known of them but what the data shows
        if not table.is_numeric(name):
            texts[name] = ()
    free = free_text(model, names)
    columns = tuple(
        Column(name, name in texts, texts.get(name, ()), name in free, free.get(name, False))
        for name in names
    )
    if not texts and not reads_names(model):
        tensor = Tensor(name=INPUT, dtype="float32", shape=(None, width), features=tuple(names))
        return Intake(columns, (tensor,))
    tensors = tuple(
        Tensor(
            name=column.name,
            dtype="string" if column.text else "float32",
            shape=(None, 1),
            features=(column.name,),
        )
        for column in columns
    )
    return Intake(columns, tensors)
