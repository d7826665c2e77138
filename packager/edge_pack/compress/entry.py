"""Forms on their way through a search, and what timing says of each.

Guards: a form is called slower only when two runs say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_pack.compress import pareto
from edge_pack.compress.bench import Alone, Benched
from edge_pack.compress.candidates import Candidate
from edge_pack.compress.modes import COMPUTE, Mode
from edge_pack.measure import Latency


@dataclass
class Entry:
    """One form on its way: what was made of it, and what became of it."""

    mode: Mode
    candidate: Candidate | None = None
    verdict: str = ""
    reason: str = ""
    alone: Alone | None = None
    latency: tuple[Latency, ...] = ()
    against: dict[int, float] = field(default_factory=dict)

    @property
    def made(self) -> Candidate:
        """The candidate, where there is one."""
        assert self.candidate is not None
        return self.candidate


def confirm(again: Sequence[Entry], found: Benched) -> None:
    """Let what was found slower stay so only where a second run says the same.

    Another process that takes the processor for some seconds makes a form look slower in every
    round of one run.
    """
    for entry in again[1:]:
        entry.verdict = entry.reason = ""
    keep(again, found)


def keep(timed: Sequence[Entry], found: Benched) -> dict[int, float]:
    """Write the figures into the entries, the first of which is float32; the noise."""
    base = found.timings[0]
    noise = pareto.noise_of(base, found.again)
    for entry, timing, alone, latency in zip(
        timed, found.timings, found.alone, found.latency, strict=True
    ):
        if entry is timed[0] and entry.latency:
            continue  # measured before
        entry.alone, entry.latency = alone, latency
        entry.against = pareto.ratios(base, timing, noise)
        if entry is timed[0] or entry.verdict:
            continue
        batch = pareto.slower_at(base, timing, noise)
        if batch is not None:
            entry.verdict = "slower"
            entry.reason = f"{entry.against[batch]:.2f} times float32 at batch {batch}"
        elif entry.mode in COMPUTE and min(entry.against.values()) >= 1:
            entry.verdict, entry.reason = "no faster", "int8 storage gives its bytes at no risk"
    return noise
