"""Rows beside the given ones that a device may well send: the parity gate sees them too.

Combinations of values that never stood in one row, every feature at both ends of its range, and
a category nobody has seen. Every number is one that the data holds, so probes keep the features'
offsets and resolution. Pure: the same rows give the same probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_pack.intake import Rows

MIXED_MAX = 256
EXTREMES_MAX = 128
UNSEEN = "edge-pack-unseen"


def draw(rows: Rows) -> Rows:
    """Probes for table rows: up to 256 mixed ones and two for each of the first 64 features.

    Whole tensors get none: nothing is known of which values go together in them.
    """
    if not rows.columns or rows.count < 2:
        return Rows(0, {}, {})
    rng = np.random.default_rng(0)
    mixed = min(MIXED_MAX, rows.count)
    base = rng.integers(0, rows.count, size=mixed)
    names = list(rows.columns)
    ends = [name for name in names if rows.columns[name].dtype.kind == "f"][: EXTREMES_MAX // 2]
    anchor = rng.integers(0, rows.count, size=2 * len(ends))
    columns: dict[str, NDArray[Any]] = {}
    for name in names:
        column = rows.columns[name]
        swapped = np.where(
            rng.random(mixed) < 0.25, column[rng.integers(0, rows.count, size=mixed)], column[base]
        )
        extreme = column[anchor]
        if name in ends and np.isfinite(column).any():
            at = 2 * ends.index(name)
            extreme[at], extreme[at + 1] = np.nanmin(column), np.nanmax(column)
        columns[name] = np.concatenate([swapped.astype(column.dtype), extreme])
    return Rows(mixed + len(anchor), columns, {})


def unseen(rows: Rows) -> Rows:
    """One row for each text column, with a category that nobody has seen."""
    texts = [name for name, column in rows.columns.items() if column.dtype.kind == "O"]
    base = np.zeros(len(texts), dtype=np.int64)
    columns = {name: column[base] for name, column in rows.columns.items()}
    for row, name in enumerate(texts):
        columns[name][row] = UNSEEN
    return Rows(len(texts), columns, {})


_HOSTILE = (
    "", " ", "a", "ab", "_", "__x__", "don't stop", "12.5 3,7 1e-3", "co-operate/e-mail@x.org",
    "tab\tline\nfeed\r\nend", "caf\u00e9 CAF\u00c9 cafe\u0301",
    "stra\u00dfe STRASSE \u0130stanbul \u0131", "\u039f\u0394\u039f\u03a3 \u03cc\u03b4\u03bf\u03c2",
    "\u043f\u0440\u0418\u0432\u0415\u0442 \u041c\u0418\u0420",
    "\u65e5\u672c\u8a9e \u30c6\u30b9\u30c8",
    "\u0661\u0662\u0663 \u2167 \u00bd x\u00b2", "\U0001f600ok \U0001f600\U0001f600",
    "no\u00a0break\u2003em\u200bzero", "\u0926\u093f\u0932\u094d\u0932\u0940", "x" * 5000,
)  # fmt: skip
"""What tokenizers disagree on: case, accents, scripts, digits, joiners, blanks, length."""
TEXTS_MAX = 64


def texts(rows: Rows, names: Sequence[str]) -> Rows:
    """Rows whose free text is hostile: by itself, and around the data's own words."""
    if not names:
        return Rows(0, {}, {})
    base = np.arange(min(rows.count, TEXTS_MAX), dtype=np.int64)
    count = len(_HOSTILE) + 4 * len(base)
    where = np.concatenate([np.zeros(len(_HOSTILE), dtype=np.int64), np.tile(base, 4)])
    columns = {name: column[where] for name, column in rows.columns.items()}
    for name in names:
        own = [str(item) for item in rows.columns[name][base].tolist()]
        turned = [
            *_HOSTILE, *(item.upper() for item in own), *(item.title() for item in own),
            *(item.replace(" ", "-") for item in own), *(f"({item})...1 {item}_" for item in own),
        ]  # fmt: skip
        columns[name] = np.empty(count, dtype=object)
        columns[name][:] = turned
    return Rows(count, columns, {})


def join(first: Rows, second: Rows) -> Rows:
    """The rows of both."""
    if not second.count:
        return first
    return Rows(
        first.count + second.count,
        {n: np.concatenate([c, second.columns[n]]) for n, c in first.columns.items()},
        first.tensors,
    )
