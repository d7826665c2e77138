"""Every form a model could travel in, by name, and how each is made from the float32 model.

Guards: a form that changed nothing says so by an error, and never looks like one that did; a form
is made from the model, the parameters and the calibration rows alone, so a recipe repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from edge_contract.errors import BuildFault
from edge_pack import runtimes
from edge_pack.compress import quantizers, shrink, storage
from edge_pack.compress.modes import TREES, Mode, Parameter, Parameters
from edge_pack.config import RUNTIME
from edge_pack.inference import Tensors


@dataclass(frozen=True)
class Material:
    """What a form is made from.

    Attributes:
        proto: the float32 model. calibration: feeds of the user's rows, for ranges.
        forest: of a tree ensemble, else None. remake: ``proto`` from another such forest, in a
            version of ai.onnx.ml.
        runtime: the oldest ONNX Runtime of the devices, such as ``>=1.18``.
    """

    proto: Any
    calibration: Sequence[Tensors] = ()
    forest: Any = None
    remake: Callable[[Any, int], Any] | None = None
    runtime: str = RUNTIME


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


def _trees(mode: Mode, material: Material, parameters: Parameters) -> Form:
    if material.forest is None or material.remake is None:
        raise BuildFault(f"{mode} changed nothing: the model is no tree ensemble known here")
    wanted: dict[str, Parameter] = {}
    ml = runtimes.TARGET_ML
    if mode == "trees-merged":
        forest, changed = shrink.merged(material.forest)
    elif mode == "trees-leaf8":
        forest, changed = shrink.rounded(material.forest)
        wanted = {"levels": shrink.LEVELS}
    elif mode == "trees-v5":
        forest, ml = material.forest, runtimes.check_v5_trees(material.runtime)
        changed, wanted = forest.nodes, {"ml": ml}
    else:
        share = float(parameters.get("share", PRUNINGS[-1]["share"]))
        samples = float(parameters.get("samples", PRUNINGS[-1]["samples"]))
        forest, changed = shrink.pruned(material.forest, share, samples)
        wanted = {"share": share, "samples": samples}
    proto = material.remake(forest, ml)
    if list(proto.graph.input) != list(material.proto.graph.input):
        raise BuildFault(f"{mode} failed: no tree asks for some column any more")
    return Form(mode, proto, changed, wanted)


PRUNINGS: tuple[dict[str, float], ...] = tuple(
    {"share": share, "samples": samples}
    for share, samples in (
        (0.25, 12.0), (0.5, 12.0), (0.5, 6.0), (0.75, 6.0), (1.0, 12.0),
        (0.75, 3.0), (1.0, 6.0), (1.0, 3.0), (1.0, 2.0),
    )
)  # fmt: skip
"""From the smallest forest to the largest: the first within the budget is the candidate.

Half the trees with nodes under 6 rows gone was measured at 26 % of the bytes for half a point.
"""


def choices(mode: Mode) -> tuple[Parameters, ...]:
    """The parameters that a search tries for a form, the strongest first."""
    return PRUNINGS if mode == "trees-pruned" else ({},)


_Maker = Callable[[Mode, Material, Parameters], Form]
_MAKERS: dict[Mode, _Maker] = {
    "none": _none,
    "int8-storage": _store(storage.int8_storage, bits=8),
    "int4-storage": _store(storage.int4_storage, bits=4, block=storage.BLOCK),
    "fp16-storage": _store(storage.fp16_storage, bits=16),
    "int8-static": _static,
    "int8-static-tensor": _static,
    "int8-dynamic": _dynamic,
    "trees-merged": _trees,
    "trees-leaf8": _trees,
    "trees-pruned": _trees,
    "trees-v5": _trees,
}


def suits(mode: Mode, material: Material) -> bool:
    """Whether it is worth making: no layer, no candidate."""
    if mode in TREES:
        return material.remake is not None and (mode != "trees-v5" or _suits_v5(material))
    graph = material.proto.graph
    kinds = {node.op_type for node in graph.node if node.domain in ("", "ai.onnx")}
    if mode in ("int8-static", "int8-static-tensor"):
        return bool(kinds.intersection(quantizers.STATIC_OPS))
    if mode == "int8-dynamic":
        # Dynamic quantization of Conv was measured 5 to 10 times slower than float32.
        return bool(kinds.intersection(quantizers.DYNAMIC_OPS)) and "Conv" not in kinds
    if mode != "none":
        return any(4 * prod(item.dims) >= storage.LEAST_BYTES for item in graph.initializer)
    return True


def _suits_v5(material: Material) -> bool:
    """Whether every leaf adds to one output: of five labels it was 5.5 times slower."""
    forest = material.forest
    one = forest is not None and (forest.values.shape[1] == 1 or len(forest.labels) == 2)
    return one and runtimes.has_v5_trees(material.runtime)
