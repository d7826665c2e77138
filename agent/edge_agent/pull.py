"""The agent's use of the delivery: what is published, and slots of it on disk.

Guards: nothing is fetched that this machine cannot run; a look at what is published interrupts a
download, which then goes on where it was, so that a version that was withdrawn is not fetched to
its end; bytes that an earlier attempt left count as room for this one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge_agent import accept, hardware
from edge_agent.accept import Offer
from edge_agent.config import Config
from edge_agent.delivery import Delivery, DeliveryConfig, Refreshed, Stopped
from edge_agent.folder import Folder
from edge_agent.telemetry.recorder import Instant
from edge_contract.errors import MachineFault
from edge_contract.manifest import Manifest
from edge_contract.messages import Hardware, Pointer, Release

log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def enroll(config: Config, root: bytes | None, fingerprint: str) -> str:
    """Trust a root: its bytes, or its fingerprint ``sha256:...``; returns the fingerprint.

    Raises as ``Delivery.enroll``.
    """
    return delivery_of(config).enroll(root, None if root is not None else fingerprint)


def delivery_of(config: Config) -> Delivery:
    """The delivery to this device."""
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
        )
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
        now: this moment by both clocks.
    """

    def __init__(
        self, config: Config, folder: Folder, machine: Hardware, now: Callable[[], Instant]
    ) -> None:
        self._config = config
        self._folder = folder
        self._machine = machine
        self._now = now
        self._delivery = delivery_of(config)
        self._turn = threading.Condition()
        self._looking = False
        self._interrupt = threading.Event()

    @property
    def enrolled(self) -> bool:
        """Whether this device trusts a publisher."""
        return self._delivery.enrolled

    def cached_pointer(self) -> Pointer | None:
        """The pointer that was verified last, or None."""
        return self._delivery.cached_pointer()

    def refresh(self) -> Refreshed:
        """Look at what is published; a download under way steps aside. As ``Delivery.refresh``."""
        now = self._now()
        with self._look():
            return self._delivery.refresh(
                now=_EPOCH + timedelta(milliseconds=now.wall_ms), synchronised=now.synchronised
            )

    def fetch(
        self,
        model: str,
        release: Release,
        progress: Callable[[int, int], None],
        stop: threading.Event,
    ) -> Manifest:
        """Have the release's slot on disk; what is there already is not fetched again.

        Raises Refused when this machine cannot run it, Stopped once ``stop`` is set, and as
        ``Delivery.fetch``.
        """
        while True:
            self._let_look(stop)
            try:
                return self._delivery.fetch(
                    release,
                    name=model,
                    into=self._folder.slot(release.sha256),
                    accept=lambda manifest: accept.check(manifest, self._offer()),
                    progress=progress,
                    stop=_Either(stop, self._interrupt),
                )
            except Stopped:
                if stop.is_set():
                    raise

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

    def _offer(self) -> Offer:
        """What this machine has for a bundle now."""
        folder = self._folder.path
        allowed = self._config.update.ram_bytes_max
        try:
            here = sum(path.stat().st_size for path in _files(folder / "chunks"))
            return Offer(
                onnxruntime=self._machine.onnxruntime,
                ram_bytes=min(allowed or self._machine.ram_bytes, self._machine.ram_bytes),
                disk_bytes=hardware.total_bytes(folder),
                free_bytes=hardware.free_bytes(folder) + here,
            )
        except OSError as error:
            raise MachineFault(f"cannot look at {folder}: {error.strerror}") from error


def _files(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())
