"""The one process that counts, where several collect: evidence, births, reports, profiles.

Guards: one leads at a time, and one that was thought dead changes nothing once another leads: each
of its transactions looks at its term first (``store.sharing``). Where it ends, however it ends,
another takes over within seconds. What it has to know it reads from the store, or is sent again by
the broker, which retains it: there is nothing to hand over.

Collectors keep windows uncounted; here each is counted once, in the order of arrival.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from edge_contract.errors import MachineFault
from edge_contract.ports.mqtt import Link, Message
from edge_contract.topics import Topics
from edge_fleet import intake, poison, twins
from edge_fleet.alarm_log import log_raised
from edge_fleet.collector import PENDING_BUNDLES, CollectorConfig, now_ms, until_kept
from edge_fleet.election import whenever_free
from edge_fleet.evidence import Evidence
from edge_fleet.fetcher import Fetcher
from edge_fleet.library import Library
from edge_fleet.sharing import state_filters
from edge_fleet.store.base import (
    Counted,
    Fault,
    ReportSeen,
    StatusSeen,
    Store,
    Transaction,
    Window,
)

log = logging.getLogger(__name__)

LOCK_ORDINAL = 1_000_000_011
"""No collector's: who holds it leads."""
BATCH = 500
ROUND_S = 0.5
"""Windows wait this long at most while nothing else happens."""
LOOK_S = 2.0
"""Between looks for bundles to fetch: they take as long as windows wait for unknown ones."""
BEAT_S = 10.0
STATE_MAX = 500


class Deposed(Exception):
    """Another leads."""


_THROUGH = (MachineFault, Deposed)


@dataclass(frozen=True)
class _Profile:
    """A profile that the fetcher got."""

    bundle: str
    blobs: Mapping[str, bytes]


class Leader:
    """Asks to lead until it is told to stop; see the module's docstring."""

    def __init__(
        self, config: CollectorConfig, store: Store, *, clock_ms: Callable[[], int] = now_ms
    ) -> None:
        self._config = config
        self._store = store
        self._clock_ms = clock_ms
        self._topics = Topics(config.fleet, config.prefix)

    def run(self, stop: threading.Event) -> None:
        """Lead whenever nobody else does, until ``stop`` is set."""

        def lead(_held: Callable[[], None]) -> None:
            try:
                Term(self._config, self._store, self._topics, self._clock_ms).run(stop)
            except Deposed:
                log.warning("another process leads now")

        whenever_free(self._store, LOCK_ORDINAL, lead, stop, log=log, what="leading")


class Term:
    """One time of leading, from the election to the end; nothing is remembered from the last."""

    def __init__(
        self, config: CollectorConfig, store: Store, topics: Topics, clock_ms: Callable[[], int]
    ) -> None:
        self._config, self._store, self._topics = config, store, topics
        self._clock_ms = clock_ms
        self._number = 0
        self._library = Library()
        self._evidence = Evidence(self._library, config.budget, config.cohort_by, config.ordinal)
        self._twins = twins.Twins()
        self._arrived: queue.SimpleQueue[Message | _Profile] = queue.SimpleQueue()
        self._waiting: list[str] = []
        self._beat_s = self._looked_s = float("-inf")
        self._link = Link(
            config.link("-state", durable=False), on_message=self._arrived.put, on_up=self._up
        )
        self._fetcher = Fetcher(
            config.link("-profiles", durable=False),
            topics,
            lambda bundle, blobs: self._arrived.put(_Profile(bundle, blobs)),
            time.monotonic,
        )

    def run(self, stop: threading.Event) -> None:
        """Lead until ``stop`` is set. Raises Deposed; MachineFault when stopped before recovery."""
        with self._store.transaction() as tx:
            self._number = tx.begin_term()
        log.info("collector %d leads, term %d", self._config.ordinal, self._number)
        self._link.start()
        self._fetcher.start()
        try:
            while not stop.is_set():
                batch = self._take(0.0 if self._waiting else ROUND_S)
                self._until_kept(lambda batch=batch: self._keep(batch), stop)  # type: ignore[misc]
                self._until_kept(self._count, stop)
                self._fetcher.tick()
                self._beat()
        finally:
            self._fetcher.stop()
            self._link.stop()

    def _up(self, _session_present: bool) -> None:
        self._link.subscribe(state_filters(self._topics))

    @contextmanager
    def _governing(self) -> Iterator[Transaction]:
        """A transaction of this term, which no other begins while it lasts."""
        with self._store.transaction() as tx:
            if not tx.in_term(self._number):
                raise Deposed
            yield tx

    def _until_kept(self, keep: Callable[[], None], stop: threading.Event) -> None:
        def failed(error: MachineFault, pause_s: float) -> None:
            self._evidence.forget()
            log.warning("%s; nothing is counted; again in %.0f s", error.what, pause_s)

        until_kept(keep, stop, self._config.retry_s, failed)

    def _take(self, wait_s: float) -> list[Message | _Profile]:
        """What arrived; where nothing did, what arrives within ``wait_s``."""
        batch: list[Message | _Profile] = []
        while len(batch) < STATE_MAX:
            try:
                batch.append(self._arrived.get(timeout=0.0 if batch else wait_s))
            except queue.Empty:
                break
        return batch

    def _keep(self, batch: Sequence[Message | _Profile]) -> None:
        """Births, last wills and reports; and profiles, whose windows count in the next round."""
        messages = [one for one in batch if isinstance(one, Message)]
        if messages:
            poison.apart(messages, self._keep_messages, self._set_aside, through=_THROUGH)
        profiles = [one for one in batch if isinstance(one, _Profile)]
        if profiles:
            with self._governing() as tx:
                for one in profiles:
                    for sha256, data in one.blobs.items():
                        tx.put_blob(sha256, data, self._clock_ms())

    def _keep_messages(self, some: Sequence[Message]) -> None:
        now = self._clock_ms()
        items = [
            intake.read(self._topics, one.topic, one.payload, retained=one.retain, now_ms=now)
            for one in some
        ]
        with self._governing() as tx:
            tx.hold_devices(one.device for one in items)
            faults = [one for one in items if isinstance(one, Fault)]
            for item in items:
                if isinstance(item, StatusSeen):
                    tx.status(item)
                    faults += filter(None, [self._twins.born(item)])
                elif isinstance(item, ReportSeen):
                    tx.report(item)
            tx.add_faults(faults)

    def _set_aside(self, message: Message, error: Exception) -> None:
        with self._governing() as tx:
            self._give_up(tx, intake.sender(self._topics, message.topic), error)

    def _give_up(self, tx: Transaction, device: str, error: Exception) -> None:
        tx.add_faults([Fault(device, poison.KIND, poison.told(error), self._clock_ms())])
        log.warning("a message of %r is left out", device, exc_info=error)

    def _count(self) -> None:
        """One batch of each bundle of which windows wait and whose profile is known."""
        unknown: list[str] = []
        with self._store.reading() as tx:
            waiting = tx.waiting_bundles()
            known = [bundle for bundle in waiting if self._library.find(tx, bundle)]
            if time.monotonic() - self._looked_s >= LOOK_S:
                unknown = tx.unknown_bundles(PENDING_BUNDLES)
                unknown += [bundle for bundle in waiting if bundle not in known]
                self._looked_s = time.monotonic()
        self._fetcher.want(unknown)
        self._waiting = known
        for bundle in known:
            with self._store.reading() as tx:
                windows = tx.waiting_windows(bundle, BATCH)
            poison.apart(windows, self._count_windows, self._refuse, through=_THROUGH)

    def _count_windows(self, some: Sequence[Window]) -> None:
        with self._governing() as tx:
            try:
                outcome = self._evidence.count(tx, some, self._clock_ms())
            except Exception:
                self._evidence.forget()  # the store has none of it
                raise
            tx.add_faults(outcome.faults)
        log_raised(outcome.alarms)

    def _refuse(self, window: Window, error: Exception) -> None:
        with self._governing() as tx:
            tx.mark([window.key], Counted.REFUSED)
            self._give_up(tx, window.device, error)

    def _beat(self) -> None:
        """Leave for reports who leads and that it lives."""
        if time.monotonic() - self._beat_s < BEAT_S:
            return
        self._beat_s = time.monotonic()
        beat = f"{self._config.ordinal} {self._number} {self._clock_ms()}"
        self._store.put_settings({"leader": beat})


@contextmanager
def leading(config: CollectorConfig, store: Store, stop: threading.Event) -> Iterator[None]:
    """A candidate in a thread within the ``with`` block."""
    thread = threading.Thread(target=Leader(config, store).run, args=(stop,), name="edge-leader")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
