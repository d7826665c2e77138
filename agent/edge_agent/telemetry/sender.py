"""Records from the spool to the broker: each leaves the disk only after its PUBACK.

Guards: a record is sent again until the broker said yes (the store keeps one by its device, boot
and sequence numbers), and that somebody listens, where it says so (mosquitto, EMQX and HiveMQ do):
a collector that is set up later finds what came before; a record that no broker will ever take
does not block those behind it; a bounded number is on its way at once.

No thread and no sleep of its own: ``kick`` after an append, after each connect, and now and then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from edge_agent.telemetry.spool import Key, Spool
from edge_contract.ports.mqtt import Ticket

log = logging.getLogger(__name__)

EXPIRY_S = 7 * 86400
IN_FLIGHT_MAX = 16
RESEND_S = 60.0
"""A connection that lives but lost a PUBACK: after this the record is sent once more."""
RESEND_MAX_S = 3600.0
RETRY_S = 30.0
UNHEARD_MAX_S = 900.0
"""Nobody collects: one record asks again after ``RETRY_S``, then twice as long, up to this."""
PACKET_OVERHEAD_BYTES = 64
"""Fixed header, lengths, packet id and properties of a PUBLISH, without its topic."""
POISON = ("Packet too large", "Payload format invalid")
"""Reason codes 0x95 and 0x99 as paho words them: no later attempt can succeed."""


class Line(Protocol):
    """What the sender needs of ``edge_contract.ports.mqtt.Link``."""

    @property
    def up(self) -> bool:
        """Connected at this moment."""

    @property
    def peer_packet_max_bytes(self) -> int | None:
        """The largest packet that the broker takes; None: it named no bound."""

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, expiry_s: int | None = None
    ) -> Ticket:
        """Send one message."""


class _Flight:
    """A record on its way."""

    def __init__(self, due_s: float, wait_s: float) -> None:
        self.due_s = due_s
        self.wait_s = wait_s


class Sender:
    """Sends what waits in ``spool`` to ``topic``. Thread-safe; ``kick`` never blocks on the net.

    Args:
        clock_s: a monotonic clock.
    """

    def __init__(
        self,
        link: Line,
        spool: Spool,
        topic: str,
        *,
        in_flight_max: int = IN_FLIGHT_MAX,
        resend_s: float = RESEND_S,
        retry_s: float = RETRY_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._link = link
        self._spool = spool
        self._topic = topic
        self._in_flight_max = in_flight_max
        self._resend_s = resend_s
        self._retry_s = retry_s
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._flights: dict[Key, _Flight] = {}
        self._paused_until_s = -1.0
        self._unheard_s = 0.0
        self._pumping = False
        self._again = False

    @property
    def in_flight(self) -> int:
        """Records sent and not yet acknowledged."""
        with self._lock:
            return len(self._flights)

    def kick(self) -> None:
        """Send what may be sent now. From any thread, the network's included."""
        with self._lock:
            self._again = True
            if self._pumping:
                return
            self._pumping = True
        while self._take_turn():
            self._pump()

    def _take_turn(self) -> bool:
        """Whether there is something to look at; else the pump is free for the next kick."""
        with self._lock:
            self._pumping, self._again = self._again, False
            return self._pumping

    def _pump(self) -> None:
        now_s = self._clock_s()
        if not self._link.up or now_s < self._paused_until_s:
            return
        for key in self._claim(self._spool.keys(), now_s):
            data = self._spool.read(key)
            bound = self._link.peer_packet_max_bytes
            if data is None:
                self._land(key)
            elif bound and len(data) + len(self._topic) + PACKET_OVERHEAD_BYTES > bound:
                self._spool.drop(key, f"{len(data)} bytes, the broker takes packets of {bound}")
                self._land(key)
            else:
                self._send(key, data)

    def _claim(self, keys: list[Key], now_s: float) -> list[Key]:
        """The records to send now, oldest first; from here on they count as on their way."""
        claimed: list[Key] = []
        with self._lock:
            most = 1 if self._unheard_s else self._in_flight_max
            for key in keys:
                flight = self._flights.get(key)
                if flight is None:
                    if len(self._flights) >= most:
                        break
                    self._flights[key] = _Flight(now_s + self._resend_s, self._resend_s)
                    claimed.append(key)
                elif now_s >= flight.due_s:
                    flight.wait_s = min(2 * flight.wait_s, RESEND_MAX_S)
                    flight.due_s = now_s + flight.wait_s
                    claimed.append(key)
        return claimed

    def _send(self, key: Key, data: bytes) -> None:
        ticket = self._link.publish(self._topic, data, qos=1, expiry_s=EXPIRY_S)
        ticket.then(
            lambda accepted: self._unheard(key) if ticket.unheard
            else self._answered(key, accepted, ticket.error)
        )  # fmt: skip

    def _unheard(self, key: Key) -> None:
        """Keep the record, and ask less and less often."""
        now_s = self._clock_s()
        with self._lock:
            if now_s >= self._paused_until_s:  # those that were on their way with it say no more
                if not self._unheard_s:
                    log.warning("nobody collects telemetry at this broker: it is kept")
                self._unheard_s = min(2 * self._unheard_s or self._retry_s, UNHEARD_MAX_S)
                self._paused_until_s = now_s + self._unheard_s
        self._land(key)

    def _answered(self, key: Key, accepted: bool, error: str) -> None:
        if accepted:
            self._unheard_s = 0.0
            self._spool.done(key)
        elif error in POISON:
            self._spool.drop(key, f"the broker refused it: {error}")
        else:
            log.warning("record %d-%d refused, to be sent again: %s", *key, error)
            self._paused_until_s = self._clock_s() + self._retry_s
        self._land(key)
        self.kick()

    def _land(self, key: Key) -> None:
        with self._lock:
            self._flights.pop(key, None)
