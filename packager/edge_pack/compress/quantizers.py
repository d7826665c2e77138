"""ONNX Runtime's own quantizers, made to keep their promises.

Guards: they print, log, write files and may change nothing or write nothing: all of that ends
here. The ranges of activations come from our own one-threaded run and are rounded outward, so
that two processors, whose float32 results differ in the last bits, quantize to the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.runtime import Session
from edge_contract.errors import BuildFault
from edge_pack import graphs
from edge_pack.extras import need
from edge_pack.inference import Tensors

STATIC_OPS = ("Conv", "Gemm", "MatMul")
DYNAMIC_OPS = ("Gemm", "MatMul")
OPSET_MIN = 13
"""DequantizeLinear takes a scale for each channel from ai.onnx 13 on."""
RANGE_BITS = 8
"""Binary digits that a range keeps: far coarser than what processors differ by."""
_FLOAT = 1


def static(proto: Any, feeds: Sequence[Tensors], *, per_channel: bool) -> tuple[Any, int]:
    """Weights and activations of dense layers and convolutions in int8, and how many layers.

    Args:
        feeds: inputs whose activations the ranges must hold.

    Raises BuildFault when the quantizer fails or changes nothing.
    """
    quantization = need("onnxruntime.quantization", "static quantization")

    def run(prepared: Path, out: Path) -> None:
        ranges = activation_ranges(need("onnx", "quantizing").load(str(prepared)), feeds)
        quantization.quantize_static(
            str(prepared),
            str(out),
            _reader(quantization, feeds[:1]),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(STATIC_OPS),
            per_channel=per_channel,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={
                "TensorQuantOverrides": {
                    name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
                    for name, (low, high) in ranges.items()
                }
            },
        )

    return _quantized(proto, run, "static quantization", ("QuantizeLinear",))


def dynamic(proto: Any) -> tuple[Any, int]:
    """Weights of dense layers in int8, their inputs quantized row by row as they come.

    Raises BuildFault when the quantizer fails or changes nothing.
    """
    quantization = need("onnxruntime.quantization", "dynamic quantization")

    def run(prepared: Path, out: Path) -> None:
        quantization.quantize_dynamic(
            str(prepared),
            str(out),
            op_types_to_quantize=list(DYNAMIC_OPS),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
        )

    return _quantized(proto, run, "dynamic quantization", ("MatMulInteger",))


def activation_ranges(proto: Any, feeds: Sequence[Tensors]) -> dict[str, tuple[float, float]]:
    """The least and greatest value of each float tensor that reaches or leaves a layer.

    Rounded outward to ``RANGE_BITS`` binary digits, 0 included.

    Raises BuildFault for a value that is not finite, and where there is no layer.
    """
    wanted = _activations(proto.graph)
    if not wanted:
        raise BuildFault("static quantization changed nothing: there is no layer to quantize")
    shown = type(proto).FromString(proto.SerializeToString())
    del shown.graph.output[:]
    for name in wanted:
        value = shown.graph.output.add(name=name)
        value.type.tensor_type.elem_type = _FLOAT
    session = Session(graphs.serialise(shown))
    found: dict[str, tuple[float, float]] = {}
    for feed in feeds:
        for name, value in session.run(feed).items():
            if not np.isfinite(value).all():
                raise BuildFault(f"static quantization found a value of {name!r} not finite")
            low, high = found.get(name, (0.0, 0.0))
            found[name] = (
                min(low, float(value.min(initial=0.0))),
                max(high, float(value.max(initial=0.0))),
            )
    return {name: (-outward(-low), outward(high)) for name, (low, high) in found.items()}


def outward(value: float) -> float:
    """The least number of ``RANGE_BITS`` binary digits that is ``value`` (0 or more) or above."""
    if value <= 0:
        return 0.0
    fraction, exponent = np.frexp(value)
    return float(np.ldexp(np.ceil(np.ldexp(fraction, RANGE_BITS)), exponent - RANGE_BITS))


def _quantized(
    proto: Any, run: Callable[[Path, Path], None], what: str, marks: tuple[str, ...]
) -> tuple[Any, int]:
    """What the quantizer wrote, tidy; ``marks``: operators that show that it did something."""
    if graphs.opsets(proto).get("", 0) < OPSET_MIN:
        raise BuildFault(f"{what} needs ai.onnx {OPSET_MIN}, the model has an older one")
    with tempfile.TemporaryDirectory(prefix="edge-pack-") as folder, _quiet(folder):
        try:
            out = Path(folder) / "quantized.onnx"
            run(_prepared(proto, Path(folder)), out)
            found = need("onnx", "quantizing").load(str(out)) if out.is_file() else None
        except BuildFault:
            raise
        except Exception as error:
            said = next((line for line in str(error).splitlines() if line.strip()), "no reason")
            raise BuildFault(f"{what} failed: {type(error).__name__}: {said[:200]}") from error
    if found is None:
        raise BuildFault(f"{what} wrote no file")
    layers = sum(node.op_type in marks for node in found.graph.node)
    if not layers:
        raise BuildFault(f"{what} changed nothing: it found no layer that it could quantize")
    _check_scales(found, what)
    graphs.tidy(found, ir_max=int(proto.ir_version))
    del found.graph.value_info[:]
    return found, layers


def _prepared(proto: Any, folder: Path) -> Path:
    """Folded and with shapes, as the quantizers need it: torch exports fail without.

    Given as a file: a ModelProto that is handed in loses its weights to one of theirs.
    """
    shape_inference = need("onnxruntime.quantization.shape_inference", "quantizing")
    given, prepared = folder / "given.onnx", folder / "prepared.onnx"
    given.write_bytes(graphs.serialise(proto))
    shape_inference.quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)
    if not prepared.is_file():
        raise BuildFault("the quantizer's preparation wrote no file")
    found = need("onnx", "quantizing").load(str(prepared))
    _flatten_biases(found.graph)
    _declare(found.graph)
    prepared.write_bytes(graphs.serialise(found))
    return prepared


def _flatten_biases(graph: Any) -> None:
    """Biases [1, n] of Gemm as [n]: the quantizer by channel takes the first axis for channels."""
    biases = {node.input[2] for node in graph.node if node.op_type == "Gemm" and node.input[2:]}
    for item in graph.initializer:
        if item.name in biases and len(item.dims) == 2 and item.dims[0] == 1:
            del item.dims[0]


def _activations(graph: Any) -> list[str]:
    """The float32 tensors that go into layers and come out of them, each once."""
    weights = {item.name for item in graph.initializer if item.data_type == _FLOAT}
    every = {item.name for item in graph.initializer}
    layers = [
        node
        for node in graph.node
        if node.op_type in STATIC_OPS and weights.intersection(node.input[1:2])
    ]
    names = (name for node in layers for name in (node.input[0], node.output[0]))
    return [name for name in dict.fromkeys(names) if name not in every]


def _declare(graph: Any) -> None:
    """Types that shape inference does not know, as behind a Scaler: a layer's are float32."""
    known = {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
    for name in _activations(graph):
        if name not in known:
            graph.value_info.add(name=name).type.tensor_type.elem_type = _FLOAT


def _check_scales(proto: Any, what: str) -> None:
    numpy_helper = need("onnx.numpy_helper", "quantizing")
    for item in proto.graph.initializer:
        if item.data_type == _FLOAT and not np.isfinite(numpy_helper.to_array(item)).all():
            raise BuildFault(f"{what} gave {item.name!r} a scale or weight that is not finite")


def _reader(quantization: Any, feeds: Sequence[Tensors]) -> Any:
    """The calibration rows as the library reads them."""
    left = iter(feeds)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Tensors | None:
            return next(left, None)

    return Reader()


@contextlib.contextmanager
def _quiet(folder: str) -> Iterator[None]:
    """Neither prints nor logs, and temporary files of its own go where ours go."""
    before, kept = logging.root.manager.disable, tempfile.tempdir
    logging.disable(logging.ERROR)
    tempfile.tempdir = folder
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
        tempfile.tempdir = kept
