"""The power table, for a person and for ``--json``."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from rich.markup import escape
from rich.table import Table

from edge_contract.profile import Monitor, Profile
from edge_pack import power


def rate_of(profile: Profile, rows_per_hour: float = 0.0) -> float:
    """The rate that the table is for: asked for, declared at the build, or 60 rows an hour."""
    declared = profile.power.rows_per_hour if profile.power is not None else 0.0
    return rows_per_hour or declared or power.RATE


def sentence(profile: Profile, rows_per_hour: float = 0.0) -> str:
    """``at 60 rows an hour it shows a shift of 0.25 sigma in 12 h (... slowest: flow)``; or ""."""
    told = [monitor for monitor in profile.monitors if monitor.rows_needed]
    if profile.power is None or not told:
        return ""
    rate = rate_of(profile, rows_per_hour)
    parts = []
    for at, shift in enumerate(profile.power.shifts):
        hours = [power.hours(monitor.rows_needed[at], rate) for monitor in told]
        middle = duration(median(hours))
        parts.append(f"{shift:g} sigma {middle if middle == 'never' else f'in {middle}'}")
    slowest = max(told, key=lambda monitor: _slowness(monitor, rate))
    return (
        f"at {rate:g} rows an hour it shows a shift of {', of '.join(parts)} (median of "
        f"{len(told)} monitors; slowest: {slowest.name})"
    )


def table(profile: Profile, shown: int, rows_per_hour: float = 0.0) -> Table | None:
    """The slowest monitors first; None where nothing was reckoned."""
    told = [monitor for monitor in profile.monitors if monitor.rows_needed]
    if profile.power is None or not told:
        return None
    rate = rate_of(profile, rows_per_hour)
    out = Table(box=None, pad_edge=False)
    out.add_column(f"drift at {rate:g} rows an hour", overflow="fold")
    for name in ("design effect", "tolerance", *(f"{s:g} sigma" for s in profile.power.shifts)):
        out.add_column(name, justify="right", no_wrap=True)
    told.sort(key=lambda monitor: (-_slowness(monitor, rate), monitor.name))
    for monitor in told[:shown]:
        delays = [duration(power.hours(rows, rate)) for rows in monitor.rows_needed]
        out.add_row(
            escape(monitor.name), f"{monitor.design_effect:.3g}", f"{monitor.tolerance:.2g}",
            *delays,
        )  # fmt: skip
    if len(told) > shown:
        out.add_row(f"and {len(told) - shown} that find it sooner (--json shows all)")
    return out


def plain(profile: Profile | None, rows_per_hour: float = 0.0) -> dict[str, Any] | None:
    """What ``--json`` prints; hours are null where the shift is never found."""
    if profile is None or profile.power is None:
        return None
    rate = rate_of(profile, rows_per_hour)
    monitors = [
        {
            "name": monitor.name,
            "source": monitor.source,
            "design_effect": monitor.design_effect,
            "tolerance": monitor.tolerance,
            "hours": [_finite(power.hours(rows, rate)) for rows in monitor.rows_needed],
        }
        for monitor in profile.monitors
    ]
    return {
        "rows_per_hour": rate, "shifts": profile.power.shifts, "monitors": monitors,
        "refused": profile.refused,
    }  # fmt: skip


def duration(hours: float) -> str:
    """``40 min``, ``12 h``, ``3 d`` or ``never``."""
    if math.isinf(hours):
        return "never"
    if hours < 1:
        return f"{max(math.ceil(hours * 60), 1)} min"
    if hours < 72:
        return f"{hours:.2g} h"
    return f"{hours / 24:.3g} d"


def _slowness(monitor: Monitor, rate: float) -> float:
    return power.hours(monitor.rows_needed[-1], rate)


def _finite(hours: float) -> float | None:
    return None if math.isinf(hours) else round(hours, 2)
