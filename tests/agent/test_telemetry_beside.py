"""A window counts directions and tensors as the contract does, however the rows came in."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent import Model
from edge_agent.inputs import Batch
from edge_agent.telemetry import Window
from edge_agent.telemetry.beside import Beside
from edge_contract import bundle as bundles
from edge_contract import profile as profiles
from edge_contract import projection, tensor_figures
from edge_contract.errors import InputFault
from edge_contract.profile import Monitor, Profile
from edge_contract.projection import Projection, Projector
from edge_contract.tensor_figures import Tensor


def _monitor(name: str, source: Any, low: float = -3.0, high: float = 3.0) -> Monitor:
    return Monitor(
        name=name, kind="quantile", source=source, counts=(0,) * 13,
        edges=tuple(np.linspace(low, high, 9).tolist()),
    )  # fmt: skip


def _projection(inputs: tuple[str, ...], directions: int = 3, **more: Any) -> Projection:
    elements = more.pop("elements", len(inputs))
    group = more.pop("group", 1)
    matrix = np.random.default_rng(elements).normal(size=(directions, -(-elements // group)))
    return Projection(
        inputs=inputs, elements=elements, means=(0.1,), scales=(1.5,), group=group,
        directions=directions, matrix=projection.pack(matrix), **more,
    )  # fmt: skip


def _with(profile: Profile, one: Projection) -> Profile:
    directions = tuple(_monitor(name, "projection") for name in one.names)
    return msgspec.structs.replace(
        profile, monitors=(*profile.monitors, *directions), projections=(one,)
    )


@pytest.fixture
def pump(tiny_bundle) -> Model:
    return Model.from_bundle(bundles.read(tiny_bundle()))


@pytest.mark.parametrize("way", ["dicts", "matrix", "batches"])
def test_directions_through_features_are_counted_whatever_the_rows_came_in(
    pump: Model, way: str
) -> None:
    assert pump.profile is not None
    one = _projection(("volt", "temp", "hum"))  # not in the manifest's order
    whole = _with(pump.profile, one)
    window = pump.observer = Window(pump.manifest, whole)
    rows = np.random.default_rng(3).normal(size=(600, 4))
    names = [feature.name for feature in pump.manifest.features]
    match way:
        case "dicts":
            for row in rows.tolist():
                pump.predict(dict(zip(names, row, strict=True)))
        case "matrix":
            pump.predict(rows)
        case "batches":
            for start in range(0, 600, 7):
                pump.predict(rows[start : start + 7])
    cells = window.close().cells
    projected = Projector(one)(rows[:, [names.index(name) for name in one.inputs]])
    for at, start in enumerate(whole.offsets()[-3:]):
        expected = profiles.count_numbers(whole.monitors[at - 3], projected[:, at])
        np.testing.assert_array_equal(cells[start : start + 13], expected)


def test_a_projection_of_what_is_no_number_feature_is_refused(pump: Model) -> None:
    assert pump.profile is not None
    with pytest.raises(InputFault, match="'nobody'"):
        Window(pump.manifest, _with(pump.profile, _projection(("temp", "nobody"))))


TENSORS = Profile(
    rows=0,
    monitors=(
        *(_monitor(f"x:{figure}", "tensor") for figure in tensor_figures.FIGURES),
        *(_monitor(f"x:pc{at}", "projection") for at in (1, 2)),
    ),
    projections=(_projection((), 2, tensor="x", elements=12, group=5),),
    tensors=(Tensor(name="x", top=1.0),),
)


def _columns(tensor: np.ndarray) -> np.ndarray:
    sample = tensor_figures.sample(tensor, len(tensor))
    assert sample is not None
    return np.concatenate(
        [tensor_figures.figures(sample, 1.0), Projector(TENSORS.projections[0])(sample)], axis=1
    )


@pytest.mark.parametrize("large", [1, 10**9], ids=["each at once", "together"])
def test_calls_of_any_size_have_the_same_figures(large: int) -> None:
    rng = np.random.default_rng(5)
    calls = [rng.normal(size=(rows, 3, 4)).astype(np.float32) for rows in (1, 5, 2, 9)]
    beside = Beside(TENSORS, (), large=large, part=24)
    taken = [beside.take({"x": call}, len(call)) for call in calls]
    for call in calls:
        call[:] = 99.0  # the caller's memory is the caller's
    rng = np.random.default_rng(5)
    calls = [rng.normal(size=(rows, 3, 4)).astype(np.float32) for rows in (1, 5, 2, 9)]
    found = beside.values(np.zeros((17, 0)), taken, [1, 5, 2, 9])
    expected = np.concatenate([_columns(call) for call in calls])
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert [beside.columns["tensor", "x:mean"], beside.columns["projection", "x:pc2"]] == [0, 7]


@pytest.mark.parametrize("large", [1, 10**9], ids=["each at once", "together"])
def test_a_call_without_rows_has_no_figures(large: int) -> None:
    beside = Beside(TENSORS, (), large=large)
    empty, one = np.zeros((0, 3, 4), np.float32), np.ones((1, 3, 4), np.float32)
    taken = [beside.take({"x": empty, "y": one}, 0), beside.take({"x": one}, 1)]
    found = beside.values(np.zeros((1, 0)), taken, [0, 1])
    assert (found.shape, found[0, 0]) == ((1, len(beside.columns)), 1.0)


def test_another_shape_is_counted_without_directions_and_none_at_all_as_missing() -> None:
    beside = Beside(TENSORS, ())
    wide, fit = np.ones((2, 20), np.float32), np.zeros((1, 12), np.float32)
    calls = [({"x": wide}, 2), ({"x": fit}, 1), ({"x": fit}, 3), ({}, 1)]
    taken = [beside.take(feeds, rows) for feeds, rows in calls]
    found = beside.values(np.zeros((7, 0)), taken, [2, 1, 3, 1])
    assert found[:2, 0].tolist() == [1.0, 1.0] and np.isnan(found[:2, 6:]).all()
    assert np.isfinite(found[2]).all()
    assert np.isnan(found[3:]).all()


def test_a_window_of_tensors_adds_up_to_its_rows(pump: Model) -> None:
    manifest = msgspec.structs.replace(pump.manifest, features=())
    window = Window(manifest, TENSORS)
    rng = np.random.default_rng(1)
    total = 0
    for rows in (1, 3, 40, 1, 1):
        feeds = {"x": rng.normal(size=(rows, 12)).astype(np.float32)}
        window.observe(Batch(feeds, rows, False), [-1] * rows, [np.nan] * rows, 1000)
        total += rows
    counts = window.close()
    assert counts.rows == total == 46
    for monitor, start in zip(TENSORS.monitors, TENSORS.offsets(), strict=True):
        assert counts.cells[start : start + monitor.cells].sum() == total
