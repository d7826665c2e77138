"""What the model page shows: versions and where they are, what a version says of itself, and how
it has been doing.

Guards: what devices claim to run is bounded before it is shown (``VERSIONS_MAX``), whatever they
claim; figures over time come from the hours of all devices together, never from rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import Struct

from edge_contract import aside, telemetry
from edge_contract.telemetry import LATENCY_BUCKETS
from edge_contract.typed import json_decoder
from edge_fleet import asides, trends
from edge_fleet.api.drift_views import span
from edge_fleet.asides import ShadowReport
from edge_fleet.drift import promises
from edge_fleet.library import Known
from edge_fleet.reports import instant
from edge_fleet.store.api import BundleTotals
from edge_fleet.store.base import AsideKind, Transaction

VERSIONS_MAX = 200
FEATURES_MAX = 500
FINDINGS_MAX = 50
STEPS_MAX = 42
QUANTILES = (0.5, 0.9, 0.99)


class VersionView(Struct, frozen=True):
    """One version of a model.

    Attributes:
        bundle: in hex, the one counted last; "" where no window of it was counted.
        running: devices that answer with it. fetching: those that fetch or try it.
        former: those that keep it to go back to. failed: those that put it into quarantine.
        counted: devices whose windows of it were counted. pending: windows of an unknown profile.
    """

    version: str
    bundle: str
    running: int
    fetching: int
    former: int
    failed: int
    counted: int
    windows: int
    rows: int
    pending: int
    last_counted: str | None


class ModelView(Struct, frozen=True):
    """A model with its versions, the one that most devices run first. ``left_off``: versions."""

    model: str
    devices: int
    open_alarms: int
    versions: tuple[VersionView, ...]
    left_off: int


class FeatureView(Struct, frozen=True):
    """One input, and what drift of it the detector finds (in words; "" where not reckoned)."""

    name: str
    type: str
    unit: str
    minimum: float | None
    maximum: float | None
    categories: int
    finds: str


class MetricView(Struct, frozen=True):
    """A figure of the build, with its interval where it has one."""

    name: str
    value: float
    low: float | None
    high: float | None


class LatencyStep(Struct, frozen=True):
    """Of one step: upper bounds of buckets (factor 1.42) in milliseconds; None without rows."""

    start: str
    rows: int
    refused: int
    failed: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None


class FindingView(Struct, frozen=True):
    """What devices found wrong with a feature ("" for the device): windows, in all and a step."""

    code: str
    feature: str
    windows: int
    steps: tuple[int, ...]


class ModelPage(Struct, frozen=True):
    """One version: what it says of itself, and how it has been doing on all devices.

    Attributes:
        power: of all monitors at the build's rate; not_watched: features that could not be.
        errors: rows refused and failed, by why. features_left_off: not in ``features``.
        latency: over all steps. findings: what devices found wrong with their inputs.
        shadows: candidates beside this version, or it beside another.
    """

    bundle: str
    model: str
    version: str
    task: str
    intended_use: str
    licence: str
    labels: tuple[str, ...]
    size_bytes: int
    compression: str
    reference_rows: int
    time_ordered: bool
    features: tuple[FeatureView, ...]
    features_left_off: int
    not_watched: tuple[str, ...]
    metrics: tuple[MetricView, ...]
    since: str
    until: str
    rows: int
    refused: int
    failed: int
    windows: int
    latency: LatencyStep
    steps: tuple[LatencyStep, ...]
    errors: dict[str, int]
    findings: tuple[FindingView, ...]
    shadows: tuple[ShadowReport, ...]


class _Said(Struct, frozen=True):
    """What is read of a device's word on one model."""

    active: str = ""
    previous: str = ""
    candidate: str = ""
    quarantined: tuple[str, ...] = ()


class _Report(Struct, frozen=True):
    models: dict[str, _Said] = {}


_REPORT = json_decoder(_Report)
_State = dict[tuple[str, str], Counter[str]]


def models(tx: Transaction) -> tuple[ModelView, ...]:
    """Every model that a device reported or counted, by name."""
    seen, devices = _reported(tx)
    counted: dict[tuple[str, str], list[BundleTotals]] = {}
    for one in tx.bundles():
        seen.setdefault((one.model, one.version), Counter())
        counted.setdefault((one.model, one.version), []).append(one)
    for unknown in tx.pending_bundles(VERSIONS_MAX):
        seen.setdefault((unknown.model, unknown.version), Counter())["pending"] += unknown.windows
    alarms = Counter(alarm.model for alarm in tx.alarms(open_only=True))
    by_model: dict[str, list[VersionView]] = {}
    for (model, version), places in seen.items():
        view = _version(version, places, counted.get((model, version), ()))
        by_model.setdefault(model, []).append(view)
    found = []
    for model, versions in sorted(by_model.items())[:VERSIONS_MAX]:
        versions.sort(key=lambda one: (-one.running, -one.counted, one.version))
        left_off = max(len(versions) - VERSIONS_MAX, 0)
        shown = tuple(versions[:VERSIONS_MAX])
        found.append(ModelView(model, devices[model], alarms[model], shown, left_off))
    return tuple(found)


def _reported(tx: Transaction) -> tuple[_State, Counter[str]]:
    """How many devices have each version where, and how many have each model."""
    seen: _State = {}
    devices: Counter[str] = Counter()
    for row in tx.device_rows():
        for model, said in _models(row.reported).items():
            devices[model] += 1
            failed = [("failed", version) for version in said.quarantined]
            places = (
                ("running", said.active), ("former", said.previous), ("fetching", said.candidate),
                *failed,
            )  # fmt: skip
            for place, version in places:
                if version:
                    seen.setdefault((model, version), Counter())[place] += 1
    return seen, devices


def _version(version: str, places: Counter[str], held: Sequence[BundleTotals]) -> VersionView:
    return VersionView(
        version=version,
        bundle=held[0].bundle if held else "",
        running=places["running"],
        fetching=places["fetching"],
        former=places["former"],
        failed=places["failed"],
        counted=sum(one.devices for one in held),
        windows=sum(one.windows for one in held),
        rows=sum(one.rows for one in held),
        pending=places["pending"],
        last_counted=instant(max((one.updated_ms for one in held), default=0)),
    )


def _models(reported: bytes) -> dict[str, _Said]:
    try:
        return _REPORT.decode(reported).models if reported else {}
    except (msgspec.DecodeError, UnicodeDecodeError):  # kept by a newer edge-fleet
        return {}


def page(tx: Transaction, known: Known, now_ms: int, *, hours: int) -> ModelPage:
    """One version over the last ``hours``."""
    since_ms, step_ms, many = span(now_ms, hours, STEPS_MAX)
    starts = [since_ms + at * step_ms for at in range(many)]
    found = trends.between(tx, known, since_ms, since_ms + many * step_ms)
    steps = trends.steps(found, starts, step_ms, known)
    whole = trends.added(steps)
    manifest, profile = known.manifest, known.profile
    monitored = {m.name: m for m in profile.monitors if m.source == "feature"}
    features = tuple(
        FeatureView(
            one.name, one.type, one.unit, one.minimum, one.maximum, len(one.categories),
            promises.finds(monitored[one.name], profile.power) if one.name in monitored else "",
        )
        for one in manifest.features
    ) or tuple(
        FeatureView(m.name, m.kind, "", None, None, len(m.categories),
                    promises.finds(m, profile.power))
        for m in monitored.values()
    )  # fmt: skip
    return ModelPage(
        bundle=known.bundle,
        model=manifest.name,
        version=manifest.version,
        task=manifest.task,
        intended_use=manifest.intended_use,
        licence=manifest.licence,
        labels=known.labels[:FEATURES_MAX],
        size_bytes=sum(file.size for file in manifest.files),
        compression=manifest.compression.mode,
        reference_rows=profile.rows,
        time_ordered=profile.time_ordered,
        features=features[:FEATURES_MAX],
        features_left_off=max(len(features) - FEATURES_MAX, 0),
        not_watched=profile.refused[:FEATURES_MAX],
        metrics=tuple(
            MetricView(m.name, m.bundle, m.low, m.high) for m in manifest.metrics if not m.slice
        ),
        since=instant(since_ms) or "",
        until=instant(since_ms + many * step_ms) or "",
        rows=whole.rows,
        refused=whole.refused,
        failed=whole.failed,
        windows=whole.windows,
        latency=_step(since_ms, whole),
        steps=tuple(_step(start, step) for start, step in zip(starts, steps, strict=True)),
        errors=_errors(whole),
        findings=_findings(known, steps),
        shadows=_shadows(tx, known),
    )


def _step(start_ms: int, hour: trends.Hour) -> LatencyStep:
    p50, p90, p99 = (_quantile(hour, at) for at in QUANTILES)
    return LatencyStep(instant(start_ms) or "", hour.rows, hour.refused, hour.failed, p50, p90, p99)


def _quantile(hour: trends.Hour, at: float) -> float | None:
    """The upper bound of the bucket in which the share ``at`` of the rows is reached."""
    total = int(hour.latency.sum())
    if not total:
        return None
    bucket = int(np.searchsorted(np.cumsum(hour.latency), at * total))
    return round(float(2 ** ((min(bucket, LATENCY_BUCKETS - 1) + 1) / 2) / 1000), 6)


def _errors(hour: trends.Hour) -> dict[str, int]:
    names = telemetry.ERROR_CODES
    return {
        names[code] if code < len(names) else f"code {code}": rows
        for code, rows in enumerate(hour.errors)
        if rows
    }


def _findings(known: Known, steps: Sequence[trends.Hour]) -> tuple[FindingView, ...]:
    """Those of most windows first."""
    found: dict[tuple[int, int], list[int]] = {}
    for at, step in enumerate(steps):
        for code, monitor, windows in step.findings:
            found.setdefault((code, monitor), [0] * len(steps))[at] += windows
    monitors, names = known.profile.monitors, telemetry.QUALITY_CODES
    views = [
        FindingView(
            names[code] if code < len(names) else f"code {code}",
            monitors[at - 1].name if 0 < at <= len(monitors) else "",
            sum(windows),
            tuple(windows),
        )
        for (code, at), windows in found.items()
    ]
    return tuple(sorted(views, key=lambda one: -one.windows)[:FINDINGS_MAX])


def _shadows(tx: Transaction, known: Known) -> tuple[ShadowReport, ...]:
    digest = bytes.fromhex(known.bundle)
    records = (aside.decode(each.record) for each in tx.asides(AsideKind.SHADOW))
    return asides.shadows(
        each
        for each in records
        if isinstance(each, aside.Shadow) and digest in (each.bundle, each.live_bundle)
    )
