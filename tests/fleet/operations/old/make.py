"""Made the stores beside it. Run with the code of an old version, never with today's:

    git archive COMMIT contract release packager agent fleet tests/fleet | tar -x -C OLD
    PYTHONPATH=OLD/contract:OLD/release:OLD/packager:OLD/agent:OLD/fleet:OLD/tests/fleet \\
        python make.py sqlite:////tmp/N.db        # or postgresql://..., then pg_dump --no-owner

Version 2 is of f9ebe29, 3 of 1b59c99^, 4 of 9433555^: the last with each. An SQLite file was
vacuumed out of WAL mode; all are packed with zstd.
"""
# ruff: noqa

import sys

import numpy as np
from edge_contract import manifest, telemetry
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.store.base import AsideKind, AsideSeen, EventSeen, Fault, StatusSeen
from edge_fleet.store.sql import open_store
from edge_fleet.windows import window_of
from fleet_kit import draw, pack, record

T = 1_789_000_000_000
rng = np.random.default_rng(7)
packed = pack(np.random.default_rng(20))
store = open_store(sys.argv[1], create=True)
store.claim("test")
store.put_settings(
    {
        "collector-0": str(T),
        "broker": "mqtt://127.0.0.1",
        "window_s": "60",
        "false_alarms_per_month": "1",
    }
)
evidence = Evidence(Library(), Budget(1, 60), ("site",))
profile = manifest.decode(packed.manifest_bytes).file("profile.json").sha256
with store.transaction() as tx:
    tx.put_blob(packed.digest, packed.manifest_bytes, T)
    tx.put_blob(profile, packed.stored, T)
for seq in range(1, 41):
    for device in ("pi-1", "pi-2"):
        rows = draw(rng, 60)
        if device == "pi-2" and seq > 12:
            rows.temperature += 4.0
        now = T + seq * 60_000
        one = record(packed, packed.counts(rows), device=device, seq=seq, start_ms=now - 60_000)
        with store.transaction() as tx:
            evidence.count(tx, tx.add_windows([window_of(telemetry.encode(one), now)]), now)
with store.transaction() as tx:
    for device in ("pi-1", "pi-2"):
        tx.status(StatusSeen(device, True, 1, "0.1.0", now, False))
        tx.add_events([EventSeen(device, 1, 1, now, "started", "boiler", "1.0", "", now)])
    tx.add_faults([Fault("pi-2", "clock-ahead", "its clock is 2.0 h ahead", now)])
    tx.add_asides([AsideSeen("pi-1", 1, 90, AsideKind.SHADOW, packed.digest, now, b"bytes")])
store.close()
