"""Tensors out of the model become predictions: a label, probabilities by label, or a value.

Guards: every figure that leaves here is finite; a label is one that the manifest declares; the
decision threshold of a two-class model is applied in this one place. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from numpy.typing import NDArray

from edge_contract.errors import InputFault, MachineFault
from edge_contract.manifest import Label, Manifest

NO_LABEL = -1
Look = Callable[[Sequence[NDArray[Any]]], "tuple[int, list[float]] | None"]
"""Index of one row's label, and its scores."""


class Prediction(Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """The answer for one row.

    Attributes:
        label: of a classifier, a clustering or an outlier model.
        probabilities: by ``str(label)``, in the manifest's order.
        value: of a regression.
        outputs: every output tensor of a model without declared meaning.
        id: what a label that comes later refers to, where an agent gave one.
        calibrated: the label's probability by the labels that came on this device, where it is
            calibrated; ``probabilities`` are the model's own in any case.
    """

    label: Label | None = None
    probabilities: dict[str, float] = {}
    value: float | None = None
    outputs: dict[str, NDArray[Any]] = {}
    id: str | None = None
    calibrated: float | None = None

    @property
    def score(self) -> float | None:
        """The label's probability; None where there is none."""
        return self.probabilities.get(str(self.label))

    def flat(self) -> dict[str, Label]:
        """One row of a table: ``label``, ``value`` and ``probability_<label>``, those there are.

        ``pandas.DataFrame(p.flat() for p in model.predict(table))``. Tensors without declared
        meaning are no row of a table, and left out.
        """
        row: dict[str, Label] = {} if self.label is None else {"label": self.label}
        if self.value is not None:
            row["value"] = self.value
        row.update((f"probability_{name}", score) for name, score in self.probabilities.items())
        return row


def listed(found: Prediction | list[Prediction]) -> list[Prediction]:
    """The answers as a list, also where there was one row."""
    return found if isinstance(found, list) else [found]


class Reading(Struct, frozen=True, gc=False):
    """Predictions, and what telemetry counts of them.

    Attributes:
        labels: index of each row's label in the manifest's labels, -1 for none.
        scores: its score a row (for two labels: of the last one), or the value; NaN for none.
    """

    predictions: list[Prediction]
    labels: Sequence[int]
    scores: Sequence[float]


class Outputs:
    """Reads a model's output tensors as one manifest declares them.

    Raises InputFault when the manifest names a tensor that the model does not have.

    Args:
        tensors: names of the model's outputs in order.
    """

    def __init__(self, manifest: Manifest, tensors: Sequence[str]) -> None:
        declared = manifest.outputs
        self._tensors = tuple(tensors)
        self._label = _position(declared.label, tensors)
        self._scores = _position(declared.scores, tensors)
        self._value = _position(declared.value, tensors)
        self._labels = declared.labels
        self._keys = tuple(str(label) for label in declared.labels)
        if len(set(self._keys)) != len(self._keys):
            raise InputFault(f"two labels of one name: {', '.join(self._keys[:20])}")
        self._where = {label: i for i, label in enumerate(declared.labels)}
        self._threshold = declared.threshold if len(declared.labels) == 2 else None
        self._look: Look | None = None
        self.read = self._plan()
        """Interpret the output arrays, in the order of ``tensors``, for a number of rows.

        Raises MachineFault when the model answered NaN, infinity, another number of rows, or a
        label that the manifest does not know.
        """

    def figures(self, outputs: Sequence[NDArray[Any]]) -> tuple[int, float]:
        """One row's label and score, as ``Reading`` has them. Raises as ``read``.

        For who answers with the tensors themselves: no prediction is made where that is quick.
        """
        found = self._look(outputs) if self._look is not None else None
        if found is None:
            reading = self.read(outputs, 1)
            return reading.labels[0], reading.scores[0]
        index, scores = found
        return index, scores[1 if len(scores) == 2 else index]

    @property
    def keeps_arrays(self) -> bool:
        """Predictions hold the model's own arrays, not figures taken from them."""
        return self._scores is None and self._label is None and self._value is None

    def _plan(self) -> Callable[[Sequence[NDArray[Any]], int], Reading]:
        if self._scores is not None:
            return self._classify if self._value is not None else self._plan_quick()
        if self._label is not None:
            return self._label_only
        if self._value is not None:
            return self._regress
        return self._whole

    def _plan_quick(self) -> Callable[[Sequence[NDArray[Any]], int], Reading]:
        """A classifier's reader that is quick with one row: no loop, few calls."""
        slow, look = self._classify, self._plan_look()
        labels, keys = self._labels, self._keys
        two = len(keys) == 2
        self._look = look

        def read(outputs: Sequence[NDArray[Any]], rows: int) -> Reading:
            found = look(outputs) if rows == 1 else None
            if found is None:
                return slow(outputs, rows)
            index, scores = found
            if two:
                named = {keys[0]: scores[0], keys[1]: scores[1]}
                return Reading([Prediction(labels[index], named)], (index,), (scores[1],))
            named = dict(zip(keys, scores, strict=True))
            return Reading([Prediction(labels[index], named)], (index,), (scores[index],))

        return read

    def _plan_look(self) -> Look:
        """What a classifier says of one row; None where ``_classify`` has to look."""
        at, label_at = self._scores, self._label
        count, where, threshold = len(self._keys), self._where, self._threshold
        isfinite = math.isfinite
        assert at is not None
        if threshold is not None:
            label_at = None

        def look(outputs: Sequence[NDArray[Any]]) -> tuple[int, list[float]] | None:
            table = outputs[at].tolist()
            if len(table) != 1:
                return None
            scores: list[float] = table[0]
            if len(scores) != count or not isfinite(sum(scores)):
                return None
            if label_at is not None:
                given = outputs[label_at]
                index = where.get(given.item(), NO_LABEL) if given.size == 1 else NO_LABEL
                return (index, scores) if index >= 0 else None
            if threshold is not None:
                return 1 if scores[1] >= threshold else 0, scores
            return scores.index(max(scores)), scores

        return look

    def _classify(self, outputs: Sequence[NDArray[Any]], rows: int) -> Reading:
        assert self._scores is not None
        table = outputs[self._scores].tolist()
        given = outputs[self._label].reshape(-1).tolist() if self._label is not None else None
        if len(table) != rows or (given is not None and len(given) != rows):
            raise _wrong_rows(len(table), rows)
        keys, labels, pick = self._keys, self._labels, self._pick
        two = len(keys) == 2
        predictions: list[Prediction] = []
        indices: list[int] = []
        kept: list[float] = []
        for i, scores in enumerate(table):
            index = pick(scores, None if given is None else given[i], i)
            named = (
                {keys[0]: scores[0], keys[1]: scores[1]}
                if two
                else dict(zip(keys, scores, strict=True))
            )
            predictions.append(Prediction(labels[index], named))
            indices.append(index)
            kept.append(scores[1] if two else scores[index])
        if self._value is not None:
            predictions = self._with_values(predictions, outputs)
        return Reading(predictions, indices, kept)

    def _pick(self, scores: list[float], given: Label | None, row: int) -> int:
        """Index of the row's label: by the threshold, by the model's own, or the best score's."""
        if len(scores) != len(self._keys):
            raise MachineFault(
                f"the model answered {len(scores)} scores for {len(self._keys)} labels",
                code="answer",
            )
        if not math.isfinite(sum(scores)):
            _check_finite(scores, row)
        if self._threshold is not None:
            return int(scores[1] >= self._threshold)
        if given is not None:
            return self._index(given)
        return scores.index(max(scores))

    def _label_only(self, outputs: Sequence[NDArray[Any]], rows: int) -> Reading:
        """Clusters and outliers: a label, and a value where there is one (a distance)."""
        assert self._label is not None
        given = outputs[self._label].reshape(-1).tolist()
        if len(given) != rows:
            raise _wrong_rows(len(given), rows)
        if self._labels:
            indices = [self._index(label) for label in given]
            predictions = [Prediction(self._labels[index]) for index in indices]
        else:
            indices = [label if isinstance(label, int) else NO_LABEL for label in given]
            predictions = [Prediction(label) for label in given]
        if self._value is None:
            return Reading(predictions, indices, [math.nan] * rows)
        values = self._values(outputs, rows)
        return Reading(self._with_values(predictions, outputs), indices, values)

    def _regress(self, outputs: Sequence[NDArray[Any]], rows: int) -> Reading:
        values = self._values(outputs, rows)
        return Reading([Prediction(value=value) for value in values], [NO_LABEL] * rows, values)

    def _whole(self, outputs: Sequence[NDArray[Any]], rows: int) -> Reading:
        """A model whose tensors mean nothing declared: one prediction with all of them."""
        named = dict(zip(self._tensors, outputs, strict=True))
        return Reading([Prediction(outputs=named)], [NO_LABEL] * rows, [math.nan] * rows)

    def _values(self, outputs: Sequence[NDArray[Any]], rows: int) -> list[float]:
        assert self._value is not None
        values: list[float] = outputs[self._value].reshape(-1).tolist()
        if len(values) != rows:
            raise _wrong_rows(len(values), rows)
        if not math.isfinite(sum(values)):
            for i, value in enumerate(values):
                _check_finite((value,), i)
        return values

    def _with_values(
        self, predictions: list[Prediction], outputs: Sequence[NDArray[Any]]
    ) -> list[Prediction]:
        values = self._values(outputs, len(predictions))
        return [
            Prediction(one.label, one.probabilities, value)
            for one, value in zip(predictions, values, strict=True)
        ]

    def _index(self, label: Label) -> int:
        index = self._where.get(label)
        if index is None:
            raise MachineFault(
                f"the model answered the label {label!r}, which its manifest does not know",
                code="answer",
            )
        return index


def _position(name: str, tensors: Sequence[str]) -> int | None:
    if not name:
        return None
    if name not in tensors:
        raise InputFault(f"the manifest names the output {name!r}, the model has none of that name")
    return list(tensors).index(name)


def _wrong_rows(got: int, rows: int) -> MachineFault:
    return MachineFault(f"the model answered {got} rows for {rows}", code="answer")


def _check_finite(values: Sequence[float], row: int) -> None:
    """Raise MachineFault for NaN and infinity; a sum may overflow without one."""
    for value in values:
        if not math.isfinite(value):
            raise MachineFault(
                f"the model answered {value} for row {row}, not a number", code="not-finite"
            )
