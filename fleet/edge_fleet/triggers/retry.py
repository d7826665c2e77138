"""When a delivery is tried again, and a trigger whose deliveries were given up. Pure.

Guards: the pauses grow; those between attempts are spread at random, so that a receiver that was
away is not met by all of a fleet's servers at once; what a receiver asks for (Retry-After, RFC
9110, 10.2.3) is kept.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_S = 1.0
LONGEST_S = 3600.0
ASKED_MAX_S = 86400.0
"""No receiver puts us off for longer than this."""


def pause_s(attempt: int, chance: float, asked_s: float | None = None) -> float:
    """Seconds before the next attempt after ``attempt`` of them failed.

    Args:
        attempt: from 1. chance: in [0, 1); half of a pause is left to it.
        asked_s: what the receiver asked for.
    """
    doubled = FIRST_S * 2.0 ** min(max(attempt - 1, 0), 20)
    pause = min(doubled, LONGEST_S) * (0.5 + 0.5 * chance)
    return pause if asked_s is None else max(pause, min(asked_s, ASKED_MAX_S))


def again_s(given_up: int, cooldown_s: float) -> float:
    """Seconds from the end of the last of ``given_up`` firings in a row to the next firing.

    1, 2, 4 ..., at most the trigger's cooldown; an hour where it has none.
    """
    doubled = FIRST_S * 2.0 ** min(max(given_up - 1, 0), 30)
    return min(doubled, cooldown_s or LONGEST_S)


def retry_after_s(text: str, now_ms: int) -> float | None:
    """What a Retry-After header asks for; None where it says nothing that is understood."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max((at - datetime.fromtimestamp(now_ms / 1000, UTC)).total_seconds(), 0.0)
