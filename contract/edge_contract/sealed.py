"""Bytes that only the holder of a key can read: rows that a device set aside for its owner.

Guards: who seals cannot open (a key pair of one use, whose private half is forgotten); what was
changed on the way does not open. Needs the package cryptography, which is an extra.

    "EPS1", 32 bytes ephemeral public key, ChaCha20-Poly1305 ciphertext with its tag

The key is HKDF-SHA256 of the X25519 secret, salt: both public keys, info: the first four bytes;
the nonce is zeros, because no key is used twice; the first 36 bytes are authenticated with it.
Source: as age-encryption.org/v1 wraps its file keys; RFC 7748, RFC 5869, RFC 8439.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from edge_contract.errors import InputFault, MachineFault

FILE_MAX_BYTES = 16 * 1024**2
"""Of a sealed file, on the device, on its way and where it is opened."""
MAGIC = b"EPS1"
_HEAD_BYTES = len(MAGIC) + 32
OVERHEAD_BYTES = _HEAD_BYTES + 16
_NONCE = bytes(12)
_ADVICE = "Install it: pip install 'edge-pack[samples]'"


def new_key() -> tuple[str, str]:
    """A private and a public key, in base64."""
    x25519, _, _, _ = _library()
    private = x25519.X25519PrivateKey.generate()
    public = private.public_key()
    return _text(private.private_bytes_raw()), _text(public.public_bytes_raw())


def check_recipient(recipient: str) -> bytes:
    """The 32 bytes of a public key. Raises InputFault."""
    return _key(recipient, "recipient")


def seal(data: bytes, recipient: str) -> bytes:
    """``data`` for the holder of ``recipient``'s private half. Raises MachineFault."""
    x25519, hkdf, aead, sha256 = _library()
    to = _key(recipient, "recipient")
    own = x25519.X25519PrivateKey.generate()
    head = MAGIC + own.public_key().public_bytes_raw()
    secret = own.exchange(x25519.X25519PublicKey.from_public_bytes(to))
    key = hkdf(algorithm=sha256(), length=32, salt=head[4:] + to, info=MAGIC).derive(secret)
    sealed: bytes = aead(key).encrypt(_NONCE, data, head)
    return bytes(head) + sealed


def unseal(sealed: bytes, private: str) -> bytes:
    """What was sealed. Raises InputFault: another key's, changed, or not sealed at all."""
    x25519, hkdf, aead, sha256 = _library()
    if len(sealed) < OVERHEAD_BYTES or not sealed.startswith(MAGIC):
        raise InputFault("this is no sealed file of edge-pack, or it is cut off")
    own = x25519.X25519PrivateKey.from_private_bytes(_key(private, "private key"))
    head, body = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:]
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as _library

    try:
        secret = own.exchange(x25519.X25519PublicKey.from_public_bytes(head[4:]))
        salt = head[4:] + own.public_key().public_bytes_raw()
        key = hkdf(algorithm=sha256(), length=32, salt=salt, info=MAGIC).derive(secret)
        opened: bytes = aead(key).decrypt(_NONCE, body, head)
    except (InvalidTag, ValueError) as error:
        raise InputFault(
            "a sealed file does not open: it is for another key, or was changed",
            advice="`recipient` in [sampling] of the device's agent.toml belongs to its key.",
        ) from error
    return opened


def _key(text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputFault(f"the {what} is not base64") from error
    if len(raw) != 32:
        raise InputFault(f"the {what} has {len(raw)} bytes, expected 32")
    return raw


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _library() -> tuple[Any, Any, Any, Any]:
    """Of cryptography: keys, derivation, encryption, digest."""
    try:
        from cryptography.hazmat.primitives.asymmetric import x25519  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415
    except ImportError as error:
        raise MachineFault(
            "sealing rows needs a package that is not installed here: cryptography",
            advice=_ADVICE,
        ) from error
    return x25519, HKDF, ChaCha20Poly1305, SHA256


def check_installed() -> None:
    """Raises MachineFault where nothing could be sealed."""
    _library()
