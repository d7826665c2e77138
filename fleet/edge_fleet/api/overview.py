"""The fleet's first page: where its devices are, how they are and what they run, in one answer.

Guards: it costs one reading of the devices' table, whoever asks and however often: an answer is
kept for ``KEPT_S``. The counts are whole; lists are bounded and say how much they leave off.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from edge_fleet.api.inventory import Line, lines
from edge_fleet.liveness import Liveness, liveness
from edge_fleet.reports import budget_of, figures, instant
from edge_fleet.rollouts import state
from edge_fleet.store.base import Store, Transaction
from edge_fleet.views import Figures

KEPT_S = 2.0
SITES_MAX = 400
VERSIONS_MAX = 200
PLACES_MAX = 2000
ROLLOUTS_MAX = 20
SITE = "site"
TEXT_MAX_CHARS = 200


class SiteView(Struct, frozen=True):
    """Devices by their label ``site``; "": those without one. ``alarms``: open ones of them."""

    site: str
    devices: int
    online: int
    silent: int
    offline: int
    alarms: int


class PlaceView(Struct, frozen=True):
    """A device with the labels ``lat`` and ``lon``, in degrees."""

    device: str
    lat: float
    lon: float
    state: Liveness
    alarms: int


class ShareView(Struct, frozen=True):
    """Devices that answer with one version of a model, and how many of them are online."""

    model: str
    version: str
    devices: int
    online: int


class RolloutView(Struct, frozen=True):
    """A rollout, shortly. ``wave``: from 1."""

    id: int
    model: str
    version: str
    phase: str
    active: bool
    wave: int
    waves: int
    reason: str
    updated: str | None


class Lag(Struct, frozen=True):
    """Seconds from a window's end to its arrival, over devices online."""

    median_s: float
    p95_s: float
    max_s: float


class Overview(Figures, frozen=True, kw_only=True):
    """See the module's docstring. ``now``: this server's clock."""

    now: str | None
    unacknowledged: int
    alarms: dict[str, int]
    lag: Lag | None
    notes: tuple[str, ...]
    sites: tuple[SiteView, ...]
    sites_left_off: int
    places: tuple[PlaceView, ...]
    places_left_off: int
    versions: tuple[ShareView, ...]
    rollouts: tuple[RolloutView, ...]


def read(tx: Transaction, settings: Mapping[str, str], now_ms: int) -> Overview:
    """The fleet as it is now."""
    budget = budget_of(settings)
    seen, totals, alarmed = lines(tx), tx.totals(), tx.open_by_device()
    states = [liveness(one, now_ms, budget.window_s) for one in seen]
    sites = _sites(seen, states, alarmed)
    places = list(_places(seen, states, alarmed))
    dropped = sum(one.dropped for one in seen)
    counted = figures(settings, totals, states, dropped=dropped, now_ms=now_ms)
    return Overview(
        **msgspec.structs.asdict(counted),
        now=instant(now_ms),
        unacknowledged=tx.unacknowledged(),
        alarms=tx.open_by_scope(),
        lag=_lag(seen, states),
        notes=tuple(_notes(counted.collecting, totals.pending, dropped)),
        sites=sites[:SITES_MAX],
        sites_left_off=max(len(sites) - SITES_MAX, 0),
        places=tuple(places[:PLACES_MAX]),
        places_left_off=max(len(places) - PLACES_MAX, 0),
        versions=_versions(seen, states),
        rollouts=_rollouts(tx),
    )


def _sites(
    seen: Sequence[Line], states: Sequence[Liveness], alarmed: Mapping[str, int]
) -> tuple[SiteView, ...]:
    """The largest first."""
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one, how in zip(seen, states, strict=True):
        of = counted[one.labels.get(SITE, "")[:TEXT_MAX_CHARS]]
        of[how] += 1
        of["alarms"] += alarmed.get(one.device, 0)
    found = [
        SiteView(
            site, of["online"] + of["silent"] + of["offline"], of["online"], of["silent"],
            of["offline"], of["alarms"],
        )
        for site, of in counted.items()
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda one: (-one.devices, one.site)))


def _places(
    seen: Sequence[Line], states: Sequence[Liveness], alarmed: Mapping[str, int]
) -> Iterable[PlaceView]:
    for one, how in zip(seen, states, strict=True):
        at = place(one.labels)
        if at is not None:
            yield PlaceView(one.device, *at, how, alarmed.get(one.device, 0))


def place(labels: Mapping[str, str]) -> tuple[float, float] | None:
    """Latitude and longitude in degrees, from labels; None where they name no point on Earth."""
    if "lat" not in labels:  # most of them, each time
        return None
    try:
        lat, lon = float(labels["lat"]), float(labels["lon"])
    except (KeyError, ValueError):
        return None
    fits = math.isfinite(lat) and math.isfinite(lon) and abs(lat) <= 90 and abs(lon) <= 180
    return (lat, lon) if fits else None


def _versions(seen: Sequence[Line], states: Sequence[Liveness]) -> tuple[ShareView, ...]:
    """By model, the version with most devices first; the rarest are one entry ``other``."""
    running = Counter(
        (model[:TEXT_MAX_CHARS], version[:TEXT_MAX_CHARS], how == "online")
        for one, how in zip(seen, states, strict=True)
        for model, version in one.running.items()
    )
    devices: Counter[tuple[str, str]] = Counter()
    for (model, version, _), count in running.items():
        devices[model, version] += count
    online = {key: running[*key, True] for key in devices}
    ranked = [key for key, _ in devices.most_common()]
    found = [ShareView(*key, devices[key], online[key]) for key in ranked[:VERSIONS_MAX]]
    rest = ranked[VERSIONS_MAX:]
    if rest:
        found.append(ShareView("other", "other", sum(devices[k] for k in rest),
                               sum(online[k] for k in rest)))  # fmt: skip
    return tuple(sorted(found, key=lambda one: (one.model, -one.devices, one.version)))


def _lag(seen: Sequence[Line], states: Sequence[Liveness]) -> Lag | None:
    lags = sorted(
        one.lag_ms / 1000
        for one, how in zip(seen, states, strict=True)
        if how == "online" and one.windows
    )
    if not lags:
        return None
    return Lag(lags[(len(lags) - 1) // 2], lags[math.ceil(0.95 * len(lags)) - 1], lags[-1])


def _notes(collecting: bool, pending: int, dropped: int) -> Iterable[str]:
    if not collecting:
        yield "no collector runs: start `edge-fleet serve`"
    if pending:
        yield f"{pending} windows wait for a profile: publish their bundle, or `edge-fleet fetch`"
    if dropped:
        yield f"devices dropped {dropped} records from full spools"


def _rollouts(tx: Transaction) -> tuple[RolloutView, ...]:
    """Those that go on, then those that ended last."""
    rows = sorted(tx.rollouts(), key=lambda row: (row.phase not in state.ACTIVE, -row.updated_ms))
    found = []
    for row in rows[:ROLLOUTS_MAX]:
        one = state.decode(row.state)
        found.append(
            RolloutView(
                row.id, row.model, one.order.version, row.phase, row.phase in state.ACTIVE,
                one.wave + 1, len(one.order.waves), one.reason, instant(row.updated_ms),
            )
        )  # fmt: skip
    return tuple(found)


class Kept:
    """The answer that is given to all for ``KEPT_S``. ``clock_s``: seconds that never go back."""

    def __init__(
        self, store: Store, clock_ms: Callable[[], int], clock_s: Callable[[], float]
    ) -> None:
        self._store, self._clock_ms, self._clock_s = store, clock_ms, clock_s
        self._lock = threading.Lock()
        self._made_s = -math.inf
        self._found: Overview | None = None

    def overview(self) -> Overview:
        """Not older than ``KEPT_S``; who comes while it is made waits for it."""
        with self._lock:
            if self._found is None or self._clock_s() - self._made_s >= KEPT_S:
                settings = self._store.settings()
                with self._store.reading() as tx:
                    self._found = read(tx, settings, self._clock_ms())
                self._made_s = self._clock_s()
            return self._found
