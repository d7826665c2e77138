"""Trees inside another estimator (voting, stacking, calibration, bagging): our emission in theirs.

skl2onnx converts the outer estimator; for each model of trees in it, it asks what stands here
instead of its own converters, some of which fail or turn categorical splits into numeric ones.

Guards: the tests are the exact ones of ``emit``; what a value lost before it comes here, in a
float32 input or a step that skl2onnx wrote, is for the parity gate to see.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from edge_contract.errors import BuildFault
from edge_pack.extras import need
from edge_pack.intake import INPUT
from edge_pack.runtimes import TARGET_ML
from edge_pack.trees import emit, readers
from edge_pack.trees.columns import derive
from edge_pack.trees.form import Forest
from edge_pack.trees.graph import DOUBLE, Graph

PURPOSE = "converting trees inside other estimators"
_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "raw_scores": [True, False],
    "nocl": [True, False],
    "output_class_labels": [False, True],
}


def teach() -> None:
    """Let skl2onnx use our emission for every model of trees whose library is loaded (``lending``).

    All but outlier detectors, whose scores skl2onnx has an output for and we have not.
    """
    supported = need("skl2onnx._supported_operators", PURPOSE).sklearn_operator_name_map
    known = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}": kind for kind in supported}
    for name in readers.READERS:
        package, _, plain = name.partition(".")
        kind = known.get(name) or getattr(sys.modules.get(package), plain, None)
        if kind is None or not plain.endswith(("Classifier", "Regressor")):
            continue
        _register(kind, supported.get(kind, f"EdgePack{plain}"))


def _register(kind: type, alias: str) -> None:
    """Our converter beside skl2onnx's, which keeps what is not read as trees."""
    registration = need("skl2onnx.common._registration", PURPOSE)
    shapes = need("skl2onnx.common.shape_calculator", PURPOSE)
    skl2onnx = need("skl2onnx", PURPOSE)
    classifier = kind.__name__.endswith("Classifier")
    stock, shape, options = None, None, dict(_OPTIONS) if classifier else None
    if not alias.startswith("EdgePack"):
        known = registration.get_converter(alias)
        stock, shape = known._fct, registration.get_shape_calculator(alias)
        if hasattr(known, "get_allowed_options"):
            options = {**(options or {}), **(known.get_allowed_options() or {})}

    def convert(scope: Any, operator: Any, container: Any) -> None:
        forest = readers.read(operator.raw_operator)
        if forest is not None:
            _convert(forest, scope, operator, container)
        elif stock is not None:
            stock(scope, operator, container)
        else:
            raise BuildFault(
                f"{kind.__name__} is not only trees, and stands inside another estimator",
                advice="Train it with trees as its booster.",
            )

    if shape is None and classifier:
        shape = shapes.calculate_linear_classifier_output_shapes
    elif shape is None:
        shape = shapes.calculate_linear_regressor_output_shapes
    skl2onnx.update_registered_converter(
        kind, alias, shape, convert, overwrite=True, options=options
    )


def _convert(forest: Forest, scope: Any, operator: Any, container: Any) -> None:
    if any(codes.text for codes in forest.codes):
        raise BuildFault(
            f"{type(operator.raw_operator).__name__} reads text columns inside another estimator",
            advice="Encode the text with OneHotEncoder or OrdinalEncoder in a step of its own.",
        )
    wanted = {"raw_scores": False, "nocl": False}
    options = container.get_options(operator.raw_operator, wanted) if forest.labels else wanted
    if options.get("nocl"):
        forest = replace(forest, labels=tuple(range(len(forest.labels))))
    graph = Graph()
    tensor = operator.inputs[0]
    narrow = type(tensor.type).__name__ != "DoubleTensorType"
    rows = graph.add("Cast", [INPUT], to=DOUBLE) if narrow else INPUT
    derived = derive(forest, range(forest.width), ())
    names = emit.body(graph, derived, rows, raw_scores=bool(options.get("raw_scores")))
    renamed = {INPUT: tensor.full_name}
    for name, output in zip(names, operator.outputs, strict=False):
        wide = type(output.type).__name__ == "DoubleTensorType"
        renamed[name] = scope.get_unique_variable_name(name) if wide else output.full_name
    nodes = [*_renamed(graph, scope, renamed)]
    for name, output in zip(names, operator.outputs, strict=False):
        if renamed[name] != output.full_name:
            nodes.append(
                graph.helper.make_node("Cast", [renamed[name]], [output.full_name], to=DOUBLE)
            )
    for node in nodes:
        version = TARGET_ML if node.domain else container.target_opset
        container.node_domain_version_pair_sets.add((node.domain, version))
        container.nodes.append(node)
    for name, weight in graph.weights.items():
        kept = copy.deepcopy(weight)
        kept.name = renamed.get(name, name)
        container.initializers.append(kept)


def _renamed(graph: Graph, scope: Any, renamed: dict[str, str]) -> Iterator[Any]:
    """The graph's nodes with names that nobody else in the outer graph has."""
    for name in graph.weights:
        renamed[name] = scope.get_unique_variable_name(f"trees_{name}")
    for node in graph.nodes:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name not in renamed:
                    renamed[name] = scope.get_unique_variable_name(f"trees_{name}")
                names[i] = renamed[name]
        node.name = scope.get_unique_operator_name(node.op_type)
        yield node
