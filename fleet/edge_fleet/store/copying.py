"""Many rows of PostgreSQL at once, by one statement a table.

Guards: a window is kept once, whoever else keeps the same one at this moment; rows are taken hold
of by the order of their key, so that two processes never wait for each other in a circle. Keys come
as arrays: a row a statement cost PostgreSQL and psycopg half of what a record took.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Insert,
    Row,
    String,
    bindparam,
    column,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from edge_fleet.store.base import Detector, Window
from edge_fleet.store.rollups import Key
from edge_fleet.store.tables import detectors, devices

_STAGING = text(
    "CREATE TEMPORARY TABLE IF NOT EXISTS edge_new_windows (LIKE windows) ON COMMIT DELETE ROWS"
)
"""Made once a connection; what is in it ends with the transaction."""
_TYPES = ("varchar", "int8", "int8", "bytea", "int2", "int8", "bytea")
_COPY = (
    "COPY edge_new_windows (device, boot, seq, bundle, counted, received_ms, record)"
    " FROM STDIN (FORMAT BINARY)"
)
_TAKE = text(
    "INSERT INTO windows (device, boot, seq, bundle, counted, received_ms, record)"
    " SELECT device, boot, seq, bundle, counted, received_ms, record FROM edge_new_windows"
    " ORDER BY device, boot, seq ON CONFLICT DO NOTHING RETURNING device, boot, seq"
)


def copied(connection: Connection, new: Sequence[tuple[Window, int]]) -> set[Key]:
    """Keep windows, each with what ``counted`` is to say; the keys not kept before."""
    connection.execute(_STAGING)
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(_TYPES)
        for window, counted in new:
            copy.write_row(
                (
                    window.device, window.boot, window.seq, bytes.fromhex(window.bundle), counted,
                    window.received_ms, window.record,
                )
            )  # fmt: skip
    return {(row[0], row[1], row[2]) for row in connection.execute(_TAKE)}


_DETECTOR_TYPES = (
    "varchar", "bytea", "varchar", "varchar", "bytea", "int4", "int8", "int8", "int8", "int8",
    "int8",
)  # fmt: skip
_DETECTOR = tuple(column.name for column in detectors.columns)
_STAGING_DETECTORS = text(
    "CREATE TEMPORARY TABLE IF NOT EXISTS edge_new_detectors (LIKE detectors INCLUDING STORAGE)"
    " ON COMMIT DELETE ROWS"
)
_PUT_DETECTORS = text(
    "INSERT INTO detectors SELECT * FROM edge_new_detectors ORDER BY device, bundle"
    " ON CONFLICT (device, bundle) DO UPDATE SET state = excluded.state,"
    " monitors = excluded.monitors, windows = excluded.windows, rows = excluded.rows,"
    " boot = excluded.boot, seq = excluded.seq, updated_ms = excluded.updated_ms"
)
_STORED_HOW = text(
    "SELECT attstorage FROM pg_attribute"
    " WHERE attrelid = to_regclass('detectors') AND attname = 'state'"
)
_AS_IT_IS = text("ALTER TABLE detectors ALTER COLUMN state SET STORAGE EXTERNAL")


def keep_states_plain(connection: Connection) -> None:
    """Numbers of evidence hardly shrink, and trying to took half of what a window cost."""
    stored_how = connection.execute(_STORED_HOW).scalar_one()
    if stored_how not in ("e", b"e"):
        connection.execute(_AS_IT_IS)


_FIND_DETECTORS = text(
    "SELECT detectors.* FROM"
    " unnest(CAST(:devices AS varchar[]), CAST(:bundles AS bytea[])) AS new (device, bundle)"
    " JOIN detectors ON detectors.device = new.device AND detectors.bundle = new.bundle"
)


def put_detectors(connection: Connection, changed: Sequence[Detector]) -> None:
    """Keep detectors; of two of one device and bundle, the last."""
    connection.execute(_STAGING_DETECTORS)
    connection.execute(text("DELETE FROM edge_new_detectors"))  # of this transaction
    driver: Any = connection.connection.driver_connection
    last = {(one.device, one.bundle): one for one in changed}
    with (
        driver.cursor() as cursor,
        cursor.copy("COPY edge_new_detectors FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(_DETECTOR_TYPES)
        for one in last.values():
            row = {**vars(one), "bundle": bytes.fromhex(one.bundle)}
            copy.write_row([row[name] for name in _DETECTOR])
    connection.execute(_PUT_DETECTORS)


def find_detectors(connection: Connection, keys: Sequence[tuple[str, bytes]]) -> list[Row[Any]]:
    """Rows of the detectors of these (device, bundle)."""
    names, bundles = (list(column) for column in zip(*keys, strict=True))
    values = {"devices": names, "bundles": bundles}
    return list(connection.execute(_FIND_DETECTORS, values))


_MARK = text(
    "UPDATE windows SET counted = :counted FROM"
    " unnest(CAST(:devices AS varchar[]), CAST(:boots AS bigint[]), CAST(:seqs AS bigint[]))"
    " AS new (device, boot, seq) WHERE windows.device = new.device"
    " AND windows.boot = new.boot AND windows.seq = new.seq"
)
"""A list of 400 row values instead took PostgreSQL 0.4 s to plan and run."""


def marked(connection: Connection, keys: Sequence[Key], counted: int) -> None:
    """Say what became of windows, in the order of their keys."""
    devices, boots, seqs = (list(column) for column in zip(*sorted(keys), strict=True))
    values = {"counted": counted, "devices": devices, "boots": boots, "seqs": seqs}
    connection.execute(_MARK, values)


SEEN = ("device", "seen_ms", "windows", "rows", "dropped", "lag_ms", "window_ms")
"""What a window says of its device."""


def devices_from_arrays() -> Insert:
    """An insertion of rows of ``SEEN``, of which each column comes as one array."""
    types = [String() if name == "device" else BigInteger() for name in SEEN]
    arrays = [bindparam(name, type_=ARRAY(type_)) for name, type_ in zip(SEEN, types, strict=True)]
    given = func.unnest(*arrays).table_valued(
        *(column(name, type_) for name, type_ in zip(SEEN, types, strict=True))
    )
    rows = select(*given.render_derived("given").c)
    return insert(devices).from_select([devices.c[name] for name in SEEN], rows)


_HIGHEST = text(
    "SELECT rolled.device, rolled.boot, rolled.last FROM"
    " unnest(CAST(:devices AS varchar[]), CAST(:boots AS bigint[])) AS new (device, boot)"
    " JOIN rolled ON rolled.device = new.device AND rolled.boot = new.boot"
    " WHERE rolled.first = :first"
)


def highest(
    connection: Connection, boots: Sequence[tuple[str, int]], first: int
) -> dict[tuple[str, int], int]:
    """The highest number of each boot (device, boot) that became a part of a sum."""
    names, numbers = (list(column) for column in zip(*boots, strict=True))
    values = {"devices": names, "boots": numbers, "first": first}
    return {(row.device, row.boot): row.last for row in connection.execute(_HIGHEST, values)}


_HOLD = text(
    "SELECT 1 FROM devices WHERE device = ANY(CAST(:devices AS varchar[]))"
    ' ORDER BY device COLLATE "C" FOR UPDATE'
)
"""By code point, as Python sorts."""


def held(connection: Connection, names: Sequence[str]) -> None:
    """Hold rows of devices until the transaction ends."""
    connection.execute(_HOLD, {"devices": list(names)}).all()
