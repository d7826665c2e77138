"""The evidence that a trigger hands to whoever retrains: what was seen, and how sure it is.

Guards: counts, shares and figures only, never a row; each estimate says what it cannot see. The
same bytes go to a webhook, a command's standard input and an MQTT topic; the JSON Schema is
published.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from edge_contract import wire
from edge_contract.messages import Name, Sha256, Short, Text

EVIDENCE_MAX_BYTES = 1024 * 1024
ALARMS_MAX = 100
CELLS_MAX = 40
DEVICES_MAX = 100

Words = Annotated[str, Meta(max_length=4000)]


class CellShare(Struct, frozen=True, kw_only=True):
    """A cell's share of the rows, in the reference and since the change began."""

    cell: Words
    before: float
    after: float


class AlarmFound(Struct, frozen=True, kw_only=True):
    """One alarm.

    Attributes:
        id: the fleet's number of it. level: ``device``, ``cohort`` or ``fleet``.
        device: whose, or the cohort's or fleet's words for itself.
        source: ``feature``, ``output`` or ``labels``. kind, what: for a program, for a person.
        since, opened: ISO 8601, UTC: when the change most likely began, when it was certain enough.
        evidence, threshold: log10, at the crossing. rows: seen since the change began.
        cells: the histogram before and after, the cells that changed most first.
        members, devices: of a cohort or fleet: how many devices it had, and the names of those
            whose rows speak for the change, the clearest first.
    """

    id: int
    level: Short
    device: Words
    feature: Words
    source: Short
    kind: Short
    what: Words
    since: Short
    opened: Short
    evidence: float
    threshold: float
    rows: int
    cells: Annotated[tuple[CellShare, ...], Meta(max_length=CELLS_MAX)] = ()
    members: int = 0
    devices: Annotated[tuple[Short, ...], Meta(max_length=DEVICES_MAX)] = ()


class Figure(Struct, frozen=True, kw_only=True):
    """An estimate of quality, or why there is none.

    Attributes:
        figure: ``accuracy`` and its like. method: ``score``, ``raked`` or ``labels``.
        value: None where it was refused. low, high: its interval at ``level``.
        rows: effective rows that it rests on. blind: what it cannot see.
    """

    figure: Short
    method: Short
    value: float | None
    low: float | None
    high: float | None
    level: float
    rows: float
    refused: Text = ""
    blind: Text = ""


class Evidence(Struct, frozen=True, kw_only=True):
    """Why a trigger fired.

    Attributes:
        key: the same for each delivery of one firing: who has seen it has done it.
        trigger, fleet: whose. at: ISO 8601, UTC. dry_run: nothing is to be done.
        model, version, bundle: what answered, and the digest of its manifest.
        why: the conditions that held, in words.
        alarms: at most ``ALARMS_MAX``; alarms_open: how many there are.
        rows, windows, devices: that were counted of the version. rows_new: since this trigger's
            last firing for it.
        built_accuracy, built_mae: of the build on rows kept back, the second of a model of values;
            low, high: its interval.
        quality: estimates of today. source_sha256: digest of the model file of the build.
    """

    schema: int = 1
    key: Sha256
    trigger: Name
    fleet: Name
    at: Short
    dry_run: bool = False
    model: Name
    version: Name
    bundle: Sha256
    source_sha256: Short = ""
    why: Annotated[tuple[Words, ...], Meta(max_length=16)]
    alarms: Annotated[tuple[AlarmFound, ...], Meta(max_length=ALARMS_MAX)] = ()
    alarms_open: int = 0
    rows: int = 0
    rows_new: int = 0
    windows: int = 0
    devices: int = 0
    built_accuracy: float | None = None
    built_accuracy_low: float | None = None
    built_accuracy_high: float | None = None
    built_mae: float | None = None
    built_mae_low: float | None = None
    built_mae_high: float | None = None
    quality: Annotated[tuple[Figure, ...], Meta(max_length=64)] = ()


def encode(evidence: Evidence) -> bytes:
    """JSON, one line."""
    return wire.encode_json(evidence)


def decode(data: bytes) -> Evidence:
    """An evidence record. Raises InputFault, and nothing else."""
    return wire.decode_json(data, Evidence, size_max=EVIDENCE_MAX_BYTES)
