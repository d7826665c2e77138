"""Inference over MQTT: every request gets one answer, and none makes the device forge its state."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edge_agent import Model
from edge_agent.doors.mqtt import DoorCounts, MqttDoor, check_response_topic
from edge_agent.live import Live
from edge_agent.overload import Rules
from edge_agent.telemetry import Window
from edge_contract import broker_url, messages
from edge_contract import bundle as bundles
from edge_contract.errors import InputFault
from edge_contract.messages import Answer
from edge_contract.ports.mqtt import Link, LinkConfig, Message, Ticket
from edge_contract.topics import Topics

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}
TOPICS = Topics("home")
IN, OUT = TOPICS.requests("pi-1", "pump"), TOPICS.answers("pi-1", "pump")


def until(condition: Callable[[], bool], what: str, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)


class Wire:
    """Keeps what was published. Strict about what a door may publish."""

    def __init__(self) -> None:
        self.peer_packet_max_bytes: int | None = None
        self.sent: list[tuple[str, bytes, bytes, int]] = []

    def publish(self, topic, payload, *, qos=1, expiry_s=None, content_type="", correlation=b""):
        assert expiry_s
        assert content_type == "application/json"
        assert not any(sign in topic for sign in "+#")
        self.sent.append((topic, payload, correlation, qos))
        return Ticket("an answer")

    @property
    def answers(self) -> list[Answer]:
        return [messages.decode(payload, Answer) for _, payload, _, _ in self.sent]


@pytest.fixture
def pump(tiny_bundle) -> Model:
    model = Model.from_bundle(bundles.read(tiny_bundle("1.2")))
    model.observer = Window(model.manifest, model.profile)
    return model


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def door(pump: Model, wire: Wire) -> Iterator[MqttDoor]:
    door = MqttDoor(wire, TOPICS, "pi-1", {"pump": Live("pump", pump), "empty": Live("empty")})
    yield door
    door.stop()


def ask(door: MqttDoor, wire: Wire, payload: object, **fields) -> Answer:
    before = len(wire.sent)
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    door.handle(Message(fields.pop("topic", IN), data, **fields))
    until(lambda: len(wire.sent) > before, "an answer")
    return wire.answers[-1]


def test_one_object_of_features_is_answered_by_name(door, wire, pump) -> None:
    answer = ask(door, wire, ROW)
    expected = pump.predict(ROW)
    assert wire.sent[-1][0] == OUT
    assert json.loads(wire.sent[-1][1]) == {
        "schema": 1,
        "model": "pump",
        "version": "1.2",
        "predictions": [
            {"label": expected.label, "probabilities": expected.probabilities}
        ],
    }  # fmt: skip
    assert answer.predictions[0].label == expected.label
    assert door.counts == DoorCounts(answered=1)


@pytest.mark.parametrize(
    "rows", [[ROW, ROW], [list(ROW.values())] * 2, [ROW, list(ROW.values())]], ids=str
)
def test_many_rows_are_answered_in_order(door, wire, pump, rows) -> None:
    answer = ask(door, wire, {"rows": rows})
    assert [o.label for o in answer.predictions] == [pump.predict(ROW).label] * 2


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "not a valid request"),
        (b"\xff\xfe", "not a valid request"),
        (b"{", "not a valid request"),
        (b"[]", "not a valid request"),
        (b"3", "not a valid request"),
        (b'{"temp": NaN}', "not a valid request"),
        (b"[" * 100_000, "not a valid request"),
        (b'{"a":' * 100_000, "not a valid request"),
        ({}, "features 'hum', 'rpm', 'temp', 'volt' are missing"),
        ({**ROW, "temp": "hot"}, "feature 'temp' is text 'hot'"),
        ({**ROW, "temp": None}, "feature 'temp' is missing"),
        ({**ROW, "wind": 1}, "unknown feature 'wind'"),
        ({**ROW, "temp": [1]}, "not a valid request"),
        ({**ROW, "temp": [[1]]}, "'temp' is no single value"),
        ({"rows": []}, "0 rows"),
        ({"rows": [ROW, {"temp": 1}]}, "row 1: feature"),
        ({"rows": [[1, 2]]}, "row 0: 2 values for 4 features"),
        ({"rows": [ROW], "other": 1}, "'rows' is no single value"),
        ({"rows": [{**ROW, "temp": {}}]}, "not a valid request"),
        ({"tensors": {"X": {"shape": [1, 4], "data": [1, 2, 3]}}}, "3 elements for the shape"),
        ({"tensors": {"X": {"shape": [1, 2], "data": [1, 2]}}}, "shape [1, 2]"),
        ({"tensors": {"X": {"shape": [2**52, 2**52], "data": []}}}, "0 elements for the shape"),
        ({"tensors": {"Y": {"shape": [1, 4], "data": [1, 2, 3, 4]}}}, "'X' is missing"),
        ({"tensors": {"X": {"shape": [1, 4], "data": [1, 2, 3, "4"]}}}, "expected float32"),
        ({"tensors": {"X": {"shape": [1, 4], "data": [1, 2, 3, 2**70]}}}, ""),
        (b" " * (messages.REQUEST_MAX_BYTES + 1), "over the limit"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_fit_is_answered_with_a_reason_and_counted(
    door, wire, pump, payload, says: str
) -> None:
    answer = ask(door, wire, payload, correlation=b"c1")
    assert says in answer.error.what
    assert answer.model == "pump"
    assert b'"predictions"' not in wire.sent[-1][1]
    assert wire.sent[-1][2] == b"c1"
    assert door.counts == DoorCounts(refused=1)
    assert pump.observer.totals.refused >= 1
    assert ask(door, wire, ROW).predictions, "the next request is served"


def test_whole_tensors_by_name(door, wire, pump) -> None:
    answer = ask(
        door, wire, {"tensors": {"X": {"shape": [2, 4], "data": [*ROW.values()] * 2}}}
    )  # fmt: skip
    assert [o.label for o in answer.predictions] == [pump.predict(ROW).label] * 2


def test_ten_thousand_rows_are_the_most(door, wire) -> None:
    rows = [[0, 0, 0, 0]] * messages.ROWS_MAX
    assert len(ask(door, wire, {"rows": rows}).predictions) == messages.ROWS_MAX
    answer = ask(door, wire, {"rows": [*rows, [0, 0, 0, 0]]})
    assert "expected 1 to 10000" in answer.error.what


def test_unknown_and_empty_names_are_answered(door, wire) -> None:
    answer = ask(door, wire, ROW, topic=TOPICS.requests("pi-1", "fan"))
    assert "no model 'fan'" in answer.error.what
    assert "empty, pump" in answer.error.advice
    assert wire.sent[-1][0] == TOPICS.answers("pi-1", "fan")
    answer = ask(door, wire, ROW, topic=TOPICS.requests("pi-1", "empty"))
    assert "not installed" in answer.error.what
    assert door.counts == DoorCounts(refused=1, failed=1)


def test_what_is_no_request_of_this_device_is_not_answered(door, wire) -> None:
    for topic in (
        TOPICS.requests("pi-2", "pump"), TOPICS.status("pi-1"), "other/topic", OUT, "",
    ):  # fmt: skip
        door.handle(Message(topic, b"{}"))
    door.handle(Message(IN, json.dumps(ROW).encode(), retain=True))
    assert ask(door, wire, ROW).predictions
    assert len(wire.sent) == 1


def test_response_topic_correlation_and_qos_are_honoured(door, wire) -> None:
    ask(door, wire, ROW, response_topic="my/app/answers", correlation=b"\x00\xff", qos=0)
    topic, _, correlation, qos = wire.sent[-1]
    assert (topic, correlation, qos) == ("my/app/answers", b"\x00\xff", 0)
    ask(door, wire, ROW, response_topic=f"{OUT}/7")
    assert wire.sent[-1][0] == f"{OUT}/7"


FORBIDDEN = [
    TOPICS.status("pi-1"), TOPICS.desired("pi-1"), TOPICS.reported("pi-1"),
    TOPICS.telemetry("pi-1"), TOPICS.desired("pi-2"), TOPICS.answers("pi-2", "pump"),
    TOPICS.metadata("timestamp.json"), TOPICS.root, IN, "a/+/b", "a/#", "$SYS/x", "x" * 600,
    "a\0b",
]  # fmt: skip


@pytest.mark.parametrize("topic", FORBIDDEN, ids=lambda topic: repr(topic)[:50])
def test_a_response_topic_that_could_forge_is_refused_on_the_usual_one(door, wire, topic) -> None:
    with pytest.raises(InputFault):
        check_response_topic(topic, TOPICS, "pi-1")
    answer = ask(door, wire, ROW, response_topic=topic)
    assert "is not one for answers" in answer.error.what
    assert wire.sent[-1][0] == OUT


def test_too_many_are_turned_away_at_once_and_the_others_answered(pump, wire) -> None:
    """The model is held still by a swap lock of ours: 3 may wait, one is under way."""
    entered, go = threading.Event(), threading.Event()

    class Held(Live):
        def use(self):
            entered.set()
            assert go.wait(60)
            return super().use()

    door = MqttDoor(wire, TOPICS, "pi-1", {"pump": Held("pump", pump)}, rules=Rules(3))
    request = json.dumps(ROW).encode()
    door.handle(Message(IN, request, correlation=b"0"))
    assert entered.wait(60)
    for i in range(1, 9):
        door.handle(Message(IN, request, correlation=str(i).encode()))
    assert [correlation for _, _, correlation, _ in wire.sent] == [b"4", b"5", b"6", b"7", b"8"]
    assert all("overloaded" in answer.error.what for answer in wire.answers)
    assert door.counts == DoorCounts(overloaded=5)
    go.set()
    until(lambda: len(wire.sent) == 9, "the waiting ones are answered")
    assert [correlation for _, _, correlation, _ in wire.sent[5:]] == [b"0", b"1", b"2", b"3"]
    assert door.counts == DoorCounts(answered=4, overloaded=5)
    door.stop()
    door.handle(Message(IN, request))
    assert "stopping" in wire.answers[-1].error.what


def test_stopping_answers_what_is_under_way_and_turns_the_rest_away(pump, wire) -> None:
    entered, go = threading.Event(), threading.Event()

    class Held(Live):
        def use(self):
            entered.set()
            assert go.wait(60)
            return super().use()

    door = MqttDoor(wire, TOPICS, "pi-1", {"pump": Held("pump", pump)})
    for _ in range(3):
        door.handle(Message(IN, json.dumps(ROW).encode()))
    assert entered.wait(60)
    stopper = threading.Thread(target=door.stop)
    stopper.start()
    until(lambda: len(wire.sent) == 2, "those in line are turned away at once")
    go.set()
    stopper.join(60)
    assert not stopper.is_alive()
    *rest, last = wire.answers
    assert last.predictions
    assert [("stopping" in answer.error.what) for answer in rest] == [True, True]


def test_a_fault_of_our_own_is_answered_logged_and_survived(pump, wire, caplog) -> None:
    class Broken(Live):
        def use(self):
            raise ZeroDivisionError

    door = MqttDoor(wire, TOPICS, "pi-1", {"pump": Broken("pump"), "good": Live("good", pump)})
    answer = ask(door, wire, ROW)
    assert "internal error" in answer.error.what
    assert "ZeroDivisionError" in caplog.text
    assert ask(door, wire, ROW, topic=TOPICS.requests("pi-1", "good")).predictions
    assert door.counts == DoorCounts(answered=1, failed=1)
    door.stop()


def test_an_answer_over_the_brokers_limit_becomes_an_error(door, wire) -> None:
    wire.peer_packet_max_bytes = 2000
    assert ask(door, wire, ROW).predictions
    answer = ask(door, wire, {"rows": [ROW] * 200})
    assert "more than the broker takes" in answer.error.what


def test_rows_never_reach_the_log(door, wire, caplog) -> None:
    caplog.set_level("DEBUG")
    ask(door, wire, {**ROW, "temp": "secret-value"})
    ask(door, wire, {**ROW, "temp": 123454321})
    assert "secret" not in caplog.text
    assert "12345" not in caplog.text


def test_random_bytes_are_answered_and_the_door_lives(door, wire) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    valid = json.dumps({"rows": [ROW]}).encode()
    for _ in range(300):
        data = bytearray(rng.choice([valid, rng.randbytes(rng.randrange(60))]))
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        answer = ask(door, wire, bytes(data))
        assert (answer.error is messages.msgspec.UNSET) != (
            answer.predictions is messages.msgspec.UNSET
        )
        if answer.error is not messages.msgspec.UNSET:
            assert "internal error" not in answer.error.what
    assert ask(door, wire, ROW).predictions


def test_every_truncation_of_a_request_is_refused(door, wire) -> None:
    whole = json.dumps(ROW).encode()
    for length in range(len(whole)):
        assert ask(door, wire, whole[:length]).error.what.startswith("not a valid request")


def test_requests_over_a_real_broker(any_broker, pump) -> None:
    """A client with MQTT 5 request-response, beside a plain one that listens on ``out``."""
    doors: list[MqttDoor] = []

    def take(message: Message) -> None:
        doors[0].handle(message)

    device = Link(
        LinkConfig(broker_url.parse(any_broker.url), "pi-1"),
        on_message=take,
    )
    doors.append(MqttDoor(device, TOPICS, "pi-1", {"pump": Live("pump", pump)}))
    device.start(60)
    device.subscribe(doors[0].filters).wait(60)
    got: list[Message] = []
    client = Link(LinkConfig(broker_url.parse(any_broker.url), "app"), on_message=got.append)
    client.start(60)
    client.subscribe([OUT, "app/answers"]).wait(60)
    rng = np.random.default_rng(3)
    rows = [dict(zip(ROW, rng.normal(size=4).tolist(), strict=True)) for _ in range(40)]
    for i, row in enumerate(rows):
        client.publish(
            IN, json.dumps(row).encode(), correlation=str(i).encode(),
            response_topic="app/answers" if i % 2 else "",
        )  # fmt: skip
    until(lambda: len(got) == 40, "all are answered")
    by_number = {int(message.correlation): message for message in got}
    assert len(by_number) == 40
    for i, row in enumerate(rows):
        assert by_number[i].topic == ("app/answers" if i % 2 else OUT)
        (outcome,) = messages.decode(by_number[i].payload, Answer).predictions
        assert outcome.label == pump.predict(row).label
    doors[0].stop()
    client.stop()
    device.stop()
