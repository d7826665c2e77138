"""The oldest runtime: what is installed, what is said when it cannot be, and that it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.runtime import Session
from edge_contract import golden as goldens
from edge_contract.errors import BuildFault, InputFault, MachineFault
from edge_pack import golden_build, graphs
from edge_pack.compress import forms, prove
from edge_pack.compress.forms import Material
from edge_pack.compress.modes import MODES

FLOOR = {(3, 11): "1.15.0", (3, 12): "1.17.0", (3, 13): "1.20.0"}
"""The oldest release in our table with a wheel for this Python."""


@pytest.mark.parametrize(
    ("floor", "release"), [(">=1.18", "1.18.0"), ("1.20.1", "1.20.1"), (" >= 1.17 ", "1.17.0")]
)
def test_the_oldest_release_of_a_floor(floor: str, release: str) -> None:
    assert prove.release_of(floor) == release


def test_what_pip_says_becomes_whose_fault_it_is() -> None:
    other = prove._not_installed(
        "1.15.0", "ERROR: Could not find a version (from versions: 1.20.0, 1.20.1, 1.21.0rc1)"
    )
    assert isinstance(other, InputFault) and "1.20.0" in str(other.advice)
    for said in (
        "WARNING: Retrying\nERROR: Could not find a version that satisfies (from versions: none)",
        "ERROR: [Errno 28] No space left on device",
    ):
        refused = prove._not_installed("1.18.0", said)
        assert isinstance(refused, MachineFault) and "network" in str(refused.advice)


@pytest.mark.slow
def test_no_network_is_our_machines_fault_and_leaves_no_half_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(MachineFault, match=r"onnxruntime 1\.18\.0 could not be installed"):
        prove.environment("1.18.0", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineFault, match="no environment"):
        prove.environment("1.18.0", tmp_path / "file")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's own where it is there already, so that a run installs nothing."""
    kept = prove.cache_folder()
    return kept if kept.is_dir() else tmp_path_factory.mktemp("runtimes")


@pytest.mark.slow
def test_every_form_runs_under_the_oldest_release(make: Any, feed: Any, cache: Path) -> None:
    release = FLOOR.get(sys.version_info[:2], "1.24.1")
    for net in ("gemm", "conv"):
        rows = feed(net, 16)
        material = Material(make(net), [rows])
        for mode in MODES:
            if not forms.suits(mode, material):
                continue
            model = graphs.serialise(forms.make(mode, material, {}).proto)
            session = Session(model)
            slack = golden_build.slack(session.run, rows)
            samples = golden_build.build(rows, session.run(rows), slack)
            found = prove.prove(model, goldens.encode(samples), f">={release}", cache)
            assert found == release, mode


@pytest.mark.slow
def test_another_answer_and_a_model_too_new_are_refused(make: Any, feed: Any, cache: Path) -> None:
    release = FLOOR.get(sys.version_info[:2], "1.24.1")
    proto, rows = make("gemm"), feed("gemm", 4)
    found = Session(graphs.serialise(proto)).run(rows)
    wrong = golden_build.build(rows, {"y": found["y"] + np.float32(0.5)})
    with pytest.raises(BuildFault, match=r"does not hold under onnxruntime .*\n.*differs by"):
        prove.prove(graphs.serialise(proto), goldens.encode(wrong), release, cache)
    proto.ir_version = 13
    right = golden_build.build(rows, found)
    with pytest.raises(BuildFault, match="does not hold"):
        prove.prove(graphs.serialise(proto), goldens.encode(right), release, cache)
    with pytest.raises(InputFault, match=r"onnxruntime 1\.0\.7 has no wheel"):
        prove.environment("1.0.7", cache)
