"""Records beside the windows: a candidate in the shadow of the live version, and late labels.

Both go the way of the telemetry record (same topic, same numbering, idempotent by device, boot and
seq) and are never counted as one: their first element, the schema, is another number. A collector
that does not know them refuses them.

Counts only: no row, no value, no prediction's id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.messages import Count, Name
from edge_contract.profile import Monitor, Profile
from edge_contract.telemetry import (
    LATENCY_BUCKETS,
    RECORD_MAX_BYTES,
    pack_counts,
    unpack_counts,
)
from edge_contract.typed import msgpack_decoder

SHADOW_SCHEMA = 2
LABELLED_SCHEMA = 3

DIFFERENCE_BUCKETS = 32
"""Bucket i holds differences in [2^(i-22), 2^(i-21)); the ends are open, 0 lies in the first."""
_DIFFERENCE_SHIFT = 21

Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Unit = Annotated[float, Meta(gt=0)]
CELLS_MAX = 100_000
Cells = Annotated[int, Meta(ge=0, le=CELLS_MAX)]


class Shadow(Struct, frozen=True, array_like=True, tag_field="schema", tag=SHADOW_SCHEMA):
    """A period of a candidate that answered nobody, on requests that the live version answered.

    Attributes:
        device, boot, seq, start_ms, end_ms, synchronised, dropped: as in ``telemetry.Record``.
        version, bundle: of the candidate. live_version, live_bundle: of what answered.
        rows: answered by both. refused, failed: what the candidate did with others.
        skipped: chosen and never run, since too many waited.
        agreed, differed: rows with the same label, or with values within the tolerance, and the
            others; rows that neither counts had nothing to compare.
        unit: differences are multiples of it: 1 for scores, of a regression the standard deviation
            of its reference predictions.
        counts: the candidate's answers in the cells of its own profile.
        latency, live_latency: of calls, in ``telemetry``'s buckets, the candidate's and the live
            version's on the same calls.
        differences: |candidate - live| of scores of one label, or of values, in units.
    """

    device: Name
    boot: Count
    seq: Count
    model: Name
    version: Name
    bundle: Digest
    live_version: Name
    live_bundle: Digest
    start_ms: Count
    end_ms: Count
    synchronised: bool
    rows: Count
    refused: Count
    failed: Count
    skipped: Count
    agreed: Count
    differed: Count
    unit: Unit
    counts: bytes
    latency: bytes
    live_latency: bytes
    differences: bytes
    dropped: Count = 0


class Labelled(Struct, frozen=True, array_like=True, tag_field="schema", tag=LABELLED_SCHEMA):
    """Labels that came within a period for answers of one version, whenever those were given.

    Attributes:
        device to dropped, version, bundle: as in ``telemetry.Record``.
        kind: ``label`` or ``value``.
        labels, bins: of ``counts`` for a label: for each predicted label and score bin how many
            were wrong, then in the same order how many were right. A value has two rows of
            ``DIFFERENCE_BUCKETS``: |error| in units where the prediction was too low, then where
            it was not; ``labels`` is 2 and ``bins`` their number.
        unit: of errors, as in ``Shadow``.
        repeated, contradicted: for an answer that had a label, the same one or another: the first
            one stays. late: older than the device keeps. unknown: for no answer that it knows.
        refused: not a label of the model's.
    """

    device: Name
    boot: Count
    seq: Count
    model: Name
    version: Name
    bundle: Digest
    start_ms: Count
    end_ms: Count
    synchronised: bool
    kind: Literal["label", "value"]
    labels: Cells
    bins: Cells
    unit: Unit
    counts: bytes
    repeated: Count = 0
    contradicted: Count = 0
    late: Count = 0
    unknown: Count = 0
    refused: Count = 0
    dropped: Count = 0


Aside = Shadow | Labelled

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Aside] = msgpack_decoder(Aside)


def encode(aside: Aside) -> bytes:
    """MessagePack. Raises InputFault when it is over ``telemetry.RECORD_MAX_BYTES``."""
    data = _ENCODER.encode(aside)
    if len(data) > RECORD_MAX_BYTES:
        raise InputFault(f"record of {len(data)} bytes, over the limit of {RECORD_MAX_BYTES}")
    return data


def is_aside(data: bytes) -> bool:
    """Whether the schema of a record, the first element of its array, is one of ours."""
    at = 3 if data[:1] == b"\xdc" else 1
    return data[at : at + 1] in (bytes([SHADOW_SCHEMA]), bytes([LABELLED_SCHEMA]))


def decode(data: bytes) -> Aside:
    """A record whose figures go together. Raises InputFault, and nothing else.

    ``Shadow.counts`` is checked against its profile by ``unpack_counts``, once that is known.
    """
    if len(data) > RECORD_MAX_BYTES:
        raise InputFault(f"record of {len(data)} bytes, over the limit of {RECORD_MAX_BYTES}")
    try:
        aside = _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputFault(f"not a valid record: {error}") from error
    if aside.end_ms < aside.start_ms:
        raise InputFault("the record's period ends before it starts")
    if not math.isfinite(aside.unit):
        raise InputFault("the record's unit is infinite")
    if isinstance(aside, Labelled):
        counts_of(aside)
    else:
        _check(aside)
    return aside


def _check(shadow: Shadow) -> None:
    if shadow.agreed + shadow.differed > shadow.rows:
        raise InputFault(
            f"{shadow.agreed} + {shadow.differed} rows compared, the record says {shadow.rows}"
        )
    differences = differences_of(shadow)
    if int(differences.sum()) > shadow.rows:
        raise InputFault(f"{differences.sum()} differences in {shadow.rows} rows")
    calls = [unpack_counts(each, LATENCY_BUCKETS) for each in (shadow.latency, shadow.live_latency)]
    if calls[0].sum() != calls[1].sum():
        raise InputFault(f"latencies of {calls[0].sum()} calls beside {calls[1].sum()}")


def differences_of(shadow: Shadow) -> NDArray[np.int64]:
    """The difference buckets. Raises InputFault when malformed."""
    return unpack_counts(shadow.differences, DIFFERENCE_BUCKETS)


def counts_of(labelled: Labelled) -> NDArray[np.int64]:
    """Counts ``[2, labels, bins]``: wrong, then right; of values ``[1, 2, bins]``.

    Raises InputFault when malformed.
    """
    cells = labelled.labels * labelled.bins
    fixed = (labelled.labels, labelled.bins) == (2, DIFFERENCE_BUCKETS)
    if cells > CELLS_MAX or (labelled.kind == "value" and not fixed):
        raise InputFault(f"labels in {labelled.labels} times {labelled.bins} cells")
    halves = 2 if labelled.kind == "label" else 1
    return unpack_counts(labelled.counts, halves * cells).reshape(
        halves, labelled.labels, labelled.bins
    )


def pack_differences(differences: Iterable[int]) -> bytes:
    """Difference buckets as a record carries them."""
    return pack_counts(list(differences))


def difference_bucket(units: float) -> int:
    """The bucket of a difference of 0 or more, in units."""
    if units <= 0:
        return 0
    if not math.isfinite(units):
        return DIFFERENCE_BUCKETS - 1
    return min(max(math.frexp(units)[1] + _DIFFERENCE_SHIFT, 0), DIFFERENCE_BUCKETS - 1)


def difference_bound(bucket: int) -> float:
    """What the differences in a bucket are below; infinite for the last one."""
    last = DIFFERENCE_BUCKETS - 1
    return math.inf if bucket >= last else 2.0 ** (bucket - _DIFFERENCE_SHIFT)


def output_monitor(profile: Profile | None) -> Monitor | None:
    """What a profile says of the model's answers, None where it says nothing."""
    monitors = profile.monitors if profile is not None else ()
    return next((each for each in monitors if each.source == "output"), None)


def unit_of(profile: Profile | None) -> float:
    """The unit of a regression's differences: the deviation of its reference, 1 without one."""
    monitor = output_monitor(profile)
    known = monitor is not None and math.isfinite(monitor.std) and monitor.std > 0
    return monitor.std if monitor is not None and known else 1.0
