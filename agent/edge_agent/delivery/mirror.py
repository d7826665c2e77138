"""An HTTP(S) mirror as a source of chunks: any server that gives ranges of files.

    <base>/<sha256>     a stored member, whole; or the list of a member's chunks

Guards: chunks that stand side by side come in one request, and each is handed over as soon as it
is there, so that a request that is cut off costs one chunk at most; an answer that is not exactly
what was asked for is not read.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from edge_agent.delivery.http import PATIENCE_S, Answer, Connection
from edge_agent.delivery.pace import Pace, Unlimited
from edge_agent.delivery.source import Keep, Piece
from edge_contract.errors import PeerFault

RETRY_MAX_S = 3600.0
_RETRY_DEFAULT_S = 60.0
_BUSY = {429, 503}
_HEADERS_BYTES = 500
"""What a request and an answer's headers take, about; counted for the pace."""
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_WHY = {
    404: "does not have it",
    410: "does not have it any more",
    416: "has another file under that name: it has no such range",
}


class Rest:
    """Until when a mirror that is overloaded asked not to be asked; kept between downloads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def left_s(self, base: str) -> float:
        """How long it is still to be left alone; 0 when it may be asked."""
        return max(0.0, self._until.get(base, 0.0) - self._clock())

    def begin(self, base: str, retry_after: str) -> float:
        """It said ``Retry-After`` (RFC 9110, 10.2.3), or nothing; returns the seconds."""
        wait_s = min(RETRY_MAX_S, _retry_s(retry_after, datetime.now(UTC)))
        self._until[base] = self._clock() + wait_s
        return wait_s


class Mirror:
    """One mirror.

    Args:
        base: its address, without a slash at the end.
        pace: told of every byte that comes.
        patience_s: for an answer's headers, and for each chunk.
    """

    def __init__(
        self,
        base: str,
        *,
        rest: Rest,
        pace: Pace | None = None,
        ca_file: str = "",
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name = base
        self.advice = (
            "Have the publisher write the mirror's files again with `edge-pack mirror export`."
        )
        self._rest = rest
        self._pace = pace or Unlimited()
        self._ca_file = ca_file
        self._patience_s = patience_s
        self._connection: Connection | None = None

    def get(self, pieces: Sequence[Piece], keep: Keep, check_stop: Callable[[], None]) -> None:
        """As ``Source``. Raises PeerFault at the first answer that is not what was asked for."""
        wait_s = self._rest.left_s(self.name)
        if wait_s:
            raise PeerFault(f"{self.name} asked to be left alone for {wait_s:.0f} more seconds")
        if self._connection is None:
            self._connection = Connection(
                check_stop, ca_file=self._ca_file, patience_s=self._patience_s
            )
        for run in runs(pieces):
            self._get(self._connection, run, keep)

    def close(self) -> None:
        """As ``Source``."""
        if self._connection is not None:
            self._connection.end()
            self._connection = None

    def _get(self, connection: Connection, run: Sequence[Piece], keep: Keep) -> None:
        first, last = run[0], run[-1]
        size = last.offset + last.size - first.offset
        answer = connection.get(f"{self.name}/{first.file}", first.offset, size, first.file_size)
        self._pace.spent(_HEADERS_BYTES)
        self._check(answer, first, size)
        for piece in run:
            data = connection.read(piece.size)
            self._pace.spent(len(data))
            if len(data) < piece.size:
                raise PeerFault(f"{self.name}: the answer ends early, in chunk {piece.sha256}")
            keep(piece, data, len(data))
        connection.done()

    def _check(self, answer: Answer, first: Piece, size: int) -> None:
        """Refuse what is not bytes ``first.offset`` and ``size`` more of the file."""
        where = f"{self.name}: {first.file}"
        whole = size == first.file_size
        encoding = answer.headers.get("Content-Encoding", "identity")
        length = answer.headers.get("Content-Length", "")
        if answer.status in _BUSY:
            wait_s = self._rest.begin(self.name, answer.headers.get("Retry-After", ""))
            raise PeerFault(f"{where}: status {answer.status}, to be asked again in {wait_s:.0f} s")
        if answer.status == 200 and not whole and first.offset:
            raise PeerFault(
                f"{where}: the server answers a request for a range with the whole file",
                advice="Serve the mirror with one that knows ranges: nginx, an object store.",
            )
        if answer.status not in (200, 206):
            why = _WHY.get(answer.status, "cannot be had")
            raise PeerFault(f"{where}: status {answer.status}, {why}", advice=self.advice)
        if encoding != "identity":
            raise PeerFault(f"{where}: encoded as {encoding[:40]!r}, though that was not asked for")
        if answer.status == 206:
            _check_range(where, answer.headers.get("Content-Range", ""), first, size)
        expected = first.file_size if answer.status == 200 else size
        if length and length != str(expected):
            raise PeerFault(f"{where}: {length[:20]} bytes, expected {expected}")


def runs(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    """Pieces that stand side by side in one file, together."""
    start = 0
    for at, (one, two) in enumerate(pairwise(pieces), 1):
        if two.file != one.file or two.offset != one.offset + one.size:
            yield pieces[start:at]
            start = at
    if pieces:
        yield pieces[start:]


def _check_range(where: str, said: str, first: Piece, size: int) -> None:
    """RFC 9110, 14.4."""
    found = _RANGE.fullmatch(said.strip())
    wanted = (first.offset, first.offset + size - 1)
    if found is None or (int(found[1]), int(found[2])) != wanted:
        raise PeerFault(f"{where}: range {said[:60]!r}, expected bytes {wanted[0]}-{wanted[1]}")
    if found[3] not in ("*", str(first.file_size)):
        raise PeerFault(f"{where}: a file of {found[3]} bytes, expected {first.file_size}")


def _retry_s(said: str, now: datetime) -> float:
    """Seconds to wait: a number, or a date."""
    if said.strip().isascii() and said.strip().isdigit() and len(said) < 10:
        return float(said)
    try:
        at = email.utils.parsedate_to_datetime(said)
    except (ValueError, TypeError, OverflowError):
        return _RETRY_DEFAULT_S
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
