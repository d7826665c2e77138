"""Writes one fitted step as ONNX nodes inside a skl2onnx conversion, in the input's own precision.

Guards: a step of ours computes in float64 where its input is float64 and in float32 else; the
same step gives the same nodes. Whether the nodes are right is for the parity gate to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_pack.extras import need

PURPOSE = "converting scikit-learn to ONNX"
Width = Callable[[Any, int], int]
"""Columns that a fitted step gives for so many columns."""
FLOAT, INT64, STRING, DOUBLE = 1, 7, 8, 11
"""TensorProto.DataType (onnx.proto3)."""


class Emitter:
    """Nodes as calls: ``e.Sub(x, e.const(mean))``. Attributes go by keyword."""

    def __init__(self, container: Any, scope: Any, operator: Any) -> None:
        self._ops = need("skl2onnx.algebra.onnx_ops", PURPOSE)
        self._opset = container.target_opset
        self._container, self._scope, self.operator = container, scope, operator
        self.step = operator.raw_operator
        self.double = _is_double(operator.inputs[0].type)
        self.kind = DOUBLE if self.double else FLOAT

    def __getattr__(self, name: str) -> Callable[..., Any]:
        made = getattr(self._ops, f"Onnx{name}")

        def node(*inputs: Any, **attributes: Any) -> Any:
            return made(*inputs, op_version=self._opset, **attributes)

        return node

    def contrib(self, name: str, node: Any, **attributes: Any) -> str:
        """The output of one of the runtime's own operators (com.microsoft) on ``node``."""
        given = self._scope.get_unique_variable_name(f"{name}_in")
        out: str = self._scope.get_unique_variable_name(name)
        self.Identity(node, output_names=[given]).add_to(self._scope, self._container)
        self._container.add_node(name, given, out, op_domain="com.microsoft", **attributes)
        return out

    def inner(self, estimator: Any, *outputs: str) -> list[str]:
        """The output names of another estimator that reads this step's input."""
        supported = need("skl2onnx._supported_operators", PURPOSE)
        types = need("skl2onnx.common.data_types", PURPOSE)
        alias = supported.sklearn_operator_name_map[type(estimator)]
        operator = self._scope.declare_local_operator(alias, estimator)
        operator.inputs = self.operator.inputs
        for name in outputs:
            kind = types.Int64TensorType if name == "label" else _number_type(self.operator)
            operator.outputs.append(self._scope.declare_local_variable(name, kind()))
        return [variable.onnx_name for variable in operator.outputs]

    def const(self, values: Any) -> NDArray[Any]:
        """Numbers in the precision of the step's input."""
        return np.asarray(values, dtype=np.float64 if self.double else np.float32)

    def x(self) -> Any:
        """The step's input as one tensor of numbers [rows, columns]."""
        variables = self.operator.inputs
        parts = [self.Cast(variable, to=self.kind) for variable in variables]
        return parts[0] if len(parts) == 1 else self.Concat(*parts, axis=1)

    def number(self, node: Any) -> Any:
        """A boolean or integer node as numbers."""
        return self.Cast(node, to=self.kind)

    def give(self, node: Any, output: int = 0) -> None:
        """Make ``node`` the step's output."""
        name = self.operator.outputs[output].full_name
        self.Identity(node, output_names=[name]).add_to(self._scope, self._container)


def _is_double(kind: Any) -> bool:
    return type(kind).__name__ == "DoubleTensorType"


def columns_of(operator: Any) -> int:
    """Columns of all inputs together."""
    return sum(int(variable.type.shape[1]) for variable in operator.inputs)


def register_transformer(cls: type, emit: Callable[[Emitter, Any], Any], width: Width) -> None:
    """Teach skl2onnx a step of numbers: ``emit(e, x)`` gives its output."""

    def shape(operator: Any) -> None:
        columns = width(operator.raw_operator, columns_of(operator))
        operator.outputs[0].type = _number_type(operator)([None, columns])

    def convert(scope: Any, operator: Any, container: Any) -> None:
        e = Emitter(container, scope, operator)
        e.give(emit(e, e.x()))

    _register(cls, shape, convert)


def register_regressor(cls: type, emit: Callable[[Emitter, Any], Any], width: Width) -> None:
    """Teach skl2onnx a regressor: ``emit(e, x)`` gives [rows, targets]."""
    register_transformer(cls, emit, width)


def register_labeller(cls: type, emit: Callable[[Emitter, Any], tuple[Any, Any]]) -> None:
    """Teach skl2onnx a clusterer or outlier detector: ``emit`` gives int64 labels, and scores."""
    types = need("skl2onnx.common.data_types", PURPOSE)

    def shape(operator: Any) -> None:
        operator.outputs[0].type = types.Int64TensorType([None])
        operator.outputs[1].type = _number_type(operator)([None, 1])

    def convert(scope: Any, operator: Any, container: Any) -> None:
        e = Emitter(container, scope, operator)
        labels, scores = emit(e, e.x())
        e.give(labels)
        e.give(scores, 1)

    _register(cls, shape, convert)


def register_classifier(cls: type, emit: Callable[[Emitter, Any], tuple[Any, Any]]) -> None:
    """Teach skl2onnx a classifier: ``emit`` gives the labels' positions, and scores."""
    types = need("skl2onnx.common.data_types", PURPOSE)
    shapes = need("skl2onnx.common.shape_calculator", PURPOSE)

    def convert(scope: Any, operator: Any, container: Any) -> None:
        e = Emitter(container, scope, operator)
        found, scores = emit(e, e.x())
        labels = np.asarray(e.step.classes_)
        text = isinstance(operator.outputs[0].type, types.StringTensorType)
        e.give(e.Gather(labels.astype(object if text else np.int64), found, axis=0))
        e.give(scores, 1)

    options = {"zipmap": [True, False, "columns"], "nocl": [True, False],
               "output_class_labels": [False, True]}  # fmt: skip
    _register(cls, shapes.calculate_linear_classifier_output_shapes, convert, options)


def _register(
    cls: type,
    shape: Callable[[Any], None],
    convert: Callable[[Any, Any, Any], None],
    options: dict[str, Any] | None = None,
) -> None:
    supported = need("skl2onnx._supported_operators", PURPOSE)
    supported.update_registered_converter(
        cls, f"EdgePack{cls.__name__}", shape, convert, options=options
    )


def _number_type(operator: Any) -> Any:
    types = need("skl2onnx.common.data_types", PURPOSE)
    double = _is_double(operator.inputs[0].type)
    return types.DoubleTensorType if double else types.FloatTensorType
