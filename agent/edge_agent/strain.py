"""Whether this machine is strained: slowed down by heat, or short of memory; and what then rests.

Guards: who must know hears it once when it begins and once when it ends; only what nobody waits for
rests: shadow models, the look for updates. Requests are answered as ever.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_agent import memory, thermal
from edge_agent.steps import Tell
from edge_agent.thermal import Heat
from edge_contract.messages import STRAIN_SIGNS_MAX
from edge_contract.messages import Strain as Said

LOOK_S = 15.0
"""A look reads some dozens of small files: 1 to 5 ms."""
SLOWER = 4
"""The look for updates comes so many times later while the machine is strained."""
_SIGN_MAX_CHARS = 200


class Strain:
    """What was seen of the machine. ``look`` in one thread; the rest from any.

    Args:
        root: where ``proc`` and ``sys`` are.
    """

    def __init__(self, root: Path = thermal.ROOT) -> None:
        self._root = root
        self._seen = Heat()
        self._since_ms = 0
        self._stalled_percent = 0.0

    def look(self, now_s: float, wall_ms: int) -> Tell | None:
        """Read what the kernel says now; what the fleet should hear when it began or ended.

        Args:
            now_s: of the monotonic clock. wall_ms: since 1970 UTC.
        """
        before, seen = self._seen, thermal.read(self._root)
        held = memory.read(self._root)
        if held.short:
            percent = f"{held.stalled_percent:.0f} % of the last 10 s"
            seen = replace(seen, signs=(*seen.signs, f"memory is short: waited for it {percent}"))
        self._stalled_percent = held.stalled_percent
        self._seen = now = thermal.step(before, seen, now_s)
        if now.throttled == before.throttled:
            return None
        self._since_ms = max(wall_ms, 0)
        if now.throttled:
            return Tell("strained", "", "; ".join(now.signs))
        return Tell("relieved", "", f"after {now.since_s - before.since_s:.0f} s")

    @property
    def resting(self) -> bool:
        """What nobody waits for should not be done now."""
        return self._seen.throttled

    @property
    def said(self) -> Said:
        """The same in the contract's words."""
        signs = tuple(sign[:_SIGN_MAX_CHARS] for sign in self._seen.signs[:STRAIN_SIGNS_MAX])
        return Said(
            signs=signs,
            since_ms=self._since_ms,
            times=self._seen.times,
            temperature_c=self._seen.temperature_c,
            stalled_percent=self._stalled_percent,
        )
