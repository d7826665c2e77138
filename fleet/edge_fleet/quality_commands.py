"""``edge-fleet quality``: how good each version still is, and what each figure cannot see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edge_fleet import terminal
from edge_fleet.opening import lacking, opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms, period_ms

if TYPE_CHECKING:
    from edge_fleet.estimating import VersionQuality
    from edge_fleet.quality.estimates import Estimate


def quality(
    *,
    db: Db = DEFAULT_DB,
    hours: Annotated[float, typer.Option(help="How far back answers are taken.")] = 24.0,
    model: Annotated[str, typer.Option(help="Only this model.")] = "",
    as_json: Json = False,
) -> None:
    """How good each version still is: by its scores, without labels, and by labels that came late.

    Below the table stands what each kind of figure cannot see. Intervals of figures by labels hold
    at every look.

    Examples:

      edge-fleet quality

      edge-fleet quality --hours 168 --model boiler --json
    """
    period = period_ms(hours)
    try:
        from edge_fleet import estimating  # noqa: PLC0415 (its library is an extra)
    except ModuleNotFoundError as error:
        raise lacking(error) from error
    with opened(db) as store:
        found = estimating.qualities(store, now_ms(), period_ms=period, model=model)
    if as_json:
        terminal.print_json(found)
        return
    if not found:
        terminal.print_line(
            f"no version that says labels answered in the last {hours:g} h: a longer period is"
            " --hours; of values, `edge-fleet accuracy` knows errors"
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
