"""Rollouts at work: look, plan, keep, send, again and again.

Guards: what a device is to follow is in the store before it is sent, in the transaction that keeps
the rollout's state; its revision only rises. After a restart, or when the broker comes back and may
have lost what it retained, whatever a device has not said that it heard is sent again. One process
a store does this; where it ends, another takes over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from msgspec import UNSET
from msgspec.structs import replace

from edge_contract import messages
from edge_contract.errors import EdgeError
from edge_contract.messages import Desired
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_contract.topics import Topics
from edge_fleet import tracing
from edge_fleet.election import ELECTION_S, whenever_free
from edge_fleet.rollouts import facts, plan, state, whom
from edge_fleet.rollouts.facts import Look
from edge_fleet.rollouts.order import Order
from edge_fleet.rollouts.state import Reports, Rollout, Want
from edge_fleet.store.audit import PLANNER, audit
from edge_fleet.store.base import Store, Transaction
from edge_fleet.store.rollouts import RolloutRow, Wish

log = logging.getLogger(__name__)

LOCK_ORDINAL = 1_000_000_009
"""No collector's: who holds it plans."""
EVERY_S = 15.0
"""Each round reads every device's report, and the records since the rollout began."""
LOOK_MS = 600_000
"""What channels name as stable is looked up so often, for those who wait for it."""
RESEND_MS = 600_000
"""A wish that no device heard of is sent again so often."""
SENT_AT_ONCE = 200
SEND_S = 30.0
REVISION_MAX = 2**52
"""A device that claims to have heard of a later one is not followed there."""


OVER = ("halted", "aborted", "rolled-back", "released")
SETTLED_MS = 86_400_000
COUNTED = ("running", "paused", "waiting")
"""Phases in which gates are looked at, which takes reading many records."""


def row_of(rollout: Rollout, now_ms: int) -> RolloutRow:
    """As it is kept."""
    return RolloutRow(rollout.id, rollout.order.model, rollout.phase, now_ms, state.encode(rollout))


class RolloutRun:
    """All rollouts of one store. ``step`` is one round; a test calls it by hand."""

    def __init__(
        self, store: Store, topics: Topics, clock_ms: Callable[[], int],
        promoted: Callable[[Order], bool] | None = None,
    ) -> None:  # fmt: skip
        self._store, self._topics, self._clock_ms = store, topics, clock_ms
        self._promoted = promoted
        self._looked_ms: dict[int, int] = {}
        self._sent: dict[str, tuple[int, int]] = {}

    def broker_is_back(self) -> None:
        """It may have lost everything: what was not heard is sent again. From any thread."""
        self._sent = {}

    def step(self) -> bool:
        """Look and plan once, and keep that; whether there is anything to do at all."""
        now_ms = self._clock_ms()
        with self._store.reading() as tx:
            every = facts.everything(tx)
            look = facts.look(tx) if every else None
            found = {
                rollout.id: _reports(tx, rollout, every, look)
                for rollout in every
                if not settled(rollout, now_ms)
            }
        if look is None:
            return False
        stable = {one.id: self._stable(one, now_ms) for one in every if one.id in found}
        with self._store.transaction() as tx:
            tx.serialise_starts()
            wishes = tx.wishes()
            desired = {device: facts.desired_of(wish) for device, wish in wishes.items()}
            heard = {device.device: told for device, told in look.devices}
            changed: dict[str, Wish] = {}
            held = {rollout.id: rollout for rollout in facts.everything(tx)}
            for number, seen in found.items():
                now_seen = _as_kept(replace(seen, promoted=stable[number]), desired, held, number)
                held[number], wants = self._plan(tx, number, now_seen, now_ms)
                for want in wants:
                    told = heard[want.device]
                    changed[want.device] = wished(
                        wishes.get(want.device), want, told.revision if told else 0, now_ms
                    )
                    wishes[want.device] = changed[want.device]
                    desired[want.device] = facts.desired_of(changed[want.device])
            for device, wish in wishes.items():
                told = heard.get(device)
                if told and wish.revision < told.revision < REVISION_MAX:
                    log.warning("device %s follows a wish that is not ours", device)
                    changed[device] = risen(wish, told.revision + 1, now_ms)
            tx.put_wishes(list(changed.values()))
        return True

    def _plan(
        self, tx: Transaction, number: int, reports: Reports, now_ms: int
    ) -> tuple[Rollout, tuple[Want, ...]]:
        row = tx.rollout_held(number)
        assert row is not None  # none is ever deleted
        before = state.decode(row.state)
        after, wants = plan.step(before, reports, now_ms)
        if after != before:
            tx.put_rollout(row_of(after, now_ms))
        if after.notes[-1:] != before.notes[-1:]:
            audit(
                tx, now_ms, PLANNER, action=f"rollout.{after.phase}", subject=f"rollout {number}",
                detail=after.reason,
            )  # fmt: skip
        if after.phase != before.phase:
            level = logging.INFO if after.phase == "finished" else logging.WARNING
            log.log(level, "rollout %d is %s: %s", number, after.phase, after.reason)
        return after, wants

    def _stable(self, rollout: Rollout, now_ms: int) -> bool | None:
        """Whether a finished one may be released; looked up every ``LOOK_MS``."""
        waits = rollout.phase == "finished" and rollout.order.then == "channel"
        if not waits or self._promoted is None:
            return None
        if now_ms - self._looked_ms.get(rollout.id, -LOOK_MS) < LOOK_MS:
            return None
        self._looked_ms[rollout.id] = now_ms
        try:
            return self._promoted(rollout.order)
        except EdgeError as error:
            log.warning("rollout %d: what is stable cannot be seen: %s", rollout.id, error.what)
            return None

    def pending(self) -> list[Wish]:
        """Wishes that their devices did not say they heard, and that were not sent of late."""
        now_ms = self._clock_ms()
        with self._store.reading() as tx:
            wishes, devices = tx.wishes(), {one.device: one for one in tx.devices()}
        waiting = []
        for device, wish in wishes.items():
            told = facts.report_of(devices[device]) if device in devices else None
            revision, at_ms = self._sent.get(device, (-1, 0))
            if told is not None and told.revision >= wish.revision:
                continue
            if revision != wish.revision or now_ms - at_ms >= RESEND_MS:
                waiting.append(wish)
        return waiting

    def send(self, link: Link) -> int:
        """Send what is pending; how many the broker took. Raises PeerFault when it refuses."""
        waiting = self.pending()
        for at in range(0, len(waiting), SENT_AT_ONCE):
            some = waiting[at : at + SENT_AT_ONCE]
            tickets = [
                link.publish(self._topics.desired(wish.device), wish.desired, retain=True)
                for wish in some
            ]
            for wish, ticket in zip(some, tickets, strict=True):
                ticket.wait(SEND_S)
                self._sent[wish.device] = (wish.revision, self._clock_ms())
        return len(waiting)


def wished(before: Wish | None, want: Want, heard: int, now_ms: int) -> Wish:
    """The next wish for a device; what it is to follow of other models stays. Pure."""
    former = facts.desired_of(before)
    revision = max(former.revision, heard if heard < REVISION_MAX else 0) + 1
    models = {**former.models, want.model: want.word} if want.word else former.models
    beside = dict(former.beside)
    if want.beside is None:
        beside.pop(want.model, None)
    elif want.beside is not UNSET:
        beside[want.model] = want.beside
    desired = replace(former, revision=revision, models=models, beside=beside)
    return Wish(want.device, revision, now_ms, messages.encode(desired))


def risen(wish: Wish, revision: int, now_ms: int) -> Wish:
    """The same under a later revision. Pure."""
    desired = replace(facts.desired_of(wish), revision=revision)
    return Wish(wish.device, revision, now_ms, messages.encode(desired))


def settled(rollout: Rollout, now_ms: int) -> bool:
    """It is over for so long that all it asked is kept; nothing of it is looked at again. Pure."""
    return rollout.phase in OVER and now_ms - rollout.notes[-1].at_ms > SETTLED_MS


def _reports(
    tx: Transaction, rollout: Rollout, every: Iterable[Rollout], look: Look | None
) -> Reports:
    return facts.reports(
        tx, rollout.order, rollout.started_ms, counts=rollout.phase in COUNTED,
        taken=facts.taken(rollout, every), at=look,
    )  # fmt: skip


def _as_kept(
    reports: Reports, desired: dict[str, Desired], every: dict[int, Rollout], number: int
) -> Reports:
    """With what was kept since they were read: by others, and by this round."""
    rollout = every[number]
    model = rollout.order.model
    devices = dict(reports.devices)
    for device in devices.keys() & desired.keys():
        wanted = desired[device]
        devices[device] = replace(
            devices[device], word=wanted.models.get(model, "stable"),
            beside=wanted.beside.get(model),
        )  # fmt: skip
    reports = replace(reports, devices=devices, taken=facts.taken(rollout, every.values()))
    if rollout.phase != "queued":
        return reports
    before = [one for one in every.values() if one.id < number]
    return replace(reports, held=whom.held(rollout.order, before, reports))


@contextmanager
def running(
    run: RolloutRun,
    store: Store,
    config: LinkConfig,
    stop: threading.Event,
    every_s: float = EVERY_S,
) -> Iterator[None]:
    """Rollouts at work within the ``with`` block, in a thread."""
    thread = threading.Thread(
        target=_lead, args=(run, store, config, stop, every_s), name="edge-rollouts"
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _lead(
    run: RolloutRun, store: Store, config: LinkConfig, stop: threading.Event, every_s: float
) -> None:
    """Become the one that plans, as soon as no other one does."""
    whenever_free(
        store, LOCK_ORDINAL, lambda held: _loop(run, config, stop, every_s, held), stop,
        log=log, what="rollouts", every_s=min(every_s, ELECTION_S), again_s=every_s,
    )  # fmt: skip


def _loop(
    run: RolloutRun,
    config: LinkConfig,
    stop: threading.Event,
    every_s: float,
    held: Callable[[], None],
) -> None:
    """Connected only once there is something to roll out. MachineFault when another may plan."""
    link: Link | None = None
    try:
        while not stop.is_set():
            held()
            try:
                with tracing.span("rollouts"):
                    busy = run.step()
                if busy:
                    if link is None:
                        link = Link(config, on_up=lambda _kept: run.broker_is_back())
                        link.start()
                    if link.up:
                        run.send(link)
            except EdgeError as error:
                log.warning("rollouts: %s; again in %.0f s", error.what, every_s)
            except Exception:
                log.exception("rollouts failed; again in %.0f s", every_s)
            stop.wait(every_s)
    finally:
        if link is not None:
            link.stop()
