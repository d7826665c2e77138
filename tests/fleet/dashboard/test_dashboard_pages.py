"""The dashboard in a headless Chromium, over a fleet whose every word is hostile."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import axe_playwright_python
import pytest
from api_kit import EVIL, token
from dashboard_kit import PAGES, WAIT_MS, Browsing, Served

from edge_fleet import reports
from edge_fleet.api import server
from edge_fleet.options import now_ms
from edge_fleet.store.base import EventSeen
from edge_fleet.store.sql import SqlStore

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dashboard")]

Open = Callable[..., Browsing]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
PHONE = {"width": 390, "height": 844}


def one_alarm(store: SqlStore) -> int:
    with store.reading() as tx:
        return tx.alarms(open_only=False)[-1].id


def test_a_token_lets_in_and_a_void_one_leads_back(served: Served, browsing: Open) -> None:
    seen = browsing(served.url)
    seen.expected = ("401", "400")
    page = seen.page
    page.goto(served.url)
    assert page.url == f"{served.url}/dashboard/"
    page.get_by_label("Token").fill("edge_0123456789ab_wrong")
    page.get_by_role("button", name="Open").click()
    page.get_by_role("alert").filter(has_text="not valid").wait_for()
    page.get_by_label("Token").fill(served.tokens["viewer"])
    page.get_by_role("button", name="Open").click()
    page.get_by_text("viewer-1").wait_for()
    assert page.locator(".who .badge").inner_text() == "viewer"
    page.reload()
    page.get_by_text("viewer-1").wait_for()
    page.get_by_role("button", name="Log out").click()
    page.get_by_label("Token").wait_for()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_token_in_the_fragment_is_taken_over_and_out(served: Served, browsing: Open) -> None:
    page = browsing(served.url, served.tokens["operator"]).page
    page.get_by_text("operator-1").wait_for()
    assert "token" not in page.url
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.cookie") == ""
    asked = page.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
    assert not [one for one in asked if served.tokens["operator"] in one]


def test_a_token_that_is_revoked_leads_to_the_login(served: Served, browsing: Open) -> None:
    text = token(served.store, "viewer")
    seen = browsing(served.url, text)
    seen.expected = ("401",)
    with served.store.transaction() as tx:
        assert tx.revoke_api_token(text.split("_")[1], now_ms())
    seen.page.goto(f"{served.url}/dashboard/#/events")
    seen.page.get_by_label("Token").wait_for()


def test_each_page_shows_what_the_store_holds(served: Served, browsing: Open) -> None:
    seen = browsing(served.url, served.tokens["viewer"])
    seen.to("", "Fleet")
    status = reports.status(served.store, now_ms())
    stats = seen.page.locator(".stat").all_inner_texts()
    told = {one.split("\n")[0]: one.split("\n")[1] for one in stats}
    assert told["Devices"] == str(status.devices)
    assert told["Offline"] == str(status.offline)
    assert told["Open alarms"] == str(status.open_alarms)
    assert told["Predictions counted"] == f"{status.rows:,}"
    assert {"1.0", "1.1", "1.2", "1.3", "1.4"} <= set(seen.text().split())
    seen.to("devices", "Devices")
    assert [f"pi-{n}" for n in range(5)] == seen.page.locator("td a").all_inner_texts()
    seen.page.get_by_label("Name holds").fill("I-3")
    seen.page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    assert seen.page.locator("td a").all_inner_texts() == ["pi-3"]
    seen.page.get_by_label("Name holds").fill("")
    seen.page.get_by_role("button", name="Offline").click()
    seen.page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    assert seen.page.locator("td a").all_inner_texts() == ["pi-4"]
    seen.page.get_by_role("link", name="pi-4").click()
    seen.page.get_by_role("heading", level=1).filter(has_text="pi-4").wait_for()
    seen.settled()
    assert "committed" in seen.text()
    assert seen.page.locator(".column .after").count() > 0


def test_html_of_a_device_is_text_and_runs_nothing(served: Served, browsing: Open) -> None:
    seen = browsing(served.url, served.tokens["operator"])
    alarm = f"alarms/{one_alarm(served.store)}"
    for path in [*PAGES, "devices/pi-2", alarm, "devices?label=site%3A%3Cb%3E&search=%3Cb%3E"]:
        seen.to(path)
        assert seen.page.locator("main script, main b b, main img").count() == 0
        if path in ("", "devices", "events", "devices/pi-2"):
            assert "<script>alert(1)</script>" in seen.text(), path
        assert not set("\u202e\x1b\u2028") & set(seen.text()), path


def test_an_operator_answers_an_alarm_and_a_viewer_cannot(served: Served, browsing: Open) -> None:
    alarm = one_alarm(served.store)
    viewer = browsing(served.url, served.tokens["viewer"])
    viewer.to(f"alarms/{alarm}")
    names = viewer.page.locator("main button").all_inner_texts()
    assert not {"Acknowledge", "Comment", "Resolve"} & set(names)
    assert viewer.page.locator(".column").count() > 2, "before and after"
    operator = browsing(served.url, served.tokens["operator"])
    page = operator.to(f"alarms/{alarm}")
    said = f"looked at {EVIL} <b>bold</b>"
    page.get_by_role("button", name="Acknowledge").click()
    page.get_by_role("dialog").get_by_label("Comment").fill(said)
    page.get_by_role("dialog").get_by_role("button", name="Acknowledge").click()
    page.get_by_role("dialog").wait_for(state="detached")
    page.get_by_text("looked at <script>").wait_for()
    page.locator("h1 .badge").filter(has_text="acknowledged").wait_for()
    page.get_by_role("button", name="Comment").click()
    page.get_by_role("dialog").get_by_label("Comment").fill("sensor ordered")
    page.get_by_role("dialog").get_by_role("button", name="Comment").click()
    page.get_by_text("sensor ordered").wait_for()
    with served.store.reading() as tx:
        kinds = [(note.kind, note.author) for note in tx.notes([alarm])]
    assert kinds == [("acknowledged", "operator-1"), ("comment", "operator-1")]


def test_a_write_whose_answer_is_lost_is_done_once(served: Served, browsing: Open) -> None:
    alarm = one_alarm(served.store)
    seen = browsing(served.url, served.tokens["operator"])
    seen.expected = ("ERR_FAILED",)
    page = seen.to(f"alarms/{alarm}")
    keys: list[str] = []

    def lose(route: object) -> None:
        keys.append(route.request.headers["idempotency-key"])  # type: ignore[attr-defined]
        if len(keys) == 1:
            route.fetch()  # type: ignore[attr-defined]
            route.abort()  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    page.route("**/comments", lose)
    page.get_by_role("button", name="Comment").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Comment").fill("only once")
    dialog.get_by_role("button", name="Comment").click()
    dialog.get_by_role("alert").wait_for()
    dialog.get_by_role("button", name="Comment").click()
    dialog.wait_for(state="detached")
    page.get_by_text("only once").wait_for()
    with served.store.reading() as tx:
        texts = [note.text for note in tx.notes([alarm])]
    assert texts.count("only once") == 1
    assert len(keys) == 2
    assert keys[0] == keys[1]


def test_the_keyboard_reaches_everything(served: Served, browsing: Open) -> None:
    seen = browsing(served.url, served.tokens["operator"])
    page = seen.to(f"alarms/{one_alarm(served.store)}")
    page.reload()
    page.get_by_role("button", name="Comment").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    focused = []
    for _ in range(4):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.innerText"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", "where the focus is can be seen"
    assert "Comment" in focused
    page.get_by_role("button", name="Comment").focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    for _ in range(12):
        page.keyboard.press("Tab")
        inside = (
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
        assert page.evaluate(inside), "the focus stays in the dialog"
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert page.evaluate("document.activeElement.innerText") == "Comment"
    page.get_by_role("link", name="Devices").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", level=1).filter(has_text="Devices").wait_for()
    assert page.evaluate("document.activeElement.id") == "main", "a screen reader goes on there"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(served: Served, browsing: Open, scheme: str) -> None:
    seen = browsing(served.url, served.tokens["operator"], color_scheme=scheme)
    for path in [*PAGES, "devices/pi-2", f"alarms/{one_alarm(served.store)}", "no/such"]:
        page = seen.to(path)
        page.evaluate(AXE)
        found = page.evaluate("axe.run()")
        serious = [
            (
                one["id"],
                [node["html"][:200] + json.dumps(node["any"])[:400] for node in one["nodes"]],
            )
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert not serious, (path, serious)
        assert len(found["passes"]) > 10
    out = browsing(served.url, color_scheme=scheme)
    out.page.goto(f"{served.url}/dashboard/")
    out.page.get_by_label("Token").wait_for()
    out.page.evaluate(AXE)
    found = out.page.evaluate("axe.run()")
    assert not [one for one in found["violations"] if one["impact"] in ("serious", "critical")]


def test_nothing_is_wider_than_a_phone(served: Served, browsing: Open) -> None:
    seen = browsing(served.url, served.tokens["operator"], viewport=PHONE)
    for path in [*PAGES, "devices/pi-2", f"alarms/{one_alarm(served.store)}"]:
        page = seen.to(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path


def test_the_theme_is_the_systems_until_one_is_chosen(served: Served, browsing: Open) -> None:
    page = browsing(served.url, served.tokens["viewer"], color_scheme="dark").page
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Use the light theme").click()
    light = page.evaluate(ground)
    assert light != dark
    page.reload()
    page.get_by_role("button", name="Use the dark theme").wait_for()
    assert page.evaluate(ground) == light


def test_an_empty_fleet_says_what_to_do(nobody: Served, browsing: Open) -> None:
    seen = browsing(nobody.url, nobody.tokens["viewer"])
    seen.to("")
    assert "No device was heard of yet" in seen.text()
    seen.to("alarms")
    assert "No open alarm" in seen.text()
    seen.to("events")
    assert "Nothing happened yet" in seen.text()
    seen.expected = ("404",)
    seen.to("devices/nobody")
    seen.page.get_by_role("alert").filter(has_text="no device 'nobody'").wait_for()


def test_a_page_that_waits_and_one_that_fails_say_so(served: Served, browsing: Open) -> None:
    seen = browsing(served.url, served.tokens["viewer"])
    seen.expected = ("500",)
    held: list[object] = []
    seen.page.route("**/api/v1/events?*", lambda one: held.append(one))  # noqa: PLW0108 (playwright marks it)
    with seen.page.expect_request("**/api/v1/events?*"):
        seen.page.goto(f"{served.url}/dashboard/#/events")
    seen.page.get_by_role("status", name="Loading events").wait_for()
    while not held:  # the route is told after the request is
        seen.page.wait_for_timeout(20)
    problem = json.dumps({"detail": "the disk is full", "advice": "Make room."})
    held[0].fulfill(status=500, body=problem)  # type: ignore[attr-defined]
    alert = seen.page.get_by_role("alert").filter(has_text="the disk is full")
    alert.filter(has_text="Make room.").wait_for()
    seen.page.unroute("**/api/v1/events?*")
    alert.get_by_role("button", name="Try again").click()
    seen.page.locator("tbody tr").first.wait_for()


def test_an_event_appears_as_it_comes(nobody: Served, browsing: Open) -> None:
    seen = browsing(nobody.url, nobody.tokens["viewer"])
    page = seen.to("events", "Events")
    page.get_by_text("Live", exact=True).wait_for()
    page.evaluate("window.marked = true")
    now = now_ms()
    with nobody.store.transaction() as tx:
        tx.add_events([EventSeen("pi-9", 1, 1, now, "update", "boiler", "2.0", "hello", now)])
    page.get_by_role("row").filter(has_text="hello").wait_for()
    assert page.evaluate("window.marked"), "without a reload"


def test_a_server_that_goes_away_is_told_and_found_again(store: SqlStore, browsing: Open) -> None:
    text = token(store, "viewer")
    listen = server.Listen("127.0.0.1", 0, per_minute=1_000_000)
    with server.running(store, listen) as url:
        seen = browsing(url, text)
        seen.expected = ("ERR_", "Failed to load resource")
        page = seen.to("events", "Events")
        page.get_by_text("Live", exact=True).wait_for()
    banner = page.get_by_text("The server does not answer. What is shown may be old")
    banner.wait_for()
    now = now_ms()
    with store.transaction() as tx:
        tx.add_events([EventSeen("pi-9", 1, 1, now, "update", "boiler", "2.0", "meanwhile", now)])
    port = int(re.sub(r".*:", "", url))
    with server.running(store, server.Listen("127.0.0.1", port, per_minute=1_000_000)):
        page.get_by_role("row").filter(has_text="meanwhile").wait_for(timeout=WAIT_MS)
        banner.wait_for(state="detached")
        seen.close()
