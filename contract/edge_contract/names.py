"""Names and versions that may stand in a topic, a path and a log line.

Guards: a name that passes here holds no slash, no MQTT wildcard, no dot-dot and no control
character, so it can be put into a topic or a path without further escaping.
"""

from __future__ import annotations

import re

from edge_contract.errors import InputFault

NAME_MAX_CHARS = 64

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION_PART = re.compile(r"(\d+)|([A-Za-z]+)|[.+_-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_name(text: str, what: str) -> str:
    """Return ``text`` if it is a name (1 to 64 of ``A-Za-z0-9._-``, a letter or digit first).

    Raises:
        InputFault: it is not; ``what`` names the thing in the message.
    """
    if not _NAME.fullmatch(text):
        raise InputFault(
            f"{what} {text[:80]!r} is not a valid name",
            advice="Use 1 to 64 letters, digits, '.', '_' or '-', with a letter or digit first.",
        )
    return text


def check_sha256(text: str, what: str) -> str:
    """Return ``text`` if it is a SHA-256 in 64 lower-case hex digits, else raise InputFault."""
    if not _SHA256.fullmatch(text):
        raise InputFault(f"{what} {text[:80]!r} is not a SHA-256 in 64 lower-case hex digits")
    return text


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Order versions: numbers by value, words before numbers, so ``1.0rc1 < 1.0 < 1.0.1``.

    A version is any name; this is a total order over them that agrees with PEP 440 and SemVer
    on releases and plain pre-releases.
    """
    parts: list[tuple[int, int, str]] = []
    for number, word in _VERSION_PART.findall(version):
        if number:
            parts.append((2, int(number), ""))
        elif word:
            _drop_zeros(parts)
            parts.append((0, 0, word.lower()))
    _drop_zeros(parts)
    parts.append((1, 0, ""))
    return tuple(parts)


def _drop_zeros(parts: list[tuple[int, int, str]]) -> None:
    """``1.0`` and ``1`` are one version, and so are ``1.0rc1`` and ``1rc1``."""
    while parts and parts[-1] == (2, 0, ""):
        parts.pop()
