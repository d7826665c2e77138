"""Which answered rows are set aside for the owner: drifted, uncertain, and some by chance.

Guards: features of the deny-list and free text are gone before anything else happens; no more rows
than the quota, spread over the day. Pure: rows in, chosen rows out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_agent.settings import Sampling
from edge_contract.manifest import Manifest
from edge_contract.profile import Monitor, Profile

Why = Literal["drifted", "uncertain", "random"]
DAY_S = 86_400.0
BURST = 1 / 24
"""So much of a day's quota may come at once."""

Numbers = bytes | tuple[float, ...]
Seen = tuple[int, Numbers, Sequence[tuple[str, ...]], Sequence[int], Sequence[float]]
"""One answered call: rows, numbers (float64 or those of one row), categories, labels, scores."""


class Sample(Struct, frozen=True, kw_only=True):
    """One row, as it is sealed.

    Attributes:
        why: it was chosen. label: as answered, "" for none. score: of the label (of two: of the
            last one), or the value.
        values: by feature; None: missing.
    """

    why: Why
    label: str
    score: float | None
    values: dict[str, float | str | None]


class Chooser:
    """Chooses among the rows of one version."""

    def __init__(
        self, manifest: Manifest, profile: Profile | None, rules: Sampling, rng: random.Random
    ) -> None:
        self._rules = rules
        self._rng = rng
        self._numbers = [f.name for f in manifest.features if f.type == "number"]
        self._texts = [f.name for f in manifest.features if f.type == "category"]
        self._labels = tuple(str(label) for label in manifest.outputs.labels)
        self._threshold = manifest.outputs.threshold or 0.5
        monitors = {m.name: m for m in profile.monitors if m.source == "feature"} if profile else {}
        self._low, self._high = _ranges(self._numbers, monitors)
        self._known = {
            at: {*monitors[name].categories, *monitors[name].others, ""}
            for at, name in enumerate(self._texts)
            if name in monitors and monitors[name].kind == "category"
        }

    @property
    def fits(self) -> bool:
        """The model takes features, so there are rows."""
        return bool(self._numbers or self._texts)

    def choose(self, calls: Iterable[Seen], most: int) -> list[Sample]:
        """At most ``most`` rows, drifted ones first, then uncertain ones, then chance."""
        found: dict[Why, list[Sample]] = {"drifted": [], "uncertain": [], "random": []}
        for call in calls:
            for why, sample in self._of(call):
                found[why].append(sample)
        chosen = [each for why in found for each in found[why]]
        return chosen[:most]

    def _of(self, call: Seen) -> Iterator[tuple[Why, Sample]]:
        rows, raw, texts, labels, scores = call
        flat = np.frombuffer(raw) if isinstance(raw, bytes) else np.array(raw, dtype=np.float64)
        numbers = flat.reshape(rows, len(self._numbers))
        moved = self._drifted(numbers, texts) if self._rules.drifted else np.zeros(rows, bool)
        for at in range(rows):
            why: Why
            if moved[at]:
                why = "drifted"
            elif self._uncertain(scores[at]):
                why = "uncertain"
            elif self._rng.random() < self._rules.random:
                why = "random"
            else:
                continue
            words = texts[at] if texts else ()
            yield why, self._sample(why, numbers[at], words, labels[at], scores[at])

    def _drifted(
        self, numbers: NDArray[np.float64], texts: Sequence[tuple[str, ...]]
    ) -> NDArray[np.bool_]:
        """A number out of the reference's range, or a category that it does not know."""
        out = (numbers < self._low) | (numbers > self._high)
        found = np.asarray(out.any(axis=1), dtype=np.bool_)
        for at, row in enumerate(texts):
            found[at] |= any(row[column] not in known for column, known in self._known.items())
        return found

    def _uncertain(self, score: float) -> bool:
        if not self._rules.uncertain or not self._labels or not math.isfinite(score):
            return False
        if len(self._labels) == 2:
            return abs(score - self._threshold) <= self._rules.uncertain
        return score <= 0.5 + self._rules.uncertain

    def _sample(
        self,
        why: Why,
        numbers: NDArray[np.float64],
        texts: Sequence[str],
        label: int,
        score: float,
    ) -> Sample:
        values: dict[str, float | str | None] = {
            name: value if math.isfinite(value) else None
            for name, value in zip(self._numbers, numbers.tolist(), strict=True)
        }
        values.update((n, text or None) for n, text in zip(self._texts, texts, strict=False))
        kept = {name: value for name, value in values.items() if name not in self._rules.deny}
        named = self._labels[label] if 0 <= label < len(self._labels) else ""
        return Sample(
            why=why, label=named, score=score if math.isfinite(score) else None, values=kept
        )


def _ranges(
    names: Sequence[str], monitors: dict[str, Monitor]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each number the reference's least and greatest value."""
    low, high = np.full(len(names), -np.inf), np.full(len(names), np.inf)
    for at, name in enumerate(names):
        if name in monitors and monitors[name].edges:
            low[at], high[at] = monitors[name].edges[0], monitors[name].edges[-1]
    return low, high


class Quota:
    """Rows and bytes of a day: no more than the settings say, the rows spread over it.

    Args:
        day, rows, size: what was taken of which day, since 1970 UTC.
    """

    def __init__(
        self, rules: Sampling, now_s: Callable[[], float], *, day: int = -1, rows: int = 0,
        size: int = 0,
    ) -> None:  # fmt: skip
        self._rules = rules
        self._now_s = now_s
        self.day, self.rows, self.size = day, rows, size
        self._room = max(rules.per_day * BURST, 1.0)
        self._at_s = now_s()

    def room(self) -> int:
        """Rows that may be taken now."""
        now_s = self._now_s()
        day = int(now_s // DAY_S)
        if day > self.day:  # a clock that was set back brings no second day
            self.day, self.rows, self.size = day, 0, 0
        passed_s = min(max(now_s - self._at_s, 0.0), DAY_S)
        self._at_s = now_s
        burst = max(self._rules.per_day * BURST, 1.0)
        self._room = min(self._room + self._rules.per_day * passed_s / DAY_S, burst)
        left = self._rules.per_day - self.rows
        return max(min(int(self._room), left), 0) if self.size < self._rules.day_bytes else 0

    def take(self, rows: int, size: int) -> bool:
        """Count rows that take ``size`` bytes; False where the day has no such room."""
        if self.rows + rows > self._rules.per_day or self.size + size > self._rules.day_bytes:
            return False
        self.rows += rows
        self.size += size
        self._room = max(self._room - rows, 0.0)
        return True
