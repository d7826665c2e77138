"""Several collectors on one store: each record once, whoever took it, and one who counts."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
from fleet_kit import (
    BUDGET,
    FLEET,
    Packed,
    Publisher,
    draw,
    fault_kinds,
    record,
    settled,
    totals,
    until,
)
from msgspec.structs import replace

from edge_contract import broker_url, manifest, messages, telemetry
from edge_contract.errors import InputFault
from edge_contract.ports.mqtt import Message
from edge_contract.topics import Topics
from edge_fleet.collector import PENDING_BUNDLES, Collector, CollectorConfig
from edge_fleet.leader import LOCK_ORDINAL, Deposed, Leader, Term
from edge_fleet.sharing import SHARDS, SHARED, Part, shard_of, state_filters
from edge_fleet.store.sql import SqlStore, open_store
from edge_fleet.windows import window_of


def config_of(url: str, ordinal: int, part: Part = SHARED) -> CollectorConfig:
    return CollectorConfig(
        broker_url.parse(url), FLEET, ordinal=ordinal, part=part, budget=BUDGET, retry_s=0.05
    )


@contextmanager
def sharing(url: str, db: str, parts: list[Part], *, leaders: int = 1) -> Iterator[None]:
    """Collectors and candidates, each with a connection of its own to the store."""
    stop = threading.Event()
    errors: list[BaseException] = []
    with ExitStack() as stack:
        threads = []

        def begin(run: Callable[[SqlStore], None]) -> None:
            store = open_store(db, create=True)
            stack.callback(store.close)

            def body() -> None:
                try:
                    run(store)
                except BaseException as error:  # noqa: BLE001 (raised in the test's thread)
                    errors.append(error)

            thread = threading.Thread(target=body)
            thread.start()
            threads.append(thread)

        started = [threading.Event() for _ in parts]
        for ordinal, part in enumerate(parts):
            config, ready = config_of(url, ordinal, part), started[ordinal].set
            begin(lambda store, c=config, r=ready: Collector(c, store).run(stop, r))  # type: ignore[misc]
        for ordinal in range(leaders):
            config = config_of(url, 100 + ordinal)
            begin(lambda store, c=config: Leader(c, store).run(stop))  # type: ignore[misc]
        try:
            until(lambda: errors or all(one.is_set() for one in started), "all collect")
            if not errors:
                yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
    if errors:
        raise errors[0]


def counted_once(db: str, packed: Packed, windows: int, rows: int) -> None:
    """Every window kept, and part of its device's evidence, once."""
    store = open_store(db, create=False)
    until(settled(store, windows), "all are kept and counted")
    with store.reading() as tx:
        found = tx.all_detectors()
        kept = sum(len(some) for some in tx.counted_since(packed.digest, 0, 500))
    assert sum(one.windows for one in found) == kept == windows
    assert sum(one.rows for one in found) == rows
    store.close()


def test_two_collectors_share_what_comes_and_one_counts(
    any_broker: Any, publisher: Publisher, any_db: str, packed: Packed, rng: np.random.Generator
) -> None:
    publisher.bundle(packed)
    many = [
        record(packed, packed.counts(draw(rng, 20)), device=f"pi-{at % 7}", seq=at // 7)
        for at in range(210)
    ]
    with sharing(any_broker.url, any_db, [SHARED, SHARED], leaders=2):
        publisher.records(many)
        counted_once(any_db, packed, 210, 210 * 20)
    store = open_store(any_db, create=False)
    assert fault_kinds(store) == {}
    store.close()


def test_a_window_that_names_a_blob_which_is_no_bundle_does_not_stop_the_leader(
    any_broker: Any, publisher: Publisher, db: str, packed: Packed, rng: np.random.Generator
) -> None:
    file = manifest.decode(packed.manifest_bytes).file(manifest.PROFILE_FILE)
    publisher.bundle(packed)
    with sharing(any_broker.url, db, [SHARED]):
        store = open_store(db, create=False)
        publisher.record(record(packed, packed.counts(draw(rng, 20))))
        until(settled(store, 1), "the profile is known")
        odd = record(packed, packed.counts(draw(rng, 20)), device="odd")
        publisher.record(replace(odd, bundle=bytes.fromhex(file.sha256)))
        until(settled(store, 2, pending=1), "it waits")
        publisher.record(record(packed, packed.counts(draw(rng, 20)), seq=2))
        until(settled(store, 3, pending=1), "the good one is counted")
        store.close()


def test_a_round_looks_at_few_of_the_bundles_that_nobody_knows(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    """Windows may name any number of them; what is known is found among them all."""
    sane, count = record(packed, packed.counts(draw(rng, 5))), PENDING_BUNDLES + 50
    odd = [replace(sane, device="odd", seq=at, bundle=rng.bytes(32)) for at in range(count)]
    file = manifest.decode(packed.manifest_bytes).file(manifest.PROFILE_FILE)
    with any_store.transaction() as tx:
        tx.add_windows([window_of(telemetry.encode(one), one.seq) for one in odd])
        tx.add_windows([window_of(telemetry.encode(sane), 0)])
        tx.put_blob(packed.digest, packed.manifest_bytes, 0)
        tx.put_blob(file.sha256, packed.stored, 0)
    with any_store.reading() as tx:
        assert tx.waiting_bundles() == [packed.digest]
        newest = [one.bundle.hex() for one in odd[: -PENDING_BUNDLES - 1 : -1]]
        assert tx.unknown_bundles(PENDING_BUNDLES) == newest
    term = Term(config_of("mqtt://127.0.0.1:1", 0), any_store, Topics(FLEET), lambda: 0)
    asked: list[str] = []

    class Asked:
        def want(self, bundles: list[str]) -> None:
            asked.extend(bundles)

    term._fetcher = Asked()  # type: ignore[assignment]
    with any_store.transaction() as tx:
        term._number = tx.begin_term()
    for _ in range(3):
        term._count()
    assert asked == newest, "looked for once, as the pause is not over"
    with any_store.reading() as tx:
        assert tx.totals().pending == count
        assert [one.device for one in tx.all_detectors()] == ["pi-1"]


def test_fixed_parts_take_every_device_once(
    any_broker: Any, publisher: Publisher, db: str, packed: Packed, rng: np.random.Generator
) -> None:
    publisher.bundle(packed)
    many = [record(packed, packed.counts(draw(rng, 20)), device=f"pi-{at}") for at in range(60)]
    with sharing(any_broker.url, db, [Part(at, 3) for at in range(3)]):
        publisher.records(many)
        publisher.message(
            publisher.topics.events("pi-1"),
            messages.Event(boot=1, seq=7, at_ms=1, kind="restarted", detail=""),
        )
        counted_once(db, packed, 60, 60 * 20)
        store = open_store(db, create=False)

        def heard() -> int:
            with store.reading() as tx:
                return len(tx.events(10))

        until(lambda: heard() == 1, "the event")
        store.close()


def test_births_and_reports_reach_whoever_leads_even_those_from_before(
    any_broker: Any, publisher: Publisher, any_db: str
) -> None:
    """A shared subscription is sent nothing that is retained; a leader has one of its own."""
    topics = publisher.topics
    early = messages.Status(online=True, boot=3, agent="1.0", run="a")
    publisher.message(topics.status("pi-early"), early, retain=True)
    with sharing(any_broker.url, any_db, [SHARED]):
        late = messages.Status(online=True, boot=4, agent="1.0", run="b")
        publisher.message(topics.status("pi-late"), late, retain=True)
        store = open_store(any_db, create=False)

        def known() -> dict[str, int]:
            with store.reading() as tx:
                return {one.device: one.boot for one in tx.devices() if one.online}

        until(lambda: known() == {"pi-early": 3, "pi-late": 4}, "both births")
        store.close()


def test_a_collector_of_another_part_leaves_its_former_subscriptions(
    any_broker: Any, publisher: Publisher, db: str, packed: Packed, rng: np.random.Generator
) -> None:
    """The session outlives the change: what both would take, comes twice, for ever."""
    publisher.bundle(packed)
    store = open_store(db, create=True)
    stop = threading.Event()
    Collector(config_of(any_broker.url, 0, Part(0, 1)), store).run(stop, stop.set)
    seen: list[str] = []

    class Counting(Collector):
        def _received(self, messages: list[Message]) -> None:
            seen.extend(one.topic for one in messages)
            super()._received(messages)

    stop, started = threading.Event(), threading.Event()
    collector = Counting(config_of(any_broker.url, 0), store)
    thread = threading.Thread(target=collector.run, args=(stop, started.set))
    thread.start()
    try:
        assert started.wait(60)
        publisher.records([record(packed, packed.counts(draw(rng, 9)), seq=at) for at in range(20)])
        until(lambda: totals(store).windows == 20, "all kept")
        publisher.record(record(packed, packed.counts(draw(rng, 9)), seq=20))
        until(lambda: totals(store).windows == 21, "the last one")
        assert len(seen) == 21
    finally:
        stop.set()
        thread.join(60)
        store.close()


def test_only_one_leads_and_another_follows_at_once(any_db: str) -> None:
    first, second = open_store(any_db, create=True), open_store(any_db, create=True)
    with first.lock(LOCK_ORDINAL):
        with pytest.raises(InputFault), second.lock(LOCK_ORDINAL):
            pass
        with first.transaction() as tx:
            former = tx.begin_term()
    with second.lock(LOCK_ORDINAL), second.transaction() as tx:
        assert tx.begin_term() == former + 1
    with first.transaction() as tx:
        assert not tx.in_term(former)
        assert tx.in_term(former + 1)
    first.close()
    second.close()


def test_who_was_deposed_without_knowing_changes_nothing(
    any_broker: Any, publisher: Publisher, any_db: str, packed: Packed, rng: np.random.Generator
) -> None:
    """Its lock is lost with its connection; what it holds in memory is old by then."""
    store = open_store(any_db, create=True)
    publisher.bundle(packed)
    stop, stopped = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def lead() -> None:
        term = Term(config_of(any_broker.url, 9), store, Topics(FLEET), lambda: 0)
        try:
            term.run(stop)
        except Deposed as error:
            raised.append(error)
        finally:
            stopped.set()

    thread = threading.Thread(target=lead)  # leads, and holds no lock
    thread.start()
    until(lambda: "leader" in store.settings(), "it leads")
    with store.transaction() as tx:
        tx.begin_term()
        tx.add_windows([])
    with sharing(any_broker.url, any_db, [SHARED], leaders=0):
        publisher.records([record(packed, packed.counts(draw(rng, 9)), seq=at) for at in range(5)])
        publisher.message(
            publisher.topics.status("pi-9"), messages.Status(online=True, boot=1, agent="1")
        )
        until(stopped.is_set, "it gave up")
        until(lambda: totals(store).windows == 5, "kept")
    stop.set()
    thread.join(60)
    assert len(raised) == 1
    with store.reading() as tx:
        assert tx.all_detectors() == []
        assert [one.device for one in tx.devices()] == ["pi-1"]
    store.close()


def test_parts_cover_everything_once() -> None:
    topics = Topics(FLEET)
    for of in (1, 2, 3, 7, 256):
        filters = [one for at in range(of) for one in Part(at, of).filters(topics)]
        assert len(filters) == len(set(filters)) == SHARDS + 1
    assert all("$share/" not in one for one in state_filters(topics))
    assert all(one.startswith("$share/edge-fleet/") for one in SHARED.filters(topics))


@pytest.mark.parametrize(
    "text", ["", "1", "1/", "/2", "2/2", "-1/2", "0/0", "0/257", "a/b", "1/2/3"]
)
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputFault):
        shard_of(text)
    assert str(shard_of("1/2")) == "part 1 of 2"
