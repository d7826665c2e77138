"""The embedded broker against hostile peers, its limits, and what only it promises."""

import asyncio
import random
import socket

import pytest

from edge_fleet.broker import (
    Broker,
    BrokerConfig,
    BrokerConfigError,
    BrokerError,
    BrokerThread,
    Right,
    User,
)


@pytest.fixture
def broker():
    with BrokerThread() as running:
        yield running


# Configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", ""])
def test_any_address_but_the_loopback_is_refused(host):
    with pytest.raises(BrokerConfigError, match="loopback only"):
        BrokerConfig(host=host)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_loopback_addresses_are_served(host, connect):
    with BrokerThread(BrokerConfig(host=host)) as running:
        address = running.url.removeprefix("mqtt://").rpartition(":")[0].strip("[]")
        with socket.create_connection((address, running.port), 5):
            pass


def test_all_faults_of_a_configuration_are_told_at_once():
    with pytest.raises(BrokerConfigError) as caught:
        BrokerConfig(port=70_000, max_inflight=0, users={"u": User("", (Right("a#"),))})
    for part in ("port", "max_inflight", "users.u"):
        assert part in str(caught.value)


def test_a_password_is_never_shown():
    assert "secret" not in repr(BrokerConfig(users={"u": User("secret")}))


def test_a_port_in_use_is_an_error_that_says_so(broker):
    second = BrokerThread(BrokerConfig(port=broker.port))
    with pytest.raises(BrokerError, match="cannot listen"):
        second.start()
    second.stop()


def test_a_broker_that_does_not_run_says_so():
    idle = BrokerThread()
    idle.stop()
    with pytest.raises(BrokerError, match="not running"):
        idle.kick("c")


def test_in_asyncio_a_broker_is_a_context():
    async def use():
        async with Broker() as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00")
            answer = await reader.read(2)
            writer.close()
            await writer.wait_closed()
        return answer

    assert asyncio.run(use())[0] == 0x20


# Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "level", "answer"),
    [
        (b"\x00\x04MQTT", 4, b"\x20\x02\x00\x01"),
        (b"\x00\x06MQIsdp", 3, b"\x20\x02\x00\x01"),
        (b"\x00\x04MQTT", 6, b"\x20\x03\x00\x84\x00"),
    ],
)
def test_another_version_is_refused_in_words_that_it_understands(broker, dial, name, level, answer):
    client = dial(broker)
    client.packet(0x10, name + bytes([level]) + b"\x02\x00\x00\x00\x02id")
    [(first, body)] = client.read_end()
    assert bytes([first, len(body)]) + body == answer


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x36\x08\x00\x01t\x00\x01\x00ab", 0x81),
        (b"\x30\x06\x00\x03t/#\x00", 0x90),
        (b"\x30\x05\x00\x02\xc3\x28\x00", 0x81),
        (b"\x30\x03\x00\x09t", 0x81),
        (b"\x82\x03\x00\x01\x00", 0x82),
        (b"\x30\x08\x00\x01t\x04\x01\x00\x01\x00", 0x82),
        (b"\xf0\x00", 0x82),
        (b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x02id", 0x82),
        (b"\x30\x07\x00\x01t\x03\x23\x00\x00", 0x94),
        (b"\xe0\x07\x00\x05\x11\x00\x00\x00\x09", 0x82),
    ],
)
def test_a_broken_packet_is_answered_with_its_reason(broker, dial, data, reason):
    client = dial(broker)
    client.connect("c")
    client.send(data)
    [(first, body)] = client.read_end()
    assert (first, body[0]) == (0xE0, reason)
    assert broker.counters().protocol_errors == 1


def test_receive_maximum_is_enforced_with_its_reason(dial):
    with BrokerThread(BrokerConfig(max_inflight=3)) as running:
        client = dial(running)
        assert b"\x21\x00\x03" in client.connect("c")
        for mid in range(1, 5):
            client.publish("t", qos=2, mid=mid)
        packets = client.read_end()
    assert [first for first, _ in packets] == [0x50, 0x50, 0x50, 0xE0]
    assert packets[-1][1][0] == 0x93


def test_what_a_user_may_not_read_is_refused_in_suback(connect):
    users = {"u": User("p", (Right("mine/#", read=True),))}
    with BrokerThread(BrokerConfig(users=users)) as running:
        client = connect(running, "c", user=("u", "p"))
        assert client.subscribe("mine/+", 1) == 1
        assert client.subscribe("$share/g/mine/+", 1) == 1
        for other in ("other", "#", "+/x", "$share/g/other"):
            assert client.subscribe(other, 1) == 0x87


def test_a_filter_that_is_none_is_refused_and_the_others_are_not(broker, dial):
    client = dial(broker)
    client.connect("c")
    client.packet(0x82, b"\x00\x01\x00\x00\x02a#\x01\x00\x01a\x01\x00\x08$share/g\x01")
    assert client.read() == (0x90, b"\x00\x01\x00\x8f\x01\x8f")


def test_a_refused_publish_of_qos_2_says_so_in_pubrec(dial):
    with BrokerThread(BrokerConfig(users={"u": User("p")}, allow_anonymous=True)) as running:
        client = dial(running)
        client.connect("c")
        client.publish("t", qos=2, mid=3)
        assert client.read() == (0x50, b"\x00\x03\x87")
        client.publish("t", qos=2, mid=3)  # the identifier was never taken
        assert client.read() == (0x50, b"\x00\x03\x87")


def test_a_will_without_the_right_to_write_it_is_refused(connect):
    users = {"u": User("p", (Right("mine", write=True),))}
    with BrokerThread(BrokerConfig(users=users)) as running:
        assert connect(running, "a", user=("u", "p"), will=("other", b"")).reason == 0x87
        assert connect(running, "b", user=("u", "p"), will=("mine", b"")).reason == 0


def test_another_user_cannot_take_over_what_waits_in_a_session(connect):
    right = (Right("#", read=True, write=True),)
    users = {"one": User("1", right), "two": User("2", right)}
    with BrokerThread(BrokerConfig(users=users)) as running:
        keep = {"clean": False, "SessionExpiryInterval": 100}
        connect(running, "c", user=("one", "1"), **keep).subscribe("t", 1)
        connect(running, "p", user=("one", "1")).publish("t", b"secret")
        thief = connect(running, "c", user=("two", "2"), **keep)
        assert not thief.present
        assert thief.settle() == []


# Limits ---------------------------------------------------------------------------------------


def test_a_peer_that_does_not_connect_in_time_is_cut_off(dial, wait_for):
    with BrokerThread(BrokerConfig(connect_timeout_s=0.2)) as running:
        slow = dial(running)
        slow.send(b"\x10\x0d\x00")  # the beginning of a CONNECT
        assert slow.read_end() == []
        assert running.counters().refused == 1


def test_one_byte_at_a_time_is_still_a_client(broker, dial):
    slow = dial(broker)
    for byte in b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x02id\xc0\x00":
        slow.send(bytes([byte]))
    assert [slow.read()[0], slow.read()[0]] == [0x20, 0xD0]


def test_connections_past_the_limit_are_told_so(connect, dial, wait_for):
    with BrokerThread(BrokerConfig(max_connections=2)) as running:
        first, _ = connect(running, "1"), connect(running, "2")
        assert connect(running, "3").reason == 0x97
        first.disconnect()
        wait_for(lambda: connect(running, "4").reason == 0, "room for a connection")


def test_sessions_and_subscriptions_have_limits(connect):
    config = BrokerConfig(max_sessions=2, max_subscriptions=2)
    with BrokerThread(config) as running:
        client = connect(running, "1", SessionExpiryInterval=100)
        assert [client.subscribe(topic, 1) for topic in "abca"] == [1, 1, 0x97, 1]
        connect(running, "2", SessionExpiryInterval=100).disconnect()
        assert connect(running, "3").reason == 0x97


def test_a_retained_message_without_room_is_refused(connect):
    with BrokerThread(BrokerConfig(max_retained_bytes=1000)) as running:
        client = connect(running, "c")
        assert client.publish("a", bytes(2000), 1, True) == 0x97
        assert client.publish("a", bytes(100), 1, True) == 0x10
        assert running.retained() == {"a": bytes(100)}


def test_a_queue_is_bounded_in_bytes_and_counts_what_it_drops(connect):
    with BrokerThread(BrokerConfig(max_queue_bytes=100_000)) as running:
        keep = {"clean": False, "SessionExpiryInterval": 100}
        connect(running, "away", **keep).subscribe("t", 1)
        connect(running, "away", **keep).disconnect()
        pub = connect(running, "pub")
        for number in range(30):
            pub.publish("t", b"%02d" % number + bytes(9_998))
        kept = running.sessions()["away"]
        assert kept == 9
        assert running.counters().dropped == 30 - kept
        again = connect(running, "away", **keep)
        assert [int(m.payload[:2]) for m in again.expect(kept)] == list(range(kept))


def test_thousands_of_small_messages_fit_a_queue_of_the_same_bound(connect):
    with BrokerThread(BrokerConfig(max_queue_bytes=2_000_000)) as running:
        keep = {"clean": False, "SessionExpiryInterval": 100}
        sub = connect(running, "away", **keep)
        sub.subscribe("t", 1)
        sub.disconnect()
        for _ in range(2_500):
            running.publish("t", bytes(500))
        assert running.sessions()["away"] == 2_500
        assert len(connect(running, "away", **keep).expect(2_500, 30)) == 2_500


def test_a_client_that_does_not_read_holds_up_nobody(broker, connect, dial):
    deaf = dial(broker)
    deaf.connect("deaf")
    deaf.subscribe("t", 0)
    sub = connect(broker, "sub")
    sub.subscribe("t", 1)
    pub = connect(broker, "pub")
    for _ in range(150):
        pub.paho.publish("t", bytes(100_000), 1)
    assert len(sub.expect(150, 30)) == 150


# Garbage --------------------------------------------------------------------------------------

WELL_FORMED = [
    b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00",
    b"\x30\x05\x00\x01t\x00x",
    b"\x32\x07\x00\x01t\x00\x01\x00x",
    b"\x34\x07\x00\x01t\x00\x02\x00x",
    b"\x62\x02\x00\x02",
    b"\x82\x07\x00\x01\x00\x00\x01t\x02",
    b"\xa2\x06\x00\x01\x00\x00\x01t",
    b"\x40\x02\x00\x01",
    b"\x50\x02\x00\x01",
    b"\xc0\x00",
    b"\xe0\x00",
]


def test_garbage_harms_nobody_but_its_sender(broker, connect):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    bystander = connect(broker, "bystander")
    bystander.subscribe("calm", 1)
    for _ in range(300):
        stream = bytearray(WELL_FORMED[0])
        for _ in range(rng.randrange(12)):
            stream += rng.choice(WELL_FORMED)
        for _ in range(rng.randrange(4)):
            if not stream:
                break
            at = rng.randrange(len(stream))
            match rng.randrange(3):
                case 0:
                    stream[at] = rng.randrange(256)
                case 1:
                    del stream[at:]
                    stream += rng.randbytes(rng.randrange(40))
                case 2:
                    stream[at:at] = rng.randbytes(rng.randrange(1, 4))
        with socket.create_connection(("127.0.0.1", broker.port), 5) as peer:
            peer.sendall(stream)
    bystander.publish("calm", b"still here")
    assert bystander.expect(1)[0].payload == b"still here"
    assert bystander.disconnected is None
    assert connect(broker, "newcomer").reason == 0


def test_a_huge_length_costs_nothing(broker, dial):
    client = dial(broker)
    client.connect("c")
    client.send(b"\x30\xff\xff\xff\x7f")
    [(first, body)] = client.read_end()
    assert (first, body[0]) == (0xE0, 0x95)


def test_a_topic_of_thousands_of_levels_is_refused(broker, dial):
    client = dial(broker)
    client.connect("c")
    assert client.subscribe("/" * 60_000) == b"\x8f"
    client.publish("/" * 60_000, b"x", retain=True)
    [(first, body)] = client.read_end()
    assert (first, body[0]) == (0xE0, 0x90)
