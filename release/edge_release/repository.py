"""The signing repository: bundles in, signed metadata out.

Guards: a version that was published never changes its bytes; versions of metadata only rise;
the same publication again signs nothing anew. Time is an argument; the disk is ``shelf``'s, the
signing ``commit``'s, what concerns keys ``keyring``'s.
"""

from __future__ import annotations

import getpass
import hashlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

import msgspec
from tuf.api.metadata import TargetFile

from edge_contract import messages
from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault
from edge_contract.messages import Pointer, Release, Track
from edge_contract.mirrors import check_mirror
from edge_release import pointers, roles
from edge_release.commit import Act, Desk, Draft, commit, held, stale
from edge_release.keys import Secrets, no_secrets
from edge_release.pointers import Place
from edge_release.ring import Ring
from edge_release.shelf import Shelf, State

ONLINE = (roles.SNAPSHOT, roles.TIMESTAMP)


@dataclass(frozen=True)
class Published:
    """What a change left: the release, its place, and the versions that name it.

    ``changed``: something was signed anew.
    """

    release: Release
    place: Place
    pointer_version: int
    timestamp_version: int
    changed: bool


@dataclass(frozen=True)
class Renewed:
    """Roles that were signed for another lifetime, and those that are due but have no key here."""

    renewed: tuple[str, ...]
    due: tuple[str, ...]


class Repository:
    """A folder made by ``create``. Every change is made under its lock, by ``locked``.

    Args:
        secrets: asked for passphrases and PINs when signing. who: for the audit log; user@host.
    """

    def __init__(self, folder: Path, *, secrets: Secrets = no_secrets, who: str = "") -> None:
        self.folder = folder
        self.shelf = Shelf(folder)
        self.profile = self.shelf.profile()
        self.ring = Ring(folder, secrets)
        self.desk = Desk(self.shelf, self.ring, self.profile, who or _user())

    @contextmanager
    def locked(self, wait_s: float = 30.0) -> Iterator[None]:
        """Be the only publisher; MachineFault when another one stays for ``wait_s``."""
        with self.shelf.locked(wait_s):
            yield

    # -- changes ---------------------------------------------------------------------------

    def publish(
        self, bundle: Bundle, *, fleet: str, channel: str, candidate: bool = False, now: datetime
    ) -> Published:
        """Sign the bundle's manifest and point the channel at it, as stable or candidate.

        Raises InputFault when this version was published with other bytes, is below the floor,
        or a key is not there; then nothing changed.
        """
        manifest = bundle.manifest
        release = messages.release(manifest.name, manifest.version, bundle.digest)
        place = Place(fleet, channel, manifest.name)
        move = pointers.as_candidate if candidate else pointers.as_stable
        draft = Draft(self.shelf.read())
        self._add_manifest(draft, release, bundle.manifest_bytes)
        self._point(draft, place, lambda track: move(track, release))
        for file in manifest.files:
            self.shelf.write_member(file.sha256, bundle.stored[file.name])
        role = "candidate" if candidate else "stable"
        done = self._sign(draft, place, release, _act("publish", place, release, role=role), now)
        # Where nothing was to be signed, nothing was written either: mend what was damaged.
        self.shelf.write_target(release.path, bundle.manifest_bytes)
        return done

    def promote(self, version: str, place: Place, *, now: datetime) -> Published:
        """Make a version stable that was signed before. Raises InputFault when none was."""
        draft = Draft(self.shelf.read())
        path = messages.manifest_path(place.model, version)
        known = draft.state.targets[roles.MODELS].targets.get(path)
        if known is None:
            past = "was removed by gc" if path in self.shelf.retired() else "was never published"
            raise InputFault(
                f"{place.model} {version} {past} from here",
                advice="Publish its bundle: `edge-pack publish`.",
            )
        release = messages.release(place.model, version, known.hashes["sha256"])
        self._point(draft, place, lambda track: pointers.as_stable(track, release))
        return self._sign(draft, place, release, _act("promote", place, release), now)

    def set_floor(self, floor: str, place: Place, *, now: datetime) -> Published:
        """Let no device run a version older than ``floor``. Raises InputFault when it may not."""
        draft = Draft(self.shelf.read())

        def raised(track: Track | None) -> Track:
            if track is None:
                raise InputFault(f"channel {place.channel} has no model {place.model}")
            return pointers.with_floor(track, floor)

        track = self._point(draft, place, raised)
        act = _act("floor", place, track.stable, floor=floor)
        return self._sign(draft, place, track.stable, act, now)

    def set_mirrors(
        self, mirrors: Sequence[str], fleet: str, channel: str, *, now: datetime
    ) -> bool:
        """Name the HTTP(S) servers that have a channel's files too; returns whether that is new.

        Raises InputFault when there is no such channel, or an address is none.
        """
        draft = Draft(self.shelf.read())
        path = messages.pointer_path(fleet, channel)
        before = self._pointer(draft.state, path)
        if before is None:
            raise InputFault(f"fleet {fleet} has no channel {channel}: publish a bundle first")
        checked = tuple(dict.fromkeys(check_mirror(mirror) for mirror in mirrors))
        after = msgspec.structs.replace(before, mirrors=checked)
        if after == before:
            return False
        self._replace(draft, path, after)
        about = {"fleet": fleet, "channel": channel, "mirrors": " ".join(checked)[:4000]}
        return commit(self.desk, draft, Act("mirrors", about), now=now)

    def trim(self, keep: int, fleets: Sequence[str], *, now: datetime) -> int:
        """Let the fleets' channels name ``keep`` former versions at most, and sign that.

        Returns how many releases are nameable no more. The timestamp is signed in any case, over
        an entry in the audit log.
        """
        draft = Draft(self.shelf.read())
        dropped: list[str] = []
        for fleet in fleets:
            for pointer in self.pointers(draft.state, fleet).values():
                for model, track in pointer.models.items():
                    gone = track.others[keep:]
                    dropped += [f"{model}@{release.version}" for release in gone]
                    place = Place(fleet, pointer.channel, model)
                    if gone:
                        self._point(draft, place, lambda each: pointers.trimmed(each, keep))
        known = draft.state.targets[roles.MODELS].targets
        named = {release.path for release in self.named(draft)}
        retired = {path: known[path].hashes["sha256"] for path in known if path not in named}
        if retired and held(self.desk, draft.state, roles.MODELS):
            self.shelf.write_retired(self.shelf.retired() | retired)
            for path in retired:
                del known[path]
            draft.touched.add(roles.MODELS)
        about = {"fleets": " ".join(fleets), "dropped": " ".join(dropped)[:4000]}
        commit(self.desk, draft, Act("gc", about), now=now, always=True)
        return len(dropped)

    def renew(self, *, now: datetime) -> Renewed:
        """Sign anew what is past half its life and whose key is here, but for root and targets."""
        draft = Draft(self.shelf.read())
        due = [role for role in (*roles.PATHS, *ONLINE) if stale(self.desk, draft.state, role, now)]
        mine = tuple(role for role in due if held(self.desk, draft.state, role))
        if mine and all(held(self.desk, draft.state, role) for role in ONLINE):
            commit(self.desk, draft, Act("renew", {"roles": " ".join(mine)}), now=now)
            return Renewed(mine, tuple(role for role in due if role not in mine))
        return Renewed((), tuple(due))

    # -- questions -------------------------------------------------------------------------

    def pointer(self, fleet: str, channel: str) -> Pointer | None:
        """The pointer of a channel, or None."""
        return self._pointer(self.shelf.read(), messages.pointer_path(fleet, channel))

    def pointers(self, state: State, fleet: str) -> dict[str, Pointer]:
        """Every pointer of a fleet, by target path."""
        found = {}
        for path in state.targets[roles.ROLLOUT].targets:
            if path.startswith(f"fleet/{fleet}/"):
                pointer = self._pointer(state, path)
                assert pointer is not None
                found[path] = pointer
        return found

    def named(self, draft: Draft) -> set[Release]:
        """Every release that a channel of any fleet can still choose, with ``draft`` made."""
        found: set[Release] = set()
        for path in draft.state.targets[roles.ROLLOUT].targets:
            pointer = self._pointer(draft.state, path, draft.targets)
            assert pointer is not None
            found.update(each for track in pointer.models.values() for each in track.releases())
        return found

    # -- a change, step by step ------------------------------------------------------------

    def _add_manifest(self, draft: Draft, release: Release, data: bytes) -> None:
        targets = draft.state.targets[roles.MODELS].targets
        known = targets.get(release.path)
        was = known.hashes.get("sha256") if known else self.shelf.retired().get(release.path)
        if was is not None and was != release.sha256:
            raise InputFault(
                f"version {release.version} was published before with other bytes",
                advice="A version never changes: give the bundle a new one.",
            )
        draft.targets[release.path] = data
        if known is None:
            targets[release.path] = _target(release.path, data)
            draft.touched.add(roles.MODELS)

    def _point(self, draft: Draft, place: Place, change: Callable[[Track | None], Track]) -> Track:
        path = messages.pointer_path(place.fleet, place.channel)
        before = self._pointer(draft.state, path, draft.targets)
        track = change(pointers.track_of(before, place.model))
        after = pointers.replaced(before, place, track)
        if after != before:
            self._replace(draft, path, after)
        return track

    def _replace(self, draft: Draft, path: str, pointer: Pointer) -> None:
        data = messages.encode(pointer)
        messages.decode(data, Pointer)
        draft.targets[path] = data
        draft.state.targets[roles.ROLLOUT].targets[path] = _target(path, data)
        draft.touched.add(roles.ROLLOUT)

    def _pointer(
        self, state: State, path: str, drafted: Mapping[str, bytes] = MappingProxyType({})
    ) -> Pointer | None:
        entry = state.targets[roles.ROLLOUT].targets.get(path)
        if entry is None:
            return None
        data = drafted.get(path) or self.shelf.target(path, entry.hashes["sha256"])
        return messages.decode(data, Pointer)

    def _sign(
        self, draft: Draft, place: Place, release: Release, act: Act, now: datetime
    ) -> Published:
        changed = commit(self.desk, draft, act, now=now)
        state = self.shelf.read() if changed else draft.state
        return Published(
            release=release,
            place=place,
            pointer_version=state.targets[roles.ROLLOUT].version,
            timestamp_version=state.timestamp.version,
            changed=changed,
        )


def _act(what: str, place: Place, release: Release, **more: str) -> Act:
    about = {
        "model": place.model, "version": release.version, "sha256": release.sha256,
        "fleet": place.fleet, "channel": place.channel,
    }  # fmt: skip
    return Act(what, about | more)


def _target(path: str, data: bytes) -> TargetFile:
    return TargetFile(len(data), {"sha256": hashlib.sha256(data).hexdigest()}, path)


def _user() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
