"""How a rollout stands, for a person or a program. Pure."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from edge_fleet.rollouts import gates, plan
from edge_fleet.rollouts.gates import Finding
from edge_fleet.rollouts.state import Note, Phase, Reports, Rollout


class Standing(Struct, frozen=True, kw_only=True):
    """See the module's docstring.

    Attributes:
        wave, waves: counted from 1. selected: devices that the order means now.
        devices: members by where they are with the version. troubled: members that refuse it, are
            late, silent or odd, at most ``TROUBLED_MAX``. gates: what each says now.
    """

    id: int
    model: str
    version: str
    digest: str
    phase: Phase
    wave: int
    waves: int
    reason: str
    selected: int
    devices: dict[str, int]
    troubled: tuple[str, ...]
    gates: tuple[Finding, ...]
    started_ms: int
    baking_ms: int
    notes: tuple[Note, ...]


TROUBLED_MAX = 100


def of(rollout: Rollout, reports: Reports, now_ms: int) -> Standing:
    """How ``rollout`` stands in the light of ``reports``."""
    order = rollout.order
    where = gates.standings(rollout, reports, now_ms)
    return Standing(
        id=rollout.id,
        model=order.model,
        version=order.version,
        digest=order.digest,
        phase=rollout.phase,
        wave=rollout.wave + 1,
        waves=len(order.waves),
        reason=rollout.reason,
        selected=len(plan.selected(order, reports)),
        devices=dict(sorted(Counter(where.values()).items())),
        troubled=tuple(sorted(d for d, one in where.items() if one in gates.BAD))[:TROUBLED_MAX],
        gates=tuple(gates.findings(rollout, reports, where, now_ms)),
        started_ms=rollout.started_ms,
        baking_ms=rollout.baking_ms,
        notes=rollout.notes,
    )
