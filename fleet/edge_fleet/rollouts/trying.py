"""A candidate beside the live version, before anybody follows it: what its counts say. Pure.

Guards: a candidate goes on to the first wave once it is shown that it agrees and does not fail, at
``alpha``, and not because nothing was shown; what was not shown in time has failed. It is compared
with the live version on the same calls, and with nothing else.

In the shadow it answers nobody; with ``answers`` it answers its share of the requests (A/B), and
both versions' windows, errors and labels are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from msgspec.structs import replace

from edge_contract import aside
from edge_contract.aside import Shadow
from edge_contract.messages import Beside
from edge_contract.telemetry import LATENCY_BUCKETS, unpack_counts
from edge_fleet.rollouts import choosing, comparing, otherwise, slower
from edge_fleet.rollouts.finding import (
    AnyGate,
    Finding,
    Verdict,
    cannot,
    evidence,
    in_time,
    share,
    within,
)
from edge_fleet.rollouts.order import Order
from edge_fleet.rollouts.state import Reports, Rollout, Trial
from edge_fleet.rollouts.tallies import Arms, Counts, ShadowTally, Tally

FAR = 0.125
"""Scores so far apart are no rounding: an eighth of the scale."""
_FAR_FROM = aside.difference_bucket(FAR)


def at_hand(rollout: Rollout) -> bool:
    """Whether the candidate is still to show itself beside the live version."""
    return rollout.order.trial is not None and not (rollout.trial and rollout.trial.over)


def wanted(rollout: Rollout, device: str) -> Beside | None:
    """What is to run beside the live version of a device of the trial; None: nothing."""
    order, trial = rollout.order, rollout.trial
    active = rollout.phase in ("running", "paused", "waiting")
    if order.trial is None or trial is None or device not in trial.devices:
        return None
    if trial.over or not active:
        return None
    return Beside(version=order.version, share=order.trial.share, answers=order.trial.answers)


def chosen(rollout: Rollout, free: list[str], selected: int, now_ms: int) -> Rollout:
    """With the devices that the trial still lacks, of ``free`` in the order in which they join."""
    order, trial = rollout.order, rollout.trial or Trial(began_ms=now_ms)
    assert order.trial is not None
    size = choosing.size((order.trial.on,), 0, selected) - len(trial.devices)
    joining = [device for device in free if device not in trial.devices][: max(size, 0)]
    devices = {**trial.devices, **dict.fromkeys(joining, now_ms)}
    return replace(rollout, trial=replace(trial, devices=devices))


def findings(rollout: Rollout, reports: Reports, now_ms: int) -> list[Finding]:
    """Of each gate of the trial, in a fixed order."""
    order, gates = rollout.order, rollout.order.gates
    assert order.trial is not None
    devices = rollout.trial.devices if rollout.trial else {}
    ended = sum(reports.devices[d].ended for d in devices if d in reports.devices)
    found = [
        (
            gates.failures,
            share(
                "failures",
                gates.failures,
                ended,
                len(devices),
                "devices ended the candidate: its self-test or its calls failed",
            ),
        ),
        *(_answering(order, reports) if order.trial.answers else _unheard(order, reports)),
    ]
    waited_ms = now_ms - (rollout.trial.began_ms if rollout.trial else now_ms)
    return [
        in_time(_shown_in_time(finding, gate, waited_ms), gate, waited_ms)
        for gate, finding in found
        if gate.limit is not None and finding.gate not in rollout.forgiven
    ]


def _unheard(order: Order, reports: Reports) -> list[tuple[AnyGate, Finding]]:
    gates, alpha = order.gates, order.gates.alpha
    total = together(reports.shadows.values())
    ran = total.rows + total.refused + total.failed
    compared = total.agreed + total.differed
    far = int(total.differences[_FAR_FROM:].sum())
    scores = int(total.differences.sum())
    arms = Arms(
        new={d: Tally(calls=one.calls) for d, one in reports.shadows.items()},
        own={d: Tally(calls=one.live_calls) for d, one in reports.shadows.items()},
    )
    return [
        (gates.agreement, _shown(
            "agreement", gates.agreement, (total.differed, compared), alpha,
            f"{total.differed} of {compared} answers differ from the live version's",
        )),
        (gates.shadow_failures, _shown(
            "shadow_failures", gates.shadow_failures, (total.refused + total.failed, ran), alpha,
            f"{total.refused + total.failed} of {ran} rows were refused or failed on,"
            f" {total.skipped} more skipped",
        )),
        (gates.shadow_scores, evidence(
            "shadow_scores", gates.shadow_scores, float(gates.shadow_scores.limit or 0),
            (far, scores), alpha=alpha, what=f"scores are {FAR:g} or more apart",
        )),
        (gates.shadow_latency, _latency("shadow_latency", gates.shadow_latency, arms, alpha)),
    ]  # fmt: skip


def _answering(order: Order, reports: Reports) -> list[tuple[AnyGate, Finding]]:
    """A/B: two arms on the same devices in the same time."""
    gates, alpha = order.gates, order.gates.alpha
    new, own = reports.arms.new, reports.arms.own
    failed = (sum(t.failed for t in new.values()), sum(t.rows for t in new.values()))
    former = (sum(t.failed for t in own.values()), sum(t.rows for t in own.values()))
    right = (reports.wrong, reports.labels)
    beside = (reports.beside_wrong, reports.beside_labels)
    return [
        (gates.errors, _two_arms(
            "errors", gates.errors, failed, former, alpha=alpha, what="rows failed",
            least=max(gates.errors.least, LEAST_ROWS),
        )),
        (gates.quality, _two_arms(
            "quality", gates.quality, right, beside, alpha=alpha, what="labels say wrong",
            least=gates.quality.least,
        )),
        (gates.latency, _latency("latency", gates.latency, reports.arms, alpha)),
    ]  # fmt: skip


LEAST_ROWS = 200
"""A candidate that answered fewer rows has shown nothing."""


def _two_arms(
    name: str, gate: AnyGate, new: tuple[int, int], old: tuple[int, int], *, alpha: float,
    what: str, least: int,
) -> Finding:  # fmt: skip
    judged = otherwise.counted_worse(new, old, float(gate.limit or 0), alpha)
    fails = judged.log_e >= -math.log(alpha)
    said = f"{new[0]} of {new[1]} {what}, {old[0]} of {old[1]} of the live version"
    said += within(judged.interval)
    verdict: Verdict = "fails" if fails else "open" if new[1] < least else "holds"
    return Finding(
        name, verdict, judged.value, float(gate.limit or 0), new[1], max(least, gate.least), said,
        interval=judged.interval,
    )  # fmt: skip


def _shown(name: str, gate: AnyGate, counts: tuple[int, int], alpha: float, said: str) -> Finding:
    """Holds once the share is shown to be below the limit, fails once it is shown to be above."""
    some, of = counts
    limit = float(gate.limit or 0)
    found, at = comparing.counted(some, of), np.asarray(limit)
    verdict: Verdict = "open"
    if float(comparing.above(found, at)) >= -math.log(alpha):
        verdict = "fails"
    elif limit >= 1 or float(comparing.below(found, at)) >= -math.log(alpha):
        verdict = "holds"
    said = f"{said}, {100 * limit:.3g} % may"
    return Finding(name, verdict, some / of if of else None, limit, of, gate.least, said)


def _latency(name: str, gate: AnyGate, arms: Arms, alpha: float) -> Finding:
    found = slower.slower(arms, float(gate.limit or 1))
    fails = found.log_e >= -math.log(alpha)
    if not found.windows:
        return cannot(name, gate, "no calls yet beside the live version's")
    ratio = "an unknown number of" if found.ratio is None else f"{found.ratio:.2f}"
    said = f"{ratio} times as long as the live version, in {found.windows} windows"
    return Finding(
        name, "fails" if fails else "holds", found.ratio, float(gate.limit or 1),
        found.windows, gate.least, said,
    )  # fmt: skip


def _shown_in_time(finding: Finding, gate: AnyGate, waited_ms: int) -> Finding:
    if finding.verdict != "open" or waited_ms <= 1000 * gate.deadline_s:
        return finding
    said = f"{finding.said}; not shown within {gate.deadline_s:g} s"
    return replace(finding, verdict="fails", said=said)


def tallies(records: Iterable[Shadow]) -> dict[str, ShadowTally]:
    """By device; records of several periods are added, each period's calls are one outcome."""
    by_device: dict[str, list[ShadowTally]] = {}
    for record in records:
        by_device.setdefault(record.device, []).append(
            ShadowTally(
                rows=record.rows, refused=record.refused, failed=record.failed,
                skipped=record.skipped, agreed=record.agreed, differed=record.differed,
                differences=aside.differences_of(record), calls=_calls(record.latency),
                live_calls=_calls(record.live_latency),
            )
        )  # fmt: skip
    return {device: together(some) for device, some in by_device.items()}


def _calls(data: bytes) -> Counts:
    found = unpack_counts(data, LATENCY_BUCKETS)
    return found[None] if found.any() else np.zeros((0, LATENCY_BUCKETS), dtype=np.int64)


def together(some: Iterable[ShadowTally]) -> ShadowTally:
    """The sum."""
    found = list(some)
    if not found:
        return ShadowTally()
    return ShadowTally(
        rows=sum(one.rows for one in found),
        refused=sum(one.refused for one in found),
        failed=sum(one.failed for one in found),
        skipped=sum(one.skipped for one in found),
        agreed=sum(one.agreed for one in found),
        differed=sum(one.differed for one in found),
        differences=np.sum([one.differences for one in found], axis=0),
        calls=np.concatenate([one.calls for one in found]),
        live_calls=np.concatenate([one.live_calls for one in found]),
    )
