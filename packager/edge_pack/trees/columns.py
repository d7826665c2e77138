"""Tests of categories become tests of numbers: ``code in set`` as ``rank <= cut``.

Sets that lie in one another, such as those of an encoded order, share one column: a code's rank
is the number of sets that it is not in. Sets that do not, such as those of a one-hot encoding,
take a column each, of 0 for members and 1 for others. A table holds each code's ranks.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault
from edge_pack.trees.form import LEAF, LEQ, MEMBER, Codes, Forest

CHAINS_TRIED = 64
"""Bounds the search for a chain that a set fits; a table is a little wider where it gives up."""


@dataclass(frozen=True)
class Table:
    """The ranks of one column's codes. ``ranks``: uint8 or int32 [codes, columns]."""

    codes: Codes
    ranks: NDArray[Any]


@dataclass(frozen=True)
class Derived:
    """A forest without MEMBER tests, over ``numbers`` and then the columns of each table.

    Attributes:
        numbers: raw columns of numbers. texts: raw columns of text, coded or not.
    """

    forest: Forest
    numbers: tuple[int, ...]
    texts: tuple[int, ...]
    tables: tuple[Table, ...]


def derive(forest: Forest, numbers: Sequence[int], texts: Sequence[int]) -> Derived:
    """The forest over numbers and ranks of codes.

    Args:
        numbers, texts: the raw columns that are read, by their type.

    Raises BuildFault when another column is compared with a number.
    """
    place = np.full(max(forest.width, *numbers, 0) + 1, -1, dtype=np.int64)
    place[list(numbers)] = np.arange(len(numbers))
    asks = forest.test == MEMBER
    column = np.where(forest.leaf, -1, place[forest.column])
    cut, tables, width = forest.cut.copy(), [], len(numbers)
    for codes in forest.codes:
        here = asks & (forest.column == codes.column)
        wanted, which = np.unique(forest.member[here], return_inverse=True)
        chain, rank, ranks = _chains([forest.sets[i] for i in wanted], codes.size)
        column[here] = width + chain[which]
        cut[here] = rank[which] + 0.5
        tables.append(Table(codes, ranks))
        width += ranks.shape[1]
    if (column[~forest.leaf] < 0).any():
        raise BuildFault(
            "a column of text is compared with a number",
            advice="Encode the column before the trees, or give it as numbers.",
        )
    changed = replace(
        forest,
        width=width,
        column=column,
        cut=cut,
        test=np.where(asks, LEQ, np.where(forest.leaf, LEAF, forest.test)),
        member=np.full(forest.nodes, -1, dtype=np.int64),
        sets=(),
        codes=(),
    )
    return Derived(changed, tuple(numbers), tuple(texts), tuple(tables))


def _chains(
    sets: Sequence[tuple[int, ...]], codes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """For each set its chain and its rank there; and the ranks [codes, chains]."""
    inside = np.zeros((len(sets), codes), dtype=bool)
    for row, members in zip(inside, sets, strict=True):
        row[list(members)] = True
    order = sorted(range(len(sets)), key=lambda i: (len(sets[i]), sets[i]))
    chains: list[list[int]] = []
    last = np.zeros((len(sets), codes), dtype=bool)
    chain, rank = np.zeros(len(sets), np.int64), np.zeros(len(sets), np.int64)
    for i in order:
        tried = last[: min(len(chains), CHAINS_TRIED)]
        fits = np.flatnonzero(~(tried & ~inside[i]).any(axis=1))
        at = int(fits[0]) if len(fits) else len(chains)
        if at == len(chains):
            chains.append([])
        chain[i], rank[i] = at, len(chains[at])
        chains[at].append(i)
        last[at] = inside[i]
    ranks = np.stack([(~inside[members]).sum(axis=0) for members in chains], axis=1)
    return chain, rank, ranks.astype(np.uint8 if ranks.max() < 256 else np.int32)
