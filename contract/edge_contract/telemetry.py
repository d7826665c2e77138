"""The telemetry record: the counts of one window, in MessagePack.

A record is an array of fixed positions (see ``Record``). ``coding`` says how the counts of the
profile's cells are written:

    1  unsigned LEB128 integers (DWARF 4, section 7.6), a run of zeros written as 0 followed by the
       run's length less one; the latency buckets are written so in any case
    2  differences from what the profile expects, a third as many bytes: ``residuals``
    3  counts with noise, for privacy (``pack_noisy``): how much, then as coding 1
    4  not at all: the profile is so wide that they would be over the limit

A later coding gets another number. Records are idempotent by (device, boot, seq): a broker may
deliver one twice, a store keeps it once.

Fields are only ever added at the end: an old reader passes over them, an old record reads with
their defaults. docs/formats/record.md has the format byte by byte.

Never a row, a value or a name that a person typed: counts only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from edge_contract import moments
from edge_contract.errors import InputFault
from edge_contract.messages import Count, Name
from edge_contract.moments import Moments
from edge_contract.profile import Profile
from edge_contract.residuals import Residuals
from edge_contract.typed import msgpack_decoder

SCHEMA = 1
RECORD_MAX_BYTES = 64 * 1024
CODING_LEB128 = 1
CODING_RESIDUALS = 2
CODING_NOISY = 3
CODING_NONE = 4
CODINGS = (CODING_LEB128, CODING_RESIDUALS, CODING_NOISY, CODING_NONE)
NOISE_STEPS = 16
"""The noise factor is written in sixteenths."""
NOISE_MAX = 2**20
COUNT_MAX = 2**53
CELLS_MAX = 1_000_000

_SHORT_BYTES = 64
_LEB128_BYTES_MAX = 9
"""Nine bytes hold 63 bits; a count has 53."""

LATENCY_BUCKETS = 48
"""Bucket i holds latencies in [2^(i/2), 2^((i+1)/2)) microseconds; the ends are open."""


ERROR_CODES = (
    "input", "missing", "unknown", "value", "shape",
    "failed", "not-finite", "answer", "interrupted", "memory",
)  # fmt: skip
"""Why rows were refused, or failed, by place in ``Record.errors``; added to at the end.

Refused: other input, a feature missing, one unknown, a value of a wrong type, a wrong shape or
number. Failed: another failure, an answer that is no finite number, one of a wrong form, a run that
took too long and was ended, want of memory.
"""

QUALITY_CODES = (
    "missing", "infinite", "out-of-range", "unseen", "off-lattice",
    "stuck", "flat", "sentinel", "unit", "stale-clock", "refused",
)  # fmt: skip
"""What a device found wrong with its inputs, by number in ``Record.quality``; added to at the end.

unit: values of another unit of measurement. The others: see ``edge_agent.telemetry.quality``.
"""

FINDINGS_MAX = 64
"""So many are in a record at most: of more, the first in the profile's order."""
CODES_MAX = 64

Percent = Annotated[int, Meta(ge=0, le=100)]


class Resources(Struct, frozen=True, array_like=True):
    """The machine at the end of a window; None: the system does not say.

    Attributes:
        cpu_percent: of all processors, over the window. own_percent: the agent's part of that.
        rss_mib: resident memory of the agent.
        temperature_c: of the hottest zone, whole degrees.
        disk_free_mib: that the agent may still write where its records wait.
        slowed: bits. 0 to 3, of this moment by the firmware of a Raspberry Pi: under-voltage, clock
            capped, throttled, soft temperature limit; 4 to 7: the same at any time since it was
            switched on; 8: another sign of heat or of too little memory that the kernel shows.
    """

    cpu_percent: Percent | None = None
    own_percent: Percent | None = None
    rss_mib: Annotated[int, Meta(ge=0, le=2**32)] | None = None
    temperature_c: Annotated[int, Meta(ge=-100, le=300)] | None = None
    disk_free_mib: Annotated[int, Meta(ge=0, le=2**44)] | None = None
    slowed: Annotated[int, Meta(ge=0, le=2**16 - 1)] = 0


Code = Annotated[int, Meta(ge=0, lt=CODES_MAX)]


class Record(Struct, frozen=True, array_like=True):
    """One window of one model on one device.

    Attributes:
        device: who. boot: its boot number. seq: rises by one a record within a boot.
        model, version: what answered. bundle: SHA-256 of its manifest, 32 bytes.
        start_ms, end_ms: the window by the device's clock, UTC. synchronised: trust that clock.
        rows: predictions made. refused: rows turned away for bad input. failed: runtime errors.
        coding, counts: the cells of the bundle's profile. latency: the log buckets.
        dropped: records that the device had to drop from its spool since it booted.
        errors: refused and failed rows by ``ERROR_CODES``, zeros at the end left out.
        moments: of each number in the window: see ``edge_contract.moments``.
        quality: what was found wrong with the input in this window: pairs of a number in
            ``QUALITY_CODES`` and of the monitor in the profile, counted from 1; 0: the device.
        resources: the machine at the window's end.
    """

    schema: int
    device: Name
    boot: Count
    seq: Count
    model: Name
    version: Name
    bundle: Annotated[bytes, Meta(min_length=32, max_length=32)]
    start_ms: Count
    end_ms: Count
    synchronised: bool
    rows: Count
    refused: Count
    failed: Count
    coding: Count
    counts: bytes
    latency: bytes
    dropped: Count = 0
    errors: Annotated[tuple[Count, ...], Meta(max_length=CODES_MAX)] = ()
    moments: bytes = b""
    quality: Annotated[tuple[tuple[Code, Count], ...], Meta(max_length=FINDINGS_MAX)] = ()
    resources: Resources | None = None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgpack_decoder(Record)


def encode(record: Record) -> bytes:
    """MessagePack. Raises InputFault when the record is over ``RECORD_MAX_BYTES``."""
    data = _ENCODER.encode(record)
    if len(data) > RECORD_MAX_BYTES:
        raise InputFault(f"record of {len(data)} bytes, over the limit of {RECORD_MAX_BYTES}")
    return data


def decode(data: bytes) -> Record:
    """A record whose header is valid. Raises InputFault, and nothing else.

    The counts are checked against their profile by ``counts_of``, once that is known.
    """
    if len(data) > RECORD_MAX_BYTES:
        raise InputFault(f"record of {len(data)} bytes, over the limit of {RECORD_MAX_BYTES}")
    try:
        record = _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputFault(f"not a valid record: {error}") from error
    if record.schema != SCHEMA or record.coding not in CODINGS:
        raise InputFault(f"record of schema {record.schema}, coding {record.coding}")
    if record.end_ms < record.start_ms:
        raise InputFault("the record's window ends before it starts")
    if sum(record.errors) > record.refused + record.failed:
        raise InputFault("the record has more errors by kind than rows refused and failed")
    return record


def counts_of(record: Record, reference: Residuals) -> NDArray[np.int64]:
    """The count vector, in the cells of the reference's profile.

    Raises InputFault when a count is malformed or a monitor's counts do not add up to ``rows``.
    """
    if record.coding == CODING_NONE:
        raise InputFault(
            f"the device left the counts of its window out: over {RECORD_MAX_BYTES} bytes",
            advice="Monitor fewer features: a record holds 2,500 numbers at 10,000 rows a window.",
        )
    if record.coding == CODING_RESIDUALS:
        return reference.read(record.counts, record.rows)
    profile = reference.profile
    data = record.counts
    if record.coding == CODING_NOISY:
        data = _split_noisy(data)[1]
    counts = unpack_counts(data, profile.cells)
    if not profile.monitors:
        return counts
    totals = np.add.reduceat(counts, profile.offsets())
    if counts.max() > record.rows:  # a sum that wrapped around may look right
        raise InputFault(f"a cell counts {counts.max()} of {record.rows} rows")
    for wrong in np.flatnonzero(totals != record.rows).tolist():
        raise InputFault(
            f"counts of {profile.monitors[wrong].name!r} add up to {totals[wrong]},"
            f" the record says {record.rows} rows"
        )
    return counts


def counts_of_many(records: Sequence[Record], reference: Residuals) -> NDArray[np.int64]:
    """The count vectors of records of one bundle, (records, cells), for a quarter of the work.

    Raises InputFault when one record is unsound; ``counts_of`` then says which.
    """
    if records and all(record.coding == CODING_RESIDUALS for record in records):
        return reference.read_many(
            [record.counts for record in records], [record.rows for record in records]
        )
    counts = [counts_of(record, reference) for record in records]
    return np.stack(counts) if counts else np.zeros((0, reference.profile.cells), dtype=np.int64)


def pack_noisy(counts: Sequence[int] | NDArray[np.int64], noise: float) -> bytes:
    """Counts with noise (coding 3): the noise factor in sixteenths, rounded up, then coding 1.

    ``noise``: how many times larger the variance of a share is than without, 1 or more: evidence
    that is drawn from the counts is to be divided by it.
    """
    if not 1 <= noise <= NOISE_MAX:
        raise InputFault(f"a noise factor of {noise:g} is out of range")
    out = bytearray()
    _leb128(out, math.ceil(noise * NOISE_STEPS))
    return bytes(out) + pack_counts(counts)


def noise_of(record: Record) -> float:
    """The noise factor of the counts; 1 where there is no noise. Raises InputFault."""
    return _split_noisy(record.counts)[0] if record.coding == CODING_NOISY else 1.0


def _split_noisy(data: bytes) -> tuple[float, bytes]:
    """The factor, and what follows it."""
    end = next((at for at, byte in enumerate(data[:5]) if byte < 0x80), None)
    if end is None:
        raise InputFault("the noise factor is cut off or too large")
    noise = sum((byte & 0x7F) << (7 * at) for at, byte in enumerate(data[: end + 1])) / NOISE_STEPS
    if not 1 <= noise <= NOISE_MAX:
        raise InputFault(f"a noise factor of {noise:g} is out of range")
    return noise, data[end + 1 :]


def latency_of(record: Record) -> NDArray[np.int64]:
    """The latency buckets, ``LATENCY_BUCKETS`` counts. Raises InputFault when malformed."""
    return unpack_counts(record.latency, LATENCY_BUCKETS)


def latency_bucket(nanoseconds: int) -> int:
    """The bucket of a latency: 2 * log2 of its microseconds, by integer arithmetic.

    0.7 us and less falls into bucket 0, 11.9 s and more into the last one.
    """
    squared = (nanoseconds * nanoseconds) // 1_000_000
    return min(max(squared.bit_length() - 1, 0), LATENCY_BUCKETS - 1)


def moments_of(record: Record, reference: Residuals) -> tuple[Moments | None, ...]:
    """The moments of the profile's numbers (see ``moments.numbers``); None where there are none.

    Raises InputFault when they or the counts are malformed.
    """
    counts = counts_of(record, reference)
    return moments.read(reference.profile, counts, record.moments)


def quality_of(record: Record, profile: Profile) -> tuple[tuple[str, str], ...]:
    """What was found wrong: its name in ``QUALITY_CODES`` and the monitor's, "" for the device.

    A code of a later version reads as its number. Raises InputFault for a monitor that is none.
    """
    found = []
    for code, monitor in record.quality:
        if monitor > len(profile.monitors):
            raise InputFault(f"a finding of monitor {monitor} of {len(profile.monitors)}")
        name = QUALITY_CODES[code] if code < len(QUALITY_CODES) else f"code {code}"
        found.append((name, profile.monitors[monitor - 1].name if monitor else ""))
    return tuple(found)


def errors_of(record: Record) -> dict[str, int]:
    """Rows refused and failed by why, of ``ERROR_CODES``; a later version's codes by number."""
    return {
        ERROR_CODES[code] if code < len(ERROR_CODES) else f"code {code}": count
        for code, count in enumerate(record.errors)
        if count
    }


def pack_counts(counts: Sequence[int] | NDArray[np.int64]) -> bytes:
    """LEB128 with zero runs. Raises InputFault for a count below 0 or above 2^53."""
    out = bytearray()
    zeros = 0
    for count in np.asarray(counts).tolist():
        if count == 0:
            zeros += 1
            continue
        if not 0 < count <= COUNT_MAX:
            raise InputFault(f"a count of {count} is out of range")
        _flush_zeros(out, zeros)
        zeros = 0
        _leb128(out, count)
    _flush_zeros(out, zeros)
    return bytes(out)


def unpack_counts(data: bytes, cells: int) -> NDArray[np.int64]:
    """``cells`` counts. Raises InputFault when there are more, fewer, or one is malformed.

    A collector does it for every window, hence in bulk, or by hand where that is less work.
    """
    if len(data) <= _SHORT_BYTES:
        return _unpack_short(data, cells)
    values = _read_leb128s(data)
    lengths = np.ones(len(values), dtype=np.int64)
    keep = np.ones(len(values), dtype=np.bool_)
    run_at = -1
    for at in np.flatnonzero(values == 0).tolist():
        if at == run_at:
            continue  # this zero is the length of a run
        run_at = at + 1
        if run_at >= len(values):
            raise InputFault("a count is cut off or too large")
        lengths[at] = values[run_at] + 1
        keep[run_at] = False
    total = sum(lengths[keep].tolist())  # Python's integers do not wrap around
    if total != cells:
        more = "more counts than" if total > cells else f"{total} counts for"
        raise InputFault(f"{more} the profile's {cells} cells")
    return np.repeat(values[keep], lengths[keep])


def _unpack_short(data: bytes, cells: int) -> NDArray[np.int64]:
    """The same for a few bytes, such as latency buckets: NumPy takes 60 us for any number."""
    counts: list[int] = []
    run = False
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 7 * _LEB128_BYTES_MAX or value > COUNT_MAX:
            raise InputFault("a count is cut off or too large")
        if byte >= 0x80:
            continue
        if run:
            if value >= cells - len(counts) + 1:
                raise InputFault(f"more counts than the profile's {cells} cells")
            counts += [0] * (value + 1)
            run = False
        elif value:
            counts.append(value)
        else:
            run = True
        value = shift = 0
    if run or shift:
        raise InputFault("a count is cut off or too large")
    if len(counts) != cells:
        more = "more counts than" if len(counts) > cells else f"{len(counts)} counts for"
        raise InputFault(f"{more} the profile's {cells} cells")
    return np.array(counts, dtype=np.int64)


def _flush_zeros(out: bytearray, zeros: int) -> None:
    if zeros:
        out.append(0)
        _leb128(out, zeros - 1)


def _leb128(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _read_leb128s(data: bytes) -> NDArray[np.int64]:
    """Every integer in ``data``: 7 bits a byte, least first, the last byte below 0x80."""
    raw = np.frombuffer(data, dtype=np.uint8)
    if not len(raw):
        return np.zeros(0, dtype=np.int64)
    ends = np.flatnonzero(raw < 0x80)
    if raw[-1] >= 0x80:
        raise InputFault("a count is cut off or too large")
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(raw)) - np.repeat(starts, ends - starts + 1)
    if places.max() >= _LEB128_BYTES_MAX:
        raise InputFault("a count is cut off or too large")
    values = np.add.reduceat((raw & 0x7F).astype(np.int64) << (7 * places), starts)
    if values.max() > COUNT_MAX:
        raise InputFault("a count is cut off or too large")
    return np.asarray(values)
