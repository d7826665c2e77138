"""``edge-fleet quality``: how good each version still is, and what each figure cannot see."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_fleet import terminal
from edge_fleet.commands.export import K
from edge_fleet.opening import lacking, opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms, period_ms

FILE_MAX_BYTES = 256 * 1024 * 1024

if TYPE_CHECKING:
    from edge_fleet.estimating import VersionQuality
    from edge_fleet.quality.estimates import Estimate


def quality(
    *,
    db: Db = DEFAULT_DB,
    hours: Annotated[float, typer.Option(help="How far back answers are taken.")] = 24.0,
    model: Annotated[str, typer.Option(help="Only this model.")] = "",
    version: Annotated[str, typer.Option(help="Only this version.")] = "",
    reference: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labelled rows, CSV: estimate from them as well."),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What the version answers to them, CSV; see below."),
    ] = None,
    target: Annotated[str, typer.Option(help="Their column with the true answer.")] = "",
    k: K = 0,
    as_json: Json = False,
) -> None:
    """How good each version still is: by its scores, without labels, and by labels that came late.

    Below the table stands what each kind of figure cannot see. Intervals of figures by labels hold
    at every look.

    With labelled rows of old (--reference), they are weighted until they look like what the devices
    count: the figures of kind raked. Their answers come from
    `edge-agent predict BUNDLE ROWS.csv --output ANSWERS.csv`; both files stay on this machine. Too
    few rows that resemble today's, and the estimate is refused.

    For what you hand out, --k leaves out figures that rest on fewer rows or labels.

    Examples:

      edge-fleet quality

      edge-fleet quality --hours 168 --model boiler --json

      edge-fleet quality --model boiler --reference rows.csv --answers answers.csv --target state
    """
    period = period_ms(hours)
    if (reference is None) != (answers is None) or (reference is not None) != bool(target):
        raise InputFault("--reference, --answers and --target belong together")
    try:
        from edge_fleet import estimating  # noqa: PLC0415 (its library is an extra)
    except ModuleNotFoundError as error:
        raise lacking(error) from error
    held = None
    if reference is not None and answers is not None:
        rows, said = (read_bounded(each, FILE_MAX_BYTES) for each in (reference, answers))
        held = estimating.Held(rows, said, target)
    with opened(db) as store:
        found = estimating.qualities(
            store, now_ms(), period_ms=period, model=model, version=version, held=held
        )
    found = tuple(estimating.of_enough(each, k) for each in found)
    if as_json:
        terminal.print_json(found)
        return
    if not found:
        terminal.print_line(
            f"no version that says labels answered in the last {hours:g} h, nor one of values that"
            " got late labels: a longer period is --hours"
        )
    for each in found:
        _print(each)
    for blind in dict.fromkeys(e.blind for each in found for e in each.estimates):
        terminal.print_line(blind)


def _print(one: VersionQuality) -> None:
    terminal.print_line(
        f"{one.model} {one.version}: {one.rows} rows since {one.since}, {one.labelled} labels;"
        f" by score: calibrated by {one.calibration}"
    )
    if one.errors is not None:
        said = "RISEN" if one.errors.risen else "no alarm"
        terminal.print_line(
            f"errors above {100 * one.errors.watched:.3g} %: {said}, evidence"
            f" {one.errors.evidence:.2f} / {one.errors.threshold:.2f}"
        )
    terminal.print_table(
        ["figure", "by", "estimate", "interval", "rows", ""],
        [[e.figure, e.method, *_figure(e), f"{e.rows:.0f}", e.refused] for e in one.estimates],
    )
    terminal.print_line()


def _figure(estimate: Estimate) -> tuple[str, str]:
    value = "-" if estimate.value is None else f"{estimate.value:.4f}"
    if estimate.low is None or estimate.high is None:
        return value, "-"
    return value, f"{estimate.low:.4f} to {estimate.high:.4f}"
