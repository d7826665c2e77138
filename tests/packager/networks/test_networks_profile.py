"""A model without a feature table is monitored: its tensors' figures, directions and answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from edge_agent import Model
from edge_agent.telemetry.window import Window


def test_a_network_of_whole_tensors_is_monitored_end_to_end(
    graph: Any, info: Any, ship: Any
) -> None:
    path = graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["s"]),
         helper.make_node("Softmax", ["s"], ["p"])],
        [info("x", ["n", 3, 4, 4], TensorProto.FLOAT)], [info("p", ["n", 2], TensorProto.FLOAT)],
        {"w": np.random.default_rng(1).normal(size=(48, 2)).astype(np.float32)},
    )  # fmt: skip
    images = np.random.default_rng(2).normal(size=(256, 3, 4, 4))
    built = ship(path, {"x": images}, task="classification", labels=("ok", "worn"))
    model = Model.open(built.config.out)
    assert model.profile is not None
    window = Window(model.manifest, model.profile)
    model.observer = window
    for start in range(0, 256, 16):
        model.predict({"x": images[start : start + 16].astype(np.float32)})
    counts = window.close()
    for monitor, start in zip(model.profile.monitors, model.profile.offsets(), strict=True):
        seen = counts.cells[start : start + monitor.cells]
        assert seen.sum() == 256
        if monitor.source != "projection":
            assert seen.tolist() == list(monitor.counts), monitor.name
    names = {monitor.name for monitor in model.profile.monitors}
    assert {"prediction", "x:mean", "x:saturated", "x:pc1"} <= names
