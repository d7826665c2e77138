"""``edge-fleet devices`` and ``edge-fleet device``: all of them in lines, one on a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer
from msgspec import Struct

from edge_contract.errors import InputFault
from edge_fleet import reports, terminal
from edge_fleet.opening import opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms
from edge_fleet.rollouts import selector
from edge_fleet.store.base import Store, Transaction
from edge_fleet.traits import traits
from edge_fleet.views import AlarmReport, DeviceReport, FaultReport, ModelOnDevice

EVENTS_SHOWN = 10
MIB = 1024**2

Row = tuple[DeviceReport, ModelOnDevice | None]
Cell = Callable[[DeviceReport, ModelOnDevice | None], object]


class EventLine(Struct, frozen=True):
    """Something that happened on the device."""

    received: str | None
    kind: str
    model: str
    version: str
    detail: str


class DevicePage(Struct, frozen=True):
    """One device with all that is known of it; the newest first in each list."""

    device: DeviceReport
    alarms: tuple[AlarmReport, ...]
    events: tuple[EventLine, ...]
    faults: tuple[FaultReport, ...]


def _size(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else f"{size_bytes / MIB:.0f} MiB"


def _clock(one: DeviceReport) -> str:
    own = one.inventory
    kept = {None: "", True: "kept", False: "free"}[own.synchronised]
    offset = "" if own.clock_offset_s is None else f"{own.clock_offset_s:+.1f} s"
    return f"{kept} {offset}".strip() or "-"


def _signed(model: ModelOnDevice | None) -> str:
    return " (signed by nobody)" if model and model.signed is False else ""


def _follows(one: DeviceReport, model: ModelOnDevice | None) -> str:
    """Of the model; of the device where it has not heard what is wanted of its models."""
    unheard = one.wanted_revision not in (0, one.revision) and one.follows != "refusing"
    return one.follows if unheard or model is None else model.follows or one.follows


COLUMNS: Mapping[str, Cell] = {
    "device": lambda one, _: one.device,
    "state": lambda one, _: one.state,
    "model": lambda _, model: f"{model.model} {model.version}{_signed(model)}" if model else "-",
    "phase": lambda _, model: (model.phase or "-") if model else "-",
    "rows": lambda _, model: model.rows if model else 0,
    "alarms": lambda _, model: model.open_alarms if model else 0,
    "last seen (UTC)": lambda one, _: one.last_seen or "never",
    "follows": _follows,
    "wanted": lambda _, model: (model.wanted or "-") if model else "-",
    "why": lambda one, model: (model.said if model else "") or one.said,
    "revision": lambda one, _: f"{one.revision}/{one.wanted_revision or '-'}",
    "hw": lambda one, _: one.machine or "-",
    "system": lambda one, _: one.inventory.system or "-",
    "agent": lambda one, _: one.agent or "-",
    "runtime": lambda one, _: one.inventory.onnxruntime or "-",
    "channel": lambda one, _: one.channel or "-",
    "labels": lambda one, _: ", ".join(f"{k}={v}" for k, v in sorted(one.labels.items())) or "-",
    "clock": lambda one, _: _clock(one),
    "disk free": lambda one, _: _size(one.inventory.disk_free_bytes),
    "temperature": lambda one, _: (
        "-" if one.inventory.temperature_c is None else f"{one.inventory.temperature_c:.0f} C"
    ),
    "slowed": lambda one, _: ", ".join(one.inventory.signs) or "-",
    "boot": lambda one, _: one.boot,
    "dropped": lambda one, _: one.dropped,
    "freshness": lambda one, _: one.freshness or "-",
}  # fmt: skip
USUAL = ("device", "state", "model", "phase", "rows", "alarms", "last seen (UTC)")
WIDE = (
    "device", "state", "model", "phase", "follows", "wanted", "hw", "system", "agent", "runtime",
    "labels", "clock", "disk free", "temperature", "slowed", "alarms", "last seen (UTC)",
)  # fmt: skip
_ALIASES = {"last_seen": "last seen (UTC)", "disk_free": "disk free", "last seen": USUAL[-1]}
SORTS: Mapping[str, Callable[[DeviceReport], object]] = {
    "device": lambda one: one.device,
    "state": lambda one: one.state,
    "last_seen": lambda one: -one.seen_ms,
    "alarms": lambda one: -sum(model.open_alarms for model in one.models),
    "rows": lambda one: -one.rows,
    "follows": lambda one: ("refusing", "behind", "unknown", "in-step").index(one.follows),
    "disk_free": lambda one: one.inventory.disk_free_bytes or 0,
    "temperature": lambda one: -(one.inventory.temperature_c or -1e9),
    "clock": lambda one: -abs(one.inventory.clock_offset_s or 0.0),
}
WHERE_HELP = (
    "Only those that fit: labels, hw, agent, system, device, state, version, follows, last_seen"
    " ... with = != < <= > >= in, and, or, not."
)


def devices(
    db: Db = DEFAULT_DB,
    *,
    where: Annotated[str, typer.Option("--where", metavar="EXPRESSION", help=WHERE_HELP)] = "",
    sort: Annotated[
        str, typer.Option(help=f"One of {', '.join(SORTS)}; what needs a look first.")
    ] = "device",
    limit: Annotated[int, typer.Option(min=0, help="At most so many devices; 0: all.")] = 0,
    columns: Annotated[
        str, typer.Option(metavar="A,B,...", help=f"Of {', '.join(COLUMNS)}, or label.NAME.")
    ] = "",
    wide: Annotated[bool, typer.Option("--wide", help="More columns.")] = False,
    as_json: Json = False,
) -> None:
    """Every device: whether it lives, what it runs, when it was last heard of (UTC).

    --where has the language of `rollout start --select`, and also knows what changes by the hour:
    alive, alarmed, strained and unsigned stand by themselves; state, version, model, phase,
    follows (in-step, behind, refusing, unknown), alarms, rows, dropped, last_seen, clock,
    clock_offset, disk_free, temperature are compared. Versions compare as versions, last_seen<1h
    as times, disk_free<500MB as sizes; * and ? stand for anything. label.NAME is a label.

    Exit code 1: --where fits none.

    Examples:

      edge-fleet devices --where "site=lyon and hw=aarch64 and agent<1.2 and alive"

      edge-fleet devices --where "follows in (behind, refusing) or unsigned" --wide

      edge-fleet devices --where "not last_seen<1d" --sort last_seen --limit 20 --json

      edge-fleet devices --columns device,version,label.site,clock
    """
    shown = _columns(columns, WIDE if wide else USUAL)
    if sort not in SORTS:
        raise InputFault(f"--sort {sort[:40]!r} is none of {', '.join(SORTS)}")
    fits = selector.parse(where, moving=True)
    at_ms = now_ms()
    with opened(db) as store:
        every = reports.devices(store, at_ms)
    found = [one for one in every if not where or fits(traits(one, at_ms))]
    found.sort(key=SORTS[sort])  # type: ignore[arg-type]
    told = found[:limit] if limit else found
    if as_json:
        terminal.print_json(told)
    else:
        _print(told, shown)
        if len(told) < len(found):
            terminal.print_line(f"and {len(found) - len(told)} more")
        if where and not found:
            terminal.print_line(f"none of {len(every)} devices fits {where!r}")
    if where and not found:
        raise typer.Exit(1)


def meant(store: Store, where: str, at_ms: int) -> set[str]:
    """The names of the devices that an expression finds. Raises InputFault."""
    fits = selector.parse(where, moving=True)
    return {one.device for one in reports.devices(store, at_ms) if fits(traits(one, at_ms))}


def _columns(text: str, usual: Sequence[str]) -> list[tuple[str, Cell]]:
    names = [each.strip() for each in text.split(",")] if text.strip() else list(usual)
    found: list[tuple[str, Cell]] = []
    for given in names:
        name = _ALIASES.get(given, given)
        label = name.removeprefix(selector.LABEL)
        if label != name and label:
            found.append((name, lambda one, _model, label=label: one.labels.get(label, "-")))  # type: ignore[misc]
        elif name == "version":
            found.append((name, lambda _one, model: (model.version if model else "") or "-"))
        elif name in COLUMNS:
            found.append((name, COLUMNS[name]))
        else:
            raise InputFault(
                f"there is no column {given[:40]!r}", advice=f"There are {', '.join(COLUMNS)}."
            )
    return found


def _print(found: Sequence[DeviceReport], shown: Sequence[tuple[str, Cell]]) -> None:
    rows: list[list[object]] = []
    for one in found:
        running: tuple[ModelOnDevice | None, ...] = one.models or (None,)
        rows += [[cell(one, model) for _, cell in shown] for model in running]
    terminal.print_table([name for name, _ in shown], rows)


def device(
    name: Annotated[str, typer.Argument(metavar="ID", help="Which device.")],
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """One device on one page: how it is, what it runs and is to run, alarms, events, faults (UTC).

    What a device says of itself is shown, not believed: a version that no channel of the fleet
    ever named is marked.

    Examples:

      edge-fleet device pump-17

      edge-fleet device pump-17 --json
    """
    at_ms = now_ms()
    with opened(db) as store:
        budget = reports.budget_of(store.settings())
        with store.reading() as tx:
            found = page(tx, name, at_ms, budget)
    if found is None:
        raise InputFault(
            f"there is no device {name[:80]!r}", advice="`edge-fleet devices` lists them."
        )
    if as_json:
        terminal.print_json(found)
    else:
        _print_page(found)


def page(tx: Transaction, name: str, at_ms: int, budget: reports.Budget) -> DevicePage | None:
    """All of one device; None for one never heard of."""
    known = tx.devices_named([name])
    if not known:
        return None
    alarms = tx.alarms_on([name])
    events = tx.events_before((), EVENTS_SHOWN, device=name)
    return DevicePage(
        device=reports.device_report(
            known[0], tx.countings([name]), alarms, at_ms, budget,
            states=reports.states_of(tx, [name]),
        ),
        alarms=tuple(reports.alarm_report(alarm, {}) for alarm in alarms),
        events=tuple(
            EventLine(reports.instant(e.received_ms), e.kind, e.model, e.version, e.detail)
            for e in events
        ),
        faults=tuple(
            FaultReport(f.device, f.kind, f.count, reports.instant(f.last_ms) or "", f.detail)
            for f in tx.faults()
            if f.device == name
        ),
    )  # fmt: skip


def _print_page(found: DevicePage) -> None:
    one, own = found.device, found.device.inventory
    labels = ", ".join(f"{key}={value}" for key, value in sorted(one.labels.items()))
    room = f"{_size(own.disk_free_bytes)} free of {_size(own.disk_total_bytes)}"
    spool = f", records {_size(own.spool_bytes)} of {_size(own.spool_max_bytes)}"
    heat = "not known" if own.temperature_c is None else f"{own.temperature_c:.0f} C"
    for what, text in (
        ("device", f"{one.device}, {one.state}, last heard of {one.last_seen or 'never'}"),
        ("labels", labels or "none"),
        ("machine", f"{one.machine or '-'}, {own.system or '-'}, {own.cpus or '?'} processors,"
                    f" {_size(own.ram_bytes)}"),
        ("agent", f"{one.agent or '-'}, Python {own.python or '-'},"
                  f" onnxruntime {own.onnxruntime or '-'}, boot {one.boot}"),
        ("clock", _clock(one) + " against this server's"),
        ("disk", room + (spool if own.spool_max_bytes else "")),
        ("heat", heat + (f", slowed: {', '.join(own.signs)}" if own.signs else "")),
        ("trust", f"channel {one.channel or '-'}, metadata {one.freshness or 'not reported'}"),
        ("follows", f"{one.follows}, revision {one.revision} of {one.wanted_revision or 'none'}"
                    + (f": {one.said}" if one.said else "")),
        ("counted", f"{one.rows} rows in {one.windows} windows, {one.dropped} records dropped"),
    ):  # fmt: skip
        terminal.print_line(f"{what:<9} {text}")
    if one.models:
        terminal.print_line()
        _print([one], _columns("model,phase,wanted,follows,rows,alarms,why", ()))
    _print_lists(found)


def _print_lists(found: DevicePage) -> None:
    if found.alarms:
        terminal.print_line()
        terminal.print_table(
            ["alarm", "model", "feature", "what", "since"],
            [[a.id, f"{a.model} {a.version}", a.feature, a.what, a.since] for a in found.alarms],
        )
    if found.events:
        terminal.print_line()
        terminal.print_table(
            ["event", "kind", "model", "detail"],
            [[e.received, e.kind, f"{e.model} {e.version}", e.detail] for e in found.events],
        )
    for fault in found.faults:
        terminal.print_line(f"fault     {fault.kind} x {fault.count}, {fault.last}: {fault.detail}")
