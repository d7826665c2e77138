"""The tables, for SQLite and PostgreSQL alike.

One blob a window: 20 rows a window cost 13 times the time and twice the bytes, and merging blobs
costs 2 us a window (docs/decisions). Times are milliseconds since 1970 UTC in 64-bit integers.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    literal_column,
)

metadata = MetaData()

Serial = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up by itself only an INTEGER primary key."""

schema_version = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True),
)

settings = Table(
    "settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("online", Boolean, nullable=False, default=False),
    Column("boot", BigInteger, nullable=False, default=0),
    Column("agent", Text, nullable=False, default=""),
    Column("status_ms", BigInteger, nullable=False, default=0),
    Column("reported", LargeBinary, nullable=False, default=b""),
    Column("reported_ms", BigInteger, nullable=False, default=0),
    Column("seen_ms", BigInteger, nullable=False, default=0),
    Column("windows", BigInteger, nullable=False, default=0),
    Column("rows", BigInteger, nullable=False, default=0),
    Column("dropped", BigInteger, nullable=False, default=0),
    Column("lag_ms", BigInteger, nullable=False, default=0),
    Column("window_ms", BigInteger, nullable=False, default=0),
)

windows = Table(
    "windows",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("boot", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("bundle", LargeBinary(32), nullable=False),
    Column("counted", SmallInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
not_counted = windows.c.counted != literal_column("1")
"""Stands, word for word, in every query that looks for windows not counted: only then may a
database use the small index below and not read every window."""
Index(
    "windows_not_counted",
    windows.c.counted,
    windows.c.bundle,
    sqlite_where=not_counted,
    postgresql_where=not_counted,
)

of_a_period = Index("windows_bundle", windows.c.bundle, windows.c.received_ms)

sums = Table(
    "sums",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("bundle", LargeBinary(32), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("span", SmallInteger, primary_key=True, autoincrement=False),
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("boot", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("windows", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index("sums_bundle", "bundle", "received_ms"),
    Index("sums_span", "span", "start_ms"),
    sqlite_with_rowid=False,
)
"""Windows merged into an hour or a day by the time at which they came; see ``rollup``."""

rolled = Table(
    "rolled",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("boot", BigInteger, primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Sequence numbers, from first to last, whose windows are no longer kept by themselves; where
``first`` is -1, ``last`` is the highest of them."""

blobs = Table(
    "blobs",
    metadata,
    Column("sha256", LargeBinary(32), primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("stored_ms", BigInteger, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("boot", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False, index=True),
    Column("kind", String(64), nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

asides = Table(
    "asides",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("boot", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", SmallInteger, nullable=False),
    Column("bundle", LargeBinary(32), nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index("asides_kind", "kind", "received_ms"),
    sqlite_with_rowid=False,
)

faults = Table(
    "faults",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("kind", String(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
)

detectors = Table(
    "detectors",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("bundle", LargeBinary(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("monitors", Integer, nullable=False),
    Column("windows", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("boot", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)

alarms = Table(
    "alarms",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("device", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("bundle", LargeBinary(32), nullable=False),
    Column("monitor", Integer, nullable=False),
    Column("source", String(16), nullable=False),
    Column("feature", Text, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("log_evidence", Float, nullable=False),
    Column("log_threshold", Float, nullable=False),
    Column("explanation", LargeBinary, nullable=False),
    Column("resolved_ms", BigInteger, nullable=True),
    Column("comment", Text, nullable=False, default=""),
    Column("scope", String(16), nullable=False, server_default="device"),
    Column("parent", BigInteger, nullable=True),
    Index("alarms_open", "resolved_ms", "opened_ms"),
)
