"""Every form a model could travel in, by name, and how each is made from the float32 model.

Guards: a form that changed nothing says so by an error, and never looks like one that did; a form
is made from the model, the parameters and the calibration rows alone, so a recipe repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_contract.errors import BuildFault
from edge_pack.compress import quantizers, storage
from edge_pack.compress.modes import Mode, Parameter, Parameters
from edge_pack.inference import Tensors


@dataclass(frozen=True)
class Material:
    """What a form is made from.

    Attributes:
        proto: the float32 model. calibration: feeds of the user's rows, for ranges.
    """

    proto: Any
    calibration: Sequence[Tensors] = ()


@dataclass(frozen=True)
class Form:
    """A model in one form.

    Attributes:
        changed: tensors, layers or nodes that are other than in float32.
        parameters: everything that its making was told, so that a recipe can repeat it.
    """

    mode: Mode
    proto: Any
    changed: int = 0
    parameters: Parameters = field(default_factory=dict)


def make(mode: Mode, material: Material, parameters: Parameters) -> Form:
    """The model in the form ``mode``.

    Args:
        parameters: of a recipe; a form takes its own values for those that are not there.

    Raises BuildFault when nothing changed, or the quantizer could not do it.
    """
    return _MAKERS[mode](mode, material, parameters)


def _none(mode: Mode, material: Material, _parameters: Parameters) -> Form:
    return Form(mode, material.proto)


def _store(store: Callable[[Any], tuple[Any, int]], **parameters: Parameter) -> _Maker:
    def make(mode: Mode, material: Material, _given: Parameters) -> Form:
        proto, changed = store(material.proto)
        return Form(mode, proto, changed, parameters)

    return make


def _static(mode: Mode, material: Material, _parameters: Parameters) -> Form:
    if not material.calibration:
        raise BuildFault(f"{mode} needs rows to calibrate with")
    per_channel = mode == "int8-static"
    proto, changed = quantizers.static(
        material.proto, material.calibration, per_channel=per_channel
    )
    parameters: dict[str, Parameter] = {"bits": 8, "calibration": "minmax"}
    return Form(mode, proto, changed, parameters)


def _dynamic(mode: Mode, material: Material, _parameters: Parameters) -> Form:
    proto, changed = quantizers.dynamic(material.proto)
    return Form(mode, proto, changed, {"bits": 8})


_Maker = Callable[[Mode, Material, Parameters], Form]
_MAKERS: dict[Mode, _Maker] = {
    "none": _none,
    "int8-storage": _store(storage.int8_storage, bits=8),
    "int4-storage": _store(storage.int4_storage, bits=4, block=storage.BLOCK),
    "fp16-storage": _store(storage.fp16_storage, bits=16),
    "int8-static": _static,
    "int8-static-tensor": _static,
    "int8-dynamic": _dynamic,
}


def suits(mode: Mode, material: Material) -> bool:
    """Whether it is worth making: no layer, no candidate."""
    graph = material.proto.graph
    kinds = {node.op_type for node in graph.node if node.domain in ("", "ai.onnx")}
    if mode in ("int8-static", "int8-static-tensor"):
        return bool(kinds.intersection(quantizers.STATIC_OPS))
    if mode == "int8-dynamic":
        # Dynamic quantization of Conv was measured 5 to 10 times slower than float32.
        return bool(kinds.intersection(quantizers.DYNAMIC_OPS)) and "Conv" not in kinds
    return True
