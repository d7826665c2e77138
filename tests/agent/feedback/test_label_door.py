"""Labels over MQTT: what waits is bounded, and who is turned away is told."""

from __future__ import annotations

import queue
from typing import Any

import msgspec

from edge_agent.doors import labels
from edge_agent.doors.labels import LabelDoor
from edge_contract.ports.mqtt import Message
from edge_contract.topics import Topics

TOPICS = Topics("home")
WHERE = "home/told"
DEADLINE_S = 60.0


class Line:
    """A connection that keeps what is published."""

    peer_packet_max_bytes = None

    def __init__(self) -> None:
        self.said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def publish(self, topic: str, payload: bytes, **_: object) -> Any:
        assert topic == WHERE
        self.said.put(msgspec.json.decode(payload))

    def next(self) -> dict[str, Any]:
        return self.said.get(timeout=DEADLINE_S)


def test_labels_that_wait_are_bounded_in_bytes_and_room_comes_back(desk) -> None:
    line = Line()
    door = LabelDoor(line, TOPICS, "pi1", desk.feedback)
    size = labels.WAITING_MAX_BYTES // 4
    big = Message(TOPICS.labels("pi1", "m"), b"[" + b" " * size + b"]", qos=1, response_topic=WHERE)
    with desk.feedback._lock:  # the first that makes sense waits, and all others behind it
        first = b'{"id": "1-1", "label": 1}'
        assert door.handle(Message(big.topic, first, qos=1, response_topic=WHERE))
        for _ in range(8):
            assert door.handle(big)
        turned_away = [line.next()["error"]["what"] for _ in range(5)]
    assert all("overloaded" in what for what in turned_away)
    assert line.next()["unknown"] == 1
    assert all("labels" in line.next()["error"]["what"] for _ in range(3))
    assert door.handle(big)
    assert "labels" in line.next()["error"]["what"], "there is room again"
    door.stop()
    assert line.said.empty()
