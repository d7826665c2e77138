"""Ends that do not depend on each other."""

import pytest

from edge_agent import closing


def test_a_step_that_fails_keeps_no_other_from_its_turn() -> None:
    taken: list[str] = []

    def fails() -> None:
        taken.append("fails")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        closing.each(lambda: taken.append("first"), fails, lambda: taken.append("last"))
    assert taken == ["first", "fails", "last"]
