"""The first page's figures against those counted one by one; a device's page and the filters."""

from collections import Counter
from dataclasses import fields
from itertools import product

import numpy as np
import pytest
from api_kit import EVIL, Client, fill
from fleet_kit import Packed

from edge_contract import messages
from edge_fleet import reports
from edge_fleet.api import device_page, inventory, metrics, overview, resources
from edge_fleet.api.resources import DeviceFilter
from edge_fleet.drift.budget import Budget
from edge_fleet.options import now_ms
from edge_fleet.store.api import Note
from edge_fleet.store.base import Device, ReportSeen, StatusSeen
from edge_fleet.store.rollouts import Wish
from edge_fleet.store.sql import SqlStore
from edge_fleet.store.tables import devices

HARDWARE = messages.Hardware(
    machine="Raspberry Pi 4", cpus=4, ram_bytes=1, system="l", python="3", onnxruntime="1"
)


def crowd(store: SqlStore, rng: np.random.Generator, count: int) -> None:
    """Devices of random sites, versions and states."""
    now = now_ms()
    with store.transaction() as tx:
        for at in range(count):
            name = f"{rng.choice(['Pump', 'fan', 'gate'])}-{at}"
            labels = {"site": str(rng.choice(["lyon", "graz", EVIL]))} if rng.random() < 0.8 else {}
            models = {
                model: messages.ModelReport(
                    phase="committed", active=str(rng.choice(["1", "2", ""]))
                )
                for model in ("boiler", "fan")
                if rng.random() < 0.7
            }
            report = messages.Reported(
                boot=1, at_ms=now, agent="a", hardware=HARDWARE, labels=labels, models=models
            )
            seen = now - int(rng.integers(0, 1_200_000))
            tx.status(StatusSeen(name, bool(rng.random() < 0.8), 1, "a", seen, retained=False))
            if rng.random() < 0.9:
                tx.report(ReportSeen(name, messages.encode(report), seen, retained=False))


def test_the_overview_adds_up(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator, seed: int
) -> None:
    fill(any_store, packed, rng)
    crowd(any_store, rng, 80)
    now = now_ms()
    with any_store.reading() as tx:
        found = overview.read(tx, any_store.settings(), now)
        everyone = resources.devices(
            tx, "", 500, wanted=DeviceFilter(), now_ms=now, budget=Budget(1, 60)
        ).items
    status = reports.status(any_store, now)
    for name in ("devices", "online", "silent", "offline", "windows", "rows", "open_alarms",
                 "pending_windows", "refused_windows", "dropped_records", "faults",
                 "last_heard", "collecting", "fleet"):  # fmt: skip
        assert getattr(found, name) == getattr(status, name), name
    assert found.lag is not None
    assert found.lag.max_s == status.lag_s
    assert found.lag.median_s <= found.lag.p95_s <= found.lag.max_s
    sites = Counter(one.labels.get("site", "") for one in everyone)
    assert {one.site: one.devices for one in found.sites} == sites
    for site in found.sites:
        of = [one for one in everyone if one.labels.get("site", "") == site.site]
        states = Counter(one.state for one in of)
        assert (site.online, site.silent, site.offline) == tuple(
            states[each] for each in metrics.STATES
        )
        assert site.alarms == sum(model.open_alarms for one in of for model in one.models)
    told = Counter(
        (model.model, model.version) for one in everyone for model in one.models if model.version
    )
    assert {(one.model, one.version): one.devices for one in found.versions} == told


def test_lists_are_bounded_and_say_what_they_leave_off(store: SqlStore) -> None:
    now = now_ms()
    with store.transaction() as tx:
        for at in range(overview.SITES_MAX + 7):
            report = messages.Reported(
                boot=1, at_ms=now, agent="a", hardware=HARDWARE,
                labels={"site": f"s{at}", "lat": str(at % 80), "lon": "nan" if at % 2 else "7.5"},
                models={"m": messages.ModelReport(phase="committed", active=f"v{at}")},
            )  # fmt: skip
            tx.status(StatusSeen(f"d{at}", True, 1, "a", now, retained=False))
            tx.report(ReportSeen(f"d{at}", messages.encode(report), now, retained=False))
        found = overview.read(tx, {}, now)
    assert (len(found.sites), found.sites_left_off) == (overview.SITES_MAX, 7)
    assert len(found.versions) == overview.VERSIONS_MAX + 1
    assert sum(one.devices for one in found.versions) == found.devices
    assert len(found.places) == (overview.SITES_MAX + 8) // 2


@pytest.mark.parametrize(
    ("labels", "place"),
    [
        ({"lat": "47.07", "lon": "15.44"}, (47.07, 15.44)),
        ({"lat": "-90", "lon": "180"}, (-90.0, 180.0)),
        ({"lat": "91", "lon": "0"}, None),
        ({"lat": "inf", "lon": "0"}, None),
        ({"lat": "nan", "lon": "nan"}, None),
        ({"lat": "<b>", "lon": "0"}, None),
        ({"lat": "1"}, None),
        ({}, None),
    ],
)
def test_a_place_is_one_on_earth_or_none(
    labels: dict[str, str], place: tuple[float, float] | None
) -> None:
    assert overview.place(labels) == place


def test_an_answer_is_kept_for_two_seconds(store: SqlStore) -> None:
    seconds = [0.0]
    kept = overview.Kept(store, now_ms, lambda: seconds[0])
    assert kept.overview().devices == 0
    with store.transaction() as tx:
        tx.status(StatusSeen("pi", True, 1, "a", now_ms(), retained=False))
    seconds[0] = overview.KEPT_S - 0.1
    assert kept.overview().devices == 0
    seconds[0] = overview.KEPT_S
    assert kept.overview().devices == 1


def test_an_alarm_that_somebody_looks_after_is_told_apart(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    fill(any_store, packed, rng)
    with any_store.transaction() as tx:
        alarms = tx.alarms(open_only=True)
        alone = [one for one in alarms if one.parent is None]
        assert tx.unacknowledged() == len(alone) > 0
        tx.add_note(Note(alone[0].id, "comment", "me", "hm", 1))
        assert tx.unacknowledged() == len(alone)
        tx.add_note(Note(alone[0].id, "acknowledged", "me", "", 1))
        assert tx.unacknowledged() == len(alone) - 1
        assert sum(tx.open_by_device().values()) == len(alarms)


def test_filters_find_what_fits_and_pages_hold_each_once(
    any_store: SqlStore, rng: np.random.Generator, seed: int
) -> None:
    crowd(any_store, rng, 90)
    now, budget = now_ms(), Budget(1, 60)
    with any_store.reading() as tx:
        everyone = resources.devices(
            tx, "", 500, wanted=DeviceFilter(), now_ms=now, budget=budget
        ).items
        assert len(everyone) == 90
        for state, search, machine, site in product(
            ("", "silent"), ("", "PUMP", "-1"), ("", "pi 4"), ((), (("site", "lyon"),))
        ):
            wanted = DeviceFilter(state, "", "", site, search, machine)
            expected = [
                one.device
                for one in everyone
                if state in ("", one.state)
                and search.lower() in one.device.lower()
                and machine in one.machine.lower()
                and all(one.labels.get(name) == value for name, value in site)
            ]
            told, cursor, pages = [], "", 0
            while pages == 0 or cursor:
                page = resources.devices(tx, cursor, 17, wanted=wanted, now_ms=now, budget=budget)
                assert len(page.items) == 17 or page.next is None, "a page is full"
                told += [one.device for one in page.items]
                cursor, pages = page.next or "", pages + 1
            assert told == expected, wanted


def test_a_devices_page_holds_its_report_its_wish_and_its_counts(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    fill(any_store, packed, rng)
    now, budget = now_ms(), Budget(1, 60)
    wish = messages.Desired(revision=3, models={"boiler": "candidate"})
    with any_store.transaction() as tx:
        tx.put_wishes([Wish("pi-1", 3, now, messages.encode(wish))])
        found = device_page.detail(tx, "pi-1", now, budget)
        assert found is not None
        assert found.desired == wish
        assert found.reported is not None
        assert found.reported.labels == {"site": "lyon"}
        assert device_page.detail(tx, "nobody", now, budget) is None
        counts = device_page.counts(tx, "pi-1", now, 1)
        mine = sum(each.rows for each in tx.countings(["pi-1"]))
        assert sum(one.rows for one in counts.spans) == mine == 360
        starts = [one.start for one in counts.spans]
        assert starts == sorted(set(starts))
        assert device_page.counts(tx, "nobody", now, 1).spans == ()


def test_the_columns_of_devices_stand_in_the_order_of_their_fields(any_store: SqlStore) -> None:
    assert [one.name for one in fields(Device)] == list(devices.c.keys())
    with any_store.transaction() as tx:
        tx.report(ReportSeen("pi", b"{}", 5, retained=False))
        [one] = tx.devices()
        assert (one.device, one.reported, one.reported_ms) == ("pi", b"{}", 5)
        assert type(one.reported) is type(tx.device_rows()[0].reported) is bytes


def test_a_damaged_report_is_a_device_without_labels(any_store: SqlStore) -> None:
    with any_store.transaction() as tx:
        for name, bytes_ in {"a": b"", "b": b"{", "c": b'{"labels": 5}', "d": b"\xff"}.items():
            tx.status(StatusSeen(name, True, 1, "x", 5, retained=False))
            tx.report(ReportSeen(name, bytes_, 5, retained=False))
        assert [(one.device, one.labels) for one in inventory.lines(tx)] == [
            (name, {}) for name in "abcd"
        ]


def test_the_paths_of_pages_ask_for_a_token_and_answer(client: Client) -> None:
    viewer, nobody = client("viewer"), client("")
    for path in ("me", "overview", "devices/pi-1/detail", "devices/pi-1/counts?hours=6"):
        assert nobody.get(f"/api/v1/{path}").status_code == 401
        assert viewer.get(f"/api/v1/{path}").status_code == 200
    assert viewer.get("/api/v1/me").json()["role"] == "viewer"
    assert viewer.get("/api/v1/devices/nobody/detail").status_code == 404
    assert viewer.get("/api/v1/devices/nobody/counts").status_code == 404
