"""A build leaves skl2onnx as it was."""

from __future__ import annotations

from typing import Any

import skl2onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier

from edge_pack.estimators.lending import _registries


def test_a_build_leaves_skl2onnx_as_it_was(pack: Any, wine: Any) -> None:
    frame, target = wine
    trees = HistGradientBoostingClassifier(max_iter=2)
    model = VotingClassifier([("trees", trees)], voting="soft").fit(frame, target)

    def stock() -> bytes:
        alone = model.estimators_[0]
        first = [("x", FloatTensorType([None, 13]))]
        return skl2onnx.convert_sklearn(alone, "g", first).graph.SerializeToString()

    before, registered = stock(), [dict(registry) for registry in _registries()]
    assert pack(model, frame.join(target), "kind").manifest.parity.flips == 0
    assert [dict(registry) for registry in _registries()] == registered
    assert stock() == before
