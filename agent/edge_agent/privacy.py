"""Windows that leave with noise: held back until they are long enough and the budget allows.

Guards: no count leaves without noise, nor with noise that was not paid for (``ledger``); a window
that may not leave yet stays on the device and is merged with the next one, over restarts. What
noise does not cover does not leave at all: moments, findings and reasons of errors.

One window is the release of its rows: replacing a row in every window of a day costs at most what
``[privacy] noise`` says for a day.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from edge_agent import noise
from edge_agent.ledger import DAY_S, Ledger
from edge_agent.noise import RandBelow
from edge_agent.report import PrivacyReport
from edge_agent.settings import Noise
from edge_agent.telemetry.recorder import Instant
from edge_contract import telemetry, wire
from edge_contract.errors import EdgeError, InputFault
from edge_contract.messages import Count
from edge_contract.ports.disk import make_folder, read_bounded, write_atomic
from edge_contract.profile import Profile
from edge_contract.telemetry import Record

log = logging.getLogger(__name__)

SAVE_S = 3600.0
"""What a power cut takes of a window that waits, at most."""
KEEP_S = 7 * DAY_S
"""What a version that is gone left untold."""
_HELD_MAX_BYTES = 16 * 1024**2


class _Held(Struct, frozen=True, kw_only=True):
    """Rows that wait, as they are: this never leaves the device."""

    schema: int = 1
    rows: Count = 0
    refused: Count = 0
    failed: Count = 0
    cells: tuple[Count, ...] = ()
    latency: tuple[Count, ...] = ()
    since_ms: Count
    until_ms: Count = 0
    seconds: Annotated[float, Meta(ge=0)] = 0.0


class Privacy:
    """Stands between closed windows and the spool. Its caller holds a lock.

    Args:
        folder: where what waits is kept. window_s: how long a window is at least.
        randbelow: a secure source of chance.
    """

    def __init__(
        self,
        rules: Noise,
        folder: Path,
        now: Instant,
        *,
        window_s: float,
        randbelow: RandBelow = secrets.randbelow,
    ) -> None:
        self._rules = rules
        self._folder = folder
        self._window_s = window_s
        self._randbelow = randbelow
        self._rho_day = noise.rho_of(rules.epsilon_per_day, rules.delta)
        make_folder(folder)
        self._ledger = Ledger(folder / "ledger.json", now, self._rho_day)
        self._held: dict[str, _Held] = {}
        self._saved_s: dict[str, float] = {}
        self._waiting: dict[str, tuple[int, int]] = {}
        self._spent = self._ledger.spent(now)
        _forget_old(folder, now)

    def take(
        self, record: Record, cells: NDArray[np.int64], profile: Profile, now: Instant, share: int
    ) -> Record | None:
        """The window and what waits with it, with noise; None: it waits.

        Args:
            record, cells: as they were counted. share: among how many models the budget is split.
        """
        bundle = record.bundle.hex()
        held = _merged(self._of(bundle, record, profile), record, cells)
        if not profile.monitors:  # of its values nothing is counted
            self._drop(bundle, record.model)
            return _told(record, held, telemetry.pack_noisy(cells, 1.0))
        rho = self._rho_day * min(self._window_s / DAY_S, 1.0) / max(share, 1)
        needed = noise.rows_needed(profile, rho)
        self._held[bundle] = held
        self._waiting[record.model] = held.rows, needed
        if not self._may_leave(held, needed, record, now, rho):
            if now.monotonic_s - self._saved_s.setdefault(bundle, now.monotonic_s) >= SAVE_S:
                self._save(bundle, now)
            return None
        self._drop(bundle, record.model)
        vector = np.array(held.cells, dtype=np.int64)
        if not held.rows:
            return _told(record, held, telemetry.pack_noisy(vector, 1.0))
        noisy = noise.noised(profile, vector, held.rows, rho, self._randbelow)
        counts = telemetry.pack_noisy(noisy, noise.factor(profile, held.rows, rho))
        return _told(record, held, counts)

    def flush(self, now: Instant) -> None:
        """Before a stop: have on disk what waits."""
        for bundle in list(self._held):
            self._save(bundle, now)

    def report(self) -> PrivacyReport:
        """What it costs, and who waits."""
        return PrivacyReport(
            epsilon_per_day=self._rules.epsilon_per_day,
            delta=self._rules.delta,
            spent=noise.epsilon_of(self._spent, self._rules.delta),
            waiting=dict(self._waiting),
        )

    def _may_leave(
        self, held: _Held, needed: int, record: Record, now: Instant, rho: float
    ) -> bool:
        """Long enough, and of enough rows, and paid for; of no row nothing is told."""
        self._spent = self._ledger.spent(now)
        elapsed_s = max(held.seconds, (record.end_ms - held.since_ms) / 1000)
        if elapsed_s < self._window_s or 0 < held.rows < needed:
            return False
        if not held.rows:
            return bool(held.refused or held.failed)
        try:
            paid = self._ledger.spend(now, rho)
        except EdgeError as error:
            log.warning("a window is held back, its noise cannot be accounted: %s", error.what)
            return False
        self._spent = self._ledger.spent(now)
        return paid

    def _of(self, bundle: str, record: Record, profile: Profile) -> _Held:
        """What waits of this bundle: in memory, from disk, or nothing yet."""
        fresh = _Held(since_ms=record.start_ms)
        if bundle in self._held:
            return self._held[bundle]
        path = self._path(bundle)
        if not path.exists():
            return fresh
        try:
            found = _read(path)
        except InputFault as error:
            log.warning("rows that waited for noise are lost: %s", error.what)
            return fresh
        sound = len(found.cells) == profile.cells and len(found.latency) in (
            0, telemetry.LATENCY_BUCKETS,
        )  # fmt: skip
        return found if sound else fresh

    def _save(self, bundle: str, now: Instant) -> None:
        self._saved_s[bundle] = now.monotonic_s
        try:
            data = wire.encode_json(self._held[bundle])
            write_atomic(self._path(bundle), data, mode=0o600)
        except EdgeError as error:
            log.warning("rows that wait for noise are not on disk: %s", error.what)

    def _drop(self, bundle: str, model: str) -> None:
        """It leaves: a cut from here on loses it, and never tells it twice."""
        self._held.pop(bundle, None)
        self._saved_s.pop(bundle, None)
        self._waiting.pop(model, None)
        self._path(bundle).unlink(missing_ok=True)

    def _path(self, bundle: str) -> Path:
        return self._folder / f"{bundle}.json"


def _merged(held: _Held, record: Record, cells: NDArray[np.int64]) -> _Held:
    latency = telemetry.latency_of(record)
    return replace(
        held,
        rows=held.rows + record.rows,
        refused=held.refused + record.refused,
        failed=held.failed + record.failed,
        until_ms=record.end_ms,
        cells=tuple((_vector(held.cells, len(cells)) + cells).tolist()),
        latency=tuple((_vector(held.latency, len(latency)) + latency).tolist()),
        seconds=held.seconds + (record.end_ms - record.start_ms) / 1000,
    )


def _vector(counts: tuple[int, ...], size: int) -> NDArray[np.int64]:
    return np.array(counts or (0,) * size, dtype=np.int64)


def _told(record: Record, held: _Held, counts: bytes) -> Record:
    """The record of all that waited; nothing in it that noise does not cover."""
    return replace(
        record,
        start_ms=min(held.since_ms, record.end_ms),
        rows=held.rows,
        refused=held.refused,
        failed=held.failed,
        coding=telemetry.CODING_NOISY,
        counts=counts,
        latency=telemetry.pack_counts(held.latency),
        errors=(),
        moments=b"",
        quality=(),
    )


def _read(path: Path) -> _Held:
    """Raises InputFault."""
    return wire.decode_json(read_bounded(path, _HELD_MAX_BYTES), _Held, size_max=_HELD_MAX_BYTES)


def _forget_old(folder: Path, now: Instant) -> None:
    """Rows of versions that are gone, a week after they were last added to; or damaged ones."""
    for path in folder.glob("*.json"):
        if path.name == "ledger.json":
            continue
        try:
            old = now.wall_ms - _read(path).until_ms > 1000 * KEEP_S and now.synchronised
            said = "nobody added to them for a week"
        except InputFault as error:
            old, said = True, error.what
        if old:
            log.warning("rows of %s that waited for noise are lost: %s", path.stem[:12], said)
            path.unlink(missing_ok=True)
