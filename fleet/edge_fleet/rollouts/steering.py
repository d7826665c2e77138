"""What a person says of a rollout. Pure.

Guards: a word that does not fit the phase changes nothing and says so.
"""

from __future__ import annotations

from msgspec.structs import replace

from edge_fleet.rollouts import gates, plan
from edge_fleet.rollouts.order import Refused
from edge_fleet.rollouts.state import Phase, Reports, Rollout


def pause(rollout: Rollout, now_ms: int, said: str = "paused by hand") -> Rollout:
    """Ask nothing more until it is resumed; what is under way on devices goes on."""
    _only(rollout, "pause", ("running",))
    return plan.noted(replace(rollout, paused_ms=now_ms), "paused", said, now_ms)


def resume(rollout: Rollout, reports: Reports, now_ms: int) -> Rollout:
    """Go on. Where it waited because gates failed, these are passed over in this wave."""
    _only(rollout, "resume", ("paused", "waiting"))
    failing: tuple[str, ...] = ()
    if rollout.phase == "waiting":
        standing_of = gates.standings(rollout, reports, now_ms)
        found = gates.findings(rollout, reports, standing_of, now_ms)
        failing = tuple(each.gate for each in found if each.verdict == "fails")
    said = f"resumed by hand, passing over {', '.join(failing)}" if failing else "resumed by hand"
    going = replace(
        plan.clock_on(rollout, now_ms), failing=(), paused_ms=0,
        forgiven=tuple(dict.fromkeys(rollout.forgiven + failing)),
    )  # fmt: skip
    return plan.noted(going, "running", said, now_ms)


def approve(rollout: Rollout, reports: Reports, now_ms: int) -> Rollout:
    """Go on where it waits for a person, as ``resume`` does; a paused one stays paused."""
    _only(rollout, "approve", ("waiting",))
    return resume(rollout, reports, now_ms)


def abort(rollout: Rollout, reports: Reports, now_ms: int) -> Rollout:
    """End it: devices that have not installed the version are called back, others stay."""
    _only(rollout, "abort", ("queued", "running", "paused", "waiting"))
    return plan.noted(
        plan.called_back(rollout, reports, now_ms), "aborted", "aborted by hand", now_ms
    )


def roll_back(rollout: Rollout, now_ms: int) -> Rollout:
    """All its devices go back to what they followed before."""
    _only(rollout, "roll back", ("running", "paused", "waiting", "halted", "aborted", "finished"))
    every = plan.back_again(rollout, rollout.members)
    return plan.noted(every, "rolling-back", "rolled back by hand", now_ms)


def release(rollout: Rollout, reports: Reports, now_ms: int) -> Rollout:
    """Its devices follow their channel again. Raises Refused where that does not name the version.

    Without a look at the channel (``reports.promoted`` None) nothing is refused.
    """
    _only(rollout, "release", ("finished", "halted", "aborted", "rolled-back"))
    if reports.promoted is False:
        raise Refused(
            f"no channel names {rollout.order.model} {rollout.order.version} as its stable version:"
            " devices would leave it",
            advice="Publish it as stable first: `edge-pack publish FILE`; or --unchecked.",
        )
    return plan.noted(rollout, "released", "released by hand: devices follow the channel", now_ms)


def _only(rollout: Rollout, verb: str, phases: tuple[Phase, ...]) -> None:
    if rollout.phase not in phases:
        raise Refused(
            f"cannot {verb} rollout {rollout.id}: it is {rollout.phase}, expected"
            f" {' or '.join(phases)}",
            advice="See `edge-fleet rollout status`.",
        )
