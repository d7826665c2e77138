"""The one rule at the MQTT door: message expiry, turns by model, bounded values."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from edge_agent import Model
from edge_agent.doors.mqtt import DoorCounts, MqttDoor
from edge_agent.live import Live
from edge_agent.overload import Rules
from edge_contract import broker_url, messages
from edge_contract import bundle as bundles
from edge_contract.messages import Answer
from edge_contract.ports.mqtt import Link, LinkConfig, Message, Ticket
from edge_contract.topics import Topics

TOPICS = Topics("home")
ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}
BODY = json.dumps(ROW).encode()
WAIT_S = 60.0


def until(ready: Callable[[], bool], what: str) -> None:
    end, pause = time.monotonic() + WAIT_S, threading.Event()
    while not ready():
        assert time.monotonic() < end, what
        pause.wait(0.005)


class Wire:
    """Keeps what was published, by correlation."""

    peer_packet_max_bytes = None

    def __init__(self) -> None:
        self.sent: dict[bytes, Answer] = {}

    def publish(self, _topic, payload, *, qos=1, expiry_s=None, content_type="", correlation=b""):
        assert correlation not in self.sent, "one answer each"
        self.sent[correlation] = messages.decode(payload, Answer)
        return Ticket("an answer")


class Held(Live):
    """A seat whose requests wait until they are let go; it counts those that got in."""

    def __init__(self, name: str, model: Model) -> None:
        super().__init__(name, model)
        self.go, self.begun, self.entered = threading.Event(), threading.Event(), 0

    @contextmanager
    def use(self, *which: str) -> Iterator[Model]:
        self.entered += 1
        self.begun.set()
        assert self.go.wait(WAIT_S)
        with super().use(*which) as model:
            yield model


@pytest.fixture
def pump(tiny_bundle) -> Model:
    return Model.from_bundle(bundles.read(tiny_bundle()))


def request(model: str, correlation: str, expiry_s: int | None = None) -> Message:
    topic = TOPICS.requests("pi-1", model)
    return Message(topic, BODY, correlation=correlation.encode(), expiry_s=expiry_s)


def test_what_expired_while_it_waited_is_not_computed(pump) -> None:
    wire, slow = Wire(), Held("slow", pump)
    clock = [0.0]
    door = MqttDoor(wire, TOPICS, "pi-1", {"slow": slow}, now_s=lambda: clock[0])
    door.handle(request("slow", "first"))
    assert slow.begun.wait(WAIT_S)
    for name, expiry_s in (("late", 1), ("patient", 600), ("any", None)):
        door.handle(request("slow", name, expiry_s))
    clock[0] = 1.5
    slow.go.set()
    until(lambda: len(wire.sent) == 4, "answers to all")
    assert "time was up" in wire.sent[b"late"].error.what
    assert all(wire.sent[name].predictions for name in (b"first", b"patient", b"any"))
    assert (slow.entered, door.counts) == (3, DoorCounts(answered=3, late=1))
    door.stop()


def test_a_model_that_takes_long_holds_up_no_other(pump) -> None:
    wire, slow = Wire(), Held("slow", pump)
    rules = Rules(waiting_max=4)
    door = MqttDoor(wire, TOPICS, "pi-1", {"slow": slow, "quick": Live("quick", pump)}, rules=rules)
    door.handle(request("slow", "s0"))
    assert slow.begun.wait(WAIT_S)
    for number in range(1, 9):
        door.handle(request("slow", f"s{number}"))
    assert sorted(wire.sent) == [b"s5", b"s6", b"s7", b"s8"], "the newest of many"
    for number in range(5):
        door.handle(request("quick", f"q{number}"))
        until(lambda: f"q{number}".encode() in wire.sent, "the quick one's answer")  # noqa: B023
        assert wire.sent[f"q{number}".encode()].predictions
    slow.go.set()
    until(lambda: len(wire.sent) == 14, "answers to all")
    door.stop()
    assert all(wire.sent[f"s{number}".encode()].predictions for number in range(4))


def test_more_values_than_allowed_are_refused(pump) -> None:
    wire = Wire()
    door = MqttDoor(wire, TOPICS, "pi-1", {"pump": Live("pump", pump)}, rules=Rules(values_max=7))
    body = json.dumps({"rows": [ROW] * 2}).encode()
    door.handle(Message(TOPICS.requests("pi-1", "pump"), body, correlation=b"many"))
    door.handle(request("pump", "one"))
    until(lambda: len(wire.sent) == 2, "answers")
    assert "8 values in one request, 7 are the limit" in wire.sent[b"many"].error.what
    assert wire.sent[b"one"].predictions
    door.stop()


def test_what_a_broker_left_of_the_expiry_interval_arrives() -> None:
    from edge_fleet.broker import BrokerThread

    got: list[Message] = []
    with BrokerThread() as broker:
        url = broker_url.parse(broker.url)
        device = Link(LinkConfig(url, "pi-1"), on_message=got.append)
        client = Link(LinkConfig(url, "app"))
        device.start(60)
        device.subscribe(["in"]).wait(60)
        client.start(60)
        client.publish("in", b"", expiry_s=600)
        client.publish("in", b"")
        until(lambda: len(got) == 2, "both messages")
        client.stop()
        device.stop()
    assert got[0].expiry_s is not None
    assert 0 < got[0].expiry_s <= 600
    assert got[1].expiry_s is None
