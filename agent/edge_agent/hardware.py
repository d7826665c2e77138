"""The machine that this agent runs on, as far as the system tells."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

from edge_agent import memory, runtime
from edge_contract.messages import Hardware, Room


def read() -> Hardware:
    """Processor, memory, system and the libraries that compute."""
    return Hardware(
        machine=platform.machine(),
        cpus=_cpus(),
        ram_bytes=ram_bytes(),
        system=f"{platform.system()} {platform.release()}"[:200],
        python=platform.python_version(),
        onnxruntime=runtime.versions()["onnxruntime"],
    )


def kernel_run() -> str:
    """Names the run of the kernel since the machine came up, or "" where it says nothing."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:64]
    return ""


def ram_bytes() -> int:
    """Memory that this process may use: the machine's, or its container's limit if lower."""
    return memory.read().total_bytes


def free_bytes(folder: Path) -> int:
    """Bytes that this user can still write below ``folder``. Raises OSError."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def total_bytes(folder: Path) -> int:
    """Size of the file system that holds ``folder``. Raises OSError."""
    stat = os.statvfs(folder)
    return stat.f_blocks * stat.f_frsize


def room(folder: Path, spool_bytes: int, spool_max_bytes: int) -> Room:
    """On the disk of ``folder``, where it says so, and what records take of it."""
    free = total = None
    with contextlib.suppress(OSError):
        free, total = free_bytes(folder), total_bytes(folder)
    return Room(
        free_bytes=free, total_bytes=total, spool_bytes=spool_bytes,
        spool_max_bytes=spool_max_bytes,
    )  # fmt: skip


def available_bytes() -> int:
    """Memory that can be had without pushing anything out, by the kernel's estimate."""
    seen = memory.read()
    return seen.total_bytes if seen.available_bytes is None else seen.available_bytes


def data_bytes() -> int:
    """Private writable memory of this process, or 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


def rss_bytes() -> int:
    """Resident memory of this process, or 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
