"""Windows of one device and bundle made one: the sum of records is a record.

Guards: whatever is a count is added, so that an hour says exactly what its windows said together;
what is no count (moments, findings, the machine's state) is pooled as said at ``merged``; records
of two bundles, devices or models never meet here. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import zip_longest

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_contract import moments, telemetry
from edge_contract.errors import InputFault, MachineFault
from edge_contract.moments import Moments
from edge_contract.residuals import Residuals
from edge_contract.telemetry import COUNT_MAX, Record
from edge_contract.typed import msgpack_decoder

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgpack_decoder(Record)


def decode(data: bytes) -> Record:
    """A record as the store has it, checked when it came. Raises MachineFault when it is damaged.

    A sum may be larger than a record may be on the wire.
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MachineFault(
            f"a record in the store is damaged: {error}",
            advice="Restore the database from a copy; its disk may be failing.",
        ) from error


def encode(record: Record) -> bytes:
    """For the store."""
    return _ENCODER.encode(record)


def merged(
    records: Sequence[Record],
    counts: NDArray[np.int64],
    times: Sequence[tuple[int, int]],
    reference: Residuals,
) -> Record:
    """One record that says what ``records`` say together.

    Counts, rows, errors and latencies are added. Mean and standard deviation are pooled over all
    finite values (rounding takes a fourth of a standard error at most with each merging) and the
    longest run is kept, where every record that has values says them; a finding of one is a finding
    of all; ``dropped`` and the machine's state are those of the last. The order of the
    records does not matter to what is added.

    Args:
        records: of one device, bundle and model, at least one; the last is the one of the highest
            (boot, seq), whose key and version the sum has.
        counts: of each record, ``[records, cells]``.
        times: when each began and ended, by the clock that is to be trusted.

    A figure beside the rows ends at ``COUNT_MAX``, the most that a record says. Raises InputFault
    when there are more rows than that: no device that tells the truth has so many.
    """
    last = max(records, key=lambda record: (record.boot, record.seq))
    if any(_whose(record) != _whose(last) for record in records):
        raise ValueError("records of different devices, bundles or models")
    total = counts.sum(axis=0)
    rows = sum(record.rows for record in records)
    if rows > COUNT_MAX:
        raise InputFault(f"{rows} rows of {last.device!r} together: no record says so many")
    # Variances of independent parts add: noise that made one of them larger makes the sum's so.
    noise = sum(record.rows * telemetry.noise_of(record) for record in records) / max(rows, 1)
    noise = max(noise, 1.0)
    return msgspec.structs.replace(
        last,
        start_ms=min(start for start, _ in times),
        end_ms=max(end for _, end in times),
        synchronised=True,
        rows=rows,
        refused=_total(record.refused for record in records),
        failed=_total(record.failed for record in records),
        coding=telemetry.CODING_RESIDUALS if noise == 1 else telemetry.CODING_NOISY,
        counts=reference.write(total, rows) if noise == 1 else telemetry.pack_noisy(total, noise),
        latency=telemetry.pack_counts(_latencies(records)),
        errors=tuple(map(_total, zip_longest(*(record.errors for record in records), fillvalue=0))),
        moments=_moments(records, counts, total, reference),
        quality=_findings(records),
        resources=last.resources,
    )


def _whose(record: Record) -> tuple[str, bytes, str]:
    return record.device, record.bundle, record.model


def _total(figures: Iterable[int]) -> int:
    return min(sum(figures), COUNT_MAX)


def _latencies(records: Sequence[Record]) -> NDArray[np.int64]:
    """Malformed ones are left out: they were never checked before they were kept."""
    total = np.zeros(telemetry.LATENCY_BUCKETS, dtype=np.int64)
    for record in records:
        try:
            total += telemetry.latency_of(record)
        except InputFault:
            continue
    return np.minimum(total, COUNT_MAX)


def _findings(records: Sequence[Record]) -> tuple[tuple[int, int], ...]:
    found = {finding for record in records for finding in record.quality}
    return tuple(sorted(found, key=lambda each: (each[1], each[0]))[: telemetry.FINDINGS_MAX])


def _moments(
    records: Sequence[Record],
    counts: NDArray[np.int64],
    total: NDArray[np.int64],
    reference: Residuals,
) -> bytes:
    """Pooled; empty when a record with values does not say them."""
    profile = reference.profile
    sizes, parts = [], []
    for record, own in zip(records, counts, strict=True):
        size = moments.finite(profile, own)
        if not any(size):
            continue
        if not record.moments:
            return b""
        try:
            parts.append(moments.read(profile, own, record.moments))
        except InputFault:
            return b""
        sizes.append(size)
    if not parts:
        return b""
    pooled = [
        _pooled([(n, one) for n, one in zip(of_number, said, strict=True) if one is not None])
        for of_number, said in zip(zip(*sizes, strict=True), zip(*parts, strict=True), strict=True)
    ]
    return moments.write(profile, total, pooled)


def _pooled(parts: Sequence[tuple[int, Moments]]) -> Moments | None:
    """Of all values together, from the number, mean, spread and longest run of each part."""
    size = sum(n for n, _ in parts)
    if not size:
        return None
    mean = math.fsum(n * one.mean for n, one in parts) / size
    square = math.fsum(n * (one.std**2 + (one.mean - mean) ** 2) for n, one in parts) / size
    return Moments(mean, math.sqrt(square), max(one.run for _, one in parts))
