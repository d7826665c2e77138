"""MLServer's custom runtime, as its documentation writes one, with an ONNX Runtime session."""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """Answers with every output of the file that the settings name."""

    async def load(self) -> bool:
        """Open the session: one thread, as ours."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        self._names = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One request."""
        feeds = {item.name: NumpyCodec.decode_input(item) for item in payload.inputs}
        found = self._session.run(None, feeds)
        outputs = [
            NumpyCodec.encode_output(name, array)
            for name, array in zip(self._names, found, strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
