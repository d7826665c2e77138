"""Heat and voltage, by the files of a Raspberry Pi, of boards with thermal zones, and of x86."""

from pathlib import Path

import pytest

from edge_agent.thermal import HOLD_S, Heat, Reading, read, step

PI = "sys/devices/platform/soc/soc:firmware/get_throttled"
ZONE = "sys/class/thermal/thermal_zone0"
CORE = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
POLICY = "sys/devices/system/cpu/cpufreq/policy0"


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("said", "signs"),
    [
        ("0\n", ()),
        ("50000\n", ()),  # it was so since the start; it is not now
        ("1\n", ("under-voltage",)),
        ("50005\n", ("under-voltage", "throttled by the firmware")),
        ("throttled=0xe000a\n", ("clock capped by the firmware", "soft temperature limit")),
        ("", ()),
        ("nonsense\n", ()),
        ("\xff", ()),
    ],
)
def test_a_raspberry_pi_says_it_in_bits(tmp_path, said, signs) -> None:
    assert read(put(tmp_path, {PI: said})).signs == signs


def test_a_zone_near_the_temperature_at_which_the_kernel_acts_is_hot(tmp_path) -> None:
    files = {
        f"{ZONE}/type": "cpu-thermal\n",
        f"{ZONE}/temp": "79900\n",
        f"{ZONE}/trip_point_0_type": "active\n",
        f"{ZONE}/trip_point_0_temp": "50000\n",
        f"{ZONE}/trip_point_1_type": "passive\n",
        f"{ZONE}/trip_point_1_temp": "85000\n",
        f"{ZONE}/trip_point_2_type": "critical\n",
        f"{ZONE}/trip_point_2_temp": "110000\n",
        "sys/class/thermal/thermal_zone1/temp": "31000\n",
    }
    assert read(put(tmp_path, files)) == Reading(79.9, ())
    put(tmp_path, {f"{ZONE}/temp": "80000\n"})
    assert read(tmp_path) == Reading(80.0, ("cpu-thermal is at 80 degrees of 85",))


@pytest.mark.parametrize("junk", ["", "hot\n", "-274000\n", "999999999\n"])
def test_a_zone_that_cannot_be_is_none(tmp_path, junk) -> None:
    assert read(put(tmp_path, {f"{ZONE}/temp": junk})) == Reading()


def test_a_processor_that_is_held_back_is_seen_and_a_fan_is_not(tmp_path) -> None:
    cooler = "sys/class/thermal/cooling_device{}"
    files = {
        f"{cooler.format(0)}/type": "pwm-fan\n",
        f"{cooler.format(0)}/cur_state": "3\n",
        f"{cooler.format(1)}/type": "thermal-cpufreq-0\n",
        f"{cooler.format(1)}/cur_state": "0\n",
        f"{cooler.format(2)}/type": "intel_powerclamp\n",
        f"{cooler.format(2)}/cur_state": "-1\n",
    }
    assert read(put(tmp_path, files)).signs == ()
    put(tmp_path, {f"{cooler.format(1)}/cur_state": "2\n"})
    assert read(tmp_path).signs == ("clock held back to cool the processor",)


def test_counters_of_x86_say_it_by_growing(tmp_path) -> None:
    put(tmp_path, {CORE.format(0): "7\n", CORE.format(1): "1\n"})
    heat = step(Heat(), read(tmp_path), 0.0)
    assert (heat.throttled, heat.throttles) == (False, 8)
    heat = step(heat, read(tmp_path), 5.0)
    assert not heat.throttled
    put(tmp_path, {CORE.format(1): "2\n"})
    heat = step(heat, read(tmp_path), 10.0)
    assert (heat.signs, heat.since_s, heat.times) == (("throttled by the processor",), 10.0, 1)


def test_a_limit_that_sinks_is_seen_and_a_low_one_from_the_start_is_not(tmp_path) -> None:
    """Who sets a Pi to 600 MHz wants it so; the clock in use says nothing at all."""
    put(tmp_path, {f"{POLICY}/scaling_max_freq": "1500000", f"{POLICY}/scaling_cur_freq": "6000"})
    heat = step(Heat(), read(tmp_path), 0.0)
    assert not heat.throttled
    put(tmp_path, {f"{POLICY}/scaling_max_freq": "1000000"})
    heat = step(heat, read(tmp_path), 1.0)
    assert heat.signs == ("clock limited to 1000 MHz of 1500",)


def test_a_sign_holds_a_minute_and_every_beginning_counts() -> None:
    hot, cool = Reading(80.0, ("soft temperature limit",)), Reading(60.0)
    heat = step(Heat(), cool, 0.0)
    heat = step(heat, hot, 10.0)
    assert (heat.throttled, heat.since_s, heat.times) == (True, 10.0, 1)
    heat = step(heat, hot, 40.0)
    heat = step(heat, cool, 50.0)
    assert (heat.throttled, heat.since_s, heat.temperature_c) == (True, 10.0, 60.0)
    heat = step(heat, cool, 40.0 + HOLD_S - 0.1)
    assert heat.throttled
    heat = step(heat, cool, 40.0 + HOLD_S)
    assert (heat.throttled, heat.since_s, heat.times) == (False, 40.0 + HOLD_S, 1)
    assert step(heat, hot, 200.0).times == 2


def test_this_machine_is_read() -> None:
    seen = read()
    assert seen.temperature_c is None or -60 < seen.temperature_c < 250


def test_an_empty_tree_says_nothing(tmp_path) -> None:
    assert read(tmp_path) == Reading()
    assert step(Heat(), read(tmp_path), 1.0) == Heat()
