"""Many windows of PostgreSQL at once: in by COPY and one INSERT, marked by one UPDATE.

Guards: a window is kept once, whoever else keeps the same one at this moment; rows go in by the
order of their key, so that two processes never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from edge_fleet.store.base import Window
from edge_fleet.store.rollups import Key

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
