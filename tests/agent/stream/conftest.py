"""Servers for tests of downloads; what they are made of is in ``stream_kit``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `stream_kit` is beside the tests

from stream_kit import NGINX_PATHS, Nginx, Request, Rogue


@pytest.fixture
def rogue() -> Iterator[Callable[[Callable[[Request], None]], Rogue]]:
    """Starts servers that answer with a function of the request."""
    started: list[Rogue] = []

    def start(answer: Callable[[Request], None]) -> Rogue:
        started.append(Rogue(answer))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def new_nginx(tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    """Makes nginx servers, each in a folder of its own; they are ended after the test."""
    if not shutil.which("nginx") and not any(Path(path).exists() for path in NGINX_PATHS):
        if os.environ.get("CI") == "true":
            pytest.fail("no nginx: CI tests against a real one (Debian package nginx-light)")
        pytest.skip("no nginx here (Debian package nginx-light)")
    started: list[Nginx] = []

    def make(**options: object) -> Nginx:
        started.append(Nginx(tmp_path / f"nginx-{len(started)}", **options))  # type: ignore[arg-type]
        return started[-1]

    yield make
    for server in started:
        server.stop()
