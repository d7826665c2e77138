"""Lets devices in that hold a one-time token, and makes such tokens.

Guards: a token is good once: what it admitted is on disk before the device hears of it, and the
same request again gets the same answer; every other use is refused and reported. No secret is
logged or kept: hashes only.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import queue
import secrets
import shlex
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_contract import broker_url, wire
from edge_contract.access import enrolment, passwords, registry
from edge_contract.access.enrolment import Answer, Request, TokenText
from edge_contract.access.registry import Refusal, Token
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.ports import certificates
from edge_contract.ports.accounts import Accounts
from edge_contract.ports.disk import read_bounded
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics
from edge_fleet.store.base import Fault

log = logging.getLogger(__name__)

RELOAD_TIMEOUT_S = 30.0
WAITING_MAX = 100
SECRET_BYTES = 24
TOKEN_ID_BYTES = 6


@dataclass(frozen=True)
class TokenOrder:
    """What a new token is to be.

    Attributes:
        device: the name it is for; "" lets the device choose a free one.
        broker: as devices reach it. root: fingerprint of the publisher's root, 64 hex digits.
        insecure: allow a broker without TLS that is not this machine's.
    """

    fleet: str
    device: str
    channel: str
    broker: str
    root: str
    expires_s: int
    mtls_port: int = 0
    public_ca: bool = False
    insecure: bool = False


def create_token(accounts: Accounts, order: TokenOrder) -> tuple[Token, str]:
    """A new token and its text, which nobody can print a second time.

    Raises InputFault when its password would travel in the clear or the name is taken.
    """
    url = broker_url.parse(order.broker)
    if url.user:
        raise InputFault("--broker names a user; a token brings its own")
    if not url.tls and not _loopback(url.host) and not order.insecure:
        raise InputFault(
            f"{url} has no TLS: the token and the device's password would travel in the clear",
            advice="Give mqtts://HOST (edge-pack broker-acl --tls HOST), or --insecure.",
        )
    secret = secrets.token_urlsafe(SECRET_BYTES)
    text = TokenText(
        id=secrets.token_hex(TOKEN_ID_BYTES), secret=secret, url=order.broker, fleet=order.fleet,
        root=order.root, prefix=accounts.read().prefix, channel=order.channel,
        device=order.device, ca=_authority(accounts, order) if url.tls else b"",
        mtls_port=order.mtls_port,
    )  # fmt: skip
    written = enrolment.write(text)
    enrolment.read(written)  # what a device will check, checked here
    now_s = accounts.now_s()
    token = Token(
        id=text.id,
        fleet=order.fleet,
        device=order.device,
        channel=order.channel,
        secret=hashlib.sha256(secret.encode()).hexdigest(),
        password=passwords.hashed(secret, secrets.token_bytes(passwords.SALT_BYTES)),
        created_s=now_s,
        expires_s=now_s + order.expires_s,
    )
    with accounts.changing() as box:
        box.now = registry.with_token(box.now, token)
    return token, written


def reload_broker(command: str) -> None:
    """Run the command that makes the broker read its accounts again; "" is none.

    Raises MachineFault when it fails.
    """
    if not command:
        return
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command, without a shell
            shlex.split(command), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=RELOAD_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise MachineFault(f"cannot reload the broker: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[:200]
        raise MachineFault(f"reloading the broker failed with {done.returncode}: {said}")


class Enroller:
    """Answers devices that enrol, on a connection of its own.

    Args:
        reload: command that makes the broker read its accounts again; "" where it looks itself.
        on_fault: gets what is to be reported.
    """

    def __init__(
        self,
        link: LinkConfig,
        topics: Topics,
        accounts: Accounts,
        *,
        reload: str = "",
        on_fault: Callable[[Fault], None] = lambda _: None,
    ) -> None:
        self._topics = topics
        self._accounts = accounts
        self._reload = reload
        self._on_fault = on_fault
        self._asked: queue.Queue[Message | None] = queue.Queue(WAITING_MAX)
        self._link = Link(link, on_message=self._received, on_up=self._up)
        self._thread = threading.Thread(target=self._serve, name="enroller", daemon=True)

    def start(self) -> None:
        """Connect, and answer from now on."""
        self._thread.start()
        self._link.start()

    def stop(self) -> None:
        """Answer what came, then end."""
        self._asked.put(None)
        self._thread.join(RELOAD_TIMEOUT_S)
        self._link.stop()

    # -- in the network's thread -------------------------------------------------------------

    def _up(self, _session_present: bool) -> None:
        ticket = self._link.subscribe([self._topics.enrol_filter()])
        ticket.then(lambda ok: None if ok else log.error("may not answer enrolments: rights?"))

    def _received(self, message: Message) -> None:
        try:
            self._asked.put_nowait(message)
        except queue.Full:
            log.warning("too many devices enrol at once: one is left to ask again")

    # -- in its own thread -------------------------------------------------------------------

    def _serve(self) -> None:
        while (message := self._asked.get()) is not None:
            try:
                self._hear(message)
            except EdgeError as error:  # its device asks again
                log.error("an enrolment failed: %s", error.what)  # noqa: TRY400
            except Exception:  # a bug must not keep all other devices out
                log.exception("an enrolment failed")

    def _hear(self, message: Message) -> None:
        token_id = message.topic.split("/")[-2]
        try:
            request = wire.decode_json(
                message.payload, Request, size_max=enrolment.MESSAGE_MAX_BYTES
            )
        except InputFault:
            self._refused("", Refusal("bad-token", "a malformed request for enrolment"))
            return
        try:
            answer = self._admit(token_id, request)
        except Refusal as refusal:
            self._refused(request.device, refusal)
            answer = Answer(request=request.digest, problem=refusal.what[:200])
        topic = self._topics.enrol_answer(token_id)
        self._link.publish(topic, wire.encode_json(answer), expiry_s=3600)

    def _admit(self, token_id: str, request: Request) -> Answer:
        with self._accounts.changing() as box:
            token = registry.redeem(box.now, token_id, request, self._accounts.now_s())
            if token.fleet != self._topics.fleet:
                raise Refusal("bad-token", "no such token")
            answer = token.answer
            if answer is None:
                answer = Answer(request=request.digest, certificate=self._certificate(request))
                box.now = registry.redeemed(box.now, token, request, answer, self._accounts.now_s())
        reload_broker(self._reload)
        log.info("device %s is enrolled by token %s", request.device, token_id)
        return answer

    def _certificate(self, request: Request) -> str:
        if not request.csr:
            return ""
        ca, key = self._accounts.ca, self._accounts.ca_key
        if not key.exists():
            raise Refusal("bad-token", "this fleet issues no certificates: it has no authority")
        try:
            return certificates.issue(ca, key, request.csr, request.device)
        except InputFault as error:
            raise Refusal("bad-token", "the certificate request is malformed") from error

    def _refused(self, device: str, refusal: Refusal) -> None:
        log.warning("enrolment of %r is refused: %s", device, refusal.what)
        now_ms = self._accounts.now_s() * 1000
        self._on_fault(Fault(device, refusal.kind, refusal.what, now_ms))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authority(accounts: Accounts, order: TokenOrder) -> bytes:
    """The broker's authority as DER, for the token to carry."""
    if order.public_ca:
        return b""
    if not accounts.ca.exists():
        raise InputFault(
            f"there is no authority in {accounts.folder}",
            advice="Make one (edge-pack broker-acl --tls HOST), put the broker's own at"
            f" {accounts.ca}, or say --public-ca where every device knows it.",
        )
    return ssl.PEM_cert_to_DER_cert(_first_certificate(accounts.ca))


def _first_certificate(path: Path) -> str:
    text = read_bounded(path, 64 * 1024).decode(errors="replace")
    _, _, rest = text.partition("-----BEGIN CERTIFICATE-----")
    body, end, _ = rest.partition("-----END CERTIFICATE-----")
    if not end:
        raise InputFault(f"{path} holds no certificate in PEM")
    return f"-----BEGIN CERTIFICATE-----{body}-----END CERTIFICATE-----\n"
