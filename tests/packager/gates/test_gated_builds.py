"""Builds with gates: what holds is in the manifest, what fails stops the build."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as peers
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from edge_contract import manifest as manifests
from edge_contract.errors import BuildFault, InputFault
from edge_contract.manifest import Metric
from edge_pack import Built, reading
from edge_pack.cli import app


def _metrics(built: Built) -> dict[tuple[str, str], Metric]:
    return {(metric.name, metric.slice): metric for metric in built.manifest.metrics}


def _predicted(built: Built) -> Any:
    return [one.label for one in reading.predict(built.config.out, built.config.data)]


def test_figures_are_those_of_the_answers_that_the_bundle_gives(make: Any, machines: Any) -> None:
    frame, target = machines
    built = make(slices=("site", "vibration"))
    said = pd.Series(_predicted(built))
    found = _metrics(built)
    recall = found["recall", ""]
    assert recall.bundle == pytest.approx(
        peers.recall_score(target, said, pos_label="runs"), abs=1e-5
    )
    assert recall.low is not None and recall.low <= recall.bundle <= recall.high
    for site in ("graz", "lyon", "turin"):
        there = frame.site == site
        expected = peers.accuracy_score(target[there], said[there])
        assert found["accuracy", f"site={site}"].bundle == pytest.approx(expected, abs=1e-5)
    figures = [found["accuracy", f"site={site}"].bundle for site in ("graz", "lyon", "turin")]
    apart = found["accuracy_difference", "site"].bundle
    assert apart == pytest.approx(max(figures) - min(figures), abs=2e-5)
    names = [piece.name for piece in built.manifest.slices]
    assert names[:3] == ["site=graz", "site=lyon", "site=turin"] and "vibration=q4" in names
    assert sum(piece.rows for piece in built.manifest.slices if piece.column == "site") == 600


def test_gates_that_hold_are_in_the_manifest(make: Any) -> None:
    built = make(
        slices=("site",), device="pi4",
        require=("roc_auc>=0.9", "accuracy[site=graz]>=50%", "recall_difference[site]<=0.9"),
    )  # fmt: skip
    gates = {gate.name: gate for gate in built.manifest.gates}
    assert list(gates) == [
        "roc_auc", "accuracy[site=graz]", "recall_difference[site]", "memory",
    ]  # fmt: skip
    assert all(gate.passed and gate.got for gate in gates.values())
    opened = reading.open_bundle(built.config.out).manifest
    budget = opened.runtime
    assert (budget.ram_bytes_max, budget.latency_ms_max) == (256 * 1024**2, 100)
    assert opened.gates == built.manifest.gates and opened.slices == built.manifest.slices
    assert manifests.decode(manifests.encode(opened)) == opened


def test_all_that_failed_is_in_one_table_and_nothing_is_written(make: Any, tmp_path: Path) -> None:
    tight = tmp_path / "tight.toml"
    tight.write_text('arch = "aarch64"\nram_mb = 1\nruntime = ">=1.17"\n')
    with pytest.raises(BuildFault) as error:
        make(
            require=("accuracy>=0.9999", "roc_auc>=0.5", "recall.low>=0.9999"), device=str(tight),
        )  # fmt: skip
    said = error.value.what
    assert error.value.exit_code == 3 and said.startswith("3 gates failed")
    assert all(part in said for part in ("gate", "accuracy", ">=0.9999", "recall.low", "memory"))
    assert "roc_auc" not in said and "<=1 MB on tight" in said
    assert "does not hold it either" in error.value.advice and "--force" in error.value.advice
    assert not list((tmp_path / "build").glob("pump*"))


def test_force_seals_and_the_manifest_says_what_failed(make: Any) -> None:
    told: list[str] = []
    built = make(require=("accuracy>=0.9999", "roc_auc>=0.5"), force=True, told=told)
    assert [(gate.name, gate.passed) for gate in built.manifest.gates] == [
        ("accuracy", False), ("roc_auc", True),
    ]  # fmt: skip
    assert any("1 gate failed" in text and "--force" in text for text in told)
    assert (built.manifest.runtime.ram_bytes_max, built.manifest.runtime.latency_ms_max) == (0, 0)


def test_a_budget_that_a_forced_build_exceeds_does_not_bind_devices(
    make: Any, tmp_path: Path
) -> None:
    tight = tmp_path / "tight.toml"
    tight.write_text('arch = "x"\nram_mb = 1\nruntime = ">=1.17"\nlatency_p99_ms = 50\n')
    built = make(device=str(tight), force=True)
    assert (built.manifest.runtime.ram_bytes_max, built.manifest.runtime.latency_ms_max) == (0, 50)


@pytest.mark.slow
def test_a_measured_gate_leaves_no_figure_in_the_manifest(make: Any, tmp_path: Path) -> None:
    quick = tmp_path / "quick.toml"
    rules = 'arch = "x"\nram_mb = 999\nruntime = ">=1.18"\nslowdown = 5\nspread = 2\n'
    quick.write_text(rules + "latency_p99_ms = 100000\n")
    built = make(device=str(quick), measure=True)
    assert [gate.name for gate in built.manifest.gates] == ["memory"]
    quick.write_text(rules + "latency_p99_ms = 0.00001\n")
    with pytest.raises(
        BuildFault, match=r"latency p99 +<=1e-05 ms on quick +about .* 5 times slower"
    ):
        make(device=str(quick), measure=True, folder="slow")
    forced = make(device=str(quick), measure=True, folder="slow", force=True)
    failed = [gate for gate in forced.manifest.gates if not gate.passed]
    assert [(gate.name, gate.got) for gate in failed] == [("latency p99", "")]
    told: list[str] = []
    make(device=str(quick), told=told)
    assert any("resident memory on quick are not judged" in text for text in told)


def test_the_device_sets_the_runtime_unless_it_is_given(make: Any, tmp_path: Path) -> None:
    old = tmp_path / "old.toml"
    old.write_text('arch = "aarch64"\nram_mb = 99\nruntime = ">=1.16"\n')
    assert make(device=str(old)).config.runtime == ">=1.16"
    assert make(device=str(old), runtime=">=1.20").config.runtime == ">=1.20"
    assert make().config.runtime == ">=1.18"


def test_a_slice_may_be_a_column_that_the_model_does_not_read(make: Any, machines: Any) -> None:
    frame, _ = machines
    odd = frame.assign(shift=np.where(np.arange(600) < 590, "day, [late]", "night"))
    told: list[str] = []
    built = make(
        frame=odd, slices=("shift",), told=told,
        require=("accuracy[shift=day, [late]]>=0.5", "accuracy[shift=night]>=1"),
    )  # fmt: skip
    assert "shift" not in {feature.name for feature in built.manifest.features}
    assert [gate.name for gate in built.manifest.gates] == ["accuracy[shift=day, [late]]"]
    assert any("accuracy[shift=night]>=1 is not judged" in text for text in told)
    pieces = {piece.group: piece for piece in built.manifest.slices}
    assert pieces["night"].rows == 10 and not pieces["night"].gated


def test_one_label_in_a_slice_has_no_recall_and_fails_a_gate_on_it(
    make: Any, machines: Any
) -> None:
    frame, target = machines
    odd = frame.assign(side=np.where(target == "fails", "bad", "good"))
    with pytest.raises(BuildFault, match=r"recall\[side=bad\] +>=0.5 +not defined on these rows"):
        make(frame=odd, slices=("side",), require=("recall[side=bad]>=0.5",))
    found = _metrics(make(frame=odd, slices=("side",)))
    assert ("recall", "side=bad") not in found and ("roc_auc", "side=bad") not in found
    assert ("accuracy", "side=bad") in found


def test_answers_that_are_missing_or_unknown_are_left_out_or_wrong(
    make: Any, machines: Any
) -> None:
    _, target = machines
    truth = target.astype(object).copy()
    truth[:50] = None
    truth[50:60] = "melts"
    built = make(truth=truth, slices=("site",))
    said = np.array(_predicted(built))
    known = np.arange(600) >= 50
    right = (said == truth.to_numpy())[known].mean()
    assert _metrics(built)["accuracy", ""].bundle == pytest.approx(right, abs=1e-5)
    assert sum(piece.rows for piece in built.manifest.slices) == 550
    with pytest.raises(InputFault, match="missing in every row"):
        make(truth=truth.map(lambda _: None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"require": ("rmse<=1",)}, "no figure of a classification model"),
        ({"require": ("roc_auc",)}, "not understood"),
        ({"require": ("recall[site=graz]>=1",)}, "no slice 'site=graz'"),
        ({"require": ("recall_difference[pump]>=1",), "slices": ("site",)}, "no slice 'pump'"),
        ({"slices": ("sight",)}, "no such column"),
        ({"slices": ("site", "site")}, "twice"),
        ({"device": "pi9"}, "no device known"),
        ({"max_regressions": 0.1}, "compares with an older bundle"),
        ({"target": "", "require": ("accuracy>=0.5",)}, "needs the true answers"),
        ({"baseline": Path("absent.edgepack")}, "--baseline absent.edgepack"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_conversion(
    options: dict[str, Any], message: str, make: Any
) -> None:
    with pytest.raises(InputFault, match=message):
        make(**options)


# An older bundle


def test_an_older_bundle_is_compared_row_by_row(make: Any, machines: Any) -> None:
    _, target = machines
    old = make(fit=slice(0, 60), folder="old", version="0.9")
    new = make(baseline=old.config.out, slices=("site",))
    before, after = np.array(_predicted(old)), np.array(_predicted(new))
    truth = target.to_numpy()
    found = new.manifest.baseline
    assert found is not None and (found.version, found.digest) == ("0.9", old.digest)
    assert found.rows == found.judged == 600
    assert found.changed == (before != after).sum() > 0
    assert found.regressions == ((before == truth) & (after != truth)).sum()
    assert found.fixed == ((before != truth) & (after == truth)).sum() > 0
    changes = {change.name: change for change in found.metrics}
    assert changes["accuracy"].after == _metrics(new)["accuracy", ""].bundle
    assert changes["accuracy"].before == pytest.approx((before == truth).mean(), abs=1e-5)
    low, high = changes["accuracy"].low, changes["accuracy"].high
    assert low is not None and low <= (after == truth).mean() - (before == truth).mean() <= high
    narrow = _metrics(new)["accuracy", ""]
    assert high - low < 2 * (narrow.high - narrow.low) + 0.1


def test_too_many_regressions_stop_the_build(make: Any) -> None:
    good = make(folder="good")
    with pytest.raises(BuildFault, match=r"regressions +<=1.0000% +\d+\.\d+% \(\d+ of 600 rows\)"):
        make(fit=slice(0, 40), baseline=good.config.out, max_regressions=0.01, folder="bad")
    held = make(baseline=good.config.out, max_regressions=0.0, folder="same")
    assert held.manifest.baseline.regressions == held.manifest.baseline.changed == 0
    assert held.manifest.gates[0].passed


def test_a_baseline_of_other_columns_or_another_task_is_refused(
    make: Any, machines: Any, diabetes: Any, pack: Any
) -> None:
    frame, target = diabetes
    other = pack(LinearRegression().fit(frame, target), frame.join(target), "progression")
    with pytest.raises(InputFault, match="of the task regression"):
        make(baseline=other.config.out)
    old = make(folder="old")
    whole, labels = machines
    slim = pack(
        LinearRegression().fit(whole[["vibration"]], (labels == "runs").astype(float)),
        whole[["vibration"]].assign(y=(labels == "runs").astype(float)), "y",
    )  # fmt: skip
    with pytest.raises(InputFault, match=r"--baseline .*task"):
        make(baseline=slim.config.out, folder="b")
    assert old.manifest.baseline is None


def test_a_baseline_answers_only_rows_that_it_takes(make: Any, machines: Any) -> None:
    frame, _ = machines
    whole = frame.assign(temperature=frame.temperature.fillna(60.0))
    old = make(frame=whole, folder="old")  # it never saw a missing temperature: it refuses them
    assert make(baseline=old.config.out).manifest.baseline.rows == 580


# Other tasks


def test_a_regression_has_its_own_figures_and_gates(diabetes: Any, pack: Any) -> None:
    frame, target = diabetes
    model = LinearRegression().fit(frame, target)
    built = pack(
        model, frame.join(target), "progression", slices=("bmi",),
        require=("r2>=0.4", "rmse[bmi=q1].high<=70", "mae_ratio[bmi]>=0.5"),
    )  # fmt: skip
    assert [gate.passed for gate in built.manifest.gates] == [True] * 3
    found = _metrics(built)
    assert found["rmse", ""].bundle == pytest.approx(
        peers.root_mean_squared_error(target, model.predict(frame)), rel=1e-4
    )
    with pytest.raises(InputFault, match="a regression has none"):
        pack(
            model, frame.join(target), "progression", baseline=built.config.out,
            max_regressions=0.1,
        )  # fmt: skip
    again = pack(model, frame.join(target), "progression", baseline=built.config.out)
    assert again.manifest.baseline.changed == 0
    assert {change.name for change in again.manifest.baseline.metrics} >= {"rmse", "r2"}


def test_clusters_have_a_silhouette(wine: Any, pack: Any) -> None:
    frame, _ = wine
    model = make_pipeline(StandardScaler(), KMeans(3, random_state=0, n_init=3)).fit(frame)
    built = pack(model, frame, require=("silhouette>=0.1",))
    expected = peers.silhouette_score(frame, model.predict(frame))
    (metric,) = built.manifest.metrics
    assert metric.bundle == pytest.approx(expected, abs=1e-5) and built.manifest.gates[0].passed
    assert metric.low < metric.bundle < metric.high


@pytest.mark.parametrize("convention", ["signs", "truth values"])
def test_outliers_have_a_flagged_share_and_with_answers_a_recall(
    convention: str, wine: Any, pack: Any
) -> None:
    frame, _ = wine
    model = IsolationForest(n_estimators=20, random_state=0).fit(frame)
    built = pack(model, frame, require=("flagged_share<=50%",))
    flagged = model.predict(frame) == -1
    assert _metrics(built)["flagged_share", ""].bundle == pytest.approx(flagged.mean(), abs=1e-5)
    odd = np.arange(len(frame)) % 7 == 0
    truth = pd.Series(np.where(odd, -1, 1) if convention == "signs" else odd, name="odd")
    found = _metrics(pack(model, frame.join(truth), "odd"))
    assert found["recall", ""].bundle == pytest.approx(peers.recall_score(odd, flagged), abs=1e-5)
    with pytest.raises(InputFault, match="does not say which rows are outliers"):
        pack(model, frame.assign(odd=1), "odd")


# Data


def test_warnings_are_told_and_strict_data_stops_on_them(make: Any, machines: Any) -> None:
    frame, target = machines
    leaky = frame.assign(vibration=np.where(target == "fails", 0.2, 0.01) + frame.vibration / 1e3)
    told: list[str] = []
    built = make(frame=leaky, told=told)
    assert any("data: 'vibration' alone gives the target" in text for text in told)
    assert "missing values" in {one.check for one in built.data}
    with pytest.raises(BuildFault, match="--strict-data forbids") as error:
        make(frame=leaky, strict_data=True, folder="strict")
    assert "'vibration' alone gives" in error.value.what
    make(strict_data=True, folder="clean")


# The command


def test_the_command_takes_it_all_and_says_what_failed(make: Any, tmp_path: Path) -> None:
    old = make(folder="old")
    folder, out = tmp_path / "old", str(tmp_path / "new.edgepack")
    given = [
        "build", str(folder / "model.joblib"), "--data", str(folder / "rows.csv"),
        "--target", "state", "--name", "pump", "--version", "1.1", "-o", out, "--no-measure",
        "--slice", "site", "--baseline", str(old.config.out), "--max-regressions", "0%",
        "--device", "container", "--require", "accuracy[site=graz]>=0.5",
    ]  # fmt: skip
    said = CliRunner().invoke(app, [*given, "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.output.splitlines()[-1])
    assert [gate["name"] for gate in found["manifest"]["gates"]] == [
        "accuracy[site=graz]", "regressions", "memory",
    ]  # fmt: skip
    assert {one["check"] for one in found["data"]} >= {"missing values"}
    positive = found["manifest"]["outputs"]["labels"][1]
    shown = CliRunner().invoke(app, ["inspect", out])
    for part in ("95 %", "site=graz", "gates", "against pump 1.0", f"recall of {positive}"):
        assert part in shown.output
    failed = CliRunner().invoke(app, [*given, "--require", "f1>=1.5"])
    assert isinstance(failed.exception, BuildFault)


def test_the_same_build_gives_the_same_bytes(make: Any) -> None:
    options: dict[str, Any] = {"slices": ("site", "vibration"), "require": ("f1>=0.5",)}
    first = make(folder="one", **options)
    second = make(folder="two", **options)
    assert first.config.out.read_bytes() == second.config.out.read_bytes()


def test_without_fairlearn_slices_name_the_extra() -> None:
    """In a process whose import system has no fairlearn."""
    code = (
        "import sys; sys.modules['fairlearn'] = None\n"
        "from edge_contract.ports import command\n"
        "from edge_pack.gates.disparity import frame\n"
        "command.run(frame)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 4 and "edge-pack[fairness]" in done.stderr
