"""What doctor says is what a build does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PowerTransformer, StandardScaler
from typer.testing import CliRunner

from edge_contract.errors import BuildFault
from edge_pack.cli import app
from edge_pack.estimators import patterns


def _doctor(*arguments: object) -> tuple[int, list[dict[str, str]]]:
    done = CliRunner().invoke(app, ["doctor", *map(str, arguments), "--json"])
    return done.exit_code, msgspec.json.decode(done.stdout or b"[]")


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    def save(model: Any) -> Path:
        path = tmp_path / "model.joblib"
        joblib.dump(model, path)
        return path

    return save


def test_a_refused_step_is_named_and_the_code_is_3(wine: Any, saved: Any, pack: Any) -> None:
    frame, target = wine
    model = GaussianProcessClassifier().fit(frame.iloc[::4], target.iloc[::4])
    code, found = _doctor(saved(model))
    assert code == 3
    assert found[0]["severity"] == "refused" and "SVC" in found[0]["action"]
    with pytest.raises(BuildFault, match="there is no conversion") as refusal:
        pack(model, frame.join(target), "kind")
    assert refusal.value.advice == found[0]["action"]


@pytest.mark.parametrize(
    "step", [FunctionTransformer(np.cbrt), HashingVectorizer()], ids=["function", "hash"]
)
def test_the_registry_is_what_a_build_refuses_by(step: Any) -> None:
    model = make_pipeline(step, LogisticRegression())
    found = [f for f in patterns.of_model(model) if f.severity == "refused"]
    with pytest.raises(BuildFault) as refusal:
        patterns.check_supported(model)
    assert [f.action for f in found] == [refusal.value.advice]


def test_what_is_handled_and_what_is_slow(iot: Any, saved: Any, tmp_path: Path) -> None:
    frame, target = iot
    frame, target = frame.iloc[:300], target.iloc[:300]
    rows = tmp_path / "rows.csv"
    frame.assign(state=target, empty=np.nan, same=1).to_csv(rows, index=False)
    model = make_pipeline(PowerTransformer(), KNeighborsClassifier()).fit(frame, target)
    code, found = _doctor(saved(model), "--data", rows, "--target", "state")
    seen = {(finding["pattern"], finding["severity"]) for finding in found}
    assert code == 0
    assert ("large-offset", "handled") in seen
    assert ("slower-as-onnx", "slow") in seen
    assert ("float32-loses-answers", "handled") in seen


def test_a_scaler_before_trees_is_folded(wine: Any, saved: Any) -> None:
    frame, target = wine
    model = make_pipeline(StandardScaler(), RandomForestClassifier(3, random_state=0))
    code, found = _doctor(saved(model.fit(frame, target)))
    assert code == 0 and any(f["pattern"] == "scaler-before-trees" for f in found)


def test_columns_picked_from_a_name_to_a_name(wine: Any, saved: Any, tmp_path: Path) -> None:
    frame, target = wine
    frame.join(target).to_csv(tmp_path / "rows.csv", index=False)
    columns = make_column_transformer((StandardScaler(), slice(frame.columns[0], frame.columns[2])))
    model = make_pipeline(columns, LogisticRegression()).fit(frame, target)
    code, _ = _doctor(saved(model), "--data", tmp_path / "rows.csv", "--target", "kind")
    assert code == 0


def test_columns_without_content(saved: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=50), "same": 1.0, "b": rng.normal(size=50)})
    model = LogisticRegression().fit(frame, frame.a > 0)
    frame.loc[3, "b"] = np.nan
    frame.to_csv(tmp_path / "rows.csv", index=False)
    code, found = _doctor(saved(model), "--data", tmp_path / "rows.csv")
    assert code == 3  # the model refuses missing values, and so does the build
    patterns_found = {finding["pattern"] for finding in found}
    assert {"constant-column", "missing-values", "build-stops"} <= patterns_found


def test_an_onnx_file_is_held_against_the_fleet(tmp_path: Path) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 1, 1, 1], [1.0, 2, 3, 4])
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], group=4)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, "h", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, "h", 8])], [weights],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)],
                                ir_version=10), path)  # fmt: skip
    code, found = _doctor(path, "--runtime", ">=1.18")
    assert code == 3
    seen = {finding["pattern"] for finding in found}
    assert {"newer-than-the-fleet", "depthwise-convolution", "dynamic-shape"} <= seen
    assert _doctor(path, "--runtime", ">=1.21")[0] == 0


def test_nothing_found_is_said(wine: Any, saved: Any) -> None:
    frame, target = wine
    path = saved(LogisticRegression(max_iter=500).fit(frame, target))
    done = CliRunner().invoke(app, ["doctor", str(path)])
    assert done.exit_code == 0 and "no known-bad pattern" in done.stdout
