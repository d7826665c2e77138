"""The state of one client that outlives its connection (MQTT 5.0 §4.1). Pure."""

from typing import Protocol

from edge_fleet.broker.outbox import Outbox
from edge_fleet.broker.packets import Will
from edge_fleet.broker.reasons import ReasonCode
from edge_fleet.broker.router import Subscription

NEVER_EXPIRES = 0xFFFFFFFF  # §3.1.2.11.2


class Peer(Protocol):
    """The connection of a session, seen from the engine."""

    @property
    def ready(self) -> bool:
        """Whether it takes more messages now."""

    def write(self, data: bytes) -> None:
        """Send bytes, soon."""

    def close(self, reason: ReasonCode, text: str) -> None:
        """Say DISCONNECT, close, and detach from the session."""


class Timer(Protocol):
    """A call that has not happened yet."""

    def cancel(self) -> None: ...


class Session:
    """Subscriptions by their whole filter, deliveries, and identifiers of QoS 2 messages received.

    `expiry_s` 0 ends with the connection. A session belongs to the user who began it.
    """

    def __init__(self, client_id: str, username: str | None, max_queue_bytes: int) -> None:
        self.client_id = client_id
        self.username = username
        self.expiry_s = 0
        self.ends_at: float | None = None  # while not connected, unless it never ends
        self.subscriptions: dict[str, Subscription] = {}
        self.outbox = Outbox(max_queue_bytes)
        self.received: set[int] = set()
        self.peer: Peer | None = None
        self.will: Will | None = None
        self.timers: list[Timer] = []

    @property
    def persistent(self) -> bool:
        """Whether it outlives a connection."""
        return self.expiry_s > 0

    def cancel_timers(self) -> None:
        """Neither the will nor the end of the session is due any more."""
        while self.timers:
            self.timers.pop().cancel()
