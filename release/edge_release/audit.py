"""Who published, promoted, rotated, and when: a log whose every entry names the one before it.

``repository/audit.jsonl``, one JSON line an entry, each with the SHA-256 of the line before; the
signed timestamp carries how many entries there are and the SHA-256 of the last. So an entry that
was altered, removed, put elsewhere or cut off at the end is seen by anybody who has the root.

An entry is on disk before the timestamp that carries it is: a publisher that is cut off in between
leaves an entry of a change that did not happen, which its timestamp version tells (the next change
has it too). What a power cut left of a last line is no entry.

It cannot show that the whole folder was put back to an older copy: the broker, which then holds a
newer timestamp, does (``publication.sync`` refuses).
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from edge_contract import wire
from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports.disk import read_bounded, sync_directory
from edge_contract.typed import convert

LOG_MAX_BYTES = 256 * 1024**2
_LINE_MAX_BYTES = 64 * 1024


class Entry(Struct, frozen=True, kw_only=True):
    """One change. ``keys``: names and ids of the keys that signed; ``previous``: the line before.

    ``timestamp``: version of the timestamp metadata that first carries it.
    """

    n: int
    at: str
    who: str
    what: str
    about: dict[str, str]
    keys: tuple[str, ...]
    timestamp: int
    previous: str


class Head(Struct, frozen=True, kw_only=True):
    """Where the log ends: what a timestamp says of it."""

    entries: int
    sha256: str


@dataclass(frozen=True)
class Checked:
    """What a log holds. ``faults``: what was done to it; ``notes``: what no one has to answer for.

    ``undone``: numbers of the entries whose change did not happen.
    """

    entries: tuple[Entry, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    undone: frozenset[int]


def head_of(fields: Mapping[str, object]) -> Head | None:
    """The head in a timestamp's extra field, or None where it has none."""
    try:
        return convert(fields, Head) if fields else None
    except msgspec.ValidationError:
        return None


def check(data: bytes, head: Head | None) -> Checked:
    """Everything that can be said of a log's bytes, given the signed head. Raises nothing."""
    *lines, torn = data.split(b"\n")
    entries: list[Entry] = []
    faults: list[str] = []
    digests: dict[int, str] = {}
    previous, number = "", 0
    for at, line in enumerate(lines, 1):
        try:
            entry = wire.decode_json(line, Entry, size_max=_LINE_MAX_BYTES)
        except InputFault:
            faults.append(f"line {at} is not an entry")
            number, previous = number + 1, hashlib.sha256(line).hexdigest()
            continue
        if entry.n != number + 1:
            faults.append(f"line {at} is entry {entry.n}, expected entry {number + 1}")
        elif entry.previous != previous:
            faults.append(f"entry {entry.n} does not follow the one before it: one was altered")
        number, previous = entry.n, hashlib.sha256(line).hexdigest()
        digests[number] = previous
        entries.append(entry)
    notes = [f"an incomplete line of {len(torn)} bytes at the end: no entry"] if torn else []
    faults += _against(head, digests, number)
    signed = head.entries if head else 0
    late = [entry for entry in entries if entry.n > signed]
    if late:
        notes.append(f"{len(late)} at the end of changes that were cut off and did not happen")
    undone = {
        entry.n
        for entry, after in itertools.pairwise(entries)
        if entry.timestamp >= after.timestamp
    } | {entry.n for entry in late}
    return Checked(tuple(entries), tuple(faults), tuple(notes), frozenset(undone))


def _against(head: Head | None, digests: Mapping[int, str], last: int) -> list[str]:
    if head is None:
        return []
    if head.entries and head.entries not in digests:
        return [f"the signed timestamp counts {head.entries} entries, the log ends at {last}"]
    if head.entries and digests[head.entries] != head.sha256:
        return [f"entry {head.entries} is not the one that the timestamp was signed over"]
    return []


def append(
    path: Path,
    head: Head | None,
    *,
    at: str,
    who: str,
    what: str,
    about: Mapping[str, str],
    keys: tuple[str, ...],
    timestamp: int,
) -> Head:
    """Add an entry, on disk when this returns; returns the new head.

    A log that is not there although the timestamp counts entries begins anew behind them, which
    ``check`` then says for ever.

    Raises InputFault when the log was altered, MachineFault when the disk refuses.
    """
    data = read_bounded(path, LOG_MAX_BYTES) if path.is_file() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if whole:
        found = check(whole, head)
        fresh = [each for each in found.faults if not _begun_anew(each, found.entries)]
        if fresh:
            raise InputFault(
                f"{path} was altered: {fresh[0]}",
                advice="Bring it back from a copy. If there is none, move it away: a new log"
                " begins, and what is missing stays visible.",
            )
        last = found.entries[-1].n
        previous = hashlib.sha256(whole[:-1].rpartition(b"\n")[2]).hexdigest()
    else:
        last, previous = (head.entries, head.sha256) if head else (0, "")
    entry = Entry(
        n=last + 1, at=at, who=who, what=what, about=dict(about), keys=keys,
        timestamp=timestamp, previous=previous,
    )  # fmt: skip
    line = wire.encode_json(entry)
    _extend(path, len(whole), line + b"\n")
    return Head(entries=entry.n, sha256=hashlib.sha256(line).hexdigest())


def _begun_anew(fault: str, entries: tuple[Entry, ...]) -> bool:
    """Whether a fault is the known gap before a log that began anew."""
    return entries[0].n > 1 and fault.startswith("line 1 is entry")


def _extend(path: Path, length: int, data: bytes) -> None:
    """Put ``data`` behind the first ``length`` bytes, durably; what was torn there goes."""
    try:
        fresh = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(handle, length)
            try:
                written = os.pwrite(handle, data, length)
                if written != len(data):
                    raise OSError(None, "the disk is full")
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, length)
                raise
        finally:
            os.close(handle)
        if fresh:
            sync_directory(path.parent)
    except OSError as error:
        raise MachineFault(
            f"cannot write {path}: {error.strerror or error}",
            advice="Check free space and permissions; nothing was changed.",
        ) from error
