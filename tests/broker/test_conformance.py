"""What an MQTT 5 broker does, stated once and asked of ours and of a real mosquitto.

paho is the client; a raw socket where paho would never send such a thing.
"""

import re
import struct
import subprocess
import time

import paho.mqtt.client as mqtt
import pytest

from edge_fleet.broker import Right, User, find_mosquitto

NEVER = 0xFFFFFFFF
DUP = 0x08

# What mosquitto 2.0.11 (Debian 12) does not do. Later versions may.
MOSQUITTO_FAILS = {
    "test_a_second_connection_takes_the_session_over_and_the_first_is_told": (
        "the first connection is closed without DISCONNECT 0x8E (§3.1.4)"
    ),
    "test_no_more_than_receive_maximum_are_under_way_to_a_client": (
        "after the first PUBACK up to twice the Receive Maximum are under way (§4.9)"
    ),
    "test_no_local_on_a_shared_subscription_is_a_protocol_error": "it is granted (§3.8.3.1)",
    "test_a_shared_subscription_gets_no_retained_messages": "it gets them (§4.8.2)",
    "test_what_a_leaving_member_has_not_acknowledged_goes_to_another": (
        "it is lost with the member's session (§4.8.2)"
    ),
    "test_a_refused_publish_does_not_end_the_connection": "it does, after its PUBACK (§3.4.2.1)",
    "test_a_client_may_not_send_a_subscription_identifier": "it is forwarded (§3.3.4)",
}


def mosquitto_version() -> str:
    """As the program says."""
    said = subprocess.run([find_mosquitto(), "-h"], capture_output=True, text=True, check=False)
    return re.search(r"version (\S+)", said.stdout).group(1)


@pytest.fixture(autouse=True)
def known_failure(request, broker_kind):
    """Marks what a mosquitto is known to fail; strictly for the version that was examined."""
    reason = MOSQUITTO_FAILS.get(request.node.originalname)
    if broker_kind == "mosquitto" and reason:
        version = mosquitto_version()
        request.applymarker(
            pytest.mark.xfail(strict=version == "2.0.11", reason=f"mosquitto {version}: {reason}")
        )


# Connections and sessions ---------------------------------------------------------------------


def test_a_first_connection_finds_no_session(any_broker, connect):
    client = connect(any_broker, "a", clean=False)
    assert (client.reason, client.present) == (0, False)


def test_a_client_without_an_id_is_given_one_of_its_own(any_broker, connect):
    ids = {connect(any_broker).connack[2].AssignedClientIdentifier for _ in range(2)}
    assert len(ids) == 2
    assert "" not in ids


def test_the_broker_announces_the_packet_size_that_it_takes(start_broker, connect):
    broker = start_broker(max_packet_bytes=5000)
    assert connect(broker, "a").connack[2].MaximumPacketSize == 5000


def test_a_resumed_session_gets_what_was_published_meanwhile_in_order(any_broker, connect):
    sub = connect(any_broker, "sub", clean=False, SessionExpiryInterval=100)
    sub.subscribe("t/#", 2)
    sub.disconnect()
    pub = connect(any_broker, "pub")
    for number in range(20):
        pub.publish("t/x", b"%d" % number, 1 + number % 2)
    again = connect(any_broker, "sub", clean=False, SessionExpiryInterval=100)
    assert again.present
    again.expect(20)
    for qos in (1, 2):
        got = [int(message.payload) for message in again.messages if message.qos == qos]
        assert got == list(range(qos - 1, 20, 2))


def test_qos_0_is_not_kept_for_a_client_that_is_away(any_broker, connect):
    sub = connect(any_broker, "sub", clean=False, SessionExpiryInterval=100)
    sub.subscribe("t", 2)
    sub.disconnect()
    pub = connect(any_broker, "pub")
    pub.publish("t", b"0", 0)
    pub.publish("t", b"1", 1)
    again = connect(any_broker, "sub", clean=False, SessionExpiryInterval=100)
    assert again.settle() == [b"1"]


def test_a_clean_start_begins_a_new_session(any_broker, connect):
    sub = connect(any_broker, "sub", clean=False, SessionExpiryInterval=100)
    sub.subscribe("t", 1)
    sub.disconnect()
    connect(any_broker, "pub").publish("t", b"lost")
    again = connect(any_broker, "sub", clean=True, SessionExpiryInterval=100)
    assert not again.present
    connect(any_broker, "pub").publish("t", b"nobody asked for it any more")
    assert again.settle() == []


def test_without_an_expiry_interval_the_session_ends_with_its_connection(any_broker, connect):
    sub = connect(any_broker, "sub", clean=False)
    sub.subscribe("t", 1)
    sub.disconnect()
    assert not connect(any_broker, "sub", clean=False).present


def test_a_session_ends_when_its_expiry_interval_has_passed(any_broker, connect, wait_for):
    sub = connect(any_broker, "sub", clean=False, SessionExpiryInterval=1)
    sub.subscribe("t", 1)
    sub.disconnect()
    pub = connect(any_broker, "pub")
    # 0x10, no matching subscribers: the session and its subscription are gone.
    wait_for(lambda: pub.publish("t", b"x", 1) == 0x10, "the end of the session")
    assert not connect(any_broker, "sub", clean=False).present


def test_a_session_that_is_resumed_in_time_does_not_end(any_broker, connect, wait_for):
    for name, expiry in (("back", 3), ("away", 4)):
        sub = connect(any_broker, name, clean=False, SessionExpiryInterval=expiry)
        sub.subscribe(f"t/{name}", 1)
        sub.disconnect()
    back = connect(any_broker, "back", clean=False, SessionExpiryInterval=3)
    pub = connect(any_broker, "pub")
    wait_for(lambda: pub.publish("t/away", b"x", 1) == 0x10, "the end of the other session")
    assert pub.publish("t/back", b"x", 1) == 0
    assert back.expect(1)[0].payload == b"x"


def test_a_disconnect_may_change_the_expiry_interval(any_broker, connect):
    sub = connect(any_broker, "sub", clean=False, SessionExpiryInterval=100)
    sub.disconnect(SessionExpiryInterval=0)
    assert not connect(any_broker, "sub", clean=False).present


def test_a_second_connection_takes_the_session_over_and_the_first_is_told(any_broker, connect):
    first = connect(any_broker, "same", clean=False, SessionExpiryInterval=100)
    first.subscribe("t", 1)
    second = connect(any_broker, "same", clean=False, SessionExpiryInterval=100)
    assert first.wait_disconnected() == 0x8E
    assert second.present
    connect(any_broker, "pub").publish("t", b"x")
    assert second.expect(1)[0].payload == b"x"


def test_silence_of_one_and_a_half_keep_alive_times_ends_a_connection(any_broker, connect, dial):
    watcher = connect(any_broker, "watcher")
    watcher.subscribe("will", 1)
    silent = dial(any_broker)
    will = b"\x00\x00\x04will\x00\x04gone"
    began = time.monotonic()
    silent.packet(0x10, b"\x00\x04MQTT\x05\x06\x00\x01\x00\x00\x03sil" + will)
    packets = silent.read_end()
    assert time.monotonic() - began > 1.4  # when a broker looks at its clock is its own affair
    assert [first for first, _ in packets] in ([0x20], [0x20, 0xE0])
    assert watcher.expect(1)[0].payload == b"gone"


def test_pings_keep_a_connection_alive(any_broker, dial, wait_for):
    client = dial(any_broker)
    client.connect(keep_alive=2)
    until = time.monotonic() + 3.4  # longer than it may be silent
    wait_for(lambda: client.ping() == [] and time.monotonic() > until, "the passing of this time")


# Wills ----------------------------------------------------------------------------------------


def test_a_client_that_vanishes_leaves_its_will(any_broker, connect):
    watcher = connect(any_broker, "watcher")
    watcher.subscribe("will", 1)
    given = {"ContentType": "text/plain", "UserProperty": [("a", "b")]}
    connect(any_broker, "c", will=("will", b"gone"), will_qos=1, will_properties=given).vanish()
    message = watcher.expect(1)[0]
    assert (message.payload, message.qos) == (b"gone", 1)
    assert message.properties.ContentType == "text/plain"
    assert message.properties.UserProperty == [("a", "b")]


def test_a_retained_will_is_there_for_those_who_come_later(any_broker, connect, wait_for):
    connect(any_broker, "c", will=("will", b"gone"), will_retain=True).vanish()
    watcher = connect(any_broker, "watcher")
    wait_for(lambda: watcher.subscribe("will", 1) == 1 and watcher.settle(), "the will")
    assert watcher.messages[0].retain


def test_a_disconnect_discards_the_will(any_broker, connect):
    watcher = connect(any_broker, "watcher")
    watcher.subscribe("will", 1)
    connect(any_broker, "c", will=("will", b"gone")).disconnect()
    # Its id connected again means that the broker is done with the disconnect.
    connect(any_broker, "c").disconnect()
    assert watcher.settle() == []


def test_a_disconnect_with_will_publishes_it(any_broker, connect):
    watcher = connect(any_broker, "watcher")
    watcher.subscribe("will", 1)
    connect(any_broker, "c", will=("will", b"gone")).disconnect(0x04)
    assert watcher.expect(1)[0].payload == b"gone"


def test_a_will_waits_for_its_delay(any_broker, connect):
    watcher = connect(any_broker, "watcher")
    watcher.subscribe("will", 1)
    delay = {"WillDelayInterval": 2}
    client = connect(
        any_broker, "c", will=("will", b"gone"), will_properties=delay, SessionExpiryInterval=100
    )
    began = time.monotonic()
    client.vanish()
    watcher.expect(1)
    assert time.monotonic() - began > 0.9


def test_a_client_that_comes_back_in_time_cancels_its_will(any_broker, connect, wait_for):
    watcher = connect(any_broker, "watcher")
    watcher.subscribe("will/#", 1)
    for name, seconds in (("back", 3), ("away", 4)):
        delay = {"WillDelayInterval": seconds}
        connect(
            any_broker,
            name,
            clean=False,
            will=(f"will/{name}", b"gone"),
            will_properties=delay,
            SessionExpiryInterval=100,
        ).vanish()
    assert connect(any_broker, "back", clean=False, SessionExpiryInterval=100).present
    assert [message.topic for message in watcher.expect(1)] == ["will/away"]
    assert len(watcher.settle()) == 1


def test_the_end_of_the_session_ends_the_delay_of_a_will(any_broker, connect):
    watcher = connect(any_broker, "watcher")
    watcher.subscribe("will", 1)
    delay = {"WillDelayInterval": 1000}
    client = connect(
        any_broker, "c", will=("will", b"gone"), will_properties=delay, SessionExpiryInterval=1
    )
    client.vanish()
    assert watcher.expect(1)[0].payload == b"gone"


# Retained messages ----------------------------------------------------------------------------


def test_a_retained_message_meets_later_subscribers_with_its_flag(any_broker, connect):
    early = connect(any_broker, "early")
    early.subscribe("r/#", 1)
    pub = connect(any_broker, "pub")
    pub.publish("r/a", b"old", 1, True)
    pub.publish("r/a", b"new", 1, True)
    late = connect(any_broker, "late")
    late.subscribe("r/+", 1)
    assert [(m.payload, m.retain) for m in late.expect(1)] == [(b"new", True)]
    assert [(m.payload, m.retain) for m in early.expect(2)] == [(b"old", False), (b"new", False)]


def test_retain_as_published_keeps_the_flag_of_live_messages(any_broker, connect):
    sub = connect(any_broker, "sub")
    sub.subscribe("r", 1, as_published=True)
    pub = connect(any_broker, "pub")
    pub.publish("r", b"1", 1, True)
    pub.publish("r", b"2", 1, False)
    assert [message.retain for message in sub.expect(2)] == [True, False]


@pytest.mark.parametrize(("handling", "first", "second"), [(0, 1, 1), (1, 1, 0), (2, 0, 0)])
def test_retain_handling_says_when_retained_messages_come(
    any_broker, connect, handling, first, second
):
    connect(any_broker, "pub").publish("r", b"x", 1, True)
    sub = connect(any_broker, "sub")
    sub.subscribe("r", 1, handling=handling)
    assert len(sub.settle()) == first
    sub.subscribe("r", 1, handling=handling)
    assert len(sub.settle()) == first + second


def test_an_empty_payload_erases_a_retained_message(any_broker, connect):
    pub = connect(any_broker, "pub")
    pub.publish("r", b"x", 1, True)
    pub.publish("r", b"", 1, True)
    sub = connect(any_broker, "sub")
    sub.subscribe("r", 1)
    assert sub.settle() == []


def test_retained_messages_come_in_the_order_of_the_filters_of_one_subscribe(any_broker, dial):
    pub = dial(any_broker)
    pub.connect("pub")
    for topic in ("sentinel", "wanted"):
        pub.publish(topic, topic.encode(), retain=True)
    assert pub.ping() == []
    sub = dial(any_broker)
    sub.connect("sub")
    sub.packet(0x82, b"\x00\x01\x00\x00\x06wanted\x01\x00\x08sentinel\x01")
    packets = sub.ping()
    topics = [body[2 : 2 + body[1]] for first, body in packets if first & 0xF0 == 0x30]
    assert topics == [b"wanted", b"sentinel"]


# Delivery -------------------------------------------------------------------------------------


@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
def test_a_message_comes_with_the_lower_of_both_qos(any_broker, connect, published, granted):
    sub = connect(any_broker, "sub")
    assert sub.subscribe("t", granted) == granted
    connect(any_broker, "pub").publish("t", b"x", published)
    message = sub.expect(1)[0]
    assert (message.payload, message.qos) == (b"x", min(published, granted))
    assert sub.settle() == [b"x"]


def test_messages_of_one_topic_and_qos_stay_in_order(any_broker, connect, dial):
    sub = connect(any_broker, "sub")
    sub.subscribe("t", 2)
    pub = dial(any_broker)  # paho, when its own window is full, may reorder what it publishes
    pub.connect("pub")
    for batch in range(30):
        for number in range(batch * 10, batch * 10 + 10):
            pub.publish("t", b"%d" % number, qos=number % 3, mid=number + 1)
            if number % 3 == 2:
                pub.packet(0x62, struct.pack(">H", number + 1))
        pub.ping()
    sub.expect(300)
    for qos in (0, 1, 2):
        got = [int(message.payload) for message in sub.messages if message.qos == qos]
        assert got == list(range(qos, 300, 3))


def test_a_publish_of_qos_2_sent_twice_is_delivered_once(any_broker, connect, dial):
    sub = connect(any_broker, "sub")
    sub.subscribe("t", 2)
    pub = dial(any_broker)
    pub.connect("pub")
    pub.publish("t", b"x", qos=2, mid=7)
    assert pub.read()[0] == 0x50
    pub.publish("t", b"x", qos=2, mid=7, dup=True)
    assert pub.read()[0] == 0x50
    pub.packet(0x62, b"\x00\x07")
    assert pub.read()[0] == 0x70
    sub.expect(1)
    pub.publish("t", b"y", qos=2, mid=7)  # the identifier is free again
    assert pub.read()[0] == 0x50
    pub.packet(0x62, b"\x00\x07")
    assert pub.read()[0] == 0x70
    sub.expect(2)
    assert sub.settle() == [b"x", b"y"]


def test_a_qos_2_identifier_is_remembered_across_connections(any_broker, connect, dial):
    sub = connect(any_broker, "sub")
    sub.subscribe("t", 2)
    expiry = b"\x11\x00\x00\x00\x64"
    for _ in range(2):
        pub = dial(any_broker)
        pub.connect("pub", clean=False, props=expiry)
        pub.publish("t", b"x", qos=2, mid=7, dup=True)
        assert pub.read()[0] == 0x50
        pub.close()
    pub = dial(any_broker)
    assert pub.connect("pub", clean=False, props=expiry)[0] == 1
    pub.packet(0x62, b"\x00\x07")
    assert pub.read()[0] == 0x70
    sub.expect(1)
    assert sub.settle() == [b"x"]


def test_a_pubrel_for_an_unknown_identifier_is_answered_with_not_found(any_broker, dial):
    client = dial(any_broker)
    client.connect()
    client.packet(0x62, b"\x00\x09")
    first, body = client.read()
    assert first == 0x70
    assert body[:2] == b"\x00\x09"


def test_an_unacknowledged_message_comes_again_marked_as_duplicate(any_broker, connect, dial):
    expiry = b"\x11\x00\x00\x00\x64"
    sub = dial(any_broker)
    sub.connect("sub", clean=False, props=expiry)
    sub.subscribe("t", 1)
    connect(any_broker, "pub").publish("t", b"x")
    first, body = sub.read()
    assert not first & DUP
    sub.close()
    again = dial(any_broker)
    assert again.connect("sub", clean=False, props=expiry)[0] == 1
    repeated, same = again.read()
    assert repeated & DUP
    assert same == body  # same topic, packet identifier and payload


def test_a_released_qos_2_message_is_not_sent_again(any_broker, connect, dial):
    expiry = b"\x11\x00\x00\x00\x64"
    sub = dial(any_broker)
    sub.connect("sub", clean=False, props=expiry)
    sub.subscribe("t", 2)
    connect(any_broker, "pub").publish("t", b"x", 2)
    _, body = sub.read()
    mid = body[3:5]
    sub.packet(0x50, mid)
    assert sub.read() == (0x62, mid)
    sub.close()
    again = dial(any_broker)
    again.connect("sub", clean=False, props=expiry)
    assert again.read() == (0x62, mid)
    again.packet(0x70, mid)
    assert again.ping() == []


def test_no_more_than_receive_maximum_are_under_way_to_a_client(any_broker, connect):
    sub = connect(any_broker, "sub", manual_ack=True, ReceiveMaximum=3)
    sub.subscribe("t", 1)
    pub = connect(any_broker, "pub")
    for number in range(10):
        pub.publish("t", b"%d" % number)
    assert sub.settle() == [b"0", b"1", b"2"]
    sub.ack(sub.messages[0])
    sub.expect(4)
    assert sub.settle() == [b"0", b"1", b"2", b"3"]


def test_a_packet_larger_than_the_client_takes_is_not_sent(any_broker, connect):
    sub = connect(any_broker, "sub", MaximumPacketSize=300)
    sub.subscribe("t", 2)
    pub = connect(any_broker, "pub")
    for qos in (0, 1, 2):
        pub.publish("t", bytes(400), qos)
        pub.publish("t", b"small", qos)
    assert sub.settle() == [b"small"] * 3


def test_a_packet_larger_than_the_broker_takes_ends_the_connection(start_broker, connect, dial):
    broker = start_broker(max_packet_bytes=5000)
    other = connect(broker, "other")
    other.subscribe("t", 1)
    client = dial(broker)
    client.connect("big")
    client.publish("t", bytes(6000))
    packets = client.read_end()
    assert [(first, body[0]) for first, body in packets] == [(0xE0, 0x95)]
    assert other.settle() == []


def test_more_qos_2_messages_than_receive_maximum_end_the_connection(any_broker, dial):
    client = dial(any_broker)
    connack = client.connect()
    at = connack.find(b"\x21", 3)  # the first property of both brokers' answers may be another
    maximum = struct.unpack(">H", connack[at + 1 : at + 3])[0] if at > 0 else 65535
    for mid in range(1, maximum + 2):
        client.publish("t", qos=2, mid=mid)
    packets = client.read_end()
    assert len([first for first, _ in packets if first == 0x50]) >= maximum
    assert all(body[0] == 0x93 for first, body in packets if first == 0xE0)


# Subscriptions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic_filter", "hits"),
    [
        ("#", ["a", "a/b", "a/b/c", "/a"]),
        ("+", ["a"]),
        ("a/#", ["a", "a/b", "a/b/c"]),
        ("a/+", ["a/b"]),
        ("a/+/c", ["a/b/c"]),
        ("/+", ["/a"]),
        ("+/+", ["a/b", "/a"]),
        ("$x/#", ["$x/a"]),
        ("A", []),
    ],
)
def test_filters_match_as_in_the_standard(any_broker, connect, topic_filter, hits):
    sub = connect(any_broker, "sub")
    sub.subscribe(topic_filter, 0)
    pub = connect(any_broker, "pub")
    for topic in ("a", "a/b", "a/b/c", "/a", "$x/a"):
        pub.publish(topic, b"", 1)
    sub.settle()
    assert [m.topic for m in sub.messages if not m.topic.startswith("settled")] == hits


def test_subscription_identifiers_say_which_subscription_a_message_is_for(any_broker, connect):
    sub = connect(any_broker, "sub")
    sub.subscribe("t/a", 1, SubscriptionIdentifier=1)
    sub.subscribe("t/b", 1, SubscriptionIdentifier=268_435_455)
    pub = connect(any_broker, "pub")
    pub.publish("t/a")
    pub.publish("t/b")
    found = {m.topic: m.properties.SubscriptionIdentifier for m in sub.expect(2)}
    assert found == {"t/a": [1], "t/b": [268_435_455]}


def test_overlapping_subscriptions_give_all_identifiers_and_the_highest_qos(any_broker, connect):
    sub = connect(any_broker, "sub")
    sub.subscribe("t/#", 0, SubscriptionIdentifier=1)
    sub.subscribe("t/+", 2, SubscriptionIdentifier=2)
    connect(any_broker, "pub").publish("t/x", b"x", 2)
    sub.expect(1)
    sub.settle()
    ids = [i for message in sub.messages for i in message.properties.SubscriptionIdentifier]
    assert sorted(ids) == [1, 2]
    assert max(message.qos for message in sub.messages) == 2


def test_retained_messages_carry_the_subscription_identifier(any_broker, connect):
    connect(any_broker, "pub").publish("r", b"x", 1, True)
    sub = connect(any_broker, "sub")
    sub.subscribe("r", 1, SubscriptionIdentifier=9)
    assert sub.expect(1)[0].properties.SubscriptionIdentifier == [9]


def test_no_local_keeps_a_client_from_its_own_messages(any_broker, connect):
    both = connect(any_broker, "both")
    both.subscribe("t", 1, no_local=True)
    both.publish("t", b"own")
    connect(any_broker, "pub").publish("t", b"foreign")
    both.expect(1)
    assert both.settle() == [b"foreign"]


def test_no_local_on_a_shared_subscription_is_a_protocol_error(any_broker, dial):
    client = dial(any_broker)
    client.connect()
    client.packet(0x82, b"\x00\x01\x00\x00\x0a$share/g/t\x04")
    first, body = client.read()
    assert (first, body[0]) == (0xE0, 0x82)


def test_a_shared_subscription_gives_each_message_to_one_member(any_broker, connect, wait_for):
    members = [connect(any_broker, f"m{number}") for number in range(2)]
    for member in members:
        member.subscribe("$share/g/t/#", 1)
    whole = connect(any_broker, "whole")
    whole.subscribe("t/#", 1)
    pub = connect(any_broker, "pub")
    for number in range(20):
        pub.publish("t/x", b"%d" % number)
    whole.expect(20)
    shares = [member.settle() for member in members]
    assert sorted(shares[0] + shares[1]) == sorted(whole.payloads)
    assert all(shares)


def test_a_shared_subscription_gets_no_retained_messages(any_broker, connect):
    connect(any_broker, "pub").publish("t", b"x", 1, True)
    member = connect(any_broker, "m")
    member.subscribe("$share/g/t", 1)
    assert member.settle() == []


def test_what_a_leaving_member_has_not_acknowledged_goes_to_another(any_broker, connect):
    leaving = connect(any_broker, "leaving", manual_ack=True)
    leaving.subscribe("$share/g/t", 1)
    pub = connect(any_broker, "pub")
    for number in range(5):
        pub.publish("t", b"%d" % number)
    leaving.expect(5)
    staying = connect(any_broker, "staying")
    staying.subscribe("$share/g/t", 1)
    leaving.vanish()
    got = staying.expect(5)
    assert sorted(message.payload for message in got) == [
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
    ]


def test_unsubscribe_ends_delivery_and_says_when_there_was_nothing_to_end(any_broker, connect):
    sub = connect(any_broker, "sub")
    sub.subscribe("t", 1)
    assert sub.unsubscribe("t") == 0
    assert sub.unsubscribe("t") == 0x11
    connect(any_broker, "pub").publish("t", b"x")
    assert sub.settle() == []


# Properties of messages -----------------------------------------------------------------------


def test_properties_of_a_message_arrive_unaltered_and_in_order(any_broker, connect):
    sub = connect(any_broker, "sub")
    sub.subscribe("t", 1)
    pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("", "ü")]
    connect(any_broker, "pub").publish(
        "t",
        b"{}",
        1,
        PayloadFormatIndicator=1,
        ContentType="application/json",
        UserProperty=pairs,
    )
    found = sub.expect(1)[0].properties
    assert found.UserProperty == pairs
    assert (found.PayloadFormatIndicator, found.ContentType) == (1, "application/json")


def test_a_request_finds_its_response(any_broker, connect):
    server = connect(any_broker, "server")
    server.subscribe("ask", 1)
    asker = connect(any_broker, "asker")
    asker.subscribe("answers/asker", 1)
    asker.publish("ask", b"2+2", 1, ResponseTopic="answers/asker", CorrelationData=b"\x00\xff")
    request = server.expect(1)[0].properties
    server.publish(request.ResponseTopic, b"4", 1, CorrelationData=request.CorrelationData)
    answer = asker.expect(1)[0]
    assert (answer.payload, answer.properties.CorrelationData) == (b"4", b"\x00\xff")


def test_an_expired_message_is_not_sent_and_another_says_what_is_left(any_broker, connect):
    sub = connect(any_broker, "sub", clean=False, SessionExpiryInterval=100)
    sub.subscribe("t", 1)
    sub.disconnect()
    pub = connect(any_broker, "pub")
    published = time.monotonic()
    pub.publish("t", b"long", 1, MessageExpiryInterval=100)
    pub.publish("t", b"none", 1)
    pub.publish("t", b"short", 1, MessageExpiryInterval=1)
    pub.publish("r", b"short", 1, True, MessageExpiryInterval=1)
    while time.monotonic() < published + 2.1:  # the passing of this time is the subject
        pub.settle()
    again = connect(any_broker, "sub", clean=False, SessionExpiryInterval=100)
    again.expect(2)
    again.subscribe("r", 1)
    assert again.settle() == [b"long", b"none"]
    assert 40 <= again.messages[0].properties.MessageExpiryInterval <= 98
    assert not hasattr(again.messages[1].properties, "MessageExpiryInterval")


def test_a_topic_alias_stands_for_its_topic(any_broker, connect, dial):
    sub = connect(any_broker, "sub")
    sub.subscribe("long/#", 1)
    pub = dial(any_broker)
    pub.connect("pub")
    pub.publish("long/a", b"1", props=b"\x23\x00\x01")
    pub.publish("", b"2", props=b"\x23\x00\x01")
    pub.publish("long/b", b"3", props=b"\x23\x00\x01")
    pub.publish("", b"4", props=b"\x23\x00\x01")
    found = [(m.topic, m.payload) for m in sub.expect(4)]
    assert found == [("long/a", b"1"), ("long/a", b"2"), ("long/b", b"3"), ("long/b", b"4")]


@pytest.mark.parametrize(
    ("topic", "alias", "reasons"),
    [
        ("t", 0, {0x81, 0x82, 0x94}),
        ("t", 65535, {0x94}),
        ("", 3, {0x82, 0x94}),
    ],
)
def test_a_wrong_topic_alias_ends_the_connection(any_broker, dial, topic, alias, reasons):
    client = dial(any_broker)
    client.connect()
    client.publish(topic, b"x", props=b"\x23" + struct.pack(">H", alias))
    packets = client.read_end()
    assert [first for first, _ in packets] == [0xE0]
    assert packets[0][1][0] in reasons


def test_a_publish_without_subscribers_says_so(any_broker, connect):
    client = connect(any_broker, "c")
    assert client.publish("nobody", b"", 1) == 0x10
    client.subscribe("t", 0)
    assert client.publish("t", b"", 1) == 0


# Rights ---------------------------------------------------------------------------------------

USERS = {
    "device": User("secret", (Right("d/%u/#", read=True, write=True), Right("all/+", read=True))),
    "fleet": User("topsecret", (Right("#", read=True, write=True),)),
}
DEVICE, FLEET = ("device", "secret"), ("fleet", "topsecret")


@pytest.mark.parametrize("user", [None, ("device", "wrong"), ("nobody", "secret")])
def test_a_stranger_is_refused(start_broker, connect, user):
    broker = start_broker(users=USERS)
    assert connect(broker, "c", user=user).reason in {0x86, 0x87}
    assert connect(broker, "d", user=DEVICE).reason == 0


def test_a_user_writes_where_it_may_and_is_told_where_not(start_broker, connect):
    broker = start_broker(users=USERS)
    watcher = connect(broker, "fleet", user=FLEET)
    watcher.subscribe("#", 2)
    for topic, reason in (("d/device/x", 0), ("d/other/x", 0x87), ("all/x", 0x87)):
        device = connect(broker, "device", user=DEVICE)
        assert device.publish(topic, topic.encode(), 1) == reason
    assert watcher.settle() == [b"d/device/x"]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_refused_publish_does_not_end_the_connection(start_broker, connect, qos):
    broker = start_broker(users=USERS)
    device = connect(broker, "device", user=DEVICE)
    device.publish("all/x", b"forged", qos)
    assert device.subscribe("d/device/#", 1) == 1
    device.publish("d/device/x", b"mine", 2)
    assert device.expect(1)[0].payload == b"mine"


def test_a_user_reads_nothing_that_it_may_not(start_broker, connect, wait_for):
    broker = start_broker(users=USERS)
    fleet = connect(broker, "fleet", user=FLEET)
    fleet.publish("d/other/secret", b"old", 1, True)
    device = connect(broker, "device", user=DEVICE)
    for topic in ("d/other/secret", "#", "d/+/secret"):
        device.subscribe(topic, 1)  # mosquitto grants it, and delivers nothing
    assert device.subscribe("d/device/#", 1) == 1
    fleet.publish("d/other/secret", b"new", 1)
    fleet.publish("d/device/secret", b"mine", 1)
    fleet.publish("d/device/secret", b"last", 1)
    wait_for(lambda: b"last" in device.payloads, "the last message")
    assert set(device.payloads) == {b"mine", b"last"}


# Restart --------------------------------------------------------------------------------------


def test_retained_messages_survive_a_restart(any_broker, connect):
    pub = connect(any_broker, "pub")
    pub.publish("r/a", b"kept", 1, True, UserProperty=[("a", "b")], MessageExpiryInterval=100)
    pub.publish("r/b", b"", 1, True)
    any_broker.restart()
    sub = connect(any_broker, "sub")
    sub.subscribe("r/#", 1)
    message = sub.expect(1)[0]
    assert (message.payload, message.retain) == (b"kept", True)
    assert message.properties.UserProperty == [("a", "b")]
    assert 90 <= message.properties.MessageExpiryInterval <= 100


def test_sessions_survive_a_restart_with_all_that_waits_in_them(any_broker, connect):
    sub = connect(any_broker, "sub", clean=False, SessionExpiryInterval=NEVER, manual_ack=True)
    sub.subscribe("t/#", 2, SubscriptionIdentifier=7)
    pub = connect(any_broker, "pub")
    pub.publish("t/a", b"unacknowledged", 1)
    sub.expect(1)
    sub.vanish()
    pub.publish("t/b", b"waiting 1", 1, UserProperty=[("a", "b")])
    pub.publish("t/c", b"waiting 2", 2)
    any_broker.restart()
    again = connect(any_broker, "sub", clean=False, SessionExpiryInterval=NEVER)
    assert again.present
    first, second, third = again.expect(3)
    assert (first.payload, first.qos, first.dup) == (b"unacknowledged", 1, True)
    assert (second.payload, second.properties.UserProperty) == (b"waiting 1", [("a", "b")])
    assert (third.payload, third.qos) == (b"waiting 2", 2)
    assert first.properties.SubscriptionIdentifier == [7]
    connect(any_broker, "pub").publish("t/d", b"live", 1)
    assert again.expect(4)[3].payload == b"live"


def test_clients_are_told_when_the_broker_stops_and_find_it_on_the_same_port(any_broker, connect):
    client = connect(any_broker, "c")
    port = any_broker.port
    any_broker.restart()
    assert client.wait_disconnected() in {0x8B, mqtt.MQTT_ERR_CONN_LOST, 0x80}
    assert any_broker.port == port
    assert connect(any_broker, "c").reason == 0


# Malformed packets ----------------------------------------------------------------------------


def test_a_client_may_not_send_a_subscription_identifier(any_broker, dial):
    client = dial(any_broker)
    client.connect()
    client.publish("t", b"x", props=b"\x0b\x01")
    client.send(b"\xc0\x00")
    first, body = client.read()
    assert (first, body[0]) == (0xE0, 0x82)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("reserved type 0", b"\x00\x00"),
        ("a second CONNECT", b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x02id"),
        ("CONNACK from a client", b"\x20\x03\x00\x00\x00"),
        ("QoS 3", b"\x36\x08\x00\x01t\x00\x01\x00ab"),
        ("a topic with a wildcard", b"\x30\x06\x00\x03t/#\x00"),
        ("a topic that is not UTF-8", b"\x30\x05\x00\x02\xc3\x28\x00"),
        ("a topic cut off", b"\x30\x03\x00\x09t"),
        ("packet identifier 0", b"\x32\x06\x00\x01t\x00\x00\x00"),
        ("SUBSCRIBE without a filter", b"\x82\x03\x00\x01\x00"),
        ("SUBSCRIBE with wrong flags", b"\x80\x07\x00\x01\x00\x00\x01t\x00"),
        ("reserved subscription options", b"\x82\x07\x00\x01\x00\x00\x01t\xc0"),
        ("a remaining length of five bytes", b"\x30\xff\xff\xff\xff\x01"),
        ("a property that does not exist", b"\x30\x06\x00\x01t\x02\x7f\x00"),
        ("a property twice", b"\x30\x08\x00\x01t\x04\x01\x00\x01\x00"),
        ("a CONNECT property in PUBLISH", b"\x30\x07\x00\x01t\x03\x21\x00\x01"),
    ],
)
def test_a_malformed_packet_ends_its_connection_and_no_other(any_broker, connect, dial, name, data):
    other = connect(any_broker, "other")
    other.subscribe("t/#", 1)
    client = dial(any_broker)
    client.connect("id")
    client.send(data)
    packets = client.read_end()
    assert all(first == 0xE0 and body[0] >= 0x80 for first, body in packets), name
    other.publish("t/x", b"still here")
    assert other.settle() == [b"still here"]
