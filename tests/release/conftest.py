"""Bundles and repositories for tests of trust and delivery."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_contract import bundle as bundles
from edge_contract import manifest as manifests
from edge_contract.bundle import Bundle
from edge_contract.manifest import (
    MODEL_FILE,
    Compression,
    Manifest,
    Outputs,
    Parity,
    Provenance,
    Runtime,
    Tensor,
)
from edge_release import create

NOW = datetime.datetime(2026, 5, 4, 12, 0, tzinfo=datetime.UTC)


def make_bundle(
    version: str = "1.0",
    *,
    name: str = "pump",
    size_bytes: int = 300_000,
    seed: int = 1,
    extra: dict[str, bytes] | None = None,
) -> Bundle:
    """A valid bundle whose model is ``size_bytes`` of incompressible bytes."""
    raw = {MODEL_FILE: random.Random(seed).randbytes(size_bytes), **(extra or {})}
    members = {key: bundles.encode_member(key, value) for key, value in raw.items()}
    manifest = Manifest(
        schema=manifests.SCHEMA,
        name=name,
        version=version,
        task="tensors",
        features=(),
        inputs=(Tensor(name="x", dtype="float32", shape=(None, 4)),),
        outputs=Outputs(tensors=("y",)),
        files=tuple(file for file, _ in members.values()),
        runtime=Runtime(
            ir=8, opsets={"": 17}, ops=("Gemm",), onnxruntime="1.18", ram_bytes=1_000_000
        ),
        compression=Compression(mode="none", stock_bytes=size_bytes),
        parity=Parity(
            rows=400, flips=0, flips_max=0.001, diff_max=0.0, diff_p99=0.0, diff_budget=1e-4
        ),
        provenance=Provenance(
            source_sha256="0" * 64, source_type="onnx", libraries={"onnx": "1.17"}
        ),
    )
    return bundles.read(
        bundles.write(
            manifests.encode(manifest), {key: stored for key, (_, stored) in members.items()}
        )
    )


@pytest.fixture
def now() -> datetime.datetime:
    """The time at which everything is signed."""
    return NOW


@pytest.fixture
def new_bundle() -> Callable[..., Bundle]:
    """``make_bundle``."""
    return make_bundle


@pytest.fixture
def keys_dir(tmp_path: Path) -> Path:
    """A folder of keys with a fresh repository of profile ``home``."""
    folder = tmp_path / "keys"
    create(folder, "home", now=NOW)
    return folder
