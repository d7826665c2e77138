"""Figures of a window of samples: what a model that was trained on windows expects. Pure.

Each takes times in seconds and finite values, in order of time, and gives a finite figure or
None where there is none. Training code can call the same functions on its own rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]


def slope(times: Series, values: Series) -> float | None:
    """Change a second: the least-squares line's slope, as ``numpy.polyfit`` of degree 1.

    None for fewer than two different times.
    """
    if len(times) < 2:
        return None
    since = times - times[0]
    since = since - since.mean()
    spread = float(since @ since)
    if spread <= 0.0:
        return None
    return _finite(float(since @ (values - values.mean())) / spread)


def band_power(values: Series, rate_hz: float, low_hz: float, high_hz: float) -> float | None:
    """Mean square of what the values hold at frequencies from ``low_hz`` to below ``high_hz``.

    The mean is taken off, no window function is applied, and the one-sided spectrum is scaled
    so that adjoining bands from 0 to beyond ``rate_hz / 2`` add up to the variance (Parseval).

    None for fewer than two values.
    """
    count = len(values)
    if count < 2:
        return None
    power = np.abs(np.fft.rfft(values - values.mean()) / count) ** 2
    power[1 : (count + 1) // 2] *= 2.0
    frequencies = np.fft.rfftfreq(count, 1.0 / rate_hz)
    inside = (frequencies >= low_hz) & (frequencies < high_hz)
    return _finite(float(power[inside].sum()))


def mean(_times: Series, values: Series) -> float | None:
    """The average."""
    return _finite(float(values.mean()))


def least(_times: Series, values: Series) -> float | None:
    """The smallest."""
    return float(values.min())


def most(_times: Series, values: Series) -> float | None:
    """The largest."""
    return float(values.max())


def std(_times: Series, values: Series) -> float | None:
    """The standard deviation of these values (divided by n, as numpy has it)."""
    return _finite(float(values.std()))


def rms(_times: Series, values: Series) -> float | None:
    """The root of the mean of squares."""
    return _finite(math.sqrt(float(np.mean(values * values))))


PLAIN: Mapping[str, Callable[[Series, Series], float | None]] = {
    "mean": mean, "min": least, "max": most, "std": std, "rms": rms, "slope": slope,
}  # fmt: skip


def figure(
    kind: str, times: Series, values: Series, *, rate_hz: float, band: tuple[float, float]
) -> float | None:
    """The figure ``kind`` of a window; None where it has none (no samples, an overflow)."""
    if kind == "count":
        return float(len(values))
    if not len(values):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        if kind == "band":
            return band_power(values, rate_hz, *band)
        return PLAIN[kind](times, values)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
