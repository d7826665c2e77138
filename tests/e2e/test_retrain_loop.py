"""The retraining example closes the loop by one command, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_fleet.store.sql import open_store

LOOP = Path(__file__).parents[2] / "examples" / "retrain" / "loop.py"
LIMIT_S = 900
"""It takes a minute on an idle machine."""


@pytest.mark.slow
def test_drift_ends_in_a_better_version_everywhere(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(LOOP)], cwd=tmp_path, capture_output=True, text=True,
        timeout=LIMIT_S, env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"}, check=False,
    )  # fmt: skip
    printed = ran.stdout + ran.stderr
    assert ran.returncode == 0, printed
    for said in ("temperature", "canary, by 2.0", "alarms of 2.0", "no process is left behind"):
        assert said in printed, said
    store = open_store(f"sqlite:///{tmp_path}/retrain-run/fleet.db", create=False)
    with store.reading() as tx:
        [firing] = tx.firings()
    store.close()
    assert (firing.state, firing.version) == ("done", "1.0")
    assert firing.detail.startswith("exit code 0")
    for said in ("against wear 1.0", "accuracy", "on its way to the channel canary"):
        assert said in firing.detail, said
    assert (tmp_path / "retrain-run" / "wear-2.0.edgepack").exists()
    for entry in Path("/proc").iterdir():
        try:
            where = (entry / "cwd").readlink()
        except OSError:
            continue
        assert not where.is_relative_to(tmp_path), f"{entry.name} still runs in {where}"
