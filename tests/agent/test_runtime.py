"""The door to ONNX Runtime: no telemetry, no foreign error, whose fault it is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge_agent import runtime
from edge_agent.runtime import Session
from edge_contract import bundle
from edge_contract.errors import InputFault, MachineFault

ROW = np.array([[1.0, 2.0, 3.0, 4.0]], dtype=np.float32)


@pytest.fixture(scope="module")
def onnx(tiny_bundle) -> bytes:
    return bundle.read(tiny_bundle()).file("model.onnx")


def test_bytes_and_a_file_give_the_same_session(onnx: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx)
    first, second = Session(onnx), Session(path)
    assert first.inputs == second.inputs
    assert [(i.name, i.dtype, i.shape) for i in first.inputs] == [("X", "float32", (None, 4))]
    assert [o.name for o in first.outputs] == ["label", "probabilities"]
    for name, value in first.run({"X": ROW}).items():
        np.testing.assert_array_equal(value, second.run({"X": ROW})[name])


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({}, "'X' is missing"),
        ({"Y": ROW}, "'X' is missing"),
        ({"X": ROW, "Y": ROW}, "unknown input tensor 'Y'"),
        ({"X": ROW.astype(np.float64)}, "is float64, the model expects float32"),
        ({"X": ROW[:, :2]}, "has shape (1, 2)"),
        ({"X": ROW[0]}, "has shape (4,)"),
        ({"X": None}, "is a NoneType"),
        ({"X": ROW.astype(object)}, "is string"),
    ],
)
def test_wrong_feeds_are_the_callers_fault(onnx: bytes, feeds: dict, says: str) -> None:
    session = Session(onnx)
    with pytest.raises(InputFault) as caught:
        session.run(feeds)
    assert says in caught.value.what
    assert session.run({"X": ROW})["label"].shape == (1,)


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x08\x07" * 500])
def test_what_is_no_model_is_refused(junk: bytes) -> None:
    with pytest.raises(InputFault, match="cannot load the model"):
        Session(junk)


def test_every_truncation_of_a_model_is_refused_or_loads(onnx: bytes) -> None:
    for length in range(0, len(onnx), max(1, len(onnx) // 60)):
        try:
            Session(onnx[:length])
        except InputFault:
            continue


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFault):
        Session(tmp_path / "none.onnx")


def test_an_output_that_is_no_tensor_is_refused_with_the_way_out() -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    model = LogisticRegression().fit(rows, (rows[:, 0] > 0).astype(int))
    zipmap = to_onnx(model, rows[:1], target_opset=17).SerializeToString()
    with pytest.raises(InputFault, match="not a plain tensor") as caught:
        Session(zipmap)
    assert "zipmap" in caught.value.advice


def test_a_failure_inside_the_model_is_the_machines() -> None:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "at"], ["y"])],
        "g",
        [helper.make_tensor_value_info("at", TensorProto.INT64, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        [helper.make_tensor("table", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = Session(model.SerializeToString())
    assert session.run({"at": np.array([2])})["y"].tolist() == [3.0]
    with pytest.raises(MachineFault, match="failed at run time"):
        session.run({"at": np.array([7])})


def test_a_closed_session_answers_nothing_and_may_be_closed_again(onnx: bytes) -> None:
    session = Session(onnx)
    session.close()
    session.close()
    with pytest.raises(MachineFault, match="closed"):
        session.run({"X": ROW})


def test_sixteen_threads_on_one_session_get_their_own_answers(onnx: bytes) -> None:
    session = Session(onnx)
    rows = np.random.default_rng(1).normal(size=(16, 1, 4)).astype(np.float32)
    expected = [session.run({"X": row})["probabilities"].tolist() for row in rows]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(200):
            if session.run({"X": rows[i]})["probabilities"].tolist() != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_thread_spins_between_calls(onnx: bytes) -> None:
    def busy() -> float:
        """Processors that this process keeps busy while nobody asks it for anything."""
        begin_wall, begin_cpu = time.monotonic(), time.process_time()
        threading.Event().wait(0.5)
        return (time.process_time() - begin_cpu) / (time.monotonic() - begin_wall)

    before = busy()  # a thread that another test left behind is not the session's
    session = Session(onnx, threads=2)
    session.run({"X": ROW})
    assert busy() - before < 0.1


def test_importing_and_running_writes_nothing_to_the_home_folder(
    onnx: bytes, tmp_path: Path
) -> None:
    """Wheels from 1.29 on write a device id and events into the cache unless told not to."""
    home = tmp_path / "home"
    home.mkdir()
    model = tmp_path / "model.onnx"
    model.write_bytes(onnx)
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("XDG_", "ORT_")) and key not in ("HOME", "TMPDIR")
    }
    code = (
        "import sys, pathlib, numpy as np\n"
        "from edge_agent.runtime import Session\n"
        "s = Session(pathlib.Path(sys.argv[1]))\n"
        "s.run({'X': np.zeros((1, 4), np.float32)})\n"
        "import os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(model)],
        env={**environment, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        cwd=home,
        timeout=60,
    )
    assert list(home.rglob("*")) == []


def test_only_one_module_imports_the_runtime() -> None:
    package = Path(runtime.__file__).parent
    importers = [
        path.name
        for path in package.rglob("*.py")
        if any(
            line.strip().startswith(("import onnxruntime", "from onnxruntime"))
            for line in path.read_text().splitlines()
        )
    ]
    assert importers == ["runtime.py"]


def test_versions_and_trimming() -> None:
    assert runtime.versions()["onnxruntime"].count(".") >= 1
    assert runtime.trim_memory() in (True, False)


def test_the_sessions_options_are_those_for_a_small_shared_machine() -> None:
    options = runtime._options(1)
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    if platform.machine() in ("x86_64", "AMD64"):
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
