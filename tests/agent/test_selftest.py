"""The self-test runs in a process of its own, and comes back with a verdict whatever happens."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent import selftest
from edge_agent.selftest import Limits, Report, Stopped, prove
from edge_contract import bundle as bundles
from edge_contract.bundle import MANIFEST_MEMBER

LIMITS = Limits(timeout_s=60, runs=8)


@pytest.fixture
def lay(tiny_bundle: Callable[..., bytes], tmp_path: Path) -> Callable[..., Path]:
    """Makes a slot of a tiny bundle."""

    def slot(**options: object) -> Path:
        bundle = bundles.read(tiny_bundle(**options))
        folder = tmp_path / bundle.digest
        folder.mkdir()
        (folder / MANIFEST_MEMBER).write_bytes(bundle.manifest_bytes)
        for file in bundle.manifest.files:
            (folder / file.name).write_bytes(bundle.file(file.name))
        return folder

    return slot


def test_a_good_slot_passes_with_figures(lay: Callable[..., Path]) -> None:
    report = prove(lay(), LIMITS, threading.Event())
    assert report.passed, report.findings
    assert report.load_ms > 0
    assert 0 < report.latency_p50_ms <= report.latency_p99_ms
    assert report.ram_bytes > 0
    assert "golden samples reproduced" in str(report)


def test_altered_golden_outputs_fail(lay: Callable[..., Path]) -> None:
    report = prove(lay(golden_shift=0.01), LIMITS, threading.Event())
    assert not report.passed
    assert "differs by up to 0.01" in str(report)


def test_a_damaged_file_fails(lay: Callable[..., Path]) -> None:
    folder = lay()
    (folder / "model.onnx").write_bytes(b"not a model")
    report = prove(folder, LIMITS, threading.Event())
    assert not report.passed
    assert "model.onnx" in str(report)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(runs=8, latency_max_ms=1e-6), "p99 latency"),
        (Limits(runs=8, ram_bytes_max=1), "bytes of memory are over 1"),
        (Limits(timeout_s=0.0), "no result within 0 s"),
    ],
)
def test_what_exceeds_a_limit_fails(lay: Callable[..., Path], limits: Limits, said: str) -> None:
    report = prove(lay(), limits, threading.Event())
    assert not report.passed
    assert said in str(report)


def test_a_test_that_is_called_off_leaves_no_process(lay: Callable[..., Path]) -> None:
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    others = set(children.read_text().split())
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        prove(lay(), LIMITS, stop)
    assert set(children.read_text().split()) <= others


def test_a_process_that_is_killed_is_a_finding() -> None:
    report = selftest._read(-9, b"", b"")
    assert report.findings == ("the test process was killed: SIGKILL",)
    report = selftest._read(1, b"{}x", b"Traceback\nMemoryError\n")
    assert "code 1: MemoryError" in str(report)


def test_a_report_from_the_child_is_bounded_and_decoded() -> None:
    assert not selftest._read(0, b'{"findings":[3]}', b"").passed
    assert not selftest._read(0, b" " * 70_000, b"").passed
    assert selftest._read(0, b'{"load_ms":3.5}', b"") == Report(load_ms=3.5)


def test_the_child_dies_with_its_parent(lay: Callable[..., Path], tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, threading, pathlib\n"
            "from edge_agent.selftest import Limits, prove\n"
            "prove(pathlib.Path(sys.argv[1]), Limits(runs=100_000_000), threading.Event())\n",
            str(lay()),
        ]
    )
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    deadline = time.monotonic() + 120
    child = 0
    while not child and time.monotonic() < deadline:
        found = children.read_text().split()
        # Once its model is loaded, the child has asked to die with its parent.
        if found and "onnxruntime" in Path(f"/proc/{found[0]}/maps").read_text():
            child = int(found[0])
    assert child, "the child did not get to its model"
    parent.kill()
    parent.wait()
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        if "\nState:\tZ" in Path(f"/proc/{child}/status").read_text():
            break
    assert time.monotonic() < deadline, "the child outlived its parent"


def test_the_command_prints_a_verdict(lay: Callable[..., Path]) -> None:
    command = [sys.executable, "-P", "-m", "edge_agent.selftest", str(lay()), "--runs", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "golden samples reproduced" in done.stdout
    done = subprocess.run([*command[:4], "/nowhere"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot read" in done.stdout
