"""A message that meets a mistake of this program is set aside; what others send is kept."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fleet_kit import BUDGET, FLEET, Packed, draw, fault_kinds, record, totals

from edge_contract import broker_url, manifest, messages, telemetry
from edge_contract.errors import MachineFault
from edge_contract.ports.mqtt import Message
from edge_contract.topics import Topics
from edge_fleet import poison
from edge_fleet.collector import Collector, CollectorConfig, _Arrived, _Item, _Profile
from edge_fleet.evidence import Evidence, Outcome
from edge_fleet.leader import Deposed, Term
from edge_fleet.sharing import SHARED
from edge_fleet.store.sql import SqlStore

NOW = 1_800_000_000_000
TOPICS = Topics(FLEET)
CONFIG = CollectorConfig(broker_url.parse("mqtt://127.0.0.1:1"), FLEET, budget=BUDGET)


class Mistaken(Evidence):
    """Cannot stand one device."""

    def count(self, tx: Any, windows: Any, now_ms: int, **how: Any) -> Outcome:
        outcome = super().count(tx, windows, now_ms, **how)
        if not outcome.unknown and any(one.device == "odd" for one in windows):
            raise OverflowError("too large")
        return outcome


def collector(store: SqlStore) -> Collector:
    made = Collector(CONFIG, store, clock_ms=lambda: NOW)
    made._evidence = Mistaken(made._library, BUDGET)
    return made


def learnt(packed: Packed) -> _Profile:
    file = manifest.decode(packed.manifest_bytes).file(manifest.PROFILE_FILE)
    return _Profile(
        packed.digest, {packed.digest: packed.manifest_bytes, file.sha256: packed.stored}
    )


def sent(packed: Packed, rng: np.random.Generator, seq: int) -> list[_Item]:
    """A window of each of three devices."""
    items: list[_Item] = []
    for device in ("pi-1", "odd", "pi-2"):
        one = record(packed, packed.counts(draw(rng, 20)), device=device, seq=seq)
        message = Message(TOPICS.telemetry(device), telemetry.encode(one), retain=False)
        items.append(_Arrived(message, 1))
    return items


def counted(store: SqlStore) -> dict[str, int]:
    with store.reading() as tx:
        return {one.device: one.windows for one in tx.all_detectors()}


def test_a_window_that_the_evidence_cannot_stand_is_left_out_alone(
    store: SqlStore, packed: Packed, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    mistaken = collector(store)
    mistaken._keep([learnt(packed)])
    for seq in range(3):
        mistaken._keep(sent(packed, rng, seq))
    assert fault_kinds(store) == {("odd", "poison"): 3}
    assert counted(store) == {"pi-1": 3, "pi-2": 3}
    assert (totals(store).windows, totals(store).pending) == (6, 0)
    with store.reading() as tx:
        [fault] = tx.faults()
    assert "OverflowError: too large" in fault.detail
    [told] = [one for one in caplog.records if one.levelname == "WARNING"]
    assert told.exc_info, "with its traceback, once"


def test_one_that_waited_for_its_profile_is_refused_alone(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    mistaken = collector(store)
    mistaken._keep(sent(packed, rng, 1))
    assert totals(store).pending == 3
    mistaken._keep([learnt(packed)])
    assert fault_kinds(store) == {("odd", "poison"): 1}
    assert counted(store) == {"pi-1": 1, "pi-2": 1}
    assert (totals(store).pending, totals(store).refused) == (0, 1)


def test_a_leader_refuses_it_alone_and_leaves_a_birth_out_alone(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    keeper = Collector(
        CollectorConfig(CONFIG.broker, FLEET, part=SHARED, budget=BUDGET),
        store,
        clock_ms=lambda: NOW,
    )
    keeper._keep(sent(packed, rng, 1))
    with store.transaction() as tx:
        for sha256, data in learnt(packed).blobs.items():
            tx.put_blob(sha256, data, NOW)

    class Twins:
        def born(self, seen: Any) -> None:
            if seen.device == "odd":
                raise ValueError("odd")

    term = Term(CONFIG, store, TOPICS, lambda: NOW)
    term._evidence, term._twins = Mistaken(term._library, BUDGET), Twins()  # type: ignore[assignment]
    with store.transaction() as tx:
        term._number = tx.begin_term()
    term._count()
    assert fault_kinds(store) == {("odd", "poison"): 1}
    assert counted(store) == {"pi-1": 1, "pi-2": 1}
    assert (totals(store).pending, totals(store).refused) == (0, 1)
    birth = messages.encode(messages.Status(online=True, boot=7, agent="a"))
    term._keep([Message(TOPICS.status(d), birth, retain=False) for d in ("odd", "pi-1")])
    with store.reading() as tx:
        assert {one.device: one.boot for one in tx.devices() if one.online} == {"pi-1": 7}
    assert fault_kinds(store) == {("odd", "poison"): 2}


@pytest.mark.parametrize("error", [MachineFault("the disk is full"), Deposed()])
def test_what_is_no_item_s_fault_is_raised(error: Exception) -> None:
    def keep(items: Sequence[int]) -> None:
        if 2 in items:
            raise error if len(items) == 1 else ValueError

    kept: list[int] = []
    with pytest.raises(type(error)):
        poison.apart([1, 2, 3], keep, lambda *_: None, through=(MachineFault, Deposed))
    poison.apart([1, 3], kept.extend, lambda *_: None)
    assert kept == [1, 3]
