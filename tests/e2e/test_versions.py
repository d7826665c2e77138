"""Every command says its version, and what it can do, without loading what it does not need."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.mark.parametrize("name", ["edge-pack", "edge-agent", "edge-fleet"])
def test_a_command_says_its_version(name: str) -> None:
    said = subprocess.run([BIN / name, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"{name} {importlib.metadata.version('edge-pack')}\n"
