"""The page about privacy names every field of what a device sends by itself."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from edge_contract.aside import Labelled, Shadow
from edge_contract.messages import (
    Calibrated,
    Event,
    Failure,
    Findings,
    Hardware,
    Mismatch,
    ModelReport,
    Reported,
    Room,
    Status,
    Strain,
)
from edge_contract.telemetry import Record, Resources

PAGE = Path(__file__).parents[2] / "docs" / "privacy.md"
SENT = (
    Record, Resources, Shadow, Labelled, Status, Reported, Event,
    Calibrated, Hardware, ModelReport, Failure, Findings, Mismatch, Strain,
    Room,
)  # fmt: skip


def named() -> set[str]:
    """What stands in backquotes in the first column of a table."""
    rows = re.findall(r"^\| ([^|]*) \|", PAGE.read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize("kind", SENT)
def test_every_field_is_named(kind: type[msgspec.Struct]) -> None:
    assert set(kind.__struct_fields__) - named() == set()


def test_every_struct_inside_is_one_of_them() -> None:
    """A new struct in a message would bring fields that nobody looked at."""
    components = msgspec.json.schema_components(SENT)[1]
    assert set(components) == {kind.__name__ for kind in SENT}
