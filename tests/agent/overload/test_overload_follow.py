"""A strained machine looks for updates less often; a bell is heard as ever."""

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent import config as configs
from edge_agent.folder import Folder
from edge_agent.follow import JITTER, SETTLE_S, Follower
from edge_agent.loop import Timer
from edge_agent.strain import SLOWER

SETTINGS = """[agent]
device = "pi1"
fleet = "home"
folder = "state"
[broker]
url = "mqtt://localhost"
[update]
poll_s = 1000.0
"""


class Turns:
    """A loop that does at once what it is given, and notes what is for later."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.noted = threading.Semaphore(0)

    def post(self, work: Callable[[], None]) -> None:
        work()

    def later(self, delay_s: float, work: Callable[[], None]) -> Timer:
        self.delays.append(delay_s)
        self.noted.release()
        return Timer(work)


class Nothing:
    """A channel that is not there: nothing new, ever."""

    pointer = None
    freshness = "none"
    states: dict = {}  # noqa: RUF012 - never changed

    def refresh(self, _stop: threading.Event) -> "Nothing":
        return self

    def cached_pointer(self) -> None:
        return None


@pytest.mark.parametrize("strained", [False, True])
def test_the_regular_look_comes_later_while_the_machine_is_strained(
    tmp_path: Path, strained: bool
) -> None:
    (tmp_path / "agent.toml").write_text(SETTINGS)
    config = configs.load(tmp_path / "agent.toml", {})
    turns = Turns()
    follower = Follower(
        turns, Folder(config.folder), config, source=Nothing(), updater=Nothing(),
        rng=random.Random(1), on_error=print, on_change=lambda: None, strained=lambda: strained,
    )  # fmt: skip
    try:
        follower.ring()
        assert turns.noted.acquire(timeout=60)
        follower._timer()  # the bell has settled
        assert turns.noted.acquire(timeout=60)
    finally:
        follower.stop()
    bell, look = turns.delays
    assert bell == SETTLE_S, "who rings is not made to wait"
    factor = SLOWER if strained else 1
    assert (1 - JITTER) * 1000 * factor <= look <= (1 + JITTER) * 1000 * factor
