"""Who asks, whether they may, and how often: what every request goes through.

Guards, in this order: (1) the address has requests left; (2) the token is valid; (3) the token has
requests left; (4) its role may do it. A token that is not valid costs its address ``FAILED_COST``
requests. Tokens are read from the store at each request: a revoked one is void at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from edge_fleet.api import overview, tokens
from edge_fleet.api.limits import Buckets, of_address
from edge_fleet.rollouts.publication import Channels
from edge_fleet.store.api import ApiToken, Role
from edge_fleet.store.base import Store

FAILED_COST = 10.0
BURST_S = 10.0
"""A bucket holds what flows into it in so long."""
HEAVY_WAIT_S = 10.0
HEAVY_MAX = 8
"""Of long questions, answered or waiting: each holds a worker thread, and health needs one too."""
STREAMS_MAX = 100


@dataclass
class Service:
    """What the routes share.

    Attributes:
        clock_ms: milliseconds since 1970 UTC. clock_s: seconds that never go back.
        per_minute: requests of a token, and of an address.
        stopping: the server is told to end: streams do.
        channels: where to see whether a rollout's version is published; None: nowhere.
    """

    store: Store
    clock_ms: Callable[[], int]
    clock_s: Callable[[], float]
    per_minute: float = 1200.0
    tls: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)
    channels: Channels | None = None

    def __post_init__(self) -> None:
        per_s = self.per_minute / 60
        burst = max(FAILED_COST, per_s * BURST_S)
        self._addresses = Buckets(per_s, burst)
        self._tokens = Buckets(per_s, burst)
        self._heavy = threading.Lock()
        self._heavy_places = threading.Semaphore(HEAVY_MAX)
        self._streams = threading.Semaphore(STREAMS_MAX)
        self.overview = overview.Kept(self.store, self.clock_ms, self.clock_s).overview

    def admit(self, host: str, cost: float = 1.0) -> int:
        """Step 1: 0, or the seconds after which this address may ask again."""
        return self._addresses.take(of_address(host), self.clock_s(), cost)

    def caller(self, request: HTTPConnection, needed: Role) -> ApiToken:
        """Steps 2 to 4: whose request it is. Raises HTTPException: 401, 403 or 429."""
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        found = self.token(text.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            host = request.client.host if request.client else ""
            if scheme:
                self._addresses.charge(of_address(host), self.clock_s(), FAILED_COST - 1)
            raise HTTPException(
                401,
                "a valid token is needed: `edge-fleet api-tokens create`",
                {"WWW-Authenticate": 'Bearer realm="edge-fleet"'},
            )
        wait = self._tokens.take(found.id, self.clock_s())
        if wait:
            raise too_many(wait)
        if not tokens.may(found.role, needed):
            raise HTTPException(403, f"a {found.role} may not do this: it needs the role {needed}")
        return found

    def token(self, text: str) -> ApiToken | None:
        """The valid token that ``text`` is."""
        id = tokens.id_of(text)
        if id is None:
            return None
        with self.store.reading() as tx:
            kept = tx.api_token(id)
        return kept if tokens.valid(text, kept, self.clock_ms()) else None

    @contextmanager
    def heavy(self) -> Iterator[None]:
        """One at a time: what reads much and computes long. Raises HTTPException: 503."""
        busy = HTTPException(503, "another long question is being answered", {"Retry-After": "5"})
        if not self._heavy_places.acquire(blocking=False):
            raise busy
        try:
            if not self._heavy.acquire(timeout=HEAVY_WAIT_S):
                raise busy
            try:
                yield
            finally:
                self._heavy.release()
        finally:
            self._heavy_places.release()

    def open_stream(self) -> None:
        """Count a stream that begins. Raises HTTPException: 503."""
        if not self._streams.acquire(blocking=False):
            raise HTTPException(
                503, f"{STREAMS_MAX} streams are open already", {"Retry-After": "30"}
            )

    def close_stream(self) -> None:
        """Count a stream that ended."""
        self._streams.release()


def too_many(wait_s: int) -> HTTPException:
    """429, with the time after which it is worth trying again."""
    return HTTPException(429, "too many requests", {"Retry-After": str(wait_s)})
