"""What the tensors mean, and that nothing that is not finite or declared gets out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_agent.outputs import Outputs
from edge_contract import manifest as manifests
from edge_contract.errors import InputFault, MachineFault
from edge_contract.manifest import Manifest


@pytest.fixture(scope="module")
def base(tiny_bundle) -> Manifest:
    from edge_contract import bundle

    return bundle.read(tiny_bundle()).manifest


def reader(base: Manifest, tensors=("label", "scores", "value"), **declared) -> Outputs:
    import msgspec

    outputs = manifests.Outputs(tensors=tensors, **declared)
    return Outputs(msgspec.structs.replace(base, outputs=outputs), tensors)


def scores(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


LABEL = np.array(["x"], dtype=object)
VALUE = np.array([[0.5]], dtype=np.float32)


def test_the_label_tensor_decides_and_probabilities_are_named(base: Manifest) -> None:
    read = reader(base, label="label", scores="scores", labels=("x", "y", "z")).read
    found = read([np.array(["y"], dtype=object), scores([0.5, 0.3, 0.2]), VALUE], 1)
    assert found.predictions[0].label == "y"
    assert list(found.predictions[0].probabilities) == ["x", "y", "z"]
    assert list(found.labels) == [1]
    assert list(found.scores) == pytest.approx([0.3])


def test_without_a_label_tensor_the_best_score_decides(base: Manifest) -> None:
    read = reader(base, scores="scores", labels=(3, 1, 2)).read
    found = read([LABEL, scores([0.2, 0.5, 0.3], [0.9, 0.05, 0.05]), VALUE], 2)
    assert [p.label for p in found.predictions] == [1, 3]
    assert list(found.predictions[0].probabilities) == ["3", "1", "2"]


@pytest.mark.parametrize(
    ("threshold", "score", "label"),
    [(0.5, 0.5, True), (0.5, 0.49, False), (0.9, 0.8, False), (0.1, 0.2, True), (0.0, 0.0, True)],
)
def test_the_threshold_decides_between_two(base, threshold, score, label) -> None:
    read = reader(
        base, label="label", scores="scores", labels=(False, True), threshold=threshold
    ).read
    found = read([np.array([0]), np.array([[1 - score, score]]), VALUE], 1)
    assert found.predictions[0].label is label
    assert list(found.scores) == [score], "telemetry keeps the last label's score of two"


def test_labels_keep_the_manifests_type(base: Manifest) -> None:
    read = reader(base, label="label", scores="scores", labels=(False, True)).read
    found = read([np.array([1]), scores([0.4, 0.6]), VALUE], 1)
    assert found.predictions[0].label is True


def test_a_regressions_value_of_either_shape(base: Manifest) -> None:
    read = reader(base, value="value").read
    for tensor in (np.array([[1.5], [2.5]]), np.array([1.5, 2.5])):
        found = read([LABEL, scores(), tensor], 2)
        assert [p.value for p in found.predictions] == [1.5, 2.5]
        assert list(found.scores) == [1.5, 2.5]


def test_an_outlier_model_has_a_label_and_a_value(base: Manifest) -> None:
    read = reader(base, label="label", value="value", labels=(-1, 1)).read
    found = read([np.array([[1], [-1]]), scores(), np.array([[0.2], [-0.3]])], 2)
    assert [(p.label, p.value) for p in found.predictions] == [(1, 0.2), (-1, -0.3)]
    assert list(found.labels) == [1, 0]


def test_a_clusters_number_is_its_index(base: Manifest) -> None:
    found = reader(base, label="label").read([np.array([4, 0]), scores(), VALUE], 2)
    assert [p.label for p in found.predictions] == [4, 0]
    assert list(found.labels) == [4, 0]
    assert all(math.isnan(score) for score in found.scores)


def test_tensors_without_meaning_come_whole(base: Manifest) -> None:
    found = reader(base).read([LABEL, scores([1, 2]), VALUE], 3)
    assert set(found.predictions[0].outputs) == {"label", "scores", "value"}
    assert len(found.labels) == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_failure_and_no_answer(base: Manifest, bad: float) -> None:
    with pytest.raises(MachineFault, match="for row 1"):
        reader(base, scores="scores", labels=("x", "y")).read(
            [LABEL, scores([0.5, 0.5], [bad, 0.5]), VALUE], 2
        )
    with pytest.raises(MachineFault, match="for row 1"):
        reader(base, value="value").read([LABEL, scores(), np.array([1.0, bad])], 2)


def test_values_whose_sum_overflows_are_still_values(base: Manifest) -> None:
    found = reader(base, value="value").read([LABEL, scores(), np.array([1.7e308, 1.7e308])], 2)
    assert [p.value for p in found.predictions] == [1.7e308, 1.7e308]


def test_what_the_manifest_does_not_describe_is_a_failure(base: Manifest) -> None:
    read = reader(base, label="label", scores="scores", labels=("x", "y")).read
    with pytest.raises(MachineFault, match="does not know"):
        read([np.array(["z"], dtype=object), scores([0.5, 0.5]), VALUE], 1)
    with pytest.raises(MachineFault, match="3 scores for 2 labels"):
        read([LABEL, scores([0.5, 0.2, 0.3]), VALUE], 1)
    with pytest.raises(MachineFault, match="2 rows for 1"):
        read([LABEL, scores([0.5, 0.5], [0.5, 0.5]), VALUE], 1)
    with pytest.raises(MachineFault, match="1 rows for 2"):
        reader(base, value="value").read([LABEL, scores(), VALUE], 2)
    with pytest.raises(MachineFault, match="1 rows for 2"):
        reader(base, label="label").read([LABEL, scores(), VALUE], 2)


def test_a_manifest_that_names_what_the_model_lacks_is_refused(base: Manifest) -> None:
    import msgspec

    outputs = manifests.Outputs(tensors=("y",), value="y")
    with pytest.raises(InputFault, match="names the output 'y'"):
        Outputs(msgspec.structs.replace(base, outputs=outputs), ["z"])
    with pytest.raises(InputFault, match="two labels of one name"):
        reader(base, scores="scores", labels=(1, "1"))
