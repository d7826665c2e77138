"""What a device may do to scores is in the manifest, and in the command that repeats the build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import pytest
from msgspec.structs import replace
from sklearn.linear_model import LogisticRegression

from edge_contract import bundle as bundles
from edge_contract.errors import InputFault
from edge_contract.manifest import Calibration
from edge_pack import BuildConfig, build


@pytest.fixture(scope="module")
def source(wine: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fitted model and its rows."""
    folder = tmp_path_factory.mktemp("wine")
    frame, target = wine
    joblib.dump(LogisticRegression(max_iter=5000).fit(frame, target), folder / "m.joblib")
    frame.join(target).to_csv(folder / "rows.csv", index=False)
    return folder


@pytest.fixture
def config(source: Path, tmp_path: Path) -> Any:
    def make(**options: Any) -> BuildConfig:
        return BuildConfig(
            model=source / "m.joblib", data=source / "rows.csv", target="kind", name="wine",
            version="1.0", out=tmp_path / "wine.edgepack", measure=False, **options,
        )  # fmt: skip

    return make


def test_the_bounds_are_in_the_manifest_where_they_were_given(config: Any) -> None:
    bounded = config(allow_calibration=0.2, calibration_labels=500)
    build(bounded)
    manifest = bundles.read(bounded.out.read_bytes()).manifest
    assert manifest.calibration == Calibration(max_shift=0.2, min_labels=500)
    command = " ".join(manifest.provenance.command)
    assert "--allow-calibration 0.2 --calibration-labels 500" in command
    plain = config()
    build(plain)
    manifest = bundles.read(plain.out.read_bytes()).manifest
    assert manifest.calibration is None
    assert "calibration" not in " ".join(manifest.provenance.command)


@pytest.mark.parametrize(
    "options",
    [
        {"allow_calibration": -0.1},
        {"allow_calibration": 1.1},
        {"allow_calibration": float("nan")},
        {"allow_calibration": 0.1, "calibration_labels": 0},
    ],
)
def test_other_bounds_are_refused(config: Any, options: dict[str, float]) -> None:
    with pytest.raises(InputFault, match="--allow-calibration"):
        config(**options)


def test_inspect_and_diff_say_it(config: Any) -> None:
    from typer.testing import CliRunner

    from edge_pack.cli import app
    from edge_pack.gates import diff

    bounded = config(allow_calibration=0.2)
    build(bounded)
    manifest = bundles.read(bounded.out.read_bytes()).manifest
    shown = CliRunner().invoke(app, ["inspect", str(bounded.out)]).output
    assert "by up to 0.2, from 200 labels on" in shown
    other = replace(manifest, calibration=None)
    assert "calibration.max_shift" in str(diff.compare(other, manifest)["identity"])
    assert diff.compare(manifest, manifest)["identity"] == ()
