"""Changing the keys of a repository: rotate, add, remove, sign together, tell what is due.

Guards: a change that lacks signatures changes nothing; one waits at a time; a new key is on disk
before anything names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Key

from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded, write_atomic
from edge_release import ceremony, metadata, pending, roles
from edge_release.ceremony import Change
from edge_release.commit import Act, commit, stale
from edge_release.pending import PENDING_MAX_BYTES, Lack, Pending
from edge_release.repository import Repository
from edge_release.ring import ED25519


@dataclass(frozen=True)
class KeyStatus:
    """A key of a role. ``scheme``: what a device must know to check it."""

    name: str
    keyid: str
    held: bool
    scheme: str

    @property
    def anywhere(self) -> bool:
        """Whether every device can check it, without the cryptography package."""
        return self.scheme == ED25519


@dataclass(frozen=True)
class RoleStatus:
    """One role: ``present`` says whether enough of its keys are here to sign.

    ``renew``: past half its life. ``anywhere``: devices need no extra to trust it.
    """

    role: str
    version: int
    expires: datetime
    threshold: int
    keys: tuple[KeyStatus, ...]
    present: bool
    renew: bool
    anywhere: bool


@dataclass(frozen=True)
class Standing:
    """All roles, and the change that waits, if one does: what it does and what it lacks."""

    roles: tuple[RoleStatus, ...]
    lines: tuple[str, ...] = ()
    lacks: tuple[Lack, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a change of keys.

    Attributes:
        done: it counts now. lacks: signatures that are missing else.
        lines: what it does, as ``pending.describe`` says. signed: names of the keys that signed.
        unused: names of keys here that sign for nothing any more.
    """

    done: bool
    lines: tuple[str, ...]
    lacks: tuple[Lack, ...] = ()
    signed: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def status(repository: Repository, *, now: datetime) -> Standing:
    """Each role's version, expiry and keys, and what waits for signatures."""
    state = repository.shelf.read()
    rows = []
    for role in roles.ROLES:
        public, threshold = metadata.keys_of(state.delegator(role), role)
        here = repository.ring.held([key.keyid for key in public])
        found = tuple(
            KeyStatus(repository.ring.name(key.keyid), key.keyid, key.keyid in here, key.scheme)
            for key in public
        )
        rows.append(
            RoleStatus(
                role=role,
                version=state.signed(role).version,
                expires=state.signed(role).expires,
                threshold=threshold,
                keys=found,
                present=len(here) >= threshold,
                renew=stale(repository.desk, state, role, now),
                anywhere=sum(key.anywhere for key in found) >= threshold,
            )
        )
    waiting = waiting_change(repository)
    if waiting is None:
        return Standing(tuple(rows))
    lines = pending.describe(waiting, state, repository.ring)
    return Standing(tuple(rows), tuple(lines), tuple(pending.lacks(waiting, state)))


def find(repository: Repository, role: str, name: str) -> str:
    """The id of a role's key, by its name, its id or the beginning of that. Raises InputFault."""
    state = repository.shelf.read()
    public, _ = metadata.keys_of(state.delegator(ceremony.check_role(role)), role)
    found = [
        key.keyid
        for key in public
        if name == repository.ring.name(key.keyid) or (len(name) > 7 and key.keyid.startswith(name))
    ]
    if len(found) != 1:
        raise InputFault(
            f"{name} does not sign for {role}",
            advice="`edge-pack keys status` names each role's keys.",
        )
    return found[0]


def rotate(
    repository: Repository,
    role: str,
    *,
    name: str = "",
    passphrase: str = "",
    now: datetime,
) -> Outcome:
    """Replace a role's keys by new ones; ``name``: only that key.

    Those that are here are replaced, or the only one, wherever it is. Raises InputFault when there
    is more than one and none is here, or nothing is changed.
    """
    check_nothing_waits(repository)
    state = repository.shelf.read()
    public, _ = metadata.keys_of(state.delegator(ceremony.check_role(role)), role)
    keyids = [key.keyid for key in public]
    if name:
        drop = [find(repository, role, name)]
    else:
        drop = keyids if len(keyids) == 1 else repository.ring.held(keyids)
    if not drop:
        raise InputFault(
            f"none of the {len(keyids)} keys of {role} is here",
            advice="Say which one to replace: --key NAME, from `edge-pack keys status`.",
        )
    _open(repository, role)
    fresh = [_generate(repository, role, passphrase) for _ in drop]
    about = {"role": role, "removed": " ".join(drop), "added": _ids(fresh)}
    return change(repository, role, "rotate", about, add=fresh, drop=drop, now=now)


def change(
    repository: Repository,
    role: str,
    what: str,
    about: dict[str, str],
    *,
    add: Sequence[Key] = (),
    drop: Sequence[str] = (),
    threshold: int | None = None,
    allow_extra: bool = False,
    now: datetime,
) -> Outcome:
    """``add`` and ``drop`` keys of a role, set its ``threshold``; sign with what is here.

    Args:
        allow_extra: take keys that devices can only check with the cryptography package.

    Raises InputFault when it may not be, or another change waits; then nothing changed.
    """
    check_nothing_waits(repository)
    for key in add:
        if key.scheme != ED25519 and not allow_extra:
            raise InputFault(
                f"key {key.keyid[:8]} signs by {key.scheme}, which a device checks only with the"
                " cryptography package: without it the device would refuse every update",
                advice="Use an Ed25519 key; or install edge-pack[fast] on every device, then add"
                " --devices-have-fast.",
            )
    state = repository.shelf.read()
    made = ceremony.change_keys(
        state, role, add=add, drop=drop, threshold=threshold, profile=repository.profile, now=now
    )
    return _begin(repository, made, what, about, now)


def renew(repository: Repository, chosen: Sequence[str], *, now: datetime) -> Outcome:
    """Sign root, targets or both for another lifetime, with the same keys."""
    check_nothing_waits(repository)
    made = ceremony.renew(repository.shelf.read(), chosen, profile=repository.profile, now=now)
    return _begin(repository, made, "renew", {"roles": " ".join(chosen)}, now)


def sign(repository: Repository, *, take: Path | None = None, now: datetime) -> Outcome:
    """Sign what waits with the keys that are here, and make the change when that is enough.

    Args:
        take: another copy of ``pending.json``, whose signatures are taken over.

    Raises InputFault when nothing waits, or an online key that is needed last is not here.
    """
    state = repository.shelf.read()
    waiting = waiting_change(repository)
    if take is not None:
        other = pending.decode(read_bounded(take, PENDING_MAX_BYTES), str(take), taken=True)
        pending.parsed(other, state, taken=True)
        waiting = pending.merged(waiting, other, state) if waiting else other
    if waiting is None:
        raise InputFault(
            "nothing waits for signatures",
            advice="`edge-pack keys rotate`, `add` or `remove` begin a change of keys.",
        )
    return _continue(repository, waiting, now)


def discard(repository: Repository) -> bool:
    """Drop what waits for signatures; whether anything did."""
    there = repository.shelf.pending.is_file()
    repository.shelf.pending.unlink(missing_ok=True)
    return there


def waiting_change(repository: Repository) -> Pending | None:
    """The change that waits for signatures, or None. Raises InputFault: it is damaged or stale."""
    file = repository.shelf.pending
    if not file.is_file():
        return None
    found = pending.decode(read_bounded(file, PENDING_MAX_BYTES), str(file))
    state = repository.shelf.read()
    if pending.applied(found, state):
        file.unlink(missing_ok=True)
        return None
    pending.parsed(found, state)
    return found


def unused(repository: Repository) -> tuple[str, ...]:
    """Names of private keys here that no role names any more."""
    state = repository.shelf.read()
    named = {
        key.keyid
        for role in roles.ROLES
        for key in metadata.keys_of(state.delegator(role), role)[0]
    }
    return tuple(
        entry.name
        for keyid, entry in repository.ring.entries().items()
        if entry.held and keyid not in named
    )


def check_nothing_waits(repository: Repository) -> None:
    """Raise InputFault when a change of keys waits for signatures."""
    if waiting_change(repository) is not None:
        raise InputFault(
            "a change of keys waits for signatures already",
            advice="See `edge-pack keys status`; go on with `edge-pack keys sign`, or drop it with"
            " `edge-pack keys sign --discard`.",
        )


def _begin(
    repository: Repository, made: Change, what: str, about: dict[str, str], now: datetime
) -> Outcome:
    return _continue(repository, pending.begin(made, what, about), now)


def _continue(repository: Repository, waiting: Pending, now: datetime) -> Outcome:
    state = repository.shelf.read()
    waiting, used = pending.sign(waiting, state, repository.ring)
    lines = tuple(pending.describe(waiting, state, repository.ring))
    names = tuple(repository.ring.name(keyid) for keyid in used)
    lacks = tuple(pending.lacks(waiting, state))
    write_atomic(repository.shelf.pending, pending.encode(waiting))
    if lacks:
        return Outcome(False, lines, lacks, names)
    commit(
        repository.desk, pending.draft(waiting, state), Act(waiting.what, waiting.about), now=now
    )
    repository.shelf.pending.unlink(missing_ok=True)
    return Outcome(True, lines, (), names, unused(repository))


def _open(repository: Repository, role: str) -> None:
    """Open the keys that will sign, so that a wrong passphrase leaves no new key behind."""
    state = repository.shelf.read()
    above = roles.TARGETS if role in roles.PATHS else roles.ROOT
    public, _ = metadata.keys_of(state.root, above)
    for keyid in repository.ring.held([key.keyid for key in public]):
        repository.ring.signer(keyid)


def _generate(repository: Repository, role: str, passphrase: str) -> Key:
    name = repository.ring.fresh_name(role)
    return repository.ring.generate(name, passphrase).key


def _ids(found: Sequence[Key]) -> str:
    return " ".join(key.keyid for key in found)
