"""Runs ``edge-agent`` so that somebody sees each of its disk and network calls before it is made.

    CUT_BOARD=FILE python cut_launch.py run --config agent.toml

A seccomp filter (seccomp_unotify(2)) holds every such call of this process, its threads and its
children until the one who has the listener lets it go on: one count for all of them, in the order
in which they happen. strace's ``inject=...:when=k`` counts for each thread alone, so that the
k-th call of the process is not among what it can hit.

The listener's number is left in FILE, 8 bytes, and the process waits until the next byte is set.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import time
from pathlib import Path

BOARD = struct.Struct("<qB")
READY, TAKEN = 1, 2
_PR_SET_NO_NEW_PRIVS = 38
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _JEQ, _JGT, _JSET, _RET = 0x20, 0x15, 0x25, 0x45, 0x06
_O_CREAT = 0o100

CALLS = {
    "x86_64": {
        "write": 1, "openat": 257, "pwrite64": 18, "sendfile": 40, "connect": 42, "sendto": 44,
        "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "shutdown": 48, "fsync": 74,
        "fdatasync": 75, "truncate": 76, "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84,
        "link": 86, "unlink": 87, "symlink": 88, "mkdirat": 258, "unlinkat": 263, "renameat": 264,
        "linkat": 265, "symlinkat": 266, "fallocate": 285, "renameat2": 316,
        "copy_file_range": 326,
    },
    "aarch64": {
        "write": 64, "openat": 56, "pwrite64": 68, "sendfile": 71, "connect": 203, "sendto": 206,
        "recvfrom": 207, "sendmsg": 211, "recvmsg": 212, "shutdown": 210, "fsync": 82,
        "fdatasync": 83, "truncate": 45, "ftruncate": 46, "mkdirat": 34, "unlinkat": 35,
        "symlinkat": 36, "linkat": 37, "renameat": 38, "fallocate": 47, "renameat2": 276,
        "copy_file_range": 285,
    },
}  # fmt: skip
NETWORK = frozenset({"connect", "sendto", "recvfrom", "sendmsg", "recvmsg", "shutdown"})


def names() -> dict[int, str]:
    """The calls that are held, by number on this machine. KeyError on an unknown one."""
    return {number: name for name, number in CALLS[os.uname().machine].items()}


def program() -> bytes:
    """The filter: hold the calls above; opening only where it may create, writing only beyond
    the standard streams."""
    table = dict(CALLS[os.uname().machine])
    openat, write = table.pop("openat"), table.pop("write")
    plain = sorted(table.values())
    n = len(plain)
    code = [(_LOAD, 0, 0, 0)]
    # After the comparisons: 0 allow, 1 notify, 2-3 openat, 4-5 write.
    code += [(_JEQ, n - i + 2, 0, number) for i, number in enumerate(plain)]
    code += [(_JEQ, 3, 0, openat), (_JEQ, 5, 0, write)]
    code += [(_RET, 0, 0, _ALLOW), (_RET, 0, 0, _NOTIFY)]
    code += [(_RET, 0, 0, _ALLOW)]
    code += [(_LOAD, 0, 0, 32), (_JSET, 3, 2, _O_CREAT)]
    code += [(_LOAD, 0, 0, 16), (_JGT, 1, 0, 2)]
    code += [(_RET, 0, 0, _ALLOW), (_RET, 0, 0, _NOTIFY)]
    return b"".join(struct.pack("<HBBI", *each) for each in code)


def install() -> int:
    """Put the filter in place; its listener. Raises OSError where the kernel forbids it."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(program())
    head = struct.pack("<HxxxxxxQ", (len(code) - 1) // 8, ctypes.addressof(code))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    number = _SYS_SECCOMP[os.uname().machine]
    listener = int(libc.syscall(number, _SET_MODE_FILTER, _NEW_LISTENER, head))
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return listener


def main() -> None:
    """Install, hand the listener over, be the agent."""
    from edge_agent.__main__ import main as agent

    with Path(os.environ.pop("CUT_BOARD")).open("r+b") as file:
        board = mmap.mmap(file.fileno(), BOARD.size)
    listener = install()
    BOARD.pack_into(board, 0, listener, READY)
    while BOARD.unpack_from(board)[1] != TAKEN:
        time.sleep(0.001)
    os.close(listener)
    agent()


if __name__ == "__main__":
    sys.exit(main())
