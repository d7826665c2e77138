"""Inference over MQTT: ``in/<model>`` to ``out/<model>``, or to the request's response topic.

Guards: the network thread never waits for a model; every request gets one answer, also when it
is refused, fails, or there are too many; a request cannot make this device publish where only
the fleet or the publisher may (its response topic is checked); no row is ever logged.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from edge_agent import overload, tap
from edge_agent.desk import Desk
from edge_agent.doors import plain
from edge_agent.live import Live
from edge_agent.model import Model
from edge_agent.overload import Reason, Rules, Waiting
from edge_contract import messages
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.messages import Answer, Problem
from edge_contract.ports.mqtt import Message, Ticket
from edge_contract.topics import Topics

log = logging.getLogger(__name__)

THREADS = 2
"""One model that takes long leaves the others a thread."""
EXPIRY_S = 300
TOPIC_MAX_CHARS = 512
PACKET_OVERHEAD_BYTES = 128
"""Header, lengths, packet id and properties of an answer, without topic and correlation."""

OVERLOADED = Problem(
    what="overloaded: too many requests wait on this device",
    advice="Send fewer at once, or send many rows in one request.",
)
STOPPING = Problem(what="the agent is stopping", advice="Send it again when it is back.")
LATE = Problem(
    what="the request was not computed: its time was up, or would be before its turn",
    advice="Give it a longer message expiry interval, or send fewer at once.",
)
AWAY = {Reason.FULL: OVERLOADED, Reason.LATE: LATE, Reason.STOPPING: STOPPING}
BROKEN = Problem(
    what="an internal error of the agent", advice="Its log has the details; please report it."
)


class Line(Protocol):
    """What the door needs of ``edge_contract.ports.mqtt.Link``."""

    @property
    def peer_packet_max_bytes(self) -> int | None:
        """The largest packet that the broker takes; None: it named no bound."""

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        expiry_s: int | None = None,
        content_type: str = "",
        correlation: bytes = b"",
    ) -> Ticket:
        """Send one message."""


class DoorCounts(Struct, frozen=True):
    """Requests since the start: answered with predictions, or with which kind of error.

    ``late``: not computed, for their time was up or would have been.
    """

    answered: int = 0
    refused: int = 0
    failed: int = 0
    overloaded: int = 0
    late: int = 0


class MqttDoor:
    """Answers requests in threads of its own, those of one model in the order in which they came.

    A request is not computed after its message expiry interval (MQTT 5, 3.3.2.3.3).

    Args:
        models: the live models by name; looked up anew at each request.
        rules: what may wait; what is too much is answered ``overloaded`` at once.
    """

    def __init__(
        self,
        link: Line,
        topics: Topics,
        device: str,
        models: Mapping[str, Live],
        *,
        rules: Rules | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._topics = topics
        self._device = device
        self._models = models
        self._rules = (rules or Rules())._replace(at_once_default=1)
        self._lock = threading.Lock()
        self._tally = dict.fromkeys(DoorCounts.__struct_fields__, 0)
        self._now_s = now_s
        self._desk = Desk("mqtt-door", self._rules, THREADS, now_s)

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to, so that ``handle`` gets its messages."""
        return (self._topics.request_filter(self._device),)

    @property
    def counts(self) -> DoorCounts:
        """Requests since the start."""
        with self._lock:
            return DoorCounts(**self._tally)

    def handle(self, message: Message) -> None:
        """Take a message of ``filters``; from the network thread, never blocking or raising.

        A retained message is no request: it would be answered again at each reconnect.
        """
        if not self._is_request(message.topic):
            return
        if message.retain:
            log.warning("a retained message on %s is ignored", message.topic)
            return
        expiry_s = message.expiry_s
        self._desk.submit(
            Waiting(
                self._topics.parse(message.topic).model,
                functools.partial(self._serve, message),
                functools.partial(self._turn_away, message),
                math.inf if expiry_s is None else self._now_s() + expiry_s,
                len(message.payload),
            )
        )

    def stop(self, timeout_s: float = 10.0) -> None:
        """Answer what is under way, turn the rest away, end the thread."""
        self._desk.stop(timeout_s)

    def _is_request(self, topic: str) -> bool:
        try:
            address = self._topics.parse(topic)
        except InputFault:
            return False
        return address.kind == "in" and address.device == self._device

    def _turn_away(self, message: Message, reason: Reason) -> None:
        if reason is not Reason.STOPPING:
            self._count("overloaded" if reason is Reason.FULL else "late")
        self._reply(message, AWAY[reason])

    # -- the door's own threads --------------------------------------------------------------

    def _serve(self, message: Message) -> None:
        try:
            self._answer(message)
        except Exception:
            # A fault of ours must not leave a request without an answer.
            log.exception("a request on %s could not be answered", message.topic)
            self._count("failed")
            self._reply(message, BROKEN)

    def _answer(self, message: Message) -> None:
        name = self._topics.parse(message.topic).model
        live = self._models.get(name)
        try:
            check_response_topic(message.response_topic, self._topics, self._device)
            if live is None:
                raise InputFault(
                    f"this device has no model {name!r}",
                    advice=f"It has: {', '.join(sorted(self._models)) or 'none'}.",
                )
            with live.use() as model:
                answer = _predict(model, message.payload, self._rules.values_max)
            self._send(message, answer)
            self._count("answered")
        except EdgeError as error:
            self._count("refused" if isinstance(error, InputFault) else "failed")
            self._reply(message, Problem(what=error.what, advice=error.advice))

    def _count(self, kind: str) -> None:
        with self._lock:
            self._tally[kind] += 1

    def _reply(self, message: Message, problem: Problem) -> None:
        name = self._topics.parse(message.topic).model
        self._send(message, Answer(model=name, error=problem))

    def _send(self, message: Message, answer: Answer) -> None:
        payload = messages.encode(answer)
        topic = self._where(message)
        bound = self._link.peer_packet_max_bytes
        size = len(payload) + len(topic) + len(message.correlation) + PACKET_OVERHEAD_BYTES
        if bound and size > bound:
            raise MachineFault(
                f"an answer of {len(payload)} bytes is more than the broker takes ({bound})",
                advice="Send fewer rows in one request.",
            )
        self._link.publish(
            topic,
            payload,
            qos=min(message.qos, 1),
            expiry_s=EXPIRY_S,
            content_type="application/json",
            correlation=message.correlation,
        )

    def _where(self, message: Message) -> str:
        try:
            check_response_topic(message.response_topic, self._topics, self._device)
        except InputFault:
            return self._topics.answers(self._device, self._topics.parse(message.topic).model)
        return message.response_topic or self._topics.answers(
            self._device, self._topics.parse(message.topic).model
        )


def check_response_topic(topic: str, topics: Topics, device: str) -> None:
    """Raise InputFault for a response topic to which a requester must not make us publish.

    This device may publish its own state and telemetry; who may only send requests must not
    forge those through it. Within the fleet's topics only ``out`` is for answers.
    """
    if not topic:
        return
    reserved = topic == topics.root or topic.startswith(f"{topics.root}/")
    own = topics.answers(device, "x").removesuffix("x")
    if (
        len(topic) > TOPIC_MAX_CHARS
        or topic.startswith("$")
        or any(sign in topic for sign in "+#\0")
        or (reserved and not topic.startswith(own))
    ):
        raise InputFault(
            f"response topic {topic[:120]!r} is not one for answers",
            advice=f"Name a topic outside {topics.root}, or one under {own}",
        )


def _predict(model: Model, payload: bytes, values_max: int) -> Answer:
    try:
        request = messages.decode_request(payload)
        rows = plain.rows_of(request)
        overload.check_size(rows, values_max)
    except InputFault:
        if model.observer is not None:
            model.observer.refused(1)
        raise
    return plain.answer_of(model.manifest.name, model.manifest.version, tap.predict(model, rows))
