"""What is told of each device, as plain values: how it is, what it runs, and how it follows.

Guards: reports only read. What a device did not say is None or "", never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from edge_contract import messages
from edge_contract.errors import InputFault
from edge_fleet import following
from edge_fleet.drift.budget import Budget
from edge_fleet.following import Following, Named
from edge_fleet.liveness import liveness
from edge_fleet.store.api import Counting
from edge_fleet.store.base import Alarm, Detector, Device, Store, Transaction
from edge_fleet.store.rollouts import Wish
from edge_fleet.store.states import ClockSeen
from edge_fleet.views import DeviceReport, Inventory, ModelOnDevice


@dataclass(frozen=True)
class States:
    """What reports of devices are held against: wishes, clocks, what channels name."""

    wishes: Mapping[str, Wish] = field(default_factory=dict)
    clocks: Mapping[str, ClockSeen] = field(default_factory=dict)
    named: Named = field(default_factory=lambda: Named(()))


NOTHING = States()


def states_of(tx: Transaction, names: Sequence[str] | None = None) -> States:
    """Of these devices; None: of all."""
    wishes = tx.wishes() if names is None else tx.wishes_of(names)
    return States(wishes, tx.clocks(names), Named(tx.releases()))


def instant(ms: int | None) -> str | None:
    """ISO 8601 in UTC, to the second; None for never or a time no calendar holds."""
    if not ms:
        return None
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return None


def every(store: Store, now_ms: int, budget: Budget) -> tuple[DeviceReport, ...]:
    """Every device with its models."""
    with store.reading() as tx:
        known, countings, opened = tx.devices(), tx.all_countings(), tx.alarms(open_only=True)
        beside = states_of(tx)
    counted: dict[str, list[Counting]] = {}
    for counting in countings:
        counted.setdefault(counting.device, []).append(counting)
    alarms: dict[str, list[Alarm]] = {}
    for alarm in opened:
        alarms.setdefault(alarm.device, []).append(alarm)
    return tuple(
        device_report(
            device, counted.get(device.device, []), alarms.get(device.device, []), now_ms, budget,
            states=beside,
        )
        for device in known
    )  # fmt: skip


def device_report(
    device: Device,
    detectors: Sequence[Detector | Counting],
    alarms: Iterable[Alarm],
    now_ms: int,
    budget: Budget,
    *,
    states: States = NOTHING,
) -> DeviceReport:
    """One device: ``detectors`` are its own, ``alarms`` may be of others as well."""
    reported = reported_of(device)
    open_alarms = [alarm for alarm in alarms if alarm.device == device.device]
    stands = following.of(states.wishes.get(device.device), reported)
    return DeviceReport(
        device=device.device,
        state=liveness(device, now_ms, budget.window_s),
        boot=device.boot,
        agent=device.agent,
        machine=reported.hardware.machine if reported else "",
        freshness=reported.freshness if reported else "",
        labels=dict(reported.labels) if reported else {},
        rows=device.rows,
        windows=device.windows,
        dropped=device.dropped,
        last_seen=instant(device.seen_ms),
        models=tuple(_models(reported, detectors, open_alarms, stands, states.named)),
        seen_ms=device.seen_ms,
        follows=stands.follows,
        said=stands.said,
        wanted_revision=stands.wanted_revision,
        revision=stands.revision,
        channel=reported.channel if reported else "",
        inventory=_inventory(device, reported, states.clocks.get(device.device)),
    )


def _inventory(
    device: Device, reported: messages.Reported | None, clock: ClockSeen | None
) -> Inventory:
    if reported is None:
        return Inventory()
    machine, room = reported.hardware, reported.room
    return Inventory(
        system=machine.system,
        python=machine.python,
        onnxruntime=machine.onnxruntime,
        cpus=machine.cpus,
        ram_bytes=machine.ram_bytes,
        synchronised=reported.synchronised,
        clock_offset_s=None if clock is None else clock.ahead_ms / 1000,
        disk_free_bytes=room.free_bytes,
        disk_total_bytes=room.total_bytes,
        spool_bytes=room.spool_bytes if room.spool_max_bytes else None,
        spool_max_bytes=room.spool_max_bytes or None,
        temperature_c=reported.strain.temperature_c,
        signs=reported.strain.signs,
        reported=instant(device.reported_ms),
    )


def reported_of(device: Device) -> messages.Reported | None:
    """What it reported last; None where it never did, or in a way not known here."""
    if not device.reported:
        return None
    try:
        return messages.decode(device.reported, messages.Reported)
    except InputFault:  # kept by a newer edge-fleet
        return None


def _models(
    reported: messages.Reported | None,
    detectors: Sequence[Detector | Counting],
    alarms: Sequence[Alarm],
    stands: Following,
    named: Named,
) -> Iterable[ModelOnDevice]:
    phases = dict(reported.models) if reported else {}
    newest = {detector.model: detector for detector in detectors}
    for name in sorted(set(phases) | set(newest)):
        ours = [detector for detector in detectors if detector.model == name]
        report, followed = phases.get(name), stands.models.get(name)
        yield ModelOnDevice(
            model=name,
            version=report.active if report else newest[name].version,
            phase=report.phase if report else "",
            rows=sum(detector.rows for detector in ours),
            windows=sum(detector.windows for detector in ours),
            open_alarms=sum(alarm.model == name for alarm in alarms),
            wanted=followed.wanted if followed else "",
            follows=followed.follows if followed else "",
            said=followed.said if followed else "",
            digest=report.digest if report else "",
            signed=named.signed(name, report) if report else None,
        )
