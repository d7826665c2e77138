"""Removing what no version that a device may run needs: from a broker's memory, and from the disk.

A channel keeps its stable version, its candidate and ``keep`` former ones. First the pointers are
signed without the rest and are on the broker; only then is anything removed, so that at no moment
a device can choose what is not there. On the broker that is chunks, manifests, old pointers and old
metadata, on the disk the same of all fleets together. Roots stay for ever: a device that was off
for years follows them one by one. So do the metadata of the state before the newest, for devices
that are in the middle of a look.

The broker comes first, the disk after it, manifests last: what is left of a collection that was cut
off is found again by the next one.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuf.api.metadata import Snapshot, Targets

from edge_contract import chunks
from edge_contract import manifest as manifests
from edge_contract.errors import InputFault, MachineFault
from edge_contract.manifest import Manifest
from edge_contract.messages import Release
from edge_contract.ports.disk import read_bounded
from edge_contract.ports.mqtt import Ticket
from edge_contract.ports.retained import Retained
from edge_contract.topics import Topics
from edge_release import metadata, pointers, roles
from edge_release.publication import ACK_S, IN_FLIGHT_MAX, Progress
from edge_release.repository import Repository
from edge_release.shelf import METADATA_MAX_BYTES, State, prefixed, versioned


@dataclass(frozen=True)
class Garbage:
    """What can go: topics of one fleet's broker, and files with their size in all."""

    topics: tuple[str, ...]
    files: tuple[Path, ...]
    size_bytes: int


def forgettable(repository: Repository, fleet: str, keep: int) -> list[str]:
    """``model@version`` of every release that ``Repository.trim`` would make unnameable."""
    found = []
    for pointer in repository.pointers(repository.shelf.read(), fleet).values():
        for model, track in pointer.models.items():
            gone = set(track.others) - set(pointers.trimmed(track, keep).others)
            found += [f"{model}@{release.version} in {pointer.channel}" for release in gone]
    return sorted(found)


def find(repository: Repository, topics: Topics, *, keep: int | None = None) -> Garbage:
    """What nothing needs. With ``keep``: as if ``Repository.trim`` had been signed.

    Raises InputFault when the repository is damaged.
    """
    return _Search(repository, topics, keep).run()


def clear(
    broker: Retained,
    garbage: Garbage,
    *,
    progress: Progress = lambda done, total: None,
) -> int:
    """Have the broker forget the topics; returns how many. PeerFault when it goes away."""
    under_way: deque[Ticket] = deque()
    for done, topic in enumerate(garbage.topics, 1):
        under_way.append(broker.link.publish(topic, b"", retain=True))
        while len(under_way) >= IN_FLIGHT_MAX:
            under_way.popleft().wait(ACK_S)
        progress(done, len(garbage.topics))
    while under_way:
        under_way.popleft().wait(ACK_S)
    return len(garbage.topics)


def remove(garbage: Garbage) -> int:
    """Delete the files; returns how many. Raises MachineFault when the disk refuses."""
    try:
        for file in garbage.files:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise MachineFault(f"cannot remove {error.filename}: {error.strerror}") from error
    return len(garbage.files)


class _Search:
    """One look for garbage."""

    def __init__(self, repository: Repository, topics: Topics, keep: int | None) -> None:
        self._repository = repository
        self._shelf = repository.shelf
        self._topics = topics
        self._keep = keep
        self._state = repository.shelf.read()

    def run(self) -> Garbage:
        """Everything on the disk, less what is needed."""
        every = {path: self._manifest(path) for path in self._targets("models")}
        here = self._releases({self._topics.fleet})
        listed = self._listed()
        wanted = {self._file(release) for release in here}
        stays = {self._file(release) for release in listed}
        found = _unique(
            [
                *self._chunks_of(
                    [m for path, m in every.items() if path not in wanted], lenient=True
                ),
                *(topic for path in every if path not in wanted for topic in self._papers(path)),
                *self._old_pointers(),
                *map(self._topics.metadata, self._old_metadata()),
            ],
            but=set(self._chunks_of([m for path, m in every.items() if path in wanted])),
        )
        used = {file.sha256 for path, m in every.items() if path in stays for file in m.files}
        members = self._shelf.path / "members"
        files = [
            *(path for path in sorted(members.glob("*")) if path.name not in used),
            *(self._shelf.path / "metadata" / name for name in self._old_metadata()),
            *self._stale_pointers(),
            *(path for path in every if path not in stays),
        ]
        return Garbage(
            tuple(found), tuple(files), sum(path.stat().st_size for path in files if path.is_file())
        )

    # -- what is needed ------------------------------------------------------------------------

    def _releases(self, fleets: set[str]) -> set[Release]:
        found: set[Release] = set()
        for fleet in fleets:
            mine = self._keep if fleet == self._topics.fleet else None
            for pointer in self._repository.pointers(self._state, fleet).values():
                for track in pointer.models.values():
                    kept = track if mine is None else pointers.trimmed(track, mine)
                    found.update(kept.releases())
        return found

    def _listed(self) -> set[Release]:
        """Releases that stay on the disk: what models signs for; dry, what it would."""
        entries = self._state.targets[roles.MODELS].targets
        signed = {
            Release(version=Path(path).stem, path=path, sha256=entry.hashes["sha256"])
            for path, entry in entries.items()
        }
        if self._keep is None:
            return signed
        fleets = {path.split("/")[1] for path in self._state.targets[roles.ROLLOUT].targets}
        named = {release.path for release in self._releases(fleets)}
        return {release for release in signed if release.path in named}

    def _file(self, release: Release) -> Path:
        return self._shelf.path / "targets" / prefixed(release.path, release.sha256)

    # -- what is there -------------------------------------------------------------------------

    def _targets(self, kind: str) -> list[Path]:
        return sorted((self._shelf.path / "targets" / kind).glob("*/*.json"))

    def _manifest(self, path: Path) -> Manifest:
        try:
            return manifests.decode(read_bounded(path, METADATA_MAX_BYTES))
        except InputFault as error:
            raise InputFault(
                f"{path} in the repository is damaged: {error.what}",
                advice="Bring it back from a copy of the folder; nothing was removed.",
            ) from error

    def _chunks_of(self, found: list[Manifest], *, lenient: bool = False) -> Iterator[str]:
        digests = {file.sha256: file.size for manifest in found for file in manifest.files}
        for sha256 in digests:
            if not (self._shelf.path / "members" / sha256).is_file():
                continue  # an earlier collection, whose broker part was done
            try:
                stored = self._shelf.member(sha256)
            except InputFault:
                if lenient:  # damaged, and about to go
                    continue
                raise
            index = chunks.index_of(stored)
            for piece in (*([index] if index else []), *chunks.split(stored)):
                yield self._topics.chunk(hashlib.sha256(piece).hexdigest())

    def _papers(self, path: Path) -> list[str]:
        """A manifest's own topics."""
        relative = path.relative_to(self._shelf.path / "targets").as_posix()
        return [self._topics.chunk(path.name.split(".")[0]), self._topics.target(relative)]

    def _stale_pointers(self) -> list[Path]:
        entries = self._state.targets[roles.ROLLOUT].targets
        folder = self._shelf.path / "targets"
        current = {folder / prefixed(path, e.hashes["sha256"]) for path, e in entries.items()}
        current |= {folder / name for name in self._former_pointers()}
        return [path for path in self._targets("fleet") if path not in current]

    def _former_pointers(self) -> list[str]:
        """Those that the state before the newest names."""
        former = self._former()
        meta = former.meta.get(f"{roles.ROLLOUT}.json") if former else None
        name = versioned(roles.ROLLOUT, meta.version) if meta else ""
        path = self._shelf.path / "metadata" / name
        if not name or not path.is_file():
            return []
        rollout = metadata.parse(read_bounded(path, METADATA_MAX_BYTES), Targets, name)
        return [prefixed(path, entry.hashes["sha256"]) for path, entry in rollout.targets.items()]

    def _old_pointers(self) -> list[str]:
        folder = self._shelf.path / "targets"
        mine = folder / "fleet" / self._topics.fleet
        return [
            self._topics.target(path.relative_to(folder).as_posix())
            for path in self._stale_pointers()
            if path.parent == mine
        ]

    def _old_metadata(self) -> list[str]:
        """Files below the state before the newest, roots apart."""
        lowest = _lowest(self._state, self._former())
        found = []
        for path in sorted((self._shelf.path / "metadata").glob("*.*.json")):
            number, _, rest = path.name.partition(".")
            role = rest.removesuffix(".json")
            if number.isdigit() and role in lowest and int(number) < lowest[role]:
                found.append(path.name)
        return found

    def _former(self) -> Snapshot | None:
        name = versioned(roles.SNAPSHOT, self._state.snapshot.version - 1)
        path = self._shelf.path / "metadata" / name
        if not path.is_file():
            return None
        return metadata.parse(read_bounded(path, METADATA_MAX_BYTES), Snapshot, name)


def _lowest(state: State, former: Snapshot | None) -> dict[str, int]:
    """Role -> the oldest version that is still asked for."""
    lowest = {roles.SNAPSHOT: state.snapshot.version - 1}
    for role, targets in state.targets.items():
        before = former.meta.get(f"{role}.json") if former else None
        lowest[role] = min(targets.version, before.version) if before else targets.version
    return lowest


def _unique(topics: list[str], *, but: set[str]) -> list[str]:
    return [topic for topic in dict.fromkeys(topics) if topic not in but]
