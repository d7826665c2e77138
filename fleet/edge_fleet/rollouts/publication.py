"""Is a version published at all? Asked before a rollout of it begins.

Guards: nothing rests on the answer but a person's time: each device checks signatures itself and
follows nothing that they do not name. So the pointers are read as the broker retains them.
"""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

from edge_contract import messages
from edge_contract.errors import InputFault
from edge_contract.messages import Pointer
from edge_contract.names import version_key
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics
from edge_fleet.rollouts.order import Order, Refused

Published = Callable[[Order], str]
"""As ``check``, with all but the order settled."""
CHECK_S = 10.0


def looking(config: LinkConfig, topics: Topics) -> Published:
    """Looks there; several at once do not drive each other off the broker."""

    def look(order: Order) -> str:
        own = replace(config, client_id=f"{config.client_id}-{secrets.token_hex(4)}")
        return check(own, topics, order, CHECK_S)

    return look


def check(config: LinkConfig, topics: Topics, order: Order, timeout_s: float) -> str:
    """The digest of the version's manifest, as the first channel that names it says.

    Raises:
        Refused: within ``timeout_s`` no channel named it, or its floor forbids it.
        PeerFault: the broker is not there, or lets nobody read.
    """
    heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
    link = Link(config, on_message=heard.put)
    link.start(timeout_s)
    found: list[Pointer] = []
    try:
        link.subscribe([topics.target(f"fleet/{order.fleet}/+")]).wait(timeout_s)
        end_s = time.monotonic() + timeout_s
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                found.append(messages.decode(heard.get(timeout=left_s).payload, Pointer))
            except (queue.Empty, InputFault):
                continue
            digest = digest_in(found[-1], order)
            if digest:
                return digest
    finally:
        link.stop()
    raise Refused(
        f"no channel of fleet {order.fleet} names {order.model} {order.version}: "
        + (named(found, order.model) or "the broker retains no signed channel"),
        advice="Publish it first: edge-pack publish FILE --candidate; or --unchecked.",
    )


def digest_in(pointer: Pointer, order: Order) -> str:
    """The version's digest where the channel names it; "" where not. Pure.

    Raises Refused when it is below the floor, or another bundle than the order's.
    """
    track = pointer.models.get(order.model)
    for release in track.releases() if track else ():
        if release.version != order.version or track is None:
            continue
        if track.floor and version_key(release.version) < version_key(track.floor):
            raise Refused(
                f"{order.model} {order.version} is below the floor {track.floor} of channel"
                f" {pointer.channel}: no device runs it"
            )
        if order.digest not in ("", release.sha256):
            raise Refused(
                f"channel {pointer.channel} names bundle {release.sha256} as {order.model}"
                f" {order.version}, expected {order.digest}"
            )
        return release.sha256
    return ""


def named(found: list[Pointer], model: str) -> str:
    """What the channels name instead."""
    versions = {
        f"{release.version} ({pointer.channel})"
        for pointer in found
        if model in pointer.models
        for release in pointer.models[model].releases()
    }
    return f"they name {', '.join(sorted(versions))}" if versions else ""
