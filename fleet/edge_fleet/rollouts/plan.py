"""What a rollout does next. Pure.

Guards: ``step`` looks at the state, at what is seen and at the time, and at nothing else; effects
are what devices are to follow and do not yet, so a step that is taken again after a restart asks
for the same and nothing twice. Nothing is asked while a rollout is paused, waits or is over, but
that a device goes back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from edge_fleet.rollouts import choosing, gates, trying, whom
from edge_fleet.rollouts.finding import Finding
from edge_fleet.rollouts.gates import Standing
from edge_fleet.rollouts.order import Order, Refused
from edge_fleet.rollouts.state import (
    ACTIVE,
    NOTES_MAX,
    Member,
    Note,
    Phase,
    Reports,
    Rollout,
    Want,
)


def start(
    number: int, order: Order, reports: Reports, now_ms: int, held: Mapping[str, int] | None = None
) -> Rollout:
    """A new rollout, or one that is queued behind those that hold what it means (``whom.held``).

    Raises Refused when it selects nothing, nothing that can run the version, or what another holds
    and it is not to be queued.
    """
    meant = whom.selected(order, reports)
    if not meant:
        raise Refused(
            f"the selection {order.select!r} matches none of {len(reports.devices)} devices",
            advice="`edge-fleet devices --json` shows what devices say of themselves.",
        )
    if not whom.able(order, reports):
        raise Refused(
            f"none of the {len(meant)} selected devices can run {order.model} {order.version}:"
            f" {whom.unable_named(order, reports, meant)}",
            advice="Update these devices, or build the bundle for what they have.",
        )
    fresh = Rollout(id=number, order=order, started_ms=now_ms, since_ms=now_ms)
    if not held:
        return _begun(fresh, reports, meant, now_ms)
    said = whom.held_said(order, held, len(meant))
    if not order.queue:
        raise Refused(
            said, advice="Queue it with --queue, or end the other: see `edge-fleet rollout status`."
        )
    return noted(fresh, "queued", f"waits: {said}", now_ms)


def _begun(rollout: Rollout, reports: Reports, meant: list[str], now_ms: int) -> Rollout:
    lacking = whom.unable_named(rollout.order, reports, meant)
    said = f"began for {len(meant)} devices" + (f"; {lacking}" if lacking else "")
    return noted(replace(rollout, started_ms=now_ms, since_ms=now_ms), "running", said, now_ms)


def step(rollout: Rollout, reports: Reports, now_ms: int) -> tuple[Rollout, tuple[Want, ...]]:
    """What the rollout is now, and what is to be asked of devices."""
    if rollout.phase == "queued":
        return _dequeued(rollout, reports, now_ms), ()
    rollout = replace(rollout, rate=gates.former_rate(rollout, reports))
    match rollout.phase:
        case "running" if trying.at_hand(rollout):
            rollout = _tried(rollout, reports, now_ms)
        case "running":
            rollout = _advance(_joined(rollout, reports, now_ms), reports, now_ms)
        case "paused" | "waiting":
            rollout = _watched(rollout, reports, now_ms)
        case "rolling-back":
            rollout = _returned(rollout, reports, now_ms)
        case "finished" if rollout.order.then == "channel" and reports.promoted:
            rollout = noted(rollout, "released", "the channel names it as stable now", now_ms)
        case "finished":
            rollout = _asking(_joined(rollout, reports, now_ms), reports, now_ms)
        case "halted" | "aborted" | "rolled-back" | "released":
            pass
    return rollout, effects(rollout, reports)


def _dequeued(rollout: Rollout, reports: Reports, now_ms: int) -> Rollout:
    """Its turn has come once nobody before it holds what it means."""
    meant = whom.selected(rollout.order, reports)
    if reports.held:
        said = whom.held_said(rollout.order, reports.held, len(meant))
        return replace(rollout, reason=f"waits: {said}")
    return _begun(rollout, reports, meant, now_ms)


def effects(rollout: Rollout, reports: Reports) -> tuple[Want, ...]:
    """What members are to follow and, as was last kept, do not."""
    order, found = rollout.order, []
    for device, member in sorted(rollout.members.items()):
        seen = reports.devices.get(device)
        if seen is None or not member.asked_ms or device in reports.taken:
            continue
        if member.back:
            word = member.former
        else:
            word = "stable" if rollout.phase == "released" else order.version
        if seen.word != word:
            found.append(Want(device, order.model, word))
    return (*found, *_besides(rollout, reports))


def _besides(rollout: Rollout, reports: Reports) -> Iterable[Want]:
    """What devices of the trial are to run beside the live version and, as was kept, do not."""
    for device in sorted(rollout.trial.devices if rollout.trial else ()):
        seen = reports.devices.get(device)
        if seen is None or device in reports.taken:
            continue
        beside = trying.wanted(rollout, device)
        if seen.beside != beside:
            yield Want(device, rollout.order.model, "", beside)


# -- the machine -------------------------------------------------------------------------------


def _joined(rollout: Rollout, reports: Reports, now_ms: int) -> Rollout:
    """With the devices that the wave at hand still lacks.

    When one that was off line comes back it joins the wave at hand, and after the last wave it
    simply follows.
    """
    order = rollout.order
    size = choosing.size(order.waves, rollout.wave, len(whom.able(order, reports)))
    wanted = size - len(rollout.members)
    if wanted <= 0:
        return rollout
    joining = {
        device: Member(rollout.wave, former=_former(order, reports.devices[device].word))
        for device in whom.candidates(rollout.id, order, reports, now_ms, rollout.members)[:wanted]
    }
    return replace(rollout, members={**rollout.members, **joining})


def _former(order: Order, word: str) -> str:
    return "stable" if word == order.version else word


def _site(order: Order, traits: dict[str, str]) -> str:
    return traits.get(order.site, "")


def _advance(rollout: Rollout, reports: Reports, now_ms: int) -> Rollout:
    standing_of = gates.standings(rollout, reports, now_ms)
    found = gates.findings(rollout, reports, standing_of, now_ms)
    verdict = gates.worst(found)
    if verdict == "fails":
        return _failed(rollout, reports, found, now_ms)
    rollout = _asking(rollout, reports, now_ms, standing_of)
    under_way = any(
        one in ("chosen", "asked") and rollout.members[d].wave == rollout.wave
        for d, one in standing_of.items()
    )
    if verdict == "open" or under_way or not rollout.members:
        return replace(rollout, baking_ms=0)
    if not rollout.baking_ms:
        rollout = replace(rollout, baking_ms=now_ms)
    if now_ms - rollout.baking_ms < 1000 * rollout.order.bake_s:
        return rollout
    return _passed(rollout, now_ms)


def _tried(rollout: Rollout, reports: Reports, now_ms: int) -> Rollout:
    """The candidate beside the live version: on which devices, and whether it may go on."""
    order = rollout.order
    free = whom.candidates(rollout.id, order, reports, now_ms)
    rollout = trying.chosen(rollout, free, len(whom.able(order, reports)), now_ms)
    found = gates.findings(rollout, reports, {}, now_ms)
    verdict = gates.worst(found)
    if verdict == "fails":
        return _failed(rollout, reports, found, now_ms)
    trial = rollout.trial
    if verdict == "open" or trial is None or not trial.devices:
        return replace(rollout, baking_ms=0)
    if not rollout.baking_ms:
        rollout = replace(rollout, baking_ms=now_ms)
    if now_ms - rollout.baking_ms < 1000 * order.bake_s:
        return rollout
    said = f"the candidate holds beside the live version on {len(trial.devices)} devices"
    over = replace(trial, over=True)
    after = replace(rollout, trial=over, since_ms=now_ms, baking_ms=0, forgiven=())
    phase: Phase = "waiting" if order.approve else "running"
    return noted(after, phase, said + ("; waits for a person" if order.approve else ""), now_ms)


def _watched(rollout: Rollout, reports: Reports, now_ms: int) -> Rollout:
    """Nobody is asked, and what runs the version already is looked at all the same.

    A gate that fails does what the policy says; where that is to wait, it is noted once. The
    deadlines of samples stand still while it is paused: those who were not asked send none.
    """
    still = clock_on(rollout, now_ms)
    found = gates.findings(still, reports, gates.standings(still, reports, now_ms), now_ms)
    failing = {each.gate for each in found if each.verdict == "fails"}
    if not failing - set(rollout.failing):
        return rollout
    return _failed(replace(still, paused_ms=0), reports, found, now_ms)


def clock_on(rollout: Rollout, now_ms: int) -> Rollout:
    """As if the time of the pause had not been."""
    paused_ms = now_ms - rollout.paused_ms if rollout.paused_ms else 0
    trial = rollout.trial
    if trial is not None:
        trial = replace(trial, began_ms=trial.began_ms + paused_ms)
    return replace(rollout, since_ms=rollout.since_ms + paused_ms, trial=trial)


def _passed(rollout: Rollout, now_ms: int) -> Rollout:
    """The wave is over: on to the next, or to the end."""
    order, number = rollout.order, rollout.wave
    if number + 1 == len(order.waves):
        return noted(rollout, "finished", f"all {len(order.waves)} waves hold", now_ms)
    after = replace(rollout, wave=number + 1, since_ms=now_ms, baking_ms=0, forgiven=())
    said = f"wave {number + 1} of {len(order.waves)} holds"
    phase: Phase = "waiting" if order.approve else "running"
    return noted(after, phase, said + ("; waits for a person" if order.approve else ""), now_ms)


def _failed(rollout: Rollout, reports: Reports, found: Sequence[Finding], now_ms: int) -> Rollout:
    said = "; ".join(f"{each.gate}: {each.said}" for each in found if each.verdict == "fails")
    match rollout.order.policy:
        case "wait":
            failing = tuple(each.gate for each in found if each.verdict == "fails")
            return noted(replace(rollout, failing=failing), "waiting", said, now_ms)
        case "halt":
            return noted(called_back(rollout, reports, now_ms), "halted", said, now_ms)
        case "rollback":
            wave = [d for d, member in rollout.members.items() if member.wave == rollout.wave]
            return noted(back_again(rollout, wave), "rolling-back", said, now_ms)
        case "rollback-all":
            return noted(back_again(rollout, rollout.members), "rolling-back", said, now_ms)


def _asking(
    rollout: Rollout, reports: Reports, now_ms: int,
    standing_of: dict[str, Standing] | None = None,
) -> Rollout:  # fmt: skip
    """Ask those whose time has come, as many a site as may be under way at once."""
    order = rollout.order
    if standing_of is None:
        standing_of = gates.standings(rollout, reports, now_ms)
    sites = {
        device: _site(order, seen.traits)
        for device, seen in reports.devices.items()
        if device in rollout.members
    }
    busy = Counter(
        sites[device] for device, one in standing_of.items() if one == "asked" and device in sites
    )
    asked: dict[str, Member] = {}
    for device, member in rollout.members.items():
        if member.asked_ms or member.back or device not in sites or device in reports.taken:
            continue
        site = sites[device]
        if order.per_site and busy[site] >= order.per_site:
            continue
        if _its_time(rollout, device, reports.devices[device].traits, now_ms):
            asked[device] = replace(member, asked_ms=now_ms)
            busy[site] += 1
    return replace(rollout, members={**rollout.members, **asked}) if asked else rollout


def _its_time(rollout: Rollout, device: str, traits: dict[str, str], now_ms: int) -> bool:
    order = rollout.order
    wait_ms = 1000 * order.spread_s * choosing.lot(f"{rollout.id}/spread", device)
    if now_ms < rollout.since_ms + wait_ms:
        return False
    return choosing.in_slot(order.slot, traits.get(order.zone, ""), now_ms)


def called_back(rollout: Rollout, reports: Reports, now_ms: int) -> Rollout:
    """With those sent back that have not installed the version."""
    standing_of = gates.standings(rollout, reports, now_ms)
    return back_again(rollout, [d for d, one in standing_of.items() if one != "installed"])


def back_again(rollout: Rollout, devices: Iterable[str]) -> Rollout:
    """With these on their way back to what they followed before."""
    returned = {device: replace(rollout.members[device], back=True) for device in devices}
    return replace(rollout, members={**rollout.members, **returned})


def _returned(rollout: Rollout, reports: Reports, now_ms: int) -> Rollout:
    """Over once no device that can be heard of runs what it is to leave, or time is up.

    Time: what was to be left may have become the stable version meanwhile.
    """
    gate = rollout.order.gates
    away = 0
    for device, member in rollout.members.items():
        seen = reports.devices.get(device)
        if not (member.back and member.asked_ms) or seen is None or device in reports.taken:
            continue
        lives = now_ms - seen.heard_ms <= 1000 * gate.silent.deadline_s
        left = seen.heeds and seen.word == member.former and seen.active != rollout.order.version
        away += lives and not left
    if away and now_ms - rollout.notes[-1].at_ms <= 1000 * gate.installed.deadline_s:
        return rollout
    said = f"{away} devices still run the version" if away else "the devices are back"
    return noted(rollout, "rolled-back", said, now_ms)


def noted(rollout: Rollout, phase: Phase, said: str, now_ms: int) -> Rollout:
    """In this phase from now on, and why."""
    note = Note(now_ms, phase, rollout.wave, said)
    notes = (*rollout.notes, note)[-NOTES_MAX:]
    return replace(rollout, phase=phase, reason=said, notes=notes)


def holds(rollout: Rollout) -> bool:
    """Whether another rollout of the model has to keep off its devices."""
    return rollout.phase in ACTIVE
