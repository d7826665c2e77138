"""Which time signatures are judged at, on devices whose clock may not be known. Pure.

Rules:
 - A clock that nothing disciplines is never used. Such a device judges at its floor, the latest
   time that is certainly past: the agent's own build and ``signed_at`` of verified timestamps.
   It installs newer versions and reports ``unverified``. A clock that claims to be kept and stands
   before the agent's own build is one of these.
 - With a disciplined clock, expired metadata installs nothing (``managed``: people are on call to
   sign anew), or is used with the report ``expired`` (``home``: nobody is).
 - No clock ever raises the floor; only signed metadata does. It never reaches the end of the
   metadata that it came with, so that no ``signed_at``, by a slip or by a stolen timestamp key,
   expires what is published. It holds as long as the timestamp keys that vouched for it do: a
   publisher heals a false one by rotating them, as TUF 5.3.11 does with fast-forwarded versions.
 - Expiry never stops the running model; nothing here is asked before answering a request.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Word = Literal["verified", "unverified", "expired"]
Profile = Literal["home", "managed"]

BUILT_AT = datetime(2025, 1, 1, tzinfo=UTC)
"""No agent that speaks this protocol is older; raised with each release, never beyond its day."""
SIGNED_AT_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Judgement:
    """How to judge expiry.

    Attributes:
        at: signatures that ended at this time or before are expired.
        word: what to report when nothing is expired.
        lenient_at: when something is, judge at this time instead and report ``expired``; None:
            keep what was verified before.
    """

    at: datetime
    word: Word
    lenient_at: datetime | None = None


def freshness(now: datetime, *, synchronised: bool, floor: datetime, profile: Profile) -> Judgement:
    """How to judge expiry at ``now`` by this machine's clock, aware.

    Args:
        synchronised: a time service keeps the clock.
        floor: the latest time known to be past, see ``raised``.
    """
    past = max(floor, BUILT_AT)
    if not _credible(now, synchronised=synchronised):
        return Judgement(at=past, word="unverified")
    if profile == "home":
        # A floor beyond a trusted clock is a lie or a slip of the publisher's clock.
        return Judgement(at=now, word="verified", lenient_at=min(past, now))
    return Judgement(at=now, word="verified")


def raised(
    floor: datetime, signed_at: str, *, now: datetime, synchronised: bool, limit: datetime
) -> datetime:
    """The floor after a verified timestamp that says ``signed_at``.

    It never falls, but for a trusted clock that says it is not that late yet, and for keys that
    were rotated (then ``floor`` is given as ``BUILT_AT``).

    Args:
        limit: when the first of the metadata that the timestamp came with ends, from the root on.
            The floor stays below it.
    """
    try:
        signed = datetime.strptime(signed_at, SIGNED_AT_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        signed = floor
    higher = max(floor, min(signed, limit - _SECOND))
    return min(higher, now) if _credible(now, synchronised=synchronised) else higher


def _credible(now: datetime, *, synchronised: bool) -> bool:
    """Whether the clock may be used at all."""
    return synchronised and now >= BUILT_AT
