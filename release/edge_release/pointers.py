"""What a channel says of a model, and how a publication changes it. Pure.

Guards: a floor only rises, and nothing that the pointer names as stable is below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from edge_contract.errors import InputFault
from edge_contract.messages import Pointer, Release, Track
from edge_contract.names import check_name, version_key

OTHERS_MAX = 32


@dataclass(frozen=True)
class Place:
    """A model's place in a channel. Raises InputFault when one of them is no name."""

    fleet: str
    channel: str
    model: str

    def __post_init__(self) -> None:
        check_name(self.fleet, "fleet")
        check_name(self.channel, "channel")
        check_name(self.model, "model")


def track_of(pointer: Pointer | None, model: str) -> Track | None:
    """The model's track, or None."""
    return pointer.models.get(model) if pointer else None


def as_stable(track: Track | None, release: Release) -> Track:
    """``release`` is what every device follows; the former stable stays nameable.

    Raises InputFault when it is below the floor.
    """
    if track is None:
        return Track(stable=release)
    _check_floor(track, release)
    if track.stable == release:
        return track
    others = (track.stable, *(other for other in track.others if other != track.stable))
    candidate = None if track.candidate == release else track.candidate
    return msgspec.structs.replace(
        track,
        stable=release,
        candidate=candidate,
        others=tuple(other for other in others if other != release)[:OTHERS_MAX],
    )


def as_candidate(track: Track | None, release: Release) -> Track:
    """``release`` is what a rollout may choose; nobody follows it by itself.

    Raises InputFault when it is below the floor, or there is no stable version yet.
    """
    if track is None:
        raise InputFault(
            "a candidate needs a stable version to fall back to, and there is none yet",
            advice="Publish the first version without --candidate.",
        )
    _check_floor(track, release)
    if track.stable == release:
        raise InputFault(f"version {release.version} is the stable one already")
    others = tuple(other for other in track.others if other != release)
    if track.candidate not in (None, release):
        others = (track.candidate, *others)
    return msgspec.structs.replace(track, candidate=release, others=others[:OTHERS_MAX])


def with_floor(track: Track, floor: str) -> Track:
    """No device may run anything older than ``floor``.

    Raises InputFault when the floor would fall, or the stable version is below it.
    """
    if track.floor and version_key(floor) < version_key(track.floor):
        raise InputFault(f"the floor is {track.floor} and only rises; {floor} is older")
    if version_key(track.stable.version) < version_key(floor):
        raise InputFault(f"the stable version {track.stable.version} is below the floor {floor}")
    keep = version_key(floor)
    candidate = track.candidate
    if candidate and version_key(candidate.version) < keep:
        candidate = None
    others = tuple(other for other in track.others if version_key(other.version) >= keep)
    return msgspec.structs.replace(track, candidate=candidate, others=others, floor=floor)


def trimmed(track: Track | None, keep: int) -> Track:
    """The track with its ``keep`` newest former versions; stable and candidate stay."""
    assert track is not None
    return msgspec.structs.replace(track, others=track.others[:keep])


def replaced(pointer: Pointer | None, place: Place, track: Track) -> Pointer:
    """The channel's pointer with a model's new track."""
    models = dict(pointer.models) if pointer else {}
    models[place.model] = track
    return Pointer(
        fleet=place.fleet,
        channel=place.channel,
        models=dict(sorted(models.items())),
        mirrors=pointer.mirrors if pointer else (),
    )


def _check_floor(track: Track, release: Release) -> None:
    if track.floor and version_key(release.version) < version_key(track.floor):
        raise InputFault(
            f"version {release.version} is below the floor {track.floor}: no device would run it",
            advice="Give the bundle a newer version.",
        )
