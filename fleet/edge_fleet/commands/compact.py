"""``edge-fleet compact``: old windows become hours, old hours days; old events go."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from edge_contract import durations
from edge_contract.errors import InputFault
from edge_fleet import compaction, terminal
from edge_fleet.commands.audit import did
from edge_fleet.compaction import Compacted, Retention
from edge_fleet.opening import opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms
from edge_fleet.store.base import Store

RAW_DEFAULT, HOURS_DEFAULT = "14d", "90d"
EVENTS_DEFAULT = ASIDES_DEFAULT = "366d"
FOREVER = "forever"

KeepRaw = Annotated[
    str,
    typer.Option(
        "--keep-raw",
        metavar="TIME",
        help="Windows older than this are merged into hours: 36h, 14d or forever.",
    ),
]
KeepHours = Annotated[
    str,
    typer.Option(
        "--keep-hours",
        metavar="TIME",
        help="Hours older than this are merged into days, which stay for ever.",
    ),
]
KeepEvents = Annotated[
    str,
    typer.Option(
        "--keep-events", metavar="TIME", help="Events of devices older than this are taken out."
    ),
]
KeepAsides = Annotated[
    str,
    typer.Option(
        "--keep-asides",
        metavar="TIME",
        help="Records of labels and of shadows older than this are taken out: `accuracy`, `quality`"
        " and `shadow` are of those that are kept.",
    ),
]


def compact(
    *,
    db: Db = DEFAULT_DB,
    keep_raw: KeepRaw = "",
    keep_hours: KeepHours = "",
    keep_events: KeepEvents = "",
    keep_asides: KeepAsides = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to do, and do nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Merge old telemetry now: windows into hours, hours into days, by adding their counts.

    What is older than --keep-events and --keep-asides is taken out.

    `edge-fleet serve` does it by itself, every hour; without options this one keeps as long as
    that was told to. A collector may run meanwhile. What is over when this is interrupted stands.

    Examples:

      edge-fleet compact --dry-run

      edge-fleet compact --keep-raw 2d --keep-hours 30d

      edge-fleet compact --keep-events 90d --keep-asides forever

      edge-fleet compact --db postgresql://edge@db/fleet --json
    """
    with opened(db) as store:
        kept = store.settings()
        retention = retention_of(
            keep_raw or kept.get("keep_raw", RAW_DEFAULT),
            keep_hours or kept.get("keep_hours", HOURS_DEFAULT),
            keep_events or kept.get("keep_events", EVENTS_DEFAULT),
            keep_asides or kept.get("keep_asides", ASIDES_DEFAULT),
        )
        planned = compaction.plan(store, retention, now_ms())
        done = planned if dry_run else _compact(store, retention, planned)
        if not dry_run:
            with store.transaction() as tx:
                did(tx, "store.compact", "store", _told(done))
    if as_json:
        terminal.print_json({"dry_run": dry_run, **_figures(done)})
        return
    terminal.print_line(("there is to do: " if dry_run else "") + _told(done))


def retention_of(
    keep_raw: str, keep_hours: str, keep_events: str = EVENTS_DEFAULT,
    keep_asides: str = ASIDES_DEFAULT,
) -> Retention:  # fmt: skip
    """Raises InputFault when one is no time, or hours would be kept shorter than windows."""
    raw_ms, hours_ms = _time_ms(keep_raw, "--keep-raw"), _time_ms(keep_hours, "--keep-hours")
    if raw_ms is not None and hours_ms is not None and hours_ms < raw_ms:
        raise InputFault(
            f"--keep-hours {keep_hours} is shorter than --keep-raw {keep_raw}",
            advice="Windows become hours, and hours days: the first is kept shortest.",
        )
    events_ms = _time_ms(keep_events, "--keep-events")
    return Retention(raw_ms, hours_ms, events_ms, _time_ms(keep_asides, "--keep-asides"))


def _time_ms(text: str, option: str) -> int | None:
    if text == FOREVER:
        return None
    return int(durations.seconds(text, option) * 1000)


def _compact(store: Store, retention: Retention, planned: Compacted) -> Compacted:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        total = _keys(planned)
        task = bar.add_task("merging", total=total)

        def step(done: Compacted) -> None:
            bar.update(task, advance=_keys(done))

        return compaction.compact(store, retention, now_ms(), pause=_courtesy, on_step=step)


def _keys(done: Compacted) -> int:
    return done.windows + done.hours + done.refused + done.events + done.asides + done.unknown


def _courtesy(seconds: float) -> bool:
    """A collector on the same database has its turn."""
    time.sleep(seconds)
    return False


def _figures(done: Compacted) -> dict[str, int]:
    return {name: getattr(done, name) for name in done.__struct_fields__}


def _told(done: Compacted) -> str:
    parts = [
        f"{done.windows} windows into {done.into_hours} hours",
        f"{done.hours} hours into {done.into_days} days",
        f"{done.size_bytes / 1e6:.1f} MB of records",
    ]
    if done.events or done.asides:
        parts.append(f"{done.events} events and {done.asides} records of labels and shadows gone")
    if done.refused:
        parts.append(f"{done.refused} refused windows dropped")
    if done.unknown:
        parts.append(f"{done.unknown} windows whose profile never came gone")
    if done.damaged:
        parts.append(f"{done.damaged} windows that cannot be read or added set aside")
    return ", ".join(parts)
