"""An update where memory is short: what answers goes on, nothing is condemned for the machine."""

import random
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace
from odd_bundles import with_budget

from edge_agent import selftest
from edge_agent.errands import Errands
from edge_agent.folder import Folder
from edge_agent.selftest import Limits
from edge_agent.serving import Serving
from edge_agent.steps import (
    Answer,
    Answering,
    LoadFailed,
    Phase,
    Rules,
    SelfTest,
    SelfTestFailed,
    State,
    Tell,
    TrialRules,
)
from edge_agent.telemetry import Recorder, Spool
from edge_agent.telemetry.recorder import Instant
from edge_agent.units import show_bytes
from edge_agent.update import ROOM_RETRY_S, step
from edge_contract import bundle as bundles
from edge_contract.messages import Release

RULES = Rules(attempts_max=3, backoff_min_s=1, backoff_max_s=8, trial=TrialRules())
V1, V2 = (Release(version=each, path="p", sha256=each * 64) for each in ("1", "2"))
REST = State(phase=Phase.COMMITTED, wanted=V1, active=V1, loads=1)
SHORT = LoadFailed(V1.sha256, "takes 80 MB, 60 MB are there", lasting=False)


def test_a_proven_version_without_room_is_tried_again_and_told_of_once() -> None:
    state, effects = step(REST, SHORT, RULES)
    assert effects == (Tell("load-failed", "1", SHORT.reason), Answer(V1, ROOM_RETRY_S))
    assert (state.active, state.quarantine, state.loads) == (V1, (), 0)
    assert state.reason == "waits for room in memory"
    state, effects = step(state, SHORT, RULES)
    assert effects == (Answer(V1, ROOM_RETRY_S),)
    state, _ = step(state, Answering(V1.sha256), RULES)
    assert (state.phase, state.active, state.reason) == (Phase.COMMITTED, V1, "")


def test_a_former_version_is_no_way_out_of_a_shortage() -> None:
    state, _ = step(replace(REST, previous=V2), SHORT, RULES)
    assert (state.active, state.previous) == (V1, V2)


def test_on_the_way_back_it_is_tried_until_it_answers() -> None:
    back = State(phase=Phase.ROLLING_BACK, active=V1, candidate=V2, reason="the trial failed")
    state, effects = step(back, SHORT, RULES)
    assert effects == (Tell("load-failed", "1", SHORT.reason), Answer(V1, ROOM_RETRY_S))
    state, effects = step(state, SHORT, RULES)
    assert effects == (Answer(V1, ROOM_RETRY_S),)
    state, effects = step(state, Answering(V1.sha256), RULES)
    assert state.phase is Phase.IDLE
    assert Tell("rolled-back", "2", "the trial failed") in effects


def test_a_candidate_without_room_on_trial_leaves_the_old_one_its_place() -> None:
    trying = State(phase=Phase.TRIAL, active=V1, candidate=V2, wanted=V2, attempts=1)
    state, effects = step(trying, replace(SHORT, sha256=V2.sha256), RULES)
    assert (state.phase, Answer(V1) in effects) == (Phase.ROLLING_BACK, True)
    assert state.quarantined(V2)


def test_a_self_test_without_room_is_made_again() -> None:
    testing = State(phase=Phase.SELF_TESTING, active=V1, candidate=V2, wanted=V2, attempts=1)
    failed = SelfTestFailed(V2.sha256, "no room", lasting=False)
    state, effects = step(testing, failed, RULES)
    assert state.phase is Phase.SELF_TESTING
    assert isinstance(effects[-1], SelfTest)


@pytest.fixture
def slot(tmp_path: Path, tiny_bundle) -> tuple[Folder, str]:
    """A sound slot of a model that says it needs more memory than any machine has."""
    folder = Folder(tmp_path / "state")
    found = bundles.read(with_budget(tiny_bundle(), ram_bytes=2**60))
    into = folder.slot(found.digest)
    into.mkdir(parents=True)
    (into / bundles.MANIFEST_MEMBER).write_bytes(found.manifest_bytes)
    for file in found.manifest.files:
        (into / file.name).write_bytes(found.file(file.name))
    return folder, found.digest


def test_the_self_tests_process_says_that_it_had_no_room(slot) -> None:
    folder, digest = slot
    report = selftest.prove(folder.slot(digest), Limits(), threading.Event())
    assert report.ended == selftest.NO_ROOM
    assert "would not fit into memory" in report.findings[0]


def test_errands_say_that_it_was_the_machine(slot, tmp_path: Path) -> None:
    folder, digest = slot
    recorder = Recorder(
        Spool(tmp_path / "spool", max_bytes=1 << 20), device="pi1", boot=1, window_s=60,
        window_rows=100,
    )  # fmt: skip
    serving = Serving(recorder, lambda: Instant(0, 0.0, True))
    errands = Errands(
        folder, fetcher=_NoFetcher(), serving=serving, limits=Limits(), rng=random.Random(1)
    )
    release = Release(version="1.0", path="p", sha256=digest)
    tested = errands.test("pump", release, threading.Event())
    assert isinstance(tested, SelfTestFailed)
    assert not tested.lasting
    answered = errands.answer("pump", release)
    assert isinstance(answered, LoadFailed)
    assert not answered.lasting
    assert show_bytes(2**60) in answered.reason


class _NoFetcher:
    def fetch(self, *_: object) -> None:
        raise AssertionError("nothing is to be fetched")
