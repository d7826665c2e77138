"""Devices, events, alarms, windows and the audit as tables: CSV, JSON lines or Parquet.

Guards: what is held in memory is a batch, however large the fleet; a file is there whole or not at
all; no text is a formula to a spreadsheet. Rows of a device are told in lines of at least ``k``, or
not at all (``disclosure``): where a device is a person's, fewer would say when that one was there;
what an alarm says is computed from cells of ``k`` rows.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Literal

import msgspec

from edge_contract.errors import MachineFault
from edge_contract.ports import disk
from edge_fleet import reports
from edge_fleet.alarm_disclosure import disclosed
from edge_fleet.drift.budget import Budget
from edge_fleet.library import Library
from edge_fleet.spreadsheet import plain
from edge_fleet.store.base import Transaction, Window

Kind = Literal["devices", "events", "alarms", "windows", "audit"]
Format = Literal["csv", "jsonl", "parquet"]
Value = str | int | float | bool | None
Line = tuple[Value, ...]
BATCH = 500
_LINE_ENDS = ("\u0085", "\u2028", "\u2029")
"""JSON holds them as they are, and Python's readers of lines end a line there."""

COLUMNS: Mapping[Kind, Mapping[str, type]] = {
    "devices": {
        "device": str, "state": str, "last_seen": str, "agent": str, "machine": str, "system": str,
        "python": str, "onnxruntime": str, "cpus": int, "ram_bytes": int, "labels": str,
        "channel": str, "freshness": str, "follows": str, "revision": int, "wanted_revision": int,
        "models": str, "open_alarms": int, "synchronised": bool, "clock_offset_s": float,
        "disk_free_bytes": int, "temperature_c": float, "windows": int, "dropped": int,
    },
    "events": {
        "received": str, "device": str, "boot": int, "seq": int, "kind": str, "model": str,
        "version": str, "detail": str,
    },
    "alarms": {
        "id": int, "scope": str, "device": str, "model": str, "version": str, "source": str,
        "feature": str, "what": str, "since": str, "opened": str, "resolved": str, "comment": str,
        "evidence": float, "threshold": float,
    },
    "windows": {
        "device": str, "model": str, "version": str, "bundle": str, "start_ms": int, "end_ms": int,
        "synchronised": bool, "windows": int, "rows": int, "refused": int, "failed": int,
    },
    "audit": {
        "id": int, "at": str, "actor": str, "action": str, "subject": str, "detail": str,
    },
}  # fmt: skip


def lines(tx: Transaction, kind: Kind, now_ms: int, budget: Budget, k: int) -> Iterator[Line]:
    """The table's lines: devices by name, the rest the newest first."""
    match kind:
        case "devices":
            return _devices(tx, now_ms, budget)
        case "events":
            return _events(tx)
        case "alarms":
            return _alarms(tx, k)
        case "audit":
            return _audit(tx)
        case "windows":
            return _windows(tx, k)


def _devices(tx: Transaction, now_ms: int, budget: Budget) -> Iterator[Line]:
    after = ""
    while some := tx.devices_after(after, BATCH):
        names = [one.device for one in some]
        after, states = names[-1], reports.states_of(tx, names)
        counted, alarms = tx.countings(names), tx.alarms_on(names)
        for one in some:
            own = [each for each in counted if each.device == one.device]
            open_here = [each for each in alarms if each.device == one.device]
            r = reports.device_report(one, own, open_here, now_ms, budget, states=states)
            i = r.inventory
            yield (
                r.device, r.state, r.last_seen, r.agent, r.machine, i.system, i.python,
                i.onnxruntime, i.cpus, i.ram_bytes, _json(r.labels), r.channel, r.freshness,
                r.follows, r.revision, r.wanted_revision,
                _json({each.model: each.version for each in r.models}), len(open_here),
                i.synchronised, i.clock_offset_s, i.disk_free_bytes, i.temperature_c, r.windows,
                r.dropped,
            )  # fmt: skip


def _events(tx: Transaction) -> Iterator[Line]:
    key: tuple[int | str, ...] = ()
    while some := tx.events_before(key, BATCH):
        key = (some[-1].received_ms, some[-1].device, some[-1].boot, some[-1].seq)
        for e in some:
            at = reports.instant(e.received_ms)
            yield (at, e.device, e.boot, e.seq, e.kind, e.model, e.version, e.detail)


def _alarms(tx: Transaction, k: int) -> Iterator[Line]:
    key: tuple[int | str, ...] = ()
    library = Library()
    while some := tx.alarms_after(key, BATCH):
        key = (some[-1].opened_ms, some[-1].id)
        for alarm in some:
            a = reports.alarm_report(disclosed(alarm, library.find(tx, alarm.bundle), k), {})
            yield (
                a.id, a.scope, a.device, a.model, a.version, a.source, a.feature, a.what, a.since,
                a.opened, a.resolved, a.comment, a.evidence, a.threshold,
            )  # fmt: skip


def _audit(tx: Transaction) -> Iterator[Line]:
    key: tuple[int | str, ...] = ()
    while some := tx.audits_before(key, BATCH):
        key = (some[-1].id,)
        for e in some:
            yield (e.id, reports.instant(e.at_ms), e.actor, e.action, e.subject, e.detail)


def _windows(tx: Transaction, k: int) -> Iterator[Line]:
    """Windows of a device and bundle, merged until a line has ``k`` rows; what is left joins it."""
    devices = ""
    while some := tx.devices_after(devices, BATCH):
        devices = some[-1].device
        for one in some:
            by_bundle: dict[tuple[str, str, str], list[Window]] = {}
            for window in tx.records(device=one.device):
                key = window.model, window.version, window.bundle
                by_bundle.setdefault(key, []).append(replace(window, record=b""))
            for own in by_bundle.values():
                yield from merged(own[::-1], k)


def merged(windows: Sequence[Window], k: int) -> list[Line]:
    """Lines of windows of one device and bundle, in order; none where all have fewer than ``k``."""
    groups: list[list[Window]] = [[]]
    for window in windows:
        if _rows(groups[-1]) >= max(k, 1):
            groups.append([])
        groups[-1].append(window)
    if len(groups) > 1 and _rows(groups[-1]) < k:
        last = groups.pop()
        groups[-1] += last
    if _rows(groups[-1]) < k:
        return []
    return [_summed(group, k) for group in groups if group]


def _rows(group: Sequence[Window]) -> int:
    return sum(each.rows for each in group)


def _summed(group: Sequence[Window], k: int) -> Line:
    first, last = group[0], group[-1]
    refused, failed = sum(w.refused for w in group), sum(w.failed for w in group)
    return (
        first.device, first.model, first.version, first.bundle, first.start_ms, last.end_ms,
        all(each.synchronised for each in group), len(group), _rows(group),
        None if 0 < refused < k else refused, None if 0 < failed < k else failed,
    )  # fmt: skip


def _json(value: Mapping[str, str]) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


# -- files -------------------------------------------------------------------------------------


def print_lines(kind: Kind, form: Format, found: Iterable[Line]) -> None:
    """Put the lines on standard output as they come, UTF-8 whatever the terminal's encoding."""
    (_jsonl if form == "jsonl" else _csv)(sys.stdout.buffer, kind, found)


def write(path: Path, kind: Kind, form: Format, found: Iterable[Line]) -> int:
    """Put the lines at ``path``, wholly or not at all; how many there were.

    Raises MachineFault when the disk refuses, or pyarrow is not there.
    """
    writer = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}[form]
    disk.check_place(path)
    temporary = ""
    try:
        disk.make_folder(path.parent)
        with tempfile.NamedTemporaryFile(
            "wb", dir=path.parent, prefix=f".{path.name}.", suffix=disk.TEMPORARY, delete=False
        ) as file:
            temporary = file.name
            count = writer(file, kind, found)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        disk.sync_directory(path.parent)
        temporary = ""
    except OSError as error:
        raise MachineFault(
            f"cannot write {path}: {error.strerror or error}", advice="Check free space and rights."
        ) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
    return count


def _csv(file: IO[bytes], kind: Kind, found: Iterable[Line]) -> int:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS[kind])
    count = 0
    for count, line in enumerate(found, 1):  # noqa: B007 - told at the end
        writer.writerow([plain(value) if isinstance(value, str) else value for value in line])
    text.flush()
    text.detach()
    return count


def _jsonl(file: IO[bytes], kind: Kind, found: Iterable[Line]) -> int:
    count = 0
    for count, line in enumerate(found, 1):  # noqa: B007 - told at the end
        data = msgspec.json.encode(dict(zip(COLUMNS[kind], line, strict=True)))
        for each in _LINE_ENDS:
            data = data.replace(each.encode(), b"\\u%04x" % ord(each))
        file.write(data + b"\n")
    return count


def _parquet(file: IO[bytes], kind: Kind, found: Iterable[Line]) -> int:
    try:
        import pyarrow  # noqa: PLC0415 (an extra)
        import pyarrow.parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MachineFault(
            "Parquet needs a package that is not installed here: pyarrow",
            advice="Install it: pip install 'edge-pack[parquet]'; csv and jsonl need nothing.",
        ) from error
    types = {
        str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(),
        bool: pyarrow.bool_(),
    }  # fmt: skip
    schema = pyarrow.schema([(name, types[of]) for name, of in COLUMNS[kind].items()])
    count, source = 0, iter(found)
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while some := list(itertools.islice(source, BATCH)):
            columns = [list(column) for column in zip(*some, strict=True)]
            arrays = [pyarrow.array(c, of) for c, of in zip(columns, schema.types, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            count += len(some)
    return count
