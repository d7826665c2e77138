"""``python ask_mlserver.py PORT``: what comes of MLServer's requests and codecs, as JSON."""

import json
import sys
import urllib.error
import urllib.request

import numpy as np
import pandas as pd
from mlserver.codecs import NumpyRequestCodec, PandasCodec
from mlserver.types import (
    Datatype,
    InferenceErrorResponse,
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    RepositoryIndexResponse,
    State,
)

ROWS = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
FRAME = pd.DataFrame({"temp": [0.5, 1.5], "hum": [0.0, 1.0], "site": ["paris", "lyon"]})
FRAME["site"] = FRAME["site"].astype(object)  # its codec does not know the text type of pandas 3


def ask(url: str, path: str, body: bytes | None = None) -> bytes:
    """One request; the answer's body, whatever its status."""
    headers = {"content-type": "application/json"} if body is not None else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, body, headers)) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.read()


def infer(url: str, name: str, request: InferenceRequest) -> dict:
    """By MLServer's types there and back; what it leaves out stands as null in its JSON."""
    said = ask(url, f"/v2/models/{name}/infer", request.model_dump_json().encode())
    answer = InferenceResponse.model_validate_json(said)
    return {output.name: list(output.data.root) for output in answer.outputs}


def main(url: str) -> dict:
    """Everything that its types describe."""
    rows = NumpyRequestCodec.encode_request(ROWS)
    rows.inputs[0].name = "X"
    error = ask(url, "/v2/models/none/infer", rows.model_dump_json().encode())
    index = RepositoryIndexResponse.model_validate_json(ask(url, "/v2/repository/index", b"{}"))
    about = MetadataModelResponse.model_validate_json(ask(url, "/v2/models/pump"))
    return {
        "rows": ROWS.tolist(),
        "frame": FRAME.to_dict("records"),
        "pump": infer(url, "pump", rows),
        "mixed": infer(url, "mixed", PandasCodec.encode_request(FRAME, use_bytes=False)),
        "error": InferenceErrorResponse.model_validate_json(error).error,
        "index": sorted((item.name, State(item.state).value) for item in index.root),
        "inputs": [(tensor.name, Datatype(tensor.datatype).value) for tensor in about.inputs],
        "server": MetadataServerResponse.model_validate_json(ask(url, "/v2")).extensions,
    }


if __name__ == "__main__":
    print(json.dumps(main(f"http://127.0.0.1:{sys.argv[1]}")))
