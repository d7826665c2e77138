"""The paths of rollouts: parse, ask one function, answer.

Guards: reading and trying an order out need the role viewer, beginning and steering a rollout
operator; whoever does is named in the audit.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from edge_fleet.api import asking, changing, resources, rollouts
from edge_fleet.api.changing import Answer, Change
from edge_fleet.api.described import describe
from edge_fleet.api.service import Service
from edge_fleet.rollouts import words
from edge_fleet.rollouts.gates import Standing as Stood
from edge_fleet.rollouts.standing import MemberView, Preview, Standing, Summary
from edge_fleet.rollouts.state import Phase
from edge_fleet.rollouts.words import Word
from edge_fleet.store.api import ApiToken
from edge_fleet.store.base import Transaction

router = APIRouter(prefix="/api/v1")

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Wave = Annotated[int, Query(ge=0, le=32, description="From 1; 0: all.")]


def _json(value: object) -> Response:
    return Response(resources.encode(value), media_type="application/json")


@router.get("/rollouts", **describe(resources.Page[Summary], "Rollouts, newest first."))
def list_rollouts(
    ours: asking.Ours,
    _: asking.Viewer,
    *,
    model: asking.Text = "",
    state: Annotated[Phase | Literal[""], Query()] = "",
    limit: asking.Limit = 100,
    cursor: asking.Cursor = "",
) -> Response:
    with ours.store.reading() as tx:
        return _json(rollouts.rollouts(tx, cursor, limit, model=model, phase=state))


@router.get(
    "/rollouts/{rollout}",
    **describe(Standing, "How a rollout stands: waves, devices, and what each gate says."),
)
def read_rollout(ours: asking.Ours, _: asking.Viewer, rollout: Number) -> Response:
    with ours.heavy(), ours.store.reading() as tx:
        return _json(words.status(tx, rollout, ours.clock_ms()))


@router.get(
    "/rollouts/{rollout}/devices",
    **describe(
        resources.Page[MemberView],
        "Its devices by name. A page may hold fewer than `limit`; the list ends where `next` is"
        " null.",
    ),
)
def list_members(
    ours: asking.Ours,
    _: asking.Viewer,
    rollout: Number,
    *,
    state: Annotated[Stood | Literal[""], Query()] = "",
    wave: Wave = 0,
    limit: asking.Limit = 100,
    cursor: asking.Cursor = "",
) -> Response:
    now_ms = ours.clock_ms()
    with ours.store.reading() as tx:
        found = words.one(tx, rollout)
        return _json(
            rollouts.members(tx, found, cursor, limit, stood=state, wave=wave, now_ms=now_ms)
        )


@router.post(
    "/rollouts/preview",
    **describe(
        Preview, "What an order would do now: how many devices a wave, and who comes first.",
        body=rollouts.Asked,
    ),
)  # fmt: skip
def preview(ours: asking.Ours, _: asking.Viewer, body: asking.Body) -> Response:
    order = rollouts.ordered(ours.store, rollouts.asked(body))
    with ours.heavy(), ours.store.reading() as tx:
        return _json(words.preview(tx, order, ours.clock_ms()))


@router.post(
    "/rollouts",
    **describe(
        Standing, "Begin a rollout; `edge-fleet serve` carries it out.", body=rollouts.Asked
    ),
)
def start(
    request: Request,
    ours: asking.Ours,
    caller: asking.Operator,
    body: asking.Body,
    _: asking.IdempotencyKey = "",
) -> Response:
    asked = rollouts.asked(body)
    order = rollouts.ordered(ours.store, asked)
    write = _Write(ours, caller, request, body)
    answer = write.former()
    if answer is None:
        order = rollouts.checked(order, ours.channels, unchecked=asked.unchecked)

        def change(tx: Transaction) -> bytes:
            return resources.encode(words.begin(tx, order, caller.name, ours.clock_ms()))

        answer = write.done(change)
    return _answered(answer)


class _Write:
    """A request that changes something, once under its idempotency key."""

    def __init__(self, ours: Service, caller: ApiToken, request: Request, body: bytes) -> None:
        self._ours, self._token = ours, caller.id
        self._key = request.headers.get("idempotency-key", "")
        self._request = f"{request.method} {request.url.path}\n".encode() + body

    def former(self) -> Answer | None:
        with self._ours.store.reading() as tx:
            return changing.former(tx, token=self._token, key=self._key, request=self._request)

    def done(self, change: Change) -> Answer:
        return changing.done(
            self._ours.store, change, token=self._token, key=self._key, request=self._request,
            now_ms=self._ours.clock_ms(),
        )  # fmt: skip


def _answered(answer: Answer) -> Response:
    headers = {"Idempotent-Replayed": "true"} if answer.again else None
    return Response(answer.body, headers=headers, media_type="application/json")


@router.post(
    "/rollouts/{rollout}/{word}",
    **describe(Standing, "Pause, resume, approve, abort, roll back, release.", body=rollouts.Why),
)
def word(
    request: Request,
    ours: asking.Ours,
    caller: asking.Operator,
    *,
    rollout: Number,
    word: Word,
    body: asking.Body,
    _: asking.IdempotencyKey = "",
) -> Response:
    why = rollouts.why(body)
    write = _Write(ours, caller, request, body)
    former = write.former()
    if former is not None:
        return _answered(former)
    with ours.heavy(), ours.store.reading() as tx:
        found, seen = words.one(tx, rollout), words.seen_of(tx, rollout)
    promoted = None
    if word == "release" and not why.unchecked:
        promoted = rollouts.promoted(found.order, ours.channels)

    def change(tx: Transaction) -> bytes:
        saying = words.Saying(caller.name, ours.clock_ms(), why.comment, promoted)
        return resources.encode(words.said(tx, rollout, word, seen=seen, by=saying))

    return _answered(write.done(change))
