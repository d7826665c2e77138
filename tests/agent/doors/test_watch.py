"""A watched folder: each file answered once, whatever is put there, whenever the power goes."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
from PIL import Image

from edge_agent import Model
from edge_agent.doors.watch import Result, Watcher
from edge_agent.live import Live
from edge_agent.settings import Watch
from edge_contract import bundle as bundles
from edge_contract.ports import disk

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}


class Desk:
    """A watched folder with a clock that a test turns."""

    def __init__(self, folder: Path, model: Model | None, **settings: object) -> None:
        self.now_s = 100.0
        self.folder = folder
        self.seat = Live("pump", model)
        self.told: list[str] = []
        self.watch = Watch(folder=str(folder), model="pump", settle_s=1.0, **settings)
        self.watcher = self.begin()

    def begin(self) -> Watcher:
        """As a process that was started anew."""
        self.watcher = Watcher(
            self.watch, {"pump": self.seat}, size_max=100_000, now_s=lambda: self.now_s,
            tell=lambda name, _: self.told.append(name),
        )  # fmt: skip
        self.watcher.prepare()
        return self.watcher

    def put(self, name: str, data: bytes | str = json.dumps(ROW)) -> Path:
        path = self.folder / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def look(self, *, times: int = 2) -> int:
        """Two looks, far enough from each other."""
        handled = 0
        for _ in range(times):
            handled += self.watcher.look()
            self.now_s += 1.1
        return handled

    def result(self, where: str, name: str) -> Result:
        return msgspec.json.decode((self.folder / where / f"{name}.json").read_bytes(), type=Result)

    def names(self, where: str) -> list[str]:
        return sorted(path.name for path in (self.folder / where).iterdir() if path.is_file())


@pytest.fixture
def pump(tiny_bundle) -> Model:
    return Model.from_bundle(bundles.read(tiny_bundle()))


@pytest.fixture
def desk(tmp_path: Path, pump: Model) -> Desk:
    return Desk(tmp_path / "in", pump)


def test_each_kind_of_file_is_answered_beside_it(desk: Desk, pump: Model, echo) -> None:
    desk.put("one.json")
    desk.put("two.csv", "temp,hum,rpm,volt,more\n0.5,-1,2,0,x\n0.5,-1,2,0,y\n")
    assert desk.look() == 2
    expected = pump.predict(ROW)
    one, two = desk.result("done", "one.json"), desk.result("done", "two.csv")
    assert (one.model, one.version, one.file.name) == ("pump", "1.0", "one.json")
    assert [p.label for p in one.predictions] == [expected.label]
    assert [p.probabilities for p in two.predictions] == [expected.probabilities] * 2
    assert desk.names(".") == []
    assert desk.names("done") == ["one.json", "one.json.json", "two.csv", "two.csv.json"]
    desk.seat.swap(echo(None, 5, 7))
    Image.fromarray(np.full((5, 7), 51, np.uint8)).save(desk.folder / "GREY.PNG")
    desk.look()
    told = desk.result("done", "GREY.PNG").predictions[0].outputs["y"]
    assert (told.shape, told.data) == ((1, 5, 7), pytest.approx([0.2] * 35))
    desk.seat.swap(echo(None, 100))
    soundfile.write(desk.folder / "click.wav", np.ones(150), 8000)
    desk.look()
    assert desk.result("done", "click.wav").predictions[0].outputs["y"].shape == (2, 100)


def test_a_file_that_still_grows_is_left_alone(desk: Desk) -> None:
    with (desk.folder / "slow.json").open("w") as file:
        for part in (json.dumps(ROW)[:10], json.dumps(ROW)[10:20], json.dumps(ROW)[20:]):
            file.write(part)
            file.flush()
            assert desk.look(times=1) == 0
    assert desk.look(times=1) == 1
    assert desk.names("done") == ["slow.json", "slow.json.json"]


def test_what_is_not_meant_for_it_is_left_alone(desk: Desk) -> None:
    for name in (".hidden.json", "notes.txt", "upload.json.part"):
        desk.put(name)
    (desk.folder / "folder.json").mkdir()
    assert desk.look() == 0
    assert desk.names(".") == [".hidden.json", "notes.txt", "upload.json.part"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty.json", b"", "is empty"),
        ("large.json", b"x" * 100_001, "over the limit of 100000 bytes"),
        ("bad.json", b"{", "not a valid request"),
        ("short.json", b'{"temp": 1}', "are missing"),
        ("bad.csv", b"temp,hum,rpm,volt\n1,1,1,1\n1,1,x,1\n", "line 3: feature 'rpm' is 'x'"),
        ("none.csv", b"temp,hum,rpm,volt\n", "no rows"),
        ("no.png", b"\x89PNG\r\n", "of which width"),
        ("no.wav", b"RIFF", "takes features, not samples"),
    ],
)
def test_a_file_that_is_wrong_fails_with_a_reason_and_hurts_no_other(
    desk: Desk, name: str, data: bytes, said: str
) -> None:
    desk.put(name, data)
    desk.put("good.json")
    assert desk.look() == 2
    assert said in desk.result("failed", name).error.what
    assert desk.names("failed") == [name, f"{name}.json"]
    assert desk.names("done") == ["good.json", "good.json.json"]


def test_links_pipes_and_sockets_are_never_opened(desk: Desk, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(ROW))
    (desk.folder / "link.json").symlink_to(secret)
    (desk.folder / "dangling.json").symlink_to(tmp_path / "nothing")
    os.mkfifo(desk.folder / "pipe.json")
    assert desk.look() == 3
    for name in ("link.json", "dangling.json", "pipe.json"):
        assert "no regular file" in desk.result("failed", name).error.what
    assert secret.read_text() == json.dumps(ROW)


def test_two_files_of_one_name_keep_both_answers(desk: Desk) -> None:
    for i in range(3):
        path = desk.put("frame.json", json.dumps({**ROW, "temp": i}))
        os.utime(path, ns=(10**18 + i, 10**18 + i))
        assert desk.look() == 1
    found = [name for name in desk.names("done") if name.endswith(".json.json")]
    assert found == ["frame-1000000000000000001.json.json", "frame-1000000000000000002.json.json",
                     "frame.json.json"]  # fmt: skip
    results = [msgspec.json.decode((desk.folder / "done" / n).read_bytes()) for n in found]
    assert len({r["predictions"][0]["probabilities"]["good"] for r in results}) == 3


def test_a_file_named_like_the_answer_of_another_takes_nothing_from_it(desk: Desk) -> None:
    desk.put("frame.json")
    assert desk.look() == 1
    answer = (desk.folder / "done" / "frame.json.json").read_bytes()
    second = desk.put("frame.json.json", json.dumps({**ROW, "temp": 1}))
    os.utime(second, ns=(10**18, 10**18))
    assert desk.look() == 1
    assert (desk.folder / "done" / "frame.json.json").read_bytes() == answer
    assert "frame.json-1000000000000000000.json.json" in desk.names("done")


@pytest.mark.parametrize(
    "name",
    [b"a" * 245 + b".json", b"\xff\xfe.json"],
    ids=["longer than an answer's may be", "no UTF-8"],
)
def test_a_name_that_no_answer_can_have_is_left_alone(desk: Desk, name: bytes) -> None:
    odd = desk.put(os.fsdecode(name))
    os.utime(odd, ns=(1, 1))  # the oldest: its turn comes first
    desk.put("good.json")
    assert desk.look() == 1
    assert desk.names("done") == ["good.json", "good.json.json"]
    assert odd.exists()


def test_a_file_that_may_not_be_read_or_meets_a_bug_hurts_no_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def guarded(path, *more, **named):
        if str(path).endswith("locked.json"):  # root may read everything, so the kernel cannot say
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", guarded)

    class Buggy:
        def observe(self, batch, labels, scores, ns: int) -> None:
            desk.seat.model.observer = None
            raise ZeroDivisionError

    for i, name in enumerate(["buggy.json", "locked.json", "good.json"]):
        os.utime(desk.put(name), ns=(10**18 + i, 10**18 + i))
    desk.seat.model.observer = Buggy()
    assert desk.look() == 3
    assert desk.names("done") == ["good.json", "good.json.json"]
    assert "internal error" in desk.result("failed", "buggy.json").error.what
    assert "may not be read" in desk.result("failed", "locked.json").error.what


def test_a_file_on_a_bad_block_fails_and_one_that_the_machine_is_too_short_for_waits(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sick = os.open, {"bad.json": errno.EIO, "later.json": errno.EMFILE}

    def guarded(path, *more, **named):
        if code := sick.get(Path(path).name):
            raise OSError(code, os.strerror(code))
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", guarded)
    for i, name in enumerate(["bad.json", "good.json", "later.json"]):
        os.utime(desk.put(name), ns=(10**18 + i, 10**18 + i))
    assert desk.look() == 2
    assert "cannot be read: Input/output error" in desk.result("failed", "bad.json").error.what
    assert desk.names("done") == ["good.json", "good.json.json"]
    assert desk.names(".") == ["later.json"]
    del sick["later.json"]
    assert desk.look() == 1
    assert desk.names(".") == []


def test_a_file_that_cannot_be_moved_is_answered_once_and_stops_no_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As root moves anything, the kernel's refusal for another user is put in here."""
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.name == "a.json":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    for name in ("a.json", "b.json"):
        desk.put(name)
    assert desk.look(times=4) == 2
    assert desk.told == ["a.json", "b.json"]
    assert "a.json is answered but cannot be moved: Operation not permitted" in caplog.messages
    assert (desk.folder / "done" / "a.json.json").exists()
    desk.begin()
    assert desk.look(times=4) == 1, "it is known by its answer after a restart"
    assert desk.told == ["a.json", "b.json"]
    desk.put("a.json", json.dumps({**ROW, "temp": 0.75}))
    assert desk.look() == 1, "another file of that name is answered"


def test_a_folder_among_what_was_handled_stays_and_keeps_nothing_else(
    tmp_path: Path, pump: Model
) -> None:
    desk = Desk(tmp_path / "in", pump, keep=1)
    for where in ("done", "failed"):
        (desk.folder / where / "archive").mkdir()
    for i in range(4):
        desk.put(f"{i}.json")
        desk.put(f"wrong{i}.json", "{")
        desk.look()
    assert desk.names("done") == ["3.json", "3.json.json"]
    assert desk.names("failed") == ["wrong3.json", "wrong3.json.json"]
    assert all((desk.folder / where / "archive").is_dir() for where in ("done", "failed"))


def test_the_oldest_of_what_was_handled_goes(tmp_path: Path, pump: Model) -> None:
    desk = Desk(tmp_path / "in", pump, keep=3)
    for i in range(8):
        desk.put(f"{i}.json")
        desk.look()
    assert desk.names("done") == [f"{i}.json{end}" for i in (5, 6, 7) for end in ("", ".json")]


def test_without_a_model_files_wait_and_it_is_said_once(
    tmp_path: Path, pump: Model, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path / "in", None)
    desk.put("one.json")
    with caplog.at_level(logging.WARNING):
        assert desk.look(times=5) == 0
    assert caplog.text.count("no model 'pump' answers yet") == 1
    assert desk.names(".") == ["one.json"]
    desk.seat.swap(pump)
    assert desk.look() == 1


class Cut(BaseException):
    """The power."""


def test_a_file_is_answered_once_wherever_the_power_goes(
    tmp_path: Path, pump: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_agent.doors import watch as module

    class Counter:
        answered = 0

        def observe(self, batch, labels, scores, ns: int) -> None:
            self.answered += 1

    def cutting(real, left: list[int]):
        def call(*words: object, **more: object):
            left[0] -= 1
            if left[0] == 0:
                raise Cut
            found = real(*words, **more)
            left[0] -= 1
            if left[0] == 0:
                raise Cut
            return found

        return call

    points = 0
    for k in range(1, 30):
        desk = Desk(tmp_path / str(k), pump)
        pump.observer = counter = Counter()
        desk.put("a.json")
        desk.put("b.json")
        left = [k]
        with monkeypatch.context() as patched:
            for name in ("write_atomic", "sync_directory"):
                patched.setattr(module, name, cutting(getattr(disk, name), left))
            patched.setattr(Path, "rename", cutting(Path.rename, left))
            try:
                desk.look()
                break
            except Cut:
                points += 1
        desk.begin()
        desk.look()
        assert desk.names(".") == []
        assert desk.names("done") == ["a.json", "a.json.json", "b.json", "b.json.json"]
        assert desk.names("failed") == []
        # Only a cut between the answer and the writing of it, a file's first operation, asks again.
        assert counter.answered == (3 if k % 8 == 1 else 2), k
    assert points == 16, "two files, four operations each, a cut before and after"
    pump.observer = None


def test_the_command_answers_what_is_there(
    tiny_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from edge_agent.cli import app

    monkeypatch.chdir(tmp_path)
    Path("pump.edgepack").write_bytes(tiny_bundle())
    Path("in").mkdir()
    Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8)).save("in/dots.png")
    words = ["watch", "in", "pump.edgepack", "--once", "--size", "2x2", "--scale", "1"]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert told["model"] == "pump"
    expected = Model.open("pump.edgepack").predict([0.0, 1.0, 2.0, 3.0])
    assert told["predictions"][0]["label"] == expected.label
    assert json.loads(Path("in/done/dots.png.json").read_text()) == told
    Path("in/bad.json").write_text("{")
    assert CliRunner().invoke(app, words).exit_code == 1
    wrong = CliRunner().invoke(app, [*words, "--size", "2"])
    assert "a width and a height" in str(wrong.exception)
    mistyped = CliRunner().invoke(app, ["watch", "inn", *words[2:]])
    assert "there is no folder inn" in str(mistyped.exception)
    assert not Path("inn").exists()


def test_it_watches_until_it_is_interrupted(tiny_bundle, tmp_path: Path) -> None:
    (tmp_path / "pump.edgepack").write_bytes(tiny_bundle())
    (tmp_path / "in").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent.cli", "watch", str(tmp_path / "in"),
         str(tmp_path / "pump.edgepack")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "in" / "failed").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        (tmp_path / "in" / "one.json").write_text(json.dumps(ROW))
        assert json.loads(process.stdout.readline())["file"]["name"] == "one.json"
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
        assert process.stderr.read() == b"interrupted\n"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
