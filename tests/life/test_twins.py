"""Two devices under one name: both see it, neither fights, and what is legitimate is no alarm."""

from __future__ import annotations

import random

from edge_agent.identity import fingerprint
from edge_agent.twin import HOLD_MAX_S, MEMORY_S, TAKEN_OVER, Twins
from edge_contract.messages import Status


def born(run: str, *, online: bool = True) -> Status:
    return Status(online=online, boot=1, agent="1", run=run, machine=f"m-{run}")


def test_a_restart_a_last_will_and_a_moved_card_are_no_twin() -> None:
    twins = Twins("new")
    assert not twins.heard(born("old"), 0)  # retained, of the life before or another machine
    assert not twins.heard(born("new"), 1)
    assert not twins.heard(born("old", online=False), 2)  # its last will, 30 s late
    assert not twins.heard(Status(online=True, boot=1, agent="1"), 3)  # of an older agent
    assert not twins.dropped("Unspecified error", 4)
    assert not twins.dropped(TAKEN_OVER, 5)  # once: whoever took over may be this one's heir
    assert twins.describe(6) == ""
    assert twins.hold_s(6, random.Random(1)) == 0


def test_a_birth_of_another_run_after_ones_own_is_a_twin_and_is_told_once() -> None:
    twins = Twins("a")
    twins.heard(born("a"), 0)
    assert twins.heard(born("b"), 1)
    assert not twins.heard(born("b"), 2)
    assert "machine m-b" in twins.describe(3)
    assert twins.describe(2 + MEMORY_S + 1) == ""  # nothing for an hour: over
    assert twins.heard(born("b"), 2 * MEMORY_S + 10)  # and told anew when it comes back


def test_a_session_taken_over_twice_is_a_twin() -> None:
    twins = Twins("a")
    assert not twins.dropped(TAKEN_OVER, 0)
    assert twins.dropped(TAKEN_OVER, 1)
    assert "again and again" in twins.describe(2)


def test_two_that_fight_meet_ever_less_often() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    now_s, meetings = 0.0, 0
    twins = Twins("a")
    twins.heard(born("a"), 0)
    holds = []
    while now_s < MEMORY_S:
        twins.heard(born("b"), now_s)
        meetings += 1
        holds.append(twins.hold_s(now_s, rng))
        assert holds[-1] <= 1.5 * HOLD_MAX_S
        now_s += max(holds[-1], 1.0)
    assert meetings <= 15, holds
    assert max(holds) > 100


def test_a_fingerprint_follows_the_hardware_and_shows_none_of_it(tmp_path) -> None:
    etc, tree = tmp_path / "etc", tmp_path / "proc" / "device-tree"
    etc.mkdir()
    tree.mkdir(parents=True)
    (etc / "machine-id").write_text("same-on-both-copies")
    (tree / "serial-number").write_text("10000000aaaa")
    first = fingerprint(tmp_path)
    assert first == fingerprint(tmp_path)
    (tree / "serial-number").write_text("10000000bbbb")  # the card was copied
    assert fingerprint(tmp_path) != first
    assert "10000000" not in first
    assert len(first) == 16
