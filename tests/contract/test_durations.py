"""One way to write a length of time."""

from __future__ import annotations

import pytest

from edge_contract import durations
from edge_contract.errors import InputFault


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5), ("90s", 90), ("1.5m", 90), ("5min", 300), ("2h", 7200),
        ("7d", 604_800), (" 1 w ", 604_800), ("0s", 0),
    ],
)  # fmt: skip
def test_units(text: str, seconds: float) -> None:
    assert durations.seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "14", "-1d", "1e9d", "soon", "1 year", "1H", "NaNs", "9" * 400 + "d", "1d2h"]
)
def test_what_is_no_duration_is_said_with_its_setting(text: str) -> None:
    with pytest.raises(InputFault) as raised:
        durations.seconds(text, "--keep-raw")
    assert raised.value.what.startswith(f"--keep-raw {text[:80]!r} is no duration: expected")
