"""Which topics each role reads and writes; mosquitto's acl_file from it. Pure.

Guards: a device writes its own topics and no other; what is signed is written by the publisher
alone; a one-time account reaches one question and its answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edge_contract.names import check_name
from edge_contract.topics import Topics

Role = Literal["publisher", "fleet", "device", "client", "token"]


@dataclass(frozen=True)
class Right:
    """Leave to read (subscribe, receive) or write (publish, will) what ``topics`` matches."""

    topics: str
    read: bool = False
    write: bool = False


def rights(role: Role, name: str, topics: Topics) -> tuple[Right, ...]:
    """What an account may do in its fleet.

    Args:
        name: of the device, or of the token; other roles ignore it.

    ``publisher`` signs and publishes, ``fleet`` collects and chooses versions, ``client`` asks
    models and labels their answers, ``token`` enrols one device.
    """
    root = topics.root
    signed = (f"{root}/tuf/#", f"{root}/c/+")
    match role:
        case "publisher":
            return tuple(Right(each, read=True, write=True) for each in signed)
        case "fleet":
            heard = (*topics.collector_filters(), f"{root}/d/+/rsp", topics.enrol_filter())
            said = (f"{root}/d/+/desired", f"{root}/d/+/cmd", topics.enrol_answer("+"))
            return (*_read(*signed, *heard), *_write(*said, f"{root}/trigger/+"))
        case "client":
            return (*_write(f"{root}/d/+/in/+", f"{root}/d/+/fb/+"), *_read(f"{root}/d/+/out/+"))
        case "token":
            return (*_write(topics.enrol_request(name)), *_read(topics.enrol_answer(name)))
    own = f"{root}/d/{check_name(name, 'device')}"
    # Its own status it reads too: another agent under its name shows there.
    return (
        Right(topics.status(name), read=True, write=True),
        *_write(topics.reported(name), topics.events(name), topics.telemetry(name)),
        *_write(f"{own}/out/+", f"{own}/rsp"),
        *_read(topics.desired(name), f"{own}/cmd", topics.request_filter(name)),
        *_read(topics.labels_filter(name), *signed),
    )


def acl_lines(user: str, granted: Iterable[Right]) -> list[str]:
    """One user's part of a mosquitto acl_file (mosquitto.conf(5)); what is not named is refused."""
    return [f"user {user}", *(f"topic {_word(right)} {right.topics}" for right in granted)]


def _word(right: Right) -> str:
    return "readwrite" if right.read and right.write else "read" if right.read else "write"


def _read(*filters: str) -> tuple[Right, ...]:
    return tuple(Right(each, read=True) for each in filters)


def _write(*filters: str) -> tuple[Right, ...]:
    return tuple(Right(each, write=True) for each in filters)
