"""Rollouts for Prometheus: how far each is, and what became of its devices.

Guards: at most ``ROLLOUTS_MAX`` rollouts are told: those under way, then the newest of each model;
no label names a device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import get_args

from msgspec import Struct
from prometheus_client.core import GaugeMetricFamily, Metric

from edge_fleet.following import Named
from edge_fleet.rollouts import facts, gates, state
from edge_fleet.rollouts.state import ACTIVE, Phase, Rollout
from edge_fleet.store.base import Transaction
from edge_fleet.store.rollouts import RolloutRow

ROLLOUTS_MAX = 20
_LOOK_BACK = 500
_NAMES = ["rollout", "model", "version"]


class RolloutFigures(Struct, frozen=True):
    """One rollout. ``devices``: its members by where they are with the version."""

    rollout: Rollout
    changed_ms: int
    devices: dict[gates.Standing, int]


def figures(tx: Transaction, now_ms: int) -> list[RolloutFigures]:
    """Of the rollouts that are told, newest first."""
    return [_figures(tx, row, now_ms) for row in told(tx.rollouts_before((), _LOOK_BACK))]


def told(rows: list[RolloutRow]) -> list[RolloutRow]:
    """Of ``rows``, newest first: those under way, and the newest of each model."""
    newest: dict[str, int] = {}
    for row in rows:
        newest.setdefault(row.model, row.id)
    under_way = [row for row in rows if row.phase in ACTIVE or row.phase == "queued"]
    others = [row for row in rows if row.id in newest.values() and row not in under_way]
    return sorted((*under_way, *others)[:ROLLOUTS_MAX], key=lambda row: -row.id)


def _figures(tx: Transaction, row: RolloutRow, now_ms: int) -> RolloutFigures:
    rollout = state.decode(row.state)
    names = sorted(rollout.members)
    wishes, named = tx.wishes_of(names), Named(tx.releases())
    seen = {
        device.device: facts.seen(device, rollout.order, wishes.get(device.device), named)
        for device in tx.devices_named(names)
    }
    where = (
        gates.standing(rollout.order, member, seen.get(name), now_ms)
        for name, member in rollout.members.items()
    )
    return RolloutFigures(rollout, row.updated_ms, dict(Counter(where)))


def families(found: Iterable[RolloutFigures]) -> Iterable[Metric]:
    """Each figure with its name and what it is."""
    phase = _family("phase", "1 for the phase that it is in.", "phase")
    devices = _family("devices", "Its devices by where they are with the version.", "state")
    single = {
        name: _family(name, what)
        for name, what in (
            ("wave", "The wave at hand, from 1."),
            ("waves", "Waves that were ordered."),
            ("baking", "1 while the wave's gates hold and it is looked at."),
            ("wave_began_timestamp_seconds", "When the wave at hand began."),
            ("changed_timestamp_seconds", "When anything of it changed last."),
        )
    }
    for one in found:
        rollout = one.rollout
        labels = [str(rollout.id), rollout.order.model, rollout.order.version]
        for each in get_args(Phase):
            phase.add_metric([*labels, each], int(each == rollout.phase))
        for where in get_args(gates.Standing):
            devices.add_metric([*labels, where], one.devices.get(where, 0))
        values = {
            "wave": rollout.wave + 1,
            "waves": len(rollout.order.waves),
            "baking": int(rollout.baking_ms > 0),
            "wave_began_timestamp_seconds": rollout.since_ms / 1000,
            "changed_timestamp_seconds": one.changed_ms / 1000,
        }
        for name, value in values.items():
            single[name].add_metric(labels, value)
    yield from (phase, devices, *single.values())


def _family(name: str, what: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"edge_fleet_rollout_{name}", what, labels=[*_NAMES, *labels])
