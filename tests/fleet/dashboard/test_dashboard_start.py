"""The form that starts a rollout: each thing that an order may say, and faults at their fields."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from api_kit import fill
from dashboard_kit import Browsing, Served
from fleet_kit import Packed

from edge_fleet.rollouts import facts
from edge_fleet.rollouts import order as orders

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dashboard")]

Open = Callable[..., Browsing]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


def wrong(page: Any, label: str) -> str:
    """What stands beside a field, by what a screen reader says of it."""
    field = page.get_by_label(label, exact=True)
    page.wait_for_function("(at) => at.ariaInvalid === 'true'", arg=field.element_handle())
    told = page.get_by_role("alert")
    assert told.get_attribute("id") in field.get_attribute("aria-describedby")
    return str(told.inner_text())


def test_an_order_is_written_whole_and_each_fault_stands_at_its_field(
    nobody: Served, browsing: Open, packed: Packed, rng: Any
) -> None:
    fill(nobody.store, packed, rng)
    seen = browsing(nobody.url, nobody.tokens["operator"])
    seen.expected = ("400",)
    page = seen.to("rollouts/new", "Start a rollout")
    version = page.get_by_label("Version, as NAME@VERSION")
    version.fill("boiler")
    assert "names no version" in wrong(page, "Version, as NAME@VERSION")
    version.fill("boiler@2.0")
    page.get_by_text("5 devices match").wait_for()
    page.get_by_label("Devices", exact=True).fill("site=")
    assert wrong(page, "Devices").strip()
    page.get_by_label("Devices", exact=True).fill("")
    page.get_by_text("5 devices match").wait_for()

    for name in ("Before the first wave", "When, and how many at once", "Limits of the gates"):
        page.get_by_text(name, exact=True).focus()
        page.keyboard.press("Enter")
    page.get_by_label("First runs").select_option("shadow")
    page.get_by_label("Share of the requests").fill("lots")
    assert "is no" in wrong(page, "Share of the requests")
    page.get_by_label("Share of the requests").fill("20%")
    page.get_by_label("On so many devices").fill("2")
    page.get_by_label("Time of day in the device's own zone").fill("25:00-26:00")
    assert "is no time slot" in wrong(page, "Time of day in the device's own zone")
    page.get_by_label("Time of day in the device's own zone").fill("22:00-04:00")
    page.get_by_label("Each device waits, by lot, up to").fill("soon")
    wrong(page, "Each device waits, by lot, up to")
    page.get_by_label("Each device waits, by lot, up to").fill("30m")
    latency = page.get_by_label("Latency", exact=True)
    assert latency.get_attribute("placeholder") == "1.5 times"
    latency.fill("0.5")
    assert "0.5" in wrong(page, "Latency")
    latency.fill("2")
    page.get_by_label("Drift", exact=True).fill("off")
    page.get_by_label("Errors", exact=True).fill("3%")
    page.get_by_label("Shadow: same answers").fill("10%")
    page.evaluate(AXE)
    found = page.evaluate("axe.run()")
    assert not [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    root = "document.documentElement"
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0
    page.get_by_label("Do not look whether it is published").check()
    page.get_by_text("5 devices match").wait_for()
    page.get_by_role("button", name="Start…").click()
    dialog = page.get_by_role("dialog")
    assert "is shown 20% of the requests" in dialog.inner_text()
    dialog.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("heading", level=1).filter(has_text="boiler 2.0").wait_for()

    with nobody.store.reading() as tx:
        (made,) = facts.everything(tx)
    order = made.order
    assert order.trial == orders.Trying(share=0.2, on=orders.Wave(devices=2))
    assert (order.slot, order.spread_s) == (orders.Slot(22 * 60, 4 * 60), 1800.0)
    assert orders.limits(order.gates) == {
        **orders.limits(orders.Gates()), "latency": 2.0, "drift": None, "errors": 0.03,
        "agreement": 0.1,
    }  # fmt: skip
    assert order.gates.installed == orders.Gates().installed, "what is not said stays"
