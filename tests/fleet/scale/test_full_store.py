"""A store that takes nothing: nothing is acknowledged, the log says so, it goes on by itself."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fleet_kit import (
    BUDGET,
    FLEET,
    Packed,
    Publisher,
    collecting,
    draw,
    fault_kinds,
    record,
    settled,
    totals,
    until,
)  # fmt: skip

from edge_contract import broker_url, messages
from edge_contract.errors import MachineFault
from edge_fleet.collector import Collector, CollectorConfig
from edge_fleet.leader import Leader
from edge_fleet.sharing import SHARED
from edge_fleet.store import sql
from edge_fleet.store.sql import SqlStore, open_store


def fill(store: SqlStore, db: str) -> None:
    """No more room: SQLite may take no further page, PostgreSQL writes nothing."""
    if db.startswith("sqlite"):

        @sa.event.listens_for(store._engine, "checkout")
        def _limit(connection: Any, _record: Any, _proxy: Any) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")

        store._engine.dispose()
        return
    _database(db, "default_transaction_read_only = on")


def make_room(store: SqlStore, db: str) -> None:
    """The disk has room again."""
    if db.startswith("sqlite"):

        @sa.event.listens_for(store._engine, "checkout")
        def _unlimited(connection: Any, _record: Any, _proxy: Any) -> None:
            connection.execute("PRAGMA max_page_count = 1000000")

        return
    _database(db, "default_transaction_read_only = off")


def answers(condition: Callable[[], object]) -> Callable[[], bool]:
    """Whether it holds; a connection that was ended under it says nothing."""

    def ask() -> bool:
        try:
            return bool(condition())
        except MachineFault:
            return False

    return ask


def _database(db: str, setting: str) -> None:
    """Set it, and end every other connection: a new one has it."""
    engine = sa.create_engine(sql._parse(db), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("SET default_transaction_read_only = off"))
        name = connection.execute(sa.text("SELECT current_database()")).scalar_one()
        connection.execute(sa.text(f"ALTER DATABASE {name} SET {setting}"))
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND query NOT LIKE '%advisory%'"
            )
        )
    engine.dispose()


@pytest.mark.parametrize("broker_kind", ["embedded"], indirect=True)
def test_a_full_store_loses_nothing_and_recovers_by_itself(
    *, any_broker: Any, publisher: Publisher, any_store: SqlStore, any_db: str, packed: Packed,
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    publisher.bundle(packed)
    many = [
        record(packed, packed.counts(draw(rng, 40)), device=f"pi-{at % 5}", seq=at // 5)
        for at in range(400)
    ]
    with caplog.at_level(logging.INFO), collecting(any_broker.url, any_store):
        publisher.records(many[:100])
        until(settled(any_store, 100), "those before")
        fill(any_store, any_db)
        publisher.records(many[100:])
        until(lambda: "nothing is acknowledged" in caplog.text, "it says so")
        until(answers(lambda: totals(any_store).windows < 400), "not all of them are kept")
        make_room(any_store, any_db)
        until(answers(settled(any_store, 400)), "all of them")
        until(lambda: "takes records again" in caplog.text, "it says that, too")
    with any_store.reading() as tx:
        assert sum(one.windows for one in tx.all_detectors()) == 400
    assert fault_kinds(any_store) == {}


@pytest.mark.parametrize("broker_kind", ["embedded"], indirect=True)
def test_a_leader_outlives_a_full_store(
    any_broker: Any, publisher: Publisher, any_db: str, packed: Packed, rng: np.random.Generator
) -> None:
    publisher.bundle(packed)
    config = CollectorConfig(
        broker_url.parse(any_broker.url), FLEET, part=SHARED, budget=BUDGET, retry_s=0.05
    )
    kept, counts = open_store(any_db, create=True), open_store(any_db, create=False)
    stop, started = threading.Event(), threading.Event()
    threads = [
        threading.Thread(target=Collector(config, kept).run, args=(stop, started.set)),
        threading.Thread(target=Leader(config, counts).run, args=(stop,)),
    ]
    for thread in threads:
        thread.start()
    try:
        assert started.wait(60)
        until(lambda: "leader" in kept.settings(), "it leads")
        fill(counts, any_db)
        born = messages.Status(online=True, boot=1, agent="x" * 900)
        for at in range(20):
            publisher.message(publisher.topics.status(f"pi-{at}"), born, retain=True)
        publisher.records(
            [record(packed, packed.counts(draw(rng, 40)), device=f"pi-{at}") for at in range(20)]
        )
        make_room(counts, any_db)
        until(answers(settled(kept, 20)), "kept and counted")
        until(answers(lambda: totals(kept).devices == 20), "heard")
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
        kept.close()
        counts.close()
