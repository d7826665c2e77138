"""What the commands print: tables for a person, plain objects for ``--json``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge_agent.outputs import Prediction
from edge_contract.bundle import Bundle
from edge_contract.manifest import Calibration, Manifest, Provenance
from edge_contract.profile import Profile
from edge_pack import power_printing, reading
from edge_pack.building import Built
from edge_pack.gates import show
from edge_pack.measure import CandidateFigures, Measured, Searched

SHOWN_ROWS = 20
BUILT_POWER_ROWS = 8
NARROW = 118
"""Columns of a terminal under which the search's table leaves out what can be asked for."""
_UNBOUNDED = 200


def console() -> Console:
    """Standard output: a terminal's own width; a pipe or a file has room for every column."""
    found = Console(soft_wrap=True)
    if found.is_terminal or "COLUMNS" in os.environ:
        return found
    return Console(soft_wrap=True, width=_UNBOUNDED)


def to_json(value: object) -> str:
    """One line of JSON."""
    return msgspec.json.encode(value).decode()


def built_object(built: Built) -> dict[str, Any]:
    """What ``build --json`` prints."""
    return {
        "path": str(built.config.out),
        "digest": built.digest,
        "size_bytes": built.size_bytes,
        "signed": built.signed,
        "sizes": built.sizes,
        "search": built.search,
        "stages_s": built.stages_s,
        "notices": built.notices,
        "data": built.data,
        "manifest": built.manifest,
        "power": power_printing.plain(built.profile),
        "measured": built.measured,
    }


def bundle_object(
    bundle: Bundle, size_bytes: int, measured: Measured | None, rows_per_hour: float = 0.0
) -> dict[str, Any]:
    """What ``inspect --json`` prints."""
    return {
        "digest": bundle.digest,
        "size_bytes": size_bytes,
        "signed": bool(bundle.signature),
        "manifest": bundle.manifest,
        "power": power_printing.plain(reading.profile_of(bundle), rows_per_hour),
        "measured": measured,
    }


def prediction_object(prediction: Prediction) -> dict[str, Any]:
    """One line of ``predict --json``: label and probabilities, or value, or outputs."""
    found: dict[str, Any] = {}
    if prediction.label is not None:
        found["label"] = prediction.label
    if prediction.probabilities:
        found["probabilities"] = prediction.probabilities
    if prediction.value is not None:
        found["value"] = prediction.value
    if prediction.outputs:
        found["outputs"] = {
            name: np.asarray(tensor).tolist() for name, tensor in prediction.outputs.items()
        }
    return found


def show_built(console: Console, built: Built) -> None:
    """Sizes, parity, quality and speed of a fresh bundle."""
    manifest = built.manifest
    table = _grid()
    model, stock = manifest.files[0], manifest.compression.stock_bytes
    table.add_row(
        f"model, {manifest.compression.mode}",
        f"{model.size:,} B stored, {model.size / stock:.1%} of the plain ONNX's {stock:,} B",
    )
    others = ", ".join(f"{file.name} {file.size:,} B" for file in manifest.files if file != model)
    table.add_row("bundle", f"{built.size_bytes:,} B with {others}")
    _add_parity(table, manifest)
    for name, text in show.rows(manifest):
        table.add_row(name, text)
    if built.profile is not None and (found := power_printing.sentence(built.profile)):
        table.add_row("drift", escape(found))
    if built.measured:
        _add_measured(table, built.measured)
    seconds = ", ".join(f"{name} {took:.2f}" for name, took in built.stages_s.items())
    table.add_row("seconds", seconds)
    table.add_row("signature", "signed" if built.signed else "none (pass --keys to sign)")
    console.print(f"[bold]{manifest.name} {manifest.version}[/bold] -> {built.config.out}")
    if built.search is not None and len(built.search.candidates) > 1:
        console.print(search_table(built.search, console.width))
    console.print(table)
    _print_digest(console, built.digest)
    _print_power(console, built.profile, BUILT_POWER_ROWS)
    _print_slices(console, manifest)


def show_bundle(
    console: Console,
    bundle: Bundle,
    size: int,
    measured: Measured | None,
    rows_per_hour: float = 0.0,
) -> None:
    """What a bundle says of itself."""
    manifest, table = bundle.manifest, _grid()
    table.add_row("task", manifest.task)
    table.add_row("signature", "there" if bundle.signature else "none")
    table.add_row("bundle", f"{size:,} B")
    for file in manifest.files:
        table.add_row(file.name, f"{file.size:,} B stored, {file.raw_size:,} B decoded")
    runtime = manifest.runtime
    opsets = ", ".join(f"{name or 'ai.onnx'} {v}" for name, v in runtime.opsets.items())
    table.add_row("needs", f"ONNX Runtime {runtime.onnxruntime} (IR {runtime.ir}, {opsets})")
    table.add_row("memory", f"about {runtime.ram_bytes / 1e6:.1f} MB")
    compression = manifest.compression
    changed = f", {compression.tensors} tensors" if compression.tensors else ""
    table.add_row("storage", f"{compression.mode}{changed}")
    _add_parity(table, manifest)
    for name, text in show.rows(manifest):
        table.add_row(name, text)
    if measured:
        _add_measured(table, measured)
    labels = ", ".join(str(label) for label in manifest.outputs.labels[:12])
    if labels:
        table.add_row(
            "labels", escape(labels) + (" ..." if len(manifest.outputs.labels) > 12 else "")
        )
    _add_origin(table, manifest.provenance)
    for name, text in (
        ("licence", manifest.licence),
        ("intended use", manifest.intended_use),
        ("calibration", _calibration(manifest.calibration)),
    ):
        if text:
            table.add_row(name, escape(text))
    console.print(f"[bold]{manifest.name} {manifest.version}[/bold]")
    _print_digest(console, bundle.digest)
    console.print(table)
    if measured and measured.search is not None and len(measured.search.candidates) > 1:
        console.print(search_table(measured.search, console.width))
    _print_slices(console, manifest)
    if manifest.features:
        console.print(_features(manifest))
    _print_power(console, reading.profile_of(bundle), SHOWN_ROWS, rows_per_hour)


def _calibration(bounds: Calibration | None) -> str:
    if bounds is None:
        return ""
    return f"scores on a device by up to {bounds.max_shift:g}, from {bounds.min_labels} labels on"


def _add_origin(table: Table, source: Provenance) -> None:
    table.add_row("from", f"{source.source_type} {source.source_sha256[:12]}...")
    if source.data_sha256:
        table.add_row("data", f"{source.data_rows:,} rows, {source.data_sha256[:12]}...")
    if source.commit:
        changed = ", with changes that are not in it" if source.dirty else ""
        table.add_row("commit", source.commit + changed)
    if source.run_id:
        table.add_row("run", source.run_id)
    table.add_row("built with", ", ".join(f"{n} {v}" for n, v in source.libraries.items()))


def _print_digest(console: Console, digest: str) -> None:
    """On a line of its own, so that a narrow terminal does not break what is to be copied."""
    console.print(f"[cyan]digest[/cyan]  {digest}", highlight=False)


def _print_power(
    console: Console, profile: Profile | None, shown: int, rows_per_hour: float = 0.0
) -> None:
    found = None
    if profile is not None:
        found = power_printing.table(profile, shown, rows_per_hour)
    if found is not None:
        console.print(found)


def _print_slices(console: Console, manifest: Manifest) -> None:
    slices = show.slices(manifest)
    if slices is not None:
        console.print(slices)


def search_table(search: Searched, width: int = _UNBOUNDED) -> Table:
    """All candidates with what each costs, and what became of it.

    Args:
        width: columns of the terminal; a narrow one is shown neither ratio, metric, load, memory
            nor reasons.
    """
    wide = width >= NARROW
    timed = [figure.batch for c in search.candidates[:1] for figure in c.latency]
    table = Table(box=None, pad_edge=False)
    table.add_column("candidate", no_wrap=True)
    for name in ("bytes", *(["ratio"] if wide else []), "flips", "max diff"):
        table.add_column(name, justify="right", no_wrap=True)
    if wide and any(found.metric for found in search.candidates):
        table.add_column(search.candidates[0].metric or "metric", justify="right", no_wrap=True)
    for batch in timed:
        table.add_column(f"p50 b{batch}", justify="right", no_wrap=True)
    if timed and wide:
        table.add_column("load", justify="right", no_wrap=True)
        table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for found in search.candidates:
        cells = _candidate(found, timed)
        if wide and found.reason:
            cells["verdict"] += f": {found.reason}"
        table.add_row(*[cells.get(str(column.header), "") for column in table.columns])
    return table


def _candidate(found: CandidateFigures, timed: list[int]) -> dict[str, str]:
    """A candidate's cells by column; those without a figure are left out."""
    cells = {"candidate": found.mode, "verdict": found.verdict}
    if found.verdict == "chosen":
        cells["verdict"] = "[bold]<- chosen[/bold]"
    if not found.size_bytes:
        return cells
    cells["bytes"] = f"{found.size_bytes:,}"
    cells["ratio"] = f"{found.ratio:.3f}"
    cells["flips"] = str(found.flips)
    cells["max diff"] = f"{found.diff_max:.2g}"
    if found.metric:
        cells[found.metric] = f"{found.metric_value:.4g}"
    medians = {figure.batch: figure.p50_us for figure in found.latency}
    cells |= {f"p50 b{batch}": _time(medians[batch]) for batch in timed if batch in medians}
    if found.load_ms is not None:
        cells["load"] = f"{found.load_ms:.1f} ms"
    if found.rss_bytes is not None:
        cells["memory"] = f"{found.rss_bytes / 1e6:.1f} MB"
    return cells


def _features(manifest: Manifest) -> Table:
    table = Table("feature", "type", "range", "resolution", "missing", box=None, pad_edge=False)
    for feature in manifest.features[:SHOWN_ROWS]:
        if feature.type == "category":
            span = escape(", ".join(feature.categories[:5]))
            span += (
                f" and {len(feature.categories) - 5} more" if len(feature.categories) > 5 else ""
            )
        else:
            span = "" if feature.minimum is None else f"{feature.minimum:g} .. {feature.maximum:g}"
        step = "" if feature.resolution is None else f"{feature.resolution:g}"
        table.add_row(escape(feature.name), feature.type, span, step, feature.missing)
    more = len(manifest.features) - SHOWN_ROWS
    if more > 0:
        table.add_row(f"and {more} more (--json shows all)")
    return table


def show_predictions(console: Console, predictions: Iterable[Prediction]) -> None:
    """The first rows as a table, and how many there are."""
    table = Table("row", "prediction", "probabilities", box=None, pad_edge=False)
    count = 0
    for count, prediction in enumerate(predictions, start=1):
        if count > SHOWN_ROWS:
            continue
        ranked = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])[:3]
        table.add_row(
            str(count),
            _answer(prediction),
            "  ".join(f"{escape(str(label))} {probability:.4f}" for label, probability in ranked),
        )
    console.print(table)
    if count > SHOWN_ROWS:
        console.print(f"... {count:,} rows in all; --json prints every one")


def _answer(prediction: Prediction) -> str:
    if prediction.label is not None:
        return escape(str(prediction.label))
    if prediction.value is not None:
        return f"{prediction.value:.6g}"
    return ", ".join(f"{n} {list(np.shape(t))}" for n, t in prediction.outputs.items())


def _add_parity(table: Table, manifest: Manifest) -> None:
    parity = manifest.parity
    forced = "  BEYOND THE BUDGET, forced" if parity.forced else ""
    drawn = ", on inputs drawn from the model's own shapes" if parity.synthetic else ""
    labels = f"{parity.rows:,} rows"
    if manifest.outputs.labels:
        labels = f"{parity.flips} of {parity.rows:,} labels changed (budget {parity.flips_max:.2%})"
    table.add_row(
        "parity",
        f"{labels}, largest difference {parity.diff_max:.2g} (budget {parity.diff_budget:g}), "
        f"99 % under {parity.diff_p99:.2g}{drawn}{forced}",
    )


def _add_measured(table: Table, measured: Measured) -> None:
    before = {figure.batch: figure for figure in measured.original}
    for figure in measured.figures.latency:
        original = before.get(figure.batch)
        against = f" (original {_time(original.p50_us)})" if original else ""
        table.add_row(
            f"batch {figure.batch}",
            f"p50 {_time(figure.p50_us)}, p99 {_time(figure.p99_us)}{against}",
        )
    figures = measured.figures
    memory = "" if figures.rss_bytes is None else f", memory +{figures.rss_bytes / 1e6:.1f} MB"
    table.add_row(
        "start",
        f"load {figures.load_ms:.1f} ms, cold start {figures.cold_start_ms:.0f} ms{memory}",
    )


def _time(microseconds: float) -> str:
    if microseconds < 1000:
        return f"{microseconds:.1f} us"
    return f"{microseconds / 1000:.2f} ms"


def _grid() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    return table
