"""The power table keeps its word in simulation; what cannot work at a rate is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from typer.testing import CliRunner

from edge_contract import bets
from edge_contract import profile as profiles
from edge_contract.errors import InputFault
from edge_contract.profile import Monitor, Profile
from edge_fleet.drift.edetector import DriftTable, advance
from edge_pack import power, power_printing, reading, training_rows
from edge_pack.cli import app
from edge_pack.profile_build import bins_for, quantile_edges

ROWS = 20_000


def _number(values: Any, design_effect: float = 1.0) -> Monitor:
    monitor = Monitor(
        name="x", kind="quantile", edges=quantile_edges(values, bins_for(len(values))), counts=()
    )
    counts = profiles.count_numbers(monitor, values)
    return msgspec.structs.replace(
        monitor, counts=tuple(counts.tolist()), design_effect=design_effect
    )


NORMAL = _number(np.random.default_rng(0).normal(size=ROWS))
CATEGORY = Monitor(
    name="site", kind="category", categories=("a", "b", "c"), counts=(10_000, 6_000, 4_000, 0, 0, 0)
)
LATTICE = Monitor(
    name="step", kind="lattice", edges=(0.0, 1.0, 2.0, 3.0),
    counts=(8_000, 6_000, 4_000, 2_000, 0, 0, 0, 0, 0),
)  # fmt: skip


def _reckoned(monitor: Monitor, rows_per_hour: float = 0.0) -> Profile:
    return power.reckoned(Profile(rows=ROWS, monitors=(monitor,)), rows_per_hour)


@pytest.mark.parametrize("monitor", [NORMAL, CATEGORY, LATTICE], ids=lambda m: m.kind)
@pytest.mark.parametrize("at", [1, 2])
def test_a_shift_is_found_after_about_the_reckoned_rows(monitor: Monitor, at: int) -> None:
    """Windows of ten rows, drawn from the tilted reference; the median of 25 delays."""
    profile = _reckoned(monitor)
    assert profile.power is not None
    told, shift = profile.monitors[0], power.SHIFTS[at]
    table = DriftTable(profile)
    (bet,) = table.monitors
    component = bet.components[power._told(bet) or 0]
    p = np.asarray(told.counts) / ROWS
    rng = np.random.default_rng(7)
    delays = []
    for _ in range(25):
        state = table.start()
        for window in rng.multinomial(10, p, size=100):
            state = advance(state, table.log_e(window[None]))
        sign = component.signs[int(rng.integers(len(component.signs)))]
        tilted = p * np.maximum(1 + sign * shift * component.values, 0)
        rows = 0
        while table.levels(state)[0, 0] < profile.power.log_threshold:
            window = rng.multinomial(10, tilted / tilted.sum())
            state = advance(state, table.log_e(window[None]))
            rows += 10
        delays.append(rows)
    assert np.median(delays) == pytest.approx(told.rows_needed[at], rel=0.4)


def test_a_shift_of_a_normal_number_takes_as_long_as_the_component_says() -> None:
    profile = _reckoned(NORMAL)
    assert profile.power is not None
    rng, table = np.random.default_rng(1), DriftTable(profile)
    delays = []
    for _ in range(15):
        state, rows = table.start(), 0
        while table.levels(state)[0, 0] < profile.power.log_threshold:
            counts = profiles.count_numbers(NORMAL, rng.normal(0.25, size=20))
            state = advance(state, table.log_e(counts[None]))
            rows += 20
        delays.append(rows)
    assert np.median(delays) == pytest.approx(profile.monitors[0].rows_needed[1], rel=0.4)


def test_dependent_rows_are_worth_less_and_small_references_nothing() -> None:
    plain = _reckoned(NORMAL).monitors[0]
    tempered = _reckoned(msgspec.structs.replace(NORMAL, design_effect=4.0)).monitors[0]
    assert tempered.rows_needed[2] > 4 * plain.rows_needed[2]
    few = _reckoned(_number(np.random.default_rng(0).normal(size=100))).monitors[0]
    assert few.rows_needed[:2] == (0.0, 0.0)  # never: under the reference's own error
    assert few.tolerance == 0.4 and plain.tolerance == pytest.approx(4 / np.sqrt(ROWS), rel=1e-3)
    assert plain.components == ("mean", "spread", "skew", "shape")


def test_the_detector_never_uses_less_tolerance_than_the_build_asked_for() -> None:
    asked = msgspec.structs.replace(NORMAL, tolerance=0.3, components=("mean", "spread"))
    assert bets.tolerance(asked) == 0.3
    degrees = {c.degree for c in bets.monitor_table(asked).components}
    assert degrees == {0, 1, 2}


def test_a_monitor_that_cannot_work_is_refused_with_what_it_needs() -> None:
    slow = _reckoned(msgspec.structs.replace(NORMAL, design_effect=8.0), rows_per_hour=5)
    (refusal,) = power.refused(slow)
    needed = refusal.needed
    assert needed is not None and needed == slow.monitors[0].rows_needed[2] / 168
    assert "needs" in str(refusal) and "rows an hour" in str(refusal)
    enough = _reckoned(msgspec.structs.replace(NORMAL, design_effect=8.0), rows_per_hour=needed)
    assert power.refused(enough) == ()
    left = power.without(slow, [refusal])
    assert (left.monitors, left.refused) == ((), ("x",))
    small = _reckoned(_number(np.random.default_rng(0).normal(size=40)), rows_per_hour=1e9)
    assert "'x' needs 256 independent reference rows, its reference has 40" in power.told(
        power.refused(small), 1e9
    )
    output = msgspec.structs.replace(NORMAL, source="output", design_effect=8.0)
    assert power.refused(_reckoned(output, rows_per_hour=0.01)) == ()
    assert power.refused(_reckoned(NORMAL)) == ()  # nothing was declared


@pytest.mark.parametrize(
    ("hours", "said"),
    [(0.001, "1 min"), (0.5, "30 min"), (12.2, "12 h"), (100.0, "4.17 d"), (np.inf, "never")],
)
def test_durations_are_said_in_words(hours: float, said: str) -> None:
    assert power_printing.duration(hours) == said


def test_devices_may_rest_apart_where_the_build_says_so(pack: Any) -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.normal(size=900)})
    model = LinearRegression().fit(frame, frame["x"])
    built = pack(model, frame, min_shift=0.3)
    assert built.profile is not None and built.profile.power is not None
    (x,) = [monitor for monitor in built.profile.monitors if monitor.source == "feature"]
    assert bets.tolerance(x) == x.tolerance == 0.3
    weak, strong = (built.profile.power.shifts.index(shift) for shift in (0.25, 0.5))
    assert x.rows_needed[weak] == 0 and x.rows_needed[strong] > 0, "0: never found"
    with pytest.raises(InputFault, match="--min-shift -1"):
        pack(model, frame, min_shift=-1.0)


def test_build_and_inspect_print_what_drift_they_will_show(pack: Any) -> None:
    rng = np.random.default_rng(2)
    steps = np.cumsum(rng.normal(size=600)) / 5
    frame = pd.DataFrame({"slow": steps, "quick": rng.normal(size=600)})
    model = LinearRegression().fit(frame, steps)
    stamped = frame.assign(at=pd.date_range("2025-01-01", periods=600, freq="h"))
    built = pack(model, stamped, time_column="at", rows_per_hour=20.0)
    assert any("'slow' needs" in notice for notice in built.notices), built.notices
    assert built.profile is not None and "slow" in built.profile.refused
    assert "slow" not in {m.name for m in built.profile.monitors if m.source == "feature"}
    out = str(built.config.out)
    text = CliRunner().invoke(app, ["inspect", out], env={"COLUMNS": "200"}).output
    assert "drift at 20 rows an hour" in text and "quick" in text
    plain = json.loads(
        CliRunner().invoke(app, ["inspect", out, "--json", "--rows-per-hour", "600"]).output
    )["power"]
    (quick,) = [m for m in plain["monitors"] if m["name"] == "quick"]
    assert plain["rows_per_hour"] == 600 and "slow" in plain["refused"]
    declared = reading.profile_of(reading.open_bundle(built.config.out))
    assert declared is not None and declared.power is not None
    assert declared.power.rows_per_hour == 20
    needed = next(m for m in declared.monitors if m.name == "quick").rows_needed
    assert quick["hours"][2] == pytest.approx(needed[2] / 600, abs=0.01)
    with pytest.raises(InputFault, match="'slow' needs"):
        pack(model, stamped, time_column="at", rows_per_hour=20.0, strict_data=True)
    with pytest.raises(InputFault, match="rate of 0 or more"):
        pack(model, stamped, rows_per_hour=-1.0)


def test_a_model_that_was_fitted_to_as_many_rows_is_named(pack: Any, machines: Any) -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    frame, target = machines
    numbers = frame[["vibration"]].assign(noise=np.arange(600.0))
    for last in (RandomForestClassifier(2, random_state=0), KNeighborsClassifier(3)):
        model = make_pipeline(StandardScaler(), last).fit(numbers[:400], target[:400])
        assert training_rows.fitted_to(model) >= {400}
        assert "400 rows" in training_rows.note(model, 400)
        assert training_rows.note(model, 200) == ""
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(2, random_state=0))
    same = pack(forest.fit(numbers, target), numbers.join(target), "state")
    assert any("was not trained on" in notice for notice in same.notices)
