"""Which sources of chunks a device asks, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["mqtt", "http"]
HTTP_ABOVE_BYTES = 200_000_000
"""Retained bytes cost a broker as much memory: above this a mirror is asked first."""


@dataclass(frozen=True)
class Choice:
    """Which kinds of source a device uses, and in which order.

    Attributes:
        kinds: those that may be used, first the one to ask first.
        mirrors: of this device; the publisher's come after them.
        http_above_bytes: a bundle with more to fetch asks the mirrors first, if they may be used.
    """

    kinds: tuple[Kind, ...] = ("mqtt", "http")
    mirrors: tuple[str, ...] = ()
    http_above_bytes: int = HTTP_ABOVE_BYTES


ANY_SOURCE = Choice()


def order(choice: Choice, published: Sequence[str], size_bytes: int) -> tuple[str, ...]:
    """What to ask, in this order: base addresses of mirrors, and "" for the broker.

    Args:
        published: mirrors that the signed pointer names. size_bytes: still to fetch, at most.
    """
    mirrors = tuple(dict.fromkeys((*choice.mirrors, *published)))
    kinds = list(choice.kinds)
    if "http" in kinds and size_bytes > choice.http_above_bytes:
        kinds.sort(key=lambda kind: kind != "http")
    asked: list[str] = []
    for kind in kinds:
        asked.extend(mirrors if kind == "http" else ("",))
    return tuple(asked)
