"""The collector: from MQTT into the store, then back an acknowledgement.

Guards: a message is acknowledged after the transaction that keeps it, never before; so whatever
kills this process, the broker sends again what was not kept, and the store keeps it once. A message
that makes no sense is counted and acknowledged, and so is one that this program cannot stand
(``poison``). While the store fails nothing is acknowledged and
nothing is lost: the batch is tried again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edge_contract.broker_url import BrokerUrl
from edge_contract.errors import MachineFault
from edge_contract.ports.mqtt import FILTERS_MAX, Link, LinkConfig, Message, Ticket
from edge_contract.topics import DEFAULT_PREFIX, Topics
from edge_fleet import intake, poison, tracing, twins
from edge_fleet.alarm_log import log_raised
from edge_fleet.drift.budget import Budget
from edge_fleet.error_watch import ErrorWatch
from edge_fleet.evidence import Evidence, Outcome
from edge_fleet.fetcher import Fetcher
from edge_fleet.library import Library
from edge_fleet.sharing import SHARED, Part
from edge_fleet.store.base import (
    Alarm,
    AsideSeen,
    Counted,
    EventSeen,
    Fault,
    ReportSeen,
    StatusSeen,
    Store,
    Transaction,
    Window,
)

log = logging.getLogger(__name__)

BATCH_MAX = 500
"""A transaction costs as much as some dozen windows, whatever is in it."""
BATCH_S = 0.2
RECEIVE_MAXIMUM = 1500
"""Unacknowledged messages the broker may send: a few batches, so that it never waits for us."""
SESSION_EXPIRY_S = 30 * 24 * 3600
RETRY_MAX_S = 30.0
PENDING_BATCH = 500
PENDING_BUNDLES = 256
HEARTBEAT_S = 10.0
RESCAN_S = 30.0
LOGGED_MAX = 10_000


def until_kept(
    keep: Callable[[], None],
    stop: threading.Event,
    retry_s: float,
    failed: Callable[[MachineFault, float], None],
) -> bool:
    """Call ``keep`` until the store takes it; returns whether it first failed.

    Args:
        retry_s: the first pause after a failure; it doubles to ``RETRY_MAX_S``.
        failed: is told of each, with the pause in seconds that follows.

    Raises:
        MachineFault: the last one, when ``stop`` was set in a pause.
    """
    pause_s = retry_s
    while True:
        try:
            keep()
        except MachineFault as error:
            failed(error, pause_s)
            if stop.wait(pause_s):
                raise
            pause_s = min(2 * pause_s, RETRY_MAX_S)
        else:
            return pause_s > retry_s


@dataclass(frozen=True)
class CollectorConfig:
    """What a collector is told.

    Attributes:
        ordinal: 0 for the only one; its client id and its lock carry it, and stay the same over
            restarts, so that the broker keeps what comes meanwhile.
        budget: the promise on false alarms.
        part: of the fleet's messages, where several collect and a leader counts (``leader``);
            None: all of them, and this process counts them too.
        cohort_by: labels; devices that have one value of one in common are watched together.
        connect_s: how long the broker may take to let us in.
        retry_s: the first pause after the store failed; it doubles to ``RETRY_MAX_S``.
    """

    broker: BrokerUrl
    fleet: str
    prefix: str = DEFAULT_PREFIX
    ordinal: int = 0
    part: Part | None = None
    budget: Budget = field(default_factory=Budget)
    cohort_by: tuple[str, ...] = ()
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    connect_s: float = 10.0
    retry_s: float = 1.0

    @property
    def client_id(self) -> str:
        """``edge-fleet-<fleet>-<ordinal>``."""
        return f"edge-fleet-{self.fleet}-{self.ordinal}"

    def filters(self, topics: Topics) -> tuple[str, ...]:
        """What to subscribe to."""
        return topics.collector_filters() if self.part is None else self.part.filters(topics)

    def link(self, suffix: str = "", *, durable: bool) -> LinkConfig:
        """How to connect."""
        return LinkConfig(
            broker=self.broker,
            client_id=self.client_id + suffix,
            session_expiry_s=SESSION_EXPIRY_S if durable else 0,
            manual_ack=durable,
            bulk=durable,
            receive_maximum=RECEIVE_MAXIMUM if durable else 64,
            ca_file=self.ca_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
        )


@dataclass(frozen=True)
class _Arrived:
    """A message and the connection that it came over."""

    message: Message
    connection: int


@dataclass(frozen=True)
class _Profile:
    """A profile that the fetcher got."""

    bundle: str
    blobs: Mapping[str, bytes]


_Item = _Arrived | _Profile | Fault


def now_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


class Collector:
    """Runs until it is told to stop; see the module's docstring."""

    def __init__(
        self, config: CollectorConfig, store: Store, *, clock_ms: Callable[[], int] = now_ms
    ) -> None:
        self._config = config
        self._store = store
        self._clock_ms = clock_ms
        self._topics = Topics(config.fleet, config.prefix)
        self._arrived: queue.SimpleQueue[list[_Item]] = queue.SimpleQueue()
        self._connection = 0
        self._subscribed: queue.SimpleQueue[list[Ticket]] = queue.SimpleQueue()
        self._counts = config.part is None
        self._library = Library()
        self._evidence = Evidence(self._library, config.budget, config.cohort_by, config.ordinal)
        self._errors = ErrorWatch(self._library, config.budget)
        self._twins = twins.Twins()
        self._logged: set[tuple[str, str]] = set()
        self._heartbeat_s = self._rescan_s = float("-inf")
        self._alone = self._leaving = False
        self._link = Link(
            config.link(durable=True), on_messages=self._received, on_up=self._up,
            on_down=self._down,
        )  # fmt: skip
        self._fetcher = Fetcher(
            config.link("-profiles", durable=False),
            self._topics,
            lambda bundle, blobs: self._arrived.put([_Profile(bundle, blobs)]),
            time.monotonic,
        )

    def run(self, stop: threading.Event, started: Callable[[], None] = lambda: None) -> None:
        """Collect until ``stop`` is set; ``started`` is called once subscribed.

        Raises:
            InputFault: another collector of this ordinal runs, or the store is another fleet's.
            PeerFault: the broker is not there, or refuses the subscription.
            MachineFault: the store failed and ``stop`` was set before it recovered.
        """
        self._store.claim(self._config.fleet)
        with self._store.lock(self._config.ordinal):
            self._link.start(self._config.connect_s)
            try:
                for ticket in self._subscribed.get(timeout=self._config.connect_s):
                    ticket.wait(self._config.connect_s)
                if self._counts:
                    self._fetcher.start()
                started()
                self._loop(stop)
            finally:
                self._fetcher.stop()
                self._leaving = True
                self._link.stop()

    def note(self, fault: Fault) -> None:
        """Count a fault that another part of this process saw. From any thread."""
        self._arrived.put([fault])

    # -- network thread --------------------------------------------------------------------

    def _down(self, _reason: str) -> None:
        """Say it once, however often it is tried in vain."""
        if self._connection and not self._alone and not self._leaving:
            self._alone = True
            log.warning("the broker is gone: devices keep what they count until it is back")

    def _up(self, session_present: bool) -> None:
        """Subscribe at every connection; retained state comes once a process or session."""
        first = self._connection == 0
        self._connection += 1
        if self._alone:
            self._alone = False
            log.warning("the broker is back")
        handling = 1 if session_present and not first else 0
        filters = self._config.filters(self._topics)
        tickets = [
            self._link.subscribe(filters[at : at + FILTERS_MAX], retain_handling=handling)
            for at in range(0, len(filters), FILTERS_MAX)
        ]
        for ticket in tickets:
            ticket.then(self._answered)
        if first:
            self._leave_others(filters)
        self._subscribed.put(tickets)

    def _leave_others(self, filters: tuple[str, ...]) -> None:
        """The broker keeps what this ordinal subscribed to when it took another part."""
        former = {*self._topics.collector_filters(), *SHARED.filters(self._topics)}
        if self._config.part is not None:
            former |= set(Part(0, 1).filters(self._topics))
        others = sorted(former - set(filters))
        for at in range(0, len(others), FILTERS_MAX):
            self._link.unsubscribe(others[at : at + FILTERS_MAX])

    def _answered(self, accepted: bool) -> None:
        if not accepted and self._link.up:  # else it went before it answered
            log.error("the broker refused the subscription to the fleet's topics")

    def _received(self, messages: list[Message]) -> None:
        connection = self._connection
        self._arrived.put([_Arrived(message, connection) for message in messages])

    # -- main thread -----------------------------------------------------------------------

    def _loop(self, stop: threading.Event) -> None:
        while not stop.is_set():
            batch = self._take()
            if batch:
                self._until_kept(lambda batch=batch: self._keep(batch), stop)  # type: ignore[misc]
                self._acknowledge(batch)
            self._housekeep(stop)

    def _take(self) -> list[_Item]:
        """What arrives within ``BATCH_S`` of the first; no more once it is ``BATCH_MAX``."""
        batch: list[_Item] = []
        deadline_s = time.monotonic() + BATCH_S
        while len(batch) < BATCH_MAX:
            try:
                batch += self._arrived.get(timeout=max(deadline_s - time.monotonic(), 0.0))
            except queue.Empty:
                break
        return batch

    def _until_kept(self, keep: Callable[[], None], stop: threading.Event) -> None:
        def failed(error: MachineFault, pause_s: float) -> None:
            self._evidence.forget()
            log.warning("%s; nothing is acknowledged; again in %.0f s", error.what, pause_s)

        if until_kept(keep, stop, self._config.retry_s, failed):
            log.warning("the store takes records again")

    def _keep(self, batch: Sequence[_Item]) -> None:
        unknown: set[str] = set()

        def keep(some: Sequence[_Item]) -> None:
            with tracing.span("collect", messages=len(some)), self._store.transaction() as tx:
                outcome = self._forgetting(lambda: self._keep_items(tx, self._read(some)))
            log_raised(outcome.alarms)
            unknown.update(outcome.unknown)

        poison.apart(batch, keep, self._set_aside)
        for profile in batch:
            if isinstance(profile, _Profile):
                self._learn(profile)
        self._fetcher.want(unknown)

    def _forgetting(self, count: Callable[[], Outcome]) -> Outcome:
        """What memory holds of a transaction that failed is not what the store has."""
        try:
            return count()
        except Exception:
            self._evidence.forget()
            raise

    def _set_aside(self, item: _Item, error: Exception) -> None:
        """Count a message as a fault, so that it is acknowledged and never comes again."""
        device = ""
        if isinstance(item, _Arrived):
            device = intake.sender(self._topics, item.message.topic)
        with self._store.transaction() as tx:
            self._give_up(tx, device, error)

    def _give_up(self, tx: Transaction, device: str, error: Exception) -> None:
        fault = Fault(device, poison.KIND, poison.told(error), self._clock_ms())
        tx.add_faults([fault])
        self._log_faults([fault], error)

    def _read(self, batch: Sequence[_Item]) -> list[intake.Item]:
        now = self._clock_ms()
        noted: list[intake.Item] = [each for each in batch if isinstance(each, Fault)]
        return noted + [
            intake.read(
                self._topics,
                arrived.message.topic,
                arrived.message.payload,
                retained=arrived.message.retain,
                now_ms=now,
            )
            for arrived in batch
            if isinstance(arrived, _Arrived)
        ]

    def _keep_items(self, tx: Transaction, items: Sequence[intake.Item]) -> Outcome:
        windows = [item for item in items if isinstance(item, Window)]
        faults = [item for item in items if isinstance(item, Fault)]
        counted = self._countable(tx, windows)
        beside = {item.device for item in items if not isinstance(item, Window)}
        fresh = tx.add_windows(windows, counted, beside)
        faults += _conflicts(tx, windows, fresh)
        faults += filter(None, map(intake.clock_fault, fresh))
        for item in items:
            if isinstance(item, StatusSeen):
                tx.status(item)
                faults += filter(None, [self._twins.born(item)])
            elif isinstance(item, ReportSeen):
                tx.report(item)
        events = [item for item in items if isinstance(item, EventSeen)]
        tx.add_events(events)
        raised: list[Alarm] = []
        asides = tx.add_asides([item for item in items if isinstance(item, AsideSeen)])
        if asides:
            tx.alone("labels")
            raised = self._errors.count(tx, asides, self._clock_ms())
        faults += filter(None, map(twins.told, events))
        outcome = Outcome()
        if self._counts:
            with tracing.span("drift", windows=len(fresh)):
                outcome = self._evidence.count(tx, fresh, self._clock_ms(), marked=counted)
        tx.add_faults(faults + outcome.faults)
        self._log_faults(faults + outcome.faults)
        outcome.alarms += raised
        return outcome

    def _countable(self, tx: Transaction, windows: Sequence[Window]) -> set[str]:
        """Bundles whose windows are counted in the transaction that keeps them."""
        if not self._counts:
            return set()
        return {one for one in {each.bundle for each in windows} if self._library.find(tx, one)}

    def _learn(self, profile: _Profile) -> None:
        """Keep a profile, then count what waited for it."""
        now = self._clock_ms()
        with self._store.transaction() as tx:
            for sha256, data in profile.blobs.items():
                tx.put_blob(sha256, data, now)
        log.info("profile of bundle %s is known", profile.bundle)
        self._count_pending(profile.bundle)

    def _count_pending(self, bundle: str) -> None:
        unknown: set[str] = set()

        def count(some: Sequence[Window]) -> None:
            with self._store.transaction() as tx:
                now = self._clock_ms()
                outcome = self._forgetting(lambda: self._evidence.count(tx, some, now))
                tx.add_faults(outcome.faults)
            log_raised(outcome.alarms)
            unknown.update(outcome.unknown)

        def refuse(window: Window, error: Exception) -> None:
            with self._store.transaction() as tx:
                tx.mark([window.key], Counted.REFUSED)
                self._give_up(tx, window.device, error)

        while not unknown:
            with self._store.reading() as tx:
                windows = tx.pending(bundle, PENDING_BATCH)
            if not windows:
                return
            poison.apart(windows, count, refuse)

    def _acknowledge(self, batch: Sequence[_Item]) -> None:
        """What came over a former connection is not ours to acknowledge: it comes again."""
        self._link.acknowledge(
            arrived.message
            for arrived in batch
            if isinstance(arrived, _Arrived) and arrived.connection == self._connection
        )

    def _housekeep(self, stop: threading.Event) -> None:
        if self._counts:
            self._fetcher.tick()
        now_s = time.monotonic()
        if now_s - self._heartbeat_s >= HEARTBEAT_S:
            self._heartbeat_s = now_s
            self._until_kept(self._beat, stop)
        if self._counts and now_s - self._rescan_s >= RESCAN_S:
            self._rescan_s = now_s
            self._until_kept(self._rescan, stop)

    def _rescan(self) -> None:
        """Windows that wait: count those whose profile is here, ask for the others' profiles."""
        with self._store.reading() as tx:
            waiting, unknown = tx.waiting_bundles(), tx.unknown_bundles(PENDING_BUNDLES)
            known = [bundle for bundle in waiting if self._library.find(tx, bundle)]
        for bundle in known:
            self._count_pending(bundle)
        self._fetcher.want([*unknown, *(bundle for bundle in waiting if bundle not in known)])

    def _beat(self) -> None:
        """Leave for reports what this collector is and that it lives."""
        config = self._config
        self._store.put_settings(
            {
                f"collector-{config.ordinal}": str(self._clock_ms()),
                "broker": str(config.broker),
                "window_s": repr(config.budget.window_s),
                "false_alarms_per_month": repr(config.budget.false_alarms_per_month),
            }
        )

    def _log_faults(self, faults: Sequence[Fault], error: Exception | None = None) -> None:
        for fault in faults:
            key = (fault.device, fault.kind)
            if key not in self._logged and len(self._logged) < LOGGED_MAX:
                self._logged.add(key)
                log.warning(
                    "%s from %r: %r", fault.kind, fault.device, fault.detail, exc_info=error
                )


def _conflicts(tx: Transaction, windows: Sequence[Window], fresh: Sequence[Window]) -> list[Fault]:
    """Repeated keys with other bytes: a device whose boots or sequence began again.

    Of a window that is a part of a sum the bytes are gone: then a late repeat of the same is told
    apart by nothing, and counted as well.
    """
    kept = {id(window) for window in fresh}
    odd = [one for one in windows if id(one) not in kept and not tx.same_record(one)]
    rolled = tx.rolled([window.key for window in odd])
    faults = []
    for window in odd:
        kind, how = "reused-key", "came again with other content"
        if window.key in rolled:
            kind, how = "old-key", "came again long after it was counted"
        detail = f"boot {window.boot} seq {window.seq} {how}; was the device set up anew under its"
        faults.append(Fault(window.device, kind, f"{detail} old name?", window.received_ms))
    return faults
