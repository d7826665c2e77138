"""Which devices on other versions are like those on the new one, and what each then weighs. Pure.

Guards: sites and hardware differ, and a version that comes to some sites first is no worse for
that: both sides of a comparison are made of the same strata in the same shares. A weight is at most
1, so that what a bet on an outcome is worth in the mean only falls by it (Jensen: E[w^a] is at most
E[w]^a for a in [0, 1]): evidence stays evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from edge_fleet.rollouts import choosing

STRATUM_MIN = 4
"""Sites of fewer devices are one stratum together: in most nobody would be left to compare with."""

Stratum = tuple[str, str]
ALL: Stratum = ("", "")
"""Of devices that are like no other, and of those of which nothing is known."""


def strata(traits: Mapping[str, tuple[str, str]]) -> dict[str, Stratum]:
    """Of each device, by its hardware and site; small ones by hardware, or all together."""
    kinds = Counter(traits.values())
    found = {d: kind if kinds[kind] >= STRATUM_MIN else (kind[0], "") for d, kind in traits.items()}
    kinds = Counter(found.values())
    return {d: kind if kinds[kind] >= STRATUM_MIN else ALL for d, kind in found.items()}


def weights(
    new: Mapping[Stratum, int], old: Mapping[Stratum, int]
) -> tuple[dict[Stratum, float], dict[Stratum, float]]:
    """What an outcome of each stratum weighs on either side, in (0, 1]; none where a side lacks it.

    Args:
        new, old: outcomes of each stratum.

    With n of a stratum on one side and m on the other, it has min(n, r m) and min(n / r, m) by
    weight: the same shares on both sides, whatever r. Of all r the one is taken that loses least:
    with S by weight on the new side, S / (1 + r) is the size of two samples of S and S / r.
    """
    both = [kind for kind, many in new.items() if many and old.get(kind)]
    if not both:
        return {}, {}
    ratios = sorted({new[kind] / old[kind] for kind in both})
    worth = [(sum(min(new[k], r * old[k]) for k in both) / (1 + r), r) for r in ratios]
    ratio = max(worth)[1]
    shared = {kind: min(float(new[kind]), ratio * old[kind]) for kind in both}
    return (
        {kind: shared[kind] / new[kind] for kind in both},
        {kind: shared[kind] / ratio / old[kind] for kind in both},
    )


def controls(
    free: Collection[str], new: Collection[str], strata: Mapping[str, Stratum], most: int, lot: str
) -> list[str]:
    """At most ``most`` of ``free``: those of the strata of ``new`` first, in the shares of ``new``.

    By lot within a stratum, the same at each look; what is left goes to devices of other strata.
    """
    kinds = Counter(strata.get(device, ALL) for device in new)
    drawn = sorted(free, key=lambda device: choosing.lot(lot, device))
    seen: Counter[Stratum] = Counter()
    places = []
    for at, device in enumerate(drawn):
        kind = strata.get(device, ALL)
        seen[kind] += 1
        places.append((seen[kind] / kinds[kind] if kinds[kind] else float("inf"), at, device))
    return sorted(device for _, _, device in sorted(places)[:most])


@dataclass
class Counts:
    """Rows of each stratum: those that are wrong, and all."""

    wrong: Counter[Stratum] = field(default_factory=Counter)
    rows: Counter[Stratum] = field(default_factory=Counter)

    def add(self, stratum: Stratum, wrong: int, rows: int) -> None:
        """Count some."""
        self.wrong[stratum] += wrong
        self.rows[stratum] += rows


def alike(new: Counts, old: Counts) -> tuple[tuple[float, float], tuple[float, float]]:
    """(wrong, all) on either side, by what a row of each stratum weighs."""
    mine, theirs = weights(new.rows, old.rows)
    return _weighed(new, mine), _weighed(old, theirs)


def _weighed(counts: Counts, of: Mapping[Stratum, float]) -> tuple[float, float]:
    return (
        sum(weight * counts.wrong[kind] for kind, weight in of.items()),
        sum(weight * counts.rows[kind] for kind, weight in of.items()),
    )
