"""The window of a pull, without a broker: every order of events ends, and loses nothing."""

from __future__ import annotations

import random

import pytest

from edge_agent.delivery import window as windows
from edge_agent.delivery.window import (
    ABSENCES_MAX,
    ASK_MAX,
    WIDTH_MAX,
    Act,
    Arrived,
    CameUp,
    ProbeAnswered,
    Silent,
    WentDown,
    Window,
    begin,
    step,
)


def names(count: int) -> tuple[str, ...]:
    return tuple(f"c{at}" for at in range(count))


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 30])
def test_in_good_weather_each_chunk_is_asked_for_once_and_forgotten_once(count: int) -> None:
    window, act = begin(names(count))
    asked, forgotten = list(act.ask), list(act.forget)
    while not window.done:
        assert len(window.asked) <= WIDTH_MAX
        window, act = step(window, Arrived(window.asked[0], 0.01))
        asked += act.ask
        forgotten += act.forget
        assert len(act.ask) <= WIDTH_MAX
    assert asked == list(names(count))
    assert sorted([*forgotten, *window.settled]) == sorted(names(count))


def test_nothing_to_pull_is_done_at_once() -> None:
    window, act = begin(())
    assert window.done
    assert act == Act()


def test_the_next_ones_are_asked_for_in_one_packet_when_half_the_window_is_free() -> None:
    window, act = begin(names(20))
    packets = []
    for _ in range(8):
        window, act = step(window, Arrived(window.asked[0], 0.01))
        packets.append(len(act.ask))
    assert packets == [0, 0, 0, 4, 0, 0, 0, 4]


def test_what_does_not_fit_changes_nothing() -> None:
    window, _ = begin(names(3))
    assert step(window, Arrived("stranger", 0.1)) == (window, Act())
    arrived, _ = step(window, Arrived("c0", 0.1))
    assert step(arrived, Arrived("c0", 0.1)) == (arrived, Act())
    assert step(window, ProbeAnswered()) == (window, Act())


def test_silence_asks_again_for_fewer_with_the_sentinel_and_waits_longer() -> None:
    window, _ = begin(names(20))
    after, act = step(window, Silent())
    assert act == Act(ask=names(4), probe=True)
    assert after.patience_s == 2 * window.patience_s
    assert set(after.asked) == set(window.asked)
    again, act = step(after, Silent())
    assert act == Act(ask=("c4", "c5"), probe=True)
    assert again.width == 2


def test_total_silence_gives_up() -> None:
    window, act = begin(names(20))
    waited = 0.0
    for _ in range(windows.SILENCES_MAX + 1):
        assert not act.dead
        waited += window.patience_s
        window, act = step(window, Silent())
    assert act.dead
    assert waited == pytest.approx(2 + 4 + 8 + 16)


def test_a_slow_link_is_given_time_instead_of_the_same_chunks_again() -> None:
    window, _ = begin(names(20))
    window, _ = step(window, Silent())
    window, _ = step(window, Arrived(window.asked[0], 2.4))
    assert window.patience_s > 3 * 2.4 - 0.1
    assert window.silences == 0
    for _ in range(10):
        window, _ = step(window, Arrived(window.asked[0], 0.01))
    assert window.patience_s < 3 * 2.4
    assert window.width == WIDTH_MAX


def test_a_chunk_is_called_absent_after_that_many_sentinels_without_it() -> None:
    window, _ = begin(names(1))
    window, act = step(window, Silent())
    for _ in range(ABSENCES_MAX - 1):
        assert act == Act(ask=("c0",), probe=True)
        window, act = step(window, ProbeAnswered())
    window, act = step(window, ProbeAnswered())
    assert act.absent == "c0"


def test_a_late_chunk_is_not_absent() -> None:
    window, _ = begin(names(2))
    window, _ = step(window, Silent())
    window, _ = step(window, ProbeAnswered())
    window, _ = step(window, Arrived("c0", 0.1))
    window, _ = step(window, Arrived("c1", 0.1))
    assert window.done
    assert step(window, ProbeAnswered())[1] == Act()


def test_a_lost_connection_is_waited_for_and_everything_under_way_is_asked_again() -> None:
    window, _ = begin(names(20))
    window, _ = step(window, Arrived("c0", 0.1))
    down, act = step(window, WentDown())
    assert act == Act()
    assert down.patience_s == windows.OUTAGE_S
    back, act = step(down, CameUp())
    assert set(act.ask) == set(names(8)) - {"c0"}
    assert back.patience_s == windows.PATIENCE_S
    assert step(down, Silent())[1].dead


def test_any_weather_ends_with_every_chunk_or_an_answer() -> None:
    """1,000 random brokers: each either loses a chunk for good or delivers all of them."""
    for seed in range(1000):
        rng = random.Random(seed)
        count = rng.randint(1, 40)
        absent = set(rng.sample(names(count), rng.choice([0, 0, 1]) if count else 0))
        window, act = begin(names(count))
        got: set[str] = set()
        queue: list[windows.Event] = []
        for _ in range(5000):
            for chunk in act.ask:
                if chunk not in absent and rng.random() > 0.2:
                    queue.append(Arrived(chunk, 0.01))
            if act.probe:
                queue.append(ProbeAnswered())
            if rng.random() < 0.1:
                rng.shuffle(queue)
            if act.dead or act.absent or window.done:
                break
            event = queue.pop(0) if queue else Silent()
            if isinstance(event, Arrived):
                got.add(event.sha256)
            window, act = step(window, event)
            assert len(act.ask) <= (ASK_MAX if act.probe else WIDTH_MAX), seed
        if window.done:
            assert got == set(names(count)), seed
            assert not absent, seed
        else:
            # A chunk may be called absent when it was lost each time it was asked for.
            assert act.absent or act.dead, seed
            assert act.absent not in got, seed
    assert isinstance(window, Window)
