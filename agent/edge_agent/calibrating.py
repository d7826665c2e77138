"""Labels of this device become curves for its answers, one a version; kept over restarts.

Guards: only where the settings want it and the version's signed manifest allows it; a version
begins anew, and finds its own labels again when it comes back; a label counts here when it counted
for the fleet (``feedback``), after its mark is on disk. Rows and single labels are not kept.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from pathlib import Path
from typing import Annotated, Protocol

from msgspec import Meta, Struct

from edge_agent import calibration
from edge_agent.calibration import Curve
from edge_agent.predictions import Answer, Bundle
from edge_agent.settings import Calibration as Settings
from edge_contract import wire
from edge_contract.errors import EdgeError, InputFault
from edge_contract.manifest import Calibration as Bounds
from edge_contract.messages import Calibrated
from edge_contract.names import check_sha256
from edge_contract.ports.disk import make_folder, read_bounded, write_atomic

log = logging.getLogger(__name__)

LABELS_MAX = 10_000
"""Above it all counts are halved: newer labels weigh more, and a slow change is followed."""
VERSIONS_MAX = 16
_MAX_BYTES = 1024 * 1024
Rows = Annotated[int, Meta(ge=0)]


class Seat(Protocol):
    """Whose answers a curve is for: ``tap.Tap``."""

    curve: Curve | None


class _Kept(Struct, frozen=True, kw_only=True):
    schema: int = 1
    edges: tuple[float, ...]
    right: tuple[Rows, ...]
    counted: tuple[Rows, ...]


class _Version:
    """One version that may be calibrated, with what its labels said."""

    def __init__(self, bundle: Bundle, bounds: Bounds, least: int, seat: Seat) -> None:
        self.bundle = bundle
        self.bounds = bounds
        self.least = max(bounds.min_labels, least)
        self.seat = seat
        self.right = [0] * bundle.bins
        self.counted = [0] * bundle.bins
        self.fitted_at = 0
        self.changed = False

    @property
    def labels(self) -> int:
        return sum(self.counted)

    def count(self, answer: Answer, truth: float) -> None:
        two = len(self.bundle.labels) == 2
        met = truth == 1 if two else answer.label == truth
        edges = self.bundle.edges
        at = bisect_right(edges, answer.score) - 1
        at = min(max(at, 0), self.bundle.bins - 1)
        self.counted[at] += 1
        self.right[at] += int(met)
        self.changed = True
        if self.labels > LABELS_MAX:
            self.counted = [(count + 1) // 2 for count in self.counted]
            halves = zip(self.right, self.counted, strict=True)
            self.right = [min(count // 2, n) for count, n in halves]
            self.fitted_at = 0
        if self.labels >= self.least and self.labels >= 1.02 * self.fitted_at:
            self.fit()

    def fit(self) -> None:
        """Let answers have the curve of the labels so far."""
        last = self.bundle.labels[1] if len(self.bundle.labels) == 2 else ""
        self.seat.curve = calibration.fit(
            self.bundle.edges, self.right, self.counted, self.bounds.max_shift, last
        )
        self.fitted_at = self.labels


class Calibrating:
    """Thread-safe. ``folder``: where counts are kept."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._lock = threading.Lock()
        self._versions: dict[str, _Version] = {}

    def attach(self, bundle: Bundle, bounds: Bounds | None, seat: Seat) -> None:
        """A version is loaded, and its answers are ``seat``'s."""
        allowed = bounds is not None and bundle.kind == "label" and len(bundle.edges) > 2
        wanted = not self._settings.models or bundle.model in self._settings.models
        if bounds is None or not (allowed and wanted):
            return
        version = _Version(bundle, bounds, self._settings.min_labels, seat)
        with self._lock:
            before = self._versions.get(bundle.sha256)
            found = self._load(bundle)
            if before is not None:
                version.right, version.counted = before.right, before.counted
                version.changed = before.changed
            elif found is not None:
                version.right, version.counted = list(found.right), list(found.counted)
            self._versions[bundle.sha256] = version
            if version.labels >= version.least:
                version.fit()

    def count(self, answer: Answer, truth: float) -> None:
        """A label counted for the first time."""
        with self._lock:
            version = self._versions.get(answer.bundle.sha256)
            if version is not None:
                version.count(answer, truth)

    def save(self) -> None:
        """Have on disk what changed; a disk that refuses costs what labels said since."""
        with self._lock:
            for sha256, version in self._versions.items():
                if not version.changed:
                    continue
                kept = _Kept(
                    edges=version.bundle.edges,
                    right=tuple(version.right),
                    counted=tuple(version.counted),
                )
                try:
                    make_folder(self._folder)
                    write_atomic(self._path(sha256), wire.encode_json(kept))
                    version.changed = False
                except (EdgeError, OSError) as error:
                    log.warning("labels of a calibration are not on disk: %s", error)
            self._forget()

    def report(self, sha256: str) -> Calibrated | None:
        """How the version is calibrated; None where it may not be, or nobody wants it."""
        with self._lock:
            version = self._versions.get(sha256)
            if version is None:
                return None
            curve = version.seat.curve
            return Calibrated(
                labels=version.labels,
                needed=version.least,
                shift=min(round(curve.shift, 4), 1.0) if curve is not None else 0.0,
                max_shift=version.bounds.max_shift,
            )

    def _load(self, bundle: Bundle) -> _Kept | None:
        path = self._path(bundle.sha256)
        if not path.exists():
            return None
        try:
            kept = wire.decode_json(read_bounded(path, _MAX_BYTES), _Kept, size_max=_MAX_BYTES)
        except InputFault as error:
            log.warning("labels of a calibration are lost: %s", error.what)
            return None
        sound = kept.edges == bundle.edges and len(kept.right) == len(kept.counted) == bundle.bins
        right = all(a <= b for a, b in zip(kept.right, kept.counted, strict=False))
        return kept if sound and right else None

    def _forget(self) -> None:
        """Of versions that are gone the ones written last stay."""
        if not self._folder.is_dir():
            return
        paths = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in paths[:-VERSIONS_MAX]:
            path.unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{check_sha256(sha256, 'bundle')}.json"
