"""Is this machine slowed down by heat, or by too little voltage? By what the kernel shows in files.

Guards: what throttles is noticed on a Raspberry Pi, on boards with a thermal zone and on x86, and
never guessed from a clock that is low because nothing is to be done; one sign holds for a while, so
that what depends on it does not flap. Answers are never held back for it: only work that nobody
waits for.

Sources: raspberrypi/linux drivers/firmware/raspberrypi.c (``get_throttled``), and vcgencmd's
documentation of its bits; Documentation/driver-api/thermal/sysfs-api.rst;
Documentation/ABI/testing/sysfs-devices-system-cpu (``thermal_throttle``);
Documentation/admin-guide/pm/cpufreq.rst.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path("/")
HOLD_S = 60.0
"""A sign holds for so long: firmware and governors switch several times a second."""
MARGIN_C = 5.0
"""So near below the temperature at which the kernel acts it is called hot."""

_UNDER_VOLTAGE, _CAPPED, _THROTTLED, _SOFT_LIMIT = 1, 2, 4, 8
_BITS = {
    _UNDER_VOLTAGE: "under-voltage",
    _CAPPED: "clock capped by the firmware",
    _THROTTLED: "throttled by the firmware",
    _SOFT_LIMIT: "soft temperature limit",
}
"""Bits 0 to 3 are of this moment; 16 to 19, that it was so since the start, say nothing of now."""
_ACTING = ("passive", "hot", "critical")
_COOLERS = ("Processor", "cpufreq", "thermal-cpufreq", "thermal-devfreq")
_CAP_SHARE = 0.95


@dataclass(frozen=True)
class Reading:
    """What the files say at one moment.

    Attributes:
        temperature_c: of the hottest zone; None: there is none.
        signs: what slows the machine down now, in words; empty: nothing.
        throttles: events that the processors counted since the start; None: they do not.
        limit_khz: the highest clock that is allowed now, of the fastest processor; None: unknown.
        firmware: a Raspberry Pi's own number (``get_throttled``); None: it is none.
    """

    temperature_c: float | None = None
    signs: tuple[str, ...] = ()
    throttles: int | None = None
    limit_khz: int | None = None
    firmware: int | None = None


@dataclass(frozen=True)
class Heat:
    """What is known of this machine's heat.

    Attributes:
        temperature_c: of the hottest zone; None: not known.
        signs: what slows it down, in words, of the last ``HOLD_S``; empty: nothing.
        since_s: of the monotonic clock, when it began to be slowed down, or ceased to be.
        times: how often that began.
    """

    temperature_c: float | None = None
    signs: tuple[str, ...] = ()
    since_s: float = 0.0
    times: int = 0
    last_s: float = 0.0
    throttles: int | None = None
    top_khz: int = 0

    @property
    def throttled(self) -> bool:
        """The machine is slowed down."""
        return bool(self.signs)


def step(heat: Heat, seen: Reading, now_s: float) -> Heat:
    """What is known after one more reading. Pure."""
    signs = list(seen.signs)
    if None not in (heat.throttles, seen.throttles) and seen.throttles != heat.throttles:
        signs.append("throttled by the processor")
    top = max(heat.top_khz, seen.limit_khz or 0)
    if seen.limit_khz is not None and seen.limit_khz < _CAP_SHARE * top:
        signs.append(f"clock limited to {seen.limit_khz // 1000} MHz of {top // 1000}")
    known = replace(heat, temperature_c=seen.temperature_c, throttles=seen.throttles, top_khz=top)
    if signs:
        begun = not heat.throttled
        return replace(
            known,
            signs=tuple(dict.fromkeys(signs)),
            last_s=now_s,
            since_s=now_s if begun else heat.since_s,
            times=heat.times + begun,
        )
    if heat.throttled and now_s - heat.last_s >= HOLD_S:
        return replace(known, signs=(), since_s=now_s)
    return known


def read(root: Path = ROOT) -> Reading:
    """What the files below ``root`` say now. Never raises."""
    temperature, hot = _zones(root)
    firmware = _firmware(root)
    said = [said for bit, said in _BITS.items() if (firmware or 0) & bit]
    signs = [*said, *hot, *_coolers(root)]
    return Reading(temperature, tuple(signs), _throttles(root), _limit(root), firmware)


def _firmware(root: Path) -> int | None:
    """A Raspberry Pi's own word for it: a hexadecimal number."""
    for path in sorted(root.glob("sys/devices/platform/soc/*/get_throttled")):
        with contextlib.suppress(OSError, ValueError):
            return int(path.read_text().strip().removeprefix("throttled="), 16)
    return None


def _zones(root: Path) -> tuple[float | None, list[str]]:
    """The highest temperature, and the zones that are near where the kernel acts."""
    highest: float | None = None
    hot = []
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        milli = _number(zone / "temp")
        if milli is None or not -60_000 < milli < 250_000:
            continue
        here = milli / 1000
        highest = here if highest is None else max(highest, here)
        limit = _trip(zone)
        if limit is not None and here >= limit - MARGIN_C:
            name = _text(zone / "type") or zone.name
            hot.append(f"{name[:40]} is at {here:.0f} degrees of {limit:.0f}")
    return highest, hot


def _trip(zone: Path) -> float | None:
    """The lowest temperature at which the kernel slows down or switches off."""
    found = []
    for kind in zone.glob("trip_point_*_type"):
        milli = _number(zone / kind.name.replace("_type", "_temp"))
        if _text(kind) in _ACTING and milli is not None and milli > 0:
            found.append(milli / 1000)
    return min(found, default=None)


def _coolers(root: Path) -> list[str]:
    """Processors that the kernel holds back to cool them."""
    for device in sorted(root.glob("sys/class/thermal/cooling_device*")):
        state = _number(device / "cur_state")
        if state is not None and state > 0 and _text(device / "type").startswith(_COOLERS):
            return ["clock held back to cool the processor"]
    return []


def _throttles(root: Path) -> int | None:
    counts = [
        _number(path)
        for path in root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _limit(root: Path) -> int | None:
    """What is allowed, not what is in use: an idle processor is slow because it may be."""
    found = (
        _number(path)
        for path in root.glob("sys/devices/system/cpu/cpufreq/policy*/scaling_max_freq")
    )
    return max((each for each in found if each is not None), default=None)


def _number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return ""
