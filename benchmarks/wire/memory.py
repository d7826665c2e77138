"""How far a fetch raises a device's memory: from before the first chunk to the complete slot.

The bundle has a member for each way in which a large file travels: as it is, as one zstd frame with
a window that is used to its end, and as blocks of planes (float weights).
"""

from __future__ import annotations

import random
import tempfile
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from edge_agent.delivery import Delivery, DeliveryConfig
from edge_contract import bundle as bundles
from edge_contract import manifest as manifests
from edge_contract.bundle import Bundle
from edge_contract.messages import Release

MB = 1_000_000
_SLOWLY_PACKED = 0.1
"""Share of the bundle in each of the two codecs that take the publisher seconds a megabyte."""


@dataclass(frozen=True)
class Grown:
    """Memory before a fetch and at its peak, in MB of 2**20, and the fetch's seconds.

    ``disk_mb``: the chunks and the slot, which are both there just before the fetch ends.
    """

    idle_mb: float
    peak_mb: float
    disk_mb: float
    seconds: float


def large_bundle(small: Bundle, size_bytes: int) -> Bundle:
    """As ``small``, with about ``size_bytes`` to travel."""
    rng = random.Random(11)  # noqa: S311
    part = int(size_bytes * _SLOWLY_PACKED)
    weights = np.random.default_rng(11).normal(size=part // 3).astype("<f4")
    raw = {
        "model.onnx": rng.randbytes(size_bytes - 2 * part),
        "weights.bin": weights.tobytes(),
        "twice.bin": b"".join(_twice(rng, part)),
    }
    members = {name: bundles.encode_member(name, data) for name, data in raw.items()}
    manifest = replace_files(small.manifest, tuple(file for file, _ in members.values()))
    stored = {name: blob for name, (_, blob) in members.items()}
    return bundles.read(bundles.write(manifests.encode(manifest), stored))


def replace_files(
    manifest: manifests.Manifest, files: tuple[manifests.File, ...]
) -> manifests.Manifest:
    """The manifest of version 2, with other members."""
    fields = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    return manifests.Manifest(**{**fields, "version": "2", "files": files})


def _twice(rng: random.Random, size_bytes: int) -> list[bytes]:
    """Noise that repeats after 1.5 MB: only a long window packs it."""
    blocks = [rng.randbytes(3 * MB // 2) for _ in range(size_bytes // (3 * MB // 2))]
    return [each for block in blocks for each in (block, block)]


def grow(folder: str, root: bytes, config: DeliveryConfig) -> Grown:
    """One device in this process: refresh, then fetch the stable release of ``bench``."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        device = Delivery(replace(config, folder=Path(name)))
        device.enroll(root=root)
        pointer = device.refresh(now=datetime.now(UTC), synchronised=True).pointer
        assert pointer is not None
        return _fetch(device, pointer.models["bench"].stable, Path(name))


def _fetch(device: Delivery, release: Release, folder: Path) -> Grown:
    disk = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal disk
        if done == total:
            disk = max(disk, used_mb(folder))

    before = reset_peak_mb()
    started = datetime.now(UTC)
    device.fetch(
        release, name="bench", into=folder / "slots" / "bench", accept=lambda manifest: None,
        progress=progress, stop=threading.Event(),
    )  # fmt: skip
    seconds = (datetime.now(UTC) - started).total_seconds()
    return Grown(before, memory_mb("VmHWM"), disk + used_mb(folder), seconds)


def used_mb(folder: Path) -> float:
    """What the files below ``folder`` take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MB


def memory_mb(field: str) -> float:
    """A figure of this process, such as ``VmRSS``."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def reset_peak_mb() -> float:
    """Forget the peak so far (proc(5), clear_refs 5); returns the memory in use now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmRSS")
