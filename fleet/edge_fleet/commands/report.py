"""``edge-fleet report``: what changed in a period, once, at a stated share of false findings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from edge_contract.errors import InputFault, MachineFault
from edge_fleet import disclosure, terminal
from edge_fleet.commands.export import K
from edge_fleet.opening import lacking, opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms, period_ms

if TYPE_CHECKING:
    from edge_fleet.changes import Report
    from edge_fleet.drift.discovery import Method

SHOWN_MAX = 50


def report(
    *,
    db: Db = DEFAULT_DB,
    hours: Annotated[float, typer.Option(help="How far back the period goes.")] = 24.0,
    fdr: Annotated[
        float, typer.Option(help="At most this share of the list is expected to be false.")
    ] = 0.05,
    method: Annotated[
        str,
        typer.Option(
            help="bh: tests independent or rising together; by: any dependence, more cautious."
        ),
    ] = "bh",
    minimum_effect: Annotated[
        float, typer.Option(help="Smaller changes are not reported, in standard deviations.")
    ] = 0.1,
    model: Annotated[str, typer.Option(help="Only this model.")] = "",
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a page with before-and-after histograms; - is stdout."
        ),
    ] = None,
    k: K = disclosure.K,
    as_json: Json = False,
) -> None:
    """What changed against the reference, on which device, most certain first.

    A report is read once: its false discovery rate is a share of this list. For watching all the
    time there are alarms (`edge-fleet drift`), which keep a promise over months.

    What --html and --json write is computed from cells of at least --k rows on each device, so
    that it may be handed out; what is printed here is not.

    Examples:

      edge-fleet report

      edge-fleet report --hours 168 --fdr 0.01 --method by --html week.html

      edge-fleet report --model boiler --json
    """
    period = period_ms(hours)
    _check(fdr, method, minimum_effect)
    try:
        from edge_fleet import changes, page  # noqa: PLC0415 (their library is an extra)
    except ModuleNotFoundError as error:
        raise lacking(error) from error
    with opened(db) as store:
        found = changes.changes(
            store,
            now_ms(),
            period_ms=period,
            rate=fdr,
            method=cast("Method", method),
            minimum_effect=minimum_effect,
            model=model,
            k=k if as_json or html is not None else 0,
        )
    if html is not None:
        _write(html, page.page(found))
    if as_json:
        terminal.print_json(found)
    elif str(html) != "-":
        _print(found, page.summary(found))


def _check(fdr: float, method: str, minimum_effect: float) -> None:
    if not 0 < fdr < 1:
        raise InputFault(f"--fdr {fdr:g} is not between 0 and 1")
    if method not in ("bh", "by"):
        raise InputFault(f"--method {method!r} is neither bh nor by")
    if not 0 <= minimum_effect < 10:
        raise InputFault(f"--minimum-effect {minimum_effect:g} is not from 0 to 10")


def _write(path: Path, text: str) -> None:
    if str(path) == "-":
        typer.echo(text, nl=False)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MachineFault(f"{path} cannot be written: {error.strerror}") from error


def _print(found: Report, summary: str) -> None:
    terminal.print_line(summary)
    if not found.changes:
        return
    terminal.print_line()
    terminal.print_table(
        ["device", "model", "feature", "what", "test", "effect", "q", "rows"],
        [
            [x.device, f"{x.model} {x.version}", x.feature, x.what, x.test,
             f"{x.effect:.3g}", f"{x.q:.2g}", x.rows]
            for x in found.changes[:SHOWN_MAX]
        ],
    )  # fmt: skip
    if len(found.changes) > SHOWN_MAX:
        terminal.print_line(f"and {len(found.changes) - SHOWN_MAX} more: --json has them all")
