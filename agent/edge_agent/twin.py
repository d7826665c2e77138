"""Whether another agent lives under this device's name, and how long to keep out of its way. Pure.

Guards: only proof counts: the broker's word that a session was taken over, or a birth message of
another run on this device's own topic after this run's own was seen there. A restart, a last
will, or a card that moved into another machine are none. What was not seen again for an hour is
over. Two agents that find each other wait longer each time, so that neither fights.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from edge_contract.messages import Status

TAKEN_OVER = "Session taken over"
"""MQTT 5 reason code 142 as paho words it. mosquitto 2.0.11 ends the connection without it."""
MEMORY_S = 3600.0
HOLD_MIN_S = 2.0
HOLD_MAX_S = 900.0
MEETINGS_MAX = 64
TAKEOVERS_MIN = 2
"""One alone: an agent that was replaced and stopped a moment later."""


@dataclass
class Twins:
    """What this run knows of others with its name. Times are of a monotonic clock.

    Attributes:
        run: this run's own number, in its birth message and last will.
    """

    run: str
    _born: bool = False
    _meetings: deque[float] = field(default_factory=lambda: deque(maxlen=MEETINGS_MAX))
    _takeovers: deque[float] = field(default_factory=lambda: deque(maxlen=MEETINGS_MAX))
    _other: Status | None = None

    def heard(self, status: Status, now_s: float) -> bool:
        """A status on this device's topic; True when it is the first sign of another agent."""
        if status.run == self.run:
            self._born = True
            return False
        if not (self._born and status.online and status.run):
            return False
        known = self.met(now_s)
        self._meetings.append(now_s)
        self._other = status
        return not known

    def dropped(self, reason: str, now_s: float) -> bool:
        """The connection ended; True when that is the first sign of another agent."""
        if reason != TAKEN_OVER:
            return False
        known = self.met(now_s)
        self._takeovers.append(now_s)
        return not known and self.met(now_s)

    def met(self, now_s: float) -> bool:
        """Whether there was another one within the last hour."""
        for times in (self._meetings, self._takeovers):
            while times and now_s - times[0] > MEMORY_S:
                times.popleft()
        return bool(self._meetings) or len(self._takeovers) >= TAKEOVERS_MIN

    def hold_s(self, now_s: float, rng: random.Random) -> float:
        """How long to stay away after the connection ended; 0 where nobody was met."""
        if not self.met(now_s):
            return 0.0
        times = max(len(self._meetings), len(self._takeovers))
        return min(HOLD_MIN_S * 2.0 ** min(times - 1, 20), HOLD_MAX_S) * rng.uniform(0.5, 1.5)

    def describe(self, now_s: float) -> str:
        """What is known of the other one; "" when nobody was met within the last hour."""
        if not self.met(now_s):
            return ""
        other = self._other
        if other is None:
            return "another agent takes over this device's session again and again"
        where = f" on machine {other.machine}" if other.machine else ""
        return f"another agent runs under this device's name: boot {other.boot}{where}"
