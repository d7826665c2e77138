"""What a person sees of the difference between two bundles."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge_pack.gates.diff import Answers, Difference, Line, Side, Value
from edge_pack.gates.shift import Shift

_DIGEST = re.compile("[0-9a-f]{64}")
SHOWN = 20
"""Lines under one heading; ``--json`` has all of them."""


def show(console: Console, found: Difference) -> None:
    """Each heading with its lines, or "same"; then what would break."""
    console.print(f"[bold]{_title(found.a)}[/bold] -> [bold]{_title(found.b)}[/bold]")
    if found.a.digest == found.b.digest:
        console.print("the two are the same, to the byte")
        return
    for heading, lines in found.changes.items():
        _section(console, heading, [_cells(line) for line in lines], ("", "A", "B", ""))
    shifts = [_shift(shift) for shift in found.profile]
    _section(console, "profile", shifts, ("", "JS (bits)", "PSI", ""))
    console.print(f"[cyan]golden answers[/cyan]: {_answers(found.answers)}")
    if found.breaks:
        console.print("[bold red]a caller of the first would break with the second[/bold red]")
        for reason in found.breaks:
            console.print(f"  {escape(reason)}", highlight=False)
    else:
        console.print("[green]a caller of the first can use the second[/green]")


def _title(side: Side) -> str:
    return escape(f"{side.name} {side.version} ({side.digest[:12]})")


def _section(
    console: Console, heading: str, rows: Sequence[tuple[str, ...]], titles: tuple[str, ...]
) -> None:
    if not rows:
        console.print(f"[cyan]{heading}[/cyan]: same")
        return
    table = Table(
        *titles, title=f"[cyan]{heading}[/cyan]", title_justify="left", title_style="",
        box=None, pad_edge=False, show_header=True,
    )  # fmt: skip
    for row in rows[:SHOWN]:
        table.add_row(*(f"  {row[0]}", *row[1:]))
    if len(rows) > SHOWN:
        table.add_row(f"  and {len(rows) - SHOWN} more (--json shows all)")
    console.print(table)


def _cells(line: Line) -> tuple[str, str, str, str]:
    apart = ""
    if _number(line.a) and _number(line.b):
        change = float(line.b or 0) - float(line.a or 0)
        apart = f"{change:+,.0f}" if abs(change) >= 1e5 else f"{change:+,.5g}"
        if line.a and abs(change) >= 1:
            apart += f" ({change / abs(float(line.a or 1)):+.1%})"
    return escape(line.what), _value(line.a), _value(line.b), apart


def _number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if _DIGEST.fullmatch(value):
        return f"{value[:12]}..."
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    return escape(shown) if shown else "-"


def _shift(shift: Shift) -> tuple[str, str, str, str]:
    return (
        escape(shift.name), f"{shift.js:.3g}", f"{shift.psi:.3g}",
        "" if shift.same_bins else "other bins",
    )  # fmt: skip


def _answers(found: Answers) -> str:
    if found.reason:
        return f"not compared, {escape(found.reason)}"
    if not found.labels_changed and not found.diff_max:
        return f"same on {found.rows} samples"
    return (
        f"{found.labels_changed} of {found.rows} labels changed, largest difference "
        f"{found.diff_max:.3g}"
    )
