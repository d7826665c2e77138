"""What downloads are held to, and the hours of the day of it, in the device's zone. Pure.

A change to summer or winter time moves a slot with the clock on the wall.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from edge_contract.errors import InputFault

_DAY_S = 86400


@dataclass(frozen=True)
class Hours:
    """A part of the day in which downloads are allowed: seconds of the local day.

    ``end_s`` before ``start_s``: across midnight.
    """

    start_s: int
    end_s: int
    text: str

    def left_s(self, second: int) -> int:
        """How long the slot still lasts at ``second`` of a day; 0 outside of it."""
        inside = (second - self.start_s) % _DAY_S < (self.end_s - self.start_s) % _DAY_S
        return (self.end_s - second) % _DAY_S if inside else 0


def hours(text: str) -> Hours:
    """A slot from ``HH:MM-HH:MM``. Raises InputFault where it is none."""
    form = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)", text)
    if form is None or (form[3] == "24" and form[4] != "00"):
        raise InputFault(f"{text!r} is no slot: expected HH:MM-HH:MM, such as '01:00-05:00'")
    hour, minute, end_hour, end_minute = (int(digits) for digits in form.groups())
    start_s, end_s = (hour * 60 + minute) * 60, (end_hour * 60 + end_minute) * 60 % _DAY_S
    if start_s == end_s:
        raise InputFault(f"{text!r} is no slot: it ends as it begins; leave it out for any time")
    return Hours(start_s, end_s, text)


@dataclass(frozen=True)
class Policy:
    """What was set; 0 and empty: no limit.

    Attributes:
        rate_max: bytes a second. daily_max: bytes a day, one chunk at least.
        slot: when downloads are allowed, in the device's zone.
        start_delay_max_s: most that a start is put off by chance.
    """

    rate_max: int = 0
    daily_max: int = 0
    slot: tuple[Hours, ...] = ()
    start_delay_max_s: float = 0.0


def next_opening(slot: Iterable[Hours], local: datetime) -> datetime:
    """When one of the slot's hours begins next after ``local``, in its zone.

    Hours that a change to summer time leaves out begin the day after.
    """
    openings = []
    for each in slot:
        at = time(each.start_s // 3600, each.start_s // 60 % 60)
        for days in range(3):
            day = datetime.combine(local.date() + timedelta(days=days), at, local.tzinfo)
            opening = day.astimezone(UTC).astimezone(local.tzinfo)
            if opening.timestamp() > local.timestamp() and each.left_s(_second(opening)):
                openings.append(opening)
                break
    return min(openings, key=datetime.timestamp)


def left_s(slot: Iterable[Hours], local: datetime) -> int:
    """How long the slot still lasts at ``local``; 0 outside of it."""
    return max((each.left_s(_second(local)) for each in slot), default=0)


def _second(local: datetime) -> int:
    return (local.hour * 60 + local.minute) * 60 + local.second
