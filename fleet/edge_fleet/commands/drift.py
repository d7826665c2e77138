"""``edge-fleet drift`` and ``resolve``: open alarms, of devices and of groups, and closing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edge_fleet import reports, terminal
from edge_fleet.commands.audit import did
from edge_fleet.commands.export import K
from edge_fleet.drift.explain import sparkline
from edge_fleet.opening import opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms

if TYPE_CHECKING:
    from edge_fleet.views import AlarmReport, Drift, Level

LEVELS_SHOWN = 20


def drift(
    db: Db = DEFAULT_DB,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also closed alarms, those under a group's event, and the evidence on each"
            " monitor.",
        ),
    ] = False,
    k: K = 0,
    as_json: Json = False,
) -> None:
    """Open drift alarms: which device or group, which feature, what changed, since when (UTC).

    (+4): so many alarms of its devices are explained by a group's event; --all lists them. The
    small histograms are shares of rows before and since the change, in order of values. Evidence
    is log10 of the detector's value; an alarm is raised where it reaches the threshold. q: of the
    monitors with this q or less at most such a share is expected to be false, looked at once.
    All of this is of single rows too, for you; give --k for what you hand out.

    Examples:

      edge-fleet drift

      edge-fleet drift --all --json

      edge-fleet drift --k 10 --json > for-others.json
    """
    with opened(db) as store:
        found = reports.drift(store, now_ms(), closed=everything, k=k)
    if as_json:
        terminal.print_json(found)
        return
    _print_alarms(found, everything=everything)
    if everything:
        terminal.print_line()
        _print_levels(found.levels)


def resolve(
    alarms: Annotated[list[int], typer.Argument(help="Numbers of alarms, from `drift`.")],
    comment: Annotated[str, typer.Option(help="Why, for those who come later.")] = "",
    under: Annotated[
        bool,
        typer.Option(
            "--with-devices", help="Also the alarms under an event, which else speak again."
        ),
    ] = False,
    db: Db = DEFAULT_DB,
) -> None:
    """Close drift alarms; their monitors start anew with the next window.

    Examples:

      edge-fleet resolve 3 4 --comment "sensor replaced"

      edge-fleet resolve 7 --with-devices --comment "winter: retrained"
    """
    with opened(db) as store, store.transaction() as tx:
        closed = reports.resolve_within(tx, alarms, now_ms(), comment, under=under)
        for one in closed:
            did(tx, "alarm.resolve", f"alarm {one}", comment)
    terminal.print_line(f"closed {', '.join(map(str, closed))}")


def _print_alarms(found: Drift, *, everything: bool) -> None:
    shown = [alarm for alarm in found.alarms if everything or alarm.parent is None]
    if not shown:
        terminal.print_line(f"no drift alarms (threshold {found.threshold:.2f})")
        return
    columns = [
        "alarm", "device", "model", "feature", "what", "before", "since", "since (UTC)", "evidence",
    ]  # fmt: skip
    terminal.print_table(columns, [_row(alarm) for alarm in shown])


def _row(alarm: AlarmReport) -> list[object]:
    state = " (closed)" if alarm.resolved else ""
    if alarm.parent is not None:
        state = f" (under {alarm.parent})"
    if alarm.under:
        state += f" (+{alarm.under})"
    return [
        f"{alarm.id}{state}",
        alarm.device,
        f"{alarm.model} {alarm.version}",
        alarm.feature,
        alarm.what,
        sparkline(alarm.bars, after=False),
        sparkline(alarm.bars, after=True),
        alarm.since,
        f"{alarm.evidence:.2f} / {alarm.threshold:.2f}",
    ]


def _print_levels(every: tuple[Level, ...]) -> None:
    levels = every[:LEVELS_SHOWN]
    terminal.print_table(
        ["device", "model", "feature", "evidence", "q", "windows", "rows"],
        [
            [x.device, f"{x.model} {x.version}", x.feature,
             f"{x.evidence:.2f} / {x.threshold:.2f}", f"{x.q:.2g}", x.windows, x.rows]
            for x in levels
        ],
    )  # fmt: skip
    if len(every) > len(levels):
        terminal.print_line(f"and {len(every) - len(levels)} more: --json has them all")
