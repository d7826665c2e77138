"""The JSON messages between publisher, device and fleet.

Each has a schema version and a size bound; ``decode(data, Kind)`` validates all of it or raises
InputFault. Times are milliseconds since 1970-01-01 UTC by the sender's clock.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from edge_contract import wire
from edge_contract.errors import InputFault
from edge_contract.mirrors import MIRROR_MAX_CHARS, MIRRORS_MAX
from edge_contract.names import check_name, check_sha256
from edge_contract.typed import json_decoder

# The look-ahead stands for the end: `$` would let a trailing newline through, and JSON Schema's
# regular expressions know no `\Z`.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?![\s\S])")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]
Text = Annotated[str, Meta(max_length=2000)]
Short = Annotated[str, Meta(max_length=200)]
Mirror = Annotated[str, Meta(max_length=MIRROR_MAX_CHARS)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Labels = Annotated[dict[Name, Short], Meta(max_length=64)]

Phase = Literal[
    "idle", "fetching", "staged", "self-testing", "trial", "committed", "rolling-back"
]  # fmt: skip


class Release(Struct, frozen=True, kw_only=True):
    """A signed version: its manifest's path among the TUF targets and its SHA-256."""

    version: Name
    path: Short
    sha256: Sha256


class Track(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a channel says of one model.

    Attributes:
        stable: what every device follows unless its ``desired`` says otherwise.
        candidate: what a rollout may choose.
        others: older or newer released versions that ``desired`` may name, newest first.
        floor: the oldest version that a device may run, or "".
    """

    stable: Release
    candidate: Release | None = None
    others: Annotated[tuple[Release, ...], Meta(max_length=32)] = ()
    floor: str = ""

    def releases(self) -> tuple[Release, ...]:
        """Every release that the channel names."""
        candidate = (self.candidate,) if self.candidate else ()
        return (self.stable, *candidate, *self.others)


class Pointer(Struct, frozen=True, kw_only=True):
    """The signed pointer of a channel: TUF target ``fleet/<fleet>/<channel>.json``.

    ``mirrors``: HTTP(S) servers that have the bundles' files as well, see ``mirrors``.
    """

    schema: int = 1
    fleet: Name
    channel: Name
    models: Annotated[dict[Name, Track], Meta(max_length=256)]
    mirrors: Annotated[tuple[Mirror, ...], Meta(max_length=MIRRORS_MAX)] = ()


class Status(Struct, frozen=True, kw_only=True):
    """Retained birth and last will; one boot number pairs them.

    Attributes:
        run: drawn at random at each start: two agents under one name differ in it.
        machine: fingerprint of the hardware.
    """

    schema: int = 1
    online: bool
    boot: Count
    agent: Short
    run: Short = ""
    machine: Short = ""


class Beside(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A version to try beside the one that answers.

    Attributes:
        version: ``candidate``, a version that the signed channel names, or "" for none.
        share: of the requests, 0 to 1. answers: it answers its share; else it runs unheard.
    """

    version: Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?(?![\s\S])")] = (
        "candidate"
    )
    share: Annotated[float, Meta(ge=0, le=1)] = 0.1
    answers: bool = False


class Desired(Struct, frozen=True, kw_only=True):
    """What the fleet wants of one device: per model ``stable``, ``candidate`` or a version.

    It only chooses among signed releases. ``revision`` only rises; an older one is ignored.
    ``beside``: by model, what is tried beside it.
    """

    schema: int = 1
    revision: Count
    models: Annotated[dict[Name, Name], Meta(max_length=256)] = {}
    beside: Annotated[dict[Name, Beside], Meta(max_length=256)] = {}


class Hardware(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The machine that a device is."""

    machine: Short
    cpus: Count
    ram_bytes: Count
    system: Short
    python: Short
    onnxruntime: Short


STRAIN_SIGNS_MAX = 8


class Strain(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Whether a device is slowed down by heat or voltage, or short of memory.

    Attributes:
        signs: what it shows, in words; empty: nothing of late.
        since_ms: when that began, or ended. times: how often it began since the agent's start.
        temperature_c: of the hottest zone; None: the device does not say.
        stalled_percent: of 10 s, in which everything waited for memory.
    """

    signs: Annotated[tuple[Short, ...], Meta(max_length=STRAIN_SIGNS_MAX)] = ()
    since_ms: Count = 0
    times: Count = 0
    temperature_c: float | None = None
    stalled_percent: float = 0.0


class Mismatch(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Golden values of one output tensor that a machine computes otherwise.

    Attributes:
        output: the tensor. said: what is wrong with it, in words.
        wrong, values: so many of so many. rows: the first of them.
        worst: greatest absolute difference; allowed: the tolerance at that value.
    """

    output: Short
    said: Short
    wrong: Count = 0
    values: Count = 0
    rows: Annotated[tuple[Count, ...], Meta(max_length=8)] = ()
    worst: float | None = None
    allowed: float | None = None


class Findings(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a self-test or a trial saw of a version. A limit of 0: none was set.

    Attributes:
        golden: of the outputs that were off. ended: how the test's process ended, if not in order.
        latency_p50_ms, latency_p99_ms: of one row; in a trial the p99 of requests, to within 1.42.
        ram_bytes: resident memory that the version costs.
        requests, failures: rows in the trial, and those that the model failed on.
        slow: rows that took longer than the limit. stalled: requests that had to be ended.
        seconds: of the trial.
    """

    golden: Annotated[tuple[Mismatch, ...], Meta(max_length=4)] = ()
    ended: Short = ""
    latency_p50_ms: float = 0.0
    latency_p99_ms: float = 0.0
    latency_limit_ms: float = 0.0
    ram_bytes: Count = 0
    ram_limit_bytes: Count = 0
    requests: Count = 0
    failures: Count = 0
    slow: Count = 0
    stalled: Count = 0
    seconds: float = 0.0


class Failure(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A version that is not tried again until it is named anew, and why."""

    version: Short
    digest: Sha256
    reason: Text = ""
    findings: Findings | None = None


class Calibrated(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How labels on the device put the scores of what answers right.

    ``labels`` so far, of ``needed``; with fewer nothing moves. ``shift``: the farthest that a score
    moves; ``max_shift``: the publisher's bound.
    """

    labels: Count
    needed: Count
    shift: Annotated[float, Meta(ge=0, le=1)] = 0.0
    max_shift: Annotated[float, Meta(ge=0, le=1)]


class ModelReport(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The state of one model on a device. Versions are "" where there is none.

    ``factory``: version of the factory's bundle while that answers, for want of a better one.
    ``failure``: the version that was quarantined last. Of the candidate's fetch: ``done_bytes`` of
    ``total_bytes`` are here (0 before that is known), ``bytes_per_s`` came lately. ``waits``: what
    the phase waits for, in words; ``until_ms``: when that ends by the device's clock, 0 where it
    is not known. ``beside``: what is tried beside the active version, and how, in words.
    ``calibration``: None where the version may not be calibrated, or the device does not want it.
    """

    phase: Phase
    active: Short = ""
    digest: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?(?![\s\S])")] = ""
    previous: Short = ""
    candidate: Short = ""
    progress: Annotated[float, Meta(ge=0, le=1)] = 0.0
    reason: Text = ""
    quarantined: Annotated[tuple[Short, ...], Meta(max_length=32)] = ()
    factory: Short = ""
    failure: Failure | None = None
    done_bytes: Count = 0
    total_bytes: Count = 0
    bytes_per_s: Count = 0
    waits: Short = ""
    until_ms: Count = 0
    beside: Short = ""
    calibration: Calibrated | None = None


class Room(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Disk where a device keeps its models and records; None: the system does not say.

    ``spool_bytes``: of records that wait there, of at most ``spool_max_bytes``.
    """

    free_bytes: Count | None = None
    total_bytes: Count | None = None
    spool_bytes: Count = 0
    spool_max_bytes: Count = 0


class Reported(Struct, frozen=True, kw_only=True):
    """Retained: what a device runs and how it is.

    ``twin``: what it knows of another agent under its name, "" when there was none of late.
    ``strain``: whether the machine is slowed down. ``channel``: that it follows.
    ``synchronised``: a time service keeps its clock; None, and no ``room``: an older agent.
    """

    schema: int = 1
    boot: Count
    at_ms: Count
    agent: Short
    hardware: Hardware
    revision: Count = 0
    freshness: Literal["verified", "unverified", "expired", "none"] = "none"
    labels: Labels = {}
    models: Annotated[dict[Name, ModelReport], Meta(max_length=256)] = {}
    twin: Short = ""
    strain: Strain = Strain()
    channel: Short = ""
    synchronised: bool | None = None
    room: Room = Room()


class Event(Struct, frozen=True, kw_only=True):
    """Something happened on a device. Idempotent by (device, boot, seq).

    ``findings``: the evidence, where a version failed or proved itself.
    """

    schema: int = 1
    boot: Count
    seq: Count
    at_ms: Count
    kind: Name
    model: Short = ""
    version: Short = ""
    detail: Text = ""
    findings: Findings | UnsetType = UNSET


Scalar = int | float | str | bool | None
"""One feature's value in a request; None is missing. JSON knows no NaN."""
ROWS_MAX = 10_000
REQUEST_MAX_BYTES = 1024 * 1024


class TensorData(Struct, frozen=True, kw_only=True):
    """A whole tensor in JSON: its elements in C order. A request may leave the type out."""

    dtype: Short = ""
    shape: Annotated[tuple[Count, ...], Meta(max_length=16)]
    data: list[int | float | str | bool]


class Request(Struct, frozen=True, kw_only=True):
    """An inference request as it was understood: rows, or tensors by name.

    ``single``: the request was one object of features, so the answer holds one prediction.
    """

    rows: list[dict[str, Scalar] | list[Scalar]] = []
    tensors: dict[str, TensorData] = {}
    single: bool = False


class Outcome(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The prediction for one row; see ``edge_agent.Prediction``."""

    label: int | float | str | bool | None = None
    probabilities: dict[str, float] = {}
    value: float | None = None
    outputs: dict[str, TensorData] = {}
    id: Short = ""
    calibrated: float | None = None


class Label(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an answer should have been, by the answer's id."""

    id: Annotated[str, Meta(min_length=1, max_length=40)]
    label: int | float | str | bool


class LabelsTaken(Struct, frozen=True, kw_only=True):
    """What became of labels.

    Attributes:
        counted: for the first time. repeated, contradicted: there was one already, the same or
            another, which stays. late: the answer is no longer kept. unknown: for no answer of this
            model. refused: no label of this model; ``said``: why, of the first ones.
    """

    counted: Count = 0
    repeated: Count = 0
    contradicted: Count = 0
    late: Count = 0
    unknown: Count = 0
    refused: Count = 0
    said: Annotated[tuple[Text, ...], Meta(max_length=8)] = ()


class Problem(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why there is no prediction: what happened, and what to do about it."""

    what: str
    advice: str = ""


class Answer(Struct, frozen=True, kw_only=True):
    """The answer to an inference request: predictions in the order of the rows, or an error."""

    schema: int = 1
    model: Name
    version: Name | UnsetType = UNSET
    predictions: list[Outcome] | UnsetType = UNSET
    error: Problem | UnsetType = UNSET


MAX_BYTES: dict[type[Struct], int] = {
    Pointer: 120 * 1024,
    Status: 1024,
    Desired: 32 * 1024,
    Reported: 64 * 1024,
    Event: 8 * 1024,
    Answer: 16 * 1024**2,
}

T = TypeVar("T", bound=Struct)


def encode(message: Struct) -> bytes:
    """JSON in the fields' declared order."""
    return wire.encode_json(message)


def decode(data: bytes, kind: type[T]) -> T:
    """A ``kind`` from JSON, bounded by ``MAX_BYTES``. Raises InputFault, and nothing else."""
    return wire.decode_json(data, kind, size_max=MAX_BYTES[kind])


_Wire = dict[str, Scalar | list[dict[str, Scalar] | list[Scalar]] | dict[str, TensorData]]
_REQUEST = json_decoder(_Wire)
_FORMS = (
    'Send {"feature": value, ...}, {"rows": [...]} or '
    '{"tensors": {"name": {"shape": [1, 3], "data": [0.5, 1, 2]}}}.'
)


def decode_request(data: bytes) -> Request:
    """An inference request: one object of features, ``{"rows": [...]}`` or ``{"tensors": {...}}``.

    Raises InputFault, and nothing else: over ``REQUEST_MAX_BYTES``, not JSON, not of a form
    above, no row or more than ``ROWS_MAX``.
    """
    if len(data) > REQUEST_MAX_BYTES:
        raise InputFault(f"request of {len(data)} bytes, over the limit of {REQUEST_MAX_BYTES}")
    try:
        fields = _REQUEST.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputFault(f"not a valid request: {error}", advice=_FORMS) from error
    match fields:
        case {"rows": list() as rows, **others} if not others:
            if not 1 <= len(rows) <= ROWS_MAX:
                raise InputFault(f"{len(rows)} rows, expected 1 to {ROWS_MAX}")
            return Request(rows=rows)
        case {"tensors": dict() as tensors, **others} if not others:
            return Request(tensors=tensors)
    row: dict[str, Scalar] = {}
    for name, value in fields.items():
        if isinstance(value, list | dict):
            raise InputFault(f"feature {name[:80]!r} is no single value", advice=_FORMS)
        row[name] = value
    return Request(rows=[row], single=True)


_LABELS: msgspec.json.Decoder[Label | list[Label]] = json_decoder(Label | list[Label])


def decode_labels(data: bytes) -> list[Label]:
    """Labels: one ``{"id": ..., "label": ...}`` or a list of them.

    Raises InputFault, and nothing else: over ``REQUEST_MAX_BYTES``, not JSON, not of this form, no
    label or more than ``ROWS_MAX``.
    """
    if len(data) > REQUEST_MAX_BYTES:
        raise InputFault(f"labels of {len(data)} bytes, over the limit of {REQUEST_MAX_BYTES}")
    try:
        found = _LABELS.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        advice = 'Send {"id": "7-1031", "label": "bad"} or a list of such objects.'
        raise InputFault(f"not valid labels: {error}", advice=advice) from error
    labels = found if isinstance(found, list) else [found]
    if not 1 <= len(labels) <= ROWS_MAX:
        raise InputFault(f"{len(labels)} labels, expected 1 to {ROWS_MAX}")
    return labels


def manifest_path(name: str, version: str) -> str:
    """Where a manifest lies among the TUF targets."""
    return f"models/{check_name(name, 'model')}/{check_name(version, 'version')}.json"


def pointer_path(fleet: str, channel: str) -> str:
    """Where a channel's pointer lies among the TUF targets."""
    return f"fleet/{check_name(fleet, 'fleet')}/{check_name(channel, 'channel')}.json"


def release(name: str, version: str, sha256: str) -> Release:
    """The release of a bundle by name, version and manifest digest."""
    return Release(
        version=version, path=manifest_path(name, version), sha256=check_sha256(sha256, "manifest")
    )


SCHEMA_KINDS: tuple[type[Struct], ...] = (Pointer, Status, Desired, Reported, Event, Answer)

__all__ = [
    "MAX_BYTES", "REQUEST_MAX_BYTES", "ROWS_MAX", "SCHEMA_KINDS", "Answer", "Beside", "Desired",
    "Event", "Failure", "Findings", "Hardware", "Label", "LabelsTaken", "Mismatch", "ModelReport",
    "Outcome", "Phase", "Pointer", "Problem", "Release", "Reported", "Request", "Scalar", "Status",
    "TensorData", "Track", "decode", "decode_labels", "decode_request", "encode", "manifest_path",
    "pointer_path", "release",
]  # fmt: skip
