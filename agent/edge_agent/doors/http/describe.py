"""The description of what this device answers: an OpenAPI document, and a page for people. Pure.

Source: OpenAPI Specification 3.1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from edge_agent.model import Model
from edge_contract.manifest import Feature, Manifest, Tensor

TYPED_MAX = 16
"""Elements of tensors that a command on the page holds."""
_JSON_TYPES = {"string": "string", "bool": "boolean"}
"""Of a tensor's elements; all others are numbers."""
_ZEROS: dict[str, Any] = {"string": "", "bool": False}
_ERROR = {
    "description": "What is wrong with the request",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {"type": "string"}},
            }
        }
    },
}


def document(models: Mapping[str, Model], version: str, *, bearer: bool) -> dict[str, Any]:
    """The OpenAPI document, with a path and a schema of features for each model."""
    paths: dict[str, Any] = {
        "/v2/health/live": {"get": _operation("The agent runs", {"live": {"type": "boolean"}})},
        "/v2/health/ready": {"get": _operation("A model answers", {"ready": {"type": "boolean"}})},
        "/v2": {"get": _operation("The server's name, version and extensions", {})},
        "/v2/models": {"get": _operation("The models' names", {})},
        "/metrics": {"get": _plain("Figures for Prometheus")},
    }
    for name, model in sorted(models.items()):
        manifest = model.manifest
        paths[f"/predict/{name}"] = {"post": _predict(manifest)}
        paths[f"/feedback/{name}"] = {"post": _feedback(manifest)}
        paths[f"/v2/models/{name}"] = {"get": _operation(f"Tensors of {name}", {})}
        paths[f"/v2/models/{name}/ready"] = {"get": _operation(f"Whether {name} answers", {})}
        paths[f"/v2/models/{name}/infer"] = {"post": _infer(manifest)}
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "edge-agent", "version": version},
        "paths": paths,
    }
    if bearer:
        scheme = {"type": "http", "scheme": "bearer"}
        found["components"] = {"securitySchemes": {"bearer": scheme}}
        found["security"] = [{"bearer": []}]
    return found


def page(models: Mapping[str, Model]) -> bytes:
    """What a person sees who opens the address: each model with a command to try."""
    import html  # noqa: PLC0415 - a table of all entities, for who looks here

    parts = [_HEAD]
    for name, model in sorted(models.items()):
        manifest = model.manifest
        parts.append(
            f"<h2>{html.escape(name)} {html.escape(manifest.version)}</h2>"
            f"<p>{html.escape(manifest.task)}, {html.escape(_takes(manifest))}</p>"
            f"<pre>{html.escape(_command(manifest, name))}</pre>"
        )
    if not models:
        parts.append("<p>No model answers yet.</p>")
    parts.append(
        "<p><a href='/openapi.json'>OpenAPI</a> <a href='/metrics'>metrics</a> "
        "<a href='/v2/models'>models</a></p></main></html>"
    )
    return "".join(parts).encode()


_HEAD = (
    "<!doctype html><html lang='en'><meta charset='utf-8'>"
    "<meta name='viewport' content='width=device-width'><title>edge-agent</title>"
    "<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:2rem}"
    "main{max-width:60rem;margin:auto}pre{overflow:auto;padding:1rem;border:1px solid #8888}"
    "a{margin-right:1rem}</style><main><h1>edge-agent</h1>"
    "<p>Models on this device answer plain JSON by feature name, and the Open Inference Protocol"
    " under <code>/v2</code>.</p>"
)


def _takes(manifest: Manifest) -> str:
    if manifest.features:
        return f"{len(manifest.features)} features"
    tensors = (f"{each.name} {each.dtype} {_extents(each)}" for each in manifest.inputs)
    return f"tensors: {'; '.join(tensors)}"


def _extents(tensor: Tensor) -> str:
    return "[" + ", ".join("any" if n is None else str(n) for n in tensor.shape) + "]"


def _command(manifest: Manifest, name: str) -> str:
    """To try the model with; of tensors that are too large to be typed, what describes them."""
    if manifest.features:
        example: dict[str, Any] = {each.name: _sample(each) for each in manifest.features}
    elif sum(_size(each) for each in manifest.inputs) > TYPED_MAX:
        return f"curl http://HOST/v2/models/{name}"
    else:
        example = {"tensors": {each.name: _zeros(each) for each in manifest.inputs}}
    said = json.dumps(example, separators=(", ", ": "))
    return f"curl -d '{said}' http://HOST/predict/{name}"


def _least(tensor: Tensor) -> list[int]:
    """Extents of one row: 1 where any will do."""
    return [1 if extent is None else extent for extent in tensor.shape]


def _size(tensor: Tensor) -> int:
    return math.prod(_least(tensor))


def _zeros(tensor: Tensor) -> dict[str, Any]:
    zero = _ZEROS.get(tensor.dtype, 0.0 if tensor.dtype.startswith("float") else 0)
    return {"shape": _least(tensor), "data": [zero] * _size(tensor)}


def _sample(feature: Feature) -> float | str:
    if feature.type != "number":
        return feature.categories[0] if feature.categories else ""
    low = feature.minimum if feature.minimum is not None else 0.0
    high = feature.maximum if feature.maximum is not None else low
    return float(f"{(low + high) / 2:.4g}")


def _row(manifest: Manifest) -> dict[str, Any]:
    properties = {}
    for feature in manifest.features:
        kind: dict[str, Any] = {"type": "number" if feature.type == "number" else "string"}
        if feature.unit:
            kind["description"] = feature.unit
        properties[feature.name] = kind
    return {
        "type": "object",
        "required": [f.name for f in manifest.features if f.missing == "refuse"],
        "properties": properties,
        "additionalProperties": False,
    }


def _tensors(manifest: Manifest) -> dict[str, Any]:
    """A request by whole tensors: ``edge_contract.messages.TensorData`` by name."""
    properties = {}
    for tensor in manifest.inputs:
        extents: list[dict[str, Any]] = [
            {"type": "integer", "minimum": 0} if extent is None else {"const": extent}
            for extent in tensor.shape
        ]
        shape = {"type": "array", "prefixItems": extents, "items": False, "minItems": len(extents)}
        data = {"type": "array", "items": {"type": _JSON_TYPES.get(tensor.dtype, "number")}}
        properties[tensor.name] = {
            "type": "object",
            "required": ["shape", "data"],
            "properties": {"shape": shape, "data": data},
            "description": tensor.dtype,
        }
    tensors = {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }
    return {"type": "object", "required": ["tensors"], "properties": {"tensors": tensors}}


def _predict(manifest: Manifest) -> dict[str, Any]:
    if manifest.features:
        row = _row(manifest)
        rows = {"type": "array", "minItems": 1, "items": row}
        many = {"type": "object", "required": ["rows"], "properties": {"rows": rows}}
        body: dict[str, Any] = {"oneOf": [row, many]}
    else:
        body = _tensors(manifest)
    found = _operation(f"Predictions of {manifest.name} {manifest.version}", {})
    found["requestBody"] = _json_body(body)
    return found


def _infer(manifest: Manifest) -> dict[str, Any]:
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {
                "enum": [t.name for t in manifest.inputs] + [f.name for f in manifest.features]
            },
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string"},
            "data": {"type": "array"},
        },
    }
    body = {
        "type": "object",
        "required": ["inputs"],
        "properties": {"inputs": {"type": "array", "minItems": 1, "items": tensor}},
    }
    found = _operation(f"Open Inference Protocol: infer with {manifest.name}", {})
    found["requestBody"] = _json_body(body)
    return found


def _feedback(manifest: Manifest) -> dict[str, Any]:
    names = list(manifest.outputs.labels)
    properties = {"id": {"type": "string"}, "label": {"enum": names} if names else {}}
    label = {"type": "object", "required": ["id", "label"], "properties": properties}
    taken = {
        name: {"type": "integer", "minimum": 0}
        for name in ("counted", "repeated", "contradicted", "late", "unknown", "refused")
    }
    found = _operation(f"What answers of {manifest.name} should have been, by their ids", taken)
    found["requestBody"] = _json_body({"oneOf": [label, {"type": "array", "items": label}]})
    return found


def _json_body(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _operation(summary: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": dict(properties)}
    good = {"description": "OK", "content": {"application/json": {"schema": schema}}}
    return {"summary": summary, "responses": {"200": good, "4XX": _ERROR, "5XX": _ERROR}}


def _plain(summary: str) -> dict[str, Any]:
    good = {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"summary": summary, "responses": {"200": good}}
