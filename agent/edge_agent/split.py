"""A/B: which of two versions answers a request. Pure, but for its counts.

Guards: one key always meets the same side while the same candidate is tried; a larger share only
adds to those that meet it; a candidate that fails again and again answers nobody any more.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from edge_contract.errors import MachineFault

FAILURES_MAX = 5
"""In a row."""


def met(key: str, salt: str, share: float) -> bool:
    """Whether the request with this key goes to the candidate.

    Args:
        key: of the caller, such as a machine's or a patient's number; any text.
        salt: other for each candidate, so that it is not always the same keys that are tried on.
        share: 0 to 1.
    """
    digest = hashlib.blake2b(key.encode(errors="replace"), digest_size=8, key=salt.encode()[:64])
    return int.from_bytes(digest.digest()) < share * 2**64


class Split:
    """The share of one candidate. Any thread may call any method.

    Attributes:
        version: what answers the share. ended: why it answers no more.
    """

    def __init__(self, version: str, *, salt: str, share: float) -> None:
        self.version = version
        self.share = share
        self.ended = ""
        self._salt = salt
        self._number = itertools.count()
        self._failures = 0

    def version_for(self, key: str) -> str:
        """The version that answers, "" for the live one; without a key by the request's number."""
        if self.ended or not self.share:
            return ""
        key = f"key {key}" if key else f"number {next(self._number)}"
        return self.version if met(key, self._salt, self.share) else ""

    @contextmanager
    def watching(self, version: str) -> Iterator[None]:
        """Judge the candidate by one request; ``version``: what ``version_for`` gave for it."""
        try:
            yield
        except MachineFault as error:
            if version:
                self._failures += 1
                if self._failures >= FAILURES_MAX and not self.ended:
                    self.ended = f"it failed {self._failures} times in a row: {error.what}"
            raise
        if version:
            self._failures = 0
