"""Small fitted models, a local web server, and a reader of any origin."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from edge_pack import origins, sources


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    """60 rows of three named numbers."""
    rng = np.random.default_rng(4)
    return pd.DataFrame(np.round(rng.normal(20, 5, (60, 3)), 2), columns=["a", "b", "c"])


@pytest.fixture(scope="session")
def model(frame: pd.DataFrame) -> Any:
    """A fitted classifier that knows its columns."""
    return LogisticRegression().fit(frame, (frame.a > 20).astype(int))


@pytest.fixture
def dumped(model: Any, tmp_path: Path) -> Path:
    """The model as a pickle in a folder of its own."""
    folder = tmp_path / "dumped"
    folder.mkdir()
    joblib.dump(model, folder / "model.joblib")
    return folder / "model.joblib"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], tuple[str, Path]]]:
    """``serve()``: a web server on loopback, its address and the folder that it serves."""
    servers = []

    def call() -> tuple[str, Path]:
        folder = tmp_path / "served"
        folder.mkdir()
        handler = functools.partial(_Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}", folder

    yield call
    for server in servers:
        server.shutdown()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def load() -> Callable[..., tuple[Any, list[str]]]:
    """``load(model, trust=...)``: the loaded subject, and what was said on the way."""

    def call(model: str | Path, *, trust: bool = False) -> tuple[Any, list[str]]:
        said: list[str] = []
        with origins.resolve(model, said.append) as origin:
            return sources.load(origin, said.append, trust=trust), said

    return call
