"""What passes between a connection and who answers: requests, answers, and their bounds. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple


class Limits(NamedTuple):
    """What one client may take.

    Attributes:
        body_max_bytes: of a request, after decompression too.
        bodies_max_bytes: of all requests together that arrive, wait, or are being answered; one
            at least is let in.
        connections_max: at once, over all listeners.
        spare: connections beyond those, each for one question after the device's health or
            figures: a flood of requests must not hide how the device is.
        arrive_s: a request has to be here, and an answer to be taken, within this time.
        idle_s: a connection without a request is closed after this time.
    """

    body_max_bytes: int = 8 * 1024**2
    bodies_max_bytes: int = 64 * 1024**2
    connections_max: int = 256
    spare: int = 16
    arrive_s: float = 20.0
    idle_s: float = 120.0


class Request(NamedTuple):
    """One whole request; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    local: bool = False
    """It came through the Unix socket, whose file's mode says who may."""
    arrived_s: float = 0.0
    """By the monotonic clock, where it had to wait for a thread."""
    spare: bool = False
    """There are too many connections: only health and figures are answered."""


class Response(NamedTuple):
    """One whole answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Response | Awaitable[Response]]
Fault = Callable[[int, str], Response]
"""The answer for a request that never got as far as the handler."""


Answer = Response | bytes | None
"""Of a lane; bytes: a body of JSON with status 200; None: let the handler answer."""
Lane = Callable[[bytes], Answer]
"""Answers a body behind a head that is known, at once."""
LaneOf = Callable[[Request], Lane | None]
