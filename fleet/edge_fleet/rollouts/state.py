"""What a rollout has come to, and what is seen of the devices. Pure.

Guards: all that a decision rests on is in these two: a rollout that is read back after a restart
goes on as if nothing had been.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from edge_contract.errors import MachineFault
from edge_contract.messages import Beside
from edge_contract.typed import msgpack_decoder
from edge_fleet.rollouts.order import Order
from edge_fleet.rollouts.tallies import Arms, ShadowTally

SCHEMA = 1
NOTES_MAX = 100

Phase = Literal[
    "queued", "running", "paused", "waiting", "halted", "aborted", "rolling-back", "rolled-back",
    "finished", "released",
]  # fmt: skip
ACTIVE: frozenset[Phase] = frozenset({"running", "paused", "waiting", "rolling-back"})
"""Something may still be asked of devices by itself or after a word; no other may overlap."""


class Member(Struct, frozen=True, omit_defaults=True):
    """A device that was chosen.

    Attributes:
        wave: the one it came with. asked_ms: when it was to follow the version; 0: not yet.
        former: what it was to follow before. back: it is to follow that again.
    """

    wave: int
    asked_ms: int = 0
    former: str = "stable"
    back: bool = False


class Note(Struct, frozen=True):
    """Something that happened to the rollout."""

    at_ms: int
    phase: Phase
    wave: int
    said: str


class Trial(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A candidate beside the live version: on which devices, since when; over: it held."""

    began_ms: int
    devices: dict[str, int] = {}
    over: bool = False


class Rollout(Struct, frozen=True, kw_only=True):
    """A rollout.

    Attributes:
        id: rises from 1 within a store. wave: from 0. since_ms: when that began.
        baking_ms: since when the wave's gates hold; 0: they do not yet.
        rate: error rate on labels of the former versions that the new one is held to, fixed when
            first there were enough labels; None before.
        forgiven: gates that a person passed over in this wave. failing: those that failed while
            it waited for a person. paused_ms: since when it is paused; 0: it is not.
        reason: why it stands where it does.
        trial: the candidate beside the live version, where that was ordered and has begun.
    """

    schema: int = SCHEMA
    id: int
    order: Order
    phase: Phase = "running"
    wave: int = 0
    started_ms: int
    since_ms: int
    baking_ms: int = 0
    members: dict[str, Member] = {}
    rate: float | None = None
    forgiven: tuple[str, ...] = ()
    reason: str = ""
    notes: Annotated[tuple[Note, ...], Meta(max_length=NOTES_MAX)] = ()
    trial: Trial | None = None
    failing: tuple[str, ...] = ()
    paused_ms: int = 0


class Seen(Struct, frozen=True, kw_only=True):
    """What is known of a device now.

    Attributes:
        traits: labels, and ``hw``, ``device``, ``agent``, ``system`` where no label is called so.
        heard_ms: when it was last heard of; 0: never.
        active, digest, phase: of the model. refused: it has the version in quarantine.
        heeds: it said that it heard the newest wish.
        word: what it is to follow of the model, as last kept; ``stable`` where nothing was.
        alarms: open drift alarms of the version.
        unsigned: it says that it runs what no channel of the fleet ever named.
        onnxruntime, ram_bytes, disk_bytes: what it has; "" and 0: it does not say.
        beside: what it is to run beside the live version, as last kept. ended: it said that it
            tried the version beside the live one and ended that.
    """

    traits: dict[str, str] = {}
    heard_ms: int = 0
    active: str = ""
    digest: str = ""
    phase: str = ""
    refused: bool = False
    heeds: bool = True
    word: str = "stable"
    alarms: int = 0
    beside: Beside | None = None
    ended: bool = False
    unsigned: bool = False
    onnxruntime: str = ""
    ram_bytes: int = 0
    disk_bytes: int = 0


class Reports(Struct, frozen=True, kw_only=True):
    """What is seen of the fleet now.

    Attributes:
        taken: devices that another rollout of the model holds.
        held: for one that is queued: devices that those before it hold, each with whose number.
        promoted: channels name the version as stable; None: nobody looked.
        rows, failed: of the version since the rollout began.
        wrong, labels: of the version since then; ``former_``: of all others of the model.
        beside_wrong, beside_labels: of these others, since then. alike: of the version and of
            these others, wrong and all, weighed to the same shares of hardware and site.
        arms: windows of the version and of others, side by side. shadows: of the version in the
            shadow of others, by device, since the rollout began.
    """

    devices: dict[str, Seen] = {}
    taken: frozenset[str] = frozenset()
    held: dict[str, int] = {}
    promoted: bool | None = None
    rows: int = 0
    failed: int = 0
    wrong: int = 0
    labels: int = 0
    former_wrong: int = 0
    former_labels: int = 0
    beside_wrong: int = 0
    beside_labels: int = 0
    alike: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))
    arms: Arms = Arms()
    shadows: dict[str, ShadowTally] = {}


class Want(Struct, frozen=True):
    """An effect: from now on ``device`` is to follow ``word`` of ``model``.

    ``beside``: what is to run beside that; None: nothing; unset: what it was.
    """

    device: str
    model: str
    word: str
    beside: Beside | UnsetType | None = UNSET


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgpack_decoder(Rollout)


def encode(rollout: Rollout) -> bytes:
    """MessagePack."""
    return _ENCODER.encode(rollout)


def decode(data: bytes) -> Rollout:
    """A rollout as it was kept. Raises MachineFault when the store's bytes are no rollout."""
    try:
        found = _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MachineFault(f"the store's record of a rollout cannot be read: {error}") from error
    if found.schema > SCHEMA:
        raise MachineFault(
            f"a rollout of schema {found.schema}, this edge-fleet knows {SCHEMA}",
            advice="Update edge-pack on this machine.",
        )
    return found
