"""``edge-fleet records`` and ``edge-fleet events``: what devices said, as it came."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from edge_contract import durations, telemetry
from edge_contract.errors import InputFault
from edge_contract.ports import disk
from edge_fleet import disclosure, terminal
from edge_fleet.commands.device import meant as devices_meant
from edge_fleet.commands.export import K
from edge_fleet.device_reports import instant
from edge_fleet.opening import lacking, opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms, period_ms

if TYPE_CHECKING:
    from edge_fleet.store.base import EventSeen, Transaction

app = typer.Typer(
    help="Telemetry records, with names and as CBOR.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Limit = Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, newest first.")]
Model = Annotated[str, typer.Option(help="Only of this model.")]
EVENTS_AT_ONCE = 1_000


@app.command()
def show(
    device: Annotated[str, typer.Argument(help="Which device.")],
    *,
    model: Model = "",
    limit: Limit = 10,
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """The newest records of a device: rows, what failed, what was wrong, the machine.

    --json has all of each record: counts, moments and latencies by name.

    Examples:

      edge-fleet records show pump-17

      edge-fleet records show pump-17 --limit 1 --json
    """
    with opened(db) as store, store.reading() as tx:
        found = list(_found(tx, device=device, model=model, limit=limit))
    if not found:
        raise InputFault(
            f"the store holds no record of device {device!r}{f', model {model!r}' * bool(model)}",
            advice="`edge-fleet devices` lists devices; old records become sums by the hour.",
        )
    if as_json:
        terminal.print_json([{**each, **_as_hex(each)} for each in found])
        return
    terminal.print_table(
        ["window", "model", "rows", "refused", "failed", "why", "wrong with the input", "machine"],
        [
            [
                _time(each["end_ms"]), f"{each['model']} {each['version']}", each["rows"],
                each["refused"], each["failed"],
                ", ".join(f"{count} {why}" for why, count in each["errors"].items()),
                ", ".join(_finding(*pair) for pair in each["quality"]), _machine(each["resources"]),
            ]
            for each in found
        ],
    )  # fmt: skip


@app.command()
def export(
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="FILE.cbor; - is stdout.")],
    device: Annotated[str, typer.Option(help="Only of this device.")] = "",
    model: Model = "",
    hours: Annotated[float, typer.Option(help="How far back.")] = 24.0,
    limit: Limit = 100_000,
    k: K = disclosure.K,
    db: Db = DEFAULT_DB,
) -> None:
    """Write records as a CBOR sequence (RFC 8742) of maps, deterministically encoded (RFC 8949).

    docs/formats/record.md says what is in a map. No figure is of fewer than --k rows: cells are
    merged, windows of fewer rows and those of an unknown profile are left out, means and findings
    too. --k 0 writes records as they came, for yourself.

    Examples:

      edge-fleet records export --out day.cbor

      edge-fleet records export --out all.cbor --k 0

      edge-fleet records export --out - --device pump-17 | cbor2 --sequence --pretty
    """
    since_ms = now_ms() - period_ms(hours)
    try:
        from edge_fleet import readable  # noqa: PLC0415 (its library is an extra)
    except ModuleNotFoundError as error:
        raise lacking(error) from error
    with opened(db) as store, store.reading() as tx:
        each = _found(tx, device=device, model=model, since_ms=since_ms, limit=limit, k=k)
        console = Console(stderr=True)
        shown = track(
            each, "records", console=console, transient=True, disable=not console.is_terminal
        )
        maps = [readable.to_cbor(one) for one in shown]
    if str(out) == "-":
        sys.stdout.buffer.write(b"".join(maps))
        sys.stdout.buffer.flush()
        return
    disk.write_atomic(out, b"".join(maps))
    terminal.print_line(f"{len(maps)} records in {out}")


def events(
    *,
    device: Annotated[str, typer.Option(help="Only of this device.")] = "",
    kind: Annotated[str, typer.Option(help="Only of this kind, such as quality-fault.")] = "",
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From then on: 2h ago as 2h, or 2026-11-21T08:00.")
    ] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Up to then; the same forms.")] = "",
    where: Annotated[
        str, typer.Option(metavar="EXPRESSION", help="Only of devices as `devices --where` finds.")
    ] = "",
    limit: Limit = 50,
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """What happened on devices, newest first: updates, strain, faults of their input.

    Times are of this server, in UTC.

    Examples:

      edge-fleet events --device pump-17

      edge-fleet events --since 2h --where "site=lyon and not alive"

      edge-fleet events --kind quality-fault --json
    """
    at_ms = now_ms()
    bounds = moment(since, "--since", at_ms), moment(until, "--until", at_ms)
    with opened(db) as store:
        meant = devices_meant(store, where, at_ms) if where else None
        with store.reading() as tx:
            every = _events(tx, device, kind, bounds)
            fits = (each for each in every if meant is None or each.device in meant)
            found = list(islice(fits, limit))
    if as_json:
        terminal.print_json(found)
    elif found:
        terminal.print_table(
            ["when", "device", "kind", "model", "detail"], [_event(each) for each in found]
        )
    else:
        terminal.print_line("no such event")


def _events(
    tx: Transaction, device: str, kind: str, bounds: tuple[int | None, int | None]
) -> Iterator[EventSeen]:
    since, until = bounds
    # Names of devices are below the last character there is.
    key: tuple[int | str, ...] = () if until is None else (until, "\U0010ffff", 0, 0)
    while some := tx.events_before(key, EVENTS_AT_ONCE, device=device, kind=kind):
        for each in some:
            if since is not None and each.received_ms < since:
                return
            yield each
        last = some[-1]
        key = (last.received_ms, last.device, last.boot, last.seq)


def moment(text: str, option: str, at_ms: int) -> int | None:
    """``2h`` ago, or a time of UTC, in milliseconds; None for "". Raises InputFault."""
    if not text:
        return None
    with contextlib.suppress(InputFault):
        return at_ms - int(durations.seconds(text) * 1000)
    try:
        when = datetime.datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InputFault(
            f"{option} {text[:40]!r} is no time",
            advice="Write 90s, 15m, 2h, 7d or 2026-11-21T08:00.",
        ) from error
    zoned = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    return int(zoned.timestamp() * 1000)


def _event(event: EventSeen) -> list[str]:
    model = f"{event.model} {event.version}".strip()
    return [_time(event.received_ms), event.device, event.kind, model, event.detail]


def _found(
    tx: Transaction, *, device: str, model: str, limit: int, since_ms: int = 0, k: int = 0
) -> Iterator[dict[str, Any]]:
    """Records in readable form; one that does not fit its profile keeps its bytes.

    ``k``: no figure of fewer rows; what cannot be merged so is left out.
    """
    from edge_fleet import readable  # noqa: PLC0415 (its library is an extra)
    from edge_fleet.library import Library  # noqa: PLC0415 (as above)

    library = Library()
    every = tx.records(device=device, since_ms=since_ms)
    # All first: a bundle is looked up over the same connection.
    for window in list(islice((w for w in every if model in ("", w.model)), limit)):
        record = telemetry.decode(window.record)
        known = library.find(tx, window.bundle)
        try:
            found = readable.readable(record, known.reference if known else None)
        except InputFault:
            known, found = None, readable.readable(record, None)
        if k <= 1:
            yield found
        elif known is not None and record.rows >= k:
            yield readable.merged(found, known.profile, k)


def _as_hex(found: dict[str, Any]) -> dict[str, str]:
    return {name: value.hex() for name, value in found.items() if isinstance(value, bytes)}


def _time(at_ms: int) -> str:
    """As ``instant``, easier to read; a device may name a time that no calendar holds."""
    return (instant(at_ms) or "-").replace("T", " ").removesuffix("Z")


def _finding(code: int, monitor: object) -> str:
    names = telemetry.QUALITY_CODES
    name = names[code] if code < len(names) else f"code {code}"
    return f"{name} {monitor}".strip() if isinstance(monitor, str) else name


def _machine(resources: dict[str, Any] | None) -> str:
    if resources is None:
        return ""
    said = [
        f"CPU {resources['cpu_percent']} %" * (resources["cpu_percent"] is not None),
        f"{resources['rss_mib']} MiB" * (resources["rss_mib"] is not None),
        f"{resources['temperature_c']} C" * (resources["temperature_c"] is not None),
        f"disk {resources['disk_free_mib']} MiB free" * (resources["disk_free_mib"] is not None),
        f"slowed ({resources['slowed']:#x})" * bool(resources["slowed"]),
    ]
    return ", ".join(filter(None, said))
