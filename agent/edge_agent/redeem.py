"""A one-time token becomes this device's own account.

Guards: the password and the private key are made here and never leave: the fleet gets a hash and
a certificate request. What was asked is on disk first, so that a device that lost power asks the
very same again and gets the same answer. Secrets are 0600 and in no message, log or error.
"""

from __future__ import annotations

import ipaddress
import queue
import secrets
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_contract import broker_url, wire
from edge_contract.access import enrolment, passwords
from edge_contract.access.enrolment import Answer, Request, TokenText
from edge_contract.access.registry import TOKEN_USER
from edge_contract.broker_url import BrokerUrl
from edge_contract.errors import InputFault, PeerFault
from edge_contract.names import check_name
from edge_contract.ports import certificates
from edge_contract.ports.disk import read_bounded, write_atomic
from edge_contract.ports.mqtt import Link, LinkConfig, Message

CONNECT_S = 20.0
ASK_AGAIN_S = 5.0
"""The fleet's server may be starting, or just have let go of the broker."""


@dataclass(frozen=True)
class Keys:
    """Where a device's secrets lie: beside its settings.

    Attributes:
        pending: what was asked of the fleet, until the answer came.
    """

    settings: Path

    @property
    def ca(self) -> Path:
        """The broker's authority."""
        return self._beside("ca.pem")

    @property
    def password(self) -> Path:
        """The password, with a line end."""
        return self._beside("password")

    @property
    def key(self) -> Path:
        """The private key."""
        return self._beside("key")

    @property
    def certificate(self) -> Path:
        """Its certificate."""
        return self._beside("crt")

    @property
    def pending(self) -> Path:
        """See the class."""
        return self._beside("enrolling")

    def _beside(self, suffix: str) -> Path:
        return self.settings.with_name(f"{self.settings.stem}.{suffix}")


@dataclass(frozen=True)
class Admitted:
    """What the fleet said yes to: settings for ``enrol.write_config``, and the publisher's root."""

    device: str
    fleet: str
    channel: str
    prefix: str
    broker: str
    root: str
    ca: str
    cert: str
    key: str
    password_file: str


def read_token(text: str, ask: Callable[[], str]) -> TokenText:
    """The token as given, in a file (``@FILE``), or (``-``) as ``ask`` gets it from a person."""
    if text == "-":
        text = ask()
    elif text.startswith("@"):
        text = read_bounded(Path(text[1:]), enrolment.TOKEN_MAX_CHARS).decode(errors="replace")
    return enrolment.read(text)


def redeem(
    token: TokenText,
    settings: Path,
    *,
    device: str,
    certificate: bool,
    machine: str,
    timeout_s: float,
) -> Admitted:
    """Ask the fleet to let this device in; what it needs is beside ``settings`` afterwards.

    Raises InputFault when the token does not allow it, PeerFault when the fleet refuses or is
    silent; then the same may be tried again.
    """
    name = _name(token, device)
    if certificate and not token.mtls_port:
        raise InputFault(
            "this token is for a password: its broker asks for no certificates",
            advice="Leave --certificate out, or have a token made with --mtls-port.",
        )
    keys = Keys(settings)
    url = broker_url.parse(token.url)
    if token.ca:
        write_atomic(keys.ca, ssl.DER_cert_to_PEM_cert(token.ca).encode())
    request = _request(token, keys, name, certificate=certificate, machine=machine)
    answer = _ask(token, url, str(keys.ca) if token.ca else "", request, timeout_s)
    if answer.problem:
        keys.pending.unlink(missing_ok=True)
        raise PeerFault(
            f"the fleet refuses this device: {answer.problem}",
            advice="Ask for a new token: edge-fleet tokens create DEVICE.",
        )
    if certificate:
        write_atomic(keys.certificate, answer.certificate.encode())
    own = replace(url, port=token.mtls_port) if certificate else replace(url, user=name)
    return Admitted(
        device=name,
        fleet=token.fleet,
        channel=token.channel,
        prefix=token.prefix,
        broker=str(own),
        root=f"sha256:{token.root}",
        ca=keys.ca.name if token.ca else "",
        cert=keys.certificate.name if certificate else "",
        key=keys.key.name if certificate else "",
        password_file="" if certificate else keys.password.name,
    )


def warn_without_tls(url: BrokerUrl) -> None:
    """A person should know that the wire is open."""
    if not url.tls and not _loopback(url.host):
        sys.stderr.write(f"warning: {url} has no TLS: whoever hears the wire has the password\n")


def _name(token: TokenText, device: str) -> str:
    if token.device and device and device != token.device:
        raise InputFault(f"the token is for device {token.device}, not {device[:80]!r}")
    return check_name(token.device or device, "device")


def _request(
    token: TokenText, keys: Keys, name: str, *, certificate: bool, machine: str
) -> Request:
    """What was asked before, if the power went meanwhile; else a new request, on disk first."""
    if keys.pending.exists():
        kept = wire.decode_json(
            read_bounded(keys.pending, enrolment.MESSAGE_MAX_BYTES), Request,
            size_max=enrolment.MESSAGE_MAX_BYTES,
        )  # fmt: skip
        if (kept.secret, kept.device, bool(kept.csr)) == (token.secret, name, certificate):
            return kept
    hashed = csr = ""
    if certificate:
        keys.key.unlink(missing_ok=True)
        csr = certificates.make_request(keys.key)
    else:
        password = secrets.token_urlsafe(passwords.PASSWORD_BYTES)
        hashed = passwords.hashed(password, secrets.token_bytes(passwords.SALT_BYTES))
        write_atomic(keys.password, password.encode() + b"\n", mode=0o600)
    request = Request(secret=token.secret, device=name, password=hashed, csr=csr, machine=machine)
    write_atomic(keys.pending, wire.encode_json(request), mode=0o600)
    return request


def _ask(token: TokenText, url: BrokerUrl, ca: str, request: Request, timeout_s: float) -> Answer:
    """Ask until the fleet answers this request."""
    user = f"{TOKEN_USER}{token.id}"
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def heard(message: Message) -> None:
        try:
            answer = wire.decode_json(message.payload, Answer, size_max=enrolment.MESSAGE_MAX_BYTES)
        except InputFault:
            return  # somebody else's garbage; the deadline stands
        if answer.request == request.digest:
            answers.put(answer)

    account = replace(url, user=user, password=token.secret)
    link = Link(LinkConfig(broker=account, client_id=user, ca_file=ca), on_message=heard)
    try:
        link.start(CONNECT_S)
    except PeerFault as error:
        raise PeerFault(
            error.what,
            advice="The token may be over (used, expired, revoked), or the broker has not read its"
            " accounts again since it was made: edge-fleet tokens list.",
        ) from error
    try:
        link.subscribe([token.topics.enrol_answer(token.id)]).wait(CONNECT_S)
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            link.publish(token.topics.enrol_request(token.id), wire.encode_json(request))
            try:
                return answers.get(timeout=min(ASK_AGAIN_S, left_s))
            except queue.Empty:
                continue
    finally:
        link.stop()
    raise PeerFault(
        f"the fleet's server did not answer within {timeout_s:g} s",
        advice="Start it with the accounts (edge-fleet serve --accounts DIR), then try again.",
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
