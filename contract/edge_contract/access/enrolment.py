"""What a device and the fleet say to each other when the device enrols, and the token's text. Pure.

Guards: the secret of an answer is none: the device makes its password and its key itself, and
sends a hash and a certificate request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from edge_contract import broker_url, wire
from edge_contract.errors import InputFault
from edge_contract.messages import Name, Short
from edge_contract.names import check_name, check_sha256
from edge_contract.topics import DEFAULT_PREFIX, Topics
from edge_contract.typed import msgpack_decoder

MESSAGE_MAX_BYTES = 16 * 1024
TOKEN_MAX_CHARS = 16 * 1024
TOKEN_PREFIX = "edge1:"  # noqa: S105 - how every token begins
CHECK_BYTES = 4

Pem = Annotated[str, Meta(max_length=8000)]


class Request(Struct, frozen=True, kw_only=True):
    """A device asks to be let in.

    Attributes:
        secret: of the token. device: the name it takes.
        password: hash of the password that it made, or "".
        csr: certificate request in PEM, or "". Only its key counts, no name in it.
        machine: fingerprint of the hardware.
    """

    schema: int = 1
    secret: Annotated[str, Meta(max_length=200)]
    device: Name
    password: Short = ""
    csr: Pem = ""
    machine: Short = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the whole request."""
        return hashlib.sha256(wire.encode_json(self)).hexdigest()


class Answer(Struct, frozen=True, kw_only=True):
    """The fleet's word on one request.

    Attributes:
        request: the digest of the request that is answered.
        problem: why not; "" when the device is in. certificate: PEM, when one was asked for.
    """

    schema: int = 1
    request: Annotated[str, Meta(max_length=64)]
    problem: Short = ""
    certificate: Pem = ""


class TokenText(Struct, frozen=True, kw_only=True, array_like=True):
    """What a person pastes: all that a device needs to become one of a fleet.

    Attributes:
        url: the broker, without user. ca: its authority as DER, b"" for the system's.
        root: fingerprint of the publisher's root, 64 hex digits.
        device: "" lets the device choose.
        mtls_port: where the broker wants certificates; 0: nowhere.
    """

    id: Name
    secret: Annotated[str, Meta(min_length=16, max_length=200)]
    url: Short
    fleet: Name
    root: str
    prefix: str = DEFAULT_PREFIX
    channel: Name = "stable"
    device: Annotated[str, Meta(max_length=64)] = ""
    ca: Annotated[bytes, Meta(max_length=6000)] = b""
    mtls_port: Annotated[int, Meta(ge=0, le=65535)] = 0

    def __repr__(self) -> str:
        return f"TokenText(id={self.id!r})"

    @property
    def topics(self) -> Topics:
        """Of its fleet."""
        return Topics(self.fleet, self.prefix)


def write(token: TokenText) -> str:
    """``edge1:`` and base64url of the token and a check of it."""
    packed = msgspec.msgpack.encode(token)
    check = hashlib.sha256(packed).digest()[:CHECK_BYTES]
    return TOKEN_PREFIX + base64.urlsafe_b64encode(packed + check).decode().rstrip("=")


def read(text: str) -> TokenText:
    """The token in ``text``; space and line breaks in it do not matter. Raises InputFault.

    No error of it repeats the text.
    """
    text = "".join(text.split())
    damaged = "Copy it whole, as `edge-fleet tokens create` printed it."
    if not text.startswith(TOKEN_PREFIX) or len(text) > TOKEN_MAX_CHARS:
        raise InputFault(f"a token begins with {TOKEN_PREFIX!r}; this does not", advice=damaged)
    body = text.removeprefix(TOKEN_PREFIX)
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InputFault("the token is not base64", advice=damaged) from None
    packed, check = raw[:-CHECK_BYTES], raw[-CHECK_BYTES:]
    if hashlib.sha256(packed).digest()[:CHECK_BYTES] != check:
        raise InputFault("the token is damaged: its check does not fit", advice=damaged)
    try:
        token = msgpack_decoder(TokenText).decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputFault(f"the token is of another kind: {type(error).__name__}") from None
    check_sha256(token.root, "the token's root fingerprint")
    if token.device:
        check_name(token.device, "device")
    broker_url.parse(token.url)
    Topics(token.fleet, token.prefix)
    return token
