"""Is there room in memory for one more model? Asked before it is loaded, by figures of the kernel.

Guards: a model that would not fit is refused with what it needs and what there is, and not tried;
what a limit of the container or of the service leaves counts as much as what the machine has; swap
does not count, for on a flash card it is neither quick nor lasting.

Sources: proc(5), Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst, accounting/psi.rst.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.units import show_bytes
from edge_contract.errors import MachineFault
from edge_contract.manifest import MODEL_FILE, Manifest

ROOT = Path("/")
RESERVE_MIN_BYTES = 16 * 1024**2
RESERVE_MAX_BYTES = 256 * 1024**2
RESERVE_SHARE = 32
"""A 32nd part of the memory stays free, 16 MiB at least, 256 MiB at most: for requests, for what
else runs on the device, and for what the estimate is wrong by."""
STALLED_PERCENT = 10.0
"""Of the last ten seconds: so long everything waited for memory. systemd-oomd's default for acting
is 60 % over 30 s; work that nobody waits for stands back long before that."""

_UNLIMITED = 2**60
"""cgroup v1 says "no limit" by a number near 2^63, rounded down to pages."""


@dataclass(frozen=True)
class Memory:
    """Memory at one moment.

    Attributes:
        total_bytes: what this process may have at most: the machine's, or a limit under it.
        available_bytes: what can be had now without pushing anything out; None: not known.
        bound: who sets the lower bound: ``machine``, or the control group's folder.
        stalled_percent: share of the last 10 s in which everything waited for memory (PSI).
    """

    total_bytes: int
    available_bytes: int | None
    bound: str = "machine"
    stalled_percent: float = 0.0

    @property
    def short(self) -> bool:
        """Work that nobody waits for should stand back."""
        return self.stalled_percent >= STALLED_PERCENT

    @property
    def reserve_bytes(self) -> int:
        """What stays free however much is asked for."""
        return min(max(self.total_bytes // RESERVE_SHARE, RESERVE_MIN_BYTES), RESERVE_MAX_BYTES)


class NoRoom(MachineFault):
    """The model would not fit into memory now; what answers was left alone."""


def room(manifest: Manifest, memory: Memory | None = None, *, measured_bytes: int = 0) -> None:
    """Return when the model fits into memory beside all that is there now.

    To be called right before each load: of the version that takes over, of one that runs beside
    it, of a file that a person opens.

    Args:
        memory: as ``read`` gives it; None: read now (about a millisecond).
        measured_bytes: what the self-test on this machine found the model to cost; 0: not known.

    Raises NoRoom with the figures.
    """
    seen = memory or read()
    if seen.available_bytes is None:
        return
    need, free = need_bytes(manifest, measured_bytes), seen.available_bytes - seen.reserve_bytes
    if need <= free:
        return
    who = "the limit of " + seen.bound if seen.bound != "machine" else "the machine"
    raise NoRoom(
        f"{manifest.name} {manifest.version} would not fit into memory: it takes about "
        f"{show_bytes(need)}, {show_bytes(seen.available_bytes)} are available within {who}, of "
        f"which {show_bytes(seen.reserve_bytes)} stay free",
        advice="End what else runs, serve fewer models, raise the limit, or build a smaller one "
        "(`edge-pack build --device`).",
    )


def need_bytes(manifest: Manifest, measured_bytes: int = 0) -> int:
    """What loading the model takes: the greatest of the manifest's estimate, what was measured
    here, and twice its file.

    Measured at the load (x86-64, onnxruntime 1.31): 80 MB of dense weights take 153 MB at most, a
    forest of 4.9 MB takes 69 MB; the estimates are 162 and 91 MB.
    """
    raw = sum(file.raw_size for file in manifest.files if file.name == MODEL_FILE)
    return max(manifest.runtime.ram_bytes, measured_bytes, 2 * raw)


def read(root: Path = ROOT) -> Memory:
    """Memory now, by what lies in ``root``'s ``proc`` and ``sys``. Never raises."""
    info = _table(root / "proc/meminfo", 1024)
    total = info.get("MemTotal:") or _physical()
    available = info.get("MemAvailable:")
    bound = "machine"
    stalled = _stalled(root / "proc/pressure/memory")
    for folder in _groups(root):
        limit = _limit(folder)
        total = min(total, limit)
        stalled = max(stalled, _stalled(folder / "memory.pressure"))
        if limit >= _UNLIMITED:
            continue
        left = max(limit - _used(folder), 0)
        if available is None or left < available:
            available, bound = left, f"/{folder.relative_to(root)}"
    return Memory(total, available, bound, stalled)


def _groups(root: Path) -> Iterator[Path]:
    """Folders of this process's control group and of those above it, where memory is counted."""
    lines: list[str] = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    top = root / "sys/fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        base = top / "memory" if controllers else top
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # seen from a namespace beside it
            parts = []
        for depth in range(len(parts), -1, -1):
            folder = base.joinpath(*parts[:depth])
            if (folder / "memory.max").exists() or (folder / "memory.limit_in_bytes").exists():
                yield folder


def _limit(folder: Path) -> int:
    """Of one control group; over ``_UNLIMITED`` for none. ``memory.high`` slows down above it."""
    found = (_number(folder / n) for n in ("memory.max", "memory.high", "memory.limit_in_bytes"))
    return min((each for each in found if each is not None), default=_UNLIMITED)


def _used(folder: Path) -> int:
    """What the group holds and cannot give up at once."""
    used = _number(folder / "memory.current")
    if used is None:
        used = _number(folder / "memory.usage_in_bytes") or 0
    stat = _table(folder / "memory.stat", 1)
    idle = stat.get("total_inactive_file", stat.get("inactive_file", 0))
    return max(used - idle - stat.get("slab_reclaimable", 0), 0)


def _number(path: Path) -> int | None:
    """The number in a file; None for no file, and for ``max``."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _table(path: Path, unit: int) -> dict[str, int]:
    """Lines of a name and a number."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text().splitlines():
            name, *rest = line.split() or [""]
            if rest and rest[0].isdecimal():
                found[name] = int(rest[0]) * unit
    return found


def _stalled(path: Path) -> float:
    """``avg10`` of the line ``full``, in percent; 0 where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith("full"):
                return float(line.split("avg10=")[1].split()[0])
    return 0.0


def _physical() -> int:
    """Where there is no ``proc``."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0
