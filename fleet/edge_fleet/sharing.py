"""Which part of a fleet's messages one collector takes. Pure.

Guards: collectors that were told the same together take every record, and each record goes to one
of them. ``SHARED``: the broker hands each record to one of the collectors that subscribe (MQTT 5,
4.8.2). ``shard_of``: fixed parts by topic, for a broker that knows no shared subscriptions.

State that a broker retains (births, reports) is not among a part's topics: a shared subscription
is sent no retained message (MQTT 5, 3.3.1.3), so whoever leads subscribes to it by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_contract.errors import InputFault
from edge_contract.topics import Topics

GROUP = "edge-fleet"
SHARDS = 256
_ADVICE = "Write K/N, K from 0 to N-1, N up to 256: --shard 0/4 for the first of four collectors."


@dataclass(frozen=True)
class Part:
    """A collector's part: the K-th of N fixed ones, or, with ``of`` 0, whatever it is handed."""

    number: int = 0
    of: int = 0

    def __post_init__(self) -> None:
        if self.of and not (0 <= self.number < self.of <= SHARDS):
            raise InputFault(f"there is no part {self.number} of {self.of}", advice=_ADVICE)

    def filters(self, topics: Topics) -> tuple[str, ...]:
        """What to subscribe to: telemetry and events.

        Of fixed parts the first takes the events, which are few: their topics have no shard.
        """
        events = f"{topics.root}/d/+/ev"
        if not self.of:
            return tuple(f"$share/{GROUP}/{one}" for one in (f"{topics.root}/t/+/+", events))
        telemetry = tuple(
            f"{topics.root}/t/{shard:02x}/+" for shard in range(self.number, SHARDS, self.of)
        )
        return telemetry if self.number else (*telemetry, events)

    def __str__(self) -> str:
        return f"part {self.number} of {self.of}" if self.of else "a shared subscription"


SHARED = Part()


def shard_of(text: str) -> Part:
    """``K/N``. Raises InputFault."""
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and int(of) > 0):
        raise InputFault(f"--shard {text!r} is not K/N", advice=_ADVICE)
    return Part(int(number), int(of))


def state_filters(topics: Topics) -> tuple[str, ...]:
    """What a leader subscribes to: births, last wills and reports, which the broker retains."""
    return (f"{topics.root}/d/+/status", f"{topics.root}/d/+/reported")
