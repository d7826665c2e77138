"""Models that answer what they are given, so that a test sees what a door made of a file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_agent import Model
from edge_contract import bundle as bundles
from edge_contract.manifest import Outputs, Tensor


@pytest.fixture(scope="session")
def echo_bundle(seal_bundle) -> Callable[..., bytes]:
    """A bundle whose output ``y`` is its input ``x`` of any shape and type."""
    from onnx import TensorProto, helper

    kinds = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}

    def build(*shape: int | None, dtype: str = "float32", name: str = "echo") -> bytes:
        extents = [each if each is not None else f"n{i}" for i, each in enumerate(shape)]
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])], "g",
            [helper.make_tensor_value_info("x", kinds[dtype], extents)],
            [helper.make_tensor_value_info("y", kinds[dtype], extents)],
        )  # fmt: skip
        onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return seal_bundle(
            onnx.SerializeToString(), name=name, task="tensors", features=(),
            inputs=(Tensor(name="x", dtype=dtype, shape=shape),),
            outputs=Outputs(tensors=("y",)), profile=None,
            golden_inputs={"x": np.zeros([each or 2 for each in shape], dtype)},
        )  # fmt: skip

    return build


@pytest.fixture
def echo(echo_bundle) -> Callable[..., Model]:
    """As ``echo_bundle``, open."""
    return lambda *shape, **other: Model.from_bundle(bundles.read(echo_bundle(*shape, **other)))
