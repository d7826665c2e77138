"""Devices whose clocks are an hour off: slots, silence and gates go by the server's clock."""

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fleet_kit import Packed, draw, pack, record

sys.path.insert(0, str(Path(__file__).parent))

from rollout_store import BEGAN_MS, Fleet

from edge_contract import manifest as manifests
from edge_contract import telemetry
from edge_fleet.rollouts import counting, gates
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts.order import Gate, Gates, Slot
from edge_fleet.store.base import Counted
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

HOUR_MS = 3_600_000
MINUTE_MS = 60_000
OFF = [-HOUR_MS, HOUR_MS]
SLOT = Slot(22 * 60 + 30, 22 * 60 + 45)
"""UTC. The fleet begins at 22:13 and hears of its devices each minute."""


def minute(at_ms: int) -> int:
    """Of the day, UTC."""
    return at_ms // MINUTE_MS % 1440


@pytest.mark.parametrize("ahead_ms", OFF)
def test_slots_are_of_the_right_time_whatever_a_device_thinks(
    store: SqlStore, ahead_ms: int
) -> None:
    fleet = Fleet(store, 6)
    fleet.ahead_ms = ahead_ms
    fleet.begin(slot=SLOT, waves=orders.waves("50%,100%"))
    asked: dict[str, int] = {}
    for _ in range(40):
        run = fleet.run()
        run.step()
        pending = run.pending()
        asked |= {one.device: minute(fleet.now_ms) for one in pending if one.device not in asked}
        fleet.live(pending)
    (rollout,) = fleet.rollouts()
    assert rollout.phase == "finished", rollout.reason
    assert set(asked) == set(fleet.heard)
    assert all(SLOT.start <= at < SLOT.end for at in asked.values()), asked
    assert min(asked.values()) == SLOT.start, "not an hour later, and not before"


@pytest.mark.parametrize("ahead_ms", OFF)
def test_who_is_heard_of_is_not_silent_and_who_is_not_is_silent_in_time(
    store: SqlStore, ahead_ms: int
) -> None:
    fleet = Fleet(store, 4)
    fleet.ahead_ms = ahead_ms
    silent = Gate(limit=0.0, deadline_s=600)
    fleet.begin(gates=Gates(silent=silent), waves=orders.waves("1,100%"), bake_s=3000.0)
    run = fleet.run()
    run.step()
    fleet.live(run.pending())
    (canary,) = fleet.rollouts()[0].members
    for _ in range(20):
        run = fleet.run()
        run.step()
        fleet.live(run.pending())
    assert fleet.rollouts()[0].phase == "running", "an hour off, and heard of each minute"
    fleet.mute = {canary}
    last_ms = fleet.now_ms
    while fleet.rollouts()[0].phase == "running" and fleet.now_ms < last_ms + HOUR_MS:
        run = fleet.run()
        run.step()
        fleet.live(run.pending())
    (rollout,) = fleet.rollouts()
    assert rollout.phase == "halted"
    assert "silent" in rollout.reason
    waited_s = (rollout.notes[-1].at_ms - last_ms) / 1000
    assert 600 < waited_s <= 600 + 2 * 60, "neither at once nor an hour late"


@pytest.mark.parametrize("ahead_ms", [0, *OFF])
def test_a_gate_counts_what_came_since_the_rollout_began_by_this_servers_clock(
    store: SqlStore, packed_two: dict[str, Packed], rng: np.random.Generator, ahead_ms: int
) -> None:
    """The hour before the rollout is not the version's, though its device's clock says it is."""
    order = orders.made(fleet="test", model="boiler", version="2.0", gates=Gates())
    with store.transaction() as tx:
        for packed in packed_two.values():
            file = manifests.decode(packed.manifest_bytes).file(manifests.PROFILE_FILE)
            tx.put_blob(packed.digest, packed.manifest_bytes, BEGAN_MS)
            tx.put_blob(file.sha256, packed.stored, BEGAN_MS)
        for seq, (version, at_ms, failed) in enumerate(
            [("2.0", -HOUR_MS // 2, 90), ("2.0", HOUR_MS // 2, 1), ("1.0", -HOUR_MS // 2, 0)]
        ):
            packed = packed_two[version]
            received_ms = BEGAN_MS + at_ms
            start_ms = received_ms + ahead_ms - MINUTE_MS
            one = record(packed, packed.counts(draw(rng, 100)), device="d1", seq=seq,
                         start_ms=start_ms)  # fmt: skip
            one = msgspec.structs.replace(one, version=version, failed=failed)
            window = window_of(telemetry.encode(one), received_ms)
            tx.add_windows([window])
            tx.mark([window.key], Counted.YES)
    with store.reading() as tx:
        digests = [packed_two["2.0"].digest]
        found = counting.counted(tx, order, BEGAN_MS, digests, {"d1": "pi4"})
    assert (found.rows, found.failed) == (101, 1)
    errors = gates.evidence(
        "errors", Gate(limit=0.01), 0.01, (found.failed, found.rows), alpha=0.01, what="rows failed"
    )
    assert errors.verdict == "holds"


@pytest.fixture(scope="module")
def packed_two() -> dict[str, Packed]:
    return {version: pack(np.random.default_rng(5), version) for version in ("1.0", "2.0")}
