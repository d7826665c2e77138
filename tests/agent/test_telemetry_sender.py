"""Records leave the disk after their PUBACK only, whatever the broker and the network do."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.telemetry import Sender, Spool
from edge_agent.telemetry.sender import IN_FLIGHT_MAX, RESEND_S, RETRY_S, UNHEARD_MAX_S
from edge_contract import broker_url, telemetry
from edge_contract.ports.mqtt import Link, LinkConfig, Message, Ticket
from edge_contract.telemetry import Record, pack_counts
from edge_fleet.broker import (
    BrokerConfig,
    BrokerThread,
    Double,
    LoseAck,
    MosquittoConfig,
    MosquittoProcess,
    find_mosquitto,
)

TOPIC = "edge/1/home/t/ab/pi-1"


def record(seq: int, *, cells: int = 40) -> Record:
    return Record(
        schema=1, device="pi-1", boot=1, seq=seq, model="pump", version="1.0", bundle=bytes(32),
        start_ms=0, end_ms=1000, synchronised=True, rows=1, refused=0, failed=0,
        coding=telemetry.CODING_LEB128, counts=pack_counts([1] * cells),
        latency=pack_counts([0] * telemetry.LATENCY_BUCKETS),
    )  # fmt: skip


def until(condition: Callable[[], bool], what: str, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Wire:
    """A connection that keeps what was published until the test answers. Strict."""

    def __init__(self) -> None:
        self.up = True
        self.peer_packet_max_bytes: int | None = None
        self.sent: list[tuple[int, Ticket]] = []

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, expiry_s: int | None = None):
        assert (topic, qos, expiry_s) == (TOPIC, 1, 7 * 86400)
        assert self.up
        ticket = Ticket("a record")
        self.sent.append((telemetry.decode(payload).seq, ticket))
        return ticket

    @property
    def seqs(self) -> list[int]:
        return [seq for seq, _ in self.sent]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def fill(spool: Spool, count: int) -> None:
    for seq in range(count):
        spool.append(record(seq))


# -- the rules, on a wire that the test holds -----------------------------------------------------


def test_what_nobody_listened_to_is_kept_and_asks_less_and_less_often(spool: Spool) -> None:
    fill(spool, 5)
    wire, clock = Wire(), Clock()
    sender = Sender(wire, spool, TOPIC, clock_s=clock)
    sender.kick()
    assert wire.seqs == [0, 1, 2, 3, 4]
    for _, ticket in wire.sent:
        ticket.settle(unheard=True)
    assert len(spool.keys()) == 5
    assert sender.in_flight == 0
    for pause_s in (RETRY_S, 2 * RETRY_S, 4 * RETRY_S, 8 * RETRY_S, 16 * RETRY_S, UNHEARD_MAX_S):
        wire.sent.clear()
        clock.now_s += pause_s - 1
        sender.kick()
        assert wire.seqs == [], f"too early, of {pause_s} s"
        clock.now_s += 1
        sender.kick()
        assert wire.seqs == [0], f"one asks, after {pause_s} s"
        wire.sent[0][1].settle(unheard=pause_s < UNHEARD_MAX_S)
    assert wire.seqs == [0, 1, 2, 3, 4], "somebody listens: the others follow"
    for _, ticket in wire.sent[1:]:
        ticket.settle()
    assert spool.keys() == []


def test_a_bounded_number_is_on_its_way_and_each_answer_lets_one_follow(spool: Spool) -> None:
    fill(spool, 2 * IN_FLIGHT_MAX)
    wire = Wire()
    sender = Sender(wire, spool, TOPIC, clock_s=Clock())
    sender.kick()
    sender.kick()
    assert wire.seqs == list(range(IN_FLIGHT_MAX))
    assert len(spool) == 2 * IN_FLIGHT_MAX, "nothing leaves the disk unacknowledged"
    wire.sent[3][1].settle()
    assert wire.seqs == list(range(IN_FLIGHT_MAX + 1))
    assert (1, 3) not in spool.keys()  # noqa: SIM118 - a spool is no mapping
    for _, ticket in list(wire.sent):
        ticket.settle()
    until(lambda: len(wire.sent) == 2 * IN_FLIGHT_MAX, "all sent")
    for _, ticket in wire.sent:
        ticket.settle()
    assert (len(spool), sender.in_flight, spool.dropped) == (0, 0, 0)


def test_nothing_is_sent_while_off_line(spool: Spool) -> None:
    fill(spool, 2)
    wire = Wire()
    wire.up = False
    sender = Sender(wire, spool, TOPIC, clock_s=Clock())
    sender.kick()
    assert wire.sent == []
    wire.up = True
    sender.kick()
    assert wire.seqs == [0, 1]


def test_a_silent_broker_gets_it_again_at_growing_intervals(spool: Spool) -> None:
    fill(spool, 1)
    wire, clock = Wire(), Clock()
    sender = Sender(wire, spool, TOPIC, clock_s=clock)
    sender.kick()
    begun = clock.now_s
    sent_at = [0.0]
    while clock.now_s - begun < 4 * 3600:
        clock.now_s += 10
        before = len(wire.sent)
        sender.kick()
        if len(wire.sent) > before:
            sent_at.append(clock.now_s - begun)
    gaps = [b - a for a, b in itertools.pairwise(sent_at)]
    assert gaps[:3] == [RESEND_S, 2 * RESEND_S, 4 * RESEND_S]
    assert max(gaps) == 3600
    wire.sent[1][1].settle()
    wire.sent[0][1].settle()
    assert (len(spool), sender.in_flight) == (0, 0)


def test_a_refusal_that_may_heal_keeps_the_record_and_waits(spool: Spool) -> None:
    fill(spool, 1)
    wire, clock = Wire(), Clock()
    sender = Sender(wire, spool, TOPIC, clock_s=clock)
    sender.kick()
    wire.sent[0][1].settle("Not authorized")
    sender.kick()
    assert wire.seqs == [0], "not again at once"
    assert len(spool) == 1
    clock.now_s += RETRY_S
    sender.kick()
    assert wire.seqs == [0, 0]
    wire.sent[1][1].settle()
    assert len(spool) == 0
    assert spool.dropped == 0


@pytest.mark.parametrize("reason", ["Packet too large", "Payload format invalid"])
def test_a_poison_record_is_dropped_counted_and_blocks_nobody(spool: Spool, reason: str) -> None:
    fill(spool, 3)
    wire = Wire()
    Sender(wire, spool, TOPIC, clock_s=Clock()).kick()
    for (_, ticket), error in zip(list(wire.sent), ("", reason, ""), strict=True):
        ticket.settle(error)
    assert len(spool) == 0
    assert spool.dropped == 1


def test_a_record_over_the_brokers_named_limit_is_never_sent(spool: Spool) -> None:
    spool.append(record(0, cells=3000))
    spool.append(record(1))
    wire = Wire()
    wire.peer_packet_max_bytes = 1000
    Sender(wire, spool, TOPIC, clock_s=Clock()).kick()
    assert wire.seqs == [1]
    assert spool.dropped == 1


def test_a_record_dropped_for_space_while_on_its_way_harms_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=2 * 4096)
    fill(spool, 2)
    wire = Wire()
    sender = Sender(wire, spool, TOPIC, clock_s=Clock())
    sender.kick()
    spool.append(record(2))
    for _, ticket in list(wire.sent):
        ticket.settle()
    assert wire.seqs == [0, 1, 2]
    wire.sent[2][1].settle()
    assert (len(spool), sender.in_flight) == (0, 0)


# -- real connections -----------------------------------------------------------------------------


class Collector:
    """Receives records as a fleet does: one kept of each (device, boot, seq)."""

    def __init__(self, url: str) -> None:
        self.kept: dict[int, Record] = {}
        self.received: list[int] = []
        self.ready: Ticket | None = None
        config = LinkConfig(
            broker_url.parse(url), "collector", session_expiry_s=3600, reconnect_max_s=1
        )
        self.link = Link(config, on_message=self._take, on_up=lambda _: self._subscribe())
        self.link.start(60)

    def _subscribe(self) -> None:
        self.ready = self.link.subscribe([TOPIC])

    def _take(self, message: Message) -> None:
        found = telemetry.decode(message.payload)
        self.received.append(found.seq)
        self.kept[found.seq] = found


@pytest.fixture
def connect() -> Iterator[Callable[..., Link]]:
    links: list[Link] = []

    def make(url: str, sender: list[Sender]) -> Link:
        config = LinkConfig(broker_url.parse(url), "pi-1", session_expiry_s=3600, reconnect_max_s=1)
        link = Link(config, on_up=lambda _: [one.kick() for one in sender])
        links.append(link)
        return link

    yield make
    for link in links:
        link.stop()


@pytest.fixture
def collect() -> Iterator[Callable[[str], Collector]]:
    collectors: list[Collector] = []

    def make(url: str) -> Collector:
        collectors.append(Collector(url))
        until(lambda: collectors[-1].ready is not None, "subscribed")
        collectors[-1].ready.wait(60)
        return collectors[-1]

    yield make
    for collector in collectors:
        collector.link.stop()


def test_what_was_spooled_off_line_arrives_in_order(any_broker, spool, connect, collect) -> None:
    fill(spool, 50)
    collector = collect(any_broker.url)
    senders: list[Sender] = []
    link = connect(any_broker.url, senders)
    senders.append(Sender(link, spool, TOPIC))
    link.start(60)
    until(lambda: len(spool) == 0, "the spool is empty")
    until(lambda: len(collector.kept) == 50, "all arrived")
    assert collector.received == list(range(50))
    spool.append(record(50))
    senders[0].kick()
    until(lambda: 50 in collector.kept, "a later one follows a kick")


def test_a_broker_that_goes_and_comes_back_costs_no_record(
    any_broker, spool, connect, collect
) -> None:
    collector = collect(any_broker.url)
    senders: list[Sender] = []
    link = connect(any_broker.url, senders)
    senders.append(Sender(link, spool, TOPIC))
    link.start(60)
    fill(spool, 5)
    senders[0].kick()
    until(lambda: len(spool) == 0, "the first five are home")
    any_broker.stop()
    until(lambda: not link.up, "the loss is noticed")
    for seq in range(5, 30):
        spool.append(record(seq))
        senders[0].kick()
    assert len(spool) == 25
    any_broker.start()
    until(lambda: len(spool) == 0, "the spool is empty again")
    until(lambda: set(collector.kept) == set(range(30)), "every one arrived")
    assert spool.dropped == 0


def test_a_lost_puback_is_healed_by_sending_again(spool, connect, collect) -> None:
    lose = LoseAck(client_id="pi-1", times=3)
    clock = Clock()
    with BrokerThread(BrokerConfig(), [lose]) as broker:
        collector = collect(broker.url)
        senders: list[Sender] = []
        link = connect(broker.url, senders)
        senders.append(Sender(link, spool, TOPIC, clock_s=clock))
        link.start(60)
        fill(spool, 6)
        senders[0].kick()
        until(lambda: len(spool) == 3, "three answers were lost")
        until(lambda: len(collector.kept) == 6, "all six are home nevertheless")
        assert senders[0].in_flight == 3
        clock.now_s += RESEND_S
        senders[0].kick()
        until(lambda: len(spool) == 0, "the second answers came")
        until(lambda: len(collector.received) == 9, "three came twice")
        assert len(collector.kept) == 6


def test_cut_connections_lose_nothing_and_doubles_have_one_key(spool, connect, collect) -> None:
    cut = LoseAck(client_id="pi-1", times=4)
    double = Double(client_id="collector", times=5)
    with BrokerThread(BrokerConfig(), [cut, double]) as broker:
        collector = collect(broker.url)
        senders: list[Sender] = []
        link = connect(broker.url, senders)
        senders.append(Sender(link, spool, TOPIC))
        link.start(60)
        fill(spool, 40)
        senders[0].kick()
        until(lambda: len(cut.hits) == 4, "answers were lost")
        broker.drop("pi-1")
        until(lambda: len(spool) == 0, "sent again after the reconnect")
        until(lambda: set(collector.kept) == set(range(40)), "every one arrived")
        assert len(collector.received) > 40, "some twice, kept once"


def test_a_new_process_goes_on_where_the_killed_one_was(spool, connect, collect) -> None:
    """A spool is all that survives a SIGKILL: the records on their way are sent once more."""
    with BrokerThread(BrokerConfig(), [LoseAck(client_id="pi-1", times=2)]) as broker:
        collector = collect(broker.url)
        senders: list[Sender] = []
        first = connect(broker.url, senders)
        senders.append(Sender(first, spool, TOPIC))
        first.start(60)
        fill(spool, 4)
        senders[0].kick()
        until(lambda: len(spool) == 2, "two answers were lost")
        broker.drop("pi-1")
        first.stop()
        again = Spool(spool._folder)
        later: list[Sender] = []
        second = connect(broker.url, later)
        later.append(Sender(second, again, TOPIC))
        second.start(60)
        until(lambda: len(again) == 0, "the rest is home")
        assert set(collector.kept) == {0, 1, 2, 3}


def test_the_limit_that_a_broker_names_is_kept(start_broker, spool, connect, collect) -> None:
    broker = start_broker(max_packet_bytes=2000)
    collector = collect(broker.url)
    senders: list[Sender] = []
    link = connect(broker.url, senders)
    senders.append(Sender(link, spool, TOPIC))
    spool.append(record(0))
    spool.append(record(1, cells=5000))
    spool.append(record(2))
    link.start(60)
    assert link.peer_packet_max_bytes == 2000
    until(lambda: len(spool) == 0, "the spool is empty")
    until(lambda: set(collector.kept) == {0, 2}, "the small ones arrived")
    assert spool.dropped == 1


def test_a_broker_that_refuses_a_size_by_puback(spool, connect, collect) -> None:
    """mosquitto's message_size_limit is not named at CONNECT, only answered by reason 0x95."""
    if find_mosquitto() is None:
        pytest.skip("no mosquitto")
    broker = MosquittoProcess(MosquittoConfig(extra=("message_size_limit 1000",)))
    broker.start()
    try:
        collector = collect(broker.url)
        senders: list[Sender] = []
        link = connect(broker.url, senders)
        senders.append(Sender(link, spool, TOPIC))
        for seq, cells in enumerate((40, 3000, 40)):
            spool.append(record(seq, cells=cells))
        link.start(60)
        until(lambda: len(spool) == 0, "the spool is empty")
        until(lambda: set(collector.kept) == {0, 2}, "the small ones arrived")
        assert spool.dropped == 1
    finally:
        broker.stop()


def test_a_collector_that_is_set_up_later_gets_what_came_before(
    any_broker, spool, connect, collect
) -> None:
    clock = Clock()
    senders: list[Sender] = []
    link = connect(any_broker.url, senders)
    senders.append(Sender(link, spool, TOPIC, clock_s=clock))
    fill(spool, 3)
    link.start(60)
    senders[0].kick()
    until(lambda: senders[0].in_flight == 0, "the broker answered")
    assert len(spool) == 3
    collector = collect(any_broker.url)
    clock.now_s += RETRY_S
    senders[0].kick()
    until(lambda: set(collector.kept) == {0, 1, 2}, "all three are home")
    until(lambda: len(spool) == 0, "and leave the disk")
