"""Directions and tensors' figures: any row gives finite figures or none, old profiles are read."""

from __future__ import annotations

import base64
import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_contract import profile as profiles
from edge_contract import projection, tensor_figures
from edge_contract.errors import InputFault
from edge_contract.profile import Monitor, Profile
from edge_contract.projection import Projection, Projector
from edge_contract.residuals import Residuals
from edge_contract.tensor_figures import Tensor

MATRIX = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, -0.5]])
PLAIN = Projection(
    inputs=("a", "b", "c"),
    elements=3,
    means=(0.0, 10.0, 0.0),
    scales=(1.0, 2.0, 1.0),
    directions=2,
    matrix=projection.pack(MATRIX),
)
ANY = arrays.arrays(
    np.float64, st.tuples(st.integers(0, 20), st.just(3)), elements=st.floats(width=64)
)


def test_a_row_is_standardised_clipped_and_projected() -> None:
    rows = np.array([[1.0, 12.0, 0.0], [1e300, 10.0, -3.0]])
    assert Projector(PLAIN)(rows).tolist() == [[1.0, 0.5], [8.0, 1.5]]


def test_a_missing_number_is_the_mean_and_a_row_of_them_has_no_projection() -> None:
    nan = np.nan
    found = Projector(PLAIN)(np.array([[1.0, nan, 2.0], [nan, np.inf, 2.0]]))
    assert found[0].tolist() == [1.0, -1.0]
    assert np.isnan(found[1]).all()
    assert np.isnan(Projector(PLAIN)(np.zeros((2, 4)))).all()  # a row of another length


@given(ANY)
def test_any_row_gives_a_figure_or_none(rows: np.ndarray) -> None:
    found = Projector(PLAIN)(rows)
    lacking = (~np.isfinite(rows)).mean(axis=1) > projection.MISSING_MAX
    assert found.shape == (len(rows), 2)
    assert (np.isnan(found).all(axis=1) == lacking).all()
    assert (np.abs(found[~lacking]) <= 8.0).all()


@given(arrays.arrays(np.float64, (7, 5), elements=st.floats(-1e6, 1e6)), st.integers(1, 5))
def test_groups_are_means_of_successive_inputs(z: np.ndarray, group: int) -> None:
    expected = [z[:, at : at + group].mean(axis=1) for at in range(0, 5, group)]
    np.testing.assert_allclose(
        projection.grouped(z, group), np.stack(expected, axis=1), rtol=1e-9, atol=1e-6
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"directions": 3},
        {"directions": 0, "matrix": ""},
        {"scales": (1.0, 0.0, 1.0)},
        {"scales": (1.0, 2.0)},
        {"means": (0.0, float("nan"), 0.0)},
        {"matrix": "not base64!"},
        {"matrix": base64.b64encode(np.full((2, 3), np.inf, "<f2").tobytes()).decode()},
        {"tensor": "x"},
        {"inputs": ()},
        {"group": 0},
        {"elements": 4},
    ],
)
def test_an_inconsistent_projection_is_refused(changes: dict) -> None:
    broken = msgspec.structs.replace(PLAIN, **changes)
    with pytest.raises(InputFault, match="projection"):
        profiles.decode(profiles.encode(Profile(rows=0, monitors=(), projections=(broken,))))


def test_a_direction_that_nobody_declares_is_refused() -> None:
    monitor = Monitor(
        name="pc1", kind="lattice", source="projection", edges=(0.0,), counts=(0,) * 6
    )
    with pytest.raises(InputFault, match="does not declare"):
        profiles.decode(profiles.encode(Profile(rows=0, monitors=(monitor,))))
    whole = Profile(rows=0, monitors=(monitor,), projections=(PLAIN,))
    assert profiles.decode(profiles.encode(whole)) == whole
    twice = msgspec.structs.replace(whole, projections=(PLAIN, PLAIN))
    with pytest.raises(InputFault, match="twice"):
        profiles.decode(profiles.encode(twice))


SCORE = Monitor(
    name="prediction", kind="score", source="output", labels=2, edges=(0.0, 0.5, 1.0),
    counts=(3, 0, 0, 4, 1), labelled=(2, 0, 0, 1, 1, 0, 0, 3),
)  # fmt: skip


def test_labelled_counts_are_by_true_label_predicted_label_and_bin() -> None:
    read = profiles.decode(profiles.encode(Profile(rows=8, monitors=(SCORE,)))).monitors[0]
    counts = read.labelled_counts()
    assert counts is not None and counts.shape == (2, 2, 2)
    assert counts[1, 1].tolist() == [0, 3]  # truly and predicted the second label, upper bin
    assert read.missing_rate == 1 / 8
    assert msgspec.structs.replace(SCORE, labelled=()).labelled_counts() is None


@pytest.mark.parametrize(
    "labelled", [(1, 0, 0), (4, 0, 0, 0, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0, 0, 0)]
)
def test_labelled_counts_that_cannot_be_are_refused(labelled: tuple[int, ...]) -> None:
    broken = msgspec.structs.replace(SCORE, labelled=labelled)
    with pytest.raises(InputFault, match="labelled"):
        profiles.decode(profiles.encode(Profile(rows=8, monitors=(broken,))))


def test_a_profile_of_before_is_read_and_counted_and_coded_alike() -> None:
    """As profiles were written before directions, cycles and power: sixteen score bins, no more."""
    edges = [i / 16 for i in range(17)]
    old = {
        "schema": 1, "rows": 4, "time_ordered": False,
        "monitors": [
            {"name": "t", "kind": "quantile", "edges": [0.0, 1.0, 2.0], "mean": 1.0, "std": 0.5,
             "counts": [2, 1, 0, 0, 0, 1, 0]},
            {"name": "prediction", "kind": "score", "source": "output", "edges": edges, "labels": 2,
             "counts": [4] + [0] * 32},
        ],
    }  # fmt: skip
    profile = profiles.decode(json.dumps(old).encode())
    assert (profile.projections, profile.tensors, profile.power) == ((), (), None)
    number, score = profile.monitors
    assert (number.longest_run, number.tolerance, number.components) == (0, 0.0, ())
    assert profiles.count_numbers(number, np.array([0.5, 9.0])).tolist() == [1, 0, 0, 1, 0, 0, 0]
    labels, scores = np.array([1, 0]), np.array([0.99, 0.01])
    assert profiles.count_scores(score, labels, scores)[[0, 31]].tolist() == [1, 1]
    counts = np.concatenate([number.counts, score.counts])
    assert Residuals(profile).write(counts, 4).hex() == "ff" * 5


# -- figures of a tensor -------------------------------------------------------------------


def test_figures_of_a_row_are_numpys() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, size=(5, 3, 8, 8)).astype(np.uint8)
    sample = tensor_figures.sample(image, 5)
    assert sample is not None
    flat = image.reshape(5, -1).astype(np.float64)
    expected = np.stack(
        [flat.mean(1), flat.std(1), flat.min(1), flat.max(1), (flat == 0).mean(1),
         (flat >= 250).mean(1)], axis=1,
    )  # fmt: skip
    np.testing.assert_allclose(tensor_figures.figures(sample, 250.0), expected, rtol=1e-12)


@given(st.integers(1, 3_000_000))
def test_a_row_of_any_size_costs_no_more_than_the_limit(elements: int) -> None:
    step = tensor_figures.step_of(elements)
    assert -(-elements // step) <= tensor_figures.ELEMENTS_MAX
    assert step == 1 or step % 2 == 1


def test_what_is_no_row_of_numbers_has_no_sample_and_a_nan_no_figure() -> None:
    assert tensor_figures.sample(np.zeros((2, 3)), 5) is None
    assert tensor_figures.sample(np.array(["a"]), 1) is None
    assert tensor_figures.sample(np.array(1.0), 1) is None
    sample = tensor_figures.sample(np.array([[1.0, np.nan]]), 1)
    assert sample is not None
    assert np.isnan(tensor_figures.figures(sample, 1.0)[0, :4]).all()
    assert np.isnan(tensor_figures.figures(np.zeros((1, 0), np.float32), 1.0)).all()
    assert Tensor(name="x", top=1.0).names[0] == "x:mean"
