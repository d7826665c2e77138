"""What the store knows of a rollout's devices, as the planner sees it.

Guards: what a device says of itself is decoded or counts as not said; rows and labels are of the
version and of the time since the rollout began; nothing is decided here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from edge_contract import aside, messages
from edge_contract.aside import Shadow
from edge_contract.errors import InputFault
from edge_contract.messages import Beside, Desired, ModelReport, Reported
from edge_fleet import error_watch
from edge_fleet.cohorts import cohort_name
from edge_fleet.following import Named
from edge_fleet.rollouts import counting, matching, trying, whom
from edge_fleet.rollouts.matching import ALL, Stratum
from edge_fleet.rollouts.order import Order
from edge_fleet.rollouts.state import ACTIVE, Reports, Rollout, Seen, decode
from edge_fleet.rollouts.tallies import ShadowTally
from edge_fleet.store.base import Alarm, AsideKind, Device, Transaction
from edge_fleet.store.rollouts import Wish

FORMER_MS = 30 * 86_400_000
"""Labels of the former versions that are at most so old say how well those did."""


@dataclass(frozen=True)
class Look:
    """What every rollout looks at, read and decoded once."""

    devices: list[tuple[Device, Reported | None]]
    wishes: dict[str, tuple[int, Desired]]
    alarms: list[Alarm]
    named: Named


def look(tx: Transaction) -> Look:
    """Look now."""
    return Look(
        [(device, report_of(device)) for device in tx.devices()],
        {device: (wish.revision, desired_of(wish)) for device, wish in tx.wishes().items()},
        tx.alarms(open_only=True),
        Named(tx.releases()),
    )


def everything(tx: Transaction) -> list[Rollout]:
    """Every rollout, oldest first."""
    return [decode(row.state) for row in tx.rollouts()]


def reports(
    tx: Transaction, order: Order, since_ms: int, *, counts: bool, taken: frozenset[str],
    at: Look | None = None,
) -> Reports:  # fmt: skip
    """What is seen; with ``counts`` also rows and labels, which takes reading many records."""
    at = at or look(tx)
    alarms = [
        alarm
        for alarm in at.alarms
        if (alarm.model, alarm.version) == (order.model, order.version)
        and alarm.opened_ms >= since_ms
    ]
    devices = {
        device.device: _seen(
            device, told, order, wanted=at.wishes.get(device.device), alarms=alarms, named=at.named
        )
        for device, told in at.devices
    }
    found = Reports(devices=devices, taken=taken)
    if not counts:
        return found
    digests = {one.digest for one in devices.values() if one.active == order.version}
    digests = {order.digest} if order.digest else digests
    selected = whom.selected(order, found)
    kinds = {
        d: (one.traits.get("hw", ""), one.traits.get(order.site, "")) for d, one in devices.items()
    }
    strata = matching.strata(kinds)
    counted = counting.counted(
        tx, order, since_ms, sorted(digests - {""}),
        {device: kinds[device][0] for device in selected}, strata=strata,
    )  # fmt: skip
    return msgspec.structs.replace(
        found, rows=counted.rows, failed=counted.failed, arms=counted.arms,
        **_labels(tx, order, since_ms, strata), shadows=_shadows(tx, order, since_ms, digests),
    )  # fmt: skip


def seen(device: Device, order: Order, wish: Wish | None, named: Named) -> Seen:
    """One device, without alarms."""
    wanted = (wish.revision, desired_of(wish)) if wish else None
    return _seen(device, report_of(device), order, wanted=wanted, alarms=(), named=named)


def _seen(
    device: Device, told: Reported | None, order: Order, *, wanted: tuple[int, Desired] | None,
    alarms: Iterable[Alarm], named: Named,
) -> Seen:  # fmt: skip
    revision, desired = wanted or (0, Desired(revision=0))
    word, beside = desired.models.get(order.model, "stable"), desired.beside.get(order.model)
    if told is None:
        return Seen(
            traits={"device": device.device}, heard_ms=device.seen_ms, heeds=False, word=word,
            beside=beside,
        )  # fmt: skip
    model = told.models.get(order.model, ModelReport(phase="idle"))
    failed = model.failure is not None and model.failure.version == order.version
    traits = {
        "hw": told.hardware.machine, "agent": told.agent, "system": told.hardware.system,
        **told.labels, "device": device.device,
    }  # fmt: skip
    return Seen(
        traits=traits, heard_ms=device.seen_ms, active=model.active, digest=model.digest,
        phase=model.phase, refused=failed or order.version in model.quarantined,
        heeds=wanted is None or told.revision >= revision, word=word,
        alarms=sum(_about(alarm, device.device, told.labels) for alarm in alarms),
        beside=beside, ended=model.beside.startswith(f"{order.version}: "),
        onnxruntime=told.hardware.onnxruntime, ram_bytes=told.hardware.ram_bytes,
        disk_bytes=told.room.total_bytes or 0, unsigned=named.signed(order.model, model) is False,
    )  # fmt: skip


def report_of(device: Device) -> Reported | None:
    """What it said of itself last; None where that is nothing that this program understands."""
    try:
        return messages.decode(device.reported, Reported) if device.reported else None
    except InputFault:
        return None


def desired_of(wish: Wish | None) -> Desired:
    """The message that was kept; an empty one where there was none."""
    return messages.decode(wish.desired, Desired) if wish else Desired(revision=0)


def word_of(wish: Wish | None, model: str) -> str:
    """What the device is to follow of ``model``."""
    return desired_of(wish).models.get(model, "stable")


def beside_of(wish: Wish | None, model: str) -> Beside | None:
    """What the device is to run beside the live version of ``model``."""
    return desired_of(wish).beside.get(model)


def taken(rollout: Rollout, every: Iterable[Rollout]) -> frozenset[str]:
    """Devices that another rollout of the model holds: one under way, or a newer one."""
    held: set[str] = set()
    for other in every:
        if other.order.model != rollout.order.model or other.id == rollout.id:
            continue
        trial = other.trial.devices if other.trial else {}
        if other.phase in ACTIVE:
            held.update(other.members, trial)
        elif other.id > rollout.id:
            held.update(trial)
            held.update(device for device, member in other.members.items() if member.asked_ms)
    return frozenset(held)


def _about(alarm: Alarm, device: str, labels: Mapping[str, str]) -> bool:
    if alarm.scope == "device":
        return alarm.device == device
    return alarm.scope == "fleet" or alarm.device in {
        cohort_name(key, value) for key, value in labels.items()
    }


def _shadows(
    tx: Transaction, order: Order, since_ms: int, digests: set[str]
) -> dict[str, ShadowTally]:
    if order.trial is None or order.trial.answers:
        return {}
    records = (
        aside.decode(seen.record)
        for seen in tx.asides(AsideKind.SHADOW, since_ms)
        if not digests or seen.bundle in digests
    )
    return trying.tallies(
        record
        for record in records
        if isinstance(record, Shadow)
        and (record.model, record.version) == (order.model, order.version)
    )


def _labels(
    tx: Transaction, order: Order, since_ms: int, strata: Mapping[str, Stratum]
) -> dict[str, Any]:
    sums: Counter[str] = Counter()
    new_of, beside_of = matching.Counts(), matching.Counts()
    for seen in tx.asides(AsideKind.LABELLED, since_ms - FORMER_MS):
        model, version = error_watch.version_of(seen)
        new = version == order.version
        if model != order.model or (new and seen.received_ms < since_ms):
            continue
        wrong, labels = error_watch.counted(seen)
        sums["wrong" if new else "former_wrong"] += wrong
        sums["labels" if new else "former_labels"] += labels
        if seen.received_ms >= since_ms:
            (new_of if new else beside_of).add(strata.get(seen.device, ALL), wrong, labels)
            if not new:
                sums["beside_wrong"] += wrong
                sums["beside_labels"] += labels
    return {**sums, "alike": matching.alike(new_of, beside_of)}
