"""A store of each kind, a bundle with a real profile, and seeds that are printed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `fleet_kit` is beside the tests

from fleet_kit import Packed, Publisher, pack, until

from edge_fleet.store.sql import SqlStore, open_store


@pytest.fixture
def seed() -> int:
    """Printed when a test fails."""
    value = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {value}")
    return value


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def packed() -> Packed:
    """One bundle for all tests; its reference is the same in every run."""
    return pack(np.random.default_rng(20))


@pytest.fixture
def db(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/fleet.db"


@pytest.fixture
def store(db: str) -> Iterator[SqlStore]:
    opened = open_store(db, create=True)
    yield opened
    opened.close()


def _postgres_binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A real PostgreSQL on a socket of its own: the folder of the socket."""
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="no psycopg installed (pip install 'psycopg[binary]')")
    folder = Path(tempfile.mkdtemp(prefix="edge-pg-"))
    account: dict[str, str] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        try:
            shutil.chown(folder, "postgres")
        except LookupError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        account = {"user": "postgres"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    cluster = folder / "data"
    initdb = [binaries / "initdb", "-D", cluster, "-U", "edge", "-A", "trust", "--no-sync"]
    subprocess.run(initdb, check=True, **quiet, **account)
    command = [binaries / "postgres", "-D", cluster, "-k", folder, "-h", "", "-c", "fsync=off"]
    server = subprocess.Popen(command, **quiet, **account)
    ready = [binaries / "pg_isready", "-h", folder, "-q"]
    until(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL is up", 60)
    yield str(folder)
    server.send_signal(signal.SIGQUIT)  # at once: nothing in it is needed again
    server.wait(120)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_db(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/fleet.db"
    import sqlalchemy

    socket = request.getfixturevalue("postgres")
    name = f"fleet_{uuid.uuid4().hex}"
    admin = sqlalchemy.create_engine(
        f"postgresql+psycopg://edge@/postgres?host={socket}", isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return f"postgresql://edge@/{name}?host={socket}"


@pytest.fixture
def any_store(any_db: str) -> Iterator[SqlStore]:
    opened = open_store(any_db, create=True)
    yield opened
    opened.close()


@pytest.fixture
def publisher(any_broker: Any) -> Iterator[Publisher]:
    made = Publisher(any_broker.url)
    yield made
    made.close()
