"""The signature of a webhook, as Standard Webhooks 1.0.0 has it. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

Three headers: ``webhook-id`` (the firing's key: the same at each attempt), ``webhook-timestamp``
(seconds since 1970, of the attempt) and ``webhook-signature``: ``v1,`` and base64 of HMAC-SHA256
over ``id.timestamp.body``. A receiver recomputes it, compares in constant time, refuses a timestamp
that is minutes off, and does nothing for an id that it has seen.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from edge_contract.errors import InputFault

SECRET_PREFIX = "whsec_"  # noqa: S105 - how every secret begins
SECRET_MIN_BYTES, SECRET_MAX_BYTES = 24, 64


def secret_of(text: str) -> bytes:
    """The key in ``whsec_<base64>``. Raises InputFault, which never repeats the text."""
    advice = "Make one: echo whsec_$(head -c 32 /dev/urandom | base64)"
    text = text.strip()
    if not text.startswith(SECRET_PREFIX):
        raise InputFault(f"a webhook's secret begins with {SECRET_PREFIX}", advice=advice)
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InputFault("the webhook's secret is not base64", advice=advice) from None
    if not SECRET_MIN_BYTES <= len(key) <= SECRET_MAX_BYTES:
        raise InputFault(
            f"the webhook's secret has {len(key)} bytes, expected {SECRET_MIN_BYTES} to"
            f" {SECRET_MAX_BYTES}",
            advice=advice,
        )
    return key


def headers(secret: bytes, key: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers of one attempt."""
    signed = b".".join([key.encode(), str(timestamp_s).encode(), body])
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return {
        "webhook-id": key,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }
