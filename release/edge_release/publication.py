"""From the repository onto a broker: retained messages, in an order that is safe to be cut off in.

Order: chunks, manifests and pointers; roots; delegated roles; snapshot; timestamp. A device that
looks at any moment finds either the former state or the next one, whole. Each stage is
acknowledged, with its reason codes, before the next one begins.

What the broker retains already is read first and only what differs is put: brokers lose retained
messages, and anybody with the right could have changed them, so nothing is taken from memory. The
same publication again therefore mends a broker. What was put is read again before the next stage: a
broker that acknowledges and does not keep is found out here, not by the devices.

A manifest is also put as a chunk under its own digest: a collector finds profiles by digest.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from tuf.api.metadata import Signed

from edge_contract import chunks
from edge_contract import manifest as manifests
from edge_contract.errors import InputFault, PeerFault
from edge_contract.messages import Pointer, Release
from edge_contract.ports.mqtt import LinkConfig, Ticket
from edge_contract.ports.retained import SENTINEL, SILENCE_S, TOMBSTONE, TOPICS_MAX, Retained
from edge_contract.topics import SENTINEL_FILE, Topics
from edge_release import metadata, roles
from edge_release.create import fingerprint
from edge_release.repository import Repository
from edge_release.shelf import METADATA_MAX_BYTES, prefixed, versioned

IN_FLIGHT_MAX = 16
"""Messages published and not acknowledged yet: 2 MB of chunks."""
ACK_S = 30.0
CONNECT_S = 5.0

_COPY = (
    "Another copy of this key folder published since: publish from that one. Is it lost, and this"
    " one a backup: `edge-pack sync --overtake`."
)

Progress = Callable[[int, int], None]
Item = tuple[str, bytes]


@dataclass(frozen=True)
class Synced:
    """What it took: messages and bytes put, and bytes that the broker had already."""

    put_messages: int
    put_bytes: int
    kept_bytes: int


def connect(
    link: LinkConfig,
    topics: Topics,
    *,
    timeout_s: float = CONNECT_S,
    silence_s: float = SILENCE_S,
) -> Retained:
    """A connection to publish over; a context manager. PeerFault when the broker is away.

    Made before anything is signed: a mistyped address must not cost a version.
    """
    retained = Retained(link, sentinel=topics.metadata(SENTINEL_FILE), silence_s=silence_s)
    retained.start(timeout_s)
    return retained


def check_publisher(
    repository: Repository, topics: Topics, broker: Retained, *, look_only: bool = False
) -> None:
    """Raise InputFault when the broker holds the fleet of another publisher: a wrong key folder.

    What counts is a first root that signed itself; junk, which anybody with the right may put
    there, is mended like anything else. First puts the sentinel, without which an empty broker
    cannot be told from a silent one; with ``look_only`` it does not, and PeerFault says so.
    """
    if not look_only:
        sentinel = topics.metadata(SENTINEL_FILE)
        broker.link.publish(sentinel, SENTINEL, retain=True).wait(ACK_S)
    topic = topics.metadata(versioned(roles.ROOT, 1))
    there = broker.get([topic], size_max=METADATA_MAX_BYTES).get(topic, b"")
    if there == repository.shelf.first_root():
        return
    try:
        root = metadata.parse_role(there, roles.ROOT, "the broker's root")
    except InputFault:
        return
    if metadata.signed_by(root.signed, roles.ROOT, root)[1]:
        raise InputFault(
            f"the broker holds fleet {topics.fleet} of another publisher, whose root is"
            f" {fingerprint(there)}; devices that were enrolled with it refuse these keys",
            advice="Is --keys the right folder? Only where the other publisher is gone for good:"
            " `edge-pack sync --replace` puts this one in its place; devices are enrolled again.",
        )


def sync(
    repository: Repository,
    topics: Topics,
    broker: Retained,
    *,
    progress: Progress = lambda done, total: None,
) -> Synced:
    """Make the broker retain the repository's newest state of one fleet.

    For each channel of the fleet: stable, candidate and former version with their chunks.

    Args:
        broker: from ``connect``. progress: called with bytes looked after and in all.

    Raises PeerFault when the broker goes away, refuses or is silent, or holds newer metadata
    that these keys signed; InputFault when the repository is damaged.
    """
    return _Sync(repository, topics, broker, progress).run()


def compare(
    repository: Repository,
    topics: Topics,
    broker: Retained,
    *,
    progress: Progress = lambda done, total: None,
) -> Synced:
    """What ``sync`` would put, putting nothing; raises as it does."""
    return _Sync(repository, topics, broker, progress, look_only=True).run()


class _Sync:
    """One run of ``sync``."""

    def __init__(
        self,
        repository: Repository,
        topics: Topics,
        retained: Retained,
        progress: Progress,
        *,
        look_only: bool = False,
    ) -> None:
        self._look_only = look_only
        self._shelf = repository.shelf
        self._state = repository.shelf.read()
        self._pointers = repository.pointers(self._state, topics.fleet)
        self._topics = topics
        self._retained = retained
        self._progress = progress
        self._manifests = {
            release: self._shelf.target(release.path, release.sha256)
            for release in _in_use(self._pointers.values())
        }
        self._under_way: deque[Ticket] = deque()
        self._seen: set[str] = set()
        self._done = self._kept = self._put = self._messages = 0
        self._total = self._count()
        self._shelf.check_roots(self._state)

    def run(self) -> Synced:
        """All stages, each acknowledged before the next."""
        if not self._look_only:
            self._publish(self._topics.metadata(SENTINEL_FILE), SENTINEL)
            self._settle(0)
        self._check_newest()
        state = self._state
        for stage in (self._content(), self._roots(), self._roles()):
            self._mend(stage)
        version = versioned(roles.SNAPSHOT, state.snapshot.version)
        self._mend([self._file(version)])
        self._mend([self._file("timestamp.json")])
        return Synced(self._messages, self._put, self._kept)

    # -- what has to be there ----------------------------------------------------------------

    def _content(self) -> Iterator[Item]:
        for release, data in self._manifests.items():
            for file in manifests.decode(data).files:
                stored = self._shelf.member(file.sha256)
                yield from self._chunks(stored)
            yield self._topics.chunk(release.sha256), data
            yield self._topics.target(prefixed(release.path, release.sha256)), data
        for path in self._pointers:
            sha256 = self._state.targets[roles.ROLLOUT].targets[path].hashes["sha256"]
            data = self._shelf.target(path, sha256)
            yield self._topics.target(prefixed(path, sha256)), data

    def _chunks(self, stored: bytes) -> Iterator[Item]:
        index = chunks.index_of(stored)
        pieces = [index] if index else []
        for piece in (*pieces, *chunks.split(stored)):
            yield self._topics.chunk(hashlib.sha256(piece).hexdigest()), piece

    def _roots(self) -> Iterator[Item]:
        for version in range(1, self._state.root.version + 1):
            name = versioned(roles.ROOT, version)
            yield self._topics.metadata(name), self._shelf.root(version)
        after = versioned(roles.ROOT, self._state.root.version + 1)
        yield self._topics.metadata(after), TOMBSTONE

    def _roles(self) -> Iterator[Item]:
        for role, targets in self._state.targets.items():
            yield self._file(versioned(role, targets.version))

    def _file(self, name: str) -> Item:
        return self._topics.metadata(name), self._state.files[name]

    def _count(self) -> int:
        """Bytes of all items, equal chunks counted as often as they occur."""
        members = sum(
            file.size + _index_bytes(file.size)
            for data in self._manifests.values()
            for file in manifests.decode(data).files
        )
        papers = 2 * sum(len(data) for data in self._manifests.values())
        entries = self._state.targets[roles.ROLLOUT].targets
        papers += sum(entries[path].length for path in self._pointers)
        papers += sum(len(self._shelf.root(n)) for n in range(1, self._state.root.version))
        return members + papers + len(TOMBSTONE) + sum(map(len, self._state.files.values()))

    # -- making it so ------------------------------------------------------------------------

    def _check_newest(self) -> None:
        """Refuse to put an older state over a newer one that the same keys signed."""
        ours, number = self._state.timestamp.version, self._state.root.version + 1
        timestamp = self._topics.metadata("timestamp.json")
        root = self._topics.metadata(versioned(roles.ROOT, number))
        there = self._retained.get([timestamp, root], size_max=METADATA_MAX_BYTES)
        if self._genuine(there.get(root, b""), roles.ROOT) is not None:
            raise PeerFault(
                f"the broker holds root version {number}, signed by these keys; this repository is"
                f" at {number - 1}",
                advice=_COPY,
            )
        found = self._genuine(there.get(timestamp, b""), roles.TIMESTAMP)
        version = found.version if found else 0
        if version > ours:
            raise PeerFault(
                f"the broker holds metadata version {version}, signed by these keys; this"
                f" repository is at {ours}",
                advice=_COPY,
            )
        if version == ours and there[timestamp] != self._state.files["timestamp.json"]:
            raise PeerFault(
                f"the broker holds another metadata version {ours} than this repository, signed by"
                " these keys too",
                advice=_COPY,
            )

    def _genuine(self, data: bytes, role: str) -> Signed | None:
        """What the broker holds, if our keys signed it."""
        try:
            wrapped = metadata.parse_role(data, role, "the broker's " + role)
        except InputFault:
            return None
        return wrapped.signed if metadata.signed_by(self._state.root, role, wrapped)[1] else None

    def _mend(self, stage: Iterable[Item]) -> None:
        """Have every item of a stage retained and acknowledged, and see that it is there."""
        items = iter(stage)
        put: dict[str, tuple[int, str]] = {}
        while batch := dict(islice(items, TOPICS_MAX)):
            fresh = {topic: data for topic, data in batch.items() if topic not in self._seen}
            self._seen.update(fresh)
            there = self._there(fresh)
            for topic, data in batch.items():
                if topic in fresh and there.get(topic) != data:
                    self._publish(topic, data)
                    put[topic] = len(data), hashlib.sha256(data).hexdigest()
                else:
                    self._kept += len(data)
                self._done += len(data)
                self._progress(min(self._done, self._total), self._total)
        self._settle(0)
        if not self._look_only:
            self._prove(put)

    def _prove(self, put: dict[str, tuple[int, str]]) -> None:
        """Raise PeerFault when the broker does not keep what it acknowledged."""
        topics = iter(put)
        while batch := list(islice(topics, TOPICS_MAX)):
            there = self._retained.get(batch, size_max=max(put[topic][0] for topic in batch))
            for topic in batch:
                if hashlib.sha256(there.get(topic, b"")).hexdigest() != put[topic][1]:
                    raise PeerFault(
                        f"the broker acknowledged {topic} ({put[topic][0]} bytes) and does not keep"
                        " it",
                        advice="Allow retained messages of that size, and enough of them; in"
                        " mosquitto: retain_available, message_size_limit; or another publisher is"
                        " at work on this broker: then run `edge-pack sync` again.",
                    )

    def _there(self, wanted: dict[str, bytes]) -> dict[str, bytes]:
        if not wanted:
            return {}
        return self._retained.get(list(wanted), size_max=max(map(len, wanted.values())))

    def _publish(self, topic: str, data: bytes) -> None:
        self._messages += 1
        self._put += len(data)
        if self._look_only:
            return
        self._under_way.append(self._retained.link.publish(topic, data, retain=True))
        self._settle(IN_FLIGHT_MAX - 1)

    def _settle(self, left: int) -> None:
        """Wait until at most ``left`` publications are not acknowledged."""
        while len(self._under_way) > left:
            self._under_way.popleft().wait(ACK_S)


def _in_use(pointers: Iterable[Pointer]) -> list[Release]:
    """Releases whose bytes devices may ask for: stable, candidate and the former version."""
    found: dict[Release, None] = {}
    for pointer in pointers:
        for track in pointer.models.values():
            for release in (track.stable, track.candidate, *track.others[:1]):
                if release is not None:
                    found[release] = None
    return list(found)


def _index_bytes(size: int) -> int:
    count = chunks.chunk_count(size)
    return count * chunks.DIGEST_BYTES if count > 1 else 0
