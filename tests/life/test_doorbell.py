"""A doorbell is never lost, whenever it rings."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from life_kit import until

from edge_agent import config as configs
from edge_agent.folder import Folder
from edge_agent.follow import SETTLE_S, Follower
from edge_agent.loop import Loop
from edge_agent.steps import State
from edge_contract.messages import Pointer


@dataclass
class Found:
    pointer: Pointer | None = None
    freshness: str = "verified"


class SlowSource:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = threading.Semaphore(0)
        self.asks = threading.Semaphore(0)

    def refresh(self, stop: threading.Event) -> Found:
        self.asked += 1
        self.asks.release()
        assert self.go.acquire(timeout=60)
        return Found()

    def cached_pointer(self) -> Pointer | None:
        return None


class NoUpdates:
    states: dict[str, State] = {}  # noqa: RUF012 - never changed

    def take(self, model: str, event: Any) -> None:
        raise AssertionError(f"{model} is not to change: {event}")


def test_a_bell_that_rings_during_a_look_is_followed_by_another_look(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(
        '[agent]\ndevice="pi1"\nfleet="home"\nfolder="state"\n[broker]\nurl="mqtt://localhost"\n'
    )
    config = configs.load(tmp_path / "agent.toml", {})
    source, loop = SlowSource(), Loop("test")
    follower = Follower(
        loop, Folder(config.folder), config, source=source, updater=NoUpdates(),
        rng=random.Random(1), on_error=print, on_change=lambda: None,
    )  # fmt: skip
    loop.start()
    try:
        loop.ask(follower.ring)
        assert source.asks.acquire(timeout=60)
        loop.ask(follower.ring)  # while the look is under way, and its answer is on the way
        source.go.release()  # and ends before the bell has settled
        assert SETTLE_S > 0
        assert source.asks.acquire(timeout=60), "the bell was not heard"
        source.go.release()
        until(lambda: source.asked == 2, "two looks")
    finally:
        source.go.release(10)
        follower.stop()
        loop.stop()
