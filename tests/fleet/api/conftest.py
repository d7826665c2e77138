"""The service over a filled store, on a real socket."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `api_kit` is beside the tests

from api_kit import Client, fill, token
from fleet_kit import Packed

from edge_fleet.api import server
from edge_fleet.store.sql import SqlStore


@pytest.fixture
def filled(store: SqlStore, packed: Packed, rng: np.random.Generator) -> SqlStore:
    fill(store, packed, rng)
    return store


@pytest.fixture
def client(filled: SqlStore) -> Iterator[Client]:
    """Clients of the service, each with a token of a role; "": without."""
    with ExitStack() as stack:
        listen = server.Listen("127.0.0.1", 0, per_minute=100_000)
        url = stack.enter_context(server.running(filled, listen))

        def made(role: str) -> httpx.Client:
            headers = {"Authorization": f"Bearer {token(filled, role)}"} if role else {}
            return stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=60))

        yield made
