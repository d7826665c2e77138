"""Names, versions, topics and broker addresses: what passes and what is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import broker_url
from edge_contract.errors import InputFault
from edge_contract.messages import manifest_path, pointer_path
from edge_contract.names import check_name, version_key
from edge_contract.topics import SLASHES_MAX, Address, Topics, shard

TOPICS = Topics("home")
LONG = "x" * 64


def test_no_topic_has_more_than_seven_slashes() -> None:
    digest = "0" * 64
    made = [
        TOPICS.metadata("1.root.json"),
        TOPICS.target(f"models/pump/{digest}.1.0.json"),
        TOPICS.target(f"fleet/home/{digest}.stable.json"),
        TOPICS.chunk(digest),
        TOPICS.requests("pi1", "pump"),
        TOPICS.labels("pi1", "pump"),
        TOPICS.telemetry("pi1"),
        *TOPICS.collector_filters(),
    ]
    assert all(topic.count("/") <= SLASHES_MAX for topic in made)
    assert manifest_path("pump", "1.0") == "models/pump/1.0.json"
    assert pointer_path("home", "stable") == "fleet/home/stable.json"


@pytest.mark.parametrize("kind", ["status", "desired", "reported", "events"])
def test_a_devices_topics_are_read_back(kind: str) -> None:
    topic = getattr(TOPICS, kind)("pi1")
    assert TOPICS.parse(topic).device == "pi1"
    assert topic.startswith("edge/1/home/d/pi1/")


def test_inference_and_telemetry_topics_are_read_back() -> None:
    assert TOPICS.parse(TOPICS.requests("pi1", "pump")) == Address("in", "pi1", "pump")
    assert TOPICS.parse(TOPICS.answers("pi1", "pump")) == Address("out", "pi1", "pump")
    assert TOPICS.parse(TOPICS.labels("pi1", "pump")) == Address("fb", "pi1", "pump")
    assert TOPICS.parse(TOPICS.telemetry("pi1")) == Address("telemetry", "pi1")


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "edge/1/home",
        "edge/1/home/",
        "edge/1/other/d/pi1/status",
        "edge/1/home/d/pi1",
        "edge/1/home/d/pi1/status/more",
        "edge/1/home/d/../status",
        "edge/1/home/d/+/status",
        "edge/1/home/t/00/pi1",
        "edge/1/home/d/pi1/in/a b",
    ],
)
def test_a_topic_of_nobodys_is_refused(topic: str) -> None:
    with pytest.raises(InputFault):
        TOPICS.parse(topic)


def test_shards_spread_devices() -> None:
    shards = {shard(f"device-{i}") for i in range(4000)}
    assert len(shards) == 256


@given(st.text(max_size=80))
def test_a_name_that_passes_is_safe_in_topics_and_paths(text: str) -> None:
    try:
        check_name(text, "device")
    except InputFault:
        return
    assert not set(text) & set("/+#\\\0\n ")
    assert text not in (".", "..")
    assert text.isascii()


@pytest.mark.parametrize(
    "ordered",
    [["1.0a1", "1.0rc1", "1.0", "1.0.1", "1.9", "1.10", "2"], ["2025.1", "2025.11", "2026.1"]],
)
def test_versions_are_ordered_by_number_and_pre_release(ordered: list[str]) -> None:
    for low, high in itertools.combinations(ordered, 2):
        assert version_key(low) < version_key(high)


def test_trailing_zeros_do_not_matter() -> None:
    assert version_key("1.0") == version_key("1.0.0") == version_key("1")


def test_a_broker_url_is_taken_apart() -> None:
    broker = broker_url.parse("mqtts://me:p%40ss@example.org")
    assert (broker.host, broker.port, broker.tls) == ("example.org", 8883, True)
    assert (broker.user, broker.password) == ("me", "p@ss")
    assert "p@ss" not in str(broker) + repr(broker)
    assert str(broker_url.parse("mqtt://[::1]:1999")) == "mqtt://[::1]:1999"


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "http://x", "mqtt://", "mqtt://h:99999", "mqtt://h/topic", "mqtt://h:x"],
)
def test_a_broker_url_that_is_none_is_refused_with_advice(text: str) -> None:
    with pytest.raises(InputFault) as caught:
        broker_url.parse(text)
    assert "mqtt://host" in caught.value.advice
