"""Entries of the audit, each with the SHA-256 of all before it. Pure.

Guards: an entry that was altered, taken out or put elsewhere is seen by whoever reads the whole; a
cut at the end by whoever noted the head. Who may write to the database can make a new chain of
other entries: only a head that is kept elsewhere shows that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from edge_fleet.store.audit import Entry

BEGIN = bytes(32)
FAULTS_MAX = 20


class Checked(Struct, frozen=True):
    """What was found.

    Attributes:
        entries: how many. head: SHA-256 of the last one, in hex. heads: whether a head that was
            asked for is among them; None: none was. faults: what is wrong, the first ones.
    """

    entries: int
    head: str
    held: bool | None
    faults: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Nothing speaks against it."""
        return not self.faults and self.held is not False


def link(previous: bytes, entry: Entry) -> bytes:
    """SHA-256 of the former link and the entry, which must be as it is kept."""
    said = [entry.at_ms, entry.actor, entry.action, entry.subject, entry.detail]
    return hashlib.sha256(previous + msgspec.json.encode(said)).digest()


def check(entries: Iterable[tuple[Entry, bytes]], head: str = "") -> Checked:
    """Walk entries, oldest first, each with the link that is kept beside it.

    Args:
        head: a link noted earlier, in hex; it has to be one of these.
    """
    previous, count = BEGIN, 0
    faults: list[str] = []
    held = None if not head else head == BEGIN.hex()
    for entry, kept in entries:
        count += 1
        if link(previous, entry) != kept and len(faults) < FAULTS_MAX:
            faults.append(
                f"entry {entry.id} does not follow the one before it: one was altered or taken out"
            )
        previous = kept
        held = held or (kept.hex() == head if head else None)
    return Checked(count, previous.hex(), held, tuple(faults))
