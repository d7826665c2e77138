"""Latency, load time and memory of a bundle on this machine, in a process of its own.

Guards: measurements differ from run to run, so they go beside the bundle (``OUT.measured.json``)
and name its digest; they never enter its bytes.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from edge_agent.runtime import Session, versions
from edge_contract import bundle as bundles
from edge_contract import golden as goldens
from edge_contract.errors import MachineFault
from edge_contract.manifest import GOLDEN_FILE, MODEL_FILE
from edge_contract.ports.disk import read_bounded

BATCHES = (1, 256)
SECONDS_EACH = 0.4
"""Time for each batch size: enough for a p99 of a small model, bearable for a large one."""
CALLS_MIN, CALLS_MAX = 5, 2000
CHILD_TIMEOUT_S = 300.0

_CHILD = """
import time
began = time.perf_counter()
import edge_agent
imported_s = time.perf_counter() - began
import sys
from edge_contract.ports.command import run
from edge_pack.measure import child
run(lambda: child(sys.argv[1], imported_s))
"""
"""The agent's imports are timed by themselves: a device has no packager to import."""


class Latency(Struct, frozen=True, kw_only=True):
    """Time of one call of ``batch`` rows, in microseconds, over ``calls`` calls."""

    batch: int
    p50_us: float
    p99_us: float
    calls: int


class Figures(Struct, frozen=True, kw_only=True):
    """What a process saw of a bundle.

    Attributes:
        load_ms: from the model's bytes to a session.
        cold_start_ms: importing the agent's inference, reading the bundle, first answer.
        rss_bytes: growth of resident memory by loading and running; None where it is not known.
    """

    load_ms: float
    cold_start_ms: float
    rss_bytes: int | None
    latency: tuple[Latency, ...]


class Measured(Struct, frozen=True, kw_only=True):
    """The file beside the bundle. ``bundle``: the digest of the bundle that was measured."""

    schema: int = 1
    bundle: str
    name: str
    version: str
    host: dict[str, str]
    figures: Figures
    original: tuple[Latency, ...]
    stages_ms: dict[str, float]
    bytes: dict[str, int]


def path_beside(out: Path) -> Path:
    """Where the measurements of the bundle ``out`` go."""
    return out.with_name(f"{out.name.removesuffix('.edgepack')}.measured.json")


def in_child(bundle: Path) -> Figures:
    """Measure a bundle in a fresh process. Raises MachineFault when that fails."""
    command = [sys.executable, "-c", _CHILD, str(bundle)]
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter and module
            command, capture_output=True, timeout=CHILD_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineFault(f"measuring the bundle failed: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise MachineFault(f"measuring the bundle failed: {said[-1] if said else 'no reason'}")
    return msgspec.json.decode(done.stdout, type=Figures)


def calls(call: Callable[[], object], batch: int, seconds: float = SECONDS_EACH) -> Latency:
    """Time a call again and again, after two that do not count."""
    call()
    call()
    times: list[int] = []
    end = time.perf_counter() + seconds
    while len(times) < CALLS_MIN or (time.perf_counter() < end and len(times) < CALLS_MAX):
        began = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - began)
    p50, p99 = (round(float(at) / 1000, 2) for at in np.percentile(times, [50, 99]))
    return Latency(batch=batch, p50_us=p50, p99_us=p99, calls=len(times))


def host() -> dict[str, str]:
    """The machine and the libraries that the figures belong to."""
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpus": str(os.cpu_count() or 0),
        "python": platform.python_version(),
        **versions(),
    }


def slower(bundle: Sequence[Latency], original: Sequence[Latency]) -> str:
    """A warning where the bundle is slower than its original at a batch size, or ""."""
    before = {figure.batch: figure.p50_us for figure in original}
    found = [
        f"{figure.p50_us / before[figure.batch]:.1f} times at batch {figure.batch}"
        for figure in bundle
        if figure.batch in before and figure.p50_us > 1.2 * before[figure.batch]
    ]
    return f"the bundle takes longer than the original: {', '.join(found)}" if found else ""


def child(path: str, imported_s: float) -> None:
    """Measure a bundle in this process and print the ``Figures`` as JSON."""
    sys.stdout.buffer.write(msgspec.json.encode(_measure(Path(path), imported_s)))


def _measure(path: Path, imported_s: float) -> Figures:
    opened = time.perf_counter()
    resident = _resident()
    bundle = bundles.read(read_bounded(path, bundles.BUNDLE_MAX_BYTES))
    golden = goldens.decode(bundle.file(GOLDEN_FILE))
    feeds = {array.name: goldens.unpack(array) for array in golden.inputs}
    model = bundle.file(MODEL_FILE)
    began = time.perf_counter()
    session = Session(model)
    load_ms = (time.perf_counter() - began) * 1000
    shared = all(tensor.features for tensor in bundle.manifest.inputs)
    session.run(_batch(feeds, 1) if shared else feeds)
    cold_start_ms = (imported_s + time.perf_counter() - opened) * 1000
    batches = {batch: _batch(feeds, batch) for batch in BATCHES} if shared else {1: feeds}
    latency = [calls(partial(session.run, ready), batch) for batch, ready in batches.items()]
    after = _resident()
    return Figures(
        load_ms=round(load_ms, 3),
        cold_start_ms=round(cold_start_ms, 3),
        rss_bytes=after - resident if after is not None and resident is not None else None,
        latency=tuple(latency),
    )


def _batch(feeds: dict[str, Any], rows: int) -> dict[str, Any]:
    return {name: value[np.arange(rows) % len(value)] for name, value in feeds.items()}


def _resident() -> int | None:
    """Resident bytes of this process (proc(5), statm, field 2), None off Linux."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
