"""How a rollout stands, and what an order would do, for a person or a program. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from edge_fleet.rollouts import choosing, finding, gates, whom
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts.finding import Finding
from edge_fleet.rollouts.order import Order
from edge_fleet.rollouts.state import Member, Note, Phase, Reports, Rollout, Seen, Trial

TROUBLED_MAX = 100
NAMED_MAX = 100


class WaveStanding(Struct, frozen=True, kw_only=True):
    """One wave.

    Attributes:
        number: from 1. stage: over, at hand, or still to come. size: devices in this wave and
            those before it, of those selected now that can run it. devices: its members by where
            they are.
    """

    number: int
    stage: Literal["over", "at-hand", "to-come"]
    size: int
    devices: dict[gates.Standing, int]


class Standing(Struct, frozen=True, kw_only=True):
    """See the module's docstring.

    Attributes:
        wave, waves: counted from 1. each: the waves. selected: devices that the order means now.
        unable: of these cannot run the version; the first of them and why in ``unable_said``.
        devices: members by where they are with the version. troubled: members that refuse it, are
            late, silent or odd, at most ``TROUBLED_MAX``. gates: what each says now.
        trial: the candidate beside the live version, where that was ordered and has begun.
        order: what was ordered. baking_ms: since when the gates of the wave hold; 0: they do not.
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
    unable: int
    unable_said: str
    devices: dict[gates.Standing, int]
    troubled: tuple[str, ...]
    gates: tuple[Finding, ...]
    started_ms: int
    baking_ms: int
    notes: tuple[Note, ...]
    each: tuple[WaveStanding, ...]
    order: Order
    trial: Trial | None = None


class Summary(Struct, frozen=True, kw_only=True):
    """A rollout in a list. ``asked``: of its ``members`` were asked to follow the version."""

    id: int
    model: str
    version: str
    phase: Phase
    wave: int
    waves: int
    reason: str
    members: int
    asked: int
    started_ms: int
    updated_ms: int


class MemberView(Struct, frozen=True, kw_only=True):
    """A device of a rollout.

    Attributes:
        wave: from 1. state: where it is with the version. asked_ms, heard_ms: when it was asked,
            and was last heard of; 0: never. active: the version that it says it runs. phase: of
            its update. follows: what it is to follow. heeds: it said that it heard that.
    """

    device: str
    wave: int
    state: gates.Standing
    asked_ms: int
    heard_ms: int
    active: str
    phase: str
    follows: str
    heeds: bool
    labels: dict[str, str]


class Preview(Struct, frozen=True, kw_only=True):
    """What an order would do now.

    Attributes:
        selected: devices that it means. unable: of these cannot run the version. live: of
            these were heard of lately and may begin.
        taken: another rollout of the model holds; examples in ``taken_by_name``.
        sizes: devices in each wave with those before it.
        canaries: the first wave, at most ``NAMED_MAX`` by name; who is away then is replaced.
        represented: by hardware and site: devices of the first wave, and of all that may begin.
        limits: of each gate; None: it is not looked at.
    """

    selected: int
    unable: int
    unable_said: str
    live: int
    taken: int
    taken_by_name: tuple[str, ...]
    sizes: tuple[int, ...]
    canaries: tuple[str, ...]
    represented: tuple[Stratum, ...]
    limits: dict[str, float | None] = {}


class Stratum(Struct, frozen=True, kw_only=True):
    """Devices of one kind of hardware at one site."""

    hw: str
    site: str
    canaries: int
    devices: int


def of(rollout: Rollout, reports: Reports, now_ms: int) -> Standing:
    """How ``rollout`` stands in the light of ``reports``."""
    order = rollout.order
    where = gates.standings(rollout, reports, now_ms)
    meant = whom.selected(order, reports)
    able = len(whom.able(order, reports))
    return Standing(
        id=rollout.id,
        model=order.model,
        version=order.version,
        digest=order.digest,
        phase=rollout.phase,
        wave=rollout.wave + 1,
        waves=len(order.waves),
        reason=rollout.reason,
        selected=len(meant),
        unable=len(meant) - able,
        unable_said=whom.unable_named(order, reports, meant),
        devices=_counted(where.values()),
        troubled=tuple(sorted(d for d, one in where.items() if one in gates.BAD))[:TROUBLED_MAX],
        gates=_gates(rollout, reports, where, now_ms),
        started_ms=rollout.started_ms,
        baking_ms=rollout.baking_ms,
        notes=rollout.notes,
        each=_waves(rollout, where, able),
        order=order,
        trial=rollout.trial,
    )


def _gates(
    rollout: Rollout, reports: Reports, where: dict[str, gates.Standing], now_ms: int
) -> tuple[Finding, ...]:
    """Before it has devices nothing passes: what there is to count is of others that run it."""
    found = gates.findings(rollout, reports, where, now_ms)
    if rollout.members or rollout.trial:
        return tuple(found)
    queued = rollout.phase == "queued"
    return tuple(
        finding.too_early(one) if queued or one.verdict != "fails" else one for one in found
    )


def _waves(
    rollout: Rollout, where: dict[str, gates.Standing], able: int
) -> tuple[WaveStanding, ...]:
    by_wave: dict[int, list[gates.Standing]] = {}
    for device, one in where.items():
        by_wave.setdefault(rollout.members[device].wave, []).append(one)
    done = rollout.phase == "finished"
    found = []
    for number in range(len(rollout.order.waves)):
        over = number < rollout.wave or done
        found.append(
            WaveStanding(
                number=number + 1,
                stage="over" if over else "at-hand" if number == rollout.wave else "to-come",
                size=choosing.size(rollout.order.waves, number, able),
                devices=_counted(by_wave.get(number, [])),
            )
        )
    return tuple(found)


def _counted(some: Iterable[gates.Standing]) -> dict[gates.Standing, int]:
    return dict(sorted(Counter(some).items()))


def summary(rollout: Rollout, updated_ms: int) -> Summary:
    """A rollout in short."""
    return Summary(
        id=rollout.id,
        model=rollout.order.model,
        version=rollout.order.version,
        phase=rollout.phase,
        wave=rollout.wave + 1,
        waves=len(rollout.order.waves),
        reason=rollout.reason,
        members=len(rollout.members),
        asked=sum(member.asked_ms > 0 for member in rollout.members.values()),
        started_ms=rollout.started_ms,
        updated_ms=updated_ms,
    )


def member(order: Order, device: str, one: Member, seen: Seen | None, now_ms: int) -> MemberView:
    """One device of a rollout; ``seen`` None: it was never heard of."""
    told = seen or Seen(word=one.former, heeds=False)
    return MemberView(
        device=device,
        wave=one.wave + 1,
        state=gates.standing(order, one, seen, now_ms),
        asked_ms=one.asked_ms,
        heard_ms=told.heard_ms,
        active=told.active,
        phase=told.phase,
        follows=told.word,
        heeds=told.heeds,
        labels={name: told.traits[name] for name in (order.site, "hw") if name in told.traits},
    )


def preview(number: int, order: Order, reports: Reports, now_ms: int) -> Preview:
    """What ``order`` would do as rollout ``number``."""
    meant = whom.selected(order, reports)
    taken = sorted(reports.taken.intersection(meant))
    lining = whom.candidates(number, order, reports, now_ms)
    able = len(whom.able(order, reports))
    sizes = tuple(choosing.size(order.waves, at, able) for at in range(len(order.waves)))
    first = lining[: sizes[0]]

    def kind(device: str) -> tuple[str, str]:
        traits = reports.devices[device].traits
        return traits.get("hw", ""), traits.get(order.site, "")

    canaries, every = Counter(map(kind, first)), Counter(map(kind, lining))
    return Preview(
        selected=len(meant),
        unable=len(meant) - able,
        unable_said=whom.unable_named(order, reports, meant),
        live=len(lining),
        taken=len(taken),
        taken_by_name=tuple(taken[:NAMED_MAX]),
        sizes=sizes,
        canaries=tuple(first[:NAMED_MAX]),
        represented=tuple(
            Stratum(hw=hw, site=site, canaries=canaries[hw, site], devices=count)
            for (hw, site), count in sorted(every.items())[:NAMED_MAX]
        ),
        limits=orders.limits(order.gates),
    )
