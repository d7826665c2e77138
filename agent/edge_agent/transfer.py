"""How far the download of one bundle is, what it waits for and until when. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime

RATE_OVER_S = 10.0
"""The rate is that of the last so many seconds."""
_SAMPLES_MAX = 64


@dataclass(frozen=True)
class Transfer:
    """A bundle's way to the disk, at one moment.

    Attributes:
        version: of the bundle.
        done_bytes, total_bytes: stored bytes that are here, and all; 0 before that is known.
        bytes_per_s: what came over the network lately.
        wait: what is waited for, with ``text`` for a person; "" while bytes come.
        until_ms: when that ends, by the device's clock; 0: not known.
    """

    version: str
    done_bytes: int = 0
    total_bytes: int = 0
    bytes_per_s: int = 0
    wait: str = ""
    text: str = ""
    until_ms: int = 0

    @property
    def share(self) -> float:
        """Of the bytes that are here."""
        return self.done_bytes / self.total_bytes if self.total_bytes else 0.0

    def waiting(self, wait: str, text: str, until: datetime | None) -> Transfer:
        """The same, held back."""
        until_ms = max(int(until.timestamp() * 1000), 0) if until else 0
        return replace(self, bytes_per_s=0, wait=wait, text=text, until_ms=until_ms)

    def moving(self, done_bytes: int, total_bytes: int, bytes_per_s: int) -> Transfer:
        """The same, going on."""
        return Transfer(self.version, done_bytes, total_bytes, bytes_per_s)


class Meter:
    """Bytes a second over the last ``RATE_OVER_S``."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=_SAMPLES_MAX)

    def rate(self, now_s: float, came_bytes: int) -> int:
        """The rate, given that ``came_bytes`` came by ``now_s`` in all; both never fall."""
        while self._seen and now_s - self._seen[0][0] > RATE_OVER_S:
            self._seen.popleft()
        self._seen.append((now_s, came_bytes))
        since_s, before = self._seen[0]
        return round((came_bytes - before) / (now_s - since_s)) if now_s > since_s else 0
