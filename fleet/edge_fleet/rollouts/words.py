"""What a person says of rollouts, kept: an order that begins one, a word that steers it.

Guards: an order or a word, the state that it leads to and the audit's entry with the name of who
said it are kept in one transaction; two orders at once see each other. The server carries out
what is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from edge_contract.errors import InputFault
from edge_fleet.rollouts import facts, plan, standing, state, steering, whom
from edge_fleet.rollouts.order import Order
from edge_fleet.rollouts.runner import row_of
from edge_fleet.rollouts.standing import Preview, Standing
from edge_fleet.rollouts.state import Reports, Rollout
from edge_fleet.store.audit import audit
from edge_fleet.store.base import Store, Transaction

Word = Literal["pause", "resume", "approve", "abort", "rollback", "release"]
_Said = Callable[[Rollout, Reports, int], Rollout]
WORDS: Mapping[Word, _Said] = {
    "pause": lambda one, _seen, at_ms: steering.pause(one, at_ms),
    "resume": steering.resume,
    "approve": steering.approve,
    "abort": steering.abort,
    "release": steering.release,
    "rollback": lambda one, _seen, at_ms: steering.roll_back(one, at_ms),
}


class Unknown(InputFault):
    """There is no such rollout."""


@dataclass(frozen=True)
class Saying:
    """Who says something, when, and why; ``promoted``: see ``state.Reports``."""

    who: str
    at_ms: int
    why: str = ""
    promoted: bool | None = None


def begin(tx: Transaction, order: Order, who: str, at_ms: int) -> Standing:
    """Keep a new rollout. Raises Refused when it may not begin."""
    tx.serialise_starts()
    every, seen = _before(tx, order, at_ms)
    number = _next(every)
    made = plan.start(number, order, seen, at_ms, whom.held(order, every, seen))
    tx.put_rollout(row_of(made, at_ms))
    unchecked = "" if order.digest else " unchecked"
    audit(
        tx, at_ms, who, action="rollout.start", subject=f"rollout {number}",
        detail=f"{order.model} {order.version}{unchecked}: {made.reason}",
    )  # fmt: skip
    return standing.of(made, seen, at_ms)


def preview(tx: Transaction, order: Order, at_ms: int) -> Preview:
    """What the order would do if it began now. Raises InputFault for a selection."""
    every, seen = _before(tx, order, at_ms)
    held = whom.held(order, every, seen)
    seen = replace(seen, held=held, taken=frozenset(held))
    return standing.preview(_next(every), order, seen, at_ms)


def _before(tx: Transaction, order: Order, at_ms: int) -> tuple[list[Rollout], Reports]:
    return facts.everything(tx), facts.reports(tx, order, at_ms, counts=False, taken=frozenset())


def _next(every: list[Rollout]) -> int:
    return max((one.id for one in every), default=0) + 1


def say(store: Store, number: int, word: Word, by: Saying) -> Standing:
    """Keep a word. Raises Unknown, and Refused where it does not fit."""
    with store.reading() as tx:
        seen = seen_of(tx, number)
    with store.transaction() as tx:
        return said(tx, number, word, seen=seen, by=by)


def said(tx: Transaction, number: int, word: Word, *, seen: Reports, by: Saying) -> Standing:
    """The same within a transaction; ``seen`` was read shortly before."""
    row = tx.rollout_held(number)
    if row is None:
        raise _unknown(number)
    seen = replace(seen, promoted=by.promoted)
    after = WORDS[word](state.decode(row.state), seen, by.at_ms)
    tx.put_rollout(row_of(after, by.at_ms))
    audit(
        tx, by.at_ms, by.who, action=f"rollout.{word}", subject=f"rollout {number}",
        detail="; ".join(filter(None, (after.reason, by.why))),
    )  # fmt: skip
    return standing.of(after, seen, by.at_ms)


def one(tx: Transaction, number: int) -> Rollout:
    """A rollout. Raises Unknown."""
    row = tx.rollout(number)
    if row is None:
        raise _unknown(number)
    return state.decode(row.state)


def seen_of(tx: Transaction, number: int) -> Reports:
    """What is seen of a rollout's devices, counts and all. Raises Unknown."""
    return reports_of(tx, one(tx, number), facts.everything(tx))


def status(tx: Transaction, number: int, at_ms: int) -> Standing:
    """How one stands. Raises Unknown."""
    return standing.of(one(tx, number), seen_of(tx, number), at_ms)


def reports_of(tx: Transaction, rollout: Rollout, every: list[Rollout]) -> Reports:
    """The same of one that is at hand, among ``every`` rollout."""
    return facts.reports(
        tx, rollout.order, rollout.started_ms, counts=True, taken=facts.taken(rollout, every)
    )


def _unknown(number: int) -> Unknown:
    return Unknown(f"there is no rollout {number}", advice="See `edge-fleet rollout status`.")
