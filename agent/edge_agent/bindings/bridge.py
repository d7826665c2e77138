"""The bindings' own thread: messages in, predictions out, sensors announced.

Guards: no network thread waits for a binding; what waits is bounded in number and in bytes; a
local broker that is away, a hostile message or a fault in here costs counts, and never the agent.

No rule lives here: what a message means and when a row is due is decided by the pure modules.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from edge_agent.bindings import homeassistant, results, sparkplug
from edge_agent.bindings.bound import Bound
from edge_agent.bindings.counts import BindingReport
from edge_agent.bindings.homeassistant import Place
from edge_agent.bindings.join import Moment, Row
from edge_agent.bindings.memo import Memo
from edge_agent.bindings.payloads import Decoded, Unread
from edge_agent.bindings.settings import Binding
from edge_agent.bindings.sparkplug import Names
from edge_agent.bindings.station import Station, by_filter
from edge_agent.live import Live
from edge_agent.model import Model
from edge_agent.outputs import Prediction
from edge_agent.telemetry.recorder import Instant
from edge_contract.errors import EdgeError, InputFault
from edge_contract.ports.mqtt import Link, Message

log = logging.getLogger(__name__)

QUEUE_MAX = 1024
QUEUE_MAX_BYTES = 4 * 1024 * 1024
LOOK_S = 5.0
"""A sensor that is not announced yet, for want of its model, is looked after this often."""
REBIRTH_S = 60.0
"""A Sparkplug node is asked for its births at most this often."""


class Answering(Protocol):
    """What a bridge needs of ``edge_agent.serving.Serving``."""

    @property
    def answering(self) -> Mapping[str, Live]:
        """Every seat by its name."""

    def predict(self, name: str, rows: object) -> Prediction | list[Prediction]:
        """The answer for one row."""


@dataclass(frozen=True)
class Waiting:
    """A message that the worker has not looked into yet."""

    station: Station
    topic: str
    payload: bytes
    retained: bool
    filters: frozenset[str]
    at: Moment


class Bridge:
    """All bindings of one agent. ``handle`` and ``up`` may be called from any thread.

    Args:
        bindings: of one agent; ``topics`` gives where each publishes, by its name.
        links: by the name of their broker, "" for the agent's own. None is started here.
        memo: what was left at brokers.
    """

    def __init__(
        self,
        bindings: Sequence[Binding],
        links: Mapping[str, Link],
        serving: Answering,
        *,
        topics: Mapping[str, str],
        place: Place,
        memo: Memo,
        now: Callable[[], Instant],
    ) -> None:
        self._serving = serving
        self._topics = topics
        self._place = place
        self._memo = memo
        self._now = now
        begin_s = now().monotonic_s
        self._bound: dict[str, Bound] = {}
        self._stations: dict[str, Station] = {}
        self._names: dict[str, Names] = {}
        for name, link in links.items():
            own = [each for each in bindings if each.broker == name]
            self._names[name] = Names(_metrics(own))
            for each in own:
                self._bound[each.title] = Bound(each, self._names[name], begin_s)
            self._stations[name] = Station(name, link, _patterns(own))
        self._by_filter = {
            name: by_filter({e.title: e.topics for e in bindings if e.broker == name})
            for name in links
        }
        self._dropped: Counter[str] = Counter()
        self._announced: dict[str, str] = {}
        """By binding, the digest of the model whose sensors are announced."""
        self._said: dict[str, bytes] = {}
        self._asked_s: dict[tuple[str, str], float] = {}
        """When a Sparkplug node was asked for its births, where that is not long ago."""
        self._queue: deque[Waiting] = deque()
        self._queued_bytes = 0
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="bindings", daemon=True)

    def start(self) -> None:
        """Begin to look into messages."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the thread; what waits is dropped."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def up(self, broker: str) -> None:
        """The broker is there: subscribe, take away what earlier runs left, say it again."""
        self._post(lambda: self._came(self._stations[broker]))

    def turned_away(self, broker: str, reason: str) -> None:
        """The broker refused the connection."""
        self._stations[broker].refused = f"the broker refuses this device: {reason}"

    def handle(self, broker: str, message: Message) -> None:
        """Take in a message of that broker; never blocks or raises."""
        station = self._stations[broker]
        by = station.of(message)
        if not by:
            return
        instant = self._now()
        wall_s = instant.wall_ms / 1000 if instant.synchronised else None
        waiting = Waiting(
            station, message.topic, message.payload, message.retain, by,
            Moment(instant.monotonic_s, wall_s),
        )  # fmt: skip
        size = len(message.payload)
        with self._changed:
            full = len(self._queue) >= QUEUE_MAX or self._queued_bytes + size > QUEUE_MAX_BYTES
            if not full:
                self._queue.append(waiting)
                self._queued_bytes += size
                self._changed.notify()
            else:
                self._dropped.update(
                    {name for each in by for name in self._by_filter[broker].get(each, ())}
                )

    def reports(self) -> dict[str, BindingReport]:
        """How each binding is, by its name."""
        found = {}
        for name, bound in self._bound.items():
            link = self._stations[bound.binding.broker].link
            report = bound.report(str(link.config.broker), connected=link.up)
            refused = self._stations[bound.binding.broker].refused
            if refused and not report.why:
                report = replace(report, why=refused[:500])
            if dropped := self._dropped[name]:
                report = replace(report, odd={**report.odd, "dropped": dropped})
            found[name] = report
        return found

    # -- the bridge's own thread -----------------------------------------------------------------

    def _run(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
                self._look()
            except Exception:  # a bug must be seen, and must not silence every binding for ever
                log.exception("unexpected error in a binding; the others go on")

    def _next(self) -> Callable[[], None] | None:
        """What to do now, be it to look what is due. None: the end."""
        with self._changed:
            woken = True
            while not self._stopping:
                if self._jobs:
                    return self._jobs.popleft()
                if self._queue:
                    waiting = self._queue.popleft()
                    self._queued_bytes -= len(waiting.payload)
                    return lambda: self._take(waiting)
                wait_s = self._wait_s()
                if not woken or (wait_s is not None and wait_s <= 0):
                    return lambda: None
                woken = self._changed.wait(wait_s)
        return None

    def _wait_s(self) -> float | None:
        """How long nothing is due; None: nothing ever is."""
        due = [bound.due_s for bound in self._bound.values() if bound.due_s is not None]
        wait_s = min(due) - self._now().monotonic_s if due else None
        if any(not self._announced.get(bound.binding.title) for bound in self._with_sensors()):
            return LOOK_S if wait_s is None else min(wait_s, LOOK_S)
        return wait_s

    def _post(self, job: Callable[[], None]) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def _take(self, waiting: Waiting) -> None:
        """Give a message to whoever asked for it."""
        station, by = waiting.station, self._by_filter[waiting.station.name]
        if waiting.payload == homeassistant.ONLINE and waiting.topic in self._births(station):
            self._born(station)
        takers = dict.fromkeys(name for pattern in waiting.filters for name in by.get(pattern, ()))
        if not takers:
            return
        try:
            message = Decoded(waiting.topic, waiting.payload)
        except Unread as unread:
            for name in takers:
                self._bound[name].unread(unread.count)
            return
        for name in takers:
            bound = self._bound[name]
            bound.take(message, waiting.filters, waiting.at, retained=waiting.retained)
            if message.birth_missing and bound.binding.rebirth:
                self._ask_birth(station, waiting)

    def _ask_birth(self, station: Station, waiting: Waiting) -> None:
        where = sparkplug.address(waiting.topic)
        if where is None:
            return
        now = self._now()
        asked_s = self._asked_s
        while asked_s and now.monotonic_s - next(iter(asked_s.values())) >= REBIRTH_S:
            del asked_s[next(iter(asked_s))]
        if where.node not in asked_s and len(asked_s) < sparkplug.NODES_MAX:
            asked_s[where.node] = now.monotonic_s
            group, node = where.node
            station.publish(f"spBv1.0/{group}/NCMD/{node}", sparkplug.rebirth(now.wall_ms))

    # -- rows and answers --------------------------------------------------------------------------

    def _look(self) -> None:
        """Predict what is due; announce what can be announced by now."""
        for bound in self._bound.values():
            row = bound.due(self._now().monotonic_s)
            if row is not None:
                self._predict(bound, row)
        for bound in self._with_sensors():
            self._announce(bound)

    def _predict(self, bound: Bound, row: Row) -> None:
        name = bound.binding.model
        before = self._model(name)
        if before is None:
            bound.wait(f"a version of the model {name!r}")
            return
        try:
            found = self._serving.predict(name, row.values)
        except EdgeError as error:
            refused = isinstance(error, InputFault)
            bound.trouble("refused" if refused else "failed", error.what)
            return
        prediction = found[0] if isinstance(found, list) else found
        # Which of the two answered, when one took the other's place meanwhile, nobody can say.
        version = before.manifest.version if self._model(name) is before else ""
        at_ms = self._now().wall_ms
        fields = results.fields_of(
            prediction, model=name, version=version, at_ms=at_ms, row=row.values
        )
        bound.answered(results.short(fields), at_ms)
        self._publish(bound, fields)

    def _publish(self, bound: Bound, fields: Mapping[str, object]) -> None:
        binding = bound.binding
        self._announce(bound)
        try:
            payload = results.payload(binding.publish, fields)
        except InputFault as error:
            bound.trouble("unsent", error.what)
            return
        self._said[binding.title] = payload
        self._send(bound, payload)

    def _send(self, bound: Bound, payload: bytes) -> None:
        binding = bound.binding
        why = self._stations[binding.broker].publish(
            self._topics[binding.title], payload,
            qos=binding.publish.qos, retain=binding.publish.retain,
        )  # fmt: skip
        if why:
            bound.trouble("unsent", why)
        else:
            bound.published()

    def _model(self, name: str) -> Model | None:
        seat = self._serving.answering.get(name)
        return seat.model if seat is not None else None

    # -- what is left at brokers -------------------------------------------------------------------

    def _came(self, station: Station) -> None:
        """Runs at each connect."""
        left = self._memo.left(station.name)
        gone = [each for each in left.filters if each not in station.patterns]
        lasting = station.patterns if station.link.config.session_expiry_s else ()
        self._memo.keep(station.name, filters=tuple(lasting))
        station.subscribe(gone)
        mine = self._config_topics(station)
        for topic in left.sensors:
            if topic not in mine:
                self._remove(station, topic)
        self._forget(station)

    def _remove(self, station: Station, topic: str) -> None:
        """Home Assistant forgets a sensor whose retained configuration became empty."""

        def settled(accepted: bool) -> None:
            if accepted:
                self._post(lambda: self._drop(station.name, topic))

        station.publish(topic, b"", qos=1, retain=True, then=settled)

    def _drop(self, broker: str, topic: str) -> None:
        left = self._memo.left(broker).sensors
        self._memo.keep(broker, sensors=tuple(each for each in left if each != topic))

    def _born(self, station: Station) -> None:
        """Home Assistant started: say everything again."""
        self._forget(station)
        for bound in self._with_sensors():
            said = self._said.get(bound.binding.title)
            if bound.binding.broker == station.name:
                self._announce(bound)
                if said is not None:
                    self._send(bound, said)

    def _forget(self, station: Station) -> None:
        for bound in self._with_sensors():
            if bound.binding.broker == station.name:
                self._announced.pop(bound.binding.title, None)

    def _announce(self, bound: Bound) -> None:
        """Leave the configurations of its sensors, where they are not there as they should be."""
        binding = bound.binding
        station, model = self._stations[binding.broker], self._model(binding.model)
        if binding.homeassistant is None or model is None or not station.link.up:
            return
        if self._announced.get(binding.title) == model.digest:
            return
        configs = homeassistant.discovery(
            binding, model.manifest, self._place, self._topics[binding.title]
        )
        known = self._memo.left(station.name).sensors
        self._memo.keep(station.name, sensors=tuple(dict.fromkeys((*known, *configs))))
        sent = [
            station.publish(topic, config, qos=1, retain=True) for topic, config in configs.items()
        ]
        if not any(sent):
            self._announced[binding.title] = model.digest

    def _with_sensors(self) -> list[Bound]:
        return [b for b in self._bound.values() if b.binding.homeassistant is not None]

    def _births(self, station: Station) -> set[str]:
        return {
            homeassistant.birth_topic(bound.binding.homeassistant.prefix)
            for bound in self._with_sensors()
            if bound.binding.broker == station.name and bound.binding.homeassistant is not None
        }

    def _config_topics(self, station: Station) -> set[str]:
        return {
            topic
            for bound in self._with_sensors()
            if bound.binding.broker == station.name
            for topic in homeassistant.config_topics(bound.binding, self._place)
        }


def _patterns(bindings: Sequence[Binding]) -> tuple[str, ...]:
    """Every filter of some bindings, with Home Assistant's birth where one has sensors there."""
    own = [topic for each in bindings for topic in each.topics]
    births = [
        homeassistant.birth_topic(each.homeassistant.prefix)
        for each in bindings
        if each.homeassistant is not None
    ]
    return tuple(dict.fromkeys((*own, *births)))


def _metrics(bindings: Sequence[Binding]) -> set[str]:
    return {
        source.field
        for each in bindings
        for source in each.inputs.values()
        if source.format == "sparkplug"
    }
