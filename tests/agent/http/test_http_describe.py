"""The page and the OpenAPI document tell how a model of whole tensors is asked."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from edge_agent import Model
from edge_agent.live import Live
from edge_contract import bundle as bundles
from edge_contract.manifest import Outputs, Tensor


def of_tensors(seal: Callable[..., bytes], name: str, width: int) -> Model:
    """Takes numbers, flags and words as they are, and gives them back."""
    from onnx import TensorProto, helper

    kinds = {
        "numbers": (TensorProto.FLOAT, "float32", np.float32(0.5)),
        "counts": (TensorProto.INT64, "int64", np.int64(3)),
        "flags": (TensorProto.BOOL, "bool", np.bool_(1)),
        "words": (TensorProto.STRING, "string", "a"),
    }
    graph = helper.make_graph(
        [helper.make_node("Identity", [each], [f"{each}_out"]) for each in kinds], name,
        [helper.make_tensor_value_info(e, k[0], [None, width]) for e, k in kinds.items()],
        [helper.make_tensor_value_info(f"{e}_out", k[0], [None, width]) for e, k in kinds.items()],
    )  # fmt: skip
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = seal(
        onnx.SerializeToString(), name=name, task="tensors", features=(), profile=None,
        inputs=tuple(Tensor(name=e, dtype=k[1], shape=(None, width)) for e, k in kinds.items()),
        outputs=Outputs(tensors=tuple(f"{each}_out" for each in kinds)),
        golden_inputs={
            e: np.full((2, width), k[2], object if k[1] == "string" else None)
            for e, k in kinds.items()
        },
    )  # fmt: skip
    return Model.from_bundle(bundles.read(data))


@pytest.fixture
def with_tensors(seats, seal_bundle, door) -> None:
    """Two more models: of tensors that are small, and that are too large to be typed."""
    for name, width in (("small", 2), ("large", 500)):
        seats[name] = Live(name, of_tensors(seal_bundle, name, width))


def test_the_command_on_the_page_is_answered_and_as_the_document_says(with_tensors, client) -> None:
    page = html.unescape(client.ask("GET", "/").body.decode())
    assert "tensors: numbers float32 [any, 2]; counts int64 [any, 2]; flags bool [any, 2]" in page
    (body,) = re.findall(r"curl -d '([^']*)' http://HOST/predict/small<", page)
    answer = client.ask("POST", "/predict/small", body.encode())
    assert answer.status == 200, answer.body
    outputs = json.loads(answer.body)["predictions"][0]["outputs"]
    assert outputs["words_out"] == {"dtype": "string", "shape": [1, 2], "data": ["", ""]}

    document = json.loads(client.ask("GET", "/openapi.json").body)
    said = document["paths"]["/predict/small"]["post"]["requestBody"]["content"]
    check = Draft202012Validator(said["application/json"]["schema"]).is_valid
    right = json.loads(body)
    assert check(right)
    tensors = right["tensors"]
    for name, other in (
        ("numbers", {"shape": [1, 3], "data": [0.0] * 3}),
        ("numbers", {"shape": [2], "data": [0.0] * 2}),
        ("words", {"shape": [1, 2], "data": [0, 0]}),
        ("numbers", {"shape": [1, 2]}),
        ("others", {"shape": [1, 2], "data": [0, 0]}),
    ):
        wrong = {"tensors": tensors | {name: other}}
        assert not check(wrong)
        assert client.ask("POST", "/predict/small", json.dumps(wrong).encode()).status == 400


def test_tensors_that_are_too_large_to_be_typed_are_described_by_their_address(
    with_tensors, client
) -> None:
    page = client.ask("GET", "/").body.decode()
    assert "curl http://HOST/v2/models/large<" in page and "/predict/large" not in page
    assert len(page) < 10_000
