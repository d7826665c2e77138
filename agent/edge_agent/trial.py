"""How a trial ends: by evidence from real requests, or at its deadline. Pure."""

from __future__ import annotations

from typing import Literal

from edge_agent.steps import Evidence, TrialRules

Verdict = Literal["commit", "fail", "wait"]


def judge(seen: Evidence, rules: TrialRules) -> Verdict:
    """Commit, fail or wait.

    ``seen.requests`` counts the answered and the failed ones. Fail as soon as the failures
    exceed what the full number of requests would allow, since no later success heals that.
    Commit after ``rules.requests`` with the error rate kept, or after ``rules.seconds`` without
    a single failure. At ``rules.deadline_s`` without either, fail.
    """
    if seen.failures > rules.max_error_rate * max(seen.requests, rules.requests):
        return "fail"
    if seen.requests >= rules.requests:
        return "commit"
    if seen.elapsed_s >= rules.seconds and seen.failures == 0:
        return "commit"
    return "fail" if seen.elapsed_s >= rules.deadline_s else "wait"


def describe(seen: Evidence) -> str:
    """The evidence in one phrase."""
    return f"{seen.requests} requests, {seen.failures} failed, in {seen.elapsed_s:.0f} s"
