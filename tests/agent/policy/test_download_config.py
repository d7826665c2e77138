"""``[download]``: amounts with units, hours of the day; a fault in one is told with the form."""

from pathlib import Path

import pytest

from edge_agent import config as configs
from edge_agent import units
from edge_agent.settings import Download
from edge_contract.errors import InputFault

GOOD = '[agent]\ndevice = "pi1"\nfleet = "home"\n[broker]\nurl = "mqtt://localhost"\n'


def load(tmp_path: Path, text: str) -> Download:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD + text)
    return configs.load(path, {}).download


def test_nothing_is_limited_unless_it_is_said(tmp_path: Path) -> None:
    policy = load(tmp_path, "").policy
    assert (policy.rate_max, policy.daily_max, policy.slot) == (0, 0, ())
    assert policy.start_delay_max_s == 0
    assert load(tmp_path, "[download]\n").disk_max_bytes == 0


def test_settings_are_read_as_they_are_meant(tmp_path: Path) -> None:
    download = load(
        tmp_path,
        """
        [download]
        rate_max = "512 kB/s"
        daily_max = "1.5 MiB"
        slot = ["01:00-05:00", "22:30-00:15"]
        start_delay_max_s = 900
        disk_max = "2GB"
        """,
    )
    policy = download.policy
    assert (policy.rate_max, policy.daily_max) == (512_000, 1_572_864)
    assert [each.text for each in policy.slot] == ["01:00-05:00", "22:30-00:15"]
    assert (policy.start_delay_max_s, download.disk_max_bytes) == (900.0, 2 * 10**9)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('rate_max = "512 kB"', "'512 kB/s'"),
        ('rate_max = "4 Mbit/s"', "'4 Mbit/s' is no amount"),
        ("rate_max = 512000", "Expected `str`, got `int`"),
        ('daily_max = "50"', "'50' is no amount: expected a number and one of B, kB, MB"),
        ('daily_max = "100 kB"', "daily_max is under 245760 bytes: a chunk of 122880 and as much"),
        ('daily_max = "245 kB"', "daily_max is under 245760 bytes"),
        ('daily_max = "-1 MB"', "'-1 MB' is no amount"),
        ('disk_max = "0.1 B"', "under one byte"),
        ('disk_max = "16 MiB"', "leaves nothing beside [telemetry] spool_bytes = 16777216"),
        ('slot = "01:00-05:00"', "Expected `array`, got `str`"),
        ('slot = ["01:00-05:00", "5-6"]', "'5-6' is no slot: expected HH:MM-HH:MM"),
        ("start_delay_max_s = -1", "Expected `float` >= 0"),
        ('rate = "1 kB/s"', "did you mean 'rate_max'?"),
    ],
)
def test_a_fault_is_told_with_the_form(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(InputFault) as caught:
        load(tmp_path, f"[download]\n{line}\n")
    assert "has 1 fault:" in caught.value.what
    assert "[download]" in caught.value.what
    assert said in caught.value.what


def test_every_fault_of_the_section_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputFault) as caught:
        load(tmp_path, '[download]\nrate_max = "x"\ndaily_max = "y"\nslot = ["z", "w"]\n')
    assert "has 4 faults:" in caught.value.what


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234, "1.23 kB"), (99_940, "99.9 kB"),
     (122_880, "123 kB"), (999_600, "1 MB"), (12 * 10**6, "12 MB"), (2 * 10**12, "2000 GB")],
)  # fmt: skip
def test_an_amount_is_shown_in_three_digits(size: int, shown: str) -> None:
    assert units.show_bytes(size) == shown


def test_what_is_shown_can_be_written() -> None:
    for text in ("512 kB", "1.5 MiB", "3 GiB", "7 B"):
        size = units.read_bytes(text)
        assert units.read_bytes(units.show_bytes(size)) == pytest.approx(size, rel=0.005)
