"""The page of `edge-fleet report --html` in a browser: hostile words in it run nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from dashboard_kit import Browsing
from fleet_kit import Packed
from typer.testing import CliRunner
from views_kit import EVIL, Week, worded

from edge_fleet import changes
from edge_fleet.cli import app
from edge_fleet.options import now_ms
from edge_fleet.page import page as written
from edge_fleet.store.sql import SqlStore

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dashboard")]

Open = Callable[..., Browsing]
HOSTILE = (
    "</text></svg></style></title><script>alert(1)</script><img src=x onerror=alert(2)>"
    "\"'><svg onload=alert(3)><iframe srcdoc='<script>alert(4)</script>'></iframe>"
)


def hostile(value: Any) -> Any:
    """With every text in it turned hostile, however deep."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, tuple):
        return tuple(map(hostile, value))
    if isinstance(value, msgspec.Struct):
        every = {name: hostile(getattr(value, name)) for name in value.__struct_fields__}
        return type(value)(**every)
    return value


def shown(browsing: Open, file: Path) -> Any:
    """The page, once the browser has loaded all of it."""
    seen = browsing("")
    seen.page.goto(file.as_uri(), wait_until="load")
    foreign = "script, img, iframe, object, embed, link, base, form, [onload], [onerror]"
    assert seen.page.locator(foreign).count() == 0
    return seen.page


def test_every_text_of_a_report_may_be_hostile(
    store: SqlStore, db: str, packed: Packed, browsing: Open, tmp_path: Path
) -> None:
    week = Week(store, worded(packed), np.random.default_rng(5))
    week.fill(hours=36)
    file = tmp_path / "week.html"
    result = CliRunner().invoke(app, ["report", "--db", db, "--hours", "24", "--html", str(file)])
    assert result.exit_code == 0, result.output
    text = shown(browsing, file).inner_text("body")
    assert f"temperature{EVIL}" in text, "what a bundle words is shown as text"

    found = changes.changes(store, now_ms(), period_ms=86_400_000)
    assert found.changes
    worst = tmp_path / "worst.html"
    worst.write_text(written(hostile(found)), encoding="utf-8")
    page = shown(browsing, worst)
    assert "<script>alert(1)</script>" in page.inner_text("body")
    assert page.locator("svg").count() == len(found.changes), "no drawing but its own"
