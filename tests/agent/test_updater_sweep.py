"""What a sweep may take away, and when."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from edge_agent.errands import Errands
from edge_agent.folder import Folder
from edge_agent.loop import Loop
from edge_agent.selftest import Limits
from edge_agent.serving import Serving
from edge_agent.steps import Rules, State, Tell
from edge_agent.telemetry import Recorder, Spool
from edge_agent.telemetry.recorder import Instant
from edge_agent.transfer import Transfer
from edge_agent.updater import Updater
from edge_contract.errors import EdgeError


class Silent:
    """Fetches nothing and listens to nothing."""

    def fetch(self, model: str, release: object, progress: object, stop: object) -> None: ...

    def changed(self, model: str, now: State) -> None: ...

    def told(self, model: str, tell: Tell) -> None: ...

    def progressed(self, model: str, transfer: Transfer) -> None: ...

    def trouble(self, error: EdgeError) -> None: ...


def test_a_half_slot_stays_while_a_shadow_is_fetched_and_goes_afterwards(tmp_path: Path) -> None:
    folder, loop, world = Folder(tmp_path), Loop("test-loop"), Silent()
    serving = Serving(Recorder(Spool(folder.spool), device="d", boot=1), lambda: Instant(0, 0.0))
    errands = Errands(
        folder, fetcher=world, serving=serving, limits=Limits(runs=2), rng=random.Random(1)
    )
    updater = Updater(loop, folder, rules=Rules(), errands=errands, serving=serving, listener=world)
    half = folder.slots / ".half"
    half.mkdir(parents=True)
    fetching, enough, ended = threading.Event(), threading.Event(), threading.Event()

    def fetch() -> None:
        fetching.set()
        enough.wait(60)
        ended.set()
        raise ZeroDivisionError

    loop.start()
    loop.ask(lambda: updater.in_turn("fetch", fetch))
    assert fetching.wait(60)
    loop.ask(updater.sweep)
    assert half.exists()
    enough.set()
    assert ended.wait(60)
    updater.stop()
    loop.ask(updater.sweep)
    assert not half.exists()
    loop.stop()
