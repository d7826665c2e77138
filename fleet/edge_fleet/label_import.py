"""Labels to the devices whose answers they are for: the server knows no prediction, only counts.

Guards: one message a device waits at a time, so that no device is flooded; a label counts once
however often a file is sent, so an import that was cut off is simply run again.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from edge_contract.messages import LabelsTaken, Problem
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics
from edge_contract.typed import json_decoder
from edge_fleet.quality.label_file import Batch

CONNECT_S = 10.0
EXPIRY_S = 7 * 86400
"""A device that is away finds its labels when it comes back, for as long as telemetry lives."""


class _Refused(msgspec.Struct, frozen=True):
    error: Problem


class _Taken(LabelsTaken, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Strict: every field has a default, so that anything else would look like nothing taken."""


_TAKEN = json_decoder(_Taken)
_REFUSED = json_decoder(_Refused)
Progress = Callable[[int, int], None]


@dataclass
class Imported:
    """What became of the labels.

    Attributes:
        sent: accepted by the broker. answered: of them, those of which a device told.
        counted to refused: as devices told; see ``LabelsTaken``. said: why, of some.
        silent: devices that did not answer in time; what waits for them counts when they return.
        garbled: devices whose answer made no sense; ``refused`` counts their labels.
    """

    sent: int = 0
    answered: int = 0
    counted: int = 0
    repeated: int = 0
    contradicted: int = 0
    late: int = 0
    unknown: int = 0
    refused: int = 0
    said: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    garbled: list[str] = field(default_factory=list)

    def add(self, taken: LabelsTaken, labels: int) -> None:
        """A device told of ``labels`` labels."""
        self.answered += labels
        for name in ("counted", "repeated", "contradicted", "late", "unknown", "refused"):
            setattr(self, name, getattr(self, name) + getattr(taken, name))
        self.said += [why for why in taken.said if why not in self.said]


def send(
    config: LinkConfig,
    topics: Topics,
    batches: Sequence[Batch],
    *,
    wait_s: float,
    progress: Progress = lambda _done, _total: None,
) -> Imported:
    """Send ``batches`` in order and gather what devices tell within ``wait_s`` a message.

    Raises PeerFault when the broker is away or refuses.
    """
    answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
    link = Link(config, on_message=answers.put)
    link.start(CONNECT_S)
    try:
        done, total, found = 0, sum(len(labels) for *_, labels in batches), Imported()
        heard: set[str] = set()
        for number, (device, model, labels) in enumerate(batches):
            where = topics.answers(device, model)
            if where not in heard:
                link.subscribe([where]).wait(CONNECT_S)
                heard.add(where)
            # An earlier answer of the device's own model may come on the same topic.
            mark = f"labels-{number}".encode()
            link.publish(
                topics.labels(device, model), msgspec.json.encode(labels), expiry_s=EXPIRY_S,
                correlation=mark, response_topic=where, content_type="application/json",
            ).wait(CONNECT_S)  # fmt: skip
            found.sent += len(labels)
            if device not in found.silent:
                _note(found, device, _answer(answers, mark, wait_s), len(labels))
            done += len(labels)
            progress(done, total)
        return found
    finally:
        link.stop()


def _answer(answers: queue.SimpleQueue[Message], mark: bytes, wait_s: float) -> Message | None:
    """The answer with this correlation, or None when none came in time."""
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            message = answers.get(timeout=max(deadline_s - time.monotonic(), 0.0))
        except queue.Empty:
            return None
        if message.correlation == mark:
            return message


def _note(found: Imported, device: str, message: Message | None, labels: int) -> None:
    """Add what a device told: how many it took, an error, or nothing."""
    if message is None:
        found.silent.append(device)
        return
    try:
        found.add(_TAKEN.decode(message.payload), labels)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found.refused += labels
        found.answered += labels
        why = _error_in(message.payload)
        if not why and device not in found.garbled:
            found.garbled.append(device)
        if why and why not in found.said:
            found.said.append(why)


def _error_in(payload: bytes) -> str:
    """Why a device took none, in its own words; "" where what it sent makes no sense."""
    try:
        return _REFUSED.decode(payload).error.what
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
