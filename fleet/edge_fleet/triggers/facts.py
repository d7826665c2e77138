"""What triggers decide on, read from the store, and the evidence record made of it.

Guards: reading only; what costs a day of counts is read where the rest of the conditions holds; no
figure of the evidence is of fewer than the trigger's ``k`` rows, and none that is decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import msgspec

from edge_contract import messages, trigger
from edge_contract.errors import InputFault
from edge_contract.manifest import Manifest
from edge_contract.trigger import AlarmFound, CellShare, Evidence, Figure
from edge_fleet import estimating
from edge_fleet.alarm_disclosure import disclosed
from edge_fleet.drift import explain as explanations
from edge_fleet.drift.budget import Budget
from edge_fleet.library import Library
from edge_fleet.liveness import liveness
from edge_fleet.quality.estimates import Estimate
from edge_fleet.reports import LN10, budget_of, instant
from edge_fleet.store.base import Alarm, Store, Transaction
from edge_fleet.store.firings import Firing
from edge_fleet.triggers.conditions import (
    AlarmSeen,
    Facts,
    Loss,
    Past,
    Verdict,
    decide,
    matches,
    wanted,
)
from edge_fleet.triggers.settings import Trigger

QUALITY_MS = 86_400_000
"""Estimates are of the last day, or since the last firing where that is longer ago."""
SETTLED = ("", "idle", "committed")
FIRINGS_READ = 500


@dataclass(frozen=True)
class Version:
    """One version that alarms or rows are of."""

    bundle: str
    model: str
    version: str


@dataclass(frozen=True)
class Case:
    """A trigger and a version, with what was decided."""

    name: str
    version: Version
    verdict: Verdict
    firing: Firing | None


def cases(
    store: Store, name: str, rule: Trigger, fleet: str, now_ms: int, *, dry_run: bool = False
) -> list[Case]:
    """Decide one trigger for every version that it is about.

    ``firing``: what would be kept, with its evidence, where the trigger fires.
    """
    if not matches(rule.fleets, fleet):
        return []
    budget = budget_of(store.settings())
    with store.reading() as tx:
        reader = _Reader(
            tx, name, rule, fleet=fleet, now_ms=now_ms, budget=budget,
            dry_run=dry_run or rule.dry_run,
        )  # fmt: skip
        return [reader.case(version) for version in reader.versions()]


class _Reader:
    """One look at the store for one trigger."""

    def __init__(
        self, tx: Transaction, name: str, rule: Trigger, *, fleet: str, now_ms: int,
        budget: Budget, dry_run: bool,
    ) -> None:  # fmt: skip
        self._tx, self._name, self._rule, self._fleet = tx, name, rule, fleet
        self._now_ms, self._dry_run = now_ms, dry_run
        self._library = Library()
        self._budget = budget
        self._alarms = [a for a in tx.alarms(open_only=True) if a.parent is None]
        self._firings = tx.firings(name, FIRINGS_READ)
        self._estimates: dict[str, tuple[estimating.VersionQuality, ...]] = {}

    def versions(self) -> list[Version]:
        """Those that the trigger selects, and where alarms are a condition that have any."""
        of_alarms = {Version(a.bundle, a.model, a.version) for a in self._alarms}
        when = self._rule.when
        if not when.measured or (when.alarms and when.require == "all"):
            found = of_alarms
        else:
            found = of_alarms | {
                Version(d.bundle, d.model, d.version) for d in self._tx.all_detectors()
            }
        return sorted(
            (
                each
                for each in found
                if matches(self._rule.models, each.model)
                and matches(self._rule.versions, each.version)
            ),
            key=lambda each: (each.model, each.version, each.bundle),
        )

    def case(self, version: Version) -> Case:
        """Decide for one version."""
        past = self._past(version)
        ours = [alarm for alarm in self._alarms if alarm.bundle == version.bundle]
        rows, windows, devices = self._tx.rows_of([version.bundle])[version.bundle]
        seen = [alarm_seen(alarm) for alarm in ours]
        rollout = ""
        if self._rule.when.measured or wanted(self._rule.when, seen, past):
            rollout = self._rollout(version.model)
        facts = Facts(rows, seen, lambda: self._losses(version), rollout)
        verdict = decide(self._rule.when, facts, past, self._now_ms)
        if not verdict.fires:
            return Case(self._name, version, verdict, None)
        return Case(
            self._name, version, verdict,
            self._firing(version, verdict, ours, (rows, windows, devices), past),
        )  # fmt: skip

    # -- the past --------------------------------------------------------------------------

    def _past(self, version: Version) -> Past:
        """What it did for the model; what was given up does not count as told.

        Nor do dry runs, save to a trigger that makes nothing else.
        """
        ours = [
            f
            for f in self._firings
            if f.model == version.model and (f.state != "dry-run" or self._rule.dry_run)
        ]
        given_up = list(takewhile(lambda f: f.state == "failed", ours))
        ours = [f for f in ours if f.state != "failed"]
        of_bundle = [f for f in ours if f.bundle == version.bundle]
        waiting = [f for f in ours if f.state == "waiting"]
        last = max((f.at_ms for f in ours), default=None)
        return Past(
            last_ms=last,
            rows=max((f.rows for f in of_bundle), default=0),
            named=frozenset(alarm for f in ours for alarm in f.alarms),
            given_up=len(given_up),
            given_up_ms=max((f.done_ms or f.at_ms for f in given_up), default=0),
            under_way=f"firing {waiting[0].number} is still being delivered" if waiting else "",
        )

    def _rollout(self, model: str) -> str:
        """Devices of the model that change versions, or answer with several; "" for none."""
        active: set[str] = set()
        for device in self._tx.devices():
            if (
                liveness(device, self._now_ms, self._budget.window_s) != "online"
                or not device.reported
            ):
                continue
            try:
                report = messages.decode(device.reported, messages.Reported).models.get(model)
            except InputFault:  # kept by a newer edge-fleet
                continue
            if report is None:
                continue
            if report.phase not in SETTLED:
                return f"{device.device} is in phase {report.phase} of {model} {report.candidate}"
            if report.active:
                active.add(report.active)
        if len(active) > 1:
            return f"devices answer with {model} {' and '.join(sorted(active)[:5])}: a rollout"
        return ""

    # -- quality ---------------------------------------------------------------------------

    def _quality(self, version: Version) -> estimating.VersionQuality | None:
        if version.model not in self._estimates:
            self._estimates[version.model] = estimating.read(
                self._tx, self._now_ms, self._budget, period_ms=QUALITY_MS, model=version.model
            )
        of_model = self._estimates[version.model]
        found = next((q for q in of_model if q.bundle == version.bundle), None)
        if found is None:
            return None
        return estimating.of_enough(found, self._rule.k)

    def _losses(self, version: Version) -> Sequence[Loss]:
        found, known = self._quality(version), self._library.find(self._tx, version.bundle)
        if found is None or known is None:
            return ()
        built = {name: built_figure(known.manifest, name)[0] for name in ("accuracy", "mae")}
        losses = (loss_of(built.get(e.figure), e) for e in found.estimates)
        return tuple(loss for loss in losses if loss is not None)

    # -- evidence --------------------------------------------------------------------------

    def _firing(
        self, version: Version, verdict: Verdict, alarms: list[Alarm],
        counted: tuple[int, int, int], past: Past,
    ) -> Firing:  # fmt: skip
        number = max((f.number for f in self._firings), default=0) + 1
        key = key_of(self._fleet, self._name, version.bundle, number, self._now_ms)
        grounds = [a for a in alarms if a.id in verdict.alarms]
        known = self._library.find(self._tx, version.bundle)
        quality = self._quality(version)
        rows, windows, devices = counted
        accuracy, error = (
            built_figure(known.manifest, name) if known else (None, None, None)
            for name in ("accuracy", "mae")
        )
        evidence = Evidence(
            key=key,
            trigger=self._name,
            fleet=self._fleet,
            at=instant(self._now_ms) or "",
            dry_run=self._dry_run,
            model=version.model,
            version=version.version,
            bundle=version.bundle,
            source_sha256=known.manifest.provenance.source_sha256 if known else "",
            why=verdict.said,
            alarms=tuple(
                alarm_found(disclosed(alarm, known, self._rule.k))
                for alarm in grounds[: trigger.ALARMS_MAX]
            ),
            alarms_open=len(alarms),
            rows=_enough(rows, self._rule.k),
            rows_new=_enough(rows - past.rows, self._rule.k),
            windows=windows,
            devices=devices,
            built_accuracy=accuracy[0],
            built_accuracy_low=accuracy[1],
            built_accuracy_high=accuracy[2],
            built_mae=error[0],
            built_mae_low=error[1],
            built_mae_high=error[2],
            quality=tuple(map(figure_of, quality.estimates)) if quality else (),
        )
        return Firing(
            key=key, trigger=self._name, number=number, model=version.model,
            version=version.version, bundle=version.bundle, alarms=verdict.alarms, rows=rows,
            at_ms=self._now_ms, state="dry-run" if self._dry_run else "waiting",
            next_ms=self._now_ms, evidence=fitted(evidence),
        )  # fmt: skip


def key_of(fleet: str, name: str, bundle: str, number: int, at_ms: int) -> str:
    """The idempotency key of one firing, 64 hex digits."""
    said = "\n".join([fleet, name, bundle, str(number), str(at_ms)])
    return hashlib.sha256(said.encode()).hexdigest()


def alarm_seen(alarm: Alarm) -> AlarmSeen:
    """An alarm, as far as conditions look at it."""
    kind = explanations.decode(alarm.explanation).kind
    return AlarmSeen(alarm.id, alarm.bundle, alarm.scope, kind, alarm.feature)


def alarm_found(alarm: Alarm) -> AlarmFound:
    """An alarm, as evidence has it."""
    said = explanations.decode(alarm.explanation)
    cells = said.cells[: trigger.CELLS_MAX]
    return AlarmFound(
        id=alarm.id,
        level=alarm.scope,
        device=alarm.device,
        feature=alarm.feature[:4000],
        source=alarm.source,
        kind=said.kind,
        what=said.text[:4000],
        since=instant(alarm.since_ms) or "",
        opened=instant(alarm.opened_ms) or "",
        evidence=round(alarm.log_evidence / LN10, 3),
        threshold=round(alarm.log_threshold / LN10, 3),
        rows=said.rows,
        cells=tuple(CellShare(cell=c.cell[:200], before=c.before, after=c.after) for c in cells),
        members=said.members,
        devices=tuple(each.device for each in said.devices[: trigger.DEVICES_MAX]),
    )


def fitted(evidence: Evidence) -> bytes:
    """The record within its bound: histograms go first, then alarms from the end."""
    data = trigger.encode(evidence)
    if len(data) <= trigger.EVIDENCE_MAX_BYTES:
        return data
    bare = tuple(msgspec.structs.replace(alarm, cells=()) for alarm in evidence.alarms)
    return trigger.encode(msgspec.structs.replace(evidence, alarms=bare))


def built_figure(manifest: Manifest, name: str) -> tuple[float | None, float | None, float | None]:
    """A figure of the build on rows kept back, and its interval; None where it was not judged."""
    for metric in manifest.metrics:
        if metric.name == name and not metric.slice:
            return metric.bundle, metric.low, metric.high
    return None, None, None


def loss_of(built: float | None, estimate: Estimate) -> Loss | None:
    """Accuracy lost, or mean absolute error grown, since the build, by one estimate of today's.

    None where the build or today has no such figure.
    """
    if built is None or estimate.value is None:
        return None

    def lost(now: float | None) -> float | None:
        if now is None:
            return None
        return built - now if estimate.figure == "accuracy" else now / built - 1

    if estimate.figure == "mae" and built <= 0:
        return None
    ends = (lost(estimate.low), lost(estimate.high))
    low, high = ends if estimate.figure == "mae" else ends[::-1]
    return Loss(estimate.method, lost(estimate.value) or 0.0, low, high, estimate.figure)


def figure_of(estimate: Estimate) -> Figure:
    """An estimate, as evidence has it."""
    return Figure(
        figure=estimate.figure, method=estimate.method, value=estimate.value, low=estimate.low,
        high=estimate.high, level=estimate.level, rows=estimate.rows, refused=estimate.refused,
        blind=estimate.blind,
    )  # fmt: skip


def _enough(rows: int, k: int) -> int:
    """``rows``, where they are ``k`` at least."""
    return rows if rows >= k else 0


def still_open(store: Store, ids: Iterable[int]) -> set[int]:
    """Those of these alarms that nobody resolved."""
    asked = set(ids)
    if not asked:
        return set()
    with store.reading() as tx:
        return asked - tx.resolved(asked)
