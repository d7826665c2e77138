"""A window counts every row once, as the contract's own functions would, from any thread."""

from __future__ import annotations

import random
import threading

import msgspec
import numpy as np
import pytest

from edge_agent import Model
from edge_agent.telemetry import Window
from edge_agent.telemetry import window as module
from edge_contract import bisecting, telemetry
from edge_contract import bundle as bundles
from edge_contract import profile as profiles
from edge_contract.errors import InputFault
from edge_contract.profile import Profile


@pytest.fixture
def pump(tiny_bundle) -> Model:
    model = Model.from_bundle(bundles.read(tiny_bundle()))
    model.observer = Window(model.manifest, model.profile)
    return model


def expected_cells(model: Model, rows: np.ndarray) -> np.ndarray:
    """Every row counted by the contract, one monitor after the other."""
    predictions = [p for part in np.array_split(rows, 4) if len(part) for p in model.predict(part)]
    labels = np.array([("bad", "good").index(p.label) for p in predictions])
    scores = np.array([p.probabilities["good"] for p in predictions])
    names = [feature.name for feature in model.manifest.features]
    cells = []
    for monitor in model.profile.monitors:
        if monitor.kind == "score":
            cells.append(profiles.count_scores(monitor, labels, scores))
        else:
            cells.append(profiles.count_numbers(monitor, rows[:, names.index(monitor.name)]))
    return np.concatenate(cells)


def named(model: Model, row: np.ndarray) -> dict[str, float]:
    names = [feature.name for feature in model.manifest.features]
    return dict(zip(names, row.tolist(), strict=True))


@pytest.mark.parametrize("count", [1, 511, 512, 513, 1300])
def test_single_rows_and_batches_count_the_same(tiny_bundle, pump: Model, count: int) -> None:
    silent = Model.from_bundle(bundles.read(tiny_bundle()))
    rows = np.random.default_rng(count).normal(scale=2, size=(count, 4))
    expected = expected_cells(silent, rows)
    for row in rows:
        pump.predict(named(pump, row))
    singly = pump.observer.close()
    pump.predict(rows)
    at_once = pump.observer.close()
    for at in range(0, count, 7):
        pump.predict(rows[at : at + 7])
    by_sevens = pump.observer.close()
    for counts in (singly, at_once, by_sevens):
        assert counts.rows == count
        np.testing.assert_array_equal(counts.cells, expected)
    assert (singly.latency.sum(), at_once.latency.sum()) == (count, 1)


def test_every_monitor_adds_up_to_the_rows(pump: Model) -> None:
    pump.predict(np.random.default_rng(0).normal(scale=50, size=(700, 4)))
    counts = pump.observer.close()
    starts = pump.profile.offsets()
    for monitor, start in zip(pump.profile.monitors, starts, strict=True):
        assert counts.cells[start : start + monitor.cells].sum() == 700


def test_categories_and_unseen_ones_are_counted(mixed_bundle) -> None:
    model = Model.from_bundle(bundles.read(mixed_bundle(missing="allow")))
    model.observer = Window(model.manifest, model.profile)
    for site in ("lyon", "paris", "paris", "elsewhere"):
        model.predict({"temp": 0.1, "hum": 0.2, "site": site})
    model.predict({"temp": None, "hum": 0.2, "site": "lyon"})
    counts = model.observer.close()
    site, start = model.profile.monitors[2], model.profile.offsets()[2]
    assert site.name == "site"
    cells = dict(
        zip((*site.categories, *site.specials), counts.cells[start:].tolist(), strict=False)
    )
    assert cells == {"lyon": 2, "nantes": 0, "paris": 2, "other": 0, "unseen": 1, "missing": 0}
    temp = model.profile.monitors[0]
    specials = counts.cells[temp.regular : temp.cells].tolist()
    assert dict(zip(temp.specials, specials, strict=True))["missing"] == 1


def test_a_regressions_values_are_counted(regression_bundle) -> None:
    model = Model.from_bundle(bundles.read(regression_bundle()))
    model.observer = Window(model.manifest, model.profile)
    rows = np.random.default_rng(4).normal(size=(600, 4))
    values = np.array([p.value for p in model.predict(rows)])
    counts = model.observer.close()
    monitor, start = model.profile.monitors[-1], model.profile.offsets()[-1]
    np.testing.assert_array_equal(counts.cells[start:], profiles.count_numbers(monitor, values))


def test_latencies_fall_into_the_contracts_buckets(pump: Model) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    edges = [int(b) + d for b in module._BOUNDS for d in (-1, 0, 1)]
    latencies = [*edges, 1, 10**12, *(int(10 ** rng.uniform(1, 11)) for _ in range(2000))]
    window = pump.observer
    batch = pump._read({"temp": 1, "hum": 1, "rpm": 1, "volt": 1})
    expected = np.zeros(telemetry.LATENCY_BUCKETS, dtype=np.int64)
    for ns in latencies:
        window.observe(batch, (0,), (0.5,), ns)
        expected[telemetry.latency_bucket(ns)] += 1
    np.testing.assert_array_equal(window.close().latency, expected)


def test_periods_do_not_overlap_and_totals_go_on(pump: Model) -> None:
    window = pump.observer
    pump.predict(np.zeros((3, 4)))
    window.refused(2)
    window.failed(1)
    first, second = window.close(), window.close()
    assert (first.rows, first.refused, first.failed, first.empty) == (3, 2, 1, False)
    assert second.empty
    assert not second.cells.any()
    pump.predict(np.zeros((4, 4)))
    assert window.rows == 4
    assert window.totals == module.Totals(7, 2, 1)


def test_eight_threads_lose_and_double_nothing(pump: Model) -> None:
    rows = np.random.default_rng(8).normal(size=(8, 1500, 4))
    closed: list[module.Counts] = []
    done = threading.Event()

    def work(i: int) -> None:
        for row in rows[i]:
            pump.predict(named(pump, row))
        pump.observer.refused(1)

    def close() -> None:
        while not done.is_set():
            closed.append(pump.observer.close())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    closer = threading.Thread(target=close)
    for thread in (*threads, closer):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    closer.join()
    closed.append(pump.observer.close())
    assert sum(counts.rows for counts in closed) == 12_000
    assert sum(counts.refused for counts in closed) == 8
    assert sum(int(counts.latency.sum()) for counts in closed) == 12_000
    total = sum(counts.cells for counts in closed)
    pump.observer = None
    np.testing.assert_array_equal(total, expected_cells(pump, rows.reshape(-1, 4)))


def test_waiting_rows_are_few_and_hold_no_tensor(pump: Model) -> None:
    window = pump.observer
    for _ in range(5000):
        pump.predict([0.1, 0.2, 0.3, 0.4])
    pump.predict(np.zeros((31, 4)))
    assert len(window._rows_waiting) + len(window._calls_waiting) <= 2 * module.BULK_ROWS
    assert all(isinstance(row, bytes) for row in window._rows_waiting)
    assert not any(isinstance(x, np.ndarray) for call in window._calls_waiting for x in call)


def test_without_a_profile_rows_and_latencies_still_count(pump: Model) -> None:
    pump.observer = Window(pump.manifest, None)
    pump.predict({"temp": 1, "hum": 1, "rpm": 1, "volt": 1})
    pump.predict(np.zeros((600, 4)))
    counts = pump.observer.close()
    assert (counts.rows, counts.cells.size, counts.latency.sum()) == (601, 0, 2)


def test_a_profile_of_another_model_is_refused(pump: Model) -> None:
    other = msgspec.structs.replace(pump.profile.monitors[0], name="pressure")
    with pytest.raises(InputFault, match="'pressure'"):
        Window(pump.manifest, Profile(rows=400, monitors=(other,)))


def test_the_contracts_quick_count_is_the_slow_one() -> None:
    """``count_numbers`` takes a short way where no value is special; the cells are the same."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    for _ in range(300):
        edges = np.unique(rng.integers(-5, 6, size=rng.integers(2, 9)) / 2)
        if len(edges) < 2:
            continue
        monitor = profiles.Monitor(
            name="a", kind="quantile", edges=tuple(edges.tolist()),
            counts=(0,) * (len(edges) - 1 + 5),
        )  # fmt: skip
        wide = rng.choice([*(edges + 0.25), *edges, 99, -99, np.nan, np.inf, -np.inf], size=40)
        inside = rng.uniform(edges[0], edges[-1], size=40)
        for values in (wide, inside):
            regular = len(edges) - 1
            cells = [
                regular + 3 if np.isnan(v)
                else regular + 4 if np.isinf(v)
                else regular if v < edges[0]
                else regular + 1 if v > edges[-1]
                else min(int((edges <= v).sum()) - 1, regular - 1)
                for v in values
            ]  # fmt: skip
            expected = np.bincount(cells, minlength=monitor.cells)
            np.testing.assert_array_equal(profiles.count_numbers(monitor, values), expected)


def test_a_window_counts_what_bisect_counts_a_row_at_a_time(pump: Model) -> None:
    rows = np.random.default_rng(11).normal(scale=2, size=(700, 4))
    rows[::50] = [9.0, -9.0, 0.0, 1e30]
    pump.predict(rows)
    counts = pump.observer.close()
    names = [feature.name for feature in pump.manifest.features]
    for monitor, start in zip(pump.profile.monitors, pump.profile.offsets(), strict=True):
        if monitor.source == "feature":
            cell = bisecting.number_cell(monitor)
            cells = [cell(value) for value in rows[:, names.index(monitor.name)].tolist()]
            expected = bisecting.count(monitor, cells)
            assert counts.cells[start : start + monitor.cells].tolist() == expected
