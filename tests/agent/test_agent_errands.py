"""Every errand ends in an event, also after a fault of ours."""

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.accept import Refused
from edge_agent.delivery import Stopped
from edge_agent.errands import Errands
from edge_agent.folder import Folder
from edge_agent.selftest import Limits
from edge_agent.serving import Serving
from edge_agent.steps import Answering, Damaged, Fetched, FetchFailed, LoadFailed, SelfTestFailed
from edge_agent.telemetry import Recorder, Spool
from edge_agent.telemetry.recorder import Instant
from edge_contract import bundle as bundles
from edge_contract import messages
from edge_contract.bundle import MANIFEST_MEMBER
from edge_contract.errors import EdgeError, InputFault, MachineFault, PeerFault

NOTHING = messages.release("pump", "0", "0" * 64)


class Fetcher:
    """Ends as it is told."""

    def __init__(self) -> None:
        self.ends: Exception | None = None

    def fetch(self, model: str, release: object, progress: object, stop: object) -> None:
        if self.ends:
            raise self.ends


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def errands(fetcher: Fetcher, folder: Folder) -> Errands:
    recorder = Recorder(Spool(folder.spool), device="d", boot=1)
    return Errands(
        folder,
        fetcher=fetcher,
        serving=Serving(recorder, lambda: Instant(0, 0.0)),
        limits=Limits(runs=2),
        rng=random.Random(1),
    )


@pytest.mark.parametrize(
    ("ends", "lasting", "said"),
    [
        (PeerFault("the broker is gone"), False, "the broker is gone"),
        (MachineFault("disk full"), False, "disk full"),
        (InputFault("no longer named"), False, "no longer named"),
        (Refused("needs more memory"), True, "needs more memory"),
        (Refused("needs more disk", lasting=False), False, "needs more disk"),
        (ZeroDivisionError(), False, "unexpected error"),
    ],
)
def test_a_fetch_that_fails_says_so_and_whether_for_good(
    errands: Errands, fetcher: Fetcher, ends: Exception, lasting: bool, said: str
) -> None:
    fetcher.ends = ends
    event = errands.fetch("pump", NOTHING, lambda done, total: None, threading.Event())
    assert isinstance(event, FetchFailed)
    assert (event.sha256, event.lasting) == (NOTHING.sha256, lasting)
    assert said in event.reason
    assert 0 <= event.jitter < 1


def test_a_fetch_that_was_called_off_says_nothing(errands: Errands, fetcher: Fetcher) -> None:
    stop = threading.Event()
    assert errands.fetch("pump", NOTHING, print, stop) == Fetched(NOTHING.sha256)
    stop.set()
    ends: list[EdgeError] = [Stopped("called off"), PeerFault("gone meanwhile")]
    for end in ends:
        fetcher.ends = end
        assert errands.fetch("pump", NOTHING, print, stop) is None


def test_a_slot_that_is_not_there_is_damaged(errands: Errands) -> None:
    assert errands.test("pump", NOTHING, threading.Event()) == Damaged(NOTHING.sha256)
    assert errands.answer("pump", NOTHING) == Damaged(NOTHING.sha256)
    assert errands.answer("pump", None) == Answering("")


def test_a_bug_in_loading_is_an_event_too(folder: Folder, fetcher: Fetcher) -> None:
    class Broken(Serving):
        def answer(self, name: str, folder: Path, sha256: str) -> None:
            raise ZeroDivisionError

    recorder = Recorder(Spool(folder.spool), device="d", boot=1)
    broken = Errands(
        folder,
        fetcher=fetcher,
        serving=Broken(recorder, lambda: Instant(0, 0.0)),
        limits=Limits(),
        rng=random.Random(1),
    )
    event = broken.answer("pump", NOTHING)
    assert isinstance(event, LoadFailed)
    assert "unexpected error" in event.reason


def test_a_sound_slot_that_does_not_load_is_not_damaged(
    errands: Errands, folder: Folder, tiny_bundle: Callable[..., bytes]
) -> None:
    """A member that is no model, sealed with its true digests."""
    from msgspec.structs import replace

    from edge_contract import manifest as manifests

    whole = bundles.read(tiny_bundle())
    file, stored = bundles.encode_member("model.onnx", b"no model at all")
    files = tuple(file if f.name == file.name else f for f in whole.manifest.files)
    data = manifests.encode(replace(whole.manifest, files=files))
    bundle = bundles.read(bundles.write(data, {**whole.stored, file.name: stored}))
    where = folder.slot(bundle.digest)
    where.mkdir(parents=True)
    (where / MANIFEST_MEMBER).write_bytes(data)
    for each in files:
        (where / each.name).write_bytes(bundle.file(each.name))
    release = messages.release("pump", "1.0", bundle.digest)
    tested = errands.test("pump", release, threading.Event())
    assert isinstance(tested, SelfTestFailed)
    assert tested.lasting
    assert "cannot load the model" in tested.reason
    answered = errands.answer("pump", release)
    assert isinstance(answered, LoadFailed)
    assert "cannot load the model" in answered.reason
