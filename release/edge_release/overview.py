"""What is published: each fleet's channels, each channel's models. Reading only."""

from __future__ import annotations

from dataclasses import dataclass

from edge_contract import manifest as manifests
from edge_contract.errors import InputFault
from edge_contract.messages import Release, Track
from edge_release import roles
from edge_release.repository import Repository


@dataclass(frozen=True)
class Version:
    """A release with what its members weigh on the wire, in bytes."""

    version: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Line:
    """A model in a channel. ``others``: versions that a device may be told to run, newest first."""

    fleet: str
    channel: str
    model: str
    stable: Version
    candidate: Version | None
    others: tuple[Version, ...]
    floor: str


def fleets(repository: Repository) -> list[str]:
    """Every fleet that something was published for."""
    paths = repository.shelf.read().targets[roles.ROLLOUT].targets
    return sorted({path.split("/")[1] for path in paths})


def check_fleet(repository: Repository, fleet: str, *, new: bool = False) -> None:
    """Raise InputFault when nothing was published for ``fleet``, but for others: a name mistyped.

    ``new``: it is meant to be the first time. The first fleet of all needs no word.
    """
    known = fleets(repository)
    if known and fleet not in known and not new:
        raise InputFault(
            f"nothing was published for fleet {fleet} yet; there is {', '.join(known)}",
            advice="Check the name. The first bundle of a new fleet: `edge-pack publish` or"
            " `promote` with --new-fleet.",
        )


def lines(repository: Repository) -> list[Line]:
    """Every model of every channel of every fleet. Raises InputFault when a file is damaged."""
    state = repository.shelf.read()
    found = []
    for fleet in fleets(repository):
        for pointer in repository.pointers(state, fleet).values():
            for model, track in pointer.models.items():
                found.append(_line(repository, fleet, pointer.channel, model, track))
    return found


def _line(repository: Repository, fleet: str, channel: str, model: str, track: Track) -> Line:
    return Line(
        fleet=fleet,
        channel=channel,
        model=model,
        stable=_version(repository, track.stable),
        candidate=_version(repository, track.candidate) if track.candidate else None,
        others=tuple(_version(repository, release) for release in track.others),
        floor=track.floor,
    )


def _version(repository: Repository, release: Release) -> Version:
    data = repository.shelf.target(release.path, release.sha256)
    size = sum(file.size for file in manifests.decode(data).files)
    return Version(release.version, release.sha256, size)
