"""Killed in mid-batch, broker restarted, leader gone: every record is counted once all the same."""

import sys
from pathlib import Path

import numpy as np
import pytest
from fleet_kit import Packed, Publisher, totals, until

sys.path.insert(0, str(Path(__file__).parent))  # `soaking` is beside the tests

from soaking import Collectors, soak

from edge_contract import messages
from edge_fleet.broker import MosquittoConfig, MosquittoProcess, find_mosquitto
from edge_fleet.store.sql import open_store

pytestmark = pytest.mark.skipif(
    find_mosquitto() is None, reason="no mosquitto (Debian: apt-get install mosquitto)"
)


@pytest.mark.slow
@pytest.mark.parametrize("any_db", ["postgresql"], indirect=True)
def test_nothing_is_lost_or_doubled_by_kills_and_a_restart_of_the_broker(
    any_db: str, tmp_path: Path, packed: Packed, rng: np.random.Generator
) -> None:
    done = soak(
        any_db, tmp_path, packed, rng,
        records=2400, per_s=600, kill_every=1000, restart_every=2400, timeout_s=240,
    )  # fmt: skip
    assert (done.kills, done.broker_restarts) == (2, 1)


@pytest.mark.slow
def test_another_leads_when_the_leader_is_killed(any_db: str, tmp_path: Path) -> None:
    """Seen from outside: births go on being heard, under the next term."""
    store = open_store(any_db, create=True)

    def leader() -> tuple[int, int]:
        ordinal, term, _ = store.settings().get("leader", "-1 0 0").split()
        return int(ordinal), int(term)

    with MosquittoProcess(MosquittoConfig(directory=tmp_path / "broker")) as broker:
        collectors = Collectors(broker.url, any_db, tmp_path)
        for ordinal in range(2):
            collectors.start(ordinal)
        until(lambda: leader()[1] == 1, "one leads")
        first, _ = leader()
        collectors.processes[first].kill()
        collectors.processes[first].wait()
        publisher = Publisher(broker.url)
        born = messages.Status(online=True, boot=2, agent="1.0")
        publisher.message(publisher.topics.status("pi-1"), born, retain=True)
        until(lambda: leader() == (1 - first, 2), "the other one leads")
        until(lambda: totals(store).devices == 1, "a birth is heard")
        publisher.close()
        survivor = collectors.processes[1 - first]
        survivor.terminate()
        assert survivor.wait(60) == 0, collectors.said()
    store.close()
