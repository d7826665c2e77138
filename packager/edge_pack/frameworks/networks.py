"""What networks of every framework share: feeding raw rows, asking in batches, the row axis.

Guards: the original is fed by code of its own (a plain cast), never through the agent's; it is
asked in batches of several sizes, so that a bundle which mixes rows up differs from it; whether
the first axis is rows is tried out, never believed of a declared shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault, EdgeError, InputFault
from edge_contract.manifest import Label, Outputs, Task, Tensor
from edge_pack.answers import Answers
from edge_pack.frameworks.meaning import Arrays, Meaning
from edge_pack.intake import Column, Intake, Rows, listed
from edge_pack.tables import Table

Run = Callable[[Arrays], dict[str, NDArray[Any]]]
"""Input tensors by name to output tensors by name, in the graph's order."""

_FIRST_BATCHES = (1, 2, 3)
_CHUNK_ROWS = 1024
_ALIKE = 0.05
"""A row beside another one may differ by this share of the outputs' spread from the row alone:
int8 activations are scaled by the whole batch."""
_SAME = 1e-3
"""A row beside itself may not: only steps in time do, where the first leaves its trace."""


@dataclass(frozen=True)
class NetworkOriginal:
    """A network as it was handed in, run by its own framework.

    Attributes:
        exported: its graph, where it is none itself.
    """

    run: Run
    intake: Intake
    meaning: Meaning
    exported: Any = None

    @property
    def task(self) -> Task:
        """As read off the graph or declared."""
        return self.meaning.task

    @property
    def outputs(self) -> Outputs:
        """Of the bundle."""
        return self.meaning.outputs

    @property
    def note(self) -> str:
        """What the user may want to declare, or ""."""
        return self.meaning.note

    @property
    def labels(self) -> tuple[Label, ...]:
        """In the order of the score columns."""
        return self.meaning.outputs.labels

    @property
    def probabilities(self) -> bool:
        """Whether there is a score a label."""
        return bool(self.meaning.outputs.scores)

    def answer(self, rows: Rows) -> Answers:
        """What the network says to raw rows, asked in batches of 1, 2, 3, then many.

        Raises InputFault when it refuses them.
        """
        found: Answers | None = None
        for part in _batches(rows, self.intake):
            answers = self.meaning.read(self.run(feeds(self.intake, part)))
            if answers.rows != part.count and self.intake.batch != "whole":
                raise BuildFault(
                    f"the original answers {answers.rows} rows for {part.count}",
                    advice="Its outputs must have the same first axis as its inputs.",
                )
            found = answers if found is None else found.followed_by(answers)
        assert found is not None
        return found

    def timed(self, rows: Rows) -> Callable[[], object]:
        """A run of the network over the rows; one run a row where it takes one at a time."""
        if self.intake.batch == "single":
            each = [feeds(self.intake, part) for part in _batches(rows, self.intake)]
            return lambda: [self.run(ready) for ready in each]
        ready = feeds(self.intake, rows)
        return lambda: self.run(ready)


def _batches(rows: Rows, intake: Intake) -> Iterator[Rows]:
    if intake.batch == "whole":
        yield rows
        return
    start, turn = 0, 0
    while start < rows.count:
        size = _FIRST_BATCHES[turn] if turn < len(_FIRST_BATCHES) else _CHUNK_ROWS
        size = 1 if intake.batch == "single" else size
        yield rows.take(np.arange(start, min(start + size, rows.count)))
        start, turn = start + size, turn + 1


def feeds(intake: Intake, rows: Rows) -> dict[str, NDArray[Any]]:
    """The input tensors for raw rows, each number cast to its tensor's type.

    Raises InputFault for a value that the type cannot hold.
    """
    found = {}
    for tensor in intake.tensors:
        if not tensor.features:
            found[tensor.name] = cast(tensor, rows.tensors[tensor.name])
            continue
        columns = [rows.columns[name] for name in tensor.features]
        if tensor.dtype == "string":
            texts = [["" if item is None else item for item in c.tolist()] for c in columns]
            found[tensor.name] = np.array(texts, dtype=object).T
        else:
            found[tensor.name] = cast(tensor, np.column_stack(columns))
    return found


def cast(tensor: Tensor, array: NDArray[Any]) -> NDArray[Any]:
    """The array in the tensor's type. Raises InputFault for a value that it cannot hold."""
    if tensor.dtype == "string":
        return np.array([str(item) for item in array.ravel().tolist()], dtype=object).reshape(
            array.shape
        )
    dtype = np.dtype(tensor.dtype)
    if array.dtype.kind not in "biuf":
        raise InputFault(f"input {tensor.name!r} takes {tensor.dtype}, the data holds text")
    with np.errstate(over="ignore", invalid="ignore"):
        made = array.astype(dtype)
        same = np.isfinite(made) == np.isfinite(array) if dtype.kind == "f" else made == array
    if not np.all(same):
        value = array[~same].ravel()[0]
        raise InputFault(
            f"input {tensor.name!r} takes {tensor.dtype}, which cannot hold {value:g}",
            advice="Round or scale the values as the model was trained on them.",
        )
    return made


def columns_of(tensors: tuple[Tensor, ...], table: Table, available: list[str]) -> Intake:
    """Rank-2 tensors filled from the table's columns: one for all, or one a column.

    Raises InputFault when columns cannot fill them.
    """
    for tensor in tensors:
        if len(tensor.shape) != 2 or tensor.shape[0] is not None:
            shape = ", ".join("any" if extent is None else str(extent) for extent in tensor.shape)
            raise InputFault(
                f"input {tensor.name!r} has shape [{shape}]; a table's columns fill [any, columns]",
                advice="Give an .npz file with one array for each input tensor, or export the "
                "model with a dynamic first axis.",
            )
    if len(tensors) == 1:
        (tensor,) = tensors
        width = tensor.shape[1]
        if width is not None and width != len(available):
            raise InputFault(
                f"input {tensor.name!r} takes {width} columns, {table.path} has "
                f"{len(available)}: {listed(available)}",
                advice="Name the answer's column with --target, and drop what is no feature.",
            )
        names = tuple(available)
        text = tensor.dtype == "string"
        filled = Tensor(name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, features=names)
        return Intake(tuple(Column(name, text) for name in names), (filled,))
    wide = [tensor.name for tensor in tensors if tensor.shape[1] not in (1, None)]
    missing = [tensor.name for tensor in tensors if tensor.name not in available]
    if wide or missing:
        raise InputFault(
            f"the model has {len(tensors)} inputs; {listed(wide or missing)} "
            + ("take more than one column" if wide else f"are no columns of {table.path}"),
            advice="Give an .npz file with one array for each input tensor.",
        )
    return Intake(
        tuple(Column(tensor.name, tensor.dtype == "string") for tensor in tensors),
        tuple(
            Tensor(name=t.name, dtype=t.dtype, shape=t.shape, features=(t.name,)) for t in tensors
        ),
    )


def with_row_axis(intake: Intake, tensors: Mapping[str, NDArray[Any]], run: Run) -> Intake:
    """The intake with its ``batch`` corrected by trial: two rows at once, and each alone.

    Raises InputFault when the model takes one row but not two, or none at all.
    """
    if intake.columns or intake.batch != "rows":
        return intake
    taken = {tensor.name: cast(tensor, tensors[tensor.name]) for tensor in intake.tensors}
    count = len(next(iter(taken.values())))

    def taking(where: list[int]) -> dict[str, NDArray[Any]]:
        return run({name: array[where] for name, array in taken.items()})

    first, last = taking([0]), taking([count - 1])
    try:
        pairs = ((taking([0, count - 1]), (first, last), _ALIKE),
                 (taking([count - 1, count - 1]), (last, last), _SAME))  # fmt: skip
    except EdgeError as error:
        if count == 1:  # nobody showed that its first axis is rows
            return replace(intake, batch="whole")
        raise InputFault(
            f"the model takes one row at a time, although its inputs' first axis is open: {error}",
            advice="Export it with a dynamic first axis throughout, or with that axis fixed at 1.",
        ) from error
    by_row = all(
        _alike(together[name], [one[name] for one in apart], share)
        for together, apart, share in pairs
        for name in together
    )
    return intake if by_row else replace(intake, batch="whole")


def _alike(together: NDArray[Any], apart: Sequence[NDArray[Any]], share: float) -> bool:
    """Whether two rows at once give what each gives alone."""
    if together.ndim == 0 or len(together) != 2 or any(len(part) != 1 for part in apart):
        return False
    if any(part.shape[1:] != together.shape[1:] for part in apart):
        return False
    alone = np.concatenate(apart)
    if together.dtype.kind != "f":
        return bool(np.array_equal(together, alone))
    wide = alone.astype(np.float64)
    room = share * float(np.nanstd(wide)) + 1e-6 if wide.size else 0.0
    return bool(np.allclose(together, wide, rtol=share, atol=room, equal_nan=True))


def sample_of(intake: Intake, rows: Rows, run: Run) -> dict[str, NDArray[Any]]:
    """Outputs for the first rows: shapes and types that a graph need not state."""
    if intake.batch == "whole":
        return run(feeds(intake, rows))
    few = 1 if intake.batch == "single" else 2
    return run(feeds(intake, rows.take(np.arange(few) % rows.count)))
