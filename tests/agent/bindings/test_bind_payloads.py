"""What payloads say: samples as the projects document them, JSON Pointer's own examples, junk."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from edge_agent.bindings import pointer
from edge_agent.bindings.filters import check_filter, check_topic, matches, overlap
from edge_agent.bindings.payloads import PAYLOAD_MAX_BYTES, Decoded, Reader, Unread, stamp
from edge_agent.bindings.settings import Input
from edge_agent.bindings.sparkplug import Names
from edge_contract.errors import InputFault


def read(payload: object, topic: str = "t", **source: Any) -> Any:
    """The value that one input finds in one message."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    reader = Reader(msgspec.convert({"topic": topic, **source}, Input), Names(()))
    return reader.read(Decoded(topic, data)).value


# -- RFC 6901 ------------------------------------------------------------------------------------

RFC_DOCUMENT = {
    "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6,
    " ": 7, "m~n": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", RFC_DOCUMENT), ("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1),
        ("/c%d", 2), ("/e^f", 3), ("/g|h", 4), ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8),
    ],
)  # fmt: skip
def test_the_examples_of_rfc_6901_section_5(text: str, found: object) -> None:
    assert pointer.find(RFC_DOCUMENT, pointer.steps(text, dotted=False)) == found


@pytest.mark.parametrize("text", ["/foo/2", "/foo/-", "/foo/00", "/foo/1e0", "/none", "/foo/0/x"])
def test_what_is_not_there_is_absent(text: str) -> None:
    with pytest.raises(pointer.Absent):
        pointer.find(RFC_DOCUMENT, pointer.steps(text, dotted=False))


@pytest.mark.parametrize("text", ["foo", "/a~2b", "/a~"])
def test_what_is_no_pointer_is_said_at_once(text: str) -> None:
    with pytest.raises(InputFault, match="field"):
        pointer.steps(text, dotted=False)


# -- Zigbee2MQTT, Tasmota ------------------------------------------------------------------------

ZIGBEE = {
    "battery": 97.5, "humidity": 41.2, "temperature": 21.37, "linkquality": 131, "contact": False,
    "state": "ON", "voltage": 3005, "color": {"x": 0.701, "y": 0.299}, "update": {"state": "idle"},
    "last_seen": "2026-11-21T10:00:00+01:00", "illuminance": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ({"field": "temperature"}, 21.37),
        ({"field": "contact"}, False),
        ({"field": "contact", "map": {"false": 1, "true": 0}}, 1.0),
        ({"field": "state", "map": {"ON": 1, "OFF": 0}}, 1.0),
        ({"field": "color.x"}, 0.701),
        ({"field": "/color/y"}, 0.299),
        ({"field": "voltage", "scale": 0.001, "offset": 1}, pytest.approx(4.005)),
        ({"field": "illuminance"}, None),
    ],
)
def test_a_state_of_zigbee2mqtt(source: dict[str, Any], value: object) -> None:
    assert read(ZIGBEE, "zigbee2mqtt/door", format="zigbee2mqtt", **source) == value


@pytest.mark.parametrize(
    "topic",
    ["zigbee2mqtt/bridge/state", "zigbee2mqtt/door/availability", "zigbee2mqtt/door/set"],
)
def test_topics_of_zigbee2mqtt_that_are_no_state_are_left_alone(topic: str) -> None:
    with pytest.raises(Unread, match="absent"):
        read({"state": "online"}, topic, format="zigbee2mqtt", field="state")


SENSOR = {
    "Time": "2026-11-21T10:00:00",
    "DS18B20-1": {"Id": "011916A5BCEE", "Temperature": 19.4},
    "AM2301": {"Temperature": 24.6, "Humidity": 58.2, "DewPoint": 15.8},
    "ENERGY": {"Total": 17.2, "Power": [112, 0, 3], "Voltage": 231},
    "TempUnit": "C",
}
STATE = {
    "Time": "2026-11-21T10:00:00", "Uptime": "3T02:10:11", "UptimeSec": 267011, "Heap": 27,
    "POWER": "ON", "Wifi": {"AP": 1, "RSSI": 78, "Signal": -61},
}  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "field", "value"),
    [
        (SENSOR, "AM2301.Humidity", 58.2),
        (SENSOR, "DS18B20-1.Temperature", 19.4),
        (SENSOR, "ENERGY.Power.2", 3.0),
        (STATE, "Wifi.Signal", -61.0),
        (STATE, "POWER", "ON"),
    ],
)
def test_sensor_and_state_of_tasmota(payload: object, field: str, value: object) -> None:
    assert read(payload, "tele/x/SENSOR", format="tasmota", field=field) == value


# -- numbers, text, lists ------------------------------------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_bare_number_is_that_number(value: float) -> None:
    assert read(repr(value).encode(), format="number") == value


@pytest.mark.parametrize("text", [b"nan", b"inf", b"1e999", b"1_0", b"", b"ON", b"0x1f", b"\xb2"])
def test_what_is_no_finite_number_is_unreadable(text: bytes) -> None:
    with pytest.raises(Unread, match="unreadable"):
        read(text, format="number")


def test_text_is_text_until_a_map_says_otherwise() -> None:
    assert read(b"open", format="text") == "open"
    assert read(b"open", format="text", map={"open": 1}) == 1
    assert read({"t": "21.5"}, field="/t") == "21.5", "text never becomes a number by itself"


def test_a_list_is_samples_only_where_a_rate_is_set() -> None:
    assert read({"v": [1, 2.5]}, field="/v", rate_hz=10) == [1.0, 2.5]
    for wrong in ([1, "2"], [], [[1]], [True], [1] * 10_001):
        with pytest.raises(Unread, match="unreadable"):
            read({"v": wrong}, field="/v", rate_hz=10)
    with pytest.raises(Unread, match="unreadable"):
        read({"v": [1, 2]}, field="/v")


def test_a_scaled_value_that_overflows_is_unreadable() -> None:
    with pytest.raises(Unread, match="unreadable"):
        read({"v": 1e300}, field="/v", scale=1e300)
    with pytest.raises(Unread, match="unreadable"):
        read(b'{"v": ' + b"9" * 400 + b"}", field="/v")


def test_a_payload_over_the_bound_is_not_even_parsed() -> None:
    with pytest.raises(Unread, match="oversize"):
        Decoded("t", b" " * (PAYLOAD_MAX_BYTES + 1))


@given(
    st.one_of(
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from("abt"), inner, max_size=3)
            ),
            max_leaves=10,
        ).map(lambda value: json.dumps(value).encode()),
    ),
    st.sampled_from(["json", "number", "text", "zigbee2mqtt", "tasmota", "sparkplug"]),
)
def test_any_payload_gives_a_finite_value_or_is_unread(payload: bytes, kind: str) -> None:
    source = Input(topic="t", format=kind, field="/t" if kind == "json" else "t", rate_hz=1.0)  # type: ignore[arg-type]
    reader = Reader(source, Names({"t"}))
    for topic in ("t", "spBv1.0/g/DDATA/n/d", "spBv1.0/g/NBIRTH/n"):
        try:
            value = reader.read(Decoded(topic, payload)).value
        except Unread:
            continue
        if isinstance(value, float):
            assert math.isfinite(value)


def test_times_are_read_in_seconds_milliseconds_and_iso_8601() -> None:
    moment = 1_795_255_200.0
    assert stamp(int(moment)) == stamp(moment * 1000) == moment
    assert stamp("2026-11-21T10:00:00+00:00") == stamp("2026-11-21T11:00:00+01:00") == moment
    assert stamp("2026-11-21T10:00:00Z") == moment
    for unclear in ("2026-11-21T10:00:00", "yesterday", None, True, [1], 10**400, "9" * 100):
        assert math.isnan(stamp(unclear)), unclear


# -- filters -------------------------------------------------------------------------------------

levels = st.lists(st.sampled_from(["a", "b", "", "+"]), min_size=1, max_size=4)
patterns = st.builds(
    lambda parts, rest: "/".join([*parts, "#"] if rest else parts), levels, st.booleans()
).filter(bool)
topics = (
    st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=5).map("/".join).filter(bool)
)


@given(patterns, topics)
def test_a_filter_matches_as_paho_has_it(pattern: str, topic: str) -> None:
    assert matches(pattern, topic) == topic_matches_sub(pattern, topic)


def test_filters_overlap_where_a_topic_belongs_to_both() -> None:
    """Every pair of filters of up to four levels and ``#``, against every topic of up to six."""
    filters = [
        text for n in range(1, 5) for parts in itertools.product(["a", "b", "", "+"], repeat=n)
        for text in ("/".join(parts), "/".join([*parts, "#"])) if text
    ]  # fmt: skip
    every = [
        topic for n in range(1, 7) for parts in itertools.product(["a", "b", ""], repeat=n)
        if (topic := "/".join(parts))
    ]  # fmt: skip
    theirs = {p: sum(1 << i for i, topic in enumerate(every) if matches(p, topic)) for p in filters}
    wrong = [
        (one, other) for one, other in itertools.combinations_with_replacement(filters, 2)
        if not overlap(one, other) == overlap(other, one) == bool(theirs[one] & theirs[other])
    ]  # fmt: skip
    assert not wrong


def test_wildcards_leave_system_topics_alone() -> None:
    assert not matches("#", "$SYS/broker")
    assert matches("$SYS/#", "$SYS/broker")


@pytest.mark.parametrize("text", ["", "a/#/b", "a#", "a+/b", "+a", "\0", "a" * 600])
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(InputFault, match="filter"):
        check_filter(text)


@pytest.mark.parametrize("text", ["", "a/+", "#", "a\0"])
def test_what_is_no_topic_is_refused(text: str) -> None:
    with pytest.raises(InputFault, match="topic"):
        check_topic(text)
