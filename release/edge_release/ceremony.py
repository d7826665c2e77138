"""Which keys sign for a role: what a rotation, an addition or a removal makes of root and targets.

Pure: a state in, the next versions of root and targets out, without signatures. Top-level roles are
named by root, ``models`` and ``rollout`` by targets. Where the targets keys change, a targets
version signed by the new ones comes along: the two take effect together.

Guards: what would lock the owner out is refused: no key left, a threshold above the number of keys,
a key twice, a root key that signs online too. That the new keys can sign is proven by their
signatures before the change counts, see ``pending``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Key
from tuf.api.metadata import Root, Targets

from edge_contract.errors import InputFault
from edge_release import metadata, roles
from edge_release.roles import Profile
from edge_release.shelf import State


@dataclass(frozen=True)
class Change:
    """The next root and targets; None where that role stays as it is."""

    root: Root | None = None
    targets: Targets | None = None


def change_keys(
    state: State,
    role: str,
    *,
    add: Sequence[Key] = (),
    drop: Sequence[str] = (),
    threshold: int | None = None,
    profile: Profile,
    now: datetime,
) -> Change:
    """``add`` keys to a role, ``drop`` key ids, and set how many must sign.

    Raises InputFault when nothing would change or nobody could sign afterwards.
    """
    check_role(role)
    public, before = metadata.keys_of(state.delegator(role), role)
    needed = before if threshold is None else threshold
    _check(state, role, add, drop)
    left = len(public) - len(drop) + len(add)
    _check_enough(role, left, needed)
    if not add and not drop and needed == before:
        raise InputFault(f"nothing to change: {role} needs {before} of {len(public)} keys already")
    if role in roles.PATHS:
        targets = state.targets[roles.TARGETS]
        for key in add:
            targets.add_key(key, role)
        for keyid in drop:
            targets.revoke_key(keyid, role)
        assert targets.delegations is not None
        assert targets.delegations.roles is not None
        targets.delegations.roles[role].threshold = needed
        return Change(targets=_next(targets, roles.TARGETS, profile, now))
    root = state.root
    for key in add:
        root.add_key(key, role)
    for keyid in drop:
        root.revoke_key(keyid, role)
    root.roles[role].threshold = needed
    follows = None
    if role == roles.TARGETS:
        follows = _next(state.targets[roles.TARGETS], roles.TARGETS, profile, now)
    return Change(root=_next(root, roles.ROOT, profile, now), targets=follows)


def renew(state: State, chosen: Sequence[str], *, profile: Profile, now: datetime) -> Change:
    """Root, targets or both again, for another of their lifetimes."""
    return Change(
        root=_next(state.root, roles.ROOT, profile, now) if roles.ROOT in chosen else None,
        targets=_next(state.targets[roles.TARGETS], roles.TARGETS, profile, now)
        if roles.TARGETS in chosen
        else None,
    )


def check_role(role: str) -> str:
    """The role, if there is one of that name. Raises InputFault."""
    if role not in roles.ROLES:
        raise InputFault(f"there is no role {role!r}, expected one of {', '.join(roles.ROLES)}")
    return role


def _check(state: State, role: str, add: Sequence[Key], drop: Sequence[str]) -> None:
    present = [key.keyid for key in metadata.keys_of(state.delegator(role), role)[0]]
    for keyid in drop:
        if keyid not in present:
            raise InputFault(
                f"key {keyid[:8]} does not sign for {role}",
                advice="`edge-pack keys status` names each role's keys.",
            )
    for key in add:
        if key.keyid in present:
            raise InputFault(f"key {key.keyid[:8]} signs for {role} already")
        _check_apart(state, role, key)


def _check_enough(role: str, left: int, needed: int) -> None:
    if left < 1:
        raise InputFault(
            f"{role} would have no key left, and nobody could sign for it",
            advice=f"Replace the key instead: `edge-pack keys rotate {role}`.",
        )
    if not 1 <= needed <= left:
        raise InputFault(
            f"{role} would need {needed} of {left} keys, expected a threshold from 1 to {left}",
            advice="Name another --threshold, or add a key first.",
        )


def _check_apart(state: State, role: str, key: Key) -> None:
    """A root key signs nothing else: the others lie on machines that are on line."""
    for other in roles.ROLES:
        public, _ = metadata.keys_of(state.delegator(other), other)
        taken = key.keyid in {each.keyid for each in public}
        if taken and other != role and roles.ROOT in (role, other):
            raise InputFault(f"key {key.keyid[:8]} signs for {other}; a root key signs for root")


def _next(signed: metadata.T, role: str, profile: Profile, now: datetime) -> metadata.T:
    signed.version += 1
    signed.expires = metadata.expiry(profile, role, now)
    return signed
