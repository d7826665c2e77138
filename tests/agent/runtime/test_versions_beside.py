"""Several versions under one name: asked by version, promoted without a load, let go in turn."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from edge_agent import Model
from edge_agent.ensemble import EnsembleSeat, Spec
from edge_agent.live import NoSuchVersion
from edge_agent.serving import DamagedSlot, Serving
from edge_agent.settings import Loading
from edge_agent.telemetry import Recorder, Spool
from edge_agent.telemetry.recorder import Instant
from edge_contract import bundle as bundles
from edge_contract import telemetry
from edge_contract.errors import InputFault, MachineFault

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}


class World:
    """A serving with slots on disk, and the records that it spools."""

    def __init__(self, folder: Path, tiny_bundle, *, keeps: bool = False) -> None:
        self.folder = folder
        self.tiny = tiny_bundle
        self.spool = Spool(folder / "spool")
        self.recorder = Recorder(self.spool, device="d", boot=1)
        self.serving = Serving(
            self.recorder, lambda: Instant(0, 0.0), loading=lambda _: Loading(keep_former=keeps)
        )

    def slot(self, version: str, seed: int = 7, name: str = "pump") -> tuple[Path, str]:
        """A slot on disk and its digest."""
        bundle = bundles.read(self.tiny(version, seed=seed, name=name))
        folder = self.folder / "slots" / bundle.digest
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_bytes(bundle.manifest_bytes)
        for file in bundle.manifest.files:
            (folder / file.name).write_bytes(bundle.file(file.name))
        return folder, bundle.digest

    def rows(self) -> dict[str, int]:
        """Recorded rows by version, everything flushed."""
        self.recorder.flush(Instant(1000, 1.0))
        found: dict[str, int] = {}
        for _, data in self.spool.pending():
            record = telemetry.decode(data)
            found[record.version] = found.get(record.version, 0) + record.rows
        return found


@pytest.fixture
def world(tmp_path: Path, tiny_bundle) -> World:
    return World(tmp_path, tiny_bundle)


@pytest.fixture
def keeping(tmp_path: Path, tiny_bundle) -> World:
    return World(tmp_path, tiny_bundle, keeps=True)


def test_a_version_beside_is_asked_by_its_version_only(world: World) -> None:
    serving = world.serving
    serving.answer("pump", *world.slot("1.0"))
    candidate = serving.beside("pump", *world.slot("2.0", seed=8))
    live, other = serving.predict("pump", ROW), serving.predict("pump", ROW, "2.0")
    assert live == serving.predict("pump", ROW, "1.0") != other
    assert other == candidate.predict(ROW)
    assert list(serving.seat("pump").loaded) == ["1.0", "2.0"]
    assert serving.seen("pump")[1].answered == 2, "the live version's totals are its own"
    assert world.rows() == {"1.0": 2, "2.0": 2}


def test_a_version_that_is_not_loaded_is_named_with_those_that_are(world: World) -> None:
    world.serving.answer("pump", *world.slot("1.0"))
    with pytest.raises(NoSuchVersion, match=r"'3.0' of 'pump' is not loaded.*it has: 1\.0"):
        world.serving.predict("pump", ROW, "3.0")
    with pytest.raises(NoSuchVersion, match="it has: none"):
        world.serving.seat("fan").predict(ROW, "1.0")
    with pytest.raises(MachineFault, match="not installed"):
        world.serving.seat("fan").predict(ROW)


def test_what_is_dismissed_answers_to_its_last_request_and_is_counted(world: World) -> None:
    serving = world.serving
    serving.answer("pump", *world.slot("1.0"))
    folder, sha256 = world.slot("2.0", seed=8)
    model = serving.beside("pump", folder, sha256)
    with serving.seat("pump").use("2.0") as held:
        serving.dismiss("pump", sha256)
        assert held is model
        with pytest.raises(NoSuchVersion):
            serving.predict("pump", ROW, "2.0")
        held.predict(ROW)
    with pytest.raises(MachineFault, match="closed"):
        model.predict(ROW)
    serving.dismiss("pump", sha256)
    assert world.rows() == {"2.0": 1}


def test_a_candidate_beside_takes_over_without_a_second_load(world: World) -> None:
    serving = world.serving
    first, second = world.slot("1.0"), world.slot("2.0", seed=8)
    serving.answer("pump", *first)
    candidate = serving.beside("pump", *second)
    candidate.predict(ROW)
    shutil.rmtree(second[0])
    serving.answer("pump", *second)
    assert serving.seat("pump").model is candidate
    assert list(serving.seat("pump").loaded) == ["2.0"]
    assert serving.seen("pump")[1].answered == 0, "its totals begin when it takes over"
    serving.predict("pump", ROW)
    assert serving.seen("pump")[1].answered == 1
    assert world.rows() == {"2.0": 2}, "what it answered before is in the records all the same"


def test_the_former_version_stays_and_comes_back_at_once(keeping: World) -> None:
    serving = keeping.serving
    first, second = keeping.slot("1.0"), keeping.slot("2.0", seed=8)
    serving.answer("pump", *first)
    former = serving.seat("pump").model
    serving.answer("pump", *second)
    assert list(serving.seat("pump").loaded) == ["2.0", "1.0"]
    assert former.predict(ROW) == serving.predict("pump", ROW, "1.0")
    shutil.rmtree(first[0])
    serving.answer("pump", *first)
    assert serving.seat("pump").model is former
    assert keeping.rows() == {"1.0": 2}


def test_a_damaged_slot_is_not_loaded_beside(world: World) -> None:
    world.serving.answer("pump", *world.slot("1.0"))
    folder, sha256 = world.slot("2.0", seed=8)
    (folder / "model.onnx").write_bytes(b"junk")
    with pytest.raises(DamagedSlot):
        world.serving.beside("pump", folder, sha256)
    assert list(world.serving.seat("pump").loaded) == ["1.0"]


def test_the_same_version_is_not_loaded_twice(world: World) -> None:
    serving = world.serving
    serving.answer("pump", *world.slot("1.0"))
    folder, sha256 = world.slot("2.0", seed=8)
    assert serving.beside("pump", folder, sha256) is serving.beside("pump", folder, sha256)
    with pytest.raises(InputFault, match="loaded already"):
        serving.seat("pump").put_beside(Model.from_slot(folder))


def test_clearing_a_name_lets_go_of_every_version(keeping: World) -> None:
    serving = keeping.serving
    serving.answer("pump", *keeping.slot("1.0"))
    serving.answer("pump", *keeping.slot("2.0", seed=8))
    serving.clear("pump")
    assert serving.seat("pump").loaded == {}


def test_a_stalled_request_beside_is_seen_and_ended(world: World) -> None:
    serving = world.serving
    serving.answer("pump", *world.slot("1.0"))
    serving.beside("pump", *world.slot("2.0", seed=8))
    seat = serving.seat("pump")
    with seat.use("2.0"):
        assert seat.oldest_s(time.monotonic() + 50) > 49
        assert seat.end_stalled(time.monotonic() + 50, 30) == 1
    assert seat.stalled == 0, "it is not held against the one that answers"
    assert seat.oldest_s(time.monotonic()) == 0


def test_promotions_under_load_fail_no_request(keeping: World) -> None:
    """Each of two versions in turn, the other one beside, asked by name and by version."""
    serving = keeping.serving
    slots = [keeping.slot("1.0"), keeping.slot("2.0", seed=8)]
    for each in slots:
        serving.answer("pump", *each)
    right = {version: serving.predict("pump", ROW, version) for version in ("1.0", "2.0")}
    stop, faults, answered = threading.Event(), [], [0, 0, 0]

    def ask(i: int, version: str) -> None:
        while not stop.is_set():
            try:
                found = serving.predict("pump", ROW, version)
            except Exception as error:  # noqa: BLE001 - any error at all is the finding
                faults.append(error)
                return
            if found not in ([right[version]] if version else right.values()):
                faults.append(found)
            answered[i] += 1

    threads = [threading.Thread(target=ask, args=each) for each in enumerate(("", "1.0", "2.0"))]
    for thread in threads:
        thread.start()
    try:
        for turn in range(60):
            before = min(answered)
            serving.answer("pump", *slots[turn % 2])
            deadline = time.monotonic() + 30
            while min(answered) < before + 3 and time.monotonic() < deadline and not faults:
                stop.wait(0.001)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert min(answered) >= 180
    assert sum(keeping.rows().values()) == sum(answered) + 2, "each was counted once"


def test_the_former_of_a_state_is_kept_and_no_other(keeping: World) -> None:
    serving = keeping.serving
    slots = {version: keeping.slot(version) for version in ("1.0", "2.0", "3.0")}
    for each in slots.values():
        serving.answer("pump", *each)
    assert list(serving.seat("pump").loaded) == ["3.0", "2.0", "1.0"]
    serving.keep_former("pump", *slots["2.0"])
    assert list(serving.seat("pump").loaded) == ["3.0", "2.0"]
    serving.keep_former("pump", *slots["1.0"])
    assert list(serving.seat("pump").loaded) == ["3.0", "1.0"]
    serving.keep_former("pump", keeping.folder, "")
    assert list(serving.seat("pump").loaded) == ["3.0"]


def test_a_former_version_never_answers_where_nothing_does(keeping: World) -> None:
    keeping.serving.keep_former("pump", *keeping.slot("1.0"))
    assert keeping.serving.seat("pump").loaded == {}


def test_what_somebody_else_put_beside_is_not_the_former(keeping: World) -> None:
    serving = keeping.serving
    serving.answer("pump", *keeping.slot("1.0"))
    serving.beside("pump", *keeping.slot("2.0", seed=8))
    serving.keep_former("pump", keeping.folder, "")
    assert list(serving.seat("pump").loaded) == ["1.0", "2.0"]


def test_an_ensemble_that_does_not_fit_is_told_when_its_models_are_loaded(world, caplog) -> None:
    for name, output in (("sound", "score"), ("broken", "nothing")):
        spec = Spec(models=("pump", "fan"), feeds={"fan.temp": f"pump.{output}"})
        world.serving.join(EnsembleSeat(name, spec, world.serving.models))
    caplog.set_level("INFO")
    world.serving.answer("fan", *world.slot("1.0", name="fan"))
    assert "ensemble" not in caplog.text, "one of its models is missing yet"
    world.serving.answer("pump", *world.slot("1.0"))
    said = [record.getMessage() for record in caplog.records if "ensemble" in record.getMessage()]
    assert said[0] == "ensemble sound: 1.0-1.0 answers"
    assert said[1].startswith("ensemble 'broken': fan.temp = pump.nothing: pump has no such output")
    world.serving.answer("pump", *world.slot("2.0", seed=8))
    assert "ensemble sound: 2.0-1.0 answers" in caplog.text
    assert caplog.text.count("no such output") == 2
