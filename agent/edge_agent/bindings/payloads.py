"""What a message says: the value at the place that an input names, and its time. Pure.

Formats: plain JSON; bare numbers and text; Zigbee2MQTT (``zigbee2mqtt/NAME``); Tasmota
(``tele/NAME/SENSOR``, ``tele/NAME/STATE``); Sparkplug B.

Guards: a payload is bounded before it is read; hostile ones raise ``Unread`` with the name of
the count they belong to, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, TypeVar

import msgspec

from edge_agent.bindings import pointer, sparkplug
from edge_agent.bindings.settings import SAMPLES_MAX, Input
from edge_agent.bindings.sparkplug import Names
from edge_contract.errors import InputFault
from edge_contract.typed import json_decoder

PAYLOAD_MAX_BYTES = 256 * 1024
TEXT_MAX_CHARS = 1024
_document = json_decoder(object).decode
_MILLISECONDS_FROM = 1e11
"""A time of more seconds than this is in milliseconds: 1e11 s is the year 5138."""

T = TypeVar("T")
Value = float | str | bool | list[float] | None


class Unread(Exception):
    """Nothing was taken from a message; ``count`` is where that is counted."""

    def __init__(self, count: str) -> None:
        super().__init__(count)
        self.count = count


class Reading(NamedTuple):
    """One value. None: the sensor says that it knows none.

    Attributes:
        stamp_s: when it was measured, as the payload says, in seconds since 1970 UTC; NaN: it
            says so, but not when.
    """

    value: Value
    stamp_s: float | None = None


class Reader:
    """Reads the messages of one input.

    Args:
        names: behind Sparkplug's aliases; shared by the inputs of a connection.

    Raises InputFault for a field that is no pointer.
    """

    def __init__(self, source: Input, names: Names) -> None:
        self._source = source
        self._names = names
        dotted = source.format in ("zigbee2mqtt", "tasmota")
        if source.format in ("json", "zigbee2mqtt", "tasmota"):
            self._field = pointer.steps(source.field, dotted=dotted)
            self._time = pointer.steps(source.time, dotted=dotted)

    def read(self, message: Decoded) -> Reading:
        """The input's value in a message. Raises Unread."""
        match self._source.format:
            case "number":
                return Reading(self._finish(message.number()))
            case "text":
                return Reading(self._finish(message.text()))
            case "sparkplug":
                return self._sparkplug(message)
            case _:
                return self._json(message)

    def _json(self, message: Decoded) -> Reading:
        if self._source.format == "zigbee2mqtt" and _is_not_state(message.topic):
            raise Unread("absent")
        document = message.json()
        try:
            found = pointer.find(document, self._field)
        except pointer.Absent:
            raise Unread("absent") from None
        stamp_s = None
        if self._time:
            try:
                stamp_s = stamp(pointer.find(document, self._time))
            except pointer.Absent:
                stamp_s = math.nan
        return Reading(self._finish(found), stamp_s)

    def _sparkplug(self, message: Decoded) -> Reading:
        wanted = self._source.field
        found = [metric for metric in message.sparkplug(self._names) if metric.name == wanted]
        if message.death:
            return Reading(None)
        timed = bool(self._source.time)
        if not timed:
            found = [metric for metric in found if not metric.historical]
        if not found:
            raise Unread("absent")
        metric = found[-1]
        stamp_s = metric.stamp_ms / 1000 if metric.stamp_ms is not None else math.nan
        return Reading(self._finish(metric.value), stamp_s if timed else None)

    def _finish(self, found: object) -> Value:
        """A feature's value: mapped, scaled, finite. Raises Unread."""
        if self._source.map and isinstance(found, str | bool | int | float):
            found = self._source.map.get(_key(found), found)
        match found:
            case None:
                return None
            case bool():
                return found
            case str():
                if len(found) > TEXT_MAX_CHARS:
                    raise Unread("unreadable")
                return found
            case int() | float():
                return self._number(found)
            case list() if self._source.rate_hz and 0 < len(found) <= SAMPLES_MAX:
                if all(type(each) in (int, float) for each in found):
                    return [self._number(each) for each in found]
        raise Unread("unreadable")

    def _number(self, found: float) -> float:
        try:
            value = float(found) * self._source.scale + self._source.offset
        except OverflowError:
            raise Unread("unreadable") from None
        if not math.isfinite(value):
            raise Unread("unreadable")
        return value


class Decoded:
    """One message, decoded once for all inputs that look into it.

    Attributes:
        birth_missing: a Sparkplug node sent aliases that no birth of it has told.
        death: it says that a Sparkplug node or device is gone. Both: once it was decoded.
    """

    def __init__(self, topic: str, payload: bytes) -> None:
        self.topic = topic
        self.payload = payload
        self.birth_missing = False
        self.death = False
        self._json: list[object] = []
        self._metrics: list[sparkplug.Metric] | None = None
        if len(payload) > PAYLOAD_MAX_BYTES:
            raise Unread("oversize")

    def json(self) -> object:
        """The document. Raises Unread."""
        if not self._json:
            self._json.append(_guarded(lambda: _document(self.payload)))
        return self._json[0]

    def number(self) -> float:
        """The payload as one number in decimal. Raises Unread."""
        text = self.text().strip()
        if len(text) > 64 or "_" in text:
            raise Unread("unreadable")
        return _guarded(lambda: float(text))

    def text(self) -> str:
        """The payload as text. Raises Unread."""
        return _guarded(self.payload.decode)

    def sparkplug(self, names: Names) -> list[sparkplug.Metric]:
        """The wanted metrics; none of a topic that has none, or of a death. Raises Unread."""
        if self._metrics is None:
            where = sparkplug.address(self.topic)
            found: list[sparkplug.Metric] = []
            if where is not None and where.kind.endswith("DEATH"):
                self.death = True
            elif where is not None:
                found, self.birth_missing = _guarded(lambda: names.read(where, self.payload))
            self._metrics = found
        return self._metrics


def _guarded(read: Callable[[], T]) -> T:
    try:
        return read()
    except (ValueError, RecursionError, InputFault, msgspec.DecodeError):
        raise Unread("unreadable") from None


def stamp(found: object) -> float:
    """Seconds since 1970 UTC of a number (seconds or milliseconds) or an ISO 8601 text; else NaN.

    A text without an offset from UTC is NaN: nobody knows whose time it is.
    """
    if isinstance(found, int | float) and not isinstance(found, bool):
        if abs(found) >= 1e15:
            return math.nan
        return found / 1000.0 if abs(found) >= _MILLISECONDS_FROM else float(found)
    if isinstance(found, str) and len(found) <= 64:
        try:
            moment = datetime.fromisoformat(found)
        except ValueError:
            return math.nan
        return moment.timestamp() if moment.tzinfo else math.nan
    return math.nan


def _key(found: str | bool | float) -> str:
    """A value as JSON writes it: what ``map`` names it by."""
    if isinstance(found, str):
        return found
    if isinstance(found, bool):
        return "true" if found else "false"
    return str(int(found)) if isinstance(found, float) and found.is_integer() else str(found)


def _is_not_state(topic: str) -> bool:
    """Zigbee2MQTT's own topics between those of its devices."""
    levels = topic.split("/")
    return levels[-1] in ("availability", "get", "set") or levels[1:2] == ["bridge"]
