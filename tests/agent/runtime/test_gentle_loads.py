"""Loads at low priority, and memory that goes back: what a swap costs those who are answered."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edge_agent import loading
from edge_agent.live import Live
from edge_agent.model import Model
from edge_agent.runtime import Session
from edge_contract import bundle as bundles
from edge_contract.errors import InputFault

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="a thread's priority is Linux's")


def niceness() -> int:
    """Of the thread that asks."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@LINUX
def test_gentle_work_stands_back_and_nobody_else_does() -> None:
    before = niceness()
    expected = min(before + loading.NICENESS, 19)
    assert loading.gently(niceness) == expected
    assert niceness() == before
    assert loading.gently(lambda: loading.gently(niceness)) == expected, "it does not add up"


def threads_now() -> set[int]:
    """Ids of this process's threads, the runtime's included."""
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


def test_what_gentle_work_raises_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise InputFault("no such model")

    with pytest.raises(InputFault, match="no such model"):
        loading.gently(fail)


def test_a_gentle_load_gives_the_same_session_and_the_same_faults(tiny_bundle) -> None:
    onnx = bundles.read(tiny_bundle()).file("model.onnx")
    row = {"X": np.array([[1, 2, 3, 4]], dtype=np.float32)}
    for threads in (1, 2):
        plain, gentle = (Session(onnx, threads=threads, gently=how) for how in (False, True))
        for name, value in plain.run(row).items():
            np.testing.assert_array_equal(value, gentle.run(row)[name])
    with pytest.raises(InputFault, match="cannot load the model"):
        Session(b"junk", gently=True)


@LINUX
def test_the_threads_of_a_session_are_never_slow_ones(tiny_bundle) -> None:
    """A thread inherits the niceness of who starts it, and could not be raised again."""
    onnx = bundles.read(tiny_bundle()).file("model.onnx")
    before = threads_now()
    session = Session(onnx, threads=3, gently=True)
    started = threads_now() - before
    assert len(started) >= 2, "the runtime has threads of its own"
    assert {os.getpriority(os.PRIO_PROCESS, each) for each in started} == {niceness()}
    session.close()


class Golden(Model):
    """Notes at which priority it is warmed up."""

    seen: list[int]

    def probe(self) -> None:
        self.seen = [niceness()]
        super().probe()


@LINUX
def test_the_first_version_warms_up_at_once_and_the_next_ones_stand_back(tiny_bundle) -> None:
    first, second, third = (
        Golden.from_bundle(bundles.read(tiny_bundle(version))) for version in ("1", "2", "3")
    )
    live = Live("pump")
    live.swap(first)
    live.swap(second)
    live.put_beside(third)
    usual, low = [niceness()], [min(niceness() + loading.NICENESS, 19)]
    assert (first.seen, second.seen, third.seen) == (usual, low, low)


WEIGHTS = """
import gc, sys
from pathlib import Path
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from edge_agent import hardware, runtime
from edge_agent.runtime import Session

rng = np.random.default_rng(0)
nodes, weights, x = [], [], "x"
for i in range(6):  # 6 layers of 4 MB each
    weights.append(numpy_helper.from_array(rng.normal(size=(1000, 1000)).astype("f4"), f"w{i}"))
    nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"h{i}"]))
    x = f"h{i}"
info = helper.make_tensor_value_info
graph = helper.make_graph(
    nodes, "g",
    [info("x", TensorProto.FLOAT, [None, 1000])], [info(x, TensorProto.FLOAT, [None, 1000])],
    weights,
)
Path(sys.argv[1]).write_bytes(helper.make_model(
    graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())
del graph, weights, nodes
assert runtime.free_at_once()
gc.collect()
runtime.trim_memory()
def cycle():
    session = Session(Path(sys.argv[1]), gently=True)
    session.run({"x": np.zeros((1, 1000), "f4")})
    loaded = hardware.rss_bytes()
    session.close()
    del session
    gc.collect()
    runtime.trim_memory()
    return loaded
cycle()
before = hardware.rss_bytes()
loaded = max(cycle() for _ in range(5))
print(loaded - before, hardware.rss_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_a_load_needs_little_more_than_the_model_and_all_of_it_comes_back(tmp_path: Path) -> None:
    """24 MB of weights, six times: without ``free_at_once`` 50 MB and more at the top."""
    if "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""):
        pytest.skip("of glibc")
    found = subprocess.run(
        [sys.executable, "-c", WEIGHTS, str(tmp_path / "model.onnx")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded, left = (int(each) / 1e6 for each in found.stdout.split())
    assert 20 < loaded < 36
    assert left < 4


HEAPS = """
import ctypes, sys, threading
from pathlib import Path
from edge_agent import runtime

libc = ctypes.CDLL(None)
libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
def heaps():
    file = libc.fopen(sys.argv[1].encode(), b"w")
    libc.malloc_info(0, file)
    libc.fclose(file)
    return Path(sys.argv[1]).read_text().count("<heap nr=")
if sys.argv[2] == "shared":
    assert runtime.free_at_once()
before = heaps()
meeting = threading.Barrier(4)
def work():
    block = bytearray(100_000)  # of malloc, as tensors are
    meeting.wait(60)
    del block
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(heaps() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_threads_share_one_heap(tmp_path: Path) -> None:
    """Each heap has leftovers of its own; left alone, glibc makes one for each of four threads."""
    if "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""):
        pytest.skip("of glibc")
    more = {
        how: int(subprocess.check_output([sys.executable, "-c", HEAPS, tmp_path / "info", how]))
        for how in ("shared", "as it was")
    }
    assert more["shared"] == 0
    assert more["as it was"] > 0
