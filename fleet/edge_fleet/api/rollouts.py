"""What the HTTP service says of rollouts: a transaction and a question in, plain values out.

Guards: a page of a rollout's devices reads those devices only, and looks at ``SCAN_MAX`` a
request for those in the state that is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from edge_contract.errors import InputFault
from edge_contract.typed import json_decoder
from edge_fleet.api import cursors, resources
from edge_fleet.api.changing import COMMENT_MAX_CHARS
from edge_fleet.api.resources import Page
from edge_fleet.following import Named
from edge_fleet.rollouts import facts, publication, standing, state
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts.order import File, Order, Refused, Wrong
from edge_fleet.rollouts.publication import Channels
from edge_fleet.rollouts.standing import MemberView, Summary
from edge_fleet.store.base import Store, Transaction
from edge_fleet.store.rollouts import RolloutRow

T = TypeVar("T")

SCAN_AT_ONCE = 500
SCAN_MAX = 5000


class Asked(File, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order as `edge-fleet rollout start --file` takes it, as JSON.

    ``unchecked``: do not look whether it is published.
    """

    unchecked: bool = False


class Why(Struct, frozen=True, forbid_unknown_fields=True):
    """Why a rollout is steered, for the audit.

    ``unchecked``: `release` does not look whether channels name the version as stable.
    """

    comment: Annotated[str, Meta(max_length=COMMENT_MAX_CHARS)] = ""
    unchecked: bool = False


_PLACE = re.compile(r"`\$\.([a-z_.]+)`")
"""Where msgspec found a fault."""
_ASKED = json_decoder(Asked)
_WHY = json_decoder(Why)


def asked(data: bytes) -> Asked:
    """An order as a request's body holds it. Raises InputFault."""
    return _decoded(_ASKED, data, '{"version": "pump@2.0", "waves": "1,5%,100%"}')


def why(data: bytes) -> Why:
    """Why, as a request's body says; none says nothing. Raises InputFault."""
    return _decoded(_WHY, data, '{"comment": "the line stands still"}')


def _decoded(decoder: msgspec.json.Decoder[T], data: bytes, example: str) -> T:
    try:
        return decoder.decode(data or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = f"the body is not as expected: {str(error)[:300]}"
        fault = InputFault(said, advice=f"Send JSON such as {example}.")
        at = _PLACE.search(str(error))
        raise (Wrong(at[1], fault) if at else fault) from error


def ordered(store: Store, said: File) -> Order:
    """The order that ``said`` gives to this store's fleet. Raises InputFault, Refused."""
    owner = store.settings().get("fleet", "")
    gates = orders.with_limits(said.gates, said.gate)
    order = orders.made(**{"fleet": owner, **orders.given(said), "gates": gates})
    if order.fleet != owner:
        raise Refused(f"this service is of fleet {owner!r}, not {order.fleet!r}")
    return order


def checked(order: Order, channels: Channels | None, *, unchecked: bool) -> Order:
    """With the digest that a channel names. Raises Refused where nobody can look."""
    if unchecked:
        return order
    return publication.with_it(order, _known(channels).found(order))


def promoted(order: Order, channels: Channels | None) -> bool:
    """Whether channels name its version as stable. Raises Refused where nobody can look."""
    return _known(channels).promoted(order)


def _known(channels: Channels | None) -> Channels:
    if channels is None:
        raise Refused(
            "this service knows no broker to see there whether the version is published",
            advice="Start it as `edge-fleet serve --http` or `edge-fleet api --broker URL`,"
            ' or ask with "unchecked": true.',
        )
    return channels


def rollouts(tx: Transaction, cursor: str, limit: int, *, model: str, phase: str) -> Page[Summary]:
    """Rollouts, newest first. Raises InputFault for a cursor."""
    key = cursors.decode(cursor, "rollouts", (int,))
    rows = tx.rollouts_before(key, limit + 1, model=model, phase=phase)
    more = cursors.encode("rollouts", (rows[limit - 1].id,)) if len(rows) > limit else None
    return Page(
        tuple(map(_summary, rows[:limit])),
        more,
    )


def members(
    tx: Transaction, rollout: state.Rollout, cursor: str, limit: int, *, stood: str, wave: int,
    now_ms: int,
) -> Page[MemberView]:  # fmt: skip
    """A rollout's devices by name. Raises InputFault for a cursor."""
    key = cursors.decode(cursor, "members", (str,))
    after = str(key[0]) if key else ""
    names = sorted(
        device
        for device, member in rollout.members.items()
        if device > after and wave in (0, member.wave + 1)
    )
    found: list[MemberView] = []
    for at in range(0, min(len(names), SCAN_MAX), SCAN_AT_ONCE):
        for one in _viewed(tx, rollout, names[at : at + SCAN_AT_ONCE], now_ms):
            after = one.device
            if stood in ("", one.state):
                found.append(one)
                if len(found) == limit and after != names[-1]:
                    return Page(tuple(found), cursors.encode("members", (after,)))
    more = cursors.encode("members", (after,)) if len(names) > SCAN_MAX else None
    return Page(tuple(found), more)


def _viewed(
    tx: Transaction, rollout: state.Rollout, names: list[str], now_ms: int
) -> Iterable[MemberView]:
    wishes, named = tx.wishes_of(names), Named(tx.releases())
    seen = {
        device.device: facts.seen(device, rollout.order, wishes.get(device.device), named)
        for device in tx.devices_named(names)
    }
    for name in names:
        member = rollout.members[name]
        yield standing.member(rollout.order, name, member, seen.get(name), now_ms)


def told(row: RolloutRow) -> bytes:
    """A rollout in short, as the stream of events tells it."""
    return resources.encode(_summary(row))


def _summary(row: RolloutRow) -> Summary:
    return standing.summary(state.decode(row.state), row.updated_ms)
