"""The dashboard at 10,000 devices: first paint, what each page transfers, what the first page asks.

    python benchmarks/dashboard.py [--quick] [--json FILE] [--shots FOLDER]

A store is filled through the real intake (records validated, stored, judged for drift), served over
HTTP on the loopback, and opened in the system's headless Chromium with an empty cache. --quick:
2,000 devices. --shots keeps pictures of each page, light and dark, on a desktop and a phone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from collect import make
from playwright.sync_api import sync_playwright

from edge_contract import manifest as manifests
from edge_contract import messages, telemetry
from edge_fleet.api import overview, server, tokens
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.options import now_ms
from edge_fleet.store.base import EventSeen, ReportSeen, StatusSeen
from edge_fleet.store.sql import SqlStore, open_store
from edge_fleet.windows import window_of

GOALS = {
    "first_paint_s": 1.0,  # until anything is painted, from an empty cache
    "fleet_shown_s": 2.0,  # until the fleet's figures are there
    "largest_page_kb": 500.0,
    "overview_cpu_ms": 150.0,  # of one processor, at most once in two seconds
    "filtered_devices_cpu_ms": 250.0,
}
PAGES = ("", "devices", "devices/pi-00007", "alarms", "events", "rollouts", "models", "drift",
         "quality")  # fmt: skip
SITES = ("lyon", "graz", "porto", "bergen", "turin", *(f"plant-{n:02}" for n in range(35)))
AT_ONCE = 500


def main() -> None:
    """Measure, print, and write the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="2,000 devices instead of 10,000")
    parser.add_argument("--json", type=Path, help="write {'goals': {name: [figure, goal, met]}}")
    parser.add_argument("--shots", type=Path, help="a folder for pictures of each page")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no chromium installed (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/fleet.db", create=True)
        fill(store, 2_000 if arguments.quick else 10_000, np.random.default_rng(20))
        figures = {**asked(store), **seen(store, chromium, arguments.shots)}
        store.close()
    goals = {
        name: [round(figures[name], 3), goal, figures[name] <= goal] for name, goal in GOALS.items()
    }
    for name, (figure, goal, met) in goals.items():
        print(f"{name:26} {figure:>9,.3f}   goal {goal:>7,.1f}   {'met' if met else 'MISSED'}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"goals": goals}, indent=2) + "\n")


def fill(store: SqlStore, count: int, rng: np.random.Generator) -> None:
    """``count`` devices with a report, a window and now and then an event; one site drifts."""
    bench, now = make(200, rng), now_ms()
    records = [telemetry.decode(payload) for _, payload in bench.payloads]
    profile = manifests.decode(bench.manifest).file("profile.json").sha256
    store.claim("plant")
    store.put_settings({"collector-0": str(now + 3_600_000), "window_s": "300"})
    evidence = Evidence(Library(), Budget(1, 300))
    with store.transaction() as tx:
        tx.put_blob(bench.digest, bench.manifest, now)
        tx.put_blob(profile, bench.stored_profile, now)
    for first in range(0, count, AT_ONCE):
        names = [f"pi-{at:05}" for at in range(first, min(first + AT_ONCE, count))]
        with store.transaction() as tx:
            windows = []
            for at, name in enumerate(names):
                came = now - int(rng.integers(0, 200_000))
                online = bool(rng.random() < 0.98)
                tx.status(StatusSeen(name, online, 1, "0.6.0", came, retained=False))
                tx.report(ReportSeen(name, _report(rng, came, bench.digest), came, retained=False))
                record = msgspec.structs.replace(
                    records[at % len(records)], device=name, seq=1,
                    start_ms=came - 300_000, end_ms=came,
                )  # fmt: skip
                windows.append(window_of(telemetry.encode(record), came))
            evidence.count(tx, tx.add_windows(windows), now)
            tx.add_events(
                [EventSeen(name, 1, 1, now, "update", "bench", "1.1", "committed", now - at * 900)
                 for at, name in enumerate(names[::5])]
            )  # fmt: skip


def _report(rng: np.random.Generator, at_ms: int, digest: str) -> bytes:
    hardware = messages.Hardware(
        machine="Raspberry Pi 4 Model B Rev 1.4", cpus=4, ram_bytes=4 * 1024**3,
        system="Linux 6.6.31 aarch64", python="3.11.2", onnxruntime="1.22.0",
    )  # fmt: skip
    version = str(rng.choice(["1.0", "1.1", "1.2"], p=[0.1, 0.7, 0.2]))
    return messages.encode(
        messages.Reported(
            boot=1, at_ms=at_ms, agent="0.6.0", hardware=hardware,
            labels={"site": str(rng.choice(SITES)), "hw": "pi4"}, freshness="verified",
            models={"bench": messages.ModelReport(
                phase="committed", active=version, digest=digest
            )},
        )
    )  # fmt: skip


def asked(store: SqlStore) -> dict[str, float]:
    """Milliseconds of a processor that the first page and a filter that fits few cost."""
    from edge_fleet.api import resources  # noqa: PLC0415

    wanted = resources.DeviceFilter(state="offline", search="99")

    def glance() -> None:
        with store.reading() as tx:
            overview.read(tx, store.settings(), now_ms())

    def filtered() -> None:
        with store.reading() as tx:
            resources.devices(tx, "", 50, wanted=wanted, now_ms=now_ms(), budget=Budget(1, 300))

    return {"overview_cpu_ms": _cpu_ms(glance), "filtered_devices_cpu_ms": _cpu_ms(filtered)}


def _cpu_ms(run: Any) -> float:
    took = []
    for _ in range(7):
        began = time.process_time()
        run()
        took.append(1000 * (time.process_time() - began))
    return statistics.median(took)


@contextmanager
def _serving(store: SqlStore) -> Iterator[tuple[str, str]]:
    made, text = tokens.mint("bench", "operator", now_ms(), None, os.urandom)
    with store.transaction() as tx:
        tx.put_api_token(made)
    with server.running(store, server.Listen("127.0.0.1", 0, per_minute=1_000_000)) as url:
        yield url, text


def seen(store: SqlStore, chromium: str, shots: Path | None) -> dict[str, float]:
    """What a browser sees of it."""
    with ExitStack() as stack:
        url, text = stack.enter_context(_serving(store))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        stack.callback(browser.close)
        paints, figures, sizes = [], [], {}
        for _ in range(5):
            context = browser.new_context(viewport={"width": 1366, "height": 850})
            page = context.new_page()
            page.goto(f"{url}/dashboard/#token={text}")
            page.locator(".stat-value").first.wait_for()
            figures.append(page.evaluate("performance.now()") / 1000)
            paints.append(page.evaluate(
                "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            ) / 1000)  # fmt: skip
            context.close()
        for path in PAGES:
            context = browser.new_context(viewport={"width": 1366, "height": 850})
            page = context.new_page()
            page.goto(f"{url}/dashboard/#token={text}")
            page.goto("about:blank")  # the token stays, what was loaded is counted anew
            client = context.new_cdp_session(page)
            client.send("Network.enable")
            client.send("Network.setCacheDisabled", {"cacheDisabled": True})
            received: list[float] = []
            client.on(
                "Network.loadingFinished", lambda e, r=received: r.append(e["encodedDataLength"])
            )
            page.goto(f"{url}/dashboard/#/{path}")
            page.locator("main h1").first.wait_for()
            page.wait_for_function("() => !document.querySelector('main .loading')")
            sizes[path or "fleet"] = sum(received) / 1000
            context.close()
        if shots is not None:
            _pictures(browser, url, text, shots)
    for name, size in sizes.items():
        print(f"  {name:24} {size:7.1f} kB")
    return {
        "first_paint_s": statistics.median(paints),
        "fleet_shown_s": statistics.median(figures),
        "largest_page_kb": max(sizes.values()),
    }


def _pictures(browser: Any, url: str, text: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        for device, width, height in (("desktop", 1366, 850), ("phone", 390, 844)):
            context = browser.new_context(
                color_scheme=scheme, viewport={"width": width, "height": height}
            )
            page = context.new_page()
            page.goto(f"{url}/dashboard/#token={text}")
            for path in PAGES:
                page.goto(f"{url}/dashboard/#/{path}")
                page.locator("main h1").first.wait_for()
                page.wait_for_function("() => !document.querySelector('main .loading')")
                name = f"{path.replace('/', '-') or 'fleet'}-{scheme}-{device}.png"
                page.screenshot(path=folder / name)
            context.close()


if __name__ == "__main__":
    main()
