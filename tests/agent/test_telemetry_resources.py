"""The machine beside its counts, by files as a kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import thermal
from edge_agent.telemetry.resources import Meter, Used, percents, slowed, used
from edge_contract.telemetry import Resources


def stat(root: Path, *ticks: int) -> None:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/stat").write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\nintr 5\n")


def test_processor_time_is_split_into_busy_and_idle(tmp_path: Path) -> None:
    # user nice system idle iowait irq softirq steal guest guest_nice; guest is in user already.
    stat(tmp_path, 100, 20, 30, 800, 40, 5, 5, 0, 90, 0)
    now = used(tmp_path)
    assert now is not None
    assert (now.passed_s, now.busy_s) == (pytest.approx(10.0), pytest.approx(1.6))
    assert used(tmp_path / "nowhere") is None
    for wrong in ("", "cpu 1 2", "cpu a b c d e f g h i", "intr 1 2 3 4 5 6 7 8 9"):
        (tmp_path / "proc/stat").write_text(wrong)
        assert used(tmp_path) is None


def test_shares_stay_between_0_and_100() -> None:
    before = Used(100.0, 50.0, 1.0)
    assert percents(before, Used(200.0, 87.0, 5.4)) == (37, 4)
    assert percents(before, Used(200.0, 40.0, 500.0)) == (0, 100)
    assert percents(before, before) == (None, None)
    assert percents(None, before) == (None, None)
    assert percents(before, None) == (None, None)


def test_a_pis_bits_of_now_and_since_power_came_lie_side_by_side() -> None:
    assert slowed(thermal.Reading(firmware=0x50005), resting=True) == 0x55
    assert slowed(thermal.Reading(firmware=0x20000), resting=False) == 0x20
    assert slowed(thermal.Reading(), resting=True) == 0x100
    assert slowed(thermal.Reading(), resting=False) == 0


def test_a_meter_reads_a_pi(tmp_path: Path) -> None:
    stat(tmp_path, 0, 0, 0, 0, 0, 0, 0, 0)
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    firmware = tmp_path / "sys/devices/platform/soc/soc:firmware"
    for folder in (zone, firmware):
        folder.mkdir(parents=True)
    (zone / "temp").write_text("67600\n")
    (firmware / "get_throttled").write_text("50005\n")
    meter = Meter(tmp_path, root=tmp_path)
    stat(tmp_path, 250, 0, 0, 750, 0, 0, 0, 0)
    seen = meter.look(10.0)
    assert (seen.cpu_percent, seen.temperature_c, seen.slowed) == (25, 68, 0x55)
    assert seen.rss_mib is not None
    assert seen.disk_free_mib is not None
    stat(tmp_path, 1000, 0, 0, 1000, 0, 0, 0, 0)
    assert meter.look(14.0) is seen  # windows that end together share a look
    assert meter.look(20.0).cpu_percent == 75


def test_what_the_system_does_not_say_is_none(tmp_path: Path) -> None:
    seen = Meter(tmp_path / "gone", root=tmp_path).look(1.0)
    assert seen == Resources(rss_mib=seen.rss_mib)
