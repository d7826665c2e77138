"""A disk that is full, a real one: writes are refused as 507, reading goes on, and it recovers."""

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent))

from api_kit import fill, token
from fleet_kit import Packed

from edge_fleet.api import server
from edge_fleet.store.sql import SqlStore, open_store

DISK_BYTES = 32 * 2**20
WRITES_MAX = 2000
"""Room that a file has already is used up first: a log of SQLite is at most 4 MB."""


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of its own, which whoever may mount one gets."""
    where = Path(tempfile.mkdtemp(prefix="edge-disk-"))
    where.chmod(0o755)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(where)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        shutil.rmtree(where)
        pytest.skip("mounting a tmpfs needs root and the right to mount")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)
    where.rmdir()


@pytest.fixture(params=["sqlite", "postgresql"])
def on_disk(request: pytest.FixtureRequest, disk: Path) -> Iterator[SqlStore]:
    """A store of which every table and index is there."""
    with ExitStack() as after:
        url = f"sqlite:///{disk}/fleet.db"
        if request.param == "postgresql":
            url = after.enter_context(_tablespace(request.getfixturevalue("postgres"), disk))
        store = open_store(url, create=True)
        after.callback(store.close)
        yield store


@contextmanager
def _tablespace(socket: str, disk: Path) -> Iterator[str]:
    """A database of PostgreSQL whose files are on ``disk``: its URL."""
    folder, name = disk / "tables", f"small_{uuid.uuid4().hex}"
    folder.mkdir()
    shutil.chown(folder, "postgres")
    engine = sa.create_engine(
        f"postgresql+psycopg://edge@/postgres?host={socket}", isolation_level="AUTOCOMMIT"
    )

    def run(statement: str) -> None:
        with engine.connect() as connection:
            connection.execute(sa.text(statement))

    run(f"CREATE TABLESPACE {name} LOCATION '{folder}'")
    run(f"CREATE DATABASE {name} TABLESPACE {name}")
    try:
        yield f"postgresql://edge@/{name}?host={socket}"
    finally:
        run(f"DROP DATABASE {name} WITH (FORCE)")
        run(f"DROP TABLESPACE {name}")
        engine.dispose()


def use_up(disk: Path) -> Path:
    """A file that takes every byte which is left."""
    rest = disk / "rest"
    with rest.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == 28, "ENOSPC"
    return rest


def test_writes_are_507_while_the_disk_is_full_and_reading_goes_on(
    on_disk: SqlStore, disk: Path, packed: Packed, rng: np.random.Generator
) -> None:
    fill(on_disk, packed, rng)
    listen = server.Listen("127.0.0.1", 0, per_minute=1_000_000)
    headers = {"Authorization": f"Bearer {token(on_disk, 'admin')}"}
    with (
        server.running(on_disk, listen) as url,
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
    ):
        alarm = client.get("/api/v1/alarms").json()["items"][0]["id"]

        def comment() -> httpx.Response:
            said = {"comment": "x" * 1900}
            return client.post(f"/api/v1/alarms/{alarm}/comments", json=said)

        rest = use_up(disk)
        taken = 0
        while (answer := comment()).status_code == 200 and taken < WRITES_MAX:
            taken += 1
        assert answer.status_code == 507, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        told = answer.json()
        assert (told["title"], told["status"]) == ("Insufficient Storage", 507)
        assert "can be read" in told["detail"]
        assert "Make room" in told["advice"]
        assert str(disk) not in answer.text, "a path is not for a client"
        for path in (
            "/health", "/metrics", "/api/v1/status", "/api/v1/devices", "/api/v1/overview",
            "/api/v1/audit", "/api/v1/drift", f"/api/v1/alarms/{alarm}",
        ):  # fmt: skip
            assert client.get(path).status_code == 200, path
        notes = client.get(f"/api/v1/alarms/{alarm}").json()["notes"]
        assert len(notes) == taken, "what was refused is not there"
        rest.unlink()
        assert comment().status_code == 200, "with room again it is taken again"
