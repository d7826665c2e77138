"""An alarm in a store, windows of rows, a clock that only a test moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from fleet_kit import FLEET, Packed, draw, record

from edge_contract import manifest, telemetry
from edge_fleet.drift import explain
from edge_fleet.drift.budget import Budget
from edge_fleet.drift.explain import CellChange, Explanation
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.store.base import Alarm
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW_MS = 1_700_000_600_000


@dataclass
class Clock:
    """Milliseconds since 1970."""

    ms: int = NOW_MS

    def __call__(self) -> int:
        return self.ms

    def pass_s(self, seconds: float) -> None:
        """Time goes by."""
        self.ms += round(1000 * seconds)


def alarm(packed: Packed, **changes: Any) -> Alarm:
    """An alarm as the collector keeps one."""
    said = Explanation("mean-up", "mean up by 3", 500, (CellChange("20 to 21", 0.1, 0.5),))
    values: dict[str, Any] = {
        "device": "pi-1", "model": "boiler", "version": "1.0", "bundle": packed.digest,
        "monitor": 0, "source": "feature", "feature": "temperature",
        "opened_ms": NOW_MS - 100_000, "since_ms": NOW_MS - 600_000, "log_evidence": 20.0,
        "log_threshold": 15.0, "explanation": explain.encode(said),
    }  # fmt: skip
    return Alarm(**{**values, **changes})


def raised(store: SqlStore, packed: Packed, **changes: Any) -> int:
    """An alarm is kept; its number."""
    with store.transaction() as tx:
        return tx.add_alarm(alarm(packed, **changes))


def learn(store: SqlStore, packed: Packed) -> None:
    """The store gets the bundle's profile."""
    store.claim(FLEET)
    store.put_settings({"window_s": "300"})
    entry = manifest.decode(packed.manifest_bytes).file(manifest.PROFILE_FILE)
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, 1)
        tx.put_blob(entry.sha256, packed.stored, 1)


def count(
    store: SqlStore, packed: Packed, rng: np.random.Generator, *, seq: int = 1, rows: int = 500,
    model: str = "boiler",
) -> None:  # fmt: skip
    """A quiet window more."""
    at_ms = NOW_MS - 200_000
    made = record(packed, packed.counts(draw(rng, rows)), seq=seq)
    data = telemetry.encode(msgspec.structs.replace(made, model=model))
    with store.transaction() as tx:
        fresh = tx.add_windows([window_of(data, at_ms)])
        Evidence(Library(), Budget()).count(tx, fresh, at_ms)
