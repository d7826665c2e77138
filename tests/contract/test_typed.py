"""Threads that decode a type for the first time, together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# msgspec.json.decode(document, type=Top) in place of the last line of go() ends in a SIGSEGV.
TOGETHER = """
import sys, threading
import msgspec
from edge_contract import typed, wire

sys.setswitchinterval(1e-6)
document = msgspec.json.encode({f"g{i}": {f"f{j}": [1] for j in range(20)} for i in range(5)})
for _ in range(100):
    parts = [
        msgspec.defstruct(f"T{i}", [(f"f{j}", "list[int] | None", None) for j in range(20)])
        for i in range(5)
    ]
    Top = msgspec.defstruct("Top", [(f"g{i}", part) for i, part in enumerate(parts)])
    barrier, found = threading.Barrier(8), []

    def go():
        barrier.wait()
        found.append(%s)

    threads = [threading.Thread(target=go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(top.g4.f19 == [1] for top in found)
"""
WAYS = [
    "wire.decode_json(document, Top, size_max=10_000)",
    "typed.json_decoder(Top).decode(document)",
    "typed.msgpack_decoder(Top).decode(msgspec.msgpack.encode(msgspec.json.decode(document)))",
    "typed.convert(msgspec.json.decode(document), Top)",
]


@pytest.mark.parametrize("way", WAYS)
def test_threads_that_meet_at_a_new_type_all_get_their_message(way: str, tmp_path: Path) -> None:
    code = tmp_path / "together.py"
    code.write_text(TOGETHER % way)
    done = subprocess.run([sys.executable, code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
