"""Builds of networks in one call, and small ONNX graphs written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.model import Model
from edge_pack import BuildConfig, Built, build

Ship = Callable[..., Built]


@pytest.fixture
def ship(tmp_path: Path) -> Ship:
    """``ship(model, data, **options)``: build, open the bundle as a device does, check it.

    ``data``: a dict of arrays becomes an NPZ file, a path stays, None builds without data.
    """

    def call(model: str | Path, data: Any = None, **options: Any) -> Built:
        if isinstance(data, dict):
            path = tmp_path / "rows.npz"
            np.savez(path, **data)
            data = path
        config = {
            "model": model, "data": data, "name": "net", "version": "1.0",
            "out": tmp_path / "net.edgepack", "measure": False,
        }  # fmt: skip
        built = build(BuildConfig(**{**config, **options}), notice=lambda _text: None)
        device = Model.open(built.config.out)
        assert list(device.check_golden()) == []
        device.close()
        return built

    return call


@pytest.fixture
def graph(tmp_path: Path) -> Callable[..., Path]:
    """``graph(nodes, inputs, outputs, weights)``: write an ONNX file, return its path."""

    def call(
        nodes: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        weights: dict[str, Any] | None = None,
        *,
        opset: int = 17,
        ir: int = 8,
        domains: Sequence[str] = (),
        path: Path | None = None,
        **model: Any,
    ) -> Path:
        stored = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
        made = helper.make_model(
            helper.make_graph(list(nodes), "g", list(inputs), list(outputs), stored),
            opset_imports=[
                helper.make_opsetid("", opset),
                *(helper.make_opsetid(domain, 1) for domain in domains),
            ],
            ir_version=ir,
            **model,
        )
        where = path or tmp_path / "net.onnx"
        onnx.save(made, where)
        return where

    return call


def info(name: str, shape: Sequence[Any], kind: int = TensorProto.FLOAT) -> Any:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, kind, list(shape))


@pytest.fixture(name="info", scope="session")
def _info() -> Any:
    return info
