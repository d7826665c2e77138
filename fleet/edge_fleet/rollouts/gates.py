"""Does anything speak against going on? Pure.

Guards: one look at the same facts gives the same answer, and looking often costs nothing: errors
and labels are judged by evidence that stays below 1 / alpha with probability 1 - alpha for as long
as the version keeps its limit (Ville's inequality; the bets are those of ``quality.betting``).
A device that is silent past its deadline is one that failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from msgspec import Struct

from edge_fleet.quality.betting import ErrorDetector, rate_to_watch
from edge_fleet.rollouts.order import Gate, Order
from edge_fleet.rollouts.state import Member, Reports, Rollout, Seen

Verdict = Literal["holds", "open", "fails"]
Standing = Literal["chosen", "asked", "installed", "refused", "overdue", "silent", "odd", "back"]
"""Of a member: not asked yet; under way; runs the version; refuses it; took too long; not heard
of; runs another bundle under that version; taken back."""
BAD: frozenset[Standing] = frozenset({"refused", "overdue", "silent", "odd"})
RESTS = ("committed", "idle")


class Finding(Struct, frozen=True):
    """What a gate says: of ``sample`` devices, rows or labels; ``value`` is what ``limit`` bounds.

    ``value`` None: there is no sample.
    """

    gate: str
    verdict: Verdict
    value: float | None
    limit: float
    sample: int
    least: int
    said: str


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
            return "installed" if order.digest in ("", seen.digest) else "odd"
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
    gates = rollout.order.gates
    every = [one for one in standing_of.values() if one not in ("chosen", "back")]
    running = [d for d, one in standing_of.items() if one == "installed"]
    alarmed = sum(reports.devices[d].alarms > 0 for d in running)
    silent = every.count("silent")
    refused = every.count("refused") + every.count("odd")
    rows = (reports.failed, reports.rows)

    def share(name: str, some: int, of: int, what: str) -> Callable[[Gate], Finding]:
        return lambda gate: _share(name, gate, some, of, what)

    made: list[tuple[str, Gate, Callable[[Gate], Finding]]] = [
        ("installed", gates.installed, lambda gate: _installed(rollout, gate, standing_of)),
        ("failures", gates.failures,
         share("failures", refused, len(every), "devices refuse the version")),
        ("silent", gates.silent, share("silent", silent, len(every), "devices are silent")),
        ("errors", gates.errors,
         lambda gate: _evidence("errors", gate, gate.limit or 0.0, rows, gates.alpha)),
        ("drift", gates.drift,
         share("drift", alarmed, len(running), "devices have drift alarms of the version")),
        ("quality", gates.quality, lambda gate: _quality(rollout, gate, reports)),
    ]  # fmt: skip
    found = []
    for name, gate, look in made:
        if gate.limit is not None and name not in rollout.forgiven:
            found.append(_in_time(look(gate), gate, now_ms - rollout.since_ms))
    return found


def worst(found: Sequence[Finding]) -> Verdict:
    """One that fails decides, then one that is open."""
    verdicts = {finding.verdict for finding in found}
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


def _installed(rollout: Rollout, gate: Gate, standing_of: dict[str, Standing]) -> Finding:
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
    return Finding("installed", verdict, share, limit, len(wave), gate.least, said)


def _share(name: str, gate: Gate, some: int, of: int, what: str) -> Finding:
    limit = float(gate.limit or 0)
    verdict: Verdict = "holds" if some <= limit * of + 1e-9 else "fails"
    value = some / of if of else None
    return Finding(name, verdict, value, limit, of, gate.least, f"{some} of {of} {what}")


def _evidence(name: str, gate: Gate, rate: float, counts: tuple[int, int], alpha: float) -> Finding:
    """``counts``: wrong, and all."""
    some, of = counts
    what = "rows failed" if name == "errors" else "labels say wrong"
    said = f"{some} of {of} {what}, the limit is {100 * rate:.3g} %"
    fails = log_evidence(rate, some, of) >= -math.log(alpha)
    value = some / of if of else None
    return Finding(name, "fails" if fails else "holds", value, rate, of, gate.least, said)


def _quality(rollout: Rollout, gate: Gate, reports: Reports) -> Finding:
    if rollout.rate is None:
        said = f"{reports.former_labels} labels of the former versions: nothing to compare with"
        needs: Verdict = "open" if gate.least else "holds"
        return Finding("quality", needs, None, float(gate.limit or 0), 0, gate.least, said)
    counts = (reports.wrong, reports.labels)
    return _evidence("quality", gate, rollout.rate, counts, rollout.order.gates.alpha)


def _in_time(finding: Finding, gate: Gate, waited_ms: int) -> Finding:
    """With too small a sample a gate says nothing yet; past its deadline that is a failure."""
    if finding.sample >= gate.least:
        return finding
    late = waited_ms > 1000 * gate.deadline_s
    said = f"{finding.said}; a sample of {finding.sample}, {gate.least} are needed"
    return Finding(
        finding.gate, "fails" if late else "open", finding.value, finding.limit, finding.sample,
        finding.least, f"{said}, {gate.deadline_s:g} s are over" if late else said,
    )  # fmt: skip


def log_evidence(rate: float, wrong: int, rows: int) -> float:
    """log of the mean over bets: 1 in the mean while the error rate is at most ``rate``.

    The bets are fixed, so the evidence of all rows is that of their sum: nothing has to be kept.
    """
    if not rows:
        return 0.0
    if rate <= 0:
        return math.inf if wrong else 0.0
    if rate >= 1:
        return 0.0
    log_e = ErrorDetector(rate).log_e(np.asarray(float(wrong)), np.asarray(float(rows)))
    return float(np.logaddexp.reduce(log_e)) - math.log(len(log_e))
