"""The command as people call it: exit codes, JSON, tables, an install without the build extra."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from edge_contract.errors import InputFault
from edge_pack import measure
from edge_pack.cli import app, main

_BLOCKED = (
    "sklearn",
    "onnx",
    "skl2onnx",
    "pandas",
    "pyarrow",
    "skops",
    "joblib",
    "scipy",
    "cryptography",
)
_BASE_INSTALL = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {_BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from edge_pack.cli import main
main()
"""


class Inputs:
    """A model and rows on disk, and the options that build them."""

    def __init__(self, folder: Path, frame: Any, target: Any) -> None:
        self.folder = folder
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, target)
        self.expected = model.predict(frame).tolist()
        self.model, self.data = folder / "model.joblib", folder / "rows.csv"
        joblib.dump(model, self.model)
        frame.join(target).to_csv(self.data, index=False)
        self.out = folder / "wine-1.0.edgepack"

    def options(self, **change: str) -> list[str]:
        options = {
            "--data": str(self.data), "--target": "kind", "--name": "wine", "--version": "1.0",
            "-o": str(self.out), **change,
        }  # fmt: skip
        return [str(self.model), *(part for pair in options.items() for part in pair)]


@pytest.fixture
def inputs(wine: Any, tmp_path: Path) -> Inputs:
    return Inputs(tmp_path, *wine)


def _call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _process(*arguments: object, code: str = "from edge_pack.cli import main; main()") -> Any:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_build_inspect_verify_predict(inputs: Inputs) -> None:
    built = _call("build", *inputs.options(), "--commit", "abc123", "--licence", "MIT", "--json")
    assert built.exit_code == 0, built.output
    said = json.loads(built.stdout)
    assert said["manifest"]["provenance"]["commit"] == "abc123"
    assert said["size_bytes"] == inputs.out.stat().st_size

    shown = json.loads(_call("inspect", inputs.out, "--json").stdout)
    assert shown["digest"] == said["digest"] and shown["manifest"] == said["manifest"]
    assert shown["measured"]["bundle"] == said["digest"]
    latency = shown["measured"]["figures"]["latency"]
    assert [figure["batch"] for figure in latency] == [1, 256]
    assert all(0 < figure["p50_us"] <= figure["p99_us"] for figure in latency)
    assert (inputs.folder / "wine-1.0.measured.json").exists()

    verified = json.loads(_call("verify", inputs.out, "--json").stdout)
    assert verified["valid"] and verified["signature"] == "none"

    lines = _call("predict", inputs.out, "--data", inputs.data, "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["label"] for row in rows] == inputs.expected
    assert set(rows[0]) == {"label", "probabilities"}
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_tables_for_people(inputs: Inputs) -> None:
    built = _call("build", *inputs.options(), "--no-measure", "--intended-use", "wine tasting")
    assert built.exit_code == 0, built.output
    for part in ("plain ONNX", "0 of", "labels changed", "accuracy", "digest", "pass --keys"):
        assert part in built.stdout
    shown = _call("inspect", inputs.out).stdout
    for part in ("model.onnx", "ONNX Runtime 1.", "alcohol", "number", "wine tasting", "class_0"):
        assert part in shown
    assert "holds:" in _call("verify", inputs.out).stdout
    predicted = _call("predict", inputs.out, "--data", inputs.data).stdout
    assert "class_0" in predicted and "178 rows in all" in predicted


def test_keys_sign_and_verify(inputs: Inputs) -> None:
    keys = inputs.folder / "keys"
    assert _call("keys", "init", keys).exit_code == 0
    assert _call("build", *inputs.options(), "--no-measure", "--keys", keys).exit_code == 0
    assert json.loads(_call("inspect", inputs.out, "--json").stdout)["signed"]
    assert "valid, trusted by" in _call("verify", inputs.out, "--keys", keys).stdout
    both = _call("verify", inputs.out, "--keys", keys, "--root", keys)
    assert isinstance(both.exception, InputFault)


@pytest.mark.parametrize(
    ("change", "code", "finding"),
    [
        ({"--data": "absent.csv"}, 2, "cannot read absent.csv"),
        ({"--target": "price"}, 2, "no column 'price'"),
        ({"--max-flips": "lots"}, 2, "not a share"),
        ({"--quantize": "int8-storage"}, 3, "changed nothing"),
        ({"--keys": "/dev/null/keys"}, 2, ""),
    ],
)
def test_a_mistake_is_one_message_and_an_exit_code(
    *,
    change: dict[str, str],
    code: int,
    finding: str,
    inputs: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["edge-pack", "build", *inputs.options(**change), "--no-measure"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr()
    assert stopped.value.code == code, said.err
    assert "error: " in said.err and finding in said.err
    assert "Traceback" not in said.err and not said.out
    assert not inputs.out.exists()


def test_usage_is_explained() -> None:
    assert _process("build").returncode == 2
    for command in ("build", "inspect", "verify", "predict"):
        shown = _call(command, "--help")
        assert shown.exit_code == 0 and "Example" in shown.output
    assert "keys" in _call("--help").output and "publish" in _call("--help").output


def test_ctrl_c_stops_a_build_with_130_and_leaves_nothing(inputs: Inputs) -> None:
    fifo = inputs.folder / "rows.csv"
    fifo.unlink()
    os.mkfifo(fifo)
    build = subprocess.Popen(
        [sys.executable, "-c", "from edge_pack.cli import main; main()",
         "build", *inputs.options(), "--no-measure"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with fifo.open("w"):  # returns when the build has begun to read its data
        said = None
        while said is None:  # a signal between two system calls is not seen before the second ends
            build.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, said = build.communicate(timeout=60)
    assert build.returncode == 130 and "Traceback" not in said
    assert {path.name for path in inputs.folder.iterdir()} == {"model.joblib", "rows.csv"}


def test_a_base_install_reads_bundles_and_names_the_extra_to_build(inputs: Inputs) -> None:
    assert _call("build", *inputs.options(), "--no-measure").exit_code == 0
    built = _process("build", *inputs.options(**{"-o": "x.edgepack"}), code=_BASE_INSTALL)
    assert built.returncode == 4
    assert "onnx" in built.stderr and "pip install 'edge-pack[build]'" in built.stderr
    assert "Traceback" not in built.stderr
    shown = _process("inspect", inputs.out, "--json", code=_BASE_INSTALL)
    assert json.loads(shown.stdout)["manifest"]["name"] == "wine", shown.stderr
    assert "golden" in _process("verify", inputs.out, code=_BASE_INSTALL).stdout
    done = _process("predict", inputs.out, "--data", inputs.data, "--json", code=_BASE_INSTALL)
    labels = [json.loads(line)["label"] for line in done.stdout.splitlines()]
    assert labels == inputs.expected, done.stderr
    parquet = inputs.folder / "rows.parquet"
    parquet.write_bytes(b"PAR1")
    refused = _process("predict", inputs.out, "--data", parquet, code=_BASE_INSTALL)
    assert refused.returncode == 4 and "Parquet needs pyarrow" in refused.stderr


def test_measurements_of_another_bundle_are_not_shown(inputs: Inputs) -> None:
    assert _call("build", *inputs.options()).exit_code == 0
    beside = measure.path_beside(inputs.out)
    beside.write_text(beside.read_text().replace('"bundle": "', '"bundle": "0'))
    assert json.loads(_call("inspect", inputs.out, "--json").stdout)["measured"] is None
    beside.write_text("{")
    broken = _call("inspect", inputs.out, "--json")
    assert isinstance(broken.exception, InputFault)
    assert _call("build", *inputs.options(), "--no-measure").exit_code == 0
    assert not beside.exists()


def test_a_bundle_slower_than_its_original_is_said() -> None:
    quick = measure.Latency(batch=1, p50_us=10.0, p99_us=12.0, calls=5)
    slow = measure.Latency(batch=1, p50_us=30.0, p99_us=40.0, calls=5)
    assert "3.0 times at batch 1" in measure.slower([slow], [quick])
    assert measure.slower([quick], [slow]) == "" == measure.slower([slow], [])


def test_calls_are_timed_until_there_are_enough() -> None:
    seen: list[int] = []
    found = measure.calls(lambda: seen.append(1), 7, seconds=0.0)
    assert (found.batch, found.calls, len(seen)) == (7, measure.CALLS_MIN, measure.CALLS_MIN + 2)
    assert np.isfinite([found.p50_us, found.p99_us]).all()
