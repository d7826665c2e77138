"""``edge-pack doctor``: each known-bad pattern in a model and its data, and what a build does.

Guards: it says what a build would do because it does the same up to the conversion, through the
same registry of patterns; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as Grid

from edge_contract.errors import EdgeError, InputFault
from edge_pack import asking, graphs, intake, origins, printing, runtimes, sources, tables
from edge_pack.config import BuildConfig
from edge_pack.estimators import patterns
from edge_pack.estimators.patterns import Finding
from edge_pack.frameworks.onnx_ import Graph
from edge_pack.frameworks.sklearn_ import Estimator
from edge_pack.intake import Intake, Rows
from edge_pack.subject import Subject
from edge_pack.tables import Table
from edge_pack.trees import readers

EXIT_REFUSED = 3
"""As of a build that stops (edge_contract.errors.BuildFault)."""
_ORDER = ("refused", "slow", "handled", "note")
FLOAT32_DIGITS = 2.0**-24
"""Half a step of float32, as a share of the value."""


def examine(subject: Subject, table: Table | None, config: BuildConfig) -> list[Finding]:
    """All findings, the gravest first.

    Args:
        table: rows, where there are some: then the model is asked and converted too.
    """
    found = list(_of_subject(subject, config.runtime))
    if table is not None:
        found += _of_rows(subject, table, config)
        if not any(finding.severity == "refused" for finding in found):
            found += _of_conversion(subject, table, config)
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def _of_subject(subject: Subject, floor: str) -> Iterator[Finding]:
    if isinstance(subject, Graph):
        yield from of_graph(subject.proto, floor)
    if isinstance(subject, Estimator):
        last = subject.model
        while hasattr(last, "steps") or hasattr(last, "best_estimator_"):
            last = last.best_estimator_ if hasattr(last, "best_estimator_") else last.steps[-1][1]
        trees = readers.reader_of(last) is not None  # emitted by our own writer
        for finding in patterns.of_model(subject.model):
            own = finding.pattern == f"no-conversion-{type(last).__name__}"
            if not (trees and own):
                yield finding


def _of_conversion(subject: Subject, table: Table, config: BuildConfig) -> Iterator[Finding]:
    """What asking and converting the model come to, which is what a build does."""
    try:
        asked = asking.to_onnx(asking.ask(subject, table, config), config)
    except EdgeError as error:
        yield Finding("build-stops", "model", "refused", error.what, error.advice)
        return
    if any(tensor.dtype == "float64" for tensor in asked.intake.tensors) and not (
        asked.onnx.forest is not None
    ):
        yield Finding(
            "float32-loses-answers", "model", "handled",
            "in float32 an answer to these rows changes",
            "The first steps are computed in float64 in the graph.",
        )  # fmt: skip
    if not isinstance(subject, Graph):
        yield from of_graph(asked.onnx.proto, config.runtime)


def of_graph(proto: Any, floor: str) -> Iterator[Finding]:
    """Patterns in an ONNX graph: operators that devices lack, and what int8 does to it."""
    try:
        graphs.check_known(proto)
    except EdgeError as error:
        yield Finding("custom-operators", "graph", "refused", error.what, error.advice)
    try:
        opsets, ops = graphs.opsets(proto), graphs.operators(proto)
        runtimes.check_floor(floor, int(proto.ir_version), opsets, ops)
    except EdgeError as error:
        yield Finding("newer-than-the-fleet", "graph", "refused", error.what, error.advice)
    for node in graphs.every_node(proto):
        grouped = next((a.i for a in node.attribute if a.name == "group"), 1)
        if node.op_type == "Conv" and grouped > 1:
            yield Finding(
                "depthwise-convolution", node.name or node.op_type, "handled",
                "dynamic int8 was measured 5 points less accurate and 6 times slower on it",
                "Convolutions are never quantized dynamically; int8 has to pass the parity gate.",
            )  # fmt: skip
            break
    control = sorted({n.op_type for n in graphs.every_node(proto)} & {"If", "Loop", "Scan"})
    if control:
        yield Finding(
            "control-flow", ", ".join(control), "note",
            "weights that a subgraph could read are not stored in fewer bits",
            "The model is built; its size shrinks less.",
        )  # fmt: skip
    for value in proto.graph.input:
        extents = value.type.tensor_type.shape.dim
        open_ones = [i for i, e in enumerate(extents) if i and not e.HasField("dim_value")]
        if open_ones:
            yield Finding(
                "dynamic-shape", value.name, "note",
                f"axes {open_ones} of the input are open, so its memory has no fixed bound",
                "Give data of the shapes that devices will send; memory is estimated from them.",
            )  # fmt: skip


def _of_rows(subject: Subject, table: Table, config: BuildConfig) -> Iterator[Finding]:
    """Patterns in the data, and whether the model takes it."""
    try:
        takes = subject.plan(table, config.target, config.time_column)
        rows = intake.read_rows(takes, table)
    except EdgeError as error:
        yield Finding("data-does-not-fit", str(table.path), "refused", error.what, error.advice)
        return
    yield from of_columns(takes, rows)


def of_columns(takes: Intake, rows: Rows) -> Iterator[Finding]:
    """Patterns in rows: offsets, columns without content, unknown categories, missing values."""
    for column in takes.columns:
        values = rows.columns[column.name]
        if column.text:
            yield from _of_texts(column.name, column.known, values)
        else:
            yield from _of_numbers(column.name, values)


def _of_texts(name: str, known: Sequence[str], values: NDArray[Any]) -> Iterator[Finding]:
    strange = sorted({str(item) for item in values.tolist() if item} - set(known))
    if known and strange:
        yield Finding(
            "unseen-category", name, "note",
            f"{len(strange)} categories that the model never saw, such as {strange[0][:40]!r}",
            "The bundle answers them as the model does; if it refuses them, so does the build.",
        )  # fmt: skip


def _of_numbers(name: str, values: NDArray[Any]) -> Iterator[Finding]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        yield Finding(
            "all-missing", name, "note", "every value is missing",
            "Its range and drift cannot be known: give rows where it is there, or drop it.",
        )  # fmt: skip
        return
    if finite.size < len(values):
        yield Finding(
            "missing-values", name, "note",
            f"{len(values) - finite.size} of {len(values)} values are missing",
            "Devices may leave it out where the model takes missing values; else a build stops.",
        )  # fmt: skip
    distinct = np.unique(finite)
    if len(distinct) == 1:
        yield Finding(
            "constant-column", name, "note", f"always {distinct[0]:g}",
            "Any other value on a device is drift at once: give rows where it varies.",
        )  # fmt: skip
        return
    finest = float(np.diff(distinct).min())
    if finest < 2 * FLOAT32_DIGITS * float(np.abs(finite).max()):
        yield Finding(
            "large-offset", name, "handled",
            f"values up to {np.abs(finite).max():g} differ by {finest:g}, which float32 drops",
            "Trees are cut on the data's own grid; other models are computed in float64 where "
            "float32 changes an answer.",
        )  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command ``doctor``."""

    @app.command()
    def doctor(
        *,
        model: Annotated[str, typer.Argument(metavar="MODEL", help="As for build.")],
        data: Annotated[Path | None, typer.Option(help="Rows as for build.")] = None,
        target: Annotated[str, typer.Option(help="Column with the true answer.")] = "",
        time_column: Annotated[str, typer.Option(help="Column that orders the rows.")] = "",
        runtime: Annotated[str, typer.Option(help="The oldest ONNX Runtime.")] = ">=1.18",
        trust: Annotated[bool, typer.Option("--trust", help="As for build.")] = False,
        json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """List what is known to go wrong with a model, and what a build does about it.

        Exit code 3 when a build would be refused.

        Example: edge-pack doctor pump.joblib --data rows.csv --target failed
        """
        console = printing.console()
        found = _read_and_examine(
            model, data, runtime=runtime, target=target, time_column=time_column, trust=trust
        )
        if json:
            typer.echo(printing.to_json([_object(finding) for finding in found]))
        else:
            _show(console, found)
        if any(finding.severity == "refused" for finding in found):
            raise typer.Exit(EXIT_REFUSED)


def _read_and_examine(
    model: str, data: Path | None, *, runtime: str, target: str, time_column: str, trust: bool
) -> list[Finding]:
    errors = Console(stderr=True)

    def notice(text: str) -> None:
        errors.print(f"notice: {text}", markup=False, highlight=False, soft_wrap=True)

    config = BuildConfig(
        model=model, data=data, name="doctor", version="0", out=Path("doctor.edgepack"),
        runtime=runtime, target=target, time_column=time_column, trust=trust, measure=False,
    )  # fmt: skip
    with origins.resolve(config.model, notice) as origin:
        try:
            subject = sources.load(origin, notice, trust=trust)
        except InputFault as error:
            if "ONNX" not in error.what and "operator" not in error.what:
                raise
            return [Finding("not-loadable", model, "refused", error.what, error.advice)]
        table = tables.read(data) if data is not None else None
        return examine(subject, table, config)


def _object(finding: Finding) -> dict[str, str]:
    return {
        "pattern": finding.pattern, "where": finding.where, "severity": finding.severity,
        "what": finding.what, "action": finding.action,
    }  # fmt: skip


def _show(console: Console, found: Sequence[Finding]) -> None:
    if not found:
        console.print("no known-bad pattern found")
        return
    grid = Grid("", "where", "what", "what is done")
    for finding in found:
        grid.add_row(finding.severity, finding.where, finding.what, finding.action)
    console.print(grid, markup=False)
