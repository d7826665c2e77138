"""When a trigger fires. Pure.

Guards: an alarm is the grounds of one firing of a trigger and not of the next; a loss counts only
at the near end of an interval, so an estimate without one never fires; whatever holds, nothing
fires within the cooldown, without new rows, while an earlier firing is under way, soon after ones
that were given up, or while devices change versions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edge_fleet.triggers.retry import again_s
from edge_fleet.triggers.settings import When


@dataclass(frozen=True)
class AlarmSeen:
    """An open alarm, as far as conditions look at it."""

    id: int
    bundle: str
    level: str
    kind: str
    feature: str


@dataclass(frozen=True)
class Loss:
    """What was lost since the build by one method: the estimate, and the interval's ends.

    ``figure``: ``accuracy``: points of it; ``mae``: by which share the mean absolute error grew.
    """

    method: str
    value: float
    low: float | None
    high: float | None
    figure: str = "accuracy"


@dataclass(frozen=True)
class Past:
    """What a trigger did for one model.

    Attributes:
        last_ms: when it fired last; None: never. rows: of the bundle, counted then.
        named: alarms that firings named, save those that were given up.
        given_up: its last firings in a row that were. given_up_ms: when the last one was.
        under_way: in words; "": nothing.
    """

    last_ms: int | None = None
    rows: int = 0
    named: frozenset[int] = frozenset()
    given_up: int = 0
    given_up_ms: int = 0
    under_way: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known of one version now. ``rollout``: in words; "": there is none.

    ``losses`` is asked only where the rest holds: it reads a day of counts.
    """

    rows: int
    alarms: Sequence[AlarmSeen]
    losses: Callable[[], Sequence[Loss]]
    rollout: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether it fires, why or why not in words, and the alarms that are its grounds."""

    fires: bool
    said: tuple[str, ...]
    alarms: tuple[int, ...] = ()


def matches(patterns: Sequence[str], text: str) -> bool:
    """``text`` fits one of the patterns, or there are none."""
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)


def wanted(when: When, alarms: Sequence[AlarmSeen], past: Past) -> tuple[AlarmSeen, ...]:
    """The alarms that may be grounds: of the stated kind, and not named before."""
    return tuple(
        alarm
        for alarm in alarms
        if alarm.id not in past.named
        and (not when.levels or alarm.level in when.levels)
        and matches(when.kinds, alarm.kind)
        and matches(when.features, alarm.feature)
    )


def decide(when: When, facts: Facts, past: Past, now_ms: int) -> Verdict:
    """Whether a trigger fires for one version at ``now_ms``."""
    grounds = wanted(when, facts.alarms, past)
    ids = tuple(sorted(alarm.id for alarm in grounds))
    enough = bool(when.alarms) and len(grounds) >= when.alarms
    said = [_alarms(when, len(grounds))] if when.alarms else []
    alone = when.require == "all" or not when.measured
    if when.alarms and not enough and alone:
        return Verdict(False, tuple(said))
    hindrance = _hindrance(when, facts, past, now_ms)
    if hindrance:
        return Verdict(False, (*said, hindrance))
    if when.rows:
        said.append(f"at least {when.rows} new rows")
    if not when.measured:
        return Verdict(True, tuple(said), ids)
    lost, words = _lost(when, facts.losses())
    said += words
    both = lost and (enough or not when.alarms)
    fires = both if when.require == "all" else (lost or enough)
    return Verdict(fires, tuple(said), ids if fires else ())


def _alarms(when: When, count: int) -> str:
    levels = f" of level {' or '.join(when.levels)}" if when.levels else ""
    return f"{count} open alarms{levels} that were not told yet, {when.alarms} are wanted"


def _hindrance(when: When, facts: Facts, past: Past, now_ms: int) -> str:
    """What holds a trigger back although its grounds may be there; "" for nothing."""
    if past.under_way:
        return past.under_way
    if past.last_ms is not None:
        left_s = (when.cooldown_s or 0.0) - (now_ms - past.last_ms) / 1000
        if left_s > 0:
            return f"cooldown for another {left_s:.0f} s"
    if past.given_up:
        pause_s = again_s(past.given_up, when.cooldown_s or 0.0)
        left_s = pause_s - (now_ms - past.given_up_ms) / 1000
        if left_s > 0:
            return f"given up {past.given_up} times in a row, again in {left_s:.0f} s"
    if facts.rows - past.rows < when.rows:
        return f"{facts.rows - past.rows} new rows, {when.rows} are wanted"
    if facts.rollout and not when.during_rollout:
        return facts.rollout
    return ""


_WORDS = {"accuracy": "accuracy lost", "mae": "mean absolute error grown"}


def _lost(when: When, losses: Sequence[Loss]) -> tuple[bool, list[str]]:
    wanted = {"accuracy": when.loss, "mae": when.growth}
    words, lost, asked = [], False, False
    for loss in losses:
        least = wanted[loss.figure]
        if least is None or loss.method not in when.loss_by:
            continue
        asked, what = True, f"{_WORDS[loss.figure]} by {loss.method}: {loss.value:.4f}"
        if loss.low is None or loss.high is None:
            words.append(f"{what} without an interval, which is never grounds")
            continue
        lost = lost or loss.low >= least
        words.append(f"{what} ({loss.low:.4f} to {loss.high:.4f}), at least {least:g} is wanted")
    if not asked:
        of = " or ".join(
            name for name, least in (("accuracy", when.loss), ("errors", when.growth)) if least
        )
        words.append(f"no estimate of {of} by {' or '.join(when.loss_by)}")
    return lost, words
