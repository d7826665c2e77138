"""A profile is believed only when each step's digest leads to it."""

import hashlib

import numpy as np
import pytest
from fleet_kit import Packed, pack

from edge_contract.errors import EdgeError
from edge_fleet.library import Library
from edge_fleet.pull import WANTED_MAX, Pull


@pytest.fixture(scope="module")
def large() -> Packed:
    """A profile of more than one chunk."""
    made = pack(np.random.default_rng(5), extra_monitors=700)
    assert len(made.chunks) > 3
    return made


def pull_all(packed: Packed, pull: Pull) -> int:
    rounds = 0
    while not pull.done:
        assert 1 <= len(pull.wanted) <= WANTED_MAX
        for sha256 in pull.wanted:
            pull.feed(sha256, packed.chunks[sha256])
        rounds += 1
    return rounds


@pytest.mark.parametrize("which", ["packed", "large"])
def test_a_profile_is_fetched_whole(which: str, request: pytest.FixtureRequest) -> None:
    packed: Packed = request.getfixturevalue(which)
    pull = Pull(packed.digest)
    assert pull_all(packed, pull) == (2 if which == "packed" else 3)
    assert pull.wanted == ()

    class Blobs:
        def blob(self, sha256: str) -> bytes | None:
            return pull.blobs.get(sha256)

    known = Library().find(Blobs(), packed.digest)
    assert known is not None
    assert known.profile == packed.profile
    assert known.labels == ("ok", "worn")


def test_one_wrong_byte_at_any_step_is_refused(large: Packed) -> None:
    for spoilt in range(3):
        pull = Pull(large.digest)
        for step in range(3):
            for sha256 in pull.wanted:
                data = large.chunks[sha256]
                if step == spoilt:
                    with pytest.raises(EdgeError, match="another digest"):
                        pull.feed(sha256, data[:-1] + bytes([data[-1] ^ 1]))
                pull.feed(sha256, data)
        assert pull.done


def test_what_nobody_asked_for_changes_nothing(packed: Packed) -> None:
    pull = Pull(packed.digest)
    pull.feed("00" * 32, b"junk")
    assert pull.wanted == (packed.digest,)
    pull_all(packed, pull)
    before = dict(pull.blobs)
    pull.feed(packed.digest, b"junk")
    assert pull.blobs == before


def test_bytes_with_the_right_digest_that_are_no_manifest_are_refused() -> None:
    junk = b'{"schema": 1}'
    digest = hashlib.sha256(junk).hexdigest()
    with pytest.raises(EdgeError, match="not valid"):
        Pull(digest).feed(digest, junk)
