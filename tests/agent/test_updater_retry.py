"""What could not be persisted happens later, but not after what replaced it."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from edge_agent import state
from edge_agent.errands import Errands
from edge_agent.folder import Folder
from edge_agent.loop import Call, Loop, Timer
from edge_agent.selftest import Limits
from edge_agent.serving import Serving
from edge_agent.steps import Rules, State, Tell, Wanted
from edge_agent.telemetry import Recorder, Spool
from edge_agent.telemetry.recorder import Instant
from edge_agent.transfer import Transfer
from edge_agent.updater import PERSIST_RETRY_S, Updater
from edge_contract import messages
from edge_contract.errors import EdgeError, PeerFault

OLD = messages.release("pump", "1.0", "1" * 64)
NEW = messages.release("pump", "2.0", "2" * 64)


class ByHand(Loop):
    """Makes no call until it is told to."""

    def __init__(self) -> None:
        super().__init__("by-hand")
        self.timers: list[tuple[float, Timer]] = []

    def later(self, delay_s: float, call: Call) -> Timer:
        self.timers.append((delay_s, Timer(call)))
        return self.timers[-1][1]

    def retry(self) -> None:
        """Make the calls that wait for the disk."""
        due, self.timers = self.timers, []
        for delay_s, timer in due:
            if delay_s == PERSIST_RETRY_S:
                timer()


class Silent:
    """Fetches nothing, and counts troubles."""

    def __init__(self) -> None:
        self.troubles: list[EdgeError] = []

    def fetch(self, model: str, release: object, progress: object, stop: threading.Event) -> None:
        raise PeerFault("no broker")

    def changed(self, model: str, now: State) -> None: ...

    def told(self, model: str, tell: Tell) -> None: ...

    def progressed(self, model: str, transfer: Transfer) -> None: ...

    def trouble(self, error: EdgeError) -> None:
        self.troubles.append(error)


@pytest.mark.parametrize(
    ("first", "then"),
    [(Wanted(NEW), Wanted(OLD, floor="1.0")), (Wanted(OLD), Wanted(NEW, floor="2.0"))],
)
def test_what_is_wanted_now_outlasts_what_waited_for_the_disk(
    tmp_path: Path, first: Wanted, then: Wanted
) -> None:
    folder, loop, world = Folder(tmp_path), ByHand(), Silent()
    serving = Serving(Recorder(Spool(folder.spool), device="d", boot=1), lambda: Instant(0, 0.0))
    errands = Errands(
        folder, fetcher=world, serving=serving, limits=Limits(runs=2), rng=random.Random(1)
    )
    updater = Updater(loop, folder, rules=Rules(), errands=errands, serving=serving, listener=world)
    in_the_way = folder.state("pump").parent
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("no folder can be here")
    updater.take("pump", first)
    assert len(world.troubles) == 1 and updater.states["pump"] == State()
    in_the_way.unlink()
    updater.take("pump", then)
    loop.retry()
    kept = state.load(folder, "pump")
    assert (kept.wanted, kept.candidate, kept.floor) == (then.release, then.release, then.floor)


def test_what_is_still_wanted_is_kept_once_the_disk_takes_it(tmp_path: Path) -> None:
    folder, loop, world = Folder(tmp_path), ByHand(), Silent()
    serving = Serving(Recorder(Spool(folder.spool), device="d", boot=1), lambda: Instant(0, 0.0))
    errands = Errands(
        folder, fetcher=world, serving=serving, limits=Limits(runs=2), rng=random.Random(1)
    )
    updater = Updater(loop, folder, rules=Rules(), errands=errands, serving=serving, listener=world)
    in_the_way = folder.state("pump").parent
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("no folder can be here")
    updater.take("pump", Wanted(NEW))
    loop.retry()
    assert len(world.troubles) == 2
    in_the_way.unlink()
    loop.retry()
    assert state.load(folder, "pump").wanted == NEW
