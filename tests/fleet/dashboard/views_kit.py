"""Three days of a fleet, through the real intake: a sensor drifts, labels come, a shadow runs.

What a device or a bundle words is hostile: a page that ran any of it would say so by a dialog.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from fleet_kit import BUDGET, FLEET, Packed, draw, record

from edge_contract import aside, bundle, messages, profile, telemetry
from edge_contract import manifest as manifests
from edge_contract.messages import Hardware, ModelReport, Reported
from edge_contract.profile import Power
from edge_contract.topics import Topics
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.options import now_ms
from edge_fleet.rollouts.runner import RolloutRun
from edge_fleet.store.base import AsideKind, AsideSeen, ReportSeen, StatusSeen
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

EVIL = '<img src=x onerror=alert(1)>"\\'
HOUR = 3_600_000
HOURS = 72
DEVICES = 6
DRIFTING = 2
DRIFTED_SINCE = 30
"""Hours ago."""
MODEL, VERSION, NEXT = "boiler", "1.0", "2.0"


def worded(packed: Packed) -> Packed:
    """The bundle with hostile names, a category of them, and a power table."""
    temperature, level, colour, score = packed.profile.monitors
    power = {"rows_needed": (7200.0, 720.0, 60.0)}
    named = (
        msgspec.structs.replace(temperature, name=f"temperature{EVIL}", **power),
        msgspec.structs.replace(level, **power),
        msgspec.structs.replace(
            colour, categories=tuple(f"{one}<script>alert(2)</script>" for one in colour.categories)
        ),
        score,
    )
    made = msgspec.structs.replace(
        packed.profile,
        monitors=named,
        power=Power(shifts=(0.1, 0.25, 1.0), log_threshold=16.0, rows_per_hour=60.0),
    )
    entry, stored = bundle.encode_member(manifests.PROFILE_FILE, profile.encode(made))
    manifest = manifests.decode(packed.manifest_bytes)
    manifest = msgspec.structs.replace(
        manifest,
        files=(manifest.files[0], entry),
        intended_use=EVIL,
        licence=EVIL,
        metrics=(
            manifests.Metric(name="accuracy", original=0.81, bundle=0.81, low=0.8, high=0.82),
        ),
    )
    return Packed(made, manifests.encode(manifest), stored, {})


@dataclass
class Week:
    """A filled store. ``colours``: categories as ``draw`` words them, to the bundle's."""

    store: SqlStore
    packed: Packed
    rng: np.random.Generator

    def counts(self, rows: Any) -> np.ndarray:
        """What an agent counts; ``rows.colour`` in the bundle's words."""
        rows.colour = [f"{one}<script>alert(2)</script>" for one in rows.colour]
        return self.packed.counts(rows)

    def fill(self, hours: int = HOURS) -> None:
        """Everything of the last ``hours``, until now."""
        now = now_ms()
        self.store.claim(FLEET)
        self.store.put_settings(
            {"collector-0": str(now), "window_s": "3600", "false_alarms_per_month": "1"}
        )
        entry = manifests.decode(self.packed.manifest_bytes).file("profile.json")
        with self.store.transaction() as tx:
            tx.put_blob(self.packed.digest, self.packed.manifest_bytes, now)
            tx.put_blob(entry.sha256, self.packed.stored, now)
        evidence = Evidence(Library(), BUDGET)
        for first in range(hours, -1, -12):
            windows = [
                window_of(telemetry.encode(self.window(device, ago, now)), now - ago * HOUR)
                for ago in range(first, max(first - 12, -1), -1)
                for device in range(DEVICES)
            ]
            with self.store.transaction() as tx:
                evidence.count(tx, tx.add_windows(windows), now - first * HOUR)
        self.tell(now)
        with self.store.transaction() as tx:
            tx.add_asides([*self.labels(now), self.shadow(now)])

    def window(self, device: int, ago: int, now: int) -> telemetry.Record:
        """One hour of a device; the first ``DRIFTING`` grow warmer."""
        at, seq = now - ago * HOUR, HOURS - ago
        rows = draw(self.rng, 60)
        drifts = device < DRIFTING and ago <= DRIFTED_SINCE
        rows.temperature += 1.6 * min((DRIFTED_SINCE - ago) / 6, 1) if drifts else 0.0
        nanoseconds = self.rng.lognormal(15.2, 0.4, 60).astype(int).tolist()
        latency = np.bincount(
            [telemetry.latency_bucket(one) for one in nanoseconds],
            minlength=telemetry.LATENCY_BUCKETS,
        )
        return msgspec.structs.replace(
            record(self.packed, self.counts(rows), device=f"pi-{device}", seq=seq,
                   start_ms=at - HOUR, end_ms=at),
            refused=2 if device == 1 else 0, failed=0, errors=(0, 2) if device == 1 else (),
            latency=telemetry.pack_counts(latency), quality=((5, 2),) if drifts else (),
        )  # fmt: skip

    def tell(self, at: int) -> None:
        """Every device's status and report, now."""
        hardware = Hardware(
            machine="aarch64", cpus=4, ram_bytes=10**9, system="Linux", python="3.11",
            onnxruntime="1.20",
        )  # fmt: skip
        with self.store.transaction() as tx:
            for device in range(DEVICES):
                name = f"pi-{device}"
                said = Reported(
                    boot=1, at_ms=at, agent="1", hardware=hardware,
                    labels={"site": "lyon" if device % 2 else EVIL},
                    models={MODEL: ModelReport(
                        phase="committed", active=VERSION, digest=self.packed.digest,
                        quarantined=(EVIL[:20],) if device == 5 else (),
                    )},
                )  # fmt: skip
                tx.status(StatusSeen(name, True, 1, "1", at, retained=False))
                tx.report(ReportSeen(name, messages.encode(said), at, retained=False))

    def labels(self, now: int) -> list[AsideSeen]:
        """Forty labels every twelve hours."""
        bins, found = profile.SCORE_BINS, []
        for at in range(6):
            rows = draw(self.rng, 40)
            counts = np.zeros((2, 2, bins), dtype=int)
            right = (self.rng.random(40) < 0.8).astype(int)
            said = (rows.score >= 0.5).astype(int)
            np.add.at(
                counts, (right, said, np.minimum((rows.score * bins).astype(int), bins - 1)), 1
            )
            made = aside.Labelled(
                device="pi-1", boot=1, seq=1000 + at, model=MODEL, version=VERSION,
                bundle=bytes.fromhex(self.packed.digest), start_ms=now, end_ms=now,
                synchronised=True, kind="label", labels=2, bins=bins, unit=1.0,
                counts=telemetry.pack_counts(counts.reshape(-1)),
            )  # fmt: skip
            found.append(
                AsideSeen("pi-1", 1, 1000 + at, AsideKind.LABELLED, self.packed.digest,
                          now - at * 12 * HOUR, aside.encode(made))
            )  # fmt: skip
        return found

    def shadow(self, now: int) -> AsideSeen:
        """A candidate that agrees nine times in ten."""
        latency = telemetry.pack_counts([0] * 25 + [900] + [0] * 22)
        made = aside.Shadow(
            device="pi-1", boot=1, seq=2000, model=MODEL, version=NEXT, bundle=b"\2" * 32,
            live_version=VERSION, live_bundle=bytes.fromhex(self.packed.digest), start_ms=now,
            end_ms=now, synchronised=True, rows=900, refused=0, failed=3, skipped=1, agreed=810,
            differed=90, unit=1.0, counts=b"", latency=latency, live_latency=latency,
            differences=telemetry.pack_counts([900] + [0] * (aside.DIFFERENCE_BUCKETS - 1)),
        )  # fmt: skip
        return AsideSeen("pi-1", 1, 2000, AsideKind.SHADOW, (b"\2" * 32).hex(), now,
                         aside.encode(made))  # fmt: skip

    def plan(self, clock_ms: Callable[[], int] = now_ms) -> None:
        """What `edge-fleet serve` does with rollouts in one round."""
        RolloutRun(self.store, Topics(FLEET), clock_ms).step()
