"""The fleet for Prometheus: gauges of what the store holds now.

Guards: the number of series is bounded, whatever versions devices say they run; a label is escaped
by the library. No label names a device: ten thousand of them are a question for the API.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_fleet import following
from edge_fleet.api import rollout_figures
from edge_fleet.api.rollout_figures import RolloutFigures
from edge_fleet.following import Follows
from edge_fleet.liveness import Liveness, liveness
from edge_fleet.reports import budget_of, reported_of, status
from edge_fleet.store.base import Store
from edge_fleet.views import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
VERSIONS_MAX = 200
"""Series of (model, version, state); the rest are counted as version ``other``."""
LABEL_MAX_CHARS = 64
STATES: tuple[Liveness, ...] = ("online", "silent", "offline")

Running = tuple[str, str, Liveness]


class Figures(Struct, frozen=True):
    """What is told: ``running``: devices by model, version and state; ``alarms``: by scope."""

    status: Status
    running: dict[Running, int]
    alarms: dict[str, int]
    newest_s: float
    follows: dict[Follows, int]
    rollouts: list[RolloutFigures]


def figures(store: Store, now_ms: int) -> Figures:
    """Read them."""
    budget = budget_of(store.settings())
    with store.reading() as tx:
        devices, alarms = tx.devices(), tx.open_by_scope()
        rollouts = rollout_figures.figures(tx, now_ms)
        wishes = tx.wishes()
        counted = {(each.device, each.model): each.version for each in tx.all_countings()}
    active, follows = dict(counted), Counter[Follows]()
    for device in devices:
        reported = reported_of(device)
        follows[following.of(wishes.get(device.device), reported).follows] += 1
        for model, report in reported.models.items() if reported else ():
            active[device.device, model] = report.active
    states = {one.device: liveness(one, now_ms, budget.window_s) for one in devices}
    running = Counter(
        (model[:LABEL_MAX_CHARS], version[:LABEL_MAX_CHARS], states[device])
        for (device, model), version in active.items()
        if device in states
    )
    newest = max((one.seen_ms for one in devices), default=0)
    return Figures(
        status(store, now_ms), _bounded(running), alarms, newest / 1000, dict(follows), rollouts
    )


def _bounded(running: Counter[Running]) -> dict[Running, int]:
    kept = Counter(dict(running.most_common(VERSIONS_MAX)))
    for (_, _, state), count in running.most_common()[VERSIONS_MAX:]:
        kept["other", "other", state] += count
    return dict(kept)


def text(found: Figures) -> bytes:
    """In Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Told(found))
    return generate_latest(registry)


class _Told(Collector):
    def __init__(self, found: Figures) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return families(self._found)


def families(found: Figures) -> Iterable[Metric]:
    """Each figure with its name and what it is."""
    now = found.status
    devices = GaugeMetricFamily("edge_fleet_devices", "Devices by state.", labels=["state"])
    for state, count in zip(STATES, (now.online, now.silent, now.offline), strict=True):
        devices.add_metric([state], count)
    yield devices
    stand = GaugeMetricFamily(
        "edge_fleet_devices_following", "Devices by how they follow what is wanted.",
        labels=["follows"],
    )  # fmt: skip
    for follows in following.STATES:
        stand.add_metric([follows], found.follows.get(follows, 0))
    yield stand
    names = ["model", "version", "state"]
    running = GaugeMetricFamily(
        "edge_fleet_devices_running", "Devices by what they run and their state.", labels=names
    )
    for key, count in sorted(found.running.items()):
        running.add_metric(list(key), count)
    yield running
    alarms = GaugeMetricFamily("edge_fleet_alarms_open", "Open alarms by scope.", labels=["scope"])
    for scope in ("device", "cohort", "fleet"):
        alarms.add_metric([scope], found.alarms.get(scope, 0))
    yield alarms
    yield from _gauges(found)
    yield from rollout_figures.families(found.rollouts)
    for name, what, value in (
        ("windows", "Telemetry windows stored.", now.windows),
        ("rows", "Predictions that they count.", now.rows),
        ("device_faults", "What devices sent and should not have.", now.faults),
    ):
        yield CounterMetricFamily(f"edge_fleet_{name}", what, value=value)


def _gauges(found: Figures) -> Iterable[Metric]:
    now = found.status
    yield from (
        GaugeMetricFamily(f"edge_fleet_{name}", what, value=value)
        for name, what, value in (
            ("collector_up", "1 where a collector gave a sign of life.", int(now.collecting)),
            ("last_heard_timestamp_seconds", "When a device was last heard of.", found.newest_s),
            ("windows_pending", "Windows whose profile is not known.", now.pending_windows),
            ("windows_refused", "Windows that do not fit their profile.", now.refused_windows),
            ("records_dropped", "Records that full spools lost.", now.dropped_records),
            ("monitors", "Streams that are watched for drift.", now.streams),
            ("window_seconds", "Declared length of a telemetry window.", now.window_s),
        )
    )
    if now.lag_s is not None:
        yield GaugeMetricFamily(
            "edge_fleet_telemetry_lag_seconds",
            "The longest time from a window's end to its arrival, over devices online.",
            value=now.lag_s,
        )
