"""Stores full of rows of every table, and what is in them."""

import random
from typing import Any

import sqlalchemy as sa

from edge_fleet.store import tables
from edge_fleet.store.sql import SqlStore

TEXT = "abcdefghijklmnopqrstuvwxyzäöü漢字 _-/'\"\\;%<>&🐢"
Dump = dict[str, list[tuple[Any, ...]]]


def value(column: sa.Column[Any], rng: random.Random) -> Any:
    """Anything that the column may hold, its extremes among them."""
    if column.nullable and rng.random() < 0.2:
        return None
    match column.type:
        case sa.Boolean():
            return rng.random() < 0.5
        case sa.SmallInteger():
            return rng.choice([0, 1, 2, -1, rng.randrange(-(2**15), 2**15)])
        case sa.BigInteger():
            return rng.choice([0, -1, 2**62, rng.randrange(2**40)])
        case sa.Integer():
            return rng.randrange(2**31)
        case sa.Float():
            return rng.choice([0.0, -1.5e-300, 1e300, float("inf"), rng.random()])
        case sa.LargeBinary():
            return rng.randbytes(column.type.length or rng.choice([0, 32, 3000]))
    length = min(column.type.length or 200, 200)  # type: ignore[attr-defined]
    return "".join(rng.choice(TEXT) for _ in range(rng.randrange(length + 1)))


def fill(store: SqlStore, rng: random.Random, rows: int = 40) -> None:
    """``rows`` rows of anything in each table, within what its keys allow."""
    with store.connection(reading=False) as connection:
        for table in tables.metadata.sorted_tables:
            if table is tables.schema_version:
                continue
            distinct = {next(iter(table.primary_key.columns))}
            distinct |= {list(each.columns)[-1] for each in table.indexes if each.unique}
            for number in range(rows):
                values = {column.name: value(column, rng) for column in table.columns}
                values |= {each.name: _distinct(each, number) for each in distinct}
                connection.execute(sa.insert(table).values(values))


def _distinct(column: sa.Column[Any], number: int) -> Any:
    if isinstance(column.type, sa.LargeBinary):
        return number.to_bytes(32, "big")
    return number + 1 if isinstance(column.type, (sa.Integer, sa.BigInteger)) else f"name-{number}"


def dump(store: SqlStore) -> Dump:
    """Every row of every table, in order of key."""
    with store.connection(reading=True) as connection:
        return {
            table.name: [
                tuple(row)
                for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))
            ]
            for table in tables.metadata.sorted_tables
        }
