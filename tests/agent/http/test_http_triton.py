"""Triton's own client, as it is, against the door: the oracle for the protocol."""

from __future__ import annotations

import numpy as np
import pytest

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")


@pytest.fixture
def server(door):
    """A client of Triton's."""
    with triton.InferenceServerClient(f"127.0.0.1:{door.port}") as client:
        yield client


def test_health_metadata_and_repository(server) -> None:
    assert server.is_server_live() and server.is_server_ready() and server.is_model_ready("pump")
    assert server.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    found = server.get_model_metadata("pump", "1.0")
    assert [tensor["name"] for tensor in found["inputs"]] == ["X"]
    index = server.get_model_repository_index()
    assert {(model["name"], model["state"]) for model in index} == {
        ("pump", "READY"),
        ("mixed", "READY"),
    }


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_infer_gives_what_the_model_gives(
    binary_in, binary_out, compression, server, seats
) -> None:
    rows = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    given = triton.InferInput("X", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows, binary_data=binary_in)
    right = seats["pump"].model.infer(rows)
    wanted = None  # then Triton's client asks for all outputs as bytes
    if binary_out is not None:
        wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in right]
    found = server.infer(
        "pump", [given], outputs=wanted, request_id="r1", request_compression_algorithm=compression
    )
    assert found.get_response()["id"] == "r1"
    for name, array in right.items():
        answered = found.as_numpy(name)
        texts = array.dtype.kind in "OUS"
        if texts:
            answered = [item.decode() if isinstance(item, bytes) else item for item in answered]
        assert list(answered) == array.tolist() if texts else np.array_equal(answered, array)


def test_text_and_numbers_by_feature(server, seats) -> None:
    columns = {
        "temp": np.array([[0.5], [1.5]]),
        "hum": np.array([[0.0], [1.0]]),
        "site": np.array([["paris"], ["lyon"]], dtype=object),
    }
    inputs = []
    for name, array in columns.items():
        kind = "BYTES" if array.dtype == object else "FP64"
        inputs.append(triton.InferInput(name, list(array.shape), kind))
        inputs[-1].set_data_from_numpy(array)
    found = server.infer("mixed", inputs)
    rows = [{name: array[i, 0] for name, array in columns.items()} for i in range(2)]
    labels = [prediction.label for prediction in seats["mixed"].predict(rows)]
    label = seats["mixed"].model.manifest.outputs.label
    assert found.as_numpy(label).tolist() == labels


def test_its_errors_are_read(server) -> None:
    given = triton.InferInput("X", [1, 4], "FP32")
    given.set_data_from_numpy(np.zeros((1, 4), dtype=np.float32))
    with pytest.raises(triton.InferenceServerException, match="has no model 'none'") as said:
        server.infer("none", [given])
    assert said.value.status() == "404"
    wrong = triton.InferInput("Y", [1, 4], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 4), dtype=np.float32))
    with pytest.raises(triton.InferenceServerException, match="X"):
        server.infer("pump", [wrong])
    with pytest.raises(triton.InferenceServerException, match="no output 'z'"):
        server.infer("pump", [given], outputs=[triton.InferRequestedOutput("z")])
