"""``python ask_kserve.py PORT``: what KServe's REST client gets from the door, as JSON."""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

ROWS = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)


def request(binary_in: bool, binary_out: bool | None, dtype: str = "FP32") -> InferRequest:
    """Five rows, and its outputs as the client wants them."""
    given = InferInput("X", list(ROWS.shape), dtype)
    kind = {"FP32": np.float32, "FP16": np.float16, "FP64": np.float64}[dtype]
    given.set_data_from_numpy(ROWS.astype(kind), binary_data=binary_in)
    outputs = None
    if binary_out is not None:
        names = ("label", "probabilities")
        outputs = [RequestedOutput(name, {"binary_data": binary_out}) for name in names]
    return InferRequest("pump", [given], request_id="k1", request_outputs=outputs)


async def ask(url: str) -> dict:
    """Everything that the client can ask."""
    found = {"rows": ROWS.tolist(), "infer": []}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found["live"] = await client.is_server_live(url)
        found["ready"] = await client.is_server_ready(url)
        found["model"] = await client.is_model_ready(url, "pump")
        for binary_in, binary_out, dtype in (
            (False, None, "FP32"), (True, None, "FP32"), (True, True, "FP32"),
            (False, False, "FP64"), (False, True, "FP32"), (True, None, "FP16"),
        ):  # fmt: skip
            sent = request(binary_in, binary_out, dtype)
            answer = await client.infer(url, sent, model_name="pump")
            found["infer"].append({
                "how": [binary_in, binary_out, dtype],
                "id": answer.id,
                "outputs": {o.name: o.as_numpy().ravel().tolist() for o in answer.outputs},
            })  # fmt: skip
        try:
            await client.infer(url, request(False, None), model_name="none")
        except httpx.HTTPStatusError as error:
            found["error"] = str(error)
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(f"http://127.0.0.1:{sys.argv[1]}")), default=str))
