"""The paths of the HTTP service: parse, ask one function, answer.

Guards: reading needs the role viewer, answering an alarm operator, tokens admin; each path says so
by its parameter. Everything is JSON; no path gives a page.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response

from edge_contract.errors import InputFault
from edge_fleet import estimating, reports, views
from edge_fleet.api import asking, changing, feed, metrics, resources
from edge_fleet.api.changing import Absent, Change, there
from edge_fleet.api.described import describe
from edge_fleet.api.service import Service
from edge_fleet.api.streaming import CONTENT_TYPE, Stream
from edge_fleet.store.api import ApiToken, NoteKind

HOUR_MS = 3_600_000
LEVELS_MAX = 1000

router = APIRouter(prefix="/api/v1")
bare = APIRouter()


def _json(value: object) -> Response:
    return Response(resources.encode(value), media_type="application/json")


@bare.get("/health", **describe(None, "Whether this server answers; asks nobody for a token."))
def health(ours: asking.Ours) -> Response:
    with ours.store.reading() as tx:
        tx.api_token("")
    return _json({"status": "ok"})


@bare.get("/metrics", **describe(None, "The fleet for Prometheus.", media=metrics.CONTENT_TYPE))
def read_metrics(ours: asking.Ours, _: asking.Viewer) -> Response:
    with ours.heavy():
        found = metrics.figures(ours.store, ours.clock_ms())
    return Response(metrics.text(found), media_type=metrics.CONTENT_TYPE)


@router.get("/status", **describe(views.Status, "The fleet at a glance."))
def read_status(ours: asking.Ours, _: asking.Viewer) -> Response:
    return _json(reports.status(ours.store, ours.clock_ms()))


@router.get(
    "/devices",
    **describe(
        resources.Page[views.DeviceReport],
        "Devices by name; the list ends where `next` is null. With `where` a page may hold fewer"
        " than `limit`.",
    ),
)
def list_devices(
    ours: asking.Ours,
    _: asking.Viewer,
    *,
    state: asking.State = "",
    model: asking.Text = "",
    version: asking.Text = "",
    label: asking.Labels = None,
    search: asking.Text = "",
    machine: asking.Text = "",
    where: asking.Where = "",
    limit: asking.Limit = 100,
    cursor: asking.Cursor = "",
) -> Response:
    labels = asking.labels(label)
    wanted = resources.DeviceFilter(state, model, version, labels, search, machine, where)
    budget = reports.budget_of(ours.store.settings())
    with ours.store.reading() as tx:
        return _json(
            resources.devices(
                tx, cursor, limit, wanted=wanted, now_ms=ours.clock_ms(), budget=budget
            )
        )


@router.get("/devices/{device}", **describe(views.DeviceReport, "One device."))
def read_device(ours: asking.Ours, _: asking.Viewer, device: asking.DeviceName) -> Response:
    budget = reports.budget_of(ours.store.settings())
    with ours.store.reading() as tx:
        return _json(there(resources.device(tx, device, ours.clock_ms(), budget), device))


@router.get(
    "/events", **describe(resources.Page[resources.EventView], "Events of devices, newest first.")
)
def list_events(
    ours: asking.Ours,
    _: asking.Viewer,
    device: asking.Text = "",
    kind: asking.Text = "",
    limit: asking.Limit = 100,
    cursor: asking.Cursor = "",
) -> Response:
    with ours.store.reading() as tx:
        return _json(resources.events(tx, cursor, limit, device=device, kind=kind))


@router.get(
    "/events/stream",
    **describe(
        None,
        "Server-sent events: `event`, `alarm-opened`, `alarm-resolved`, `rollout`. With"
        " `Last-Event-ID` it goes on after that one, else with what comes from now on.",
        media=CONTENT_TYPE,
    ),
)
def stream_events(
    ours: asking.Ours,
    caller: asking.Viewer,
    last_event_id: Annotated[str, Header(max_length=1000)] = "",
) -> Response:
    after = feed.parse(last_event_id) if last_event_id else feed.from_now(ours.clock_ms())
    ours.open_stream()
    return Stream(ours, caller, after)


@router.get(
    "/alarms", **describe(resources.Page[resources.AlarmView], "Drift alarms, newest first.")
)
def list_alarms(
    ours: asking.Ours,
    _: asking.Viewer,
    *,
    state: asking.AlarmState = "open",
    device: asking.Text = "",
    model: asking.Text = "",
    limit: asking.Limit = 100,
    cursor: asking.Cursor = "",
) -> Response:
    with ours.store.reading() as tx:
        return _json(resources.alarms(tx, cursor, limit, state=state, device=device, model=model))


@router.get("/alarms/{alarm}", **describe(resources.AlarmView, "One alarm with its notes."))
def read_alarm(ours: asking.Ours, _: asking.Viewer, alarm: asking.AlarmId) -> Response:
    with ours.store.reading() as tx:
        found = resources.alarm(tx, alarm)
    if found is None:
        raise Absent(f"there is no alarm {alarm}")
    return _json(found)


@router.get(
    "/drift",
    **describe(views.Drift, "Open alarms, and the evidence on each monitor now, strongest first."),
)
def read_drift(
    ours: asking.Ours,
    _: asking.Viewer,
    device: asking.Text = "",
    model: asking.Text = "",
    limit: Annotated[int, Query(ge=1, le=LEVELS_MAX, description="Of each list.")] = 100,
) -> Response:
    def fits(one: views.AlarmReport | views.Level) -> bool:
        return device in ("", one.device) and model in ("", one.model)

    with ours.heavy():
        found = reports.drift(ours.store, ours.clock_ms())
    alarms = tuple(filter(fits, found.alarms))[:limit]
    levels = tuple(filter(fits, found.levels))[:limit]
    return _json(msgspec.structs.replace(found, alarms=alarms, levels=levels))


@router.get(
    "/quality",
    **describe(
        tuple[estimating.VersionQuality, ...],
        "How good each version still is: by scores without labels, and by labels that came.",
    ),
)
def read_quality(
    ours: asking.Ours,
    _: asking.Viewer,
    hours: asking.Hours = 24.0,
    model: asking.Text = "",
    version: asking.Text = "",
) -> Response:
    with ours.heavy():
        return _json(
            estimating.qualities(
                ours.store,
                ours.clock_ms(),
                period_ms=int(hours * HOUR_MS),
                model=model,
                version=version,
            )
        )


@router.get(
    "/bundles", **describe(tuple[resources.BundleView, ...], "Versions that devices answer with.")
)
def list_bundles(ours: asking.Ours, _: asking.Viewer) -> Response:
    with ours.store.reading() as tx:
        return _json(resources.bundles(tx))


@router.get(
    "/triggers/history",
    **describe(resources.Page[resources.FiringView], "What triggers set off, newest first."),
)
def list_firings(
    ours: asking.Ours,
    _: asking.Viewer,
    trigger: asking.Text = "",
    limit: asking.Limit = 100,
    cursor: asking.Cursor = "",
) -> Response:
    with ours.store.reading() as tx:
        return _json(resources.firings(tx, cursor, limit, trigger=trigger))


# -- what a person changes -----------------------------------------------------------------


def _done(
    ours: Service, caller: ApiToken, request: Request, body: bytes, change: Change
) -> Response:
    """``change``, once under the request's key."""
    answer = changing.done(
        ours.store,
        change,
        token=caller.id,
        key=request.headers.get("idempotency-key", ""),
        request=f"{request.method} {request.url.path}\n".encode() + body,
        now_ms=ours.clock_ms(),
    )
    headers = {"Idempotent-Replayed": "true"} if answer.again else None
    return Response(answer.body, headers=headers, media_type="application/json")


def _note(
    ours: Service, caller: ApiToken, request: Request, body: bytes, *, alarm: int, kind: NoteKind
) -> Response:
    text = asking.said(body).comment
    if kind == "comment" and not text.strip():
        raise InputFault("the comment is empty")
    change = partial(
        changing.noted, alarm=alarm, kind=kind, said=text, author=caller.name,
        now_ms=ours.clock_ms(),
    )  # fmt: skip
    return _done(ours, caller, request, body, change)


@router.post(
    "/alarms/{alarm}/acknowledge",
    **describe(resources.AlarmView, "Say that somebody looks after it.", body=changing.Said),
)
def acknowledge(
    request: Request,
    ours: asking.Ours,
    caller: asking.Operator,
    alarm: asking.AlarmId,
    body: asking.Body,
    _: asking.IdempotencyKey = "",
) -> Response:
    return _note(ours, caller, request, body, alarm=alarm, kind="acknowledged")


@router.post(
    "/alarms/{alarm}/comments",
    **describe(resources.AlarmView, "Say something of it.", body=changing.Said),
)
def comment(
    request: Request,
    ours: asking.Ours,
    caller: asking.Operator,
    alarm: asking.AlarmId,
    body: asking.Body,
    _: asking.IdempotencyKey = "",
) -> Response:
    return _note(ours, caller, request, body, alarm=alarm, kind="comment")


@router.post(
    "/alarms/{alarm}/resolve",
    **describe(
        changing.Closed, "Close it; its monitor starts anew with the next window.",
        body=changing.Said,
    ),
)  # fmt: skip
def resolve(
    request: Request,
    ours: asking.Ours,
    caller: asking.Operator,
    alarm: asking.AlarmId,
    body: asking.Body,
    _: asking.IdempotencyKey = "",
) -> Response:
    change = partial(
        changing.resolved, alarm=alarm, said=asking.said(body), author=caller.name,
        now_ms=ours.clock_ms(),
    )  # fmt: skip
    return _done(ours, caller, request, body, change)


@router.get("/tokens", **describe(tuple[resources.TokenView, ...], "Tokens of this service."))
def list_tokens(ours: asking.Ours, _: asking.Admin) -> Response:
    now_ms = ours.clock_ms()
    with ours.store.reading() as tx:
        return _json([resources.token_view(each, now_ms) for each in tx.api_tokens()])


@router.post("/tokens/{id}/revoke", **describe(resources.TokenView, "Make a token void, at once."))
def revoke_token(
    request: Request,
    ours: asking.Ours,
    caller: asking.Admin,
    id: asking.TokenId,
    body: asking.Body,
    _: asking.IdempotencyKey = "",
) -> Response:
    change = partial(changing.revoked, id=id, author=caller.name, now_ms=ours.clock_ms())
    return _done(ours, caller, request, body, change)
