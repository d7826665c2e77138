"""A PyTorch module or exported program as an ONNX graph, the same bytes every time.

Guards: the row axis is open and nothing else; what the exporter prints, warns and advises over
pages comes down to the operator or the user's line that does not convert, and the way out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault
from edge_pack.extras import need

OPSET = 18
"""What torch's exporter writes natively, and every runtime in the table takes."""
IR = 8
"""Came with ai.onnx 18 (Versioning.md); the exporter stamps a newer one that nothing needs."""

_PURPOSE = "exporting a PyTorch model"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's own notes, warnings and prints from the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def export(
    program: Any,
    example: Mapping[str, NDArray[Any]],
    outputs: tuple[str, ...],
    *,
    by_row: bool,
    stated: bool,
) -> Any:
    """The ModelProto of a module or exported program.

    Args:
        example: inputs by name, in order: two rows where rows are open.
        outputs: names for the outputs, in order.
        by_row: the first axis of every input is rows. stated: a program states its own axes.

    Raises BuildFault naming the operator or the line that does not convert.
    """
    torch = need("torch", _PURPOSE)
    need("onnxscript", _PURPOSE)
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in example.values())
    shapes = None
    if by_row and not stated:
        shapes = {name: {0: torch.export.Dim.DYNAMIC} for name in example}
    try:
        with quiet(), torch.no_grad():
            made = torch.onnx.export(
                program,
                inputs,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=shapes,
                input_names=list(example),
                output_names=list(outputs),
                external_data=False,
                verbose=False,
            )
            proto = made.model_proto
    except Exception as error:
        raise _fault(error) from error
    found = [value.name for value in proto.graph.output]
    if found != list(outputs):
        raise BuildFault(
            f"the exported model has the outputs {', '.join(found)}, the module returns "
            f"{', '.join(outputs)}",
            advice="Return each tensor once, and none that is an input unchanged.",
        )
    plain_symbols(proto, by_row)
    proto.ir_version = IR
    return proto


def plain_symbols(proto: Any, by_row: bool) -> None:
    """Names of open axes that tell nothing of the exporter's own numbering."""
    known: dict[str, str] = {}
    for value in (*proto.graph.input, *proto.graph.output):
        for extent in value.type.tensor_type.shape.dim:
            if extent.HasField("dim_param"):
                first = "rows" if by_row and not known else f"open_{len(known)}"
                extent.dim_param = known.setdefault(extent.dim_param, first)


_LINE = re.compile(r'File "([^"]+)", line (\d+), in (\w+)\s*\n\s*([^\n]+)')
_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")


def _fault(error: Exception) -> BuildFault:
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    text = "\n".join(str(one) for one in causes)
    operator = _OPERATOR.search(text)
    if operator:
        return BuildFault(
            f"PyTorch's operator {operator[1]} has no conversion to ONNX{_where(text)}",
            advice="Compute it with other operators, or before the model.",
        )
    if "data-dependent" in text or "dynamic control flow" in text:
        return BuildFault(
            f"forward() takes a decision by the values of a tensor{_where(text)}",
            advice="Write it with torch.where, or with torch.cond where a whole branch depends "
            "on it.",
        )
    if "static shape" in text or "specialized" in text.lower() or "ConstraintViolation" in text:
        return BuildFault(
            f"forward() fixes the number of rows{_where(text)}: {_last(causes)}",
            advice="Use x.shape[0] or -1 in place of a number in view() and reshape().",
        )
    return BuildFault(
        f"PyTorch could not export the model{_where(text)}: {_last(causes)}",
        advice="torch.export.export(model, inputs) says more; a model that exports there and not "
        "here can be given as a .pt2 file.",
    )


def _where(text: str) -> str:
    """The last line of the user's own in an exporter's message."""
    lines = [found for found in _LINE.finditer(text) if "site-packages" not in found[1]]
    return f", at {lines[-1][1]}:{lines[-1][2]}: {lines[-1][4].strip()}" if lines else ""


def _last(causes: list[BaseException]) -> str:
    lines = [line.strip() for line in str(causes[-1]).splitlines() if line.strip()]
    return f"{type(causes[-1]).__name__}: {' '.join(lines)[:300]}"
