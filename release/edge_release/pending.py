"""A change of keys that waits for signatures: gathered one after the other, on any machine.

``repository/pending.json`` holds the next root, the next targets or both, with the signatures that
were given so far. It is one file, written whole; it is carried to whoever has to sign and back.
Root needs enough of the former root's keys and enough of its own; targets enough of the keys that
the new root names. Then ``commit`` takes both in one step.

Guards: what a person is told that they sign is read from the metadata itself, not from what the
file says about it; a change that does not follow from this repository's state is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import Struct
from tuf.api.metadata import Metadata, Root, Targets

from edge_contract import wire
from edge_contract.errors import InputFault
from edge_release import metadata, roles
from edge_release.ceremony import Change
from edge_release.commit import Draft
from edge_release.ring import ED25519, Ring
from edge_release.shelf import METADATA_MAX_BYTES, State, versioned

PENDING_MAX_BYTES = 4 * METADATA_MAX_BYTES
_ROLES = {roles.ROOT, roles.TARGETS}
_TAKE = "Name the pending.json of the same change, signed elsewhere."
_DISCARD = "Drop it with `edge-pack keys sign --discard` and begin again."


class Pending(Struct, frozen=True, kw_only=True):
    """``pending.json``: what is being done, and each role's next version as JSON text."""

    schema: int = 1
    what: str
    about: dict[str, str]
    files: dict[str, str]


@dataclass(frozen=True)
class Lack:
    """Signatures that are missing: ``missing`` of ``needed`` keys, any of ``by``.

    ``as_role``: whose keys they are: root, former root, or targets.
    """

    role: str
    as_role: str
    missing: int
    needed: int
    by: tuple[str, ...]


def begin(change: Change, what: str, about: Mapping[str, str]) -> Pending:
    """A change without signatures."""
    files = {}
    if change.root is not None:
        files[roles.ROOT] = metadata.seal(change.root, []).decode()
    if change.targets is not None:
        files[roles.TARGETS] = metadata.seal(change.targets, []).decode()
    return Pending(what=what, about=dict(about), files=files)


def encode(pending: Pending) -> bytes:
    """The file's bytes."""
    return wire.encode_json(pending)


def decode(data: bytes, where: str, *, taken: bool = False) -> Pending:
    """What waits, or with ``taken`` another copy of it. InputFault when it is not such a file."""
    advice = _TAKE if taken else _DISCARD
    try:
        found = wire.decode_json(data, Pending, size_max=PENDING_MAX_BYTES)
    except InputFault as error:
        raise InputFault(f"{where}: {error.what}", advice=advice) from error
    if not found.files or not set(found.files) <= _ROLES:
        raise InputFault(f"{where} holds no next root or targets", advice=advice)
    return found


def applied(pending: Pending, state: State) -> bool:
    """Whether ``state`` has it already: a publisher was cut off before it removed the file."""
    return all(
        state.files.get(versioned(role, state.signed(role).version)) == text.encode()
        for role, text in pending.files.items()
    )


def parsed(pending: Pending, state: State, *, taken: bool = False) -> dict[str, Metadata[Any]]:
    """Its metadata by role. Raises InputFault when it does not follow from ``state``."""
    found: dict[str, Metadata[Any]] = {}
    for role, text in pending.files.items():
        wrapped = metadata.parse_role(text.encode(), role, f"the pending {role}")
        expected = state.signed(role).version + 1
        if wrapped.signed.version != expected:
            raise InputFault(
                f"the pending change is version {wrapped.signed.version} of {role}, expected"
                f" {expected}: another change was made since",
                advice=_TAKE if taken else _DISCARD,
            )
        found[role] = wrapped
    return found


def lacks(pending: Pending, state: State) -> list[Lack]:
    """Every signature that is still missing; empty when the change can be made."""
    found = parsed(pending, state)
    asked: list[tuple[str, str, Root | Targets]] = []
    if roles.ROOT in found:
        root = found[roles.ROOT].signed
        asked = [(roles.ROOT, "former root", state.root), (roles.ROOT, "root", root)]
    if roles.TARGETS in found:
        asked.append((roles.TARGETS, "targets", _root(found, state)))
    result = []
    for role, as_role, delegator in asked:
        public, threshold = metadata.keys_of(delegator, role)
        signed, enough = metadata.signed_by(delegator, role, found[role])
        if not enough:
            by = tuple(key.keyid for key in public if key.keyid not in signed)
            result.append(Lack(role, as_role, threshold - len(signed), threshold, by))
    return result


def sign(pending: Pending, state: State, ring: Ring) -> tuple[Pending, list[str]]:
    """With the signatures of every key that is here and may sign; and those keys' ids.

    Raises InputFault when a key does not open.
    """
    found = parsed(pending, state)
    files = dict(pending.files)
    used: list[str] = []
    for role, wrapped in found.items():
        wanted = _may_sign(role, found, state)
        _drop_false(role, wrapped, found, state)
        here = [keyid for keyid in ring.held(wanted) if keyid not in wrapped.signatures]
        data = metadata.add_signatures(wrapped, [ring.signer(keyid) for keyid in here])
        files[role] = data.decode()
        used += here
    return Pending(what=pending.what, about=pending.about, files=files), used


def merged(pending: Pending, other: Pending, state: State) -> Pending:
    """With the signatures that another copy of the same change gathered, those that hold.

    Raises InputFault when it is another change.
    """
    ours, theirs = parsed(pending, state), parsed(other, state, taken=True)
    if {role: each.signed_bytes for role, each in ours.items()} != {
        role: each.signed_bytes for role, each in theirs.items()
    }:
        raise InputFault("the two files are about different changes", advice=_TAKE)
    files = {}
    for role, wrapped in ours.items():
        for delegator in (state.root, _root(ours, state)):
            for keyid in metadata.signed_by(delegator, role, theirs[role])[0]:
                wrapped.signatures.setdefault(keyid, theirs[role].signatures[keyid])
        files[role] = metadata.add_signatures(wrapped, []).decode()
    return Pending(what=pending.what, about=pending.about, files=files)


def draft(pending: Pending, state: State) -> Draft:
    """The change itself, complete: ``lacks`` is empty."""
    sealed = {role: text.encode() for role, text in pending.files.items()}
    for role, wrapped in parsed(pending, state).items():
        if isinstance(wrapped.signed, Root):
            state.root = wrapped.signed
        else:
            state.targets[role] = wrapped.signed
    return Draft(state, sealed=sealed)


def describe(pending: Pending, state: State, ring: Ring) -> list[str]:
    """What the change does, a line each, for who signs it: from the metadata alone."""
    found = parsed(pending, state)
    lines = []
    root, targets = _root(found, state), state.targets[roles.TARGETS]
    if roles.TARGETS in found and isinstance(found[roles.TARGETS].signed, Targets):
        targets = found[roles.TARGETS].signed
    for role in roles.ROLES:
        delegator = targets if role in roles.PATHS else root
        before, needed = metadata.keys_of(state.delegator(role), role)
        after, then = metadata.keys_of(delegator, role)
        for sign_, these, those in (("+", after, before), ("-", before, after)):
            for key in these:
                if key.keyid not in {each.keyid for each in those}:
                    weak = "" if key.scheme == ED25519 else f", {key.scheme}"
                    lines.append(f"{role}: {sign_} {ring.name(key.keyid)} ({key.keyid}{weak})")
        if then != needed:
            lines.append(f"{role}: {then} of {len(after)} keys must sign, was {needed}")
    for role, wrapped in found.items():
        until = wrapped.signed.expires.strftime("%Y-%m-%d")
        lines.append(f"{role}: version {wrapped.signed.version}, holds until {until}")
        if isinstance(wrapped.signed, Targets):
            lines += _paths(wrapped.signed, state.targets[roles.TARGETS])
    return lines


def _paths(after: Targets, before: Targets) -> list[str]:
    """Whatever else a targets version changes: more than keys is nobody's intention."""
    was, now = before.to_dict(), after.to_dict()
    for each in (was, now):
        for role in each["delegations"]["roles"]:
            role.pop("keyids"), role.pop("threshold")
        each["delegations"].pop("keys")
        each.pop("version"), each.pop("expires")
    return [] if was == now else ["targets: WHAT THE DELEGATED ROLES MAY SIGN CHANGES TOO"]


def _root(found: Mapping[str, Metadata[Any]], state: State) -> Root:
    wrapped = found.get(roles.ROOT)
    return wrapped.signed if wrapped and isinstance(wrapped.signed, Root) else state.root


def _drop_false(
    role: str, wrapped: Metadata[Any], found: Mapping[str, Metadata[Any]], state: State
) -> None:
    """Forget signatures that do not hold: one in a key's place would keep that key from signing."""
    true: set[str] = set()
    for delegator in (state.root, _root(found, state)):
        true |= metadata.signed_by(delegator, role, wrapped)[0]
    for keyid in set(wrapped.signatures) - true:
        del wrapped.signatures[keyid]


def _may_sign(role: str, found: Mapping[str, Metadata[Any]], state: State) -> list[str]:
    delegators = [_root(found, state)]
    if role == roles.ROOT:
        delegators.insert(0, state.root)
    keyids: dict[str, None] = {}
    for delegator in delegators:
        keyids |= dict.fromkeys(key.keyid for key in metadata.keys_of(delegator, role)[0])
    return list(keyids)
