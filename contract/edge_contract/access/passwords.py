"""Broker passwords as mosquitto keeps them: ``$7$<rounds>$<salt>$<digest>``. Pure.

PBKDF2 (RFC 8018) with SHA-512 over a salt, salt and digest in base64: what mosquitto_passwd 2.0
writes. The passwords of this project are random and of 192 bits, so few rounds do: nobody can try
them all, whatever one try costs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

ROUNDS = 101
"""Of mosquitto_passwd 2.0."""
SALT_BYTES = 12
ROUNDS_MAX = 1_000_000
PASSWORD_BYTES = 24
"""Of randomness in a password that is made here."""

_HASH = re.compile(r"\$7\$(\d{1,7})\$([A-Za-z0-9+/=]{4,128})\$([A-Za-z0-9+/=]{88})")


def hashed(password: str, salt: bytes, *, rounds: int = ROUNDS) -> str:
    """What a password file holds of ``password``."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    encoded = [base64.b64encode(part).decode() for part in (salt, digest)]
    return f"$7${rounds}${encoded[0]}${encoded[1]}"


def is_hash(text: str, *, rounds_max: int = ROUNDS_MAX) -> bool:
    """Whether ``text`` is a hash that ``matches`` reads, at a bounded cost."""
    found = _HASH.fullmatch(text)
    return found is not None and 1 <= int(found[1]) <= rounds_max


def matches(text: str, password: str) -> bool:
    """Whether ``password`` has the hash ``text``; False for what is no hash."""
    found = _HASH.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= ROUNDS_MAX:
        return False
    try:
        salt = base64.b64decode(found[2], validate=True)
    except binascii.Error:
        return False
    return hmac.compare_digest(hashed(password, salt, rounds=int(found[1])), text)
