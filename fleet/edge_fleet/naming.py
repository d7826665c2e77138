"""Which versions channels name, and which devices say that they run another one.

Guards: a report is no proof: what a device claims changes nothing here but what a person is told,
once a device and bundle. Nobody is told by one look alone: a device may hear of a publication
before this server does. What is told says nothing of when the device was heard of.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from edge_contract import messages
from edge_contract.errors import EdgeError, InputFault
from edge_contract.messages import Pointer
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics
from edge_fleet.device_reports import reported_of
from edge_fleet.following import Named
from edge_fleet.store.base import Device, EventSeen, Fault, Store
from edge_fleet.store.states import SERVER_BOOT, NamedRelease

log = logging.getLogger(__name__)

KIND = "unsigned-version"
EVERY_S = 60.0
TOLD_AT_ONCE = 1000
"""Events of one look; the next one tells the rest."""

Claim = tuple[str, str, str, str]
"""Device, model, version, digest."""


def releases(pointers: Iterable[Pointer], now_ms: int) -> list[NamedRelease]:
    """Every release that these channels name. Pure."""
    return [
        NamedRelease(model, each.version, each.sha256, pointer.channel, now_ms)
        for pointer in pointers
        for model, track in pointer.models.items()
        for each in track.releases()
    ]


def unsigned(devices: Iterable[Device], named: Named) -> set[Claim]:
    """What devices say they run and no channel ever named. Pure."""
    return {
        (device.device, model, report.active, report.digest)
        for device in devices
        if (told := reported_of(device)) is not None
        for model, report in told.models.items()
        if named.signed(model, report) is False
    }


def event_of(claim: Claim, now_ms: int) -> EventSeen:
    """What is told; the same claim has the same key, so that it is kept once. Pure."""
    device, model, version, digest = claim
    version = version.replace("\0", "")  # which PostgreSQL's text cannot hold
    number = int.from_bytes(hashlib.sha256("\0".join(claim).encode()).digest()[:6], "big")
    detail = (
        f"says it runs {model} {version} ({digest[:12] or 'no digest'}), which no channel names"
    )
    return EventSeen(device, SERVER_BOOT, number, now_ms, KIND, model, version, detail, now_ms)


class Naming:
    """Reads channels as the broker retains them. ``look`` is one round; a test calls it by hand."""

    def __init__(self, store: Store, topics: Topics, clock_ms: Callable[[], int]) -> None:
        self._store, self._clock_ms = store, clock_ms
        self._filter = topics.target(f"fleet/{topics.fleet}/+")
        self._heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._before: set[Claim] = set()

    def link(self, config: LinkConfig) -> Link:
        """A connection that hears of channels; the caller starts and stops it."""

        def ask(_kept: bool) -> None:
            link.subscribe([self._filter])

        link = Link(config, on_message=self._heard.put, on_up=ask)
        return link

    def hear(self, pointer: Pointer) -> None:
        """Keep what a channel names."""
        with self._store.transaction() as tx:
            tx.add_releases(releases([pointer], self._clock_ms()))

    def look(self) -> int:
        """Take in what channels named since, and tell what nobody signed; how much that was."""
        while not self._heard.empty():
            try:
                self.hear(messages.decode(self._heard.get_nowait().payload, Pointer))
            except (InputFault, queue.Empty):
                continue
        now_ms = self._clock_ms()
        with self._store.reading() as tx:
            named = Named(tx.releases())
            claims = unsigned(tx.devices(), named)
        twice, self._before = sorted(claims & self._before)[:TOLD_AT_ONCE], claims
        if not twice:
            return 0
        with self._store.transaction() as tx:
            fresh = tx.tell([event_of(claim, now_ms) for claim in twice])
            tx.add_faults([Fault(e.device, KIND, e.detail, now_ms) for e in fresh])
        for event in fresh[:10]:
            log.warning("device %s %s", event.device, event.detail)
        return len(fresh)


@contextmanager
def watching(
    naming: Naming, config: LinkConfig, stop: threading.Event, every_s: float = EVERY_S
) -> Iterator[None]:
    """At work within the ``with`` block, in a thread."""
    thread = threading.Thread(
        target=_loop, args=(naming, config, stop, every_s), name="edge-naming"
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _loop(naming: Naming, config: LinkConfig, stop: threading.Event, every_s: float) -> None:
    link = naming.link(config)
    link.start()
    try:
        while not stop.wait(every_s):
            try:
                naming.look()
            except EdgeError as error:
                log.warning("versions that channels name: %s; again in %.0f s", error.what, every_s)
            except Exception:
                log.exception("versions that channels name; again in %.0f s", every_s)
    finally:
        link.stop()
