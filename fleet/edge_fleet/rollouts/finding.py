"""What a gate says. Pure.

Guards: every gate speaks in one form: a figure, its limit, its sample, a verdict, and why. With too
small a sample it says nothing yet, and past its deadline that is a failure; one that cannot judge
says so, and holds the wave up only where it was given a smallest sample.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from edge_fleet.quality.betting import ErrorDetector
from edge_fleet.rollouts.order import Gate, Ratio

Verdict = Literal["holds", "open", "fails"]
State = Literal["waiting", "passing", "failed", "cannot judge"]
AnyGate = Gate | Ratio


class Finding(Struct, frozen=True):
    """What a gate says: of ``sample`` devices, rows or labels; ``value`` is what ``limit`` bounds.

    ``value`` None: there is no sample. ``state``: the verdict for a person. ``interval``: of the
    difference, new less old, at every look at once, where the gate compares means.
    """

    gate: str
    verdict: Verdict
    value: float | None
    limit: float
    sample: int
    least: int
    said: str
    state: State = "passing"
    interval: tuple[float, float] | None = None


def share(name: str, gate: AnyGate, some: int, of: int, what: str) -> Finding:
    """At most ``gate.limit`` of them: no test, they are all there are."""
    limit = float(gate.limit or 0)
    verdict: Verdict = "holds" if some <= limit * of + 1e-9 else "fails"
    value = some / of if of else None
    said = f"{some} of {of} {what}"
    return Finding(name, verdict, value, limit, of, gate.least, said, state_of(of))


def evidence(
    name: str, gate: AnyGate, rate: float, counts: tuple[int, int], *, alpha: float, what: str
) -> Finding:
    """Against a rate that is known. ``counts``: of those that are wrong, and all."""
    some, of = counts
    said = f"{some} of {of} {what}, the limit is {100 * rate:.3g} %"
    fails = log_evidence(rate, some, of) >= -math.log(alpha)
    value = some / of if of else None
    verdict: Verdict = "fails" if fails else "holds"
    return Finding(name, verdict, value, rate, of, gate.least, said, state_of(of))


def state_of(of: int) -> State:
    """Of nothing there is nothing to say."""
    return "passing" if of else "cannot judge"


def cannot(name: str, gate: AnyGate, why: str) -> Finding:
    """There is nothing to judge by."""
    limit = float(gate.limit or 0)
    return Finding(name, "holds", None, limit, 0, gate.least, why, "cannot judge")


def too_early(finding: Finding) -> Finding:
    """The same of a rollout that has no devices."""
    said = "no device was chosen for this rollout"
    return replace(
        finding, verdict="open", value=None, sample=0, said=said, state="waiting", interval=None
    )


def in_time(finding: Finding, gate: AnyGate, waited_ms: int) -> Finding:
    """With too small a sample a gate says nothing yet; past its deadline that is a failure."""
    if finding.sample >= finding.least:
        return _with_state(finding)
    late = waited_ms > 1000 * gate.deadline_s
    said = f"{finding.said}; a sample of {finding.sample}, {finding.least} are needed"
    said = f"{said}, {gate.deadline_s:g} s are over" if late else said
    return _with_state(replace(finding, verdict="fails" if late else "open", said=said))


def _with_state(finding: Finding) -> Finding:
    """A verdict in words; one who cannot judge says so for as long as nothing else is the case."""
    states: dict[Verdict, State] = {"holds": "passing", "open": "waiting", "fails": "failed"}
    if finding.state == "cannot judge" and finding.verdict == "holds":
        return finding
    return replace(finding, state=states[finding.verdict])


def points(value: float | None) -> str:
    """A difference of two shares for a person."""
    return "an unknown share" if value is None else f"{100 * value:.2g} points"


def within(interval: tuple[float, float] | None) -> str:
    """The interval of a difference for a person, "" for none."""
    if interval is None:
        return ""
    return f"; the difference is {100 * interval[0]:+.2g} to {100 * interval[1]:+.2g} points"


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
