"""Latency, load time and memory of a bundle on this machine, in a process of its own.

Guards: measurements differ from run to run, so they go beside the bundle (``OUT.measured.json``)
and name its digest; they never enter its bytes.
"""

from __future__ import annotations

import os
import platform
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
from edge_contract.manifest import GOLDEN_FILE, MODEL_FILE, Tensor
from edge_contract.ports.disk import read_bounded
from edge_contract.typed import json_decoder
from edge_pack import processes
from edge_pack.papers.evaluation import Evaluation

BATCH = 256
"""The second batch size that is timed, where the user names no other."""
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
run(lambda: child(sys.argv[1], int(sys.argv[2]), imported_s))
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


class CandidateFigures(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One form that the search looked at, and what became of it.

    Attributes:
        verdict: chosen, dominated, possible, slower, no faster, no smaller, hardly smaller,
            over budget, not asked for, changed nothing or failed; ``reason`` says more.
        size_bytes: of the model on the wire; ``ratio``: of float32's. raw_bytes: decoded.
        load_ms, rss_bytes: loaded alone, after trimming; None where not measured.
        latency: empty where not measured. against: batch -> median ratio to float32, 1 within
            noise.
        rows, flips, diff_max: against the original model.
        metric, metric_value, metric_drop: the task's leading metric (accuracy or R2), and by how
            much it is less than the original's; "" and 0 without truth.
    """

    mode: str
    verdict: str
    reason: str = ""
    parameters: dict[str, int | float | str | bool] = {}
    size_bytes: int = 0
    ratio: float = 0.0
    raw_bytes: int = 0
    load_ms: float | None = None
    rss_bytes: int | None = None
    latency: tuple[Latency, ...] = ()
    against: dict[int, float] = {}
    rows: int = 0
    flips: int = 0
    diff_max: float = 0.0
    metric: str = ""
    metric_value: float = 0.0
    metric_drop: float = 0.0


class Searched(Struct, frozen=True, kw_only=True):
    """All candidates of a build. ``noise``: batch -> share within which two latencies are one."""

    optimize: str
    noise: dict[int, float]
    candidates: tuple[CandidateFigures, ...]


class OnDevice(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a bundle would take on the device that the build was gated for.

    Attributes:
        ram_mb, latency_p99_ms: the budgets. slowdown, spread: as the device's profile has them.
        estimated_mb: from the graph. measured_mb: resident here, None where not known.
        here_p99_ms: of one row here; there_p99_ms: the same times the slowdown.
    """

    name: str
    ram_mb: float
    latency_p99_ms: float | None
    slowdown: float
    spread: float
    estimated_mb: float
    measured_mb: float | None = None
    here_p99_ms: float | None = None
    there_p99_ms: float | None = None


class Measured(Struct, frozen=True, kw_only=True):
    """The file beside the bundle. ``bundle``: the digest of the bundle that was measured.

    ``search`` is None where the form was given and not searched.
    """

    schema: int = 2
    bundle: str
    name: str
    version: str
    host: dict[str, str]
    figures: Figures
    original: tuple[Latency, ...]
    stages_ms: dict[str, float]
    bytes: dict[str, int]
    evaluation: Evaluation | None = None
    device: OnDevice | None = None
    search: Searched | None = None


def path_beside(out: Path) -> Path:
    """Where the measurements of the bundle ``out`` go."""
    return out.with_name(f"{out.name.removesuffix('.edgepack')}.measured.json")


def in_child(bundle: Path, batch: int = BATCH) -> Figures:
    """Measure a bundle in a fresh process. Raises MachineFault when that fails."""
    said = run_child(_CHILD, str(bundle), str(batch), what="measuring the bundle")
    return json_decoder(Figures).decode(said)


def run_child(code: str, *arguments: str, what: str) -> bytes:
    """What a Python program of ours prints, run in a process of its own.

    Args:
        what: of the message when it fails, such as ``measuring the bundle``.

    Raises MachineFault when it cannot start, takes too long or fails.
    """
    done = processes.run([sys.executable, "-c", code, *arguments], what, CHILD_TIMEOUT_S)
    if done.code:
        raise MachineFault(f"{what} failed: {done.complaint}")
    return done.out


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


def child(path: str, batch: int, imported_s: float) -> None:
    """Measure a bundle in this process and print the ``Figures`` as JSON."""
    sys.stdout.buffer.write(msgspec.json.encode(_measure(Path(path), batch, imported_s)))


def _measure(path: Path, batch: int, imported_s: float) -> Figures:
    opened = time.perf_counter()
    before = resident()
    bundle = bundles.read(read_bounded(path, bundles.BUNDLE_MAX_BYTES))
    golden = goldens.decode(bundle.file(GOLDEN_FILE))
    feeds = {array.name: goldens.unpack(array) for array in golden.inputs}
    model = bundle.file(MODEL_FILE)
    began = time.perf_counter()
    session = Session(model)
    load_ms = (time.perf_counter() - began) * 1000
    batches = _batches(bundle.manifest.inputs, feeds, batch)
    session.run(batches[min(batches)])
    cold_start_ms = (imported_s + time.perf_counter() - opened) * 1000
    latency = [calls(partial(session.run, ready), rows) for rows, ready in batches.items()]
    after = resident()
    return Figures(
        load_ms=round(load_ms, 3),
        cold_start_ms=round(cold_start_ms, 3),
        rss_bytes=after - before if after is not None and before is not None else None,
        latency=tuple(latency),
    )


def _batches(
    tensors: Sequence[Tensor], feeds: dict[str, Any], batch: int
) -> dict[int, dict[str, Any]]:
    """The samples as one row and as ``batch`` rows; as they are where the rows are fixed."""
    lengths = {len(value) if value.ndim else 0 for value in feeds.values()}
    if len(lengths) > 1 or 0 in lengths:
        return {1: feeds}
    if any(tensor.shape[0] is not None for tensor in tensors):
        return {lengths.pop(): feeds}
    return {
        rows: {name: value[np.arange(rows) % len(value)] for name, value in feeds.items()}
        for rows in sorted({1, batch})
    }


def resident() -> int | None:
    """Resident bytes of this process (proc(5), statm, field 2), None off Linux."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
