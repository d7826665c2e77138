"""Looks at the store, at this machine and at the HTTP service.

Guards: it only reads, but for one small file beside SQLite's, which measures the disk and is gone.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import ssl
import statistics
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from edge_contract.errors import EdgeError
from edge_fleet.doctor.asking_broker import certificate_ms
from edge_fleet.doctor.facts import FleetFacts, HttpFacts, MachineFacts, StoreFacts
from edge_fleet.liveness import liveness
from edge_fleet.reports import budget_of
from edge_fleet.store import migrations, tables
from edge_fleet.store.base import Store
from edge_fleet.store.sql import SqlStore

FSYNCS = 5
RECENT_MS = 7 * 86_400_000
_POSTGRES = ("fsync", "full_page_writes", "synchronous_commit", "max_connections")
_TIMESYNCD = Path("/run/systemd/timesync/synchronized")
_TIMEX_BYTES = 512
"""More than struct timex has anywhere (208 bytes, adjtimex(2))."""
_UNSYNCHRONISED = 5  # TIME_ERROR


def ask(store: SqlStore, clock_ms: Callable[[], int], *, deep: bool) -> StoreFacts:
    """The store; never raises for what is wrong with it. ``deep``: also read all of SQLite's."""
    try:
        with store.connection(reading=True) as connection:
            version = migrations.stored_version(connection)
            missing = () if version is None else _missing_indexes(connection)
            if connection.dialect.name == "sqlite":
                return _sqlite(store, connection, version, missing, deep=deep)
            return _postgres(store, connection, version, missing, clock_ms)
    except EdgeError as error:
        return StoreFacts(str(store), error=error.what, advice=error.advice)


def _sqlite(
    store: SqlStore,
    connection: Connection,
    version: int | None,
    missing: tuple[str, ...],
    *,
    deep: bool,
) -> StoreFacts:
    check = "integrity_check" if deep else "quick_check"
    said = [str(row[0]) for row in connection.execute(text(f"PRAGMA {check}(3)"))]
    file = Path(connection.engine.url.database or "").absolute()
    return StoreFacts(
        str(store),
        "sqlite",
        version=version,
        damage="" if said == ["ok"] else "; ".join(said)[:300],
        size_bytes=file.stat().st_size,
        free_bytes=shutil.disk_usage(file.parent).free,
        fsync_ms=_fsync_ms(file.parent),
        journal=str(connection.execute(text("PRAGMA journal_mode")).scalar_one()),
        missing_indexes=missing,
    )


def _postgres(
    store: SqlStore,
    connection: Connection,
    version: int | None,
    missing: tuple[str, ...],
    clock_ms: Callable[[], int],
) -> StoreFacts:
    before = clock_ms()
    server = connection.execute(text("SELECT extract(epoch FROM clock_timestamp()) * 1000"))
    theirs = float(server.scalar_one())
    ours = (before + clock_ms()) / 2
    number = connection.execute(text("SELECT current_setting('server_version_num')")).scalar_one()
    size = text("SELECT pg_database_size(current_database())")
    settings = {
        name: str(connection.execute(text("SELECT current_setting(:n)"), {"n": name}).scalar_one())
        for name in _POSTGRES
    }
    return StoreFacts(
        str(store),
        "postgresql",
        version=version,
        size_bytes=int(connection.execute(size).scalar_one()),
        missing_indexes=missing,
        server=int(number),
        settings=settings,
        ahead_ms=theirs - ours,
    )


def _missing_indexes(connection: Connection) -> tuple[str, ...]:
    there = inspect(connection)
    names = set(there.get_table_names())
    return tuple(
        str(index.name)
        for table in tables.metadata.sorted_tables
        if table.name in names
        for index in sorted(table.indexes, key=lambda each: str(each.name))
        if index.name not in {found["name"] for found in there.get_indexes(table.name)}
    )


def _fsync_ms(folder: Path) -> float:
    """The median time of a small write that reaches the disk; 0 where none may be written."""
    took = []
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            for _ in range(FSYNCS):
                began = time.perf_counter()
                file.write(bytes(4096))
                os.fsync(file.fileno())
                took.append((time.perf_counter() - began) * 1000)
    except OSError:
        return 0.0
    return statistics.median(took)


def fleet(store: Store, now_ms: int) -> FleetFacts:
    """What the store knows of the fleet."""
    settings = store.settings()
    window_s = budget_of(settings).window_s
    with store.reading() as tx:
        devices, totals, faults, held = tx.devices(), tx.totals(), tx.faults(), tx.api_tokens()
    online = [each for each in devices if liveness(each, now_ms, window_s) == "online"]
    recent = [each for each in faults if now_ms - each.last_ms <= RECENT_MS]
    return FleetFacts(
        fleet=settings.get("fleet", ""),
        devices=len(devices),
        statuses=sum(1 for each in devices if each.status_ms),
        beats={
            name: int(value)
            for name, value in settings.items()
            if name.startswith("collector-") and value.isdigit()
        },
        lag_s=max((each.lag_ms / 1000 for each in online if each.windows), default=None),
        dropped=sum(each.dropped for each in devices),
        pending=totals.pending,
        refused=totals.refused,
        clocks=tuple(sorted(each.device for each in recent if each.kind == "clock-ahead")),
        twins=tuple(sorted(each.device for each in recent if each.kind == "duplicate-identity")),
        tokens={
            f"{each.name} ({each.id})": each.expires_ms
            for each in held
            if each.expires_ms is not None and each.revoked_ms is None and each.expires_ms > now_ms
        },
    )


def wanted(store: Store) -> list[str]:
    """Devices that a rollout told what to run."""
    with store.reading() as tx:
        return sorted(tx.wishes())


def http(url: str, clock_ms: Callable[[], int], wait_s: float) -> HttpFacts:
    """The HTTP service at ``url``; its certificate is not checked here, only its date is read."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return HttpFacts(url, f"{url} is no http:// or https:// address")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(  # noqa: S310 (its scheme was looked at)
            f"{url.rstrip('/')}/health", timeout=wait_s, context=context
        ) as answer:
            date = answer.headers.get("Date", "")
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        return HttpFacts(url, f"{url} does not answer: {why}")
    ahead = parsedate_to_datetime(date).timestamp() * 1000 - clock_ms() if date else None
    port = parts.port or 443
    ends = certificate_ms(parts.hostname, port, wait_s) if parts.scheme == "https" else 0
    return HttpFacts(url, ahead_ms=ahead, certificate_ms=ends)


def machine(files: Sequence[str]) -> MachineFacts:
    """This machine's clock, and when the certificates in ``files`` (PEM) end."""
    return MachineFacts(_synchronised(), _certificates(files))


def _certificates(files: Sequence[str]) -> Mapping[str, int]:
    from cryptography import x509  # noqa: PLC0415 (an extra)

    found = {}
    for file in filter(None, files):
        try:
            shown = x509.load_pem_x509_certificates(Path(file).read_bytes())
        except (OSError, ValueError):
            found[f"{file} (cannot be read)"] = 1
        else:
            ends = min(each.not_valid_after_utc for each in shown)
            found[file] = int(ends.timestamp() * 1000)
    return found


def _synchronised() -> bool | None:
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(
            ctypes.create_string_buffer(_TIMEX_BYTES)
        )
    except (OSError, AttributeError):
        return None
    if state < 0:
        return True if _TIMESYNCD.exists() else None
    return bool(state != _UNSYNCHRONISED)
