"""A healthy device raises nothing; what is broken is named once, and once it works again."""

from __future__ import annotations

import numpy as np
import pytest
from clean_sensors import NAMES, Device, profile_of, values

from edge_agent.telemetry.quality import Quality
from edge_agent.telemetry.sensors import UNITS, run_limit
from edge_agent.telemetry.stale import ClockSeen, clock
from edge_agent.telemetry.tally import Tally
from edge_contract.moments import numbers
from edge_contract.profile import Monitor, Profile
from edge_contract.telemetry import ERROR_CODES, QUALITY_CODES

SEED = 6
ROWS = 60
Columns = dict[str, np.ndarray]


def reference(*, ordered: bool) -> Profile:
    columns = values(20_000, np.random.default_rng(SEED))
    if not ordered:
        order = np.random.default_rng(1).permutation(20_000)
        columns = {name: column[order] for name, column in columns.items()}
    return profile_of(columns, ordered=ordered)


PROFILES = {True: reference(ordered=True), False: reference(ordered=False)}


def live(windows: int, rows: int = ROWS) -> list[Columns]:
    columns = values(windows * rows, np.random.default_rng(SEED + 1), start=20_000)
    return [
        {name: column[at * rows : (at + 1) * rows] for name, column in columns.items()}
        for at in range(windows)
    ]


def told(device: Device, windows: list[Columns]) -> list[tuple[int, str, str, str]]:
    """Window, what happened, which condition, of which feature."""
    names = [monitor.name for monitor in device.profile.monitors]
    found = []
    for at, columns in enumerate(windows):
        changed = device.window(columns)
        for what, findings in (("begun", changed.begun), ("ended", changed.ended)):
            found += [(at, what, QUALITY_CODES[f.code], names[f.monitor]) for f in findings]
    return found


@pytest.mark.parametrize(
    ("ordered", "windows", "rows"), [(True, 1_000, 60), (False, 1_000, 12), (False, 100, 300)]
)
def test_healthy_sensors_of_every_kind_raise_nothing(
    ordered: bool, windows: int, rows: int
) -> None:
    print("seed", SEED)
    assert told(Device(PROFILES[ordered]), live(windows, rows)) == []


def spoiled(kind: str, columns: Columns, at: int, rng: np.random.Generator) -> tuple[str, Columns]:
    """One window with one fault: which feature, and the columns."""
    rows = len(columns["iid"])
    name, column = {
        "missing": lambda: ("iid", np.full(rows, np.nan)),
        "infinite": lambda: ("iid", np.full(rows, np.inf)),
        "out-of-range": lambda: ("iid", rng.normal(-5, 1, rows)),
        "off-lattice": lambda: ("count", columns["count"] + 0.5),
        "stuck": lambda: ("ar", np.full(rows, 50.25)),
        "flat": lambda: ("iid", 10 + rng.normal(0, 0.001, rows)),
        "sentinel": lambda: ("ar", np.where(np.arange(rows) % 20 == 7, -999.0, columns["ar"])),
        "unit": lambda: ("daily", columns["daily"] * 1.8 + 32),
    }[kind]()
    return name, columns | {name: column}


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    ("kind", "windows"),
    [("missing", 1), ("infinite", 1), ("out-of-range", 5), ("off-lattice", 1), ("stuck", 18),
     ("flat", 17), ("sentinel", 3), ("unit", 1)],
)  # fmt: skip
def test_each_fault_is_named_once_and_once_it_is_over(
    ordered: bool, kind: str, windows: int
) -> None:
    """``windows``: of 60 rows, by which it is found. Flat needs windows of 1,000 rows at most."""
    rng = np.random.default_rng(SEED)
    rows = 1_000 if kind == "flat" else ROWS
    good, bad, after = live(60, rows)[:5], live(60, rows)[5:30], live(60, rows)[30:]
    pairs = [spoiled(kind, columns, at, rng) for at, columns in enumerate(bad)]
    name = pairs[0][0]
    found = told(Device(PROFILES[ordered]), [*good, *(columns for _, columns in pairs), *after])
    assert [each[1:] for each in found] == [("begun", kind, name), ("ended", kind, name)]
    (begun, *_), (ended, *_) = found
    assert 5 <= begun < 5 + windows
    assert 30 <= ended < 55


def test_an_unseen_category_and_refused_rows_are_found() -> None:
    profile = Profile(
        rows=1_000,
        monitors=(
            Monitor(name="site", kind="category", categories=("x",), counts=(1_000, 0, 0, 0)),
        ),
    )
    quality, nothing = Quality(profile), Tally([]).close()
    quality.begin()
    assert quality.close(100, np.array([100, 0, 0, 0]), nothing).begun == ()
    (seen,) = quality.close(100, np.array([0, 0, 100, 0]), nothing).begun
    assert (QUALITY_CODES[seen.code], seen.monitor) == ("unseen", 0)
    errors = [0] * len(ERROR_CODES)
    errors[ERROR_CODES.index("missing")] = 90
    (seen,) = quality.close(
        0, np.zeros(4, dtype=np.int64), nothing, refused=90, errors=tuple(errors)
    ).begun
    assert (QUALITY_CODES[seen.code], seen.monitor) == ("refused", -1)
    assert seen.said == "90 of 90 rows (missing)"
    assert quality.seen == (
        (QUALITY_CODES.index("refused"), -1),
        (QUALITY_CODES.index("unseen"), 0),
    )


def test_what_is_seen_early_in_a_window_is_told_once() -> None:
    device = Device(PROFILES[True])
    table = np.column_stack(list(live(1)[0].values()))
    table[:, NAMES.index("iid")] = np.nan
    cells = np.concatenate([
        Device.count(monitor, table[:, at]) for at, monitor in enumerate(device.profile.monitors)
    ])  # fmt: skip
    tally = Tally([device.profile.monitors[i] for i in numbers(device.profile)])
    tally.add(table)
    device.quality.begin()
    assert len(device.quality.look(60, cells, tally.peek()).begun) == 1
    assert device.quality.look(60, cells, tally.peek()) == ((), ())
    assert device.quality.close(60, cells, tally.close()) == ((), ())
    assert device.quality.seen == ((QUALITY_CODES.index("missing"), NAMES.index("iid")),)
    assert len(device.quality.end()) == 1
    assert device.quality.open == ()


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_is_told_from_the_others_for_pressures_or_temperatures(unit) -> None:
    """A feature of 20 with a spread of 0.1: every factor takes it somewhere else."""
    name, factor, offset = unit
    rng = np.random.default_rng(SEED)
    profile = profile_of({"p": rng.normal(20, 0.1, 5_000)}, ordered=True)
    device = Device(profile)
    (found,) = device.window({"p": rng.normal(20, 0.1, 30) * factor + offset}).begun
    assert (QUALITY_CODES[found.code], found.said) == ("unit", f"as if {name}")


def test_a_feature_that_is_one_value_nearly_always_is_hardly_ever_stuck() -> None:
    profile = PROFILES[False]
    flag = profile.monitors[NAMES.index("flag")]
    assert run_limit(profile, flag) > 100_000
    assert run_limit(PROFILES[True], PROFILES[True].monitors[NAMES.index("ar")]) == 30


def test_a_clock_that_stands_still_or_that_nobody_keeps_is_stale() -> None:
    seen: ClockSeen | None = None
    for at in range(0, 300, 30):
        seen = clock(seen, 1_000_000 + 1000 * at, float(at), synchronised=True)
        assert not seen.wrong
    assert seen is not None
    assert clock(seen, 1_000_000, 1_000.0, synchronised=True).wrong == ""  # it was set back
    still = clock(seen, seen.wall_ms + 10, seen.monotonic_s + 100, synchronised=True)
    assert still.wrong == "the device's clock stands still"
    jumped = clock(still, 10**12, seen.monotonic_s + 200, synchronised=True)
    assert not jumped.wrong
    alone = clock(jumped, 10**12 + 90_000_000, seen.monotonic_s + 90_200, synchronised=False)
    assert alone.wrong == "no time service has kept the device's clock for a day"


def test_a_sensor_that_says_one_error_value_for_ever_has_one_fault() -> None:
    device = Device(PROFILES[True])
    windows = [columns | {"ar": np.full(ROWS, 65535.0)} for columns in live(5)]
    assert told(device, windows) == [(0, "begun", "sentinel", "ar")]


def test_a_drift_past_an_error_value_is_no_error_value() -> None:
    """Whole numbers about 1,000: one in 25 of them is 999."""
    rng = np.random.default_rng(SEED)
    windows = [columns | {"ar": np.round(rng.normal(1_000, 10, ROWS))} for columns in live(20)]
    found = told(Device(PROFILES[True]), windows)
    assert [each[1:] for each in found] == [("begun", "out-of-range", "ar")]
