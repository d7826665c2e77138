"""Labels over MQTT: ``fb/<model>``, for answers that this device gave.

Guards: the network thread never counts; a bounded number of messages waits; a message that makes
no sense is answered, where it names a response topic, and changes nothing.
"""

from __future__ import annotations

import logging
import threading

import msgspec

from edge_agent.doors.mqtt import EXPIRY_S, OVERLOADED, Line, check_response_topic
from edge_agent.feedback import Feedback, given
from edge_agent.worker import Worker
from edge_contract import messages
from edge_contract.errors import EdgeError, InputFault
from edge_contract.messages import LabelsTaken, Problem
from edge_contract.ports.mqtt import Message
from edge_contract.topics import Topics

log = logging.getLogger(__name__)

WAITING_MAX = 64
WAITING_MAX_BYTES = 4 * 1024**2
_STOP_S = 5.0


class LabelDoor:
    """Takes labels in a thread of its own, which begins with the first one."""

    def __init__(self, link: Line, topics: Topics, device: str, feedback: Feedback | None) -> None:
        self._link = link
        self._topics = topics
        self._device = device
        self._feedback = feedback
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._waiting = self._waiting_bytes = 0
        self._stopped = False

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to, so that ``handle`` gets its messages."""
        return (self._topics.labels_filter(self._device),)

    def handle(self, message: Message) -> bool:
        """Take a message if it is one of labels; from the network thread. Whether it was one."""
        try:
            address = self._topics.parse(message.topic)
        except InputFault:
            return False
        if address.kind != "fb" or address.device != self._device:
            return False
        if message.retain:  # it would come again with each connection
            log.warning("a retained message on %s is ignored", message.topic)
            return True
        with self._lock:
            size = self._waiting_bytes + len(message.payload)
            full = self._waiting >= WAITING_MAX or (self._waiting and size > WAITING_MAX_BYTES)
            if not full and not self._stopped:
                self._waiting += 1
                self._waiting_bytes = size
                self._worker = self._worker or Worker("mqtt-labels")
                self._worker.submit(lambda: self._take(message, address.model))
        if full:
            log.warning("labels on %s are lost: too many wait", message.topic)
            self._reply(message, OVERLOADED)
        return True

    def stop(self) -> None:
        """Count what has come."""
        with self._lock:
            self._stopped = True
            worker = self._worker
        if worker is not None:
            worker.drain()
            worker.stop(_STOP_S)

    def _take(self, message: Message, model: str) -> None:
        try:
            taken = given(model, self._feedback, messages.decode_labels(message.payload))
        except EdgeError as error:
            log.warning("labels on %s: %s", message.topic, error.what)
            self._reply(message, Problem(what=error.what, advice=error.advice))
        else:
            self._reply(message, taken)
        finally:
            with self._lock:
                self._waiting -= 1
                self._waiting_bytes -= len(message.payload)

    def _reply(self, message: Message, said: LabelsTaken | Problem) -> None:
        if not message.response_topic:
            return
        try:
            check_response_topic(message.response_topic, self._topics, self._device)
        except InputFault as error:
            log.warning("%s", error.what)
            return
        body = said if isinstance(said, LabelsTaken) else {"error": said}
        self._link.publish(
            message.response_topic,
            msgspec.json.encode(body),
            qos=min(message.qos, 1),
            expiry_s=EXPIRY_S,
            content_type="application/json",
            correlation=message.correlation,
        )
