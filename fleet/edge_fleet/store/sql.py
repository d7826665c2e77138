"""The store in SQLite or PostgreSQL, by SQLAlchemy Core.

Guards: what a transaction kept is on disk when it returns (SQLite: WAL with synchronous=FULL), and
every error of the library leaves here as one of ours. Passwords never stand in a message.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DataError, NoSuchModuleError, SQLAlchemyError

from edge_contract.errors import InputFault, MachineFault
from edge_fleet.store import faults, migrations
from edge_fleet.store.base import AlreadyCompacting
from edge_fleet.store.copying import keep_states_plain
from edge_fleet.store.tables import settings
from edge_fleet.store.transaction import SqlTransaction

BUSY_TIMEOUT_MS = 10_000
_LOCK_SPACE = 0x65646765
"""First key of PostgreSQL's advisory locks of ours: "edge"."""
_COMPACTION, _SET_UP = -1, -2
"""Second key, where that of a collector is its ordinal."""
_KEEPALIVES = {
    "tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3,
}  # fmt: skip
"""Seconds, seconds, times (PostgreSQL, 20.3.2): a holder whose machine vanished is noticed after 25
seconds, where the system's default is two hours. Of no effect on a socket file."""
_URL_ADVICE = "Write sqlite:///FILE or postgresql://user:password@host/database."
_CLAIMED = "fleet"


def open_store(url: str, *, create: bool) -> SqlStore:
    """The store at ``url``.

    Args:
        create: make or upgrade its tables (the collector); without it (a report) a store that
            is not there, or of another schema version, is refused.

    Raises:
        InputFault: the URL is wrong, or there is no store of ours.
        MachineFault: it cannot be reached, or its driver is not installed.
    """
    store = reach(url, create=create)
    store.set_up(create=create)
    return store


def reach(url: str, *, create: bool) -> SqlStore:
    """The store at ``url``, of whatever version: its tables are not looked at. As ``open_store``.

    With ``create`` an SQLite file that is not there is made at the first use.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite" and not create:
        _check_file(parsed)
    try:
        engine = create_engine(parsed)
    except ModuleNotFoundError as error:
        raise MachineFault(
            f"no driver for {parsed.get_backend_name()}: {error}",
            advice="Install it: pip install 'edge-pack[postgres]'",
        ) from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    return SqlStore(engine)


class SqlStore:
    """See ``base.Store``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __str__(self) -> str:
        return self._engine.url.render_as_string(hide_password=True)

    def set_up(self, *, create: bool) -> None:
        """Create or check the tables."""
        with self._connect(reading=not create) as connection:
            if create:
                if self._engine.dialect.name == "postgresql":  # others may be at it as well
                    keys = {"space": _LOCK_SPACE, "number": _SET_UP}
                    connection.execute(text("SELECT pg_advisory_xact_lock(:space, :number)"), keys)
                migrations.migrate(connection)
                if connection.dialect.name == "postgresql":
                    keep_states_plain(connection)
                return
            version = migrations.stored_version(connection)
            if version is None:
                raise InputFault(
                    f"{self} holds no fleet yet", advice="Start `edge-fleet serve` with this --db."
                )
            migrations.check_version(version)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[SqlTransaction]:
        with self._connect(reading=False) as connection:
            yield SqlTransaction(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[SqlTransaction]:
        with self._connect(reading=True) as connection:
            yield SqlTransaction(connection)

    def connection(self, *, reading: bool) -> contextlib.AbstractContextManager[Connection]:
        """A transaction for who looks at tables as such: backups, restoring, the doctor."""
        return self._connect(reading=reading)

    @contextlib.contextmanager
    def lock(self, ordinal: int) -> Iterator[Callable[[], None]]:
        taken = _already_running(str(self), ordinal)
        with self._lock(f"collector-{ordinal}", ordinal, taken) as held:
            yield held

    @contextlib.contextmanager
    def compacting(self) -> Iterator[None]:
        busy = AlreadyCompacting(
            f"{self} is being compacted already",
            advice="`edge-fleet serve` does it by itself; wait until that is through.",
        )
        with self._lock("compaction", _COMPACTION, busy):
            yield

    def _lock(
        self, name: str, number: int, taken: InputFault
    ) -> contextlib.AbstractContextManager[Callable[[], None]]:
        if self._engine.dialect.name == "sqlite":
            return self._lock_file(name, taken)
        return self._lock_advisory(number, taken)

    def claim(self, fleet: str) -> None:
        with self._connect(reading=False) as connection:
            owner = _settings_of(connection).get(_CLAIMED)
            if owner is None:  # or another one claims it at this moment
                mine = _insert(connection)(settings).values(name=_CLAIMED, value=fleet)
                connection.execute(mine.on_conflict_do_nothing())
                owner = _settings_of(connection)[_CLAIMED]
            if owner != fleet:
                raise InputFault(
                    f"{self} belongs to fleet {owner!r}, not {fleet!r}",
                    advice="Give each fleet a database of its own with --db.",
                )

    def settings(self) -> dict[str, str]:
        with self._connect(reading=True) as connection:
            return _settings_of(connection)

    def put_settings(self, values: dict[str, str]) -> None:
        with self._connect(reading=False) as connection:
            names = sorted(name for name in values if name != _CLAIMED)
            rows = [{"name": name, "value": values[name]} for name in names]
            upsert = _insert(connection)(settings)
            connection.execute(
                upsert.on_conflict_do_update(
                    index_elements=[settings.c.name], set_={"value": upsert.excluded.value}
                ),
                rows,
            )

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def _connect(self, *, reading: bool) -> Iterator[Connection]:
        with self._reaching(), self._engine.connect() as connection:
            options: dict[str, Any] = {"edge_reading": reading}
            if reading and self._engine.dialect.name == "postgresql":
                options["isolation_level"] = "REPEATABLE READ"
            connection.execution_options(**options)
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def _lock_file(self, name: str, taken: InputFault) -> Iterator[Callable[[], None]]:
        """Held by this process until it ends, however it ends."""
        path = Path(f"{self._engine.url.database}.{name}.lock")
        try:
            file = path.open("a")
        except OSError as error:
            raise MachineFault(f"cannot open {path}: {error.strerror or error}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise taken from None
            yield lambda: None

    @contextlib.contextmanager
    def _lock_advisory(self, number: int, taken: InputFault) -> Iterator[Callable[[], None]]:
        """Held as long as its connection, which tells the server of a machine that vanished."""
        keys = {"space": _LOCK_SPACE, "number": number}
        with contextlib.ExitStack() as stack:
            with self._reaching():
                connection = stack.enter_context(
                    self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                )
                statement = text("SELECT pg_try_advisory_lock(:space, :number)")
                if not connection.execute(statement, keys).scalar_one():
                    raise taken
                connection.detach()  # not back into the pool: the lock is held until it is closed
                for name, value in _KEEPALIVES.items():
                    connection.execute(text(f"SET {name} = {value}"))

            def held() -> None:
                with self._reaching():
                    connection.execute(text("SELECT 1"))

            try:
                yield held
            finally:
                # A closed connection lets go only once the server has noticed.
                with contextlib.suppress(SQLAlchemyError):
                    connection.execute(text("SELECT pg_advisory_unlock(:space, :number)"), keys)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise faults.refused(str(self), error.orig or error) from error
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise faults.fault_of(str(self), cause) from error


def _insert(connection: Connection) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert


def _already_running(store: str, ordinal: int) -> InputFault:
    return InputFault(
        f"a collector with ordinal {ordinal} already works on {store}",
        advice="Stop it first, or start this one with another --ordinal.",
    )


def _settings_of(connection: Connection) -> dict[str, str]:
    rows = connection.execute(select(settings.c.name, settings.c.value))
    return {row.name: row.value for row in rows}


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise InputFault("the database URL is not valid", advice=_URL_ADVICE) from error
    if backend not in ("sqlite", "postgresql"):
        raise InputFault(f"no store for a database of kind {backend!r}", advice=_URL_ADVICE)
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise InputFault("the SQLite URL names no file", advice=_URL_ADVICE)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


def _check_file(url: URL) -> None:
    if not Path(str(url.database)).is_file():
        raise InputFault(
            f"there is no database {url.database}",
            advice="Name it with --db or EDGE_FLEET_DB; `edge-fleet serve` creates it.",
        )


def _prepare_sqlite(engine: Engine) -> None:
    """Durable commits, and transactions that begin where we say (SQLAlchemy, "pysqlite")."""

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL",
        ):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        reading = connection.get_execution_options().get("edge_reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
