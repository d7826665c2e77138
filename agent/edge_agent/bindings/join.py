"""Samples of several topics become one row: aggregated, as fresh as each input has to be. Pure.

Guards: a value older than its limit is missing, never used; a retained message, whose age nobody
knows, is no sample unless it says its own time; what a sender's clock says moves a sample back in
time, never forward, and never before one that is there already.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from msgspec import Struct

from edge_agent.bindings import aggregate
from edge_agent.bindings.payloads import Reading, Unread, Value
from edge_agent.bindings.settings import Binding, Input
from edge_agent.bindings.window import Window

AHEAD_MAX_S = 5.0
"""A sender's clock may be ahead of ours by so much before it is counted as wrong."""


class Moment(NamedTuple):
    """When a message arrived: by a clock that never jumps, and by the wall's.

    ``wall_s`` is None while nobody keeps the wall's clock right.
    """

    monotonic_s: float
    wall_s: float | None


class Row(Struct, frozen=True):
    """What a model would be given at one moment.

    Attributes:
        values: by feature; None where missing.
        ages_s: since each input's newest sample; None: there was none, or it is a constant.
        missing: features without a value: never seen, stale, null, or too few samples.
    """

    values: dict[str, float | str | bool | None]
    ages_s: dict[str, float | None]
    missing: dict[str, str]


class Feed:
    """The samples of one input.

    Args:
        stale_s: older than this there is no value; 0: never.
    """

    def __init__(self, source: Input, stale_s: float) -> None:
        self._source = source
        self._stale_s = stale_s
        self._window = Window(source.over_samples, source.over_s)
        self._last: Value = None
        self._last_s: float | None = None

    def take(self, reading: Reading, at: Moment, *, retained: bool) -> str:
        """Take a reading; the name of what is odd about it, or "".

        Raises Unread when it is not taken.
        """
        time_s, odd = self._time(reading.stamp_s, at, retained)
        if self._last_s is not None and time_s < self._last_s:
            raise Unread("late")
        value = reading.value
        if isinstance(value, list):
            self._take_list(value, time_s)
        elif self._source.aggregate != "last":
            if isinstance(value, str):
                raise Unread("unreadable")
            if value is None:
                return odd  # the window goes on with what it has, for as long as that is fresh
            self._window.add(time_s, float(value))
        self._last = value[-1] if isinstance(value, list) else value
        self._last_s = time_s
        return odd

    def _take_list(self, values: list[float], end_s: float) -> None:
        """Samples that were taken evenly up to ``end_s``."""
        before_s = self._window.newest_s
        step_s = 1.0 / self._source.rate_hz
        for i, value in enumerate(values):
            time_s = end_s - (len(values) - 1 - i) * step_s
            self._window.add(time_s if before_s is None else max(time_s, before_s), value)

    def _time(self, stamp_s: float | None, at: Moment, retained: bool) -> tuple[float, str]:
        """When the sample was taken, by the monotonic clock."""
        if stamp_s is None or at.wall_s is None or math.isnan(stamp_s):
            windowed = self._source.aggregate != "last"
            if retained and (self._stale_s or windowed):
                raise Unread("retained")
            return at.monotonic_s, "clock" if stamp_s is not None else ""
        age_s = at.wall_s - stamp_s
        return at.monotonic_s - max(age_s, 0.0), "clock" if age_s < -AHEAD_MAX_S else ""

    def value(self, now_s: float) -> tuple[float | str | bool | None, str]:
        """The value now, and why there is none."""
        source = self._source
        if source.value is not None:
            return source.value, ""
        counted = source.aggregate == "count"
        if not counted:
            if self._last_s is None:
                return None, "never seen"
            if self._stale_s and now_s - self._last_s > self._stale_s:
                return None, f"stale: {now_s - self._last_s:.1f} s old"
        if source.aggregate == "last":
            return (None, "null") if self._last is None else (_scalar(self._last), "")
        times, values = self._window.view(now_s)
        least = source.at_least
        if source.aggregate == "band" and not source.over_s:
            least = source.over_samples  # a spectrum of fewer samples has other frequencies
        if len(values) < least and not counted:
            return None, f"{len(values)} of {least} samples"
        found = aggregate.figure(
            source.aggregate, times, values, rate_hz=source.rate_hz, band=source.band
        )
        return found, "" if found is not None else f"{len(values)} samples have no figure"

    def age_s(self, now_s: float) -> float | None:
        """Seconds since the newest sample; None: there was none."""
        return None if self._last_s is None else max(now_s - self._last_s, 0.0)


class Join:
    """The inputs of one binding, by feature name."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self.feeds = {
            name: Feed(source, binding.stale_s(name)) for name, source in binding.inputs.items()
        }

    def row(self, now_s: float) -> Row:
        """The row of this moment."""
        values: dict[str, float | str | bool | None] = {}
        missing: dict[str, str] = {}
        for name, feed in self.feeds.items():
            values[name], why = feed.value(now_s)
            if why:
                missing[name] = why
        ages = {name: feed.age_s(now_s) for name, feed in self.feeds.items()}
        return Row(values, ages, missing)

    def changed(self, row: Row, before: Row | None) -> bool:
        """Whether a value moved by more than its deadband, came or went."""
        if before is None:
            return True
        return any(
            _moved(row.values[name], before.values[name], source.deadband)
            for name, source in self._binding.inputs.items()
        )


def _moved(now: object, before: object, deadband: float) -> bool:
    numbers = (int, float)
    if isinstance(now, numbers) and isinstance(before, numbers):
        return abs(now - before) > deadband
    return now != before


def _scalar(value: Value) -> float | str | bool:
    assert not isinstance(value, list) and value is not None
    return value
