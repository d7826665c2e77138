"""Does anything speak against going on? Pure.

Guards: one look at the same facts gives the same answer, and looking often costs nothing: what is
judged by evidence stays below 1 / alpha with probability 1 - alpha for as long as the version keeps
its limit (Ville's inequality; ``quality.betting`` for what is held to a rate, ``comparing`` for new
against old). A device that is silent past its deadline is one that failed. A gate that cannot
judge says so: it is no pass, and it holds the wave up where it was given a smallest sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from edge_fleet.quality.betting import rate_to_watch
from edge_fleet.rollouts import finding, otherwise, slower, trying
from edge_fleet.rollouts.finding import (
    AnyGate,
    Finding,
    Verdict,
    cannot,
    evidence,
    in_time,
    points,
    within,
)
from edge_fleet.rollouts.order import Order
from edge_fleet.rollouts.otherwise import Judged
from edge_fleet.rollouts.state import Member, Reports, Rollout, Seen
from edge_fleet.rollouts.tallies import Arms

Standing = Literal["chosen", "asked", "installed", "refused", "overdue", "silent", "odd", "back"]
"""Of a member: not asked yet; under way; runs the version; refuses it; took too long; not heard
of; runs another bundle under that version; taken back."""
BAD: frozenset[Standing] = frozenset({"refused", "overdue", "silent", "odd"})
RESTS = ("committed", "idle")
CONTROL_LABELS = 200
"""With so many labels of other versions at the same time, these are what the new one is held to."""


def standing(order: Order, member: Member, seen: Seen | None, now_ms: int) -> Standing:
    """Where one device is with the version."""
    if member.back:
        return "back"
    if not member.asked_ms:
        return "chosen"
    waited_s = (now_ms - member.asked_ms) / 1000
    heard_ms = max(seen.heard_ms if seen else 0, member.asked_ms)
    if now_ms - heard_ms > 1000 * order.gates.silent.deadline_s:
        return "silent"
    if seen and seen.heeds:
        if seen.active == order.version and seen.phase in RESTS:
            if order.digest:
                return "installed" if seen.digest == order.digest else "odd"
            if not seen.unsigned:  # it may have heard of a publication before this server did
                return "installed"
        if seen.refused:
            return "refused"
    return "overdue" if waited_s > order.gates.installed.deadline_s else "asked"


def standings(rollout: Rollout, reports: Reports, now_ms: int) -> dict[str, Standing]:
    """Of each member."""
    return {
        device: standing(rollout.order, member, reports.devices.get(device), now_ms)
        for device, member in rollout.members.items()
    }


def findings(
    rollout: Rollout, reports: Reports, standing_of: dict[str, Standing], now_ms: int
) -> list[Finding]:
    """Of each gate that is looked at, in the order of ``Gates``."""
    if trying.at_hand(rollout):
        return trying.findings(rollout, reports, now_ms)
    gates = rollout.order.gates
    every = [one for one in standing_of.values() if one not in ("chosen", "back")]
    running = [d for d, one in standing_of.items() if one == "installed"]
    alarmed = sum(reports.devices[d].alarms > 0 for d in running)
    silent = every.count("silent")
    refused = every.count("refused") + every.count("odd")
    rows = (reports.failed, reports.rows)

    def share(name: str, some: int, of: int, what: str) -> Callable[[AnyGate], Finding]:
        return lambda gate: finding.share(name, gate, some, of, what)

    made: list[tuple[str, AnyGate, Callable[[AnyGate], Finding]]] = [
        ("installed", gates.installed, lambda gate: _installed(rollout, gate, standing_of)),
        ("failures", gates.failures,
         share("failures", refused, len(every), "devices refuse the version")),
        ("silent", gates.silent, share("silent", silent, len(every), "devices are silent")),
        ("errors", gates.errors,
         lambda gate: evidence("errors", gate, gate.limit or 0.0, rows,
                               alpha=gates.alpha, what="rows failed")),
        ("drift", gates.drift,
         share("drift", alarmed, len(running), "devices have drift alarms of the version")),
        ("quality", gates.quality, lambda gate: _quality(rollout, gate, reports)),
        ("latency", gates.latency, lambda gate: _latency(gate, reports.arms, gates.alpha)),
        ("memory", gates.memory,
         share("memory", *slower.heavier(reports.arms), "devices take more memory than they may")),
        ("scores", gates.scores, lambda gate: _scores(gate, reports.arms, gates.alpha)),
        ("estimate", gates.estimate, lambda gate: _estimate(gate, reports.arms, gates.alpha)),
    ]  # fmt: skip
    found = []
    for name, gate, look in made:
        if gate.limit is not None and name not in rollout.forgiven:
            found.append(in_time(look(gate), gate, now_ms - rollout.since_ms))
    return found


def worst(found: Sequence[Finding]) -> Verdict:
    """One that fails decides, then one that is open."""
    verdicts = {each.verdict for each in found}
    return "fails" if "fails" in verdicts else "open" if "open" in verdicts else "holds"


def former_rate(rollout: Rollout, reports: Reports) -> float | None:
    """The error rate on labels that the version is held to; once fixed it stays.

    Fixed by the former versions' labels alone, so that it cannot follow the new one's.
    """
    gate = rollout.order.gates.quality
    if rollout.rate is not None or gate.limit is None:
        return rollout.rate
    if reports.former_labels < max(gate.least, 1):
        return None
    return rate_to_watch(reports.former_wrong, reports.former_labels, gate.limit)


def _installed(rollout: Rollout, gate: AnyGate, standing_of: dict[str, Standing]) -> Finding:
    """Of the wave at hand: it fails as soon as the share can no longer be reached."""
    wave = [standing_of[d] for d, m in rollout.members.items() if m.wave == rollout.wave]
    there, bad = wave.count("installed"), sum(one in BAD for one in wave)
    limit = float(gate.limit or 0)
    share = there / len(wave) if wave else None
    verdict: Verdict = "open"
    if rollout.members and there >= limit * len(wave) - 1e-9:  # a wave may bring nobody new
        verdict = "holds"
    elif len(wave) - bad < limit * len(wave) - 1e-9:
        verdict = "fails"
    said = f"{there} of {len(wave)} devices of the wave run the version, {bad} failed or are late"
    state = finding.state_of(len(wave))
    return Finding("installed", verdict, share, limit, len(wave), gate.least, said, state)


def _quality(rollout: Rollout, gate: AnyGate, reports: Reports) -> Finding:
    """Half of alpha each: against other versions' labels of the same time, or of former times."""
    alpha, limit = rollout.order.gates.alpha / 2, float(gate.limit or 0)
    mine, theirs = reports.alike
    if mine[1] and theirs[1] >= CONTROL_LABELS:
        judged = otherwise.counted_worse(mine, theirs, limit, alpha)
        said = (
            f"{mine[0]:.0f} of {mine[1]:.0f} labels say wrong, {theirs[0]:.0f} of {theirs[1]:.0f}"
            " of other versions on like devices meanwhile"
        )
        return _judged("quality", gate, judged, alpha, said, sample=reports.labels)
    if rollout.rate is None:
        said = f"{reports.former_labels} labels of the former versions: nothing to compare with"
        needs: Verdict = "open" if gate.least else "holds"
        return Finding("quality", needs, None, limit, 0, gate.least, said, "cannot judge")
    counts = (reports.wrong, reports.labels)
    return evidence("quality", gate, rollout.rate, counts, alpha=alpha, what="labels say wrong")


def _latency(gate: AnyGate, arms: Arms, alpha: float) -> Finding:
    found = slower.slower(arms, float(gate.limit or 1))
    fails = found.log_e >= -math.log(alpha)
    if not found.windows:
        said = "no windows of the version beside others of the same device or hardware"
        if not fails:
            return cannot("latency", gate, said)
    said = f"{_times(found.ratio)} as long as before, in {found.windows} windows of"
    said += f" {found.devices} devices (99th percentile at most {_ms(found.new_p99_ms)}, before"
    said += f" {_ms(found.old_p99_ms)})"
    return Finding(
        "latency", "fails" if fails else "holds", found.ratio, float(gate.limit or 1),
        found.windows, gate.least, said,
    )  # fmt: skip


def _scores(gate: AnyGate, arms: Arms, alpha: float) -> Finding:
    judged = otherwise.shifted(arms, float(gate.limit or 0))
    said = f"a share of answers or scores changed by {points(judged.value)} on"
    said += f" {judged.devices} devices, against {judged.controls} on other versions"
    return _judged("scores", gate, judged, alpha, said, sample=judged.devices)


def _estimate(gate: AnyGate, arms: Arms, alpha: float) -> Finding:
    judged = otherwise.less_right(arms, float(gate.limit or 0), alpha)
    said = f"scores promise {points(judged.value)} more errors on {judged.devices} devices"
    said += f" than on {judged.controls} on other versions"
    return _judged("estimate", gate, judged, alpha, said, sample=judged.devices)


def _judged(
    name: str, gate: AnyGate, judged: Judged, alpha: float, said: str, *, sample: int
) -> Finding:
    if judged.cannot:
        return cannot(name, gate, judged.cannot)
    fails = judged.log_e >= -math.log(alpha)
    said += within(judged.interval)
    return Finding(
        name, "fails" if fails else "holds", judged.value, float(gate.limit or 0), sample,
        gate.least, said, interval=judged.interval,
    )  # fmt: skip


def _times(ratio: float | None) -> str:
    return "an unknown number of times" if ratio is None else f"{ratio:.2f} times"


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g} ms"
