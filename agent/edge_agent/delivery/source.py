"""Where chunks come from, as a download sees it. Pure.

Guards: nothing that a source hands over is believed; what it is asked for is named by digests that
signed metadata leads to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_contract.errors import EdgeError


class Stopped(EdgeError):
    """The fetch was called off. What arrived stays on disk."""

    exit_code = 130


@dataclass(frozen=True)
class Piece:
    """A chunk to have on disk, and where it stands in a file of a mirror.

    Attributes:
        sha256, size: of the chunk.
        file, file_size: SHA-256 and bytes of the file it is cut from: a stored member, or a list
            of chunks. offset: of the chunk in that file.
    """

    sha256: str
    size: int
    file: str
    file_size: int
    offset: int = 0


Keep = Callable[[Piece, bytes, int], None]
"""Takes a piece, the bytes that came for it, and how many they were if those were cut short."""


class Source(Protocol):
    """One place that chunks can be had from."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def advice(self) -> str:
        """What a person does when it lacks a chunk or has a wrong one."""

    def get(self, pieces: Sequence[Piece], keep: Keep, check_stop: Callable[[], None]) -> None:
        """Hand each of the ``pieces`` to ``keep``, in any order; ``check_stop`` ends it.

        Raises PeerFault when it can go on no more; what it handed over is kept. What ``keep`` and
        ``check_stop`` raise goes through. Called again, it goes on over the same connection.
        """

    def close(self) -> None:
        """End what ``get`` began."""
