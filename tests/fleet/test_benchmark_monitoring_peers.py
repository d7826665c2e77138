"""Monitors are judged by one rule: what a delay and what noise is; ours is the real thing."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SEED = 11


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, Any]]:
    """The benchmark's modules by name; the path and what was imported are put back."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    names = ("monitoring_peers", "peers.judging", "peers.monitors", "peers.ours", "peers.watching")
    yield {name.removeprefix("peers."): importlib.import_module(name) for name in names}
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if name in {"streams", *names} or name.split(".")[0] == "peers":
            del sys.modules[name]


def flags(*hours: tuple[int, int]) -> Any:
    """Two devices, ten windows, three monitors; alarms at (device, window)."""
    made = np.zeros((2, 10, 3), dtype=bool)
    for device, window in hours:
        made[device, window, 1] = True
    return made


def test_a_delay_is_that_of_the_first_alarm_of_each_device(modules: dict[str, Any]) -> None:
    judging = modules["judging"]
    assert judging.first(flags((0, 3), (0, 5), (1, 0))) == [4, 1]
    assert judging.first(flags((0, 3))) == [4, np.inf]


def test_a_delay_is_noise_where_a_quiet_twin_alarms_no_later(modules: dict[str, Any]) -> None:
    delay = modules["judging"].Delay
    assert str(delay([4, 6, 9], [np.inf, np.inf, 2])) == "6"
    assert str(delay([4, 6, 9], [5, 6, np.inf])) == "noise"
    assert str(delay([4, np.inf, np.inf], [np.inf, np.inf, np.inf])) == "-"


def test_alarms_are_counted_for_a_fleet_month(modules: dict[str, Any]) -> None:
    """Two alarms in 20 windows of 3 monitors; 1,000 devices of 25 over 720 hours."""
    count, open_ = modules["judging"].a_month(flags((0, 1), (1, 1)), 25)
    assert count == pytest.approx(2 / (20 * 3) * 1_000 * 25 * 720)
    assert open_ == pytest.approx(1.5 * count)
    assert modules["monitoring_peers"].rate((0.0, 90_000.0)) == "0 (< 90,000)"


def test_peers_see_the_faulty_feature_and_its_twin_without_the_fault(
    modules: dict[str, Any],
) -> None:
    watching, streams = modules["watching"], modules["watching"].streams
    iid = streams.SETTINGS["iid"]
    for fault in streams.FAULTS:
        columns = modules["judging"].fault_columns(fault)
        case, twin = (
            watching.simulated(iid, hours=2, devices=2, fault=one, columns=columns, rows=600)
            for one in (fault, None)
        )
        assert np.array_equal(case["before"], twin["before"])
        changed = (case["after"] != twin["after"]).any(axis=2)
        words = (case["said"] != twin["said"]).any(axis=2)
        assert np.concatenate([changed, words], axis=2).sum(axis=2).min() == 1, fault.name
        assert changed.shape[:2] == (2, 2)


def test_a_stuck_simulated_sensor_holds_its_last_quiet_value(modules: dict[str, Any]) -> None:
    watching, streams = modules["watching"], modules["watching"].streams
    case = watching.simulated(
        streams.SETTINGS["ar1"], hours=2, devices=3, fault=streams.Fault("stuck"), rows=600
    )
    stuck = case["after"][..., 1].reshape(3, -1)
    assert (np.ptp(stuck, axis=1) == 0).all()
    assert len(set(stuck[:, 0].tolist())) == 3


@pytest.mark.parametrize("kind", ["shift", "unit", "stuck", "correlation"])
def test_a_real_series_is_broken_from_its_window_on(modules: dict[str, Any], kind: str) -> None:
    rng = np.random.default_rng(SEED)
    case = {
        "before": rng.normal(5, 2, (500, 2)).astype(np.float32),
        "after": rng.normal(5, 2, (2, 10, 24, 2)).astype(np.float32),
    }
    whole = case["after"].copy()
    made = modules["watching"].broken(case, kind, 5)["after"]
    assert np.array_equal(case["after"], whole), "the series itself changed"
    assert np.array_equal(made[:, :5], whole[:, :5]) and np.array_equal(made[..., 1], whole[..., 1])
    was, now = whole[:, 5:, :, 0], made[:, 5:, :, 0]
    match kind:
        case "shift":
            assert np.allclose(now - was, case["before"][:, 0].std(), atol=1e-4)
        case "unit":
            assert np.allclose(now, 1.8 * was + 32, atol=1e-4)
        case "stuck":
            assert (now == whole[:, 4, -1, 0][:, None, None]).all()
        case "correlation":
            assert np.array_equal(now, whole[:, :5, :, 0])


def test_ours_alarms_on_the_faulty_sensor_alone_and_costs_what_it_says(
    modules: dict[str, Any], tmp_path: Path
) -> None:
    """A packaged model, a device's window, the fleet's detector: from rows to an alarm."""
    watching, streams, own = modules["watching"], modules["watching"].streams, modules["ours"]
    iid, columns = streams.SETTINGS["iid"], (0, 1, 2, 3, streams.NUMBERS)
    fault = streams.Fault("shift", 2.0)
    case, twin = (
        watching.simulated(iid, hours=8, devices=2, fault=one, columns=columns, rows=3_000)
        for one in (fault, None)
    )
    ours = own.Ours(case, tmp_path)
    level = ours.log_threshold(1_000, 3_600)
    found = ours.judge(case, level).alarms
    names = [monitor.name for monitor in ours.profile.monitors]
    assert max(modules["judging"].first(found[:, :, [names.index("number1")]])) <= 4
    others = [names.index(name) for name in ("number2", "number3", "word0")]
    assert not found[:, :, others].any()
    quiet = ours.judge(twin, level)
    assert not quiet.alarms.any() and not quiet.findings.any()
    assert names.index("number1") in ours.watches([1])
    assert names.index("number2") not in ours.watches([1])
    size = own.cost(ours, twin, 200, tmp_path)
    assert 100 < size["bytes"] < own.raw_bytes(twin, 200)
    assert size["rows_per_cpu_s_32"] > 0
    ours.close()


def test_an_alarm_that_goes_on_is_counted_again_not_every_window(
    modules: dict[str, Any], tmp_path: Path
) -> None:
    streams, watching = modules["watching"].streams, modules["watching"]
    case = watching.simulated(
        streams.SETTINGS["iid"], hours=24, devices=1, columns=(0, 1), rows=4_000,
        fault=streams.Fault("shift", 0.6),
    )  # fmt: skip
    ours = modules["ours"].Ours(case, tmp_path, ordered=False)
    assert not ours.profile.time_ordered
    found = ours.judge(case, ours.log_threshold(1_000, 3_600)).alarms
    names = [monitor.name for monitor in ours.profile.monitors]
    assert 2 <= found[0, :, names.index("number1")].sum() <= 10
    ours.close()


def test_the_device_itself_finds_a_stuck_sensor(modules: dict[str, Any], tmp_path: Path) -> None:
    streams, watching = modules["watching"].streams, modules["watching"]
    case = watching.simulated(
        streams.SETTINGS["iid"], hours=3, devices=2, columns=(0, 1), rows=2_000,
        fault=streams.Fault("stuck"),
    )  # fmt: skip
    ours = modules["ours"].Ours(case, tmp_path)
    found = ours.judge(case, ours.log_threshold(1_000, 3_600)).findings
    at = [monitor.name for monitor in ours.profile.monitors].index("number1")
    assert modules["judging"].first(found[:, :, [at]]) == [1, 1]
    assert found.sum() == 2
    ours.close()


def test_a_table_has_a_line_for_every_monitor_and_rule(modules: dict[str, Any]) -> None:
    page, judging = modules["monitoring_peers"], modules["judging"]
    size = judging.Size(quiet=("iid",), faulty=("iid",))
    faults = [fault.name for fault in judging.streams.FAULTS]
    delays = {"iid": {name: judging.Delay([3, 5], [np.inf, np.inf]) for name in faults}}
    found = {
        "edge-pack": {
            "alarms": {"quiet": {"iid": (0.0, 9.0)}, "delays": delays},
            "findings": {"quiet": {"iid": (0.0, 9.0)}, "delays": delays},
        },
        "NannyML": {
            "quiet": {"default": {"iid": (5_000.0, 9.0)}, "tuned": {"iid": "ValueError: no"}},
            "delays": {"default": delays, "tuned": {"iid": dict.fromkeys(faults, "no")}},
        },
    }
    text = page.simulated_table(found, size)
    assert "| **edge-pack** | 0 (< 9) |" in text
    assert "| NannyML | 5,000 |" in text and "| NannyML, tuned | fails |" in text
    assert text.count("| 4 |") >= 2
    shape = {line.count("|") for line in text.split("\n\n")[1].splitlines()}
    assert shape == {len(faults) + 2}


def test_what_was_measured_is_read_back_and_put_between_the_markers(
    modules: dict[str, Any], tmp_path: Path
) -> None:
    module, delay = modules["monitoring_peers"], modules["judging"].Delay([4, np.inf], [2, np.inf])
    file, page = tmp_path / "found.json", tmp_path / "page.md"
    file.write_text(json.dumps({"figures": {"a": delay}}, default=module._plain))
    assert module.read(file) == {"a": delay}
    page.write_text(f"before\n{module.BEGIN}\nold\n{module.END}\nafter\n")
    module.write(page, "| new |")
    assert page.read_text() == f"before\n{module.BEGIN}\n| new |\n{module.END}\nafter\n"
    with pytest.raises(ValueError, match="0 places"):
        module.write(file, "| new |")


def test_the_page_says_nothing_of_monitors_that_are_not_measured(modules: dict[str, Any]) -> None:
    module = modules["monitoring_peers"]
    text = module.PAGE.read_text(encoding="utf-8").partition(module.BEGIN)[2]
    table, end, _ = text.partition(module.END)
    assert end
    named = {line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()}
    known = {
        label
        for name in (module.OURS, *modules["watching"].TOOLS)
        for label in module.labels(name).values()
    }
    heads = ("false alarms", "hours to", "real series", "Measured", "|---", "|")
    others = {line for line in named if line and not line.startswith(heads)}
    assert set(module.labels(module.OURS).values()) <= others
    assert others - known <= {module.OURS, "raw rows"}
