"""A store with hostile words in it, and tokens for the service over it."""

from collections.abc import Callable

import httpx
import numpy as np
from fleet_kit import FLEET, Packed, draw, record

from edge_contract import manifest as manifests
from edge_contract import messages, telemetry
from edge_fleet.api import tokens
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.options import now_ms
from edge_fleet.store.base import EventSeen, ReportSeen, StatusSeen
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

EVIL = '<script>alert(1)</script>\u202e\x1b[31m"\\\n\u2028{x}'
Client = Callable[[str], httpx.Client]


def fill(store: SqlStore, packed: Packed, rng: np.random.Generator) -> None:
    """pi-0 to pi-4, whose words are hostile; pi-2 drifts, pi-4 is offline."""
    now = now_ms()
    hardware = messages.Hardware(
        machine=EVIL, cpus=4, ram_bytes=1, system=EVIL, python=EVIL, onnxruntime=EVIL
    )
    store.claim(FLEET)
    store.put_settings({"collector-0": str(now), "window_s": "60", "false_alarms_per_month": "1"})
    profile = manifests.decode(packed.manifest_bytes).file("profile.json").sha256
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, now)
        tx.put_blob(profile, packed.stored, now)
        windows = []
        for at in range(5):
            device = f"pi-{at}"
            report = messages.Reported(
                boot=1, at_ms=now, agent=EVIL, hardware=hardware,
                labels={"site": "lyon" if at % 2 else EVIL},
                models={"boiler": messages.ModelReport(phase="committed", active=f"1.{at}")},
            )  # fmt: skip
            tx.status(StatusSeen(device, at != 4, 1, EVIL, now, retained=False))
            tx.report(ReportSeen(device, messages.encode(report), now, retained=False))
            for seq in range(6):
                rows = draw(rng, 60)
                rows.temperature += 3.0 if at == 2 else 0.0
                start_ms = now - (6 - seq) * 60_000
                one = record(packed, packed.counts(rows), device=device, seq=seq, start_ms=start_ms)
                windows.append(window_of(telemetry.encode(one), now))
        tx.add_events(
            [EventSeen(f"pi-{n % 5}", 1, n, now, EVIL if n % 2 else "update", "boiler", EVIL,
                       EVIL * 200, now - 10_000 - n // 3) for n in range(20)]
        )  # fmt: skip
        Evidence(Library(), Budget(1, 60)).count(tx, tx.add_windows(windows), now)


def token(store: SqlStore, role: str, *, expires_ms: int | None = None) -> str:
    """A new token; only tests draw from NumPy."""
    rng = np.random.default_rng()
    made, text = tokens.mint(f"{role}-1", role, now_ms(), expires_ms, rng.bytes)
    with store.transaction() as tx:
        assert tx.put_api_token(made)
    return text
