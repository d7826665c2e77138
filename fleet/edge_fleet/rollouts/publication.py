"""Is a version published at all? Asked before a rollout of it begins.

Guards: nothing rests on the answer but a person's time: each device checks signatures itself and
follows nothing that they do not name. So the pointers are read as the broker retains them.
"""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from msgspec import Struct, structs

from edge_contract import messages
from edge_contract.errors import InputFault
from edge_contract.manifest import Manifest
from edge_contract.messages import Pointer
from edge_contract.names import version_key
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics
from edge_fleet.library import manifest_of
from edge_fleet.rollouts.order import Needs, Order, Refused


class Found(Struct, frozen=True):
    """The digest of a version's manifest, and what that says a device needs."""

    digest: str
    needs: Needs = Needs()


CHECK_S = 10.0
PROMOTED_S = 3.0
"""All that channels name is waited for: they are retained and come at once."""
MANIFEST_S = 2.0
"""A manifest is retained and comes at once, or it is not there."""


@dataclass(frozen=True)
class Channels:
    """Where to look; several looks at once do not drive each other off the broker."""

    config: LinkConfig
    topics: Topics

    def found(self, order: Order) -> Found:
        """See ``check``."""
        return check(self.config, self.topics, order, CHECK_S)

    def promoted(self, order: Order) -> bool:
        """See ``promoted``."""
        return promoted(self.config, self.topics, order, PROMOTED_S)


def with_it(order: Order, found: Found) -> Order:
    """The order with what was found of its version."""
    return structs.replace(order, digest=found.digest, needs=found.needs)


def check(config: LinkConfig, topics: Topics, order: Order, timeout_s: float) -> Found:
    """The version's bundle, as the first channel that names it says.

    Raises:
        Refused: within ``timeout_s`` no channel named it, or its floor forbids it.
        PeerFault: the broker is not there, or lets nobody read.
    """
    named_instead: list[Pointer] = []
    with _listening(config, timeout_s) as (link, heard):
        link.subscribe([topics.target(f"fleet/{order.fleet}/+")]).wait(timeout_s)
        for pointer in _pointers(heard, timeout_s):
            named_instead.append(pointer)
            if digest := digest_in(pointer, order):
                return Found(digest, _needs(link, heard, topics, digest))
    raise Refused(
        f"no channel of fleet {order.fleet} names {order.model} {order.version}: "
        + (named(named_instead, order.model) or "the broker retains no signed channel"),
        advice="Publish it first: edge-pack publish FILE --candidate; or --unchecked.",
    )


def promoted(config: LinkConfig, topics: Topics, order: Order, timeout_s: float) -> bool:
    """Whether each channel that has the model names the version as the stable one.

    Raises PeerFault when the broker is not there, or lets nobody read.
    """
    with _listening(config, timeout_s) as (link, heard):
        link.subscribe([topics.target(f"fleet/{order.fleet}/+")]).wait(timeout_s)
        return is_stable(list(_pointers(heard, timeout_s)), order)


def is_stable(pointers: list[Pointer], order: Order) -> bool:
    """See ``promoted``. Pure."""
    tracks = [one.models[order.model] for one in pointers if order.model in one.models]
    return bool(tracks) and all(
        track.stable.version == order.version and order.digest in ("", track.stable.sha256)
        for track in tracks
    )


@contextmanager
def _listening(
    config: LinkConfig, timeout_s: float
) -> Iterator[tuple[Link, queue.SimpleQueue[Message]]]:
    heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
    own = replace(config, client_id=f"{config.client_id}-{secrets.token_hex(4)}")
    link = Link(own, on_message=heard.put)
    link.start(timeout_s)
    try:
        yield link, heard
    finally:
        link.stop()


def _pointers(heard: queue.SimpleQueue[Message], timeout_s: float) -> Iterator[Pointer]:
    """What comes within that time and is a channel."""
    for message in _messages(heard, timeout_s):
        try:
            yield messages.decode(message.payload, Pointer)
        except InputFault:
            continue


def _messages(heard: queue.SimpleQueue[Message], timeout_s: float) -> Iterator[Message]:
    end_s = time.monotonic() + timeout_s
    while (left_s := end_s - time.monotonic()) > 0:
        try:
            yield heard.get(timeout=left_s)
        except queue.Empty:
            return


def _needs(link: Link, heard: queue.SimpleQueue[Message], topics: Topics, digest: str) -> Needs:
    """What the manifest says; nothing where the broker does not have it."""
    topic = topics.chunk(digest)
    link.subscribe([topic]).wait(MANIFEST_S)
    for message in _messages(heard, MANIFEST_S):
        if message.topic == topic:
            try:
                return needs_of(manifest_of(digest, message.payload))
            except InputFault:
                break
    return Needs()


def needs_of(manifest: Manifest) -> Needs:
    """What a device must have at least: as the agent's own check has it. Pure."""
    return Needs(
        onnxruntime=manifest.runtime.onnxruntime,
        ram_bytes=manifest.runtime.ram_bytes,
        disk_bytes=sum(file.size + file.raw_size for file in manifest.files),
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
