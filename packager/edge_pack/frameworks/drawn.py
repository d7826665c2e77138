"""Inputs for a model that came without data: drawn from its own shapes and types.

Guards: the same model gives the same inputs; one symbol has one size in all inputs; a number
that picks a row of a table stays within it. What is drawn is tried on two rows before it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import EdgeError, InputFault
from edge_pack.tables import Table

ROWS = 64
BYTES_MAX = 32 * 1024**2
SIZES = (8, 16, 32, 64, 224, 1, 128, 384)
"""Tried in turn for every extent that the model leaves open, the row axis aside."""
BOUNDS = (10, 2)
"""Tried in turn for integers of which nothing is known: the second suits masks and lengths."""
WORDS = ("edge-pack-unseen", "a", "b", "")
_WHOLE_ROWS = 2
"""Rows where they are not every input's first axis, so that all go in at once."""

Drawn = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Spec:
    """One input: its extents (a number, or text for an open one) and what its values may be.

    Attributes:
        bound: integers stay under it; None: nothing is known.
        words: what texts may say.
    """

    name: str
    dtype: str
    extents: tuple[int | str, ...]
    bound: int | None = None
    words: tuple[str, ...] = field(default=WORDS)


def table(tensors: Drawn) -> Table:
    """The drawn tensors as the data of a build."""
    rows = max((len(array) for array in tensors.values() if array.ndim), default=1)
    return Table(Path("the drawn inputs"), "", rows, {}, tensors, drawn=True)


def from_specs(specs: Sequence[Spec], run: Callable[[Drawn], Mapping[str, NDArray[Any]]]) -> Table:
    """Inputs that the model answers with finite numbers.

    Args:
        run: the model; it is tried on two rows of each way to draw until one goes.

    Raises InputFault with the model's first complaint when none goes.
    """
    first: EdgeError | None = None
    for positive, bound, size in product((False, True), BOUNDS, SIZES):
        few = _draw(specs, size, bound, positive, rows=2)
        few = {name: array[:1] if _single(specs) else array for name, array in few.items()}
        try:
            answered = run(few)
        except EdgeError as error:
            first = first or error
            if not any(isinstance(e, str) for spec in specs for e in spec.extents[1:]) and (
                "run time" not in str(error)
            ):
                break
            continue
        if all(_finite(array) for array in answered.values()):
            return table(_draw(specs, size, bound, positive, rows=_rows(few)))
    raise InputFault(
        "no inputs drawn from the model's own shapes and types suit it"
        + (f": {first}" if first else ": it answers with what is no finite number"),
        advice="Give real ones: --data FILE.npz with one array for each input, named like it.",
    )


def _finite(array: NDArray[Any]) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _single(specs: Sequence[Spec]) -> bool:
    return all(spec.extents and spec.extents[0] == 1 for spec in specs)


def _by_row(specs: Sequence[Spec]) -> bool:
    return all(spec.extents and isinstance(spec.extents[0], str) for spec in specs)


def _rows(few: Drawn) -> int:
    row = sum(array.nbytes for array in few.values()) / 2
    return int(max(4, min(ROWS, BYTES_MAX / max(row, 1))))


def _draw(
    specs: Sequence[Spec], size: int, bound: int, positive: bool, *, rows: int
) -> Drawn:  # fmt: skip
    rng = np.random.default_rng(0)
    if _single(specs):
        shapes = [(rows, *_shape(spec.extents[1:], {}, size)) for spec in specs]
    else:
        count = rows if _by_row(specs) else _WHOLE_ROWS
        known = {s.extents[0]: count for s in specs if s.extents and isinstance(s.extents[0], str)}
        shapes = [_shape(spec.extents, known, size) for spec in specs]
    return {
        spec.name: _values(rng, spec, shape, bound, positive=positive)
        for spec, shape in zip(specs, shapes, strict=True)
    }


def _shape(
    extents: Sequence[int | str], known: Mapping[Any, int], size: int
) -> tuple[int, ...]:  # fmt: skip
    """Each extent's size; an open one may be a sum, as in ``past_length + 1``."""
    found = []
    for extent in extents:
        if isinstance(extent, int):
            found.append(extent)
            continue
        if extent in known:
            found.append(known[extent])
            continue
        parts = [part.strip() for part in extent.split("+")]
        found.append(sum(int(p) if p.isdecimal() else known.get(p, size) for p in parts))
    return tuple(found)


def _values(
    rng: np.random.Generator, spec: Spec, shape: tuple[int, ...], bound: int, *, positive: bool
) -> NDArray[Any]:
    if spec.dtype == "string":
        return rng.choice(np.array(spec.words, dtype=object), size=shape)
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "iu":
        default = int(np.iinfo(dtype).max) + 1 if dtype.itemsize == 1 else bound
        return rng.integers(0, spec.bound or default, size=shape).astype(dtype)
    if positive:
        return rng.random(shape).astype(dtype)
    values = rng.standard_normal(shape)
    # Rows of different magnitude, as readings have.
    scale = np.array([1.0, 0.1, 3.0, 1.0])[np.arange(shape[0] if shape else 1) % 4]
    spread = scale.reshape((-1,) + (1,) * (len(shape) - 1)) if shape else 1.0
    return np.asarray(values * spread).astype(dtype)


def like(examples: Mapping[str, NDArray[Any]], rows: int) -> Drawn:
    """Inputs like the given ones: numbers near theirs, integers within their range.

    Args:
        rows: length of the first axis; 0 keeps the examples' shapes.
    """
    rng = np.random.default_rng(0)
    found: Drawn = {}
    for name, example in examples.items():
        shape = (rows, *example.shape[1:]) if rows else example.shape
        kind = example.dtype.kind
        if kind == "b":
            found[name] = rng.random(shape) < 0.5
        elif kind in "iu":
            low, high = (int(example.min()), int(example.max())) if example.size else (0, 0)
            found[name] = rng.integers(low, high + 1, size=shape).astype(example.dtype)
        else:
            picked = rng.choice(example.ravel(), size=shape) if example.size else np.zeros(shape)
            deviation = float(np.std(example.astype(np.float64))) if example.size else 0.0
            noise = rng.standard_normal(shape) * (0.25 * deviation or 1.0)
            found[name] = np.asarray(picked + noise).astype(example.dtype)
    for name, example in examples.items():  # what the user showed stands first
        if example.ndim and example.shape[1:] == found[name].shape[1:]:
            count = min(len(example), len(found[name]))
            found[name][:count] = example[:count]
    return found


# -- what an ONNX graph says of its inputs ---------------------------------------------------

_PASS = frozenset({
    "Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Slice",
    "Concat", "Expand", "Split", "Tile",
})  # fmt: skip
"""Operators whose outputs hold nothing but values of their first or every input."""
_WORD_LISTS = ("keys_strings", "cats_strings", "pool_strings")


def facts(proto: Any, extents: Mapping[str, tuple[int, ...]], name: str) -> tuple[int | None, Any]:
    """What the graph does with an input's values: a bound on integers, and known words.

    Args:
        extents: the shape of every tensor that is known, open extents as 0.
    """
    bounds: list[int] = []
    words: set[str] = set()
    for node, position in _readers(proto.graph, name):
        limit = _bound(proto, node, position, extents)
        if limit:
            bounds.append(limit)
        for attribute in node.attribute:
            if attribute.name in _WORD_LISTS:
                words.update(item.decode(errors="replace") for item in attribute.strings)
    return min(bounds, default=None), (*sorted(words), *WORDS)


def _readers(graph: Any, name: str) -> Iterable[tuple[Any, int]]:
    """Nodes that read an input's values, seen through those that only move them."""
    reached, found = {name}, []
    for node in graph.node:  # nodes stand in order
        for position, given in enumerate(node.input):
            if given not in reached:
                continue
            if node.op_type in _PASS and (position == 0 or node.op_type == "Concat"):
                reached.update(node.output)
            else:
                found.append((node, position))
    return found


def _bound(
    proto: Any, node: Any, position: int, extents: Mapping[str, tuple[int, ...]]
) -> int | None:
    """Integers at an input of a node must stay under this; None: any will do."""
    table_shape = extents.get(node.input[0], ())
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    if node.op_type in ("Gather", "GatherElements") and position == 1:
        return (table_shape[axis] or None) if -len(table_shape) <= axis < len(table_shape) else None
    if node.op_type == "GatherND" and position == 1:
        return min((extent for extent in table_shape if extent), default=None)
    if node.op_type == "OneHot" and position == 0:
        return _constant(proto, node.input[1])
    if node.op_type == "EmbedLayerNormalization" and position < 2:
        shape = extents.get(node.input[2 if position == 0 else 4], ())
        return shape[0] if shape else None
    if node.op_type in ("LSTM", "GRU", "RNN") and position == 4:
        return (table_shape[0] + 1) if table_shape and table_shape[0] else None
    return None


def _constant(proto: Any, name: str) -> int | None:
    from onnx import numpy_helper  # noqa: PLC0415  only with onnx at hand

    for item in proto.graph.initializer:
        if item.name == name:
            return int(numpy_helper.to_array(item).ravel()[0])
    for node in proto.graph.node:
        if node.op_type == "Constant" and name in node.output and node.attribute[0].HasField("t"):
            return int(numpy_helper.to_array(node.attribute[0].t).ravel()[0])
    return None
