"""Fetches the profiles of bundles that telemetry names, from the chunks on the broker.

Guards: a device that names bundles which do not exist costs a few subscriptions, never more: so
many pulls at once, each with a deadline, each failure with a growing pause. On a connection of its
own, so that the collector's session holds no stray subscription.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edge_contract.errors import EdgeError
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics
from edge_fleet.pull import Pull

log = logging.getLogger(__name__)

PULLS_MAX = 4
WAITING_MAX = 256
DEADLINE_S = 10.0
PAUSE_MIN_S = 15.0
PAUSE_MAX_S = 1800.0


@dataclass
class _Running:
    pull: Pull
    deadline_s: float
    asked: frozenset[str] = frozenset()


class Fetcher:
    """Asks the broker for what ``want`` names and hands over what ``on_done`` gets.

    Args:
        on_done: called with a bundle's digest and its blobs, in the network thread.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        config: LinkConfig,
        topics: Topics,
        on_done: Callable[[str, Mapping[str, bytes]], None],
        clock: Callable[[], float],
    ) -> None:
        self._topics = topics
        self._on_done = on_done
        self._clock = clock
        self._lock = threading.RLock()
        self._running: dict[str, _Running] = {}
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._paused: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._link = Link(config, on_message=self._received, on_up=self._up)

    def start(self) -> None:
        """Begin to connect."""
        self._link.start()

    def stop(self) -> None:
        """Disconnect; what was under way is forgotten."""
        self._link.stop()

    def want(self, bundles: Iterable[str]) -> None:
        """Fetch these, as soon as there is room and their pause is over."""
        with self._lock:
            for bundle in bundles:
                if bundle not in self._running and len(self._waiting) < WAITING_MAX:
                    self._waiting[bundle] = None
        self.tick()

    def tick(self) -> None:
        """Give up what is overdue, begin what waits. Call it now and then."""
        with self._lock:
            now_s = self._clock()
            for running in list(self._running.values()):
                if now_s >= running.deadline_s:
                    self._give_up(running, "it is not on the broker")
            for bundle in list(self._waiting):
                if len(self._running) >= PULLS_MAX:
                    break
                del self._waiting[bundle]
                if self._paused.get(bundle, (0.0, 0.0))[0] <= now_s:
                    self._begin(bundle, now_s)

    def _begin(self, bundle: str, now_s: float) -> None:
        running = _Running(Pull(bundle), now_s + DEADLINE_S)
        self._running[bundle] = running
        self._ask(running)

    def _ask(self, running: _Running) -> None:
        """Subscribe to what is wanted now, unsubscribe from what no longer is."""
        wanted = frozenset(running.pull.wanted)
        self._leave(running.asked - wanted)
        new = [self._topics.chunk(sha256) for sha256 in sorted(wanted - running.asked)]
        running.asked = wanted
        if new and self._link.up:
            self._link.subscribe(new)

    def _leave(self, digests: Iterable[str]) -> None:
        filters = [self._topics.chunk(sha256) for sha256 in sorted(digests)]
        if filters and self._link.up:
            self._link.unsubscribe(filters)

    def _give_up(self, running: _Running, why: str) -> None:
        bundle = running.pull.bundle
        self._leave(running.asked)
        del self._running[bundle]
        _, former_s = self._paused.pop(bundle, (0.0, PAUSE_MIN_S / 2))
        pause_s = min(2 * former_s, PAUSE_MAX_S)
        self._paused[bundle] = (self._clock() + pause_s, pause_s)
        while len(self._paused) > WAITING_MAX:
            self._paused.popitem(last=False)
        log.warning("no profile of bundle %s: %s; again in %.0f s", bundle, why, pause_s)

    def _up(self, _session_present: bool) -> None:
        with self._lock:
            for running in self._running.values():
                running.asked = frozenset()
                running.deadline_s = self._clock() + DEADLINE_S
                self._ask(running)

    def _received(self, message: Message) -> None:
        sha256 = message.topic.rpartition("/")[2]
        with self._lock:
            for running in [r for r in self._running.values() if sha256 in r.asked]:
                self._feed(running, sha256, message.payload)
        self.tick()

    def _feed(self, running: _Running, sha256: str, data: bytes) -> None:
        pull = running.pull
        try:
            pull.feed(sha256, data)
        except EdgeError as error:
            self._give_up(running, error.what)
            return
        running.deadline_s = self._clock() + DEADLINE_S
        self._ask(running)
        if pull.done:
            del self._running[pull.bundle]
            self._paused.pop(pull.bundle, None)
            self._on_done(pull.bundle, pull.blobs)
