"""The signing repository: bundles in, signed metadata out.

Guards: a version that was published never changes its bytes; versions of metadata only rise;
the same publication again signs nothing anew. Time is an argument; the disk is ``shelf``'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import TargetFile, Targets

from edge_contract import messages
from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault
from edge_contract.messages import Pointer, Release, Track
from edge_release import keys, metadata, pointers, roles
from edge_release.pointers import Place
from edge_release.shelf import Shelf, State, versioned

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
class RoleStatus:
    """One role: ``present`` says whether enough of its keys are in the folder to sign."""

    role: str
    version: int
    expires: datetime
    threshold: int
    keys: tuple[str, ...]
    present: bool
    renew: bool


@dataclass
class _Draft:
    """A change under way: roles to sign anew, targets to keep."""

    state: State
    touched: set[str] = field(default_factory=set)
    targets: dict[str, bytes] = field(default_factory=dict)


class Repository:
    """A folder made by ``create``. Every change is made under its lock, by ``locked``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shelf = Shelf(folder)
        self.profile = self.shelf.profile()

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
        draft = _Draft(self.shelf.read())
        self._add_manifest(draft, release, bundle.manifest_bytes)
        self._point(draft, place, lambda track: move(track, release))
        for file in manifest.files:
            self.shelf.write_member(file.sha256, bundle.stored[file.name])
        return self._sign(draft, place, release, now)

    def promote(self, version: str, place: Place, *, now: datetime) -> Published:
        """Make a version stable that was signed before. Raises InputFault when none was."""
        draft = _Draft(self.shelf.read())
        path = messages.manifest_path(place.model, version)
        known = draft.state.targets[roles.MODELS].targets.get(path)
        if known is None:
            raise InputFault(f"{place.model} {version} was never published from here")
        release = messages.release(place.model, version, known.hashes["sha256"])
        self._point(draft, place, lambda track: pointers.as_stable(track, release))
        return self._sign(draft, place, release, now)

    def set_floor(self, floor: str, place: Place, *, now: datetime) -> Published:
        """Let no device run a version older than ``floor``. Raises InputFault when it may not."""
        draft = _Draft(self.shelf.read())

        def raised(track: Track | None) -> Track:
            if track is None:
                raise InputFault(f"channel {place.channel} has no model {place.model}")
            return pointers.with_floor(track, floor)

        track = self._point(draft, place, raised)
        return self._sign(draft, place, track.stable, now)

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

    def status(self, *, now: datetime) -> list[RoleStatus]:
        """Each role's version, expiry and keys."""
        state = self.shelf.read()
        signed = {
            roles.ROOT: state.root,
            roles.SNAPSHOT: state.snapshot,
            roles.TIMESTAMP: state.timestamp,
            **state.targets,
        }
        rows = []
        for role in roles.ROLES:
            names = roles.key_names(self.profile, role)
            threshold = roles.threshold(self.profile, role)
            held = sum(keys.present(self.folder, name) for name in names)
            lifetime = roles.LIFETIMES[self.profile][role]
            rows.append(
                RoleStatus(
                    role=role,
                    version=signed[role].version,
                    expires=signed[role].expires,
                    threshold=threshold,
                    keys=names,
                    present=held >= threshold,
                    renew=metadata.half_gone(signed[role], lifetime, now),
                )
            )
        return rows

    # -- a change, step by step ------------------------------------------------------------

    def _add_manifest(self, draft: _Draft, release: Release, data: bytes) -> None:
        targets = draft.state.targets[roles.MODELS].targets
        known = targets.get(release.path)
        if known is not None and known.hashes.get("sha256") != release.sha256:
            raise InputFault(
                f"version {release.version} was published before with other bytes",
                advice="A version never changes: give the bundle a new one.",
            )
        draft.targets[release.path] = data
        if known is None:
            targets[release.path] = _target(release.path, data)
            draft.touched.add(roles.MODELS)

    def _point(self, draft: _Draft, place: Place, change: Callable[[Track | None], Track]) -> Track:
        path = messages.pointer_path(place.fleet, place.channel)
        before = self._pointer(draft.state, path)
        track = change(pointers.track_of(before, place.model))
        after = pointers.replaced(before, place, track)
        if after != before:
            data = messages.encode(after)
            messages.decode(data, Pointer)
            draft.targets[path] = data
            draft.state.targets[roles.ROLLOUT].targets[path] = _target(path, data)
            draft.touched.add(roles.ROLLOUT)
        return track

    def _pointer(self, state: State, path: str) -> Pointer | None:
        entry = state.targets[roles.ROLLOUT].targets.get(path)
        if entry is None:
            return None
        return messages.decode(self.shelf.target(path, entry.hashes["sha256"]), Pointer)

    def _sign(self, draft: _Draft, place: Place, release: Release, now: datetime) -> Published:
        """Sign what was touched or is past half its life, and commit."""
        state = draft.state
        for role in roles.PATHS:
            if self._stale(role, state.targets[role], now) and self._held(role):
                draft.touched.add(role)
        snapshot_due = bool(draft.touched) or self._stale(roles.SNAPSHOT, state.snapshot, now)
        changed = snapshot_due or self._stale(roles.TIMESTAMP, state.timestamp, now)
        if changed:
            files = self._signed(state, draft.touched, snapshot_due=snapshot_due, now=now)
            for path, data in draft.targets.items():
                self.shelf.write_target(path, data)
            self.shelf.write_metadata(files)
            state = self.shelf.read()
        return Published(
            release=release,
            place=place,
            pointer_version=state.targets[roles.ROLLOUT].version,
            timestamp_version=state.timestamp.version,
            changed=changed,
        )

    def _signed(
        self, state: State, touched: Iterable[str], *, snapshot_due: bool, now: datetime
    ) -> dict[str, bytes]:
        """The files of the next state, timestamp last. All signing happens before any writing."""
        files: dict[str, bytes] = {}
        for role in sorted(touched):
            targets = state.targets[role]
            targets.version += 1
            targets.expires = metadata.expiry(self.profile, role, now)
            files[versioned(role, targets.version)] = metadata.seal(targets, self._signers(role))
        version = state.snapshot.version
        if snapshot_due:
            version += 1
            listed = {
                role: (targets.version, _bytes_of(role, targets, files, state.files))
                for role, targets in state.targets.items()
            }
            expires = metadata.expiry(self.profile, roles.SNAPSHOT, now)
            sealed = metadata.seal(
                metadata.snapshot(version, listed, expires), self._signers(roles.SNAPSHOT)
            )
            files[versioned(roles.SNAPSHOT, version)] = sealed
        else:
            sealed = state.files[versioned(roles.SNAPSHOT, version)]
        timestamp = metadata.timestamp(
            state.timestamp.version + 1,
            version,
            sealed,
            expires=metadata.expiry(self.profile, roles.TIMESTAMP, now),
            now=now,
        )
        files["timestamp.json"] = metadata.seal(timestamp, self._signers(roles.TIMESTAMP))
        return files

    def _signers(self, role: str) -> list[CryptoSigner]:
        names = roles.key_names(self.profile, role)
        return [keys.load(self.folder, name) for name in names]

    def _held(self, role: str) -> bool:
        return all(keys.present(self.folder, name) for name in roles.key_names(self.profile, role))

    def _stale(self, role: str, signed: metadata.AnySigned, now: datetime) -> bool:
        return metadata.half_gone(signed, roles.LIFETIMES[self.profile][role], now)


def _target(path: str, data: bytes) -> TargetFile:
    return TargetFile(len(data), {"sha256": hashlib.sha256(data).hexdigest()}, path)


def _bytes_of(
    role: str, targets: Targets, new: Mapping[str, bytes], old: Mapping[str, bytes]
) -> bytes:
    name = versioned(role, targets.version)
    return new[name] if name in new else old[name]
