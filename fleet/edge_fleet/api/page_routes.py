"""The paths that pages ask beside the lists: the first page, a device's page, and who one is."""

from __future__ import annotations

from fastapi import APIRouter, Response

from edge_fleet import reports
from edge_fleet.api import asking, device_page, overview, resources
from edge_fleet.api.changing import there
from edge_fleet.api.described import describe

router = APIRouter(prefix="/api/v1")


def _json(value: object) -> Response:
    return Response(resources.encode(value), media_type="application/json")


@router.get("/me", **describe(resources.TokenView, "The token that this is asked with."))
def read_me(ours: asking.Ours, caller: asking.Viewer) -> Response:
    return _json(resources.token_view(caller, ours.clock_ms()))


@router.get(
    "/overview",
    **describe(overview.Overview, "Sites, versions, health and rollouts, at most 2 s old."),
)
def read_overview(ours: asking.Ours, _: asking.Viewer) -> Response:
    return _json(ours.overview())


@router.get(
    "/devices/{device}/detail",
    **describe(device_page.DeviceDetail, "One device with its last report and what it is to run."),
)
def read_detail(ours: asking.Ours, _: asking.Viewer, device: asking.DeviceName) -> Response:
    budget = reports.budget_of(ours.store.settings())
    with ours.store.reading() as tx:
        return _json(there(device_page.detail(tx, device, ours.clock_ms(), budget), device))


@router.get(
    "/devices/{device}/counts",
    **describe(device_page.CountsOverTime, "What a device counted, over time."),
)
def read_counts(
    ours: asking.Ours, _: asking.Viewer, device: asking.DeviceName, hours: asking.Hours = 24.0
) -> Response:
    with ours.store.reading() as tx:
        there(tx.devices_named([device]), device)
        return _json(device_page.counts(tx, device, ours.clock_ms(), hours))
