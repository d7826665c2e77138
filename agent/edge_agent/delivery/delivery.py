"""Delivery to one device: enrol, refresh, fetch. What the agent uses of this package.

Guards: downloads have a connection of their own (client id ``<device>-dl``), so that a command
never waits behind them; one operation at a time; nothing already on disk is fetched again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from tuf.api.exceptions import DownloadError

from edge_agent.delivery import slot as slots
from edge_agent.delivery.download import Download, Progress
from edge_agent.delivery.fetcher import METADATA, MqttFetcher
from edge_agent.delivery.freshness import Profile
from edge_agent.delivery.pace import Pace, Unlimited
from edge_agent.delivery.pull import Broker
from edge_agent.delivery.roots import ROOT_MAX_BYTES, fingerprint
from edge_agent.delivery.source import Source, Stopped
from edge_agent.delivery.store import ChunkStore
from edge_agent.delivery.trust import Refreshed, Trust
from edge_agent.sources import ANY_SOURCE, Choice, order
from edge_contract.broker_url import BrokerUrl
from edge_contract.bundle import MANIFEST_MEMBER
from edge_contract.errors import InputFault, MachineFault, PeerFault
from edge_contract.manifest import MANIFEST_MAX_BYTES, Manifest
from edge_contract.messages import Pointer, Release
from edge_contract.mirrors import check_mirror
from edge_contract.names import check_sha256
from edge_contract.ports.disk import read_bounded
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.ports.retained import SILENCE_S, Retained
from edge_contract.topics import SENTINEL_FILE, Topics

if TYPE_CHECKING:
    from edge_agent.delivery.mirror import Rest

log = logging.getLogger(__name__)

RECEIVE_MAXIMUM = 16
"""Messages the broker may have under way: two windows of chunks, 2 MiB."""


@dataclass(frozen=True)
class DeliveryConfig:
    """Where a device gets its models from, and where it keeps them.

    Attributes:
        folder: the agent's; ``tuf/`` and ``chunks/`` in it are the delivery's.
        device: client id of the agent; the download connection adds ``-dl``.
        profile: what expired metadata means, see ``freshness``.
        ca_file, cert_file, key_file: TLS, as in ``LinkConfig``.
        silence_s: a question is repeated when the broker said nothing for so long; a slow link is
            given more time by itself.
        choice: which sources chunks come from. mirror_ca_file: as ``ca_file``, for mirrors.
    """

    folder: Path
    broker: BrokerUrl
    topics: Topics
    device: str
    channel: str = "stable"
    profile: Profile = "home"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    connect_timeout_s: float = 10.0
    silence_s: float = SILENCE_S
    choice: Choice = ANY_SOURCE
    mirror_ca_file: str = ""


class Delivery:
    """The device's end of delivery. Any thread may call; operations wait for each other.

    Args:
        pace: holds the chunks of bundles back, and is told of every byte that comes, also of
            metadata, which is never held back.
    """

    def __init__(self, config: DeliveryConfig, *, pace: Pace | None = None) -> None:
        self.config = config
        self._pace = pace or Unlimited()
        self._trust = Trust(
            config.folder / "tuf",
            fleet=config.topics.fleet,
            channel=config.channel,
            profile=config.profile,
        )
        self._store = ChunkStore(config.folder / "chunks")
        self._rest: Rest | None = None
        self._lock = threading.Lock()

    # -- trust -----------------------------------------------------------------------------

    @property
    def enrolled(self) -> bool:
        """Whether this device trusts a root."""
        return self._trust.enrolled

    def enroll(self, root: bytes | None = None, fingerprint: str | None = None) -> str:
        """Trust a root from now on; returns its fingerprint ``sha256:...``.

        Args:
            root: bytes of the root metadata, brought here by a person; or
            fingerprint: of root version 1, with or without ``sha256:`` before it; the root is
                then fetched from the broker and compared.

        Raises InputFault when both or none is given, the root is none, or another one is trusted
        already; PeerFault when the broker has no root, or one with another fingerprint.
        """
        if (root is None) == (fingerprint is None):
            raise InputFault("enroll with a root or with its fingerprint")
        with self._lock:
            if root is None:
                digits = str(fingerprint).strip().lower().removeprefix("sha256:")
                root = self._fetch_root(f"sha256:{check_sha256(digits, 'fingerprint')}")
            return self._trust.pin(root)

    def refresh(self, *, now: datetime, synchronised: bool, stop: Event | None = None) -> Refreshed:
        """Bring metadata up to date; the channel's verified pointer and its freshness.

        Args:
            now: this machine's clock, aware. synchronised: whether it may be believed.
            stop: ends with ``Stopped``, also while the broker is silent.

        Raises PeerFault when the broker is away or anything does not verify (nothing changed
        then), InputFault when not enrolled, MachineFault when the disk refuses.
        """
        meanwhile = _unless(stop)
        with self._lock, self._connection(meanwhile) as connect:
            fetcher = MqttFetcher(connect, self.config.topics, meanwhile)
            return self._trust.refresh(fetcher, now=now, synchronised=synchronised)

    def roots(self) -> list[bytes]:
        """Root metadata that this device trusts."""
        return self._trust.roots()

    def cached_pointer(self) -> Pointer | None:
        """The pointer that was verified last, for a start without a broker; None without one."""
        return self._trust.cached()

    # -- bundles ---------------------------------------------------------------------------

    def fetch(
        self,
        release: Release,
        *,
        name: str,
        into: Path,
        accept: Callable[[Manifest], None],
        progress: Progress,
        stop: Event,
    ) -> Manifest:
        """Have the slot folder ``into`` complete on disk; returns its manifest.

        A slot that is complete and a chunk that is on disk are not fetched again; files that
        another slot beside ``into`` holds are copied from there. ``into`` appears whole:
        ``manifest.json`` and each file under the name in the manifest, decoded.

        Args:
            release: one that the verified pointer names for the model ``name``.
            accept: may refuse the manifest by raising, before the first chunk is asked for.
            progress: called with stored bytes on disk and in all. stop: ends with ``Stopped``.

        Raises PeerFault, InputFault, MachineFault, Paused or Stopped; then there is no ``into``
        unless it was complete before, and what arrived is kept for the next attempt.
        """
        meanwhile = _unless(stop)
        with self._lock, self._connection(meanwhile) as connect:
            fetcher = MqttFetcher(connect, self.config.topics, meanwhile)
            manifest, manifest_bytes = self._trust.manifest(
                fetcher, release, name=name, kept=self._kept(release, into)
            )
            accept(manifest)
            if MANIFEST_MEMBER in {file.name for file in manifest.files}:
                raise InputFault(f"a member may not be called {MANIFEST_MEMBER}")
            if not slots.complete(into, manifest, manifest_bytes):
                self._store.begin(release.sha256, manifest_bytes)
                download = Download(
                    self._store,
                    self._sources(connect, manifest),
                    progress=progress,
                    stop=stop,
                    pace=self._pace,
                )
                with closing(download):
                    self._build(download, manifest, manifest_bytes, into)
            try:
                self._store.clear(keep=self._unfinished() - {release.sha256})
            except MachineFault as error:  # the slot is complete all the same
                log.warning("%s", error.what)
            return manifest

    def kept_bytes(self, release: Release | None = None) -> int:
        """What unfinished downloads take on the disk; ``release``'s alone. Raises MachineFault."""
        return self._store.size_bytes(release.sha256 if release else "")

    def tidy(self, keep: Iterable[str]) -> int:
        """Give back the disk of all downloads but those of the manifests ``keep``.

        Returns the bytes freed. For ``accept``, while ``fetch`` runs. Raises MachineFault.
        """
        before = self._store.size_bytes()
        self._store.clear(keep=keep)
        return before - self._store.size_bytes()

    def clear_up(self, fetching: Iterable[str]) -> None:
        """After a start: remove what fetches left, but for those of the manifests ``fetching``.

        One that ended, or was given up, may have been cut off in its clearing; and a removal is
        not on disk before somebody flushes the folder, for which nobody waits. Raises MachineFault.
        """
        with self._lock:
            self._store.clear(keep=fetching)

    def probe(self) -> None:
        """Raise MachineFault unless the disk takes a chunk now: before one is asked for."""
        self._store.probe()

    def _sources(self, connect: Callable[[], Retained], manifest: Manifest) -> list[Source]:
        """Whom to ask for the chunks, in this order."""
        config, pointer = self.config, self._trust.cached()
        size = sum(file.size for file in manifest.files)
        found: list[Source] = []
        for base in order(config.choice, pointer.mirrors if pointer else (), size):
            if not base:
                found.append(Broker(connect, config.topics, patience_s=config.silence_s))
                continue
            try:
                checked = check_mirror(base)
            except InputFault as fault:  # a newer publisher may sign other addresses
                log.warning("%s", fault.what)
                continue
            found.append(self._mirror(checked))
        if not found:
            raise InputFault(
                "no source of chunks is left: [download] sources allows mirrors only, and none"
                " is named",
                advice='Add "mqtt" to the sources, or have `edge-pack mirror set` name a mirror.',
            )
        return found

    def _mirror(self, base: str) -> Source:
        """Imports what asks over HTTP: most devices never do, and http.client brings email."""
        from edge_agent.delivery.mirror import Mirror, Rest  # noqa: PLC0415

        self._rest = self._rest or Rest()
        ca_file = self.config.mirror_ca_file
        return Mirror(base, rest=self._rest, pace=self._pace, ca_file=ca_file)

    def _build(
        self, download: Download, manifest: Manifest, manifest_bytes: bytes, into: Path
    ) -> None:
        reuse = slots.reusable(into.parent, manifest.files)
        plans = download.members(file for file in manifest.files if file.name not in reuse)
        slots.build(
            into,
            manifest,
            manifest_bytes,
            reuse=reuse,
            stored=lambda file: download.read(plans[file.name]),
        )

    def _kept(self, release: Release, into: Path) -> bytes | None:
        """The manifest as an earlier attempt left it, unchecked."""
        kept = self._store.manifest(release.sha256)
        if kept is None:
            with suppress(InputFault):  # none, or on a bad block: it is fetched
                return read_bounded(into / MANIFEST_MEMBER, MANIFEST_MAX_BYTES)
        return kept

    def _unfinished(self) -> set[str]:
        """Digests that may still be wanted: a fetch of anything else was abandoned."""
        pointer = self._trust.cached()
        if pointer is None:
            return set()
        tracks = pointer.models.values()
        return {release.sha256 for track in tracks for release in track.releases()}

    # -- network ---------------------------------------------------------------------------

    def _fetch_root(self, expected: str) -> bytes:
        with self._connection(_unless(None)) as connect:
            fetcher = MqttFetcher(connect, self.config.topics)
            try:
                root = fetcher.download_bytes(f"{METADATA}1.root.json", ROOT_MAX_BYTES)
            except DownloadError as error:
                raise PeerFault(
                    f"no root is published for fleet {self.config.topics.fleet}: {error}",
                    advice="Publish first, or bring root.json here and enroll with the file.",
                ) from error
        if fingerprint(root) != expected:
            raise PeerFault(
                f"the broker's root has fingerprint {fingerprint(root)}, expected {expected}",
                advice="Check the fingerprint with the one who made the keys; do not trust this"
                " broker before.",
            )
        return root

    @contextmanager
    def _connection(self, meanwhile: Callable[[], None]) -> Iterator[Callable[[], Retained]]:
        """A download connection that is made when it is first needed, and ended afterwards."""
        made: list[Retained] = []

        def connect() -> Retained:
            if not made:
                config = self.config
                link = LinkConfig(
                    broker=config.broker,
                    client_id=f"{config.device}-dl",
                    receive_maximum=RECEIVE_MAXIMUM,
                    reconnect_max_s=8,
                    ca_file=config.ca_file,
                    cert_file=config.cert_file,
                    key_file=config.key_file,
                )
                retained = Retained(
                    link,
                    sentinel=config.topics.metadata(SENTINEL_FILE),
                    silence_s=config.silence_s,
                    on_bytes=self._pace.spent,
                )
                retained.start(config.connect_timeout_s, meanwhile=meanwhile)
                made.append(retained)
            return made[0]

        try:
            yield connect
        finally:
            for retained in made:
                retained.stop()


def _unless(stop: Event | None) -> Callable[[], None]:
    """What a wait calls now and then: raises Stopped once ``stop`` is set."""

    def check() -> None:
        if stop is not None and stop.is_set():
            raise Stopped("this was called off")

    return check
