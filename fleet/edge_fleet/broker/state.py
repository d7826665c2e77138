"""Sessions and retained messages as bytes, and back. Pure.

A file is records, each a JSON head and a body after their lengths in four bytes; a message is the
body, as an MQTT PUBLISH. The first record says what and when, the last one holds the SHA-256 of all
before it. Times are seconds left: the clock of one process means nothing to the next.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from edge_fleet.broker import encode, wire
from edge_fleet.broker.decode import decode
from edge_fleet.broker.errors import ProtocolError, StateFileError
from edge_fleet.broker.message import Delivery, GroupKey, Message
from edge_fleet.broker.outbox import Sent
from edge_fleet.broker.packets import Publish
from edge_fleet.broker.router import Subscription
from edge_fleet.broker.session import NEVER_EXPIRES, Session

_VERSION = 1
_LENGTH_BYTES = 4
_DAMAGE = (ProtocolError, ValueError, LookupError, TypeError, AttributeError)

_Head = dict[str, Any]
_Records = Iterator[tuple[_Head, bytes]]


def pack_retained(messages: Iterable[Message], now: float, saved_at: float) -> list[bytes]:
    """The retained messages, as pieces to write one after the other."""
    records = (_record(*_of_message(message, now)) for message in messages)
    return _sealed("retained", saved_at, records)


def unpack_retained(raw: bytes, now: float, read_at: float) -> list[Message]:
    """What `pack_retained` was given, without what has expired. StateFileError if damaged."""
    try:
        away_s, records = _unsealed("retained", raw, read_at)
        messages = [_to_message(head, body, now - away_s) for head, body in records]
    except _DAMAGE as error:
        raise StateFileError(f"retained messages cannot be read: {error!r}") from error
    return [message for message in messages if not message.expired(now)]


def pack_sessions(sessions: Iterable[Session], now: float, saved_at: float) -> list[bytes]:
    """The persistent sessions with all that waits in them, as pieces to write."""
    persistent = (session for session in sessions if session.persistent)
    records = (record for session in persistent for record in _of_session(session, now))
    return _sealed("sessions", saved_at, records)


def unpack_sessions(raw: bytes, now: float, read_at: float, max_queue_bytes: int) -> list[Session]:
    """What `pack_sessions` was given, without what has expired. StateFileError if damaged."""
    sessions: list[Session] = []
    try:
        away_s, records = _unsealed("sessions", raw, read_at)
        for head, _ in records:
            sessions.append(_to_session(head, records, now - away_s, max_queue_bytes))
    except _DAMAGE as error:
        raise StateFileError(f"sessions cannot be read: {error!r}") from error
    return [session for session in sessions if session.ends_at is None or session.ends_at > now]


def _of_session(session: Session, now: float) -> Iterator[bytes]:
    """One record, and one for each delivery that waits."""
    sent, queued = session.outbox.unfinished()
    ends_in_s: float | None = None
    if session.expiry_s != NEVER_EXPIRES:
        ends_in_s = session.expiry_s if session.ends_at is None else session.ends_at - now
    yield _record(
        {
            "client_id": session.client_id,
            "username": session.username,
            "expiry_s": session.expiry_s,
            "ends_in_s": ends_in_s,
            "received": sorted(session.received),
            "subscriptions": {whole: list(sub) for whole, sub in session.subscriptions.items()},
            "sent": [[packet_id, entry.released] for packet_id, entry in sent.items()],
            "queued": len(queued),
        }
    )
    for delivery in (*(entry.delivery for entry in sent.values()), *queued):
        yield _of_delivery(delivery, now)


def _to_session(head: _Head, records: _Records, then: float, max_queue_bytes: int) -> Session:
    session = Session(str(head["client_id"]), head["username"], max_queue_bytes)
    session.expiry_s = int(head["expiry_s"])
    session.ends_at = None if head["ends_in_s"] is None else then + float(head["ends_in_s"])
    session.received = set(head["received"])
    session.subscriptions = {
        whole: Subscription(*options) for whole, options in head["subscriptions"].items()
    }
    sent = {
        int(packet_id): Sent(_to_delivery(*next(records), then), bool(released))
        for packet_id, released in head["sent"]
    }
    queued = [_to_delivery(*next(records), then) for _ in range(head["queued"])]
    session.outbox.restore(sent, queued)
    return session


def _of_delivery(delivery: Delivery, now: float) -> bytes:
    head, body = _of_message(delivery.message, now)
    head["as"] = [delivery.qos, delivery.retain, delivery.subscription_ids, delivery.group]
    return _record(head, body)


def _to_delivery(head: _Head, body: bytes, then: float) -> Delivery:
    qos, retain, ids, group = head["as"]
    key = None if group is None else GroupKey(*group)
    return Delivery(_to_message(head, body, then), qos, retain, tuple(ids), key)


def _of_message(message: Message, now: float) -> tuple[_Head, bytes]:
    head: _Head = {"qos": message.qos, "retain": message.retain, "origin": message.origin}
    if message.expires_at is not None:
        head["expires_in_s"] = message.expires_at - now
    packet = Publish(message.topic, message.payload, properties=message.properties)
    return head, encode.publish(packet)


def _to_message(head: _Head, body: bytes, then: float) -> Message:
    _, at = wire.read_varint(body, 1)
    packet = decode(body[0], body[at:])
    if not isinstance(packet, Publish):
        raise ValueError("a message is no PUBLISH")
    expires_in_s = head.get("expires_in_s")
    expires_at = None if expires_in_s is None else then + float(expires_in_s)
    qos, retain, origin = int(head["qos"]), bool(head["retain"]), str(head["origin"])
    return Message(packet.topic, packet.payload, qos, retain, packet.properties, expires_at, origin)


def _record(head: _Head, body: bytes = b"") -> bytes:
    text = json.dumps(head, separators=(",", ":")).encode()
    return b"".join(
        (len(text).to_bytes(_LENGTH_BYTES), text, len(body).to_bytes(_LENGTH_BYTES), body)
    )


def _sealed(kind: str, saved_at: float, records: Iterable[bytes]) -> list[bytes]:
    pieces = [_record({"edge_broker": kind, "version": _VERSION, "saved_at": saved_at}), *records]
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return [*pieces, _record({"sha256": digest.hexdigest()})]


def _unsealed(kind: str, raw: bytes, read_at: float) -> tuple[float, _Records]:
    """How long ago the file was written, and its records. A clock that went back counts as 0."""
    spans = list(_spans(raw))
    seal, _ = _head_and_body(raw, spans.pop())
    end = spans[-1][1]
    if seal["sha256"] != hashlib.sha256(raw[:end]).hexdigest():
        raise ValueError("the contents do not fit their SHA-256")
    first, _ = _head_and_body(raw, spans.pop(0))
    if (first["edge_broker"], first["version"]) != (kind, _VERSION):
        raise ValueError(
            f"a file of {first['edge_broker']!r} version {first['version']!r},"
            f" expected {kind!r} version {_VERSION}"
        )
    away_s = max(0.0, read_at - float(first["saved_at"]))
    return away_s, (_head_and_body(raw, span) for span in spans)


def _spans(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where each record begins and ends."""
    at = 0
    while at < len(raw):
        begin = at
        for _ in range(2):
            if at + _LENGTH_BYTES > len(raw):
                raise ValueError("the file is cut off")
            at += _LENGTH_BYTES + int.from_bytes(raw[at : at + _LENGTH_BYTES])
        if at > len(raw):
            raise ValueError("the file is cut off")
        yield begin, at


def _head_and_body(raw: bytes, span: tuple[int, int]) -> tuple[_Head, bytes]:
    begin = span[0] + _LENGTH_BYTES
    end = begin + int.from_bytes(raw[span[0] : begin])
    head = json.loads(raw[begin:end])
    if not isinstance(head, dict):
        raise TypeError("the head of a record is no object")
    return head, raw[end + _LENGTH_BYTES : span[1]]
