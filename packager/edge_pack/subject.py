"""What every framework offers a build: one way to load, feed, ask and convert a model.

Guards: the build, the parity gate and the papers know models through these ports alone; what a
framework is called stands in its own module under ``frameworks``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from edge_contract.manifest import Feature, Label, Outputs, Task, Tensor
from edge_pack.answers import Answers
from edge_pack.intake import Intake, Rows
from edge_pack.tables import Table


@dataclass(frozen=True)
class Converted:
    """An ONNX model and what its outputs mean.

    Attributes:
        proto: tidy (``graphs.tidy``), of float32 unless it had to be otherwise.
        stock_bytes: size of what the stock converter or exporter gave; of ``proto`` where there
            is none.
        tensors: the input tensors where they differ from the planned ones, else None.
        forest: the tree form (``trees.form.Forest``) that the model was emitted from, or None.
        remake: ``proto`` from another forest of the same columns and outputs, in a version of
            ai.onnx.ml; None without one.
    """

    proto: Any
    task: Task
    outputs: Outputs
    stock_bytes: int
    tensors: tuple[Tensor, ...] | None = None
    forest: Any = None
    remake: Callable[[Any, int], Any] | None = None


class Original(Protocol):
    """The model as it was handed in: what the bundle is compared with.

    It sees raw rows as its training did (names, float64, text as text), and is never asked
    through anything of ours that could share a mistake with the bundle.

    Attributes:
        labels: in the order of the score columns; () for a task without labels.
        probabilities: it gives a probability a label.
    """

    @property
    def task(self) -> Task: ...
    @property
    def labels(self) -> tuple[Label, ...]: ...
    @property
    def probabilities(self) -> bool: ...

    def answer(self, rows: Rows) -> Answers:
        """Predictions for raw rows. Raises InputFault when the model refuses them."""

    def timed(self, rows: Rows) -> Callable[[], object]:
        """A call that predicts the rows, made ready, as often as it is called."""


class Subject(Protocol):
    """A loaded model.

    Attributes:
        kind: the form it was loaded from, such as ``joblib`` or ``onnx``; goes into provenance.
        sha256: of the file as given.
        hint: what the model's structure suggests to do where parity fails, or "".
    """

    @property
    def kind(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def hint(self) -> str: ...

    def plan(self, table: Table, target: str, time_column: str) -> Intake:
        """What the model takes, given the data's columns (``intake.held_out`` checks the two).

        Raises InputFault when the data lacks a column or a tensor that the model needs.
        """

    def original(self, intake: Intake, rows: Rows) -> Original:
        """The model, ready to answer rows like the given ones.

        Raises BuildFault when it predicts nothing that a bundle can carry.
        """

    def convert(
        self,
        original: Original,
        intake: Intake,
        rows: Rows,
        features: Sequence[Feature],
        floor: str,
    ) -> Converted:
        """The model as ONNX that a runtime no older than ``floor`` can run.

        Args:
            original: what ``original`` returned. rows: the given rows.
            features: what those rows show of each column (range, resolution, categories).

        Raises BuildFault naming the step that does not convert, and the way out.
        """


@runtime_checkable
class Draws(Protocol):
    """A subject that knows its inputs' shapes and types, so that it builds without data."""

    def draw(self) -> Table:
        """Inputs drawn from them, the same every time (``Table.drawn`` is set).

        Raises InputFault when the model accepts none that were drawn.
        """
