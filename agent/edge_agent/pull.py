"""The agent's use of the delivery: what is published, and slots of it on disk.

Guards: nothing is fetched that this machine cannot run or has no room for; a look at what is
published interrupts a download, which then goes on where it was, so that a version that was
withdrawn is not fetched to its end; a download that must wait holds no connection, says what it
waits for, and ends at once when it is called off.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from edge_agent import accept, hardware, memory, slot, state
from edge_agent.accept import Offer, Refused
from edge_agent.config import Config
from edge_agent.delivery import Delivery, DeliveryConfig, Refreshed, Stopped
from edge_agent.delivery.pace import Now, Pace, Paused, Room
from edge_agent.delivery.pacer import Pacer
from edge_agent.folder import Folder
from edge_agent.memory import NoRoom
from edge_agent.telemetry.recorder import Instant
from edge_agent.transfer import Meter, Transfer
from edge_contract.chunks import CHUNK_BYTES
from edge_contract.errors import MachineFault
from edge_contract.manifest import Manifest
from edge_contract.messages import Hardware, Pointer, Release

log = logging.getLogger(__name__)

SPARE_BYTES = 1024**2
"""What a download leaves of a disk, or a sixteenth of a small one: for states and telemetry."""
ASK_AGAIN_S = 1.0
"""A download that waits looks at the clock this often: it may be set meanwhile."""
_WALL_MAX_S = 250_000_000_000
"""In the year 9892: a clock beyond it is taken for this."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def enroll(config: Config, root: bytes | None, fingerprint: str) -> str:
    """Trust a root: its bytes, or its fingerprint ``sha256:...``; returns the fingerprint.

    Raises as ``Delivery.enroll``.
    """
    return delivery_of(config).enroll(root, None if root is not None else fingerprint)


def delivery_of(config: Config, pace: Pace | None = None) -> Delivery:
    """The delivery to this device, held to ``pace``."""
    return Delivery(
        DeliveryConfig(
            folder=config.folder,
            broker=config.broker_url,
            topics=config.topics,
            device=config.agent.device,
            channel=config.agent.channel,
            profile=config.agent.profile,
            ca_file=config.broker.ca,
            cert_file=config.broker.cert,
            key_file=config.broker.key,
            choice=config.download.choice,
            mirror_ca_file=config.download.ca,
        ),
        pace=pace,
    )


class _Either(threading.Event):
    """Set as soon as one of several events is."""

    def __init__(self, *events: threading.Event) -> None:
        super().__init__()
        self._events = events

    def is_set(self) -> bool:
        return super().is_set() or any(event.is_set() for event in self._events)


class Puller:
    """Looks and fetches for one agent. One thread may look while another fetches.

    Args:
        now: this moment by both clocks. zone: of the device's local time. rng: spreads starts.
    """

    def __init__(
        self,
        config: Config,
        folder: Folder,
        machine: Hardware,
        now: Callable[[], Instant],
        *,
        zone: tzinfo,
        rng: random.Random,
    ) -> None:
        self._config = config
        self._folder = folder
        self._machine = machine
        self._now = now
        self._zone = zone
        self._pacer = Pacer(config.download.policy, folder.download, now=self._local_now, rng=rng)
        self._delivery = delivery_of(config, self._pacer)
        self._turn = threading.Condition()
        self._looking = False
        self._interrupt = threading.Event()

    @property
    def enrolled(self) -> bool:
        """Whether this device trusts a publisher."""
        return self._delivery.enrolled

    def roots(self) -> list[bytes]:
        """Root metadata that this device trusts."""
        return self._delivery.roots()

    def cached_pointer(self) -> Pointer | None:
        """The pointer that was verified last, or None."""
        return self._delivery.cached_pointer()

    def clear_up(self, fetching: Iterable[str]) -> None:
        """After a start, before the first fetch: as ``Delivery.clear_up``, as far as that goes."""
        try:
            self._delivery.clear_up(fetching)
        except MachineFault as error:
            log.warning("downloads are not cleared up: %s", error.what)

    def refresh(self, stop: threading.Event) -> Refreshed:
        """Look at what is published; a download under way steps aside. As ``Delivery.refresh``."""
        now = self._now()
        with self._look():
            try:
                return self._delivery.refresh(
                    now=_EPOCH + timedelta(milliseconds=now.wall_ms),
                    synchronised=now.synchronised,
                    stop=stop,
                )
            finally:
                self._pacer.rest()

    def fetch(
        self,
        model: str,
        release: Release,
        progress: Callable[[Transfer], None],
        stop: threading.Event,
    ) -> Manifest:
        """Have the release's slot on disk; what is there already is not fetched again.

        Raises Refused when this machine cannot run it, Stopped once ``stop`` is set, and as
        ``Delivery.fetch``.
        """
        self._pacer.begin(release.sha256)
        moment, meter = Transfer(release.version), Meter()

        def moved(done: int, total: int) -> None:
            nonlocal moment
            rate = meter.rate(self._now().monotonic_s, self._pacer.came_bytes)
            moment = moment.moving(done, total, rate)
            progress(moment)

        try:
            while True:
                self._let_look(stop)
                try:
                    return self._fetch(model, release, moved, _Either(stop, self._interrupt))
                except Paused as paused:
                    moment = self._wait(moment, paused.room, progress, stop)
                except Stopped:
                    if stop.is_set():
                        raise
                except Refused as refused:
                    if not refused.lasting:
                        progress(moment.waiting("disk", refused.what, None))
                    raise
                except MachineFault as fault:
                    progress(moment.waiting("disk", fault.what, None))
                    raise
        finally:
            self._pacer.rest()

    def _fetch(
        self, model: str, release: Release, moved: Callable[[int, int], None], stop: _Either
    ) -> Manifest:
        return self._delivery.fetch(
            release,
            name=model,
            into=self._folder.slot(release.sha256),
            accept=lambda manifest: self._accept(manifest, release),
            progress=moved,
            stop=stop,
        )

    def _wait(
        self,
        moment: Transfer,
        room: Room,
        progress: Callable[[Transfer], None],
        stop: threading.Event,
    ) -> Transfer:
        """Until there is room: asked for again and again, for a clock may be set meanwhile."""
        self._pacer.rest()
        said = ""
        while room.wait not in ("", "rate"):
            moment = moment.waiting(room.wait, room.text, room.until)
            if room.text != said:
                said = room.text
                log.info("%s: %s", moment.version, said)
                progress(moment)
            if stop.wait(min(room.wait_s, ASK_AGAIN_S)):
                raise Stopped("the download was called off")
            room = self._pacer.room(CHUNK_BYTES)
        moment = moment.moving(moment.done_bytes, moment.total_bytes, 0)
        progress(moment)
        return moment

    @contextmanager
    def _look(self) -> Iterator[None]:
        with self._turn:
            self._looking = True
            self._interrupt.set()
        try:
            yield
        finally:
            with self._turn:
                self._looking = False
                self._interrupt.clear()
                self._turn.notify_all()

    def _let_look(self, stop: threading.Event) -> None:
        """Wait until nobody looks."""
        with self._turn:
            while self._looking and not stop.is_set():
                self._turn.wait(0.25)
        if stop.is_set():
            raise Stopped("the download was called off")

    # -- room on this machine ----------------------------------------------------------------

    def _accept(self, manifest: Manifest, release: Release) -> None:
        """Raise Refused unless this machine can run the bundle and has room for it now."""
        if self._folder.slot(release.sha256).is_dir():
            return  # it was accepted and takes no more
        try:
            accept.check(manifest, self._offer(release))
        except Refused as refused:
            wanted = state.fetching(self._folder) | {release.sha256}
            if refused.lasting or not self._delivery.tidy(wanted):
                raise
            accept.check(manifest, self._offer(release))
        try:
            memory.room(manifest)
        except NoRoom as short:
            raise Refused(short.what, advice=short.advice, lasting=False) from short
        self._delivery.probe()

    def _offer(self, release: Release) -> Offer:
        """What this machine has for a bundle now; what it has of it already is room for it."""
        folder = self._folder.path
        allowed = self._config.update.ram_bytes_max
        quota = self._config.download.disk_max_bytes
        spool = self._config.telemetry.spool_bytes
        try:
            disk = hardware.total_bytes(folder)
            here = self._delivery.kept_bytes(release)
            used = _size_bytes(self._folder.slots) + self._delivery.kept_bytes() - here
            return Offer(
                onnxruntime=self._machine.onnxruntime,
                ram_bytes=min(allowed or self._machine.ram_bytes, self._machine.ram_bytes),
                disk_bytes=disk,
                free_bytes=hardware.free_bytes(folder) + here - min(SPARE_BYTES, disk // 16),
                quota_bytes=quota,
                quota_free_bytes=quota - spool - used if quota else 0,
                held=slot.held(self._folder.slots),
            )
        except OSError as error:
            raise MachineFault(f"cannot look at {folder}: {error.strerror}") from error

    def _local_now(self) -> Now:
        """This moment as the policy of downloads sees it."""
        now = self._now()
        wall_s = min(max(now.wall_ms / 1000, 0), _WALL_MAX_S)
        return Now(now.monotonic_s, datetime.fromtimestamp(wall_s, self._zone), now.synchronised)


def _size_bytes(folder: Path) -> int:
    """All that lies below ``folder``. Raises OSError."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
