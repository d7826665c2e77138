"""Triggers at work: look, keep, deliver, again and again, a thread a trigger.

Guards: a firing is kept in the store before anything is sent, and what became of each attempt is
kept after it; so whatever kills this process, what waited is delivered afterwards under the same
key: at least once, and known again by who has seen it. One process a store does this; others stand
by, and one of them takes over when it ends, however it ends. A trigger that hangs holds up no
other, nor the collector.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from edge_contract.errors import EdgeError
from edge_fleet.election import whenever_free
from edge_fleet.store.base import Store
from edge_fleet.store.firings import Firing
from edge_fleet.triggers import facts
from edge_fleet.triggers.delivery import Delivered, Place, deliver
from edge_fleet.triggers.retry import pause_s
from edge_fleet.triggers.settings import Settings, Trigger

log = logging.getLogger(__name__)

LOCK_ORDINAL = 1_000_000_007
"""No collector's: who holds it delivers."""
HELD_S = 1.0
"""Who delivers looks this often whether it still may."""
JOIN_S = 30.0


class TriggerRun:
    """One trigger. ``step`` is one round; a test calls it by hand.

    Args:
        chance: in [0, 1), drawn anew for each pause.
    """

    def __init__(
        self,
        name: str,
        rule: Trigger,
        store: Store,
        place: Place,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._name, self._rule, self._store, self._place = name, rule, store, place
        self._chance = chance

    def step(self) -> list[Firing]:
        """Look once, keep what fires, deliver what is due; what was delivered or tried.

        Raises MachineFault when the store cannot.
        """
        now_ms = self._place.clock_ms()
        fleet = self._place.topics.fleet
        for case in facts.cases(self._store, self._name, self._rule, fleet, now_ms):
            if case.firing is not None:
                with self._store.transaction() as tx:
                    kept = tx.add_firing(case.firing)
                if kept:
                    log.warning("trigger %s fires: %s", self._name, "; ".join(case.verdict.said))
                    self._forget(now_ms)
        return self._deliver()

    def _forget(self, now_ms: int) -> None:
        """What is over and old goes, save what named an alarm that is open: it is told once."""
        if self._place.keep_ms is None:
            return
        with self._store.reading() as tx:
            old = tx.old_firings(self._name, now_ms - self._place.keep_ms)
        still = facts.still_open(self._store, {alarm for f in old for alarm in f.alarms})
        gone = [f.key for f in old if f.state == "failed" or still.isdisjoint(f.alarms)]
        if gone:
            with self._store.transaction() as tx:
                tx.drop_firings(gone)

    def _deliver(self) -> list[Firing]:
        with self._store.reading() as tx:
            waiting = tx.open_firings(self._name)
        tried = []
        for firing in waiting:
            if self._place.stop.is_set():
                break
            if firing.next_ms <= self._place.clock_ms():
                tried.append(self._attempt(firing))
        return tried

    def _attempt(self, firing: Firing) -> Firing:
        still = facts.still_open(self._store, firing.alarms)
        told = deliver(self._rule, firing, still, self._place)
        if told.stopped:
            return firing  # as it was: the next start delivers it
        after = moved(
            firing, told, self._rule.action.attempts, self._place.clock_ms(), self._chance()
        )
        with self._store.transaction() as tx:
            tx.put_firing(after)
        level = logging.INFO if told.done else logging.WARNING
        log.log(level, "trigger %s, firing %d: %s", self._name, firing.number, told.detail)
        return after


def moved(firing: Firing, told: Delivered, attempts_max: int, now_ms: int, chance: float) -> Firing:
    """What an attempt makes of a firing. Pure."""
    attempts = firing.attempts + 1
    if told.done and told.again_s is not None:
        return replace(
            firing, state="active", attempts=0, next_ms=now_ms + round(1000 * told.again_s),
            detail=told.detail,
        )  # fmt: skip
    if told.done:
        return replace(firing, state="done", attempts=attempts, done_ms=now_ms, detail=told.detail)
    if told.final or attempts >= attempts_max:
        return replace(
            firing, state="failed", attempts=attempts, done_ms=now_ms, detail=told.detail
        )
    wait_s = pause_s(attempts, chance, told.asked_s)
    return replace(
        firing, attempts=attempts, next_ms=now_ms + round(1000 * wait_s), detail=told.detail
    )


@contextmanager
def running(
    settings: Settings, store: Store, place: Place, say: Callable[[str], None] = log.info
) -> Iterator[None]:
    """All triggers at work within the ``with`` block, as soon as no other process does this.

    ``say`` is told when this process stands by, and when it delivers.
    """
    thread = threading.Thread(
        target=_stand, args=(settings, store, place, say), name="edge-triggers", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        place.stop.set()
        thread.join(JOIN_S)


def _stand(settings: Settings, store: Store, place: Place, say: Callable[[str], None]) -> None:
    """Become the one that delivers, whenever no other one does, until ``place.stop`` is set."""

    def work(held: Callable[[], None]) -> None:
        say(f"delivering triggers from {store}")
        _deliver(settings, store, place, held)

    whenever_free(
        store, LOCK_ORDINAL, work, place.stop, log=log, what="triggers",
        stands_by=lambda: say(f"another edge-fleet delivers triggers from {store}: standing by"),
    )  # fmt: skip


def _deliver(settings: Settings, store: Store, place: Place, held: Callable[[], None]) -> None:
    """A thread a trigger, until ``place.stop`` is set; MachineFault when the lock is lost."""
    ours = replace(place, stop=threading.Event())
    threads = [
        threading.Thread(
            target=_loop,
            args=(TriggerRun(name, rule, store, ours), settings.every_s, ours.stop, name),
            name=f"edge-trigger-{name}",
            daemon=True,
        )
        for name, rule in settings.triggers.items()
    ]
    for thread in threads:
        thread.start()
    try:
        while not place.stop.wait(HELD_S):
            held()
    finally:
        ours.stop.set()
        for thread in threads:
            thread.join(JOIN_S)


def _loop(run: TriggerRun, every_s: float, stop: threading.Event, name: str) -> None:
    while not stop.is_set():
        try:
            tried = run.step()
        except EdgeError as error:
            log.warning("trigger %s: %s; again in %.0f s", name, error.what, every_s)
        except Exception:
            log.exception("trigger %s failed; again in %.0f s", name, every_s)
        else:
            if any(firing.state == "waiting" for firing in tried):
                stop.wait(min(every_s, 1.0))  # a retry may be due sooner
                continue
        stop.wait(every_s)
