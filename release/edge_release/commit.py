"""Signing a change and writing it down: all signatures first, then the files, timestamp last.

Guards: versions of metadata only rise; nothing is written before everything is signed; what the
root or targets metadata says of keys and what those keys signed change in one step, the replacement
of ``timestamp.json``; each change has its entry in the audit log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from securesystemslib.signer import Signer
from tuf.api.metadata import Targets

from edge_contract.errors import InputFault
from edge_release import keys, metadata, roles
from edge_release.ring import Ring
from edge_release.roles import Profile
from edge_release.shelf import Shelf, State, versioned


@dataclass(frozen=True)
class Desk:
    """Where a repository's changes are signed. ``who``: user@host, for the audit log."""

    shelf: Shelf
    ring: Ring
    profile: Profile
    who: str


@dataclass(frozen=True)
class Act:
    """What is done, for the audit log: a verb, and what it is about."""

    what: str
    about: Mapping[str, str]


@dataclass
class Draft:
    """A change under way.

    Attributes:
        touched: targets roles to sign anew. targets: target files to keep, by path.
        sealed: new versions of root and targets that have all their signatures.
    """

    state: State
    touched: set[str] = field(default_factory=set)
    targets: dict[str, bytes] = field(default_factory=dict)
    sealed: dict[str, bytes] = field(default_factory=dict)


def commit(desk: Desk, draft: Draft, act: Act, *, now: datetime, always: bool = False) -> bool:
    """Sign what was touched, no longer holds or is past half its life, and keep it.

    Args:
        always: sign a timestamp even when nothing else is to be signed.

    Returns whether anything was signed. Raises InputFault when a key is not here; then nothing
    changed.
    """
    state = draft.state
    touched = draft.touched | _unsettled(draft)
    for role in roles.PATHS:
        if stale(desk, state, role, now) and held(desk, state, role):
            touched.add(role)
    snapshot_due = (
        bool(touched)
        or roles.TARGETS in draft.sealed
        or _unproven(draft)
        or stale(desk, state, roles.SNAPSHOT, now)
    )
    due = snapshot_due or bool(draft.sealed) or stale(desk, state, roles.TIMESTAMP, now)
    if not (due or always):
        return False
    _write(desk, draft, touched, act, snapshot_due=snapshot_due, now=now)
    return True


def stale(desk: Desk, state: State, role: str, now: datetime) -> bool:
    """Whether less than half of a role's signature is left."""
    return metadata.half_gone(state.signed(role), roles.LIFETIMES[desk.profile][role], now)


def held(desk: Desk, state: State, role: str) -> bool:
    """Whether enough of a role's keys are here to sign."""
    public, threshold = metadata.keys_of(state.delegator(role), role)
    return len(desk.ring.held([key.keyid for key in public])) >= threshold


def signers(desk: Desk, state: State, role: str) -> list[Signer]:
    """What signs for a role: all of its keys that are here. InputFault when they are too few."""
    public, threshold = metadata.keys_of(state.delegator(role), role)
    keyids = [key.keyid for key in public]
    here = desk.ring.held(keyids)
    if len(here) < threshold:
        absent = " or ".join(
            str(keys.path(desk.ring.folder, desk.ring.name(keyid)))
            for keyid in keyids
            if keyid not in here
        )
        raise InputFault(
            f"there is no key {absent}: {role} needs {threshold} of its {len(keyids)} keys,"
            f" {len(here)} are here",
            advice="Sign where the key is kept, bring the file back, or replace a lost one with"
            f" `edge-pack keys rotate {role}`.",
        )
    return [desk.ring.signer(keyid) for keyid in here]


def _unsettled(draft: Draft) -> set[str]:
    """Targets roles whose signatures do not hold any more under the new root or targets."""
    if not draft.sealed:
        return set()
    return {
        role
        for role in draft.state.targets
        if role not in draft.sealed and not _holds(draft, role, draft.state.targets[role].version)
    }


def _unproven(draft: Draft) -> bool:
    version = draft.state.snapshot.version
    return bool(draft.sealed) and not _holds(draft, roles.SNAPSHOT, version)


def _holds(draft: Draft, role: str, version: int) -> bool:
    state = draft.state
    data = state.files[versioned(role, version)]
    wrapped = metadata.parse_role(data, role, role)
    return metadata.signed_by(state.delegator(role), role, wrapped)[1]


def _write(
    desk: Desk, draft: Draft, touched: set[str], act: Act, *, snapshot_due: bool, now: datetime
) -> None:
    state = draft.state
    used: set[str] = set()

    def sealed(role: str, signed: metadata.T) -> bytes:
        chosen = signers(desk, state, role)
        used.update(signer.public_key.keyid for signer in chosen)
        return metadata.seal(signed, chosen)

    files: dict[str, bytes] = {}
    for role, data in draft.sealed.items():
        files[versioned(role, state.signed(role).version)] = data
        used.update(metadata.parse_role(data, role, role).signatures)
    for role in sorted(touched):
        targets = state.targets[role]
        targets.version += 1
        targets.expires = metadata.expiry(desk.profile, role, now)
        files[versioned(role, targets.version)] = sealed(role, targets)
    version = state.snapshot.version
    if snapshot_due:
        version += 1
        listed = {
            role: (targets.version, _bytes_of(role, targets, files, state.files))
            for role, targets in state.targets.items()
        }
        expires = metadata.expiry(desk.profile, roles.SNAPSHOT, now)
        snapshot = sealed(roles.SNAPSHOT, metadata.snapshot(version, listed, expires))
        files[versioned(roles.SNAPSHOT, version)] = snapshot
    else:
        snapshot = state.files[versioned(roles.SNAPSHOT, version)]
    # Before anything is written: that the timestamp can be signed too, tokens and all.
    used.update(signer.public_key.keyid for signer in signers(desk, state, roles.TIMESTAMP))
    for path, data in draft.targets.items():
        desk.shelf.write_target(path, data)
    desk.shelf.write_metadata(files)
    number = state.timestamp.version + 1
    head = desk.shelf.record(
        state.timestamp,
        at=now.strftime(metadata.TIME_FORMAT),
        who=desk.who,
        what=act.what,
        about=act.about,
        keys=tuple(sorted(f"{desk.ring.name(keyid)} {keyid[:16]}" for keyid in used)),
        timestamp=number,
    )
    timestamp = metadata.timestamp(
        number,
        version,
        snapshot,
        expires=metadata.expiry(desk.profile, roles.TIMESTAMP, now),
        now=now,
        extra={
            metadata.ROOT_VERSION: state.root.version,
            metadata.AUDIT: msgspec.to_builtins(head),
        },
    )
    desk.shelf.write_metadata({"timestamp.json": sealed(roles.TIMESTAMP, timestamp)})


def _bytes_of(
    role: str, targets: Targets, new: Mapping[str, bytes], old: Mapping[str, bytes]
) -> bytes:
    name = versioned(role, targets.version)
    return new[name] if name in new else old[name]
