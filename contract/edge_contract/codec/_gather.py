"""From arrays in a file to columns: what one statistic describes goes into one column.

An isolation forest, a bagging or a boosting of single trees is a hundred small nodes with the
same attributes. The arrays of one name are joined over all nodes that look alike, so that their
columns are coded as those of one forest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from edge_contract.codec._cells import ALPHABET_MAX, Array, Cells, dtype
from edge_contract.codec._forest import Forest, is_leaf
from edge_contract.codec._protobuf import Hole

COLUMN_MIN_BYTES = 64  # a shorter column is better off in the skeleton
MODES = b"nodes_modes"
# Columns that others refer to come first, in this order, and are kept by the decoder.
_FIRST = (MODES, b"nodes_treeids", b"nodes_nodeids", b"nodes_featureids")


@dataclass
class Family:
    """The columns of tree ensembles that look alike: attribute name -> column."""

    forest: Forest
    columns: dict[bytes, Column] = field(default_factory=dict)

    @property
    def modes(self) -> int:
        """The place of the modes in the plan."""
        return self.columns[MODES].place


@dataclass
class Column:
    """The arrays of one name, joined in the order of the file.

    Attributes:
        place: the column's number in the plan. keep: others may refer to it.
    """

    name: bytes
    cells: Cells
    values: Array
    holes: tuple[Hole, ...]
    family: Family | None = None
    place: int = 0
    keep: bool = False


def gather(holes: list[Hole]) -> list[Column]:
    """The columns of a file in the order of the plan."""
    columns: list[Column] = []
    for alike in _groups(holes):
        joined = [_join(same) for same in alike]
        family = _family(joined)
        for column in joined:
            column.place = len(columns)
            column.family = family
            column.keep = family is not None and column.name in _FIRST
            columns.append(column)
    return columns


def _groups(holes: list[Hole]) -> list[list[list[Hole]]]:
    """Holes by look of their node, then by name; tensors, which have no name, stand alone."""
    nodes: dict[int, list[Hole]] = {}
    for hole in holes:
        nodes.setdefault(hole.node, []).append(hole)
    looks: dict[tuple[object, ...], dict[bytes, list[Hole]]] = {}
    alone: list[list[list[Hole]]] = []
    for members in nodes.values():
        names = [hole.name for hole in members]
        if all(names) and len(set(names)) == len(names):
            look = tuple((hole.name, hole.cells.kind, hole.cells.tag) for hole in members)
            group = looks.setdefault(look, {})
            for hole in members:
                group.setdefault(hole.name, []).append(hole)
        else:
            alone += [[[hole]] for hole in members]
    joined = []
    for group in looks.values():
        parts = [part for same in group.values() for part in _one_alphabet(same)]
        joined.append(sorted(parts, key=_rank))
    return [_long_enough(group) for group in joined + alone]


def _one_alphabet(same: list[Hole]) -> list[list[Hole]]:
    """All together; each alone where they have too many texts for one column."""
    texts = {text for hole in same for text in hole.cells.alphabet}
    return [same] if len(texts) <= ALPHABET_MAX else [[hole] for hole in same]


def _rank(same: list[Hole]) -> int:
    return _FIRST.index(same[0].name) if same[0].name in _FIRST else len(_FIRST)


def _long_enough(group: Iterable[list[Hole]]) -> list[list[Hole]]:
    return [same for same in group if sum(h.end - h.start for h in same) >= COLUMN_MIN_BYTES]


def _join(holes: list[Hole]) -> Column:
    first = holes[0]
    width = max(hole.cells.width for hole in holes)
    alphabet: dict[bytes, int] = {}
    parts = []
    for hole in holes:
        numbers = [alphabet.setdefault(text, len(alphabet)) for text in hole.cells.alphabet]
        values = np.array(numbers)[hole.values] if numbers else hole.values
        parts.append(values.astype(dtype(width)))
    values = np.concatenate(parts) if len(parts) > 1 else parts[0]
    cells = Cells(first.cells.kind, first.cells.tag, values.size, width, tuple(alphabet))
    return Column(first.name, cells, values, tuple(holes))


def _family(columns: list[Column]) -> Family | None:
    """The forest that the columns describe, with those that fit it; None where they do not."""
    modes = next((column for column in columns if column.name == MODES), None)
    if modes is None:
        return None
    leaves = [i for i, text in enumerate(modes.cells.alphabet) if is_leaf(text)]
    if len(leaves) != 1:
        return None
    family = Family(Forest(modes.values == leaves[0]))
    for column in columns:
        if column.name not in _FIRST or column.values.size == modes.values.size:
            family.columns[column.name] = column
    return family
