"""KServe's and MLServer's own clients, as their users install them, against the door.

Their dependencies and ours do not agree: each lives in an environment of its own, made once under
the user's cache, the same that benchmarks/serving.py uses.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
ASK_S = 300.0
pytestmark = pytest.mark.slow


def environment(name: str) -> Path:
    """The Python of a peer's environment; skips where it cannot be installed."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    try:
        from peers import http_servers
    finally:
        sys.path.remove(folder)
    (peer,) = (peer for peer in http_servers.PEERS if peer.name == name)
    http_servers.CACHE.mkdir(parents=True, exist_ok=True)
    with (http_servers.CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several tests, one installation
        try:
            return http_servers.environment(peer)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"{' '.join(peer.packages)} cannot be installed here: {error}")


def ran(*command: str | Path) -> str:
    """What a command printed; it has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def expected(seats, rows: list[list[float]], dtype: str = "float32") -> dict[str, list[Any]]:
    """The model's own answer."""
    given = np.array(rows, dtype=dtype)
    found = seats["pump"].model.infer({"X": given})
    return {name: array.ravel().tolist() for name, array in found.items()}


def same(found: dict[str, list[Any]], right: dict[str, list[Any]]) -> bool:
    """Labels alike, figures to the precision of JSON and float16 rounding on their side."""
    assert found.keys() == right.keys()
    for name, values in right.items():
        if isinstance(values[0], float):
            assert found[name] == pytest.approx(values, abs=1e-6)
        else:
            assert [str(item) for item in found[name]] == [str(item) for item in values]
    return True


def test_kserve_s_client_gets_what_the_model_gives(door, seats) -> None:
    python = environment("KServe")
    found = json.loads(ran(python, HERE / "clients" / "ask_kserve.py", str(door.port)))
    assert found["live"] and found["ready"] and found["model"]
    assert len(found["infer"]) == 6
    for one in found["infer"]:
        half = one["how"][2] == "FP16"
        assert one["id"] == "k1"
        assert same(one["outputs"], expected(seats, found["rows"], "f2" if half else "f4"))
    assert "this device has no model 'none'" in found["error"] and "404" in found["error"]


def test_mlserver_s_types_and_codecs_fit(door, seats) -> None:
    python = environment("MLServer")
    found = json.loads(ran(python, HERE / "clients" / "ask_mlserver.py", str(door.port)))
    assert same(found["pump"], expected(seats, found["rows"]))
    label = seats["mixed"].model.manifest.outputs.label
    labels = [prediction.label for prediction in seats["mixed"].predict(found["frame"])]
    assert found["mixed"][label] == labels
    assert "has no model 'none'" in found["error"]
    assert found["index"] == [["mixed", "READY"], ["pump", "READY"]]
    assert found["inputs"] == [["X", "FP32"]]
    assert found["server"] == ["binary_tensor_data"]


@pytest.mark.parametrize("options", [[], ["--batch-size", "3"], ["--binary-data"]])
def test_mlserver_infer_works_through_a_file(options, door, seats, tmp_path: Path) -> None:
    python = environment("MLServer")
    rows = np.random.default_rng(5).normal(size=(7, 4)).astype(np.float32).tolist()
    lines = [
        {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": row}]}
        for row in rows
    ]
    given, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ran(
        python.parent / "mlserver", "infer", "--url", f"127.0.0.1:{door.port}",
        "--model-name", "pump", "--input-data-path", given, "--output-data-path", answers,
        "--workers", "2", *options,
    )  # fmt: skip
    found = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(found) == len(rows)
    for one in found:
        row = rows[one["parameters"]["batch_index"]]
        outputs = {output["name"]: output["data"] for output in one["outputs"]}
        assert same(outputs, expected(seats, [row]))
