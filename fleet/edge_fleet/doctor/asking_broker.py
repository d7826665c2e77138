"""Asks a broker what it can do and what this account may.

Guards: nothing that a device or a collector would believe is written: probes are published to the
topics of a device that does not exist, unretained, and are gone. Each question has its own short
connection, since a broker may end the one that asked too much (mosquitto 2.0 does).
"""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import msgspec

from edge_contract.access.rights import rights
from edge_contract.errors import InputFault, PeerFault
from edge_contract.ports.mqtt import FILTERS_MAX, Link, LinkConfig
from edge_contract.ports.retained import TOPICS_MAX, Retained
from edge_contract.topics import SENTINEL_FILE, Topics
from edge_contract.typed import json_decoder
from edge_fleet.doctor.facts import BrokerFacts

NOBODY = "edge-doctor"
"""A device's name for probes."""
METADATA_MAX_BYTES = 512 * 1024
ROOTS_MAX = 35
WAIT_S = 10.0
QUIET_S = 1.0
"""Retained messages come one after the other: after so long without one there are no more."""
DESIRED_MAX = 70


class _Version(msgspec.Struct):
    version: int


class _Signed(msgspec.Struct):
    """What of a metadata file is of interest (TUF 1.0, 4)."""

    expires: str
    version: int
    meta: dict[str, _Version] = {}


class _Metadata(msgspec.Struct):
    signed: _Signed


_METADATA = json_decoder(_Metadata)


def ask(
    config: LinkConfig, topics: Topics, wanted: Sequence[str], *, wait_s: float = WAIT_S
) -> BrokerFacts:
    """All of it; never raises for what a broker does.

    Args:
        wanted: devices that are to run something.
    """
    url = str(config.broker)
    link = Link(config)
    try:
        link.start(wait_s)
        offered = dict(link.offered)
    except (PeerFault, InputFault) as error:
        return BrokerFacts(url, error.what, certificate_ms=_certificate(config, wait_s))
    finally:
        link.stop()
    granted = rights("fleet", "", topics)
    readable = [each.topics for each in granted if each.read]
    writable = [each.topics.replace("+", NOBODY) for each in granted if each.write]
    status, refused = _heard(config, topics, readable, wait_s)
    published = _published(config, topics, wait_s)
    desired, missing = (
        _desired(config, topics, wanted[:DESIRED_MAX], wait_s) if published else (0, ())
    )
    return BrokerFacts(
        url,
        offered=offered,
        unreadable=tuple(refused),
        unwritable=tuple(each for each in writable if not _may_write(config, each, wait_s)),
        forgeable=tuple(
            each
            for each in (topics.metadata(f"{NOBODY}.json"), f"{topics.root}/c/{NOBODY}")
            if _may_write(config, each, wait_s)
        ),
        anonymous=_anonymous(config, wait_s),
        status=status,
        desired=desired,
        desired_missing=missing,
        certificate_ms=_certificate(config, wait_s),
        expiries=_expiries(config, topics, wait_s) if published else {},
    )


def _heard(
    config: LinkConfig, topics: Topics, filters: Sequence[str], wait_s: float
) -> tuple[int, list[str]]:
    """How many statuses are retained, and the filters that were refused."""
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()
    refused = [each for each in filters if not _may_read(config, each, wait_s)]
    link = Link(config, on_message=lambda message: heard.put(message.topic))
    seen: set[str] = set()
    with contextlib.suppress(PeerFault), contextlib.closing(_Stopping(link)):
        link.start(wait_s)
        link.subscribe([f"{topics.root}/d/+/status"]).wait(wait_s)
        with contextlib.suppress(queue.Empty):
            while True:
                seen.add(heard.get(timeout=QUIET_S))
    return len(seen), refused


class _Stopping:
    """A link that ``closing`` can close."""

    def __init__(self, link: Link) -> None:
        self.close = link.stop


def _may_read(config: LinkConfig, topic: str, wait_s: float) -> bool:
    link = Link(config)
    with contextlib.closing(_Stopping(link)):
        try:
            link.start(wait_s)
            link.subscribe([topic], retain_handling=2).wait(wait_s)
        except PeerFault:
            return False
    return True


def _may_write(config: LinkConfig, topic: str, wait_s: float) -> bool:
    """Whether a message there is taken; a connection that ends at it says no, too."""
    answered = threading.Event()
    link = Link(config, on_down=lambda _why: answered.set())
    with contextlib.closing(_Stopping(link)):
        try:
            link.start(wait_s)
        except PeerFault:
            return False
        ticket = link.publish(topic, b"{}", expiry_s=1)
        ticket.then(lambda _accepted: answered.set())
        answered.wait(wait_s)
        return ticket.done and not ticket.error


def _anonymous(config: LinkConfig, wait_s: float) -> bool:
    nobody = replace(config.broker, user="", password="")
    client = f"{config.client_id}-nobody"
    link = Link(replace(config, broker=nobody, client_id=client, cert_file="", key_file=""))
    with contextlib.closing(_Stopping(link)):
        try:
            link.start(wait_s)
        except (PeerFault, InputFault):
            return False
    return True


def _desired(
    config: LinkConfig, topics: Topics, devices: Sequence[str], wait_s: float
) -> tuple[int, tuple[str, ...]]:
    """How many `desired` are retained, and of whom none is. () where this account reads none."""
    by_topic = {topics.desired(device): device for device in devices}
    found = _retained(config, topics, list(by_topic), wait_s)
    missing = tuple(device for topic, device in by_topic.items() if topic not in found)
    return (len(found), missing) if found else (0, ())


def _published(config: LinkConfig, topics: Topics, wait_s: float) -> bool:
    """Whether something was ever published here, and may be read."""
    heard = threading.Event()
    link = Link(config, on_message=lambda _message: heard.set())
    with contextlib.closing(_Stopping(link)):
        try:
            link.start(wait_s)
            link.subscribe([topics.metadata(SENTINEL_FILE)]).wait(wait_s)
        except PeerFault:
            return False
        return heard.wait(QUIET_S)


def _retained(
    config: LinkConfig, topics: Topics, wanted: Sequence[str], wait_s: float
) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with Retained(config, sentinel=topics.metadata(SENTINEL_FILE), silence_s=QUIET_S) as asked:
            asked.start(wait_s)
            for at in range(0, len(wanted), TOPICS_MAX):
                found |= asked.get(wanted[at : at + TOPICS_MAX], size_max=METADATA_MAX_BYTES)
    except PeerFault:  # no sentinel: nothing was ever published here, or it may not be read
        return found
    return found


def _expiries(config: LinkConfig, topics: Topics, wait_s: float) -> dict[str, int]:
    """TUF role to when it ends. Signatures are for devices to check: who retains says what is."""
    roots = [topics.metadata(f"{number}.root.json") for number in range(1, ROOTS_MAX + 1)]
    stamp = topics.metadata("timestamp.json")
    got = _retained(config, topics, [stamp, *roots[:6]], wait_s)
    found: dict[str, _Signed] = {}
    _read(found, "root", got.get(roots[5]))
    if found:
        got = {**got, **_retained(config, topics, roots[6:], wait_s)}
    for topic in roots:  # after the newest is what says that there is no newer one
        _read(found, "root", got.get(topic))
    _read(found, "timestamp", got.get(stamp))
    if "timestamp" in found:
        named = found["timestamp"].meta.get("snapshot.json")
        if named is not None:
            topic = topics.metadata(f"{named.version}.snapshot.json")
            _read(found, "snapshot", _retained(config, topics, [topic], wait_s).get(topic))
    if "snapshot" in found:
        roles = {
            name.removesuffix(".json"): topics.metadata(f"{version.version}.{name}")
            for name, version in sorted(found["snapshot"].meta.items())[:FILTERS_MAX]
        }
        held = _retained(config, topics, list(roles.values()), wait_s)
        for role, topic in roles.items():
            _read(found, role, held.get(topic))
    return {role: _ms(signed.expires) for role, signed in found.items()}


def _read(found: dict[str, _Signed], role: str, data: bytes | None) -> None:
    with contextlib.suppress(msgspec.DecodeError, ValueError, RecursionError):
        signed = _METADATA.decode(data or b"").signed
        _ms(signed.expires)
        found[role] = signed


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def _certificate(config: LinkConfig, wait_s: float) -> int:
    if not config.broker.tls:
        return 0
    return certificate_ms(config.broker.host, config.broker.port, wait_s)


def certificate_ms(host: str, port: int, wait_s: float = WAIT_S) -> int:
    """When the certificate that a TLS server shows ends; it is not checked. 0: it shows none."""
    from cryptography import x509  # noqa: PLC0415 (an extra)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=wait_s) as raw,
            context.wrap_socket(raw, server_hostname=host) as secured,
        ):
            shown = secured.getpeercert(binary_form=True)
    except (OSError, ValueError):
        return 0
    if not shown:
        return 0
    return int(x509.load_der_x509_certificate(shown).not_valid_after_utc.timestamp() * 1000)
