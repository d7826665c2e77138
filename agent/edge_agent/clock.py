"""Whether this machine's clock may be believed.

A Raspberry Pi has no battery behind its clock: after a power cut it wakes up in the past. The
kernel knows whether a time service disciplines the clock (adjtimex(2), STA_UNSYNC); where a
sandbox forbids the question, systemd-timesyncd leaves a file once it is synchronised.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import ClassVar
from zoneinfo import ZoneInfo

log = logging.getLogger(__name__)

STA_UNSYNC = 0x0040
TIME_ERROR = 5
TIMESYNCD = Path("/run/systemd/timesync/synchronized")
LOCALTIME = Path("/etc/localtime")


class _Timex(ctypes.Structure):
    """``struct timex`` up to ``status``; the rest (tail) is larger than any libc's."""

    _fields_: ClassVar = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("tail", ctypes.c_byte * 256),
    ]


def synchronised() -> bool:
    """True when the kernel says that a time service keeps the clock; unknown is False."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return False
    timex = _Timex()  # modes 0: read only, needs no right
    state = adjtimex(ctypes.byref(timex))
    if state < 0:
        return TIMESYNCD.exists()
    return state < TIME_ERROR and not timex.status & STA_UNSYNC


def zone(environment: Mapping[str, str]) -> tzinfo:
    """The zone of this machine's local time: ``TZ``, else ``/etc/localtime``, else UTC."""
    name = environment.get("TZ", "").removeprefix(":")
    try:
        if name:
            return ZoneInfo(name)
        with LOCALTIME.open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError, KeyError) as error:
        log.warning("local time is taken as UTC: %s", error)
        return UTC
