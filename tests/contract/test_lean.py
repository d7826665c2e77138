"""A process that serves loads msgspec without typing_extensions, and finds that when it asks."""

from __future__ import annotations

import subprocess
import sys

LOADED = "import sys; from edge_agent import Model; print('typing_extensions' in sys.modules)"
AFTER = "; import typing_extensions; print(typing_extensions.TypeVar is not None)"


def printed(code: str) -> list[str]:
    """What a new Python prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_a_model_needs_no_typing_extensions() -> None:
    assert printed(LOADED + AFTER) == ["False", "True"]


def test_what_was_imported_before_is_left_alone() -> None:
    assert printed(f"import typing_extensions; {LOADED}") == ["True"]


def test_other_threads_never_miss_it() -> None:
    code = (
        "import threading; held = threading.Event();"
        " other = threading.Thread(target=held.wait); other.start();"
        f" {LOADED}; held.set()"
    )
    assert printed(code) == ["True"]


def test_types_are_read_as_before() -> None:
    code = """
from edge_contract import lean
lean.load_msgspec()
from typing import NotRequired, Optional, TypedDict
import msgspec
class Row(TypedDict):
    one: int
    two: NotRequired[Optional[str]]
print(msgspec.json.decode(b'{"one":1}', type=Row)["one"])
try:
    msgspec.json.decode(b'{"two":null}', type=Row)
except msgspec.ValidationError as error:
    print("one" in str(error))
"""
    assert printed(code) == ["1", "True"]
