"""What a person sees of metrics, slices, gates and a baseline."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from edge_contract.manifest import Baseline, Change, Gate, Manifest, Metric

Row = tuple[str, str]


def rows(manifest: Manifest) -> Iterator[Row]:
    """Name and text of every figure of all rows, the gates, and the baseline."""
    for metric in manifest.metrics:
        if not metric.slice:
            yield metric.name + _of_whom(metric, manifest), _figure(metric)
    if manifest.gates:
        yield "gates", _gates(manifest.gates)
    if manifest.baseline is not None:
        yield from _baseline(manifest.baseline)


def _of_whom(metric: Metric, manifest: Manifest) -> str:
    """Which of two labels a figure is of: the last one; of outliers, the outlier."""
    labels = manifest.outputs.labels
    if len(labels) != 2 or metric.name not in ("precision", "recall", "f1"):
        return ""
    return " of outliers" if manifest.task == "outliers" else escape(f" of {labels[-1]}")


def _figure(metric: Metric) -> str:
    span = "" if metric.low is None else f", 95 % {metric.low:.4g} to {metric.high:.4g}"
    return f"{metric.bundle:.5g}{span} (original {metric.original:.5g})"


def _gates(gates: tuple[Gate, ...]) -> str:
    told = []
    for gate in gates:
        got = f" ({gate.got})" if gate.got else ""
        failed = "" if gate.passed else "  FAILED, forced"
        told.append(escape(f"{gate.name} {gate.wanted}{got}{failed}"))
    return "\n".join(told)


def _baseline(found: Baseline) -> Iterator[Row]:
    name = escape(f"{found.name} {found.version}")
    text = f"{found.rows:,} rows"
    if found.judged:
        text += (
            f", {found.changed:,} labels changed: {found.regressions:,} right before and wrong "
            f"now, {found.fixed:,} the reverse"
        )
    yield f"against {name}", text
    for change in found.metrics:
        yield f"  {change.name}", _change(change)


def _change(change: Change) -> str:
    span = "" if change.low is None else f", 95 % {change.low:+.3g} to {change.high:+.3g}"
    apart = change.after - change.before
    return f"{change.before:.5g} -> {change.after:.5g} ({apart:+.3g}{span})"


def slices(manifest: Manifest) -> Table | None:
    """One line a slice, one column a figure, and below each column how far its slices are apart."""
    if not manifest.slices:
        return None
    names = list(dict.fromkeys(m.name for m in manifest.metrics if _is_of_slice(manifest, m)))
    table = Table(box=None, pad_edge=False)
    table.add_column("slice", no_wrap=True)
    for name in ("rows", *names):
        table.add_column(name)
    found = {(metric.name, metric.slice): metric for metric in manifest.metrics}
    for column in dict.fromkeys(piece.column for piece in manifest.slices):
        for piece in manifest.slices:
            if piece.column == column:
                title = escape(piece.name)
                if piece.minimum is not None:
                    title += f" ({piece.minimum:g} to {piece.maximum:g})"
                small = "" if piece.gated else " *"
                cells = [_cell(found.get((name, piece.name))) for name in names]
                table.add_row(title, f"{piece.rows:,}{small}", *cells)
        cells = [_apart(found.get((f"{name}_difference", column))) for name in names]
        if any(cells):
            table.add_row(escape(f"{column}: apart"), "", *cells, end_section=True)
    if not all(piece.gated for piece in manifest.slices):
        table.caption = "* too few rows for a gate"
        table.caption_justify = "left"
    return table


def _is_of_slice(manifest: Manifest, metric: Metric) -> bool:
    return any(metric.slice == piece.name for piece in manifest.slices)


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return "-"
    span = "" if metric.low is None else f" [dim]{metric.low:.3g} to {metric.high:.3g}[/dim]"
    return f"{metric.bundle:.4g}{span}"


def _apart(metric: Metric | None) -> str:
    return "" if metric is None else f"{metric.bundle:.4g}"
