"""Models of XGBoost, LightGBM and CatBoost: one ``subject.Subject`` over what each library adds.

Guards: columns go by name where the model has names; a column is text only where the model reads
text; the original is the library itself on raw rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.manifest import Feature, Label, Task, Tensor
from edge_pack import graphs
from edge_pack.answers import Answers, label_indices
from edge_pack.extras import need
from edge_pack.intake import INPUT, Column, Intake, Rows, held_out, listed
from edge_pack.originals import missing
from edge_pack.subject import Converted, Original
from edge_pack.tables import Table
from edge_pack.trees.emit import emit, outputs_of
from edge_pack.trees.form import Forest
from edge_pack.trees.short import short_leaves

Said = tuple[NDArray[Any], NDArray[Any] | None]
"""What a library predicts: labels or values [rows] or [rows, outputs], and probabilities."""


class Model(Protocol):
    """A fitted model of one library.

    Attributes:
        names: of its columns, in its order; () where training had none.
        width: how many columns it takes.
        texts: by position of a column of text, the categories that the model itself keeps.
        labels: () for a regression. probabilities: it gives a probability a label.
        refusals: what the library raises when it refuses rows.
    """

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def width(self) -> int: ...
    @property
    def texts(self) -> Mapping[int, tuple[str, ...]]: ...
    @property
    def task(self) -> Task: ...
    @property
    def labels(self) -> tuple[Label, ...]: ...
    @property
    def probabilities(self) -> bool: ...
    @property
    def refusals(self) -> tuple[type[Exception], ...]: ...

    def ready(self, rows: Rows) -> Callable[[], Said]:
        """A call that asks the library about the rows, which it has been handed already."""

    def forest(self, rows: Rows) -> Forest:
        """The trees. ``rows``: as given, of which some libraries need the texts."""


def read_in_full(model: Model) -> tuple[Task, tuple[Label, ...], tuple[int, ...]]:
    """What a model answers and takes; a file that cannot say so is damaged."""
    return model.task, model.labels, tuple(model.texts)


@dataclass(frozen=True)
class Booster:
    """A loaded model. ``kind``: the form of the file."""

    kind: str
    sha256: str
    model: Model
    hint: ClassVar[str] = ""

    def plan(self, table: Table, target: str, time_column: str) -> Intake:
        """Its columns by name where it has names, else by position."""
        model = self.model
        names = _matched(model, table, held_out(table, target, time_column, model.names))
        columns = tuple(
            Column(name, i in model.texts, model.texts.get(i, ())) for i, name in enumerate(names)
        )
        numbers = tuple(column.name for column in columns if not column.text)
        texts = tuple(column.name for column in columns if column.text)
        tensors = [
            Tensor(name=INPUT, dtype="float64", shape=(None, len(numbers)), features=numbers),
            Tensor(name="text", dtype="string", shape=(None, len(texts)), features=texts),
        ]
        return Intake(columns, tuple(tensor for tensor in tensors if tensor.features))

    def original(self, intake: Intake, rows: Rows) -> BoosterOriginal:
        """The library's own model."""
        return BoosterOriginal(self.model)

    def convert(
        self,
        original: Original,
        intake: Intake,
        rows: Rows,
        features: Sequence[Feature],
        floor: str,
    ) -> Converted:
        """Its trees, emitted exactly; every runtime since 1.15 has the operators.

        Raises BuildFault for what has no exact form, InputFault where the data lacks categories.
        """
        forest = short_leaves(self.model.forest(rows))

        def remake(other: Forest, ml: int) -> Any:
            proto = emit(other, intake.columns, ml=ml).proto
            graphs.tidy(proto, ir_max=proto.ir_version)
            return proto

        emitted = emit(forest, intake.columns)
        graphs.tidy(emitted.proto, ir_max=emitted.proto.ir_version)
        return Converted(
            emitted.proto,
            original.task,
            outputs_of(forest),
            stock_bytes=len(emitted.proto.SerializeToString()),
            tensors=emitted.tensors,
            forest=forest,
            remake=remake,
        )


@dataclass(frozen=True)
class BoosterOriginal:
    """The library's model, answering raw rows."""

    model: Model

    @property
    def task(self) -> Task:
        """As the model's objective says."""
        return self.model.task

    @property
    def labels(self) -> tuple[Label, ...]:
        """In the order of the score columns."""
        return self.model.labels

    @property
    def probabilities(self) -> bool:
        """Whether there is a probability a label."""
        return self.model.probabilities

    def answer(self, rows: Rows) -> Answers:
        """What the library predicts. Raises InputFault when it refuses the rows."""
        try:
            predicted, scores = self.model.ready(rows)()
        except self.model.refusals as error:
            raise _refusal(rows, error) from error
        if self.task != "classification":
            return Answers(values=np.asarray(predicted, np.float64).reshape(rows.count, -1))
        labels = label_indices(predicted, self.labels)
        if scores is None:
            return Answers(labels)
        scores = np.asarray(scores, dtype=np.float64).reshape(rows.count, -1)
        if scores.shape[1] == 1:
            scores = np.concatenate([1 - scores, scores], axis=1)
        return Answers(labels, scores)

    def timed(self, rows: Rows) -> Callable[[], object]:
        """A prediction of the rows, made ready."""
        return self.model.ready(rows)


def _matched(model: Model, table: Table, available: list[str]) -> list[str]:
    """The data's columns in the model's order."""
    names = list(model.names)
    if names and table.unnamed:
        raise InputFault(
            f"the model was trained on named columns ({listed(names)}), but {table.path} has no "
            f"names for its {len(available)} columns",
            advice="Add an array 'columns' with the names to the NPZ file.",
        )
    if not names:
        if len(available) != model.width:
            raise InputFault(
                f"the model takes {model.width} columns, {table.path} has {len(available)}: "
                f"{listed(available)}",
                advice="Name the answer's column with --target, and drop what is no feature.",
            )
        return available
    blank = {"_".join(name.split(" ")): name for name in available}  # as LightGBM writes them
    found = [name if name in available else blank.get(name, name) for name in names]
    lacking = [name for name in found if name not in available]
    if lacking:
        raise InputFault(
            f"{table.path} lacks {listed(lacking)}, which the model was trained on",
            advice=f"It has {listed(available)}.",
        )
    return found


def _refusal(rows: Rows, error: Exception) -> InputFault:
    said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    holes = [name for name, column in rows.columns.items() if missing(column).any()]
    about = f" (values are missing in {listed(holes)})" if holes else ""
    return InputFault(
        f"the original model refuses the rows: {said.strip()[:300]}{about}",
        advice="Give rows as the model was trained on.",
    )


def frame(rows: Rows, names: Sequence[str], categories: Mapping[int, Sequence[Any]]) -> Any:
    """The rows as a data frame under the model's names; some columns as pandas categories."""
    pandas = need("pandas", "asking the original model")
    columns = {}
    for i, (name, column) in enumerate(zip(names, rows.columns.values(), strict=True)):
        if i in categories:
            known = list(categories[i])
            cells = column.tolist()
            if not any(isinstance(item, str) for item in known):
                meant = {float(item): item for item in known}
                none = int(max(meant, default=0)) + 1  # whole, since XGBoost takes no other number
                cells = [None if cell != cell else meant.get(cell, none) for cell in cells]  # noqa: PLR0124
            new = sorted({cell for cell in cells if cell is not None and cell not in known})
            kind = pandas.CategoricalDtype(pandas.Index(known + new))
            columns[name] = pandas.Series(pandas.Categorical(cells, dtype=kind))
        else:
            columns[name] = pandas.Series(column)
    return pandas.DataFrame(columns)


def fault_of(path: Any, library: str, error: Exception) -> InputFault:
    """A file that its library cannot read."""
    said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return InputFault(
        f"{path} is not a model that {library} can read: {said.strip()[:300]}",
        advice=f"The file is damaged, cut off, or of a newer {library} than the one installed "
        "here: copy or save it again, or install the version that wrote it.",
    )
