"""What stands in a profile beside margins: directions, tensors, labelled rows; odd references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression

from edge_contract import profile as profiles
from edge_contract.manifest import Feature, Outputs, Tensor
from edge_contract.profile import Profile
from edge_contract.projection import Projector
from edge_fleet.drift.edetector import DriftTable, advance
from edge_pack import directions, power, reading
from edge_pack.answers import Answers
from edge_pack.intake import Rows
from edge_pack.profile_build import Order, build, errors_of

NOTHING = Outputs(tensors=("y",))


def _of(columns: dict[str, Any], **options: Any) -> Profile:
    """The profile of number columns, of a model that answers plain tensors."""
    rows = len(next(iter(columns.values())))
    features = [Feature(name=name) for name in columns]
    answers = Answers(values=np.zeros((rows, 1)))
    return power.reckoned(
        build(features, Rows(rows, columns, {}), answers, answers,
              task="tensors", outputs=NOTHING, **options)
    )  # fmt: skip


def _columns(table: Any) -> dict[str, Any]:
    return {f"f{at}": table[:, at] for at in range(table.shape[1])}


def _counts(profile: Profile, table: Any) -> Any:
    """As a device counts: features, then directions."""
    (projection,) = profile.projections
    projected = dict(zip(projection.names, Projector(projection)(table).T, strict=True))
    columns = _columns(table)
    return np.concatenate(
        [
            profiles.count_numbers(
                monitor,
                projected[monitor.name]
                if monitor.source == "projection"
                else columns[monitor.name],
            )
            for monitor in profile.monitors
        ]
    )


def _found(profile: Profile, windows: list[Any], source: str) -> bool:
    """A monitor of that source raises an alarm."""
    table = DriftTable(profile)
    state = table.start()
    where = [at for at, monitor in enumerate(profile.monitors) if monitor.source == source]
    assert profile.power is not None
    for window in windows:
        state = advance(state, table.log_e(_counts(profile, window)[None]))
        if (table.levels(state)[0, where] >= profile.power.log_threshold).any():
            return True
    return False


def test_a_lost_correlation_shows_in_directions_and_not_in_margins() -> None:
    rng = np.random.default_rng(11)
    mix = np.eye(8) + 0.8 * np.eye(8, k=1)

    def draw(rows: int) -> Any:
        return rng.normal(size=(rows, 8)) @ mix

    profile = _of(_columns(draw(4000)))
    quiet = [draw(60) for _ in range(40)]
    assert not _found(profile, quiet, "projection") and not _found(profile, quiet, "feature")
    lost = [draw(60) for _ in range(40)]
    for window in lost:
        window[:, 3] = rng.permutation(window[:, 3])
    assert _found(profile, lost, "projection")
    assert not _found(profile, lost, "feature")


def test_directions_fitted_to_few_rows_do_not_make_other_rows_look_drifted() -> None:
    """Counted on the rows that they were fitted to, the same windows would alarm."""
    rng = np.random.default_rng(5)
    profile = _of(_columns(rng.normal(size=(400, 20))))
    assert len(profile.projections[0].names) == 20
    windows = [rng.normal(size=(60, 20)) for _ in range(150)]
    assert not _found(profile, windows, "projection")
    held_out = [m for m in profile.monitors if m.source == "projection"]
    assert {sum(monitor.counts) for monitor in held_out} == {200}


def test_at_most_twenty_directions_widest_and_narrowest() -> None:
    rng = np.random.default_rng(2)
    table = rng.normal(size=(2000, 30)) @ rng.normal(size=(30, 30))
    (projection,) = _of(_columns(table)).projections
    assert projection.directions == 20
    z = (table - table.mean(axis=0)) / table.std(axis=0)
    raw = np.linalg.eigvalsh(np.corrcoef(z.T))
    matrix = Projector(projection)._transposed.T
    spread = 1 / np.square(matrix).sum(axis=1)
    assert spread[:10] == pytest.approx(raw[::-1][:10], rel=0.25)
    assert spread[10:] == pytest.approx(raw[::-1][-10:], rel=0.25)


def test_the_fit_and_the_count_share_no_row_and_leave_none() -> None:
    for rows in (1, 2, 15, 200, 1001):
        order = np.random.default_rng(rows).permutation(rows)
        for given_order in (None, order):
            fitted, counted = directions.halves(rows, given_order)
            assert sorted([*fitted, *counted]) == list(range(rows))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 6), st.integers(0, 2**32 - 1),
    st.sampled_from(["normal", "constant", "missing", "same", "huge", "tiny", "lattice"]),
)  # fmt: skip
def test_any_reference_gives_a_profile_that_a_device_reads(
    rows: int, width: int, seed: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(rows, width))
    match kind:
        case "constant":
            table[:, 0] = 7.0
        case "missing":
            table[rng.random(table.shape) < 0.5] = np.nan
        case "same":
            table[:] = table[:, :1]
        case "huge":
            table *= 1e300
        case "tiny":
            table = 1e9 + 1e-6 * table
        case "lattice":
            table = np.round(table)
    order = Order(rng.permutation(rows), rng.random(rows) * 1e6 + 1.7e9)
    profile = _of(_columns(table), order=order)
    assert profiles.decode(profiles.encode(profile)) == profile
    for monitor in profile.monitors:
        if monitor.source == "feature":
            assert sum(monitor.counts) == rows
            assert 0 <= monitor.longest_run <= rows


def test_ten_thousand_features_are_averaged_in_groups() -> None:
    rng = np.random.default_rng(1)
    wide = rng.normal(size=(250, 10_000))
    found = directions.of_features(_columns(wide), None)
    assert found is not None
    projection, projected = found
    assert (projection.elements, projection.groups) == (10_000, 250)
    assert projected.shape == (250, 20) and np.isfinite(projected).all()


# -- what a build writes -------------------------------------------------------------------


def _profile(built: Any) -> Profile:
    found = reading.profile_of(reading.open_bundle(built.config.out))
    assert found is not None
    return found


def test_labelled_rows_are_counted_by_truth_and_answer(pack: Any) -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(500, 3)), columns=["a", "b", "c"])
    target = pd.Series(np.where(frame.a + rng.normal(size=500) > 0, "on", "off"), name="state")
    model = LogisticRegression().fit(frame, target)
    monitor = next(m for m in _profile(pack(model, frame.join(target), "state")).monitors
                   if m.source == "output")  # fmt: skip
    counts = monitor.labelled_counts()
    assert counts is not None and counts.shape == (2, 2, 32)
    said = model.predict(frame)
    for t, true in enumerate(["off", "on"]):
        for p, predicted in enumerate(["off", "on"]):
            assert counts[t, p].sum() == ((target == true) & (said == predicted)).sum()
    assert counts.sum(axis=0).ravel().tolist() == list(monitor.counts[: monitor.regular])
    unlabelled = _profile(pack(model, frame))
    assert all(m.labelled_counts() is None for m in unlabelled.monitors)


def test_a_regressions_errors_are_those_of_its_rows(pack: Any, diabetes: Any) -> None:
    frame, target = diabetes
    holes = target.astype(float).where(np.arange(len(target)) % 7 > 0)
    model = LinearRegression().fit(frame, target)
    profile = _profile(pack(model, frame.assign(progression=holes), "progression"))
    errors = next(m for m in profile.monitors if m.source == "output").errors
    known = (model.predict(frame) - holes).dropna()
    assert errors is not None and errors.rows == len(known)
    assert errors.absolute == pytest.approx(known.abs().mean(), rel=1e-3)
    assert errors.std == pytest.approx(known.std(ddof=0), rel=1e-3)
    assert errors.quantiles[3] == pytest.approx(known.quantile(0.75), rel=1e-3)


def test_a_tensors_rows_are_counted_by_a_device_as_by_the_build() -> None:
    rng = np.random.default_rng(9)
    images = rng.integers(0, 256, size=(240, 3, 10, 10)).astype(np.uint8)
    tensors = [Tensor(name="image", dtype="uint8", shape=(None, 3, 10, 10))]
    answers = Answers(values=np.zeros((240, 1)))
    profile = build((), Rows(240, {}, {"image": images}), answers, answers,
                    task="tensors", outputs=NOTHING, tensors=tensors)  # fmt: skip
    assert profiles.decode(profiles.encode(profile)) == profile
    sources = {monitor.source for monitor in profile.monitors}
    assert sources == {"tensor", "projection"} and profile.tensors[0].top == 255
    (projection,) = profile.projections
    assert (projection.elements, projection.groups, projection.directions) == (300, 150, 20)


def test_what_rounding_leaves_of_a_mean_error_is_no_figure() -> None:
    """On the rows that a regression was fitted to it is 0, and each processor's own noise."""
    errors = np.array([40.0, -10.0, -30.0])
    figures = {errors_of(errors + noise) for noise in (0.0, 2e-14, -3e-15)}
    [found] = figures
    assert found is not None
    assert (found.mean, found.absolute) == (0.0, 26.67)
    huge = errors_of(np.array([1e300, -1e300]))
    assert huge is not None and huge.std == 1e300
    none = errors_of(np.zeros(3))
    assert none is not None and none.quantiles == (0.0,) * 5
