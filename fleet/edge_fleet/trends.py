"""What all devices of a bundle counted together, hour by hour: what drift and quality views show.

Guards: counts are added, of windows that were just counted and in their transaction, so an hour
holds each window once and costs a view the same however many devices there are. An hour is the one
in which windows came, by the server's clock, as of sums (``store.rollups``). Sums only: nothing
here knows a device.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from edge_contract import telemetry
from edge_contract.errors import InputFault, MachineFault
from edge_contract.messages import Count
from edge_contract.telemetry import COUNT_MAX, LATENCY_BUCKETS, Record
from edge_contract.typed import msgpack_decoder
from edge_fleet.library import Known
from edge_fleet.store.base import Transaction, Window
from edge_fleet.store.trends import Trend

HOUR_MS = 3_600_000
KEEP_HOURS = 90 * 24
"""About 3 KB an hour for 20 features: 6 MB a version."""


class _Hour(Struct, frozen=True, array_like=True):
    """An hour at rest. ``counts``, ``latency``: LEB128; ``findings``: (code, monitor, windows)."""

    schema: int
    windows: Count
    rows: Count
    refused: Count
    failed: Count
    counts: bytes
    latency: bytes
    errors: Annotated[tuple[Count, ...], Meta(max_length=telemetry.CODES_MAX)]
    findings: tuple[tuple[Count, Count, Count], ...]


_SCHEMA = 1
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgpack_decoder(_Hour)


@dataclass(frozen=True)
class Hour:
    """What came in an hour (or any time), added up.

    Attributes:
        counts: in the cells of the bundle's profile, those with noise as the fewer rows that they
            are worth. latency: rows by bucket.
        errors: rows by ``telemetry.ERROR_CODES``. findings: windows by (``QUALITY_CODES``,
            monitor from 1; 0: the device).
    """

    counts: NDArray[np.int64]
    latency: NDArray[np.int64]
    windows: int = 0
    rows: int = 0
    refused: int = 0
    failed: int = 0
    errors: tuple[int, ...] = ()
    findings: tuple[tuple[int, int, int], ...] = ()


def empty(known: Known) -> Hour:
    """Nothing came."""
    cells = np.zeros(known.profile.cells, dtype=np.int64)
    return Hour(cells, np.zeros(LATENCY_BUCKETS, dtype=np.int64))


def added(hours: Sequence[Hour]) -> Hour:
    """Several together; at least one."""
    findings: Counter[tuple[int, int]] = Counter()
    for hour in hours:
        for code, monitor, windows in hour.findings:
            findings[code, monitor] += windows
    errors = np.zeros(max(len(hour.errors) for hour in hours), dtype=np.int64)
    for hour in hours:
        errors[: len(hour.errors)] += np.array(hour.errors, dtype=np.int64)
    return Hour(
        counts=np.sum([hour.counts for hour in hours], axis=0),
        latency=np.sum([hour.latency for hour in hours], axis=0),
        windows=sum(hour.windows for hour in hours),
        rows=sum(hour.rows for hour in hours),
        refused=sum(hour.refused for hour in hours),
        failed=sum(hour.failed for hour in hours),
        errors=tuple(errors.tolist()),
        findings=tuple((*key, windows) for key, windows in sorted(findings.items())),
    )


def of_records(records: Sequence[Record], counts: NDArray[np.int64]) -> Hour:
    """What windows say together; ``counts [records, cells]``; at least one."""
    noise = np.array([telemetry.noise_of(record) for record in records])
    total = counts.sum(axis=0) if (noise == 1).all() else np.rint((counts.T / noise).sum(axis=1))
    errors = np.zeros(max(len(record.errors) for record in records), dtype=np.int64)
    for record in records:
        errors[: len(record.errors)] += np.array(record.errors, dtype=np.int64)
    findings = Counter(pair for record in records for pair in set(record.quality))
    return Hour(
        counts=total.astype(np.int64),
        latency=_latencies(records),
        windows=len(records),
        rows=sum(record.rows for record in records),
        refused=sum(record.refused for record in records),
        failed=sum(record.failed for record in records),
        errors=tuple(errors.tolist()),
        findings=tuple((*key, windows) for key, windows in sorted(findings.items())),
    )


def _latencies(records: Sequence[Record]) -> NDArray[np.int64]:
    """Together; read at once, and one by one where a malformed one was kept by an older program."""
    size = LATENCY_BUCKETS
    try:
        joined = telemetry.unpack_counts(b"".join(r.latency for r in records), size * len(records))
        return np.asarray(joined.reshape(-1, size).sum(axis=0))
    except InputFault:
        total = np.zeros(size, dtype=np.int64)
    for record in records:
        with contextlib.suppress(InputFault):
            total += telemetry.latency_of(record)
    return total


def count(
    tx: Transaction, known: Known, windows: Sequence[Window], records: Sequence[Record],
    counts: NDArray[np.int64], *, ordinal: int,
) -> None:  # fmt: skip
    """Add windows that ``tx`` counts to their hours.

    Args:
        records: the windows, decoded. counts: of each, ``[windows, cells]``. ordinal: whose hours.
    """
    by_hour: dict[int, list[int]] = {}
    for at, window in enumerate(windows):
        by_hour.setdefault(window.received_ms // HOUR_MS * HOUR_MS, []).append(at)
    for hour_ms, some in sorted(by_hour.items()):
        hour = of_records([records[at] for at in some], counts[some])
        kept = tx.trend(known.bundle, hour_ms, ordinal)
        if kept is None:
            tx.forget_trends(known.bundle, ordinal, hour_ms - KEEP_HOURS * HOUR_MS)
        else:
            hour = added([_decode(known, kept.hour), hour])
        tx.put_trend(Trend(known.bundle, hour_ms, ordinal, _encode(hour)))


def between(tx: Transaction, known: Known, since_ms: int, until_ms: int) -> dict[int, Hour]:
    """Hours that began in [since, until) and in which anything came, by their beginning."""
    found: dict[int, list[Hour]] = {}
    for kept in tx.trends(known.bundle, since_ms, until_ms):
        found.setdefault(kept.hour_ms, []).append(_decode(known, kept.hour))
    return {hour_ms: added(parts) for hour_ms, parts in found.items()}


def steps(
    hours: dict[int, Hour], starts_ms: Iterable[int], step_ms: int, known: Known
) -> list[Hour]:
    """The hours added up to steps that begin at ``starts_ms``; an empty one where nothing came."""
    found = []
    for start in starts_ms:
        inside = [hour for at, hour in hours.items() if start <= at < start + step_ms]
        found.append(added(inside) if inside else empty(known))
    return found


def _encode(hour: Hour) -> bytes:
    """A figure ends at ``COUNT_MAX``: more is a lie, and no lie makes an hour unreadable."""

    def packed(counts: NDArray[np.int64]) -> bytes:
        return telemetry.pack_counts(np.minimum(counts, COUNT_MAX))

    return _ENCODER.encode(
        _Hour(
            _SCHEMA, min(hour.windows, COUNT_MAX), min(hour.rows, COUNT_MAX),
            min(hour.refused, COUNT_MAX), min(hour.failed, COUNT_MAX),
            packed(hour.counts), packed(hour.latency),
            tuple(min(one, COUNT_MAX) for one in hour.errors), hour.findings,
        )
    )  # fmt: skip


def _decode(known: Known, data: bytes) -> Hour:
    try:
        kept = _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise MachineFault(
            f"an hour in the store is damaged: {error}",
            advice="Restore the database from a copy; its disk may be failing.",
        ) from error
    return Hour(
        counts=telemetry.unpack_counts(kept.counts, known.profile.cells),
        latency=telemetry.unpack_counts(kept.latency, LATENCY_BUCKETS),
        windows=kept.windows,
        rows=kept.rows,
        refused=kept.refused,
        failed=kept.failed,
        errors=kept.errors,
        findings=kept.findings,
    )
