"""What a device should run, from the signed pointer and the unsigned ``desired``. Pure.

Guards: nothing but a release that the signed pointer names is ever wanted; ``desired`` only
chooses among them; nothing below the signed floor is wanted; a revision only rises.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_contract.messages import Desired, Pointer, Release, Track
from edge_contract.names import version_key

STABLE = "stable"
CANDIDATE = "candidate"


@dataclass(frozen=True)
class Choice:
    """The wanted release of one model, or None with the ``reason``.

    ``revision`` is that of the ``desired`` that was looked at; 0 without one. ``floor``: the oldest
    version that may run, or "".
    """

    release: Release | None
    reason: str = ""
    revision: int = 0
    floor: str = ""


def newer(current: Desired | None, heard: Desired) -> bool:
    """Whether ``heard`` replaces ``current``: brokers repeat retained messages at will."""
    return current is None or heard.revision > current.revision


def models(pointer: Pointer, followed: tuple[str, ...]) -> tuple[str, ...]:
    """The models that a device following ``followed`` (empty: all) runs, sorted."""
    return tuple(sorted(followed or pointer.models))


def choose(pointer: Pointer, model: str, desired: Desired | None) -> Choice:
    """The release of ``model`` that is wanted.

    ``desired`` says ``stable`` (also when it says nothing), ``candidate`` (stable while there
    is none, as after a promotion) or a version. A version that the pointer does not name is not
    replaced by another one: the device stays where it is until the pointer names it. One
    below the floor is, named or not: the floor says what no device may run.
    """
    revision = desired.revision if desired else 0
    track = pointer.models.get(model)
    if track is None:
        return Choice(None, f"channel {pointer.channel} has no model {model}", revision)
    word = desired.models.get(model, STABLE) if desired else STABLE
    named = _named(track, word)
    version = named.version if named else word
    if not below(version, track.floor):
        reason = "" if named else f"version {word} of {model} is not released"
        return Choice(named, reason, revision, track.floor)
    reason = f"version {version} is below the floor {track.floor}"
    if below(track.stable.version, track.floor):
        return Choice(None, reason, revision, track.floor)
    return Choice(track.stable, f"{reason}; following stable", revision, track.floor)


def beside(pointer: Pointer, model: str, word: str) -> Release | None:
    """The release to be tried beside the one that answers; None where there is none that may run.

    ``word``: ``candidate``, ``stable`` or a version, as in ``desired``; "" for none.
    """
    track = pointer.models.get(model)
    if track is None or not word:
        return None
    found = track.candidate if word == CANDIDATE else _named(track, word)
    return None if found is None or below(found.version, track.floor) else found


def _named(track: Track, word: str) -> Release | None:
    if word == STABLE:
        return track.stable
    if word == CANDIDATE:
        return track.candidate or track.stable
    return next((r for r in track.releases() if r.version == word), None)


def below(version: str, floor: str) -> bool:
    """Whether the version is older than what may run."""
    return bool(floor) and version_key(version) < version_key(floor)
