"""A headless Chromium, and the service over stores of several kinds."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `dashboard_kit` is beside the tests
sys.path.insert(0, str(Path(__file__).parents[1] / "api"))  # so is `api_kit` there

from api_kit import fill, token
from dashboard_kit import Browsing, Served
from fleet_kit import Packed

from edge_fleet.api import server
from edge_fleet.store.sql import SqlStore, open_store


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's, by Playwright; not a session's, for it holds this thread's event loop."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium installed (Debian: apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def browsing(chromium: Any) -> Iterator[Callable[..., Browsing]]:
    """Opens pages, each in a context of its own; none may have run or refused a script."""
    opened: list[Browsing] = []

    def open_(url: str, role_token: str = "", **options: Any) -> Browsing:
        one = Browsing(chromium, url, role_token, options)
        opened.append(one)
        return one

    yield open_
    for one in opened:
        one.close()
    for one in opened:
        assert not one.faults, one.faults


@pytest.fixture(scope="module")
def served(packed: Packed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service over a fleet whose every word is hostile; tests of a file share it."""
    folder = tmp_path_factory.mktemp("dashboard")
    store = open_store(f"sqlite:///{folder}/fleet.db", create=True)
    rng = np.random.default_rng(7)
    fill(store, packed, rng)
    yield from _serving(store)
    store.close()


@pytest.fixture
def nobody(store: SqlStore) -> Iterator[Served]:
    """The service over a store in which there is nothing."""
    yield from _serving(store)


def _serving(store: SqlStore) -> Iterator[Served]:
    with ExitStack() as stack:
        listen = server.Listen("127.0.0.1", 0, per_minute=1_000_000)
        url = stack.enter_context(server.running(store, listen))
        roles = {role: token(store, role) for role in ("viewer", "operator", "admin")}
        yield Served(store, url, roles)
