"""How a trial ends: by evidence from real requests, or at its deadline. Pure."""

from __future__ import annotations

from typing import Literal

from edge_agent.steps import Evidence, TrialRules
from edge_contract.messages import Findings

Verdict = Literal["commit", "fail", "wait"]

SLOW_SHARE = 0.01
"""More rows than this over the latency limit: their 99th percentile is over it."""
SLOW_MIN = 3
"""So many at least: one pause of the machine is not the model's."""
AGENT_BYTES = 16 * 1024**2
"""What the agent itself may come to need meanwhile: a download, a window of counts."""


def judge(seen: Evidence, rules: TrialRules) -> Verdict:
    """Commit, fail or wait.

    ``seen.requests`` counts the answered and the failed ones. Fail as soon as something is over
    what the full number of requests would allow, since no later success heals that: see ``faults``.
    Commit after ``rules.requests`` with all limits kept, or after ``rules.seconds`` without a
    single failure. At ``rules.deadline_s`` without either, fail.
    """
    if faults(seen, rules):
        return "fail"
    if seen.requests >= rules.requests:
        return "commit"
    if seen.elapsed_s >= rules.seconds and seen.failures == 0:
        return "commit"
    return "fail" if seen.elapsed_s >= rules.deadline_s else "wait"


def waits(seen: Evidence, rules: TrialRules) -> str:
    """What would end the trial from here, in words; once ``judge`` says wait."""
    share = f"{seen.requests} of {rules.requests} requests"
    left_s = max(rules.deadline_s - seen.elapsed_s, 0.0)
    if seen.failures:
        return f"{share}, {seen.failures} failed; goes back in {left_s:.0f} s otherwise"
    quiet_s = max(rules.seconds - seen.elapsed_s, 0.0)
    return f"{share}, or {quiet_s:.0f} s more without a failure"


def faults(seen: Evidence, rules: TrialRules) -> tuple[str, ...]:
    """What is over its limit for good, a phrase each."""
    found = []
    sample = max(seen.requests, rules.requests)
    if seen.stalled:
        found.append("a request did not come to an end")
    if seen.failures > rules.max_error_rate * sample:
        found.append(f"{seen.failures} failures are over {rules.max_error_rate:.3g} of {sample}")
    if seen.slow >= SLOW_MIN and seen.slow > SLOW_SHARE * sample:
        found.append(f"{seen.slow} rows took longer than {seen.latency_limit_ms:g} ms")
    if seen.ram_limit_bytes and seen.ram_bytes > seen.ram_limit_bytes + AGENT_BYTES:
        found.append(
            f"{seen.ram_bytes / 1e6:.1f} MB of memory are over {seen.ram_limit_bytes / 1e6:.1f} MB"
        )
    return tuple(found)


def describe(seen: Evidence, rules: TrialRules) -> str:
    """The evidence in one phrase, what is over its limit first."""
    wrong = "".join(f"{fault}; " for fault in faults(seen, rules))
    return f"{wrong}{seen.requests} requests, {seen.failures} failed, in {seen.elapsed_s:.0f} s"


def findings(seen: Evidence) -> Findings:
    """The evidence as it is reported."""
    return Findings(
        latency_p99_ms=seen.latency_p99_ms,
        latency_limit_ms=seen.latency_limit_ms,
        ram_bytes=seen.ram_bytes,
        ram_limit_bytes=seen.ram_limit_bytes,
        requests=seen.requests,
        failures=seen.failures,
        slow=seen.slow,
        stalled=seen.stalled,
        seconds=round(seen.elapsed_s, 3),
    )
