"""Text for a terminal.

Guards: everything a device controls is untrusted: control characters, escape sequences and
characters that turn the direction of writing never reach a terminal, nor does rich's markup.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def clean(text: object) -> str:
    """``text`` with each control, format, surrogate and separator character replaced."""
    return "".join(
        _REPLACEMENT if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else char
        for char in str(text)
    )


def print_line(text: object = "") -> None:
    """One cleaned line on standard output."""
    sys.stdout.write(clean(text) + "\n")
    sys.stdout.flush()


def print_json(value: object) -> None:
    """ASCII only: what a device controls cannot steer a terminal from here either."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(value), ensure_ascii=True, indent=2) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table of cleaned cells; as wide as it needs when the output is no terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 200
    Console(file=sys.stdout, width=width, highlight=False).print(table)
