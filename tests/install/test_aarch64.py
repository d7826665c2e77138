"""The agent on an emulated aarch64: the same lock, the same bundles, the same answers.

A Debian root of arm64 packages and the wheels of ``locks/device.txt`` are fetched: `make aarch64`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent import state
from edge_agent.folder import Folder
from edge_agent.model import Model
from edge_contract import bundle as bundles
from edge_contract import golden as goldens
from edge_contract.bundle import MANIFEST_MEMBER
from edge_fleet.broker import BrokerThread

TREE = Path(__file__).parents[2]
CPUS = ("cortex-a53", "cortex-a76")
"""A Raspberry Pi 3 and a Raspberry Pi 5: without and with the int8 dot product."""

SOFTMAX_GAP_MAX = 5e-7
"""2.4e-7 was measured: two units in the last place of a float32 near 1."""

ANSWER = """
import json, platform, sys
from edge_agent.model import Model
from edge_contract import golden as goldens
found = {"machine": platform.machine()}
for path in sys.argv[1:]:
    model = Model.open(path)
    feeds = {each.name: goldens.unpack(each) for each in model.golden.inputs}
    found[path] = {
        "said": list(model.check_golden()),
        "outputs": {name: value.tolist() for name, value in model.run(feeds).items()},
    }
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Arm:
    """A root file system of arm64, with the agent's own packages and its source."""

    root: Path

    def python(self, cpu: str, *words: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start its Python."""
        environment = {
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "PYTHONPATH": "/opt/site",
            "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "HOME": "/tmp",
        }  # fmt: skip
        return subprocess.Popen(
            [TREE / "tests/install/foreign.sh", self.root, cpu, "/usr/bin/python3", *words],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def finished(self, cpu: str, *words: str | Path) -> str:
        """What it printed; it must have ended well."""
        process = self.python(cpu, *words)
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, f"{words}: {err}{out}"
        return out


@pytest.fixture(scope="module")
def arm(kit: Any, digit_bundles: dict[str, Path]) -> Iterator[Arm]:
    """A Debian of arm64 with the locked wheels of that processor."""
    kit.want("mmdebstrap", "qemu-aarch64-static", package="mmdebstrap qemu-user-static")
    folder = Path(tempfile.mkdtemp(prefix="edge-arm-"))
    made = Arm(folder / "root")
    try:
        made.root.mkdir()
        probe = subprocess.run(
            [TREE / "tests/install/foreign.sh", made.root, CPUS[0], "/probe"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if "mount" in probe.stderr or "unshare" in probe.stderr:
            pytest.skip(f"no binfmt_misc in a user namespace here (Linux 6.7): {probe.stderr}")
        run("mmdebstrap", "--quiet", "--variant=extract", "--architectures=arm64",
            "--include=python3,ca-certificates,libstdc++6,dash,coreutils", "bookworm",
            made.root)  # fmt: skip
        run(sys.executable, "-m", "pip", "install", "--quiet", "--target", made.root / "opt/site",
            "--no-deps", "--require-hashes", "--only-binary=:all:",
            "--platform", "manylinux_2_28_aarch64", "--platform", "manylinux_2_27_aarch64",
            "--platform", "manylinux2014_aarch64", "--python-version", "3.11",
            "--implementation", "cp", "-r", TREE / "locks/device.txt")  # fmt: skip
        uv = Path(sys.executable).with_name("uv")
        run(uv, "build", "--quiet", "--wheel", "--out-dir", folder, TREE)
        run(sys.executable, "-m", "pip", "install", "--quiet", "--target", made.root / "opt/site",
            "--no-deps", "--no-index", *folder.glob("*.whl"))  # fmt: skip
        (made.root / "src").mkdir()
        for name, path in digit_bundles.items():
            shutil.copy(path, made.root / "src" / f"{name}.edgepack")
        (made.root / "tmp").chmod(0o1777)
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("aarch64")
@pytest.mark.parametrize("cpu", CPUS)
def test_golden_outputs_are_those_of_x86(
    arm: Arm, digit_bundles: dict[str, Path], cpu: str
) -> None:
    files = [f"/src/{name}.edgepack" for name in digit_bundles]
    there = json.loads(arm.finished(cpu, "-c", ANSWER, *files))
    assert there["machine"] == "aarch64"
    for (name, path), file in zip(digit_bundles.items(), files, strict=True):
        model = Model.open(path)
        assert model.golden
        feeds = {each.name: goldens.unpack(each) for each in model.golden.inputs}
        found = there[file]
        assert found["said"] == []
        here = model.run(feeds)
        assert set(found["outputs"]) == set(here)
        for tensor, value in here.items():
            theirs = np.asarray(found["outputs"][tensor], dtype=value.dtype)
            gap = float(np.abs(theirs - value).max()) if value.dtype.kind == "f" else 0.0
            print(f"{cpu}: {name} {tensor}: largest difference {gap:.3g}")
            if value.dtype.kind != "f":
                assert np.array_equal(theirs, value)
            elif name == "digits-int8":  # equal to the bit up to the softmax behind them
                assert gap <= SOFTMAX_GAP_MAX
            assert not goldens.compare(model.golden, {**here, tensor: theirs}, "aarch64")


@pytest.mark.slow
@pytest.mark.xdist_group("aarch64")
def test_the_self_test_passes_there_and_refuses_what_is_off(
    arm: Arm, digit_bundles: dict[str, Path]
) -> None:
    for name, path in digit_bundles.items():
        bundle = bundles.read(path.read_bytes())
        slot = arm.root / "src" / f"slot-{name}"
        slot.mkdir()
        (slot / MANIFEST_MEMBER).write_bytes(bundle.manifest_bytes)
        for file in bundle.manifest.files:
            (slot / file.name).write_bytes(bundle.file(file.name))
        words = ("-m", "edge_agent.selftest", f"/src/{slot.name}", "--json", "--runs", "3")
        report = json.loads(arm.finished(CPUS[1], *words))
        assert report["findings"] == []
        (slot / "model.onnx").write_bytes(b"not a model")
        process = arm.python(CPUS[1], *words)
        out, _ = process.communicate(timeout=300)
        assert (process.returncode, "model.onnx" in out) == (1, True)


@pytest.mark.slow
@pytest.mark.xdist_group("aarch64")
def test_the_agent_there_enrols_pulls_proves_and_stops_in_order(
    arm: Arm, digit_bundles: dict[str, Path], kit: Any, tmp_path: Path
) -> None:
    with BrokerThread() as broker:
        fingerprint = kit.publish(tmp_path / "keys", broker.url, *digit_bundles.values())
        (arm.root / "src/agent.toml").write_text(
            f'[agent]\ndevice = "pi"\nfleet = "{kit.fleet}"\nfolder = "state"\n'
            f'[broker]\nurl = "{broker.url}"\n[update]\nself_test_runs = 3\n'
            "[trial]\nrequests = 1000\nseconds = 1.0\n"
        )
        settings = ("--config", "/src/agent.toml")
        said = arm.finished(CPUS[1], "-m", "edge_agent", "enroll", "--root", fingerprint, *settings)
        assert "trusts the root" in said
        folder = Folder(arm.root / "src/state")
        agent = arm.python(CPUS[1], "-m", "edge_agent", "run", *settings)

        def committed() -> bool:
            assert agent.poll() is None, agent.communicate()
            found = [state.load(folder, name) for name in digit_bundles]
            return all(each.phase == "committed" for each in found)

        try:
            kit.wait_for(committed, "both models committed on aarch64", 600)
            agent.terminate()
            _, said = agent.communicate(timeout=60)
            assert agent.returncode == 0, said
        finally:
            agent.kill()
