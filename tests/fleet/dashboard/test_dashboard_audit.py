"""The audit's page: what the service tells an admin, and nothing for others."""

from collections.abc import Callable
from pathlib import Path

import axe_playwright_python
import pytest
from api_kit import EVIL
from dashboard_kit import Browsing, Served

from edge_fleet.options import now_ms
from edge_fleet.store.audit import audit

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dashboard")]

Open = Callable[..., Browsing]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


def test_an_admin_reads_who_did_what_and_others_are_told_why_not(
    nobody: Served, browsing: Open
) -> None:
    admin = browsing(nobody.url, nobody.tokens["admin"])
    admin.to("audit", "Audit")
    assert "Nobody did anything yet" in admin.text()
    now = now_ms()
    with nobody.store.transaction() as tx:
        audit(tx, now - 2000, "ann", action="rollout.start", subject="rollout 3", detail=EVIL)
        audit(tx, now - 1000, EVIL[:40], action="token.create", subject="token 0", detail="x" * 900)
    admin.page.reload()
    page = admin.to("audit", "Audit")
    rows = page.get_by_role("region", name="Audit").get_by_role("row")
    told = [rows.nth(at).inner_text() for at in range(1, rows.count())]
    assert len(told) == 2
    assert "token.create" in told[0], "newest first"
    assert "ann" in told[1]
    assert "<script>alert(1)</script>" in told[1], "as text"
    assert page.locator("main script").count() == 0
    assert not set("\u202e\x1b\u2028") & set(admin.text())
    page.get_by_role("button", name="more").first.wait_for()
    assert page.get_by_role("link", name="rollout 3").get_attribute("href") == "#/rollouts/3"
    page.evaluate(AXE)
    found = page.evaluate("axe.run()")
    assert not [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    root = "document.documentElement"
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0
    page.get_by_label("Did").fill("rollout")
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    assert "rollout.start" in admin.text()
    page.get_by_label("Who is").fill("nobody")
    page.get_by_text("No entry fits these filters").wait_for()

    operator = browsing(nobody.url, nobody.tokens["operator"])
    operator.expected = ("403",)
    operator.page.get_by_text("operator-1").wait_for()
    menu = operator.page.get_by_role("navigation", name="Pages")
    assert menu.get_by_role("link", name="Audit").count() == 0
    operator.to("audit", "Audit")
    operator.page.get_by_role("alert").filter(has_text="it needs the role admin").wait_for()
