"""The description of what this device answers: an OpenAPI document, and a page for people. Pure.

Source: OpenAPI Specification 3.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edge_agent.model import Model
from edge_contract.manifest import Feature, Manifest

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
        example = json.dumps(_example(manifest), separators=(", ", ": "))
        command = f"curl -d '{example}' http://HOST/predict/{name}"
        parts.append(
            f"<h2>{html.escape(name)} {html.escape(manifest.version)}</h2>"
            f"<p>{html.escape(manifest.task)}, {len(manifest.features)} features</p>"
            f"<pre>{html.escape(command)}</pre>"
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


def _example(manifest: Manifest) -> dict[str, Any]:
    return {feature.name: _sample(feature) for feature in manifest.features}


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


def _predict(manifest: Manifest) -> dict[str, Any]:
    row = _row(manifest)
    rows = {"type": "array", "minItems": 1, "items": row}
    many = {"type": "object", "required": ["rows"], "properties": {"rows": rows}}
    body = {"oneOf": [row, many]}
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
