"""Surgery on ONNX graphs: what a bundle's model must look like, whoever exported it.

Guards: the same model gives the same bytes (fixed names, no doc strings, metadata or local
paths, deterministic serialisation); outputs are plain tensors; no operator set is declared that
no node needs. Pure: a ModelProto in, bytes or facts out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edge_contract.errors import BuildFault

GRAPH_NAME = "model"
_MAPS = ("ZipMap",)


def strip_zipmap(proto: Any) -> tuple[int | str, ...]:
    """Make each ZipMap's input tensor an output instead of its list of maps; the labels.

    The list of maps costs a dictionary a row at run time, and no typed client can read it.
    """
    graph = proto.graph
    labels: tuple[int | str, ...] = ()
    for node in [node for node in graph.node if node.op_type in _MAPS]:
        labels = _labels_of(node)
        position = [value.name for value in graph.output].index(node.output[0])
        value = graph.output[position]
        value.ClearField("type")
        value.type.tensor_type.elem_type = 1
        rows = value.type.tensor_type.shape.dim.add()
        rows.dim_param = "rows"
        value.type.tensor_type.shape.dim.add().dim_value = len(labels)
        name = node.input[0]
        graph.node.remove(node)
        _rename(graph, name, value.name)
    return labels


def _labels_of(node: Any) -> tuple[int | str, ...]:
    for attribute in node.attribute:
        if attribute.name == "classlabels_int64s" and attribute.ints:
            return tuple(int(label) for label in attribute.ints)
        if attribute.name == "classlabels_strings" and attribute.strings:
            return tuple(label.decode() for label in attribute.strings)
    return ()


def class_labels(proto: Any) -> tuple[int | str, ...]:
    """The labels that a classifier node of ai.onnx.ml declares, () when there is none."""
    for node in proto.graph.node:
        if node.op_type.endswith("Classifier") and node.domain == "ai.onnx.ml":
            found = _labels_of(node) or tuple(
                int(label)
                for attribute in node.attribute
                if attribute.name == "classlabels_ints"
                for label in attribute.ints
            )
            if found:
                return found
    return ()


def rename_output(proto: Any, old: str, new: str) -> None:
    """Give an output tensor another name."""
    if old != new:
        taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}
        taken.update(value.name for value in proto.graph.input)
        if new in taken:
            _rename(proto.graph, new, f"{new}_inner")
        for value in proto.graph.output:
            if value.name == old:
                value.name = new
        _rename(proto.graph, old, new)


def _rename(graph: Any, old: str, new: str) -> None:
    """Rename a tensor wherever nodes, subgraphs included, make or read it."""
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
        for inner in _subgraphs(node):
            _rename(inner, old, new)
    for initializer in graph.initializer:
        if initializer.name == old:
            initializer.name = new


def keep_outputs(proto: Any, names: Sequence[str]) -> None:
    """Drop the other outputs, then every node, weight and input that nothing needs any more."""
    graph = proto.graph
    kept = {value.name: value for value in graph.output}
    values = [kept[name] for name in names]
    del graph.output[:]
    graph.output.extend(values)
    needed = set(names)
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(_reads(node))
    nodes.reverse()
    replace(graph.node, nodes)
    replace(graph.initializer, [item for item in graph.initializer if item.name in needed])
    replace(graph.input, [value for value in graph.input if value.name in needed])


def _reads(node: Any) -> Iterator[str]:
    yield from node.input
    yield from reads_inside(node)


def reads_inside(node: Any) -> Iterator[str]:
    """The names that a node's subgraphs read, their own and outer ones."""
    for inner in _subgraphs(node):
        for nested in inner.node:
            yield from _reads(nested)
        yield from (value.name for value in inner.output)


def replace(field: Any, items: Sequence[Any]) -> None:
    """Make ``items``, some of which may be in the field already, all that it holds."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)


def tidy(proto: Any, *, ir_max: int) -> None:
    """Fixed names, no remarks, no unused operator set, and an IR that old runtimes take."""
    proto.producer_name = "edge-pack"
    for name in ("producer_version", "domain", "model_version", "doc_string"):
        proto.ClearField(name)
    del proto.metadata_props[:]
    proto.graph.name = GRAPH_NAME
    _strip_remarks(proto.graph)
    for function in proto.functions:
        _strip_remarks(function)
    _prune_opsets(proto)
    proto.ir_version = min(proto.ir_version, ir_max)


def _strip_remarks(graph: Any) -> None:
    """Doc strings, metadata and inferred shapes: exporters leave stack traces and paths there."""
    graph.ClearField("doc_string")
    for field in ("metadata_props", "value_info"):
        if hasattr(graph, field):
            del getattr(graph, field)[:]
    parts = [*graph.node, *getattr(graph, "initializer", ())]
    parts += [part for part in (*graph.input, *graph.output) if not isinstance(part, str)]
    for part in parts:
        part.ClearField("doc_string")
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    for node in graph.node:
        for inner in _subgraphs(node):
            _strip_remarks(inner)


def _prune_opsets(proto: Any) -> None:
    used = {_domain(node) for node in every_node(proto)}
    kept = sorted(
        {_plain(item.domain): item.version for item in proto.opset_import}.items()
    )  # fmt: skip
    del proto.opset_import[:]
    for domain, version in kept:
        if domain in used:
            proto.opset_import.add(domain=domain, version=version)
    if not proto.opset_import:
        proto.opset_import.add(domain="", version=dict(kept).get("", 1))


def every_node(proto: Any) -> Iterator[Any]:
    """All nodes: of the graph, its subgraphs and the model's functions."""
    for holder in (proto.graph, *proto.functions):
        yield from _nodes(holder)


def _nodes(holder: Any) -> Iterator[Any]:
    for node in holder.node:
        yield node
        for inner in _subgraphs(node):
            yield from _nodes(inner)


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def opsets(proto: Any) -> dict[str, int]:
    """Operator sets by domain; "" is ai.onnx."""
    return {_plain(item.domain): int(item.version) for item in proto.opset_import}


def operators(proto: Any) -> tuple[str, ...]:
    """Every operator used, sorted: ``MatMul``, or ``domain:Name`` outside ai.onnx."""
    names = {
        f"{domain}:{node.op_type}" if (domain := _domain(node)) else node.op_type
        for node in every_node(proto)
    }
    return tuple(sorted(names))


def check_known(proto: Any) -> None:
    """Raise BuildFault for an operator outside what ONNX Runtime ships for the CPU."""
    known = {"", "ai.onnx.ml", "com.microsoft", *(f.domain for f in proto.functions)}
    foreign = sorted(
        {f"{_domain(n)}:{n.op_type}" for n in every_node(proto) if _domain(n) not in known}
    )
    if foreign:
        raise BuildFault(
            f"the model uses custom operators, which devices do not have: {', '.join(foreign)}",
            advice="Export it with standard operators only.",
        )


def _domain(node: Any) -> str:
    return _plain(node.domain)


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else str(domain)


def serialise(proto: Any) -> bytes:
    """The model's bytes; equal models give equal bytes."""
    data: bytes = proto.SerializeToString(deterministic=True)
    return data
