"""The broker as an adversary: what each tap does to whom, and the operations on connections."""

import random

import pytest

from edge_fleet.broker import (
    BrokerThread,
    Corrupt,
    Delay,
    Direction,
    Double,
    Lose,
    LoseAck,
    Message,
    Outcome,
    Passing,
    Reorder,
    Replace,
)
from edge_fleet.broker.taps import TapChain

NUMBERS = [b"%d" % number for number in range(6)]


@pytest.fixture
def broker():
    with BrokerThread() as running:
        yield running


@pytest.fixture
def deliver(broker, connect):
    """Publishes numbers past the given tap and returns what a subscriber gets."""

    def run(tap, qos=1):
        broker.add_tap(tap)
        sub = connect(broker, "sub")
        sub.subscribe("t", 2)
        pub = connect(broker, "pub")
        for number in NUMBERS:
            assert pub.publish("t", number, qos) == 0
        pub.settle()
        return sub.settle()

    return run


@pytest.mark.parametrize("direction", [Direction.INBOUND, Direction.OUTBOUND])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("k", range(len(NUMBERS)))
def test_the_kth_message_is_lost_and_its_publisher_hears_nothing(deliver, direction, qos, k):
    tap = Lose(filter="t", direction=direction, skip=k, times=1)
    assert deliver(tap, qos) == NUMBERS[:k] + NUMBERS[k + 1 :]
    assert [hit.message.payload for hit in tap.hits] == [NUMBERS[k]]


@pytest.mark.parametrize("direction", [Direction.INBOUND, Direction.OUTBOUND])
def test_a_doubled_message_comes_twice_without_a_mark(broker, connect, deliver, direction):
    got = deliver(Double(filter="t", direction=direction, skip=2, times=1))
    assert got == [*NUMBERS[:3], *NUMBERS[2:]]


@pytest.mark.parametrize("by", [1, 3])
def test_a_reordered_message_is_overtaken(deliver, by):
    got = deliver(Reorder(filter="t", skip=1, times=1, by=by, within_s=60))
    assert got == [NUMBERS[0], *NUMBERS[2 : 2 + by], NUMBERS[1], *NUMBERS[2 + by :]]


def test_a_reordered_message_that_nothing_overtakes_comes_in_the_end(broker, connect):
    broker.add_tap(Reorder(filter="t", within_s=0.05))
    sub = connect(broker, "sub")
    sub.subscribe("t", 1)
    connect(broker, "pub").publish("t", b"x")
    assert sub.expect(1)[0].payload == b"x"


def test_random_reordering_loses_and_doubles_nothing(deliver):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    tap = Reorder(filter="t", by=3, within_s=60, chance=0.5, rng=random.Random(seed), times=3)
    got = deliver(tap)
    held = sum(1 for number in NUMBERS if number not in got)
    assert len(set(got)) == len(got) == len(NUMBERS) - held
    assert held <= len(tap.hits)


def test_a_delayed_message_comes_later(broker, connect):
    broker.add_tap(Delay(filter="t", times=1, delay_s=0.1))
    sub = connect(broker, "sub")
    sub.subscribe("t", 1)
    pub = connect(broker, "pub")
    pub.publish("t", b"first")
    pub.publish("t", b"second")
    assert [message.payload for message in sub.expect(2)] == [b"second", b"first"]


def test_a_corrupt_message_differs_in_one_bit(deliver):
    [*_, broken] = deliver(Corrupt(filter="t", predicate=lambda p: p.message.payload == b"5"))
    assert broken == bytes([ord("5") ^ 1])


def test_random_corruption_turns_one_bit_of_one_byte():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    tap = Corrupt(rng=random.Random(seed))
    payload = bytes(100)
    for _ in range(50):
        [outcome] = tap(Passing(Direction.OUTBOUND, "c", Message("t", payload)))
        assert sum(byte.bit_count() for byte in outcome.message.payload) == 1


def test_a_liar_replaces_what_is_retained(broker, connect):
    connect(broker, "pub").publish("r", b"truth", 1, True)
    broker.add_tap(Replace(filter="r", client_id="victim", payload=b"lie"))
    victim, other = connect(broker, "victim"), connect(broker, "other")
    for client in (victim, other):
        client.subscribe("r", 1)
    assert victim.expect(1)[0].payload == b"lie"
    assert other.expect(1)[0].payload == b"truth"
    assert broker.retained("r") == {"r": b"truth"}


def test_a_lie_on_the_way_in_is_what_is_retained(broker, connect):
    tap = Replace(direction=Direction.INBOUND, payload=lambda message: message.payload[::-1])
    broker.add_tap(tap)
    connect(broker, "pub").publish("r", b"abc", 1, True)
    assert broker.retained("r") == {"r": b"cba"}
    broker.remove_tap(tap)
    connect(broker, "pub").publish("r", b"abc", 1, True)
    assert broker.retained("r") == {"r": b"abc"}


def test_a_lost_puback_makes_the_client_send_again_and_the_subscriber_see_double(broker, dial):
    broker.add_tap(LoseAck(filter="t", times=1))
    sub = dial(broker)
    sub.connect("sub")
    sub.subscribe("t", 1)
    pub = dial(broker)
    pub.connect("pub")
    pub.publish("t", b"x", qos=1, mid=5)
    assert pub.ping() == []
    pub.publish("t", b"x", qos=1, mid=5, dup=True)
    assert pub.read() == (0x40, b"\x00\x05")
    packets = sub.ping()
    assert [body[-1:] for _, body in packets] == [b"x", b"x"]
    assert not any(first & 0x08 for first, _ in packets)


def test_a_lost_pubrec_does_not_break_exactly_once(broker, dial):
    broker.add_tap(LoseAck(filter="t", times=1))
    sub = dial(broker)
    sub.connect("sub")
    sub.subscribe("t", 0)
    pub = dial(broker)
    pub.connect("pub")
    pub.publish("t", b"x", qos=2, mid=5)
    assert pub.ping() == []
    pub.publish("t", b"x", qos=2, mid=5, dup=True)
    assert pub.read() == (0x50, b"\x00\x05")
    assert len(sub.ping()) == 1


def test_a_tap_of_ones_own_is_a_function(broker, connect):
    def shout(passing):
        if passing.direction is not Direction.OUTBOUND or passing.message.topic != "t":
            return None
        return [Outcome(passing.message._replace(payload=passing.message.payload.upper()))]

    broker.add_tap(shout)
    sub = connect(broker, "sub")
    sub.subscribe("t", 1)
    connect(broker, "pub").publish("t", b"quiet")
    assert sub.expect(1)[0].payload == b"QUIET"
    broker.clear_taps()
    connect(broker, "pub").publish("t", b"quiet")
    assert sub.expect(2)[1].payload == b"quiet"


def test_taps_follow_one_another():
    chain = TapChain([Double(), Replace(payload=b"y"), Lose(skip=1)])
    passing = Passing(Direction.OUTBOUND, "c", Message("t", b"x"))
    assert [outcome.message.payload for outcome in chain.outcomes(passing)] == [b"y"]


def test_a_fault_by_chance_needs_a_random_source():
    with pytest.raises(ValueError, match="rng"):
        Lose(chance=0.5)


def test_about_as_many_are_hit_as_the_chance_says():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    tap = Lose(chance=0.2, rng=random.Random(seed))
    passing = Passing(Direction.OUTBOUND, "c", Message("t", b""))
    lost = sum(tap(passing) == () for _ in range(10_000))
    assert 1_800 < lost < 2_200  # five standard deviations


# Operations -----------------------------------------------------------------------------------


def test_a_kicked_client_is_told(broker, connect):
    client = connect(broker, "c")
    assert broker.kick("c")
    assert client.wait_disconnected() == 0x98
    assert not broker.kick("c")


def test_a_dropped_client_leaves_its_will(broker, connect):
    watcher = connect(broker, "watcher")
    watcher.subscribe("will", 1)
    connect(broker, "c", will=("will", b"gone"))
    assert broker.drop("c")
    assert watcher.expect(1)[0].payload == b"gone"
    assert broker.connected() == {"watcher"}


def test_all_connections_drop_at_once(broker, connect):
    clients = [connect(broker, f"c{number}") for number in range(3)]
    assert broker.drop_all() == 3
    for client in clients:
        client.wait_disconnected()
    assert broker.connected() == set()


def test_an_erased_retained_message_is_gone_without_a_word(broker, connect):
    client = connect(broker, "c")
    client.subscribe("r", 1)
    client.publish("r", b"x", 1, True)
    assert broker.erase_retained("r")
    assert not broker.erase_retained("r")
    assert client.settle() == [b"x"]
    client.subscribe("r", 1)
    assert client.settle() == [b"x"]


def test_a_frozen_connection_hears_nothing_and_catches_up_when_thawed(broker, connect, dial):
    frozen = dial(broker)
    frozen.connect("frozen")
    frozen.subscribe("t", 1)
    assert broker.freeze("frozen")
    pub = connect(broker, "pub")
    for number in NUMBERS:
        pub.publish("t", number)
    frozen.send(b"\xc0\x00")
    with pytest.raises(TimeoutError):
        frozen.read(wait_s=0.2)
    assert broker.connected() == {"frozen", "pub"}
    assert broker.thaw("frozen")
    assert [frozen.read()[1][-1:] for _ in NUMBERS] == NUMBERS
    assert frozen.read()[0] == 0xD0


def test_a_frozen_client_is_given_up_by_its_keep_alive_but_not_told(broker, connect, dial):
    watcher = connect(broker, "watcher")
    watcher.subscribe("will", 1)
    frozen = dial(broker)
    will = b"\x00\x00\x04will\x00\x04gone"
    frozen.packet(0x10, b"\x00\x04MQTT\x05\x06\x00\x01\x00\x00\x03fro" + will)
    frozen.read()
    broker.freeze("fro")
    assert watcher.expect(1)[0].payload == b"gone"
    with pytest.raises(TimeoutError):
        frozen.read(wait_s=0.2)
    assert "fro" not in broker.connected()


def test_a_frozen_client_may_connect_again(broker, connect):
    first = connect(broker, "c", clean=False, SessionExpiryInterval=100)
    broker.freeze("c")
    second = connect(broker, "c", clean=False, SessionExpiryInterval=100)
    assert second.present
    assert first.disconnected is None
    broker.thaw("c")
    first.wait_disconnected()
