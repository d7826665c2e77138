"""``python kserve_onnx.py MODEL.onnx PORT``: a custom KServe model with an ONNX Runtime session."""

from __future__ import annotations

import sys

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.numpy_codec import from_np_dtype


class OnnxModel(Model):
    """Answers with every output."""

    def __init__(self, path: str) -> None:
        super().__init__("bench")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options)
        self._names = [output.name for output in self._session.get_outputs()]
        self.ready = True

    def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        """One request."""
        found = self._session.run(None, {item.name: item.as_numpy() for item in payload.inputs})
        outputs = []
        for name, array in zip(self._names, found, strict=True):
            output = InferOutput(name, list(array.shape), from_np_dtype(array.dtype))
            output.set_data_from_numpy(array, binary_data=False)
            outputs.append(output)
        return InferResponse(payload.id or "", self.name, outputs)


if __name__ == "__main__":
    ModelServer(
        http_port=int(sys.argv[2]), workers=1, enable_grpc=False, access_log_format=None
    ).start([OnnxModel(sys.argv[1])])
