"""What would be silently wrong on a device is refused, with the step and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from msgspec.structs import replace as with_fields
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from edge_contract.errors import BuildFault, InputFault
from edge_contract.manifest import Feature
from edge_pack import asking, reading


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_large_offsets_at_fine_resolution_are_refused(iot: Any, pack: Any, tmp_path: Path) -> None:
    """Without a scaler this kernel differs from 1 by less than float32 holds."""
    frame, _ = iot
    model = SVR().fit(frame.iloc[:600], np.sin(frame.pressure_pa.iloc[:600]))
    with pytest.raises(BuildFault) as refusal:
        pack(model, frame)
    assert "largest difference" in refusal.value.what and "budget 0.01" in refusal.value.what
    assert "row " in refusal.value.what
    assert "offset" in refusal.value.advice
    assert not (tmp_path / "model.edgepack").exists()


@pytest.mark.parametrize(
    "trees",
    [RandomForestClassifier(10, random_state=0), HistGradientBoostingClassifier(max_iter=20)],
    ids=["forest", "boosting"],
)
def test_a_scaler_before_trees_is_no_obstacle_to_large_offsets(
    trees: Any, iot: Any, pack: Any
) -> None:
    frame, target = iot
    model = make_pipeline(StandardScaler(), trees).fit(frame, target)
    parity = pack(model, frame.join(target), "state").manifest.parity
    assert parity.flips == 0 and parity.diff_max < 1e-5


def test_a_forest_alone_keeps_every_label_on_the_same_rows(iot: Any, pack: Any) -> None:
    """Half of its trees tie on some rows: votes are counted whole, so a tie falls the same way."""
    frame, target = iot
    model = RandomForestClassifier(20, random_state=0).fit(frame, target)
    tied = np.isclose(model.predict_proba(frame)[:, 0], 0.5)
    assert tied.any()
    built = pack(model, frame.join(target), "state")
    assert built.manifest.parity.flips == 0


def test_force_seals_it_and_says_so_in_the_manifest(
    digits_mlp: Any, digits: Any, pack: Any
) -> None:
    frame, target = digits
    built = pack(digits_mlp, frame.join(target), "digit", max_diff=0.0, force=True)
    parity = reading.open_bundle(built.config.out).manifest.parity
    assert parity.forced and parity.diff_max > 0
    wide = pack(digits_mlp, frame.join(target), "digit", max_flips=1.0, max_diff=1.0)
    assert not wide.manifest.parity.forced


def test_categorical_splits_keep_every_label(pack: Any) -> None:
    """The stock converter turns them into ``<=``, silently: half of the labels change."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"kind": rng.integers(0, 9, 400), "x": rng.normal(size=400)})
    target = pd.Series((frame.kind % 3 == 0).astype(int), name="y")
    model = make_pipeline(HistGradientBoostingClassifier(max_iter=5, categorical_features=[0]))
    model.fit(frame, target)
    parity = pack(model, frame.join(target), "y").manifest.parity
    assert parity.flips == 0 and parity.diff_max < 1e-5


def _square(x: Any) -> Any:
    return x**2


def test_a_step_without_conversion_is_named(wine: Any, pack: Any) -> None:
    frame, target = wine
    model = make_pipeline(FunctionTransformer(_square), LogisticRegression()).fit(frame, target)
    with pytest.raises(BuildFault, match="functiontransformer") as refusal:
        pack(model, frame.join(target), "kind")
    assert "before the model" in refusal.value.advice


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("inner", [LogisticRegression(), LinearSVC()])
def test_a_threshold_of_decisions_is_named(inner: Any, wine: Any, pack: Any) -> None:
    frame, target = wine
    method = "decision_function" if hasattr(inner, "predict_proba") else "auto"
    model = FixedThresholdClassifier(inner, threshold=0.3, response_method=method)
    with pytest.raises(BuildFault, match=r"FixedThreshold.*decision_function") as refusal:
        pack(model.fit(frame, target == target.iloc[0]), frame)
    assert "predict_proba" in refusal.value.advice


def test_offsets_are_blamed_only_where_there_are_some() -> None:
    meter = Feature(name="a", minimum=1_700_000.25, maximum=1_700_900, resolution=0.25)
    for feature, blamed in (
        (meter, True),
        (with_fields(meter, resolution=None), True),
        (Feature(name="a", minimum=0.5, maximum=9.5, resolution=0.01), False),
        (Feature(name="a", type="category"), False),
    ):
        assert asking._far(feature) == blamed


def test_an_unknown_step_is_named(wine: Any, pack: Any) -> None:
    from sklearn.kernel_approximation import SkewedChi2Sampler

    frame, target = wine
    model = make_pipeline(SkewedChi2Sampler(random_state=0), LogisticRegression(max_iter=500))
    model.fit(frame, target)
    with pytest.raises(BuildFault, match=r"'skewedchi2sampler' \(SkewedChi2Sampler\)"):
        pack(model, frame.join(target), "kind")


def test_several_labels_a_row_are_refused(wine: Any, pack: Any) -> None:
    frame, target = wine
    both = np.column_stack([target == "class_0", frame.alcohol > 13])
    model = MultiOutputClassifier(DecisionTreeClassifier(max_depth=2)).fit(frame, both)
    with pytest.raises(BuildFault, match="2 labels a row"):
        pack(model, frame)


def test_int8_storage_of_a_forest_is_refused_since_it_changes_nothing(wine: Any, pack: Any) -> None:
    frame, target = wine
    model = RandomForestClassifier(5, random_state=0).fit(frame, target)
    with pytest.raises(BuildFault, match="changed nothing"):
        pack(model, frame.join(target), "kind", quantize="int8-storage")


def test_a_budget_of_nothing_refuses_int8_and_auto_falls_back(
    digits_mlp: Any, digits: Any, pack: Any
) -> None:
    frame, target = digits
    with pytest.raises(BuildFault, match="largest difference"):
        pack(digits_mlp, frame.join(target), "digit", quantize="int8-storage", max_diff=1e-4)
    built = pack(digits_mlp, frame.join(target), "digit", quantize="auto", max_diff=1e-4)
    assert built.manifest.compression.mode == "none"
    assert set(built.sizes) == {"none", "int8-storage", "int4-storage", "fp16-storage"}
    free = pack(digits_mlp, frame.join(target), "digit", max_flips=0.01, max_diff=0.05)
    assert free.manifest.compression.mode == "int8-storage"
    assert free.sizes["int8-storage"] < 0.4 * free.sizes["none"]


def _linear(
    weights: np.ndarray, *, opset: int = 17, domain: str = "", ir: int = 8
) -> onnx.ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Softmax", ["h"], ["p"], axis=1, domain=domain),
        ],
        "/home/someone/train.py",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", weights.shape[0]])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", weights.shape[1]])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    imports = [helper.make_opsetid("", opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def test_a_model_newer_than_the_devices_runtime_is_written_down_to_it(
    pack: Any, tmp_path: Path
) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 4)), columns=list("abcd"))
    path = tmp_path / "new.onnx"
    onnx.save(_linear(np.eye(4), opset=22, ir=10), path)
    lowered = pack(path, frame).manifest.runtime
    assert lowered.opsets[""] <= 21 and lowered.onnxruntime in ("1.15", "1.17", "1.18")
    assert pack(path, frame, runtime=">=1.21").manifest.runtime.onnxruntime == "1.21"


def test_custom_operators_are_refused_by_name(pack: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame(np.eye(4), columns=list("abcd"))
    path = tmp_path / "custom.onnx"
    onnx.save(_linear(np.eye(4), domain="my.company"), path)
    with pytest.raises((BuildFault, InputFault), match=r"my\.company"):
        pack(path, frame)
