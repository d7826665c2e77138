"""``python litserve_onnx.py MODEL.onnx PORT``: a LitServe API with an ONNX Runtime session."""

from __future__ import annotations

import sys

import litserve
import numpy as np
import onnxruntime


class OnnxModel(litserve.LitAPI):
    """Answers with every output."""

    def setup(self, device: str) -> None:
        """Open the session in the worker."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(sys.argv[1], options)
        self._names = [output.name for output in self._session.get_outputs()]

    def decode_request(self, request: dict) -> dict:
        """The protocol's JSON, so that all servers read the same bytes."""
        return {
            item["name"]: np.array(item["data"], dtype=np.float32).reshape(item["shape"])
            for item in request["inputs"]
        }

    def predict(self, feeds: dict) -> list:
        """One request."""
        return self._session.run(None, feeds)

    def encode_response(self, found: list) -> dict:
        """All of it as lists."""
        outputs = [
            {"name": name, "shape": list(array.shape), "data": array.ravel().tolist()}
            for name, array in zip(self._names, found, strict=True)
        ]
        return {"model_name": "bench", "outputs": outputs}


if __name__ == "__main__":
    server = litserve.LitServer(OnnxModel(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error"
    )
