"""Slots on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_contract import bundle as bundles
from edge_contract.bundle import MANIFEST_MEMBER


@pytest.fixture
def lay_slot(tmp_path: Path) -> Callable[[bytes], Path]:
    """Puts a bundle's decoded files into a slot folder."""

    def lay(data: bytes) -> Path:
        bundle = bundles.read(data)
        folder = tmp_path / "slots" / bundle.digest
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST_MEMBER).write_bytes(bundle.manifest_bytes)
        for file in bundle.manifest.files:
            (folder / file.name).write_bytes(bundle.file(file.name))
        return folder

    return lay
