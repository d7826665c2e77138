"""``python bare_onnx.py MODEL PORT``: decodes a row, runs the session, encodes the answer.

It checks nothing, counts nothing and fails badly: what Python cannot do for less.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import msgspec
import numpy as np
import onnxruntime
import uvloop


class Tensor(msgspec.Struct):
    """What is read of an input."""

    data: list[float]


class Request(msgspec.Struct):
    """What is read of a request."""

    inputs: list[Tensor]


def session(model: str) -> onnxruntime.InferenceSession:
    """For one thread, as an agent has it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Bare(asyncio.Protocol):
    """One connection."""

    runs = session(sys.argv[1])
    name = runs.get_inputs()[0].name
    outputs = tuple(each.name for each in runs.get_outputs())
    decode = msgspec.json.Decoder(Request).decode
    encode = msgspec.json.Encoder().encode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """A request's body, in one piece."""
        row = np.array([self.decode(body).inputs[0].data], np.float32)
        label, probabilities = self.runs.run(self.outputs, {self.name: row})
        outputs = [
            {"name": "label", "shape": [1], "datatype": "INT64", "data": label.tolist()},
            {
                "name": "probabilities", "shape": [1, 2], "datatype": "FP32",
                "data": probabilities[0].tolist(),
            },
        ]  # fmt: skip
        answer = self.encode({"model_name": "bench", "model_version": "1", "outputs": outputs})
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(answer), answer)
        )


async def serve(port: int) -> None:
    """Until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[2])))
