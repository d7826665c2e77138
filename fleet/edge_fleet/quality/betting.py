"""Has the error rate risen? Bets on late labels, looked at whenever some come.

Guards: as long as the error rate is at most the one that was promised, the mean number of batches
of labels between two false alarms is at least the threshold, whatever the sizes of the batches and
however long it runs. Labels are independent of each other given the rate: labels of one row that
is sent again and again are not.

A bet of size lambda is worth 1 + lambda (wrong - rate) for each label: at most 1 in the mean while
the error rate is at most ``rate``. Evidence runs through the Shiryaev-Roberts recursion, as in
``drift.edetector``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fleet.drift import edetector
from edge_fleet.quality.intervals import clopper_pearson

Floats = NDArray[np.float64]

BETS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""As shares of 1 / rate, the largest bet that cannot lose all: from a small rise to a large one."""
REFERENCE_LEVEL = 0.99


@dataclass(frozen=True)
class ErrorDetector:
    """Bets on an error rate above ``rate``, 0 < rate < 1. State: ``[..., bets]``, log M."""

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"an error rate of {self.rate} leaves nothing to bet on")

    def start(self, streams: int = 1) -> NDArray[np.float32]:
        """Streams that showed nothing yet."""
        return np.full((streams, len(BETS)), edetector.NO_EVIDENCE, dtype=np.float32)

    def log_e(self, wrong: Floats, rows: Floats) -> Floats:
        """Evidence of batches: counts ``[...]`` to ``[..., bets]``; merging batches is addition."""
        bets = np.asarray(BETS) / self.rate
        lost, won = np.log1p(-bets * self.rate), np.log1p(bets * (1 - self.rate))
        wrong, rows = np.asarray(wrong)[..., None], np.asarray(rows)[..., None]
        return np.asarray(wrong * won + (rows - wrong) * lost)

    def advance(
        self, state: NDArray[np.float32], wrong: Floats, rows: Floats
    ) -> NDArray[np.float32]:
        """The state after one batch a stream; a batch without rows changes nothing."""
        moved = edetector.advance(state, self.log_e(wrong, rows))
        return np.where(np.asarray(rows)[..., None] > 0, moved, state).astype(np.float32)

    def level(self, state: NDArray[np.float32]) -> Floats:
        """log M of each stream, the mean over its bets: an alarm where it reaches log A."""
        return np.asarray(np.log(np.exp(state.astype(np.float64)).mean(axis=-1)))


def rate_to_watch(wrong: int, rows: int, tolerance: float = 0.0) -> float:
    """The error rate that labels may show without an alarm.

    What the reference showed is a sample: its exact upper bound at 99 %, plus what is tolerated.
    Without it the detector would in the end find the reference's own sampling error.
    """
    one_sided = 2 * REFERENCE_LEVEL - 1
    _, high = clopper_pearson(np.asarray(float(wrong)), np.asarray(float(rows)), one_sided)
    return float(min(max(float(high) + tolerance, 1e-6), 1 - 1e-6))
