"""Drift, models, quality and rollouts in a real browser: what is shown is what the service says,
the keyboard reaches it, and nothing that a device or a bundle words is run."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from api_kit import token
from dashboard_kit import Browsing, Served
from fleet_kit import Packed
from views_kit import DEVICES, EVIL, MODEL, VERSION, Week, worded

from edge_fleet.api import server
from edge_fleet.options import now_ms
from edge_fleet.rollouts import facts
from edge_fleet.rollouts.words import Saying, say
from edge_fleet.store.sql import open_store

Open = Callable[..., Browsing]
FEATURE = f"temperature{EVIL}"
PAGE_MAX_BYTES = 500_000


@pytest.fixture(scope="module")
def filled(packed: Packed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Week]:
    """A fleet whose first devices drift; tests of this file share it."""
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('views')}/fleet.db", create=True)
    week = Week(store, worded(packed), np.random.default_rng(5))
    week.fill()
    yield week
    store.close()


@pytest.fixture(scope="module")
def week(filled: Week) -> Iterator[Served]:
    """The service over it."""
    listen = server.Listen("127.0.0.1", 0, per_minute=1_000_000)
    with server.running(filled.store, listen) as url:
        roles = {role: token(filled.store, role) for role in ("viewer", "operator")}
        yield Served(filled.store, url, roles)


def asked(served: Served, path: str, **query: Any) -> Any:
    """What the service answers to a viewer."""
    headers = {"Authorization": f"Bearer {served.tokens['viewer']}"}
    answer = httpx.get(f"{served.url}/api/v1/{path}", params=query, headers=headers, timeout=60)
    return answer.raise_for_status().json()


def figure(value: float) -> str:
    """Three significant figures, as pages write them."""
    return str(float(f"{value:.3g}")).removesuffix(".0")


def overflow(page: Any) -> int:
    root = "document.documentElement"
    return int(page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))


def test_the_map_is_walked_by_keyboard_and_says_the_exact_figures(
    week: Served, filled: Week, browsing: Open
) -> None:
    one = browsing(week.url, week.tokens["viewer"])
    page = one.to("drift", f"Drift of {MODEL} {VERSION}")
    drift = asked(week, f"bundles/{filled.packed.digest}/drift", hours=168)
    first, last = drift["features"][0], len(drift["starts"]) - 1
    assert first["feature"] == FEATURE
    assert first["alarms"] >= 2
    grid = page.get_by_role("grid")
    assert grid.locator("[data-at]").count() == 4 * 168
    assert grid.locator('[data-at][tabindex="0"]').count() == 1, "one stop on the way of Tab"
    grid.locator('[data-at][tabindex="0"]').focus()
    said = page.locator(".heat-said")
    for key, (row, at) in {
        "ArrowLeft": (0, last - 1), "ArrowDown": (1, last - 1), "Home": (1, 0),
        "Control+End": (3, last), "PageUp": (0, last),
    }.items():  # fmt: skip
        page.keyboard.press(key)
        here = page.locator(":focus")
        assert (here.get_attribute("data-row"), here.get_attribute("data-at")) == (
            str(row),
            str(at),
        )
        feature = drift["features"][row]
        wanted = feature["distance"][at]
        shown = f"distance {figure(wanted)}" if wanted is not None else "not shown"
        said.filter(has_text=shown).filter(has_text=feature["feature"]).wait_for()
    assert grid.locator('[data-at][tabindex="0"]').count() == 1
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=f"{FEATURE}: before and after").wait_for()
    one.settled()
    start = drift["since_ms"] + last * drift["step_ms"]
    hour = asked(
        week, f"bundles/{filled.packed.digest}/histogram", feature=FEATURE, since_ms=start,
        until_ms=start + drift["step_ms"],
    )  # fmt: skip
    text = one.text()
    assert hour["what"] in text
    assert f"{figure(hour['distance'])}, by chance {figure(hour['chance'])}" in text
    assert "At most 1 false alarm in 30 days" in text


def test_the_drift_page_names_the_devices_and_their_alarms(
    week: Served, filled: Week, browsing: Open
) -> None:
    one = browsing(week.url, week.tokens["viewer"])
    page = one.to(f"drift/{filled.packed.digest}")
    page.get_by_role("button", name=FEATURE).click()
    page.get_by_text("by their evidence on").wait_for()
    one.settled()
    rows = page.get_by_role("region", name="Devices by evidence").get_by_role("row")
    found = [rows.nth(at).inner_text().split("\t") for at in range(1, rows.count())]
    asked_for = asked(
        week, f"bundles/{filled.packed.digest}/contributors", feature=FEATURE, limit=12
    )
    assert [row[0] for row in found] == [item["device"] for item in asked_for["items"]]
    assert {row[0] for row in found[:2]} == {"pi-0", "pi-1"}
    assert all("alarm" in "".join(row) for row in found[:2])
    assert FEATURE in one.text(), "as text, to the letter"
    page.get_by_text("As a table").first.click()
    table = page.get_by_role("region", name="Features by their largest shift")
    assert FEATURE in table.inner_text()


def test_a_model_page_holds_its_figures_and_no_markup_of_others(
    week: Served, filled: Week, browsing: Open
) -> None:
    one = browsing(week.url, week.tokens["viewer"])
    page = one.to("models", "Models")
    assert EVIL[:20] in one.text(), "a version that a device claims to have failed on"
    page.get_by_role("link", name=VERSION, exact=True).click()
    page.get_by_role("heading", level=1, name=f"{MODEL} {VERSION}").wait_for()
    page.get_by_role("button", name="7 days").click()
    page.wait_for_function("() => location.hash.includes('hours=168')")
    one.settled()
    told = asked(week, f"bundles/{filled.packed.digest}", hours=168)
    text = one.text()
    assert f"{figure(told['latency']['p50_ms'])} ms" in text
    assert "finds a shift of 0.1 sigma in 5 d, of 0.25 sigma in 12 h" in text
    assert "level: stuck at one value" in text
    assert "missing" in text
    assert "90.0 % 87.9 % to 91.9 %" in text, "the shadow's agreement with its interval"
    assert EVIL in text


def test_quality_is_drawn_with_intervals_and_with_what_it_cannot_see(
    week: Served, filled: Week, browsing: Open
) -> None:
    one = browsing(week.url, week.tokens["viewer"])
    page = one.to("quality", f"Quality of {MODEL} {VERSION}")
    told = asked(week, f"bundles/{filled.packed.digest}/quality", hours=168)
    text = one.text()
    for method in ("score", "labels", "raked"):
        assert told["blind"][method] in text
    assert "at its build: 0.810" in text
    page.get_by_text("As a table").click()
    table = page.get_by_role("region", name="Accuracy over time, as a table").inner_text()
    estimates = [e for point in told["points"] for e in point["estimates"]]
    drawn = [e for e in estimates if e["figure"] == "accuracy" and e["value"] is not None]
    assert {e["method"] for e in drawn} == {"score", "labels"}
    for each in drawn:
        low, high = (f"{each[side]:.3f}" for side in ("low", "high"))
        assert f"{each['value']:.3f} ({low} to {high})" in table
    assert page.locator(".band .area").count() >= 1
    page.get_by_role("button", name="AUC").click()
    page.get_by_role("heading", name="AUC").wait_for()


def test_a_rollout_is_tried_out_started_watched_and_stopped(
    week: Served, filled: Week, browsing: Open
) -> None:
    one = browsing(week.url, week.tokens["operator"])
    one.expected = ("400",)  # an order that is nonsense
    page = one.to("rollouts", "Rollouts")
    page.get_by_role("link", name="Start a rollout").click()
    page.get_by_label("Version, as NAME@VERSION").fill("boiler@2.0")
    page.get_by_text(f"{DEVICES} devices match").wait_for()
    page.get_by_label("Devices", exact=True).fill("site=nowhere")
    page.get_by_text("the selection means nobody").wait_for()
    assert page.get_by_role("button", name="Start…").is_disabled()
    page.get_by_label("Devices", exact=True).fill("site=lyon")
    page.get_by_text(f"{DEVICES // 2} devices match; {DEVICES // 2} of them may begin").wait_for()
    page.get_by_label("Waves: devices in all").fill("1,nonsense")
    page.get_by_role("alert").filter(has_text="is no wave").wait_for()
    page.get_by_label("Waves: devices in all").fill("1,100%")
    page.get_by_label("Do not look whether it is published").check()
    page.get_by_role("region", name="Waves").wait_for()
    page.get_by_role("button", name="Start…").click()
    dialog = page.get_by_role("dialog")
    assert "1 of them first" in dialog.inner_text()
    dialog.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("heading", level=1).filter(has_text="boiler 2.0").wait_for()
    filled.plan()
    page.get_by_text("1 under way").first.wait_for()
    page.get_by_role("row").filter(has_text="Installed").get_by_text("waiting").wait_for()
    number = int(page.url.rsplit("/", 1)[1])
    page.get_by_role("button", name="Stop", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    dialog.wait_for(state="detached")
    assert phase(week, number) == "running", "nothing happens before a person confirms"
    page.get_by_role("button", name="Stop", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label(re.compile("Why")).fill(EVIL)
    dialog.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("heading", level=1).filter(has_text="aborted").wait_for()
    assert phase(week, number) == "aborted"
    viewer = browsing(week.url, week.tokens["viewer"])
    viewer.to(f"rollouts/{number}", "boiler 2.0")
    for name in ("Stop", "Pause", "Roll back"):
        assert viewer.page.get_by_role("button", name=name, exact=True).count() == 0
    say(filled.store, number, "rollback", Saying("ann", now_ms()))
    for path, title in (("", "Fleet"), (f"rollouts/{number}", "boiler 2.0")):
        viewer.to(path, title)
        badge = viewer.page.locator(".badge").filter(has_text=re.compile("^rolling back$"))
        assert "warn" in str(badge.first.get_attribute("class")), "one word and one colour"
    viewer.to("", "Fleet")
    assert "colour: alarms and share online" in viewer.text()


def phase(served: Served, number: int) -> str:
    with served.store.reading() as tx:
        return next(one.phase for one in facts.everything(tx) if one.id == number)


EMPTY = {
    "drift": "No version has been counted yet", "quality": "No version has been counted yet",
    "models": "No device has reported a model yet", "rollouts": "No rollout yet",
}  # fmt: skip


def test_empty_pages_say_what_is_missing(nobody: Served, browsing: Open) -> None:
    one = browsing(nobody.url, nobody.tokens["viewer"])
    for path, words in EMPTY.items():
        one.to(path)
        assert words in one.text(), path


def test_a_fault_is_told_with_a_way_to_try_again(
    week: Served, filled: Week, browsing: Open
) -> None:
    one = browsing(week.url, week.tokens["viewer"])
    one.expected = ("503", "404")
    failing = {"yes": True}
    problem = {"status": 503, "title": "x", "detail": f"busy {EVIL}", "advice": "Wait."}

    def answer(route: Any) -> None:
        if failing["yes"]:
            route.fulfill(
                status=503, content_type="application/problem+json", body=json.dumps(problem)
            )
        else:
            route.continue_()

    for path in ("drift", "quality", ""):
        inner = f"/{path}" if path else ""
        pattern = re.compile(rf"/api/v1/bundles/[0-9a-f]+{inner}\?")
        one.page.route(pattern, answer)
        failing["yes"] = True
        one.to(f"{path or 'models'}/{filled.packed.digest}")
        one.page.get_by_role("alert").filter(has_text=f"busy {EVIL}").wait_for()
        failing["yes"] = False
        one.page.get_by_role("button", name="Try again").first.click()
        one.page.get_by_role("alert").wait_for(state="detached")
        one.page.unroute(pattern)
    one.to(f"models/{'0' * 64}")
    assert "is not known" in one.text()


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        pytest.param(1360, "light", marks=pytest.mark.slow),
        pytest.param(1360, "dark", marks=pytest.mark.slow),
        (390, "light"),
    ],
)
def test_pages_fit_and_are_small(
    week: Served, filled: Week, browsing: Open, width: int, scheme: str
) -> None:
    size = {"width": width, "height": 900}
    one = browsing(week.url, week.tokens["viewer"], viewport=size, color_scheme=scheme)
    sizes: dict[str, int] = {}
    one.page.on(
        "response",
        lambda r: sizes.update({r.url: len(r.body())}) if r.ok and "stream" not in r.url else None,
    )
    for path in (
        f"drift/{filled.packed.digest}?feature={FEATURE}&source=feature", "models", "quality",
        f"models/{filled.packed.digest}", "rollouts", "rollouts/new",
    ):  # fmt: skip
        page = one.to(path)
        assert overflow(page) == 0, path
        style = "getComputedStyle(document.body)"
        colours = page.evaluate(f"[{style}.color, {style}.backgroundColor]")
        ink, ground = (sum(map(int, re.findall(r"\d+", each)[:3])) for each in colours)
        assert (ink < ground) == (scheme == "light"), path
    assert max(sizes.values()) < PAGE_MAX_BYTES
    assert sum(sizes.values()) < PAGE_MAX_BYTES, "all of them together"


def test_the_drift_page_of_a_young_fleet_opens_on_the_hours_there_are(
    packed: Packed, nobody: Served, browsing: Open
) -> None:
    young = Week(nobody.store, worded(packed), np.random.default_rng(5))
    young.fill(hours=3)
    one = browsing(nobody.url, nobody.tokens["viewer"])
    page = one.to("drift", f"Drift of {MODEL} {VERSION}")
    period = page.get_by_role("group", name="Period")
    assert period.get_by_role("button", name="6 h").get_attribute("aria-pressed") == "true"
    assert page.get_by_role("grid").locator("[data-at]").count() == 4 * 6
    period.get_by_role("button", name="7 days").click()
    page.wait_for_function("() => document.querySelectorAll('[data-at]').length === 4 * 168")
    assert period.get_by_role("button", name="7 days").get_attribute("aria-pressed") == "true"


def test_names_of_an_axis_stand_evenly(week: Served, browsing: Open) -> None:
    """Over many beginnings and widths: the module itself, in the browser."""
    one = browsing(week.url, week.tokens["viewer"])
    uneven = one.page.evaluate(
        """async () => {
          const { named } = await import("./components/band.js");
          const wrong = [];
          for (const [many, hours] of [[24, 1], [42, 4], [84, 2], [168, 1], [90, 24], [6, 1]]) {
            for (const width of [260, 420, 640, 1200]) {
              for (let at = 0; at < 30; at += 1) {
                const first = Date.UTC(2026, 2, 30) + at * 3_600_000;
                const starts = Array.from({ length: many }, (_, n) =>
                  new Date(first + n * hours * 3_600_000).toISOString());
                const found = named(starts, width / many);
                const gaps = new Set(found.slice(1).map(([place], n) => place - found[n][0]));
                const near = [...gaps].some((gap) => (gap * width) / many < 60);
                if (gaps.size > 1 || near || !found.length)
                  wrong.push([many, hours, width, at, found]);
              }
            }
          }
          return wrong;
        }"""
    )
    assert uneven == []
