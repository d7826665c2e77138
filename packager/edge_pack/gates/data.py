"""Looks at the rows before the model is asked: what would make every later figure a lie. Pure.

Guards: nothing here changes a row. An error is what no bundle could be shown right on; a warning
is what a person should look at; a note is a fact. Findings name columns and counts, never a
row's values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_pack.gates import leaks
from edge_pack.intake import Column, Rows
from edge_pack.originals import missing

Severity = Literal["error", "warning", "note"]

MANY_MISSING = 0.5
MANY_DUPLICATES = 0.01
CODES = frozenset({-9999.0, -999.0, -99.0, -1.0, 999.0, 9999.0, 99999.0})
"""Numbers that people write for "missing"."""
CODE_SHARE = 0.005
IDENTIFIER_SHARE = 0.5
LISTED = 6


@dataclass(frozen=True)
class Finding:
    """One thing about the rows: how bad, which check, and what in words."""

    severity: Severity
    check: str
    columns: tuple[str, ...]
    what: str


@dataclass(frozen=True)
class Target:
    """The column with the true answers: float64, or text with None where missing."""

    name: str
    values: NDArray[Any]
    continuous: bool


def inspect(rows: Rows, columns: Sequence[Column], target: Target | None) -> list[Finding]:
    """Everything found, errors first."""
    found: list[Finding | None] = []
    if rows.columns:
        found += [_empty(rows), _gaps(rows), _constant(rows), _codes(rows)]
        found += [_identifiers(rows), _spellings(rows), _unknown(rows, columns)]
        prints = _fingerprints(list(rows.columns.values()))
        found.append(_duplicates(prints))
        if target is not None:
            found += [_contradictions(prints, target), *_leaks(rows, target)]
    if target is not None:
        found.append(_answers(target))
    order = ("error", "warning", "note")
    return sorted((one for one in found if one), key=lambda one: order.index(one.severity))


def _finding(severity: Severity, check: str, columns: Sequence[str], what: str) -> Finding | None:
    """The finding with the columns' names in place of ``{}``; None without a column."""
    if not columns:
        return None
    shown = ", ".join(repr(name) for name in columns[:LISTED])
    more = f" and {len(columns) - LISTED} more" if len(columns) > LISTED else ""
    return Finding(severity, check, tuple(columns), what.format(shown + more))


def _where(rows: Rows, test: Callable[[NDArray[Any]], bool]) -> list[str]:
    return [name for name, column in rows.columns.items() if test(column)]


def _empty(rows: Rows) -> Finding | None:
    return _finding(
        "warning", "empty column", _where(rows, lambda column: bool(missing(column).all())),
        "{} is missing in every row: nothing shows that the bundle treats its values right",
    )  # fmt: skip


def _gaps(rows: Rows) -> Finding | None:
    shares = {name: float(missing(column).mean()) for name, column in rows.columns.items()}
    many = [name for name, share in shares.items() if MANY_MISSING <= share < 1]
    if many:
        worst = max(shares[name] for name in many)
        return _finding(
            "warning", "missing values", many, f"{{}} is missing in up to {worst:.0%} of the rows"
        )
    some = [name for name, share in shares.items() if 0 < share < 1]
    worst = max((shares[name] for name in some), default=0.0)
    return _finding(
        "note", "missing values", some, f"{{}} is missing in up to {worst:.1%} of the rows"
    )


def _constant(rows: Rows) -> Finding | None:
    def constant(column: NDArray[Any]) -> bool:
        there = column[~missing(column)]
        return len(there) > 1 and bool((there == there[0]).all())

    return _finding(
        "note", "constant column", _where(rows, constant),
        "{} never changes: its parity and its drift cannot be judged",
    )  # fmt: skip


def _codes(rows: Rows) -> Finding | None:
    """Columns whose least or greatest number is a usual code, far from the rest and repeated."""

    def coded(column: NDArray[Any]) -> bool:
        if column.dtype.kind != "f":
            return False
        finite = column[np.isfinite(column)]
        if len(finite) < 20:
            return False
        for end in (float(finite.min()), float(finite.max())):
            rest = finite[finite != end]
            share = 1 - len(rest) / len(finite)
            if end in CODES and len(rest) and CODE_SHARE <= share < MANY_MISSING:
                room = float(np.ptp(rest)) or abs(float(rest[0])) or 1.0
                if np.abs(rest - end).min() > room:
                    return True
        return False

    return _finding(
        "warning", "code for missing", _where(rows, coded),
        "{} holds a number far from all others that people write for a missing value",
    )  # fmt: skip


def _identifiers(rows: Rows) -> Finding | None:
    def identifier(column: NDArray[Any]) -> bool:
        if column.dtype.kind != "O" or len(column) < 50:
            return False
        there = [item for item in column.tolist() if item is not None]
        return len(set(there)) > IDENTIFIER_SHARE * max(len(there), 1)

    return _finding(
        "warning", "identifier", _where(rows, identifier),
        "{} has a new text in most rows, as an identifier has: a device will see others",
    )  # fmt: skip


def _spellings(rows: Rows) -> Finding | None:
    def mixed(column: NDArray[Any]) -> bool:
        if column.dtype.kind != "O":
            return False
        there = {item for item in column.tolist() if item is not None}
        return len({item.strip().casefold() for item in there}) < len(there)

    return _finding(
        "warning", "spelling", _where(rows, mixed),
        "{} holds categories that differ in case or blanks alone",
    )  # fmt: skip


def _unknown(rows: Rows, columns: Sequence[Column]) -> Finding | None:
    found = []
    for column in columns:
        if column.text and column.known and column.name in rows.columns:
            seen = {item for item in rows.columns[column.name].tolist() if item is not None}
            if seen - set(column.known):
                found.append(column.name)
    return _finding(
        "warning", "unknown category", found, "{} holds categories that the model never learned"
    )


def _fingerprints(columns: Sequence[NDArray[Any]]) -> NDArray[np.uint64]:
    """64 bits a row; equal rows have equal ones, and a missing value equals a missing one."""
    prints = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        prints = _mixed(prints * np.uint64(0x9E3779B97F4A7C15) + _codes_of(column))
    return prints


def _codes_of(column: NDArray[Any]) -> NDArray[np.uint64]:
    if column.dtype.kind == "f":
        plain = np.where(np.isnan(column), np.nan, column + 0.0)  # one NaN, and no minus zero
        return _mixed(plain.view(np.uint64))
    where: dict[object, int] = {}
    codes = [where.setdefault(item, len(where) + 1) for item in column.tolist()]
    return _mixed(np.array(codes, dtype=np.uint64))


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014): every input bit moves every output bit."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _duplicates(prints: NDArray[np.uint64]) -> Finding | None:
    again = len(prints) - len(np.unique(prints))
    if not again:
        return None
    severity: Severity = "warning" if again > MANY_DUPLICATES * len(prints) else "note"
    return Finding(
        severity, "duplicate rows", (),
        f"{again:,} of {len(prints):,} rows repeat an earlier one: figures seem surer than "
        "they are",
    )  # fmt: skip


def _contradictions(prints: NDArray[np.uint64], target: Target) -> Finding | None:
    if target.continuous:
        return None
    known = ~missing(target.values)
    both = np.unique(np.column_stack([prints[known], _codes_of(target.values[known])]), axis=0)
    _, counts = np.unique(both[:, 0], return_counts=True)
    rows = int(np.count_nonzero(np.isin(prints[known], np.unique(both[:, 0])[counts > 1])))
    if not rows:
        return None
    return Finding(
        "warning", "contradictions", (target.name,),
        f"{rows:,} rows are the same in every feature as a row with another {target.name!r}: "
        "no model can be right on all of them",
    )  # fmt: skip


def _answers(target: Target) -> Finding | None:
    lacking = missing(target.values)
    if lacking.all():
        return Finding(
            "error", "no answers", (target.name,), f"{target.name!r} is missing in every row"
        )
    there = target.values[~lacking]
    if not target.continuous and len(set(there.tolist())) == 1:
        return Finding(
            "warning", "one answer", (target.name,),
            f"{target.name!r} holds one label only: most figures are not defined",
        )  # fmt: skip
    if lacking.any():
        return Finding(
            "note", "missing answers", (target.name,),
            f"{target.name!r} is missing in {int(lacking.sum()):,} rows: these serve parity only",
        )  # fmt: skip
    return None


def _leaks(rows: Rows, target: Target) -> list[Finding | None]:
    equal, telling = leaks.find(rows, target.values, continuous=target.continuous)
    return [
        _finding(
            "warning", "leak of the target", equal,
            f"{{}} is equal to the target {target.name!r}: will a device know it beforehand?",
        ),
        _finding(
            "warning", "leak of the target", telling,
            f"{{}} alone gives the target {target.name!r} away: will a device know it beforehand?",
        ),
    ]  # fmt: skip
