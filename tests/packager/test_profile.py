"""The reference profile: counted as a device counts, edges that rounding cannot cross."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from edge_agent import Model
from edge_agent.telemetry.window import Window
from edge_contract import profile as profiles
from edge_contract.errors import InputFault
from edge_contract.manifest import PROFILE_FILE
from edge_contract.ports.disk import write_atomic
from edge_contract.profile import Monitor, Profile
from edge_pack import profile_build, reading, tables, times
from edge_pack.profile_build import quantile_edges, score_edges, short_between


def _profile(path: Path) -> Profile:
    bundle = reading.open_bundle(path)
    return profiles.decode(bundle.file(PROFILE_FILE))


def _by_name(profile: Profile) -> dict[str, Monitor]:
    return {monitor.name: monitor for monitor in profile.monitors}


def test_kinds_of_monitors(machines: Any, pack: Any) -> None:
    frame, target = machines
    frame = frame.assign(steps=np.arange(len(frame)) % 7)
    model = make_pipeline(
        ColumnTransformer(
            [("t", OneHotEncoder(handle_unknown="ignore"), ["site", "pump"])],
            remainder="passthrough",
        ),
        LogisticRegression(max_iter=500),
    ).fit(frame.fillna(60.0), target)
    built = pack(model, frame.fillna(60.0).join(target), "state")
    profile = _profile(built.config.out)
    monitors = _by_name(profile)
    assert profile.rows == len(frame) and not profile.time_ordered
    assert {name: monitor.kind for name, monitor in monitors.items()} == {
        "site": "category", "temperature": "quantile", "pump": "category",
        "vibration": "quantile", "steps": "lattice", "prediction": "score",
        "pc1": "quantile", "pc2": "quantile", "pc3": "quantile",
    }  # fmt: skip
    assert monitors["steps"].edges == (0, 1, 2, 3, 4, 5, 6)
    assert monitors["site"].categories == ("graz", "lyon", "turin")
    counts = np.array(monitors["vibration"].counts[: monitors["vibration"].regular])
    assert 20 <= len(counts) <= 32 and counts.min() > 0
    assert monitors["prediction"].labels == 2 and 0.5 in monitors["prediction"].edges
    assert monitors["temperature"].mean == pytest.approx(frame.temperature.fillna(60).mean())
    assert all(monitor.design_effect == 1 for monitor in profile.monitors)


def test_a_device_that_sees_the_reference_counts_the_reference(
    machines: Any, pack: Any, tmp_path: Path
) -> None:
    """The agent's own window over the same rows gives the very counts of the profile."""
    frame, target = machines
    frame = frame.fillna(61.5)
    numbers = frame[["temperature", "vibration"]]
    model = make_pipeline(
        ColumnTransformer([("t", OneHotEncoder(), ["site", "pump"])], remainder="passthrough"),
        LogisticRegression(max_iter=500),
    ).fit(frame, target)
    built = pack(model, frame.join(target), "state")
    opened = Model.open(built.config.out)
    assert opened.profile is not None
    window = Window(opened.manifest, opened.profile)
    opened.observer = window
    for start in range(0, len(frame), 50):
        opened.predict(frame.iloc[start : start + 50])
    seen = window.close().cells
    for monitor, start in zip(opened.profile.monitors, opened.profile.offsets(), strict=True):
        counted = seen[start : start + monitor.cells]
        assert counted.sum() == len(frame)
        if monitor.source == "projection":  # its reference is the half that it was not fitted to
            assert (counted >= monitor.counts).all() and sum(monitor.counts) == len(frame) // 2
        else:
            assert counted.tolist() == list(monitor.counts), monitor.name
    # Values that were float32 on their way change no cell either.
    single = {name: numbers[name].to_numpy(np.float32).astype(np.float64) for name in numbers}
    for monitor in opened.profile.monitors:
        if monitor.name in single:
            counts = profiles.count_numbers(monitor, single[monitor.name])
            assert counts.tolist() == list(monitor.counts)


def test_labels_without_scores_are_counted(wine: Any, pack: Any) -> None:
    frame, _ = wine
    model = make_pipeline(StandardScaler(), KMeans(3, random_state=0, n_init=2)).fit(frame)
    built = pack(model, frame)
    monitor = _by_name(_profile(built.config.out))["prediction"]
    assert monitor.counts == (*np.bincount(model.predict(frame)).tolist(), 0)


def test_a_regression_monitors_its_values(diabetes: Any, pack: Any) -> None:
    frame, target = diabetes
    built = pack(LinearRegression().fit(frame, target), frame.join(target), "progression")
    monitor = _by_name(_profile(built.config.out))["prediction"]
    assert (monitor.kind, monitor.source, monitor.regular) == ("quantile", "output", 32)


def test_many_categories_are_counted_together(pack: Any) -> None:
    names = [f"k{i:03}" for i in range(100)]
    frame = pd.DataFrame(
        {"kind": [name for i, name in enumerate(names) for _ in range(1 + i // 40)]}
    )
    target = (frame.kind > "k050").astype(int).rename("y")
    model = make_pipeline(
        ColumnTransformer([("t", OneHotEncoder(), ["kind"])]), LogisticRegression()
    ).fit(frame, target)
    built = pack(model, frame.join(target), "y")
    monitor = _by_name(_profile(built.config.out))["kind"]
    assert (len(monitor.categories), len(monitor.others)) == (63, 37)
    assert "k099" in monitor.categories and "k039" in monitor.others
    assert sum(monitor.counts) == len(frame) and monitor.counts[63] == 37


def test_missing_values_have_a_cell(pack: Any, machines: Any) -> None:
    frame, target = machines
    numbers = frame[["temperature", "vibration"]]
    model = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(numbers, target)
    built = pack(model, numbers.join(target), "state")
    monitor = _by_name(_profile(built.config.out))["temperature"]
    missing = monitor.regular + monitor.specials.index("missing")
    assert monitor.counts[missing] == numbers.temperature.isna().sum() == 20


_values = arrays.arrays(
    np.float64,
    st.integers(33, 300),
    elements=st.floats(-1e9, 1e9, allow_subnormal=False).map(lambda x: round(x, 3)),
)


@given(_values)
def test_edges_ascend_and_float32_moves_nothing(values: Any) -> None:
    distinct = np.unique(values)
    gaps = np.diff(distinct) / np.maximum(np.abs(distinct[1:]), 1e-30)
    if len(distinct) < 33 or gaps.min() < 1e-5:
        return
    edges = quantile_edges(values)
    assert len(edges) <= 33 and all(np.diff(edges) > 0)
    monitor = Monitor(name="x", kind="quantile", edges=edges, counts=())
    counts = profiles.count_numbers(monitor, values)
    assert counts[: monitor.regular].sum() == len(values)
    rounded = values.astype(np.float32).astype(np.float64)
    assert profiles.count_numbers(monitor, rounded).tolist() == counts.tolist()


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
def test_a_short_number_lies_between(low: float, high: float) -> None:
    low, high = sorted((low, high))
    if high - low <= 1e-9 * max(abs(low), abs(high), 1):
        return
    found = short_between(low, high)
    assert low < found < high
    assert len(repr(found)) <= len(repr((low + high) / 2)) or found == (low + high) / 2


def test_an_edge_lies_on_the_threshold() -> None:
    assert score_edges(None) == tuple(np.linspace(0, 1, 33).tolist())
    for threshold in (0.5, 0.317, 0.99, 0.01):
        edges = score_edges(threshold)
        assert threshold in edges and len(edges) == 33 and all(np.diff(edges) > 0)


@pytest.mark.parametrize(
    "cells",
    [[3, 1, 2], ["2025-01-03", "2025-01-01T10:00", "2025-01-01T12:00+01:00"], ["1e3", "-5", "7"]],
)
def test_time_orders_rows(cells: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame({"at": cells}).to_csv(path, index=False)
    assert times.order(tables.read(path), "at").tolist() == [1, 2, 0]


def test_a_time_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("at,x\n2025-01-01,1\nyesterday,2\n")
    with pytest.raises(InputFault, match="'at', row 2: 'yesterday'"):
        times.order(tables.read(path), "at")
    path.write_text("at,x\n1,1\n,2\n")
    with pytest.raises(InputFault, match="row 2: the time is missing"):
        times.order(tables.read(path), "at")


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    class Interrupting:
        def __index__(self) -> int:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a", b"x", mode=Interrupting())  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seed", range(20))
def test_the_cell_of_a_value_is_the_one_in_which_it_is_counted(seed: int) -> None:
    """Edges, values beyond them, between a lattice's, missing and infinite ones among them."""
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=int(rng.integers(40, 600))).round(int(rng.choice([0, 15])))
    monitor = profile_build._numbers("x", reference, "feature", None)
    special = [np.nan, np.inf, -np.inf, 0.5, monitor.edges[0], monitor.edges[-1]]
    values = rng.permutation([*reference, *rng.normal(size=50) * 3, *special, *special])
    cells = profile_build._cells_of(monitor, values)
    for value, cell in zip(values, cells, strict=True):
        assert profiles.count_numbers(monitor, np.array([value]))[cell] == 1, (seed, value)
