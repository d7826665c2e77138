"""Bytes to packets and back: every packet, every cut, and garbage; one error may escape."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_fleet.broker import packets as p
from edge_fleet.broker.decode import decode
from edge_fleet.broker.encode import encode
from edge_fleet.broker.errors import ProtocolError, UnsupportedVersion
from edge_fleet.broker.framing import Framer
from edge_fleet.broker.properties import EMPTY, PacketType, Properties
from edge_fleet.broker.reasons import ReasonCode
from edge_fleet.broker.wire import VARINT_MAX, read_varint, write_varint

MESSAGE = Properties(
    payload_format=1,
    message_expiry=60,
    content_type="application/json",
    response_topic="answers/here",
    correlation_data=b"\x00\xff",
    user_properties=(("a", "1"), ("a", "2"), ("", "ü")),
)
SOME = Properties(reason_string="because", user_properties=(("k", "v"),))

# One of each kind, with and without its optional parts.
PACKETS = [
    p.Connect("id"),
    p.Connect(
        "",
        False,
        60,
        "user",
        b"\x00secret",
        p.Will("w/t", b"gone", 2, True, MESSAGE._replace(will_delay=30)),
        Properties(
            session_expiry=0xFFFFFFFF,
            receive_maximum=8,
            maximum_packet_size=1 << 20,
            topic_alias_maximum=3,
            request_problem_info=0,
            request_response_info=1,
            auth_method="SCRAM",
            auth_data=b"x",
        ),
    ),
    p.Connack(True, 0, Properties(assigned_client_id="a", server_keep_alive=9, maximum_qos=1)),
    p.Connack(False, 0x87),
    p.Publish("t", b""),
    p.Publish("a/ü", bytes(300), 1, True, True, 65535, MESSAGE),
    p.Publish("t", b"x", 2, False, False, 1, MESSAGE._replace(subscription_ids=(1, 128, 16384))),
    p.Publish("", b"x", 0, False, False, 0, Properties(topic_alias=5)),
    *(
        kind(7, reason, props)
        for kind, reason, props in itertools.product(
            (p.Puback, p.Pubrec, p.Pubrel, p.Pubcomp), (0, 0x92), (EMPTY, SOME)
        )
    ),
    p.Subscribe(1, (p.Request("a/#", 2, True, True, 2), p.Request("$share/g/b", 1))),
    p.Subscribe(2, (p.Request("a"),), Properties(subscription_ids=(268_435_455,))),
    p.Suback(1, (0, 1, 2, 0x87)),
    p.Unsubscribe(3, ("a", "b/+")),
    p.Unsuback(3, (0, 0x11), SOME),
    p.Pingreq(),
    p.Pingresp(),
    p.Disconnect(),
    p.Disconnect(0x8E, SOME),
    p.Auth(0x18, Properties(auth_method="SCRAM", auth_data=b"x")),
]
NAMES = [f"{number}-{type(packet).__name__}" for number, packet in enumerate(PACKETS)]


def frames(data, cut=None):
    """What a framer makes of `data`, fed in pieces of `cut` bytes."""
    framer = Framer(1 << 20)
    pieces = [data] if cut is None else [data[at : at + cut] for at in range(0, len(data), cut)]
    return [frame for piece in pieces for frame in framer.feed(piece)]


@pytest.mark.parametrize("packet", PACKETS, ids=NAMES)
def test_a_packet_survives_the_way_there_and_back(packet):
    [(first, body)] = frames(encode(packet))
    back = decode(first, body)
    assert type(back) is type(packet)
    assert back == packet


@pytest.mark.parametrize("packet", PACKETS, ids=NAMES)
def test_a_body_cut_anywhere_is_refused_or_is_another_whole_packet(packet):
    [(first, body)] = frames(encode(packet))
    for length in range(len(body)):
        try:
            shorter = decode(first, body[:length])
        except ProtocolError:
            continue
        # What parses must say exactly what its bytes say: a shorter payload, list or short form.
        [(_, again)] = frames(encode(shorter))
        assert decode(first, again) == shorter
        assert not isinstance(shorter, p.Connect | p.Connack | p.Pingreq | p.Pingresp)


@pytest.mark.parametrize("packet", PACKETS, ids=NAMES)
def test_a_body_with_any_bit_turned_raises_nothing_but_the_declared_error(packet):
    [(first, body)] = frames(encode(packet))
    for bit in range(min(len(body), 200) * 8):
        turned = bytearray(body)
        turned[bit // 8] ^= 1 << bit % 8
        try:
            decode(first, bytes(turned))
        except ProtocolError as error:
            assert error.reason >= 0x80


def test_a_stream_cut_anywhere_gives_the_same_packets():
    stream = b"".join(map(encode, PACKETS))
    whole = frames(stream)
    assert len(whole) == len(PACKETS)
    for cut in (1, 2, 3, 7, 64):
        assert frames(stream, cut) == whole


@settings(max_examples=400)
@given(st.binary(max_size=200), st.integers(1, 50))
def test_garbage_raises_nothing_but_the_declared_error(data, cut):
    try:
        for first, body in frames(data, cut):
            decode(first, body)
    except ProtocolError:
        pass


@settings(max_examples=600)
@given(st.sampled_from([0x10, 0x20, 0x30, 0x32, 0x35, 0x82, 0xA2, 0x40, 0xE0, 0xF0]), st.binary())
def test_a_garbage_body_raises_nothing_but_the_declared_error(first, body):
    try:
        packet = decode(first, body)
    except ProtocolError:
        return
    [(_, again)] = frames(encode(packet))
    assert decode(encode(packet)[0], again) == packet


def test_a_packet_past_the_limit_is_refused_by_its_length_alone():
    framer = Framer(1000)
    with pytest.raises(ProtocolError) as caught:
        list(framer.feed(b"\x30" + write_varint(2000)))
    assert caught.value.reason == ReasonCode.PACKET_TOO_LARGE


def test_packets_before_a_bad_length_still_come():
    framer = Framer(1000)
    seen = []
    with pytest.raises(ProtocolError):
        seen.extend(framer.feed(b"\xc0\x00"))
        for frame in framer.feed(b"\xc0\x00\x30\xff\xff\xff\xff\x7f"):
            seen.append(frame)
    assert seen == [(0xC0, b"")] * 2


@pytest.mark.parametrize("value", [0, 127, 128, 16383, 16384, 2097151, 2097152, VARINT_MAX])
def test_variable_byte_integers_are_those_of_the_standard(value):
    written = write_varint(value)
    assert read_varint(written, 0) == (value, len(written))
    assert len(written) == 1 + sum(value >= 128**power for power in (1, 2, 3))


@pytest.mark.parametrize("raw", [b"\x80\x00", b"\xff\xff\xff\xff\x01", b"\x80\x80\x80\x80"])
def test_variable_byte_integers_that_are_too_long_are_refused(raw):
    with pytest.raises(ProtocolError):
        read_varint(raw, 0)


@pytest.mark.parametrize(("name", "level"), [(b"\x00\x04MQTT", 4), (b"\x00\x06MQIsdp", 3)])
def test_an_older_version_is_named(name, level):
    with pytest.raises(UnsupportedVersion) as caught:
        decode(0x10, name + bytes([level]) + b"\x02\x00\x00\x00\x02id")
    assert caught.value.level == level
    assert caught.value.reason == ReasonCode.UNSUPPORTED_PROTOCOL_VERSION


@pytest.mark.parametrize(
    ("kind", "props"),
    [
        (PacketType.PUBLISH, b"\x21\x00\x01"),  # Receive Maximum belongs in CONNECT
        (PacketType.PUBLISH, b"\x01\x02"),  # payload format 2
        (PacketType.PUBLISH, b"\x0b\x00"),  # subscription identifier 0
        (PacketType.PUBLISH, b"\x23\x00\x00"),  # alias 0
        (PacketType.PUBLISH, b"\x08\x00\x03a/#"),  # a response topic with a wildcard
        (PacketType.PUBLISH, b"\x03\x00\x01\xff"),  # content type that is not UTF-8
        (PacketType.PUBLISH, b"\x03\x00\x01\x00"),  # U+0000
        (PacketType.PUBLISH, b"\x03\x00\x03\xed\xa0\x80"),  # a surrogate
        (PacketType.PUBLISH, b"\x26\x00\x01a"),  # a name without its value
        (PacketType.PUBLISH, b"\x04\x00"),  # no such property
    ],
)
def test_a_property_that_the_standard_forbids_is_refused(kind, props):
    body = b"\x00\x01t" + bytes([len(props)]) + props
    with pytest.raises(ProtocolError):
        decode(kind << 4, body)


@pytest.mark.parametrize(
    "body",
    [
        b"\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x00",  # reserved flag
        b"\x00\x04MQTT\x05\x1e\x00\x00\x00\x00\x00\x00\x00\x01w\x00\x00",  # will of QoS 3
        b"\x00\x04MQTT\x05\x22\x00\x00\x00\x00\x00",  # will retain without a will
        b"\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x00\x00\x00",  # Receive Maximum 0
        b"\x00\x04MQTT\x05\x02\x00\x00\x04\x16\x00\x01x\x00\x00",  # data without a method
        b"\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00more",
        b"\x00\x04HTTP\x05\x02\x00\x00\x00\x00\x00",
    ],
)
def test_a_connect_that_the_standard_forbids_is_refused(body):
    with pytest.raises(ProtocolError):
        decode(0x10, body)
