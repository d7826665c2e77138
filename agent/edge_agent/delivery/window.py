"""Which chunks to ask for next. Pure: no connection, no clock, no bytes.

A window of chunks is under way; as they arrive the next ones are asked for, half a window in one
packet. Silence halves the window and doubles the patience (a slow link must not be flooded with
the same chunks again and again); arrivals widen it again. A repeated asking ends with the
sentinel, so a chunk that the broker does not have is told apart from one that is late.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WIDTH_MAX = 8
"""8 x 120 KiB filled a 50 ms link at 17 MB/s with 4 MB of memory."""
ASK_MAX = 7
"""Chunks in one repeated asking: the sentinel takes the eighth filter."""
PATIENCE_S = 2.0
PATIENCE_MAX_S = 60.0
GAPS = 3.0
"""Patience is at least this many times the longest recent gap between two chunks."""
SILENCES_MAX = 3
ABSENCES_MAX = 3
OUTAGE_S = 30.0
"""How long a lost connection may stay away."""


@dataclass(frozen=True)
class Window:
    """Where a pull stands.

    Attributes:
        chunks: every chunk to pull, by SHA-256, each once.
        at: chunks before this one were asked for.
        asked: under way, in the order of asking.
        settled: arrived, but not unsubscribed yet.
        probed: those under way whose last asking ended with the sentinel.
        width: how many may be under way.
        silences, absences: in a row, without an arrival in between.
        patience_s: how long the next silence may be, ``patience_min_s`` at least.
        down: the connection is lost.
    """

    chunks: tuple[str, ...]
    at: int = 0
    asked: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()
    probed: tuple[str, ...] = ()
    width: int = WIDTH_MAX
    silences: int = 0
    absences: int = 0
    patience_s: float = PATIENCE_S
    patience_min_s: float = PATIENCE_S
    down: bool = False

    @property
    def done(self) -> bool:
        """Every chunk arrived."""
        return not self.asked and self.at == len(self.chunks)


@dataclass(frozen=True)
class Arrived:
    """A chunk is here and sound, ``gap_s`` after the arrival before it."""

    sha256: str
    gap_s: float


@dataclass(frozen=True)
class Silent:
    """Nothing came for ``patience_s``."""


@dataclass(frozen=True)
class ProbeAnswered:
    """The sentinel came: what was asked before it has had its turn."""


@dataclass(frozen=True)
class WentDown:
    """The connection was lost."""


@dataclass(frozen=True)
class CameUp:
    """The connection is back, with no subscription."""


Event = Arrived | Silent | ProbeAnswered | WentDown | CameUp


@dataclass(frozen=True)
class Act:
    """What to do: unsubscribe, then subscribe (with the sentinel, if ``probe``), or give up.

    ``absent``: the broker has no such chunk. ``dead``: the broker says nothing, or is gone.
    """

    forget: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    probe: bool = False
    absent: str = ""
    dead: bool = False


def begin(chunks: tuple[str, ...], *, patience_s: float = PATIENCE_S) -> tuple[Window, Act]:
    """A pull of ``chunks`` (without repetition), and the first asking."""
    return _fill(Window(chunks, patience_s=patience_s, patience_min_s=patience_s))


def step(window: Window, event: Event) -> tuple[Window, Act]:
    """The window after ``event``, and what to do. What does not fit changes nothing."""
    match event:
        case Arrived(sha256, gap_s) if sha256 in window.asked:
            return _arrived(window, sha256, gap_s)
        case Silent():
            return _silent(window)
        case ProbeAnswered():
            return _probe_answered(window)
        case WentDown():
            return replace(window, down=True, patience_s=OUTAGE_S), Act()
        case CameUp():
            fresh = replace(
                window,
                down=False,
                silences=0,
                probed=(),
                settled=(),
                patience_s=window.patience_min_s,
            )
            return fresh, Act(ask=fresh.asked)
    return window, Act()


def _arrived(window: Window, sha256: str, gap_s: float) -> tuple[Window, Act]:
    patience = max(window.patience_min_s, 0.9 * window.patience_s, GAPS * gap_s)
    return _fill(
        replace(
            window,
            asked=tuple(each for each in window.asked if each != sha256),
            probed=tuple(each for each in window.probed if each != sha256),
            settled=(*window.settled, sha256),
            width=min(WIDTH_MAX, window.width + 1),
            silences=0,
            absences=0,
            patience_s=min(PATIENCE_MAX_S, patience),
        )
    )


def _fill(window: Window) -> tuple[Window, Act]:
    """Ask for more once half the window is free, and forget what arrived."""
    room = window.width - len(window.asked)
    rest = len(window.chunks) - window.at
    if room < (window.width + 1) // 2 and window.asked:
        return window, Act()
    more = window.chunks[window.at : window.at + min(room, rest)]
    if not more and window.asked:
        return window, Act()
    filled = replace(window, at=window.at + len(more), asked=(*window.asked, *more), settled=())
    return filled, Act(forget=window.settled, ask=more)


def _silent(window: Window) -> tuple[Window, Act]:
    if window.down or window.silences >= SILENCES_MAX:
        return window, Act(dead=True)
    width = max(1, window.width // 2)
    again = window.asked[: min(width, ASK_MAX)]
    turned = (*window.asked[len(again) :], *again)
    patience = min(PATIENCE_MAX_S, window.patience_s * 2)
    waiting = replace(
        window,
        asked=turned,
        probed=again,
        width=width,
        silences=window.silences + 1,
        patience_s=patience,
    )
    return waiting, Act(ask=again, probe=True)


def _probe_answered(window: Window) -> tuple[Window, Act]:
    """The broker is there, and went past these chunks without sending them."""
    if not window.probed:
        return replace(window, silences=0), Act()
    if window.absences + 1 >= ABSENCES_MAX:
        return window, Act(absent=window.probed[0])
    asked_again = replace(window, absences=window.absences + 1, silences=0)
    return asked_again, Act(ask=window.probed, probe=True)
