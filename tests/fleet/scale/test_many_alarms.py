"""Every device alarms in the same minute: each crossing is kept once, under the fleet's event."""

import numpy as np
import sqlalchemy as sa
from fleet_kit import BUDGET, Packed, draw, record

from edge_contract import telemetry
from edge_contract.manifest import decode
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

DEVICES = 120


def test_a_whole_fleet_that_alarms_at_once_costs_a_look_an_alarm(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    """Rows read for the alarms: what was open already is not read again for each of them."""
    profile = decode(packed.manifest_bytes).file("profile.json")
    evidence = Evidence(Library(), BUDGET)
    read, events = [0], [0]

    @sa.event.listens_for(store._engine, "after_cursor_execute")
    def _executed(*seen: object) -> None:
        statement = str(seen[2])
        if statement.startswith("SELECT alarms.id, alarms.device"):
            (events if "alarms.monitor = " in statement else read)[0] += 1

    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, 0)
        tx.put_blob(profile.sha256, packed.stored, 0)
    for seq in range(4):
        windows = []
        for at in range(DEVICES):
            rows = draw(rng, 60)
            rows.temperature += 6.0
            one = record(packed, packed.counts(rows), device=f"pi-{at:03}", seq=seq)
            windows.append(window_of(telemetry.encode(one), 60_000 * (seq + 1)))
        with store.transaction() as tx:
            evidence.count(tx, tx.add_windows(windows), 60_000 * (seq + 1))
    with store.reading() as tx:
        found = tx.alarms(open_only=True)
    own = [one.device for one in found if one.scope == "device" and one.feature == "temperature"]
    assert len(own) == len(set(own)) == DEVICES
    event = next(one for one in found if one.scope == "fleet" and one.feature == "temperature")
    under = {one.parent for one in found if one.scope == "device" and one.feature == "temperature"}
    assert under == {event.id}
    assert read[0] < 20, "the list of open alarms is not read for each alarm"
    most = 4 * 2 * len(packed.profile.monitors)
    assert 0 < events[0] <= most, "open events are looked for once a batch, not for each alarm"
