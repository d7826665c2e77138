"""Figures as people read them. Pure."""

from __future__ import annotations

from edge_contract.manifest import Feature, Metric, Tensor


def size(count: float) -> str:
    """Bytes with a decimal unit: ``1.2 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= scale:
            return (
                f"{count / scale:.3g} {unit}"
                if count < 999.5 * scale
                else f"{count / scale:,.0f} {unit}"
            )
    return f"{count:,.0f} B"


def time(microseconds: float) -> str:
    """A duration with its unit."""
    if microseconds < 1000:
        return f"{microseconds:.3g} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.3g} ms"
    return f"{microseconds / 1e6:.3g} s"


def share(part: float, whole: float) -> str:
    """A percentage with as many digits as it needs not to lie: 0 % means none at all."""
    if not whole or not part:
        return "0 %"
    percent = 100 * part / whole
    if percent < 0.001:
        return "under 0.001 %"
    if part < whole and percent > 99.95:
        return "over 99.9 %"
    return f"{percent:.3g} %"


def number(value: float | None, digits: int = 6) -> str:
    """A figure, "" for None, with a true minus sign left plain for copying."""
    return "" if value is None else f"{value:.{digits}g}"


def interval(metric: Metric) -> str:
    """``0.91 to 0.97``, or ""."""
    if metric.low is None or metric.high is None:
        return ""
    return f"{number(metric.low, 4)} to {number(metric.high, 4)}"


def tensor(found: Tensor) -> str:
    """``float32 [rows, 64]``."""
    shape = [
        "rows" if i == 0 and e is None else "any" if e is None else str(e)
        for i, e in enumerate(found.shape)
    ]
    return f"{found.dtype} [{', '.join(shape)}]"


def span(feature: Feature) -> str:
    """What the reference rows held of a feature: its range, or its categories."""
    if feature.type == "category":
        shown = ", ".join(feature.categories[:6])
        more = len(feature.categories) - 6
        return f"{shown} and {more} more" if more > 0 else shown
    if feature.minimum is None:
        return "no value"
    return f"{number(feature.minimum)} to {number(feature.maximum)}"
