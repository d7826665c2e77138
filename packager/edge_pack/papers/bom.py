"""The bill of materials: a CycloneDX 1.6 document of a bundle. Pure.

cyclonedx.org/docs/1.6/json: the model is a ``machine-learning-model`` with its model card, the
rows a ``data`` component, the members ``file``s, what it was built with ``library``s. The JSON is
made here because cyclonedx-python-lib 11 has no class for a model card; tests hold it to the
schema that the library ships.

Guards: every fact stands in the manifest; the serial number is made of the bundle's digest and
there is no time, so the same bundle gives the same bytes.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any
from urllib.parse import quote

from edge_contract.bundle import Bundle
from edge_contract.manifest import Manifest
from edge_pack.papers import words
from edge_pack.papers.card import LICENCES, limits

SPEC_VERSION = "1.6"
_BUNDLE_URL = "https://edge-pack.dev/bundle/"
_APPROACHES = {
    "classification": "supervised", "regression": "supervised", "clustering": "unsupervised",
    "outliers": "unsupervised",
}  # fmt: skip

Json = dict[str, Any]


def bom(bundle: Bundle) -> bytes:
    """The document, UTF-8 JSON."""
    manifest = bundle.manifest
    libraries = _libraries(manifest)
    data = _data(manifest)
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, _BUNDLE_URL + bundle.digest)}",
        "version": 1,
        "metadata": {"component": _model(bundle)},
        "components": [*data, *libraries],
        "dependencies": [
            {
                "ref": _ref(bundle),
                "dependsOn": [part["bom-ref"] for part in (*data, *libraries)],
            }
        ],
    }
    return json.dumps(document, ensure_ascii=False, indent=2).encode() + b"\n"


def _ref(bundle: Bundle) -> str:
    return f"bundle:{bundle.digest}"


def _model(bundle: Bundle) -> Json:
    manifest = bundle.manifest
    found: Json = {
        "type": "machine-learning-model",
        "bom-ref": _ref(bundle),
        "name": manifest.name,
        "version": manifest.version,
        "hashes": [_sha256(bundle.digest)],
        "pedigree": _pedigree(manifest),
        "components": [_file(bundle, file.name) for file in manifest.files],
        "modelCard": _card(manifest),
        "properties": _properties(manifest),
    }
    if manifest.intended_use:
        found["description"] = manifest.intended_use
    if manifest.licence:
        spdx = LICENCES.get(manifest.licence.lower())
        named = {"id": spdx} if spdx else {"name": manifest.licence}
        found["licenses"] = [{"license": named}]
    return found


def _file(bundle: Bundle, name: str) -> Json:
    file = bundle.manifest.file(name)
    return {
        "type": "file",
        "bom-ref": f"file:{file.raw_sha256}:{name}",
        "name": name,
        "hashes": [_sha256(file.raw_sha256)],
        "properties": _listed(
            {"size_bytes": file.raw_size, "stored_bytes": file.size, "stored_sha256": file.sha256}
        ),
    }


def _pedigree(manifest: Manifest) -> Json:
    source = manifest.provenance
    found: Json = {
        "ancestors": [
            {
                "type": "machine-learning-model",
                "bom-ref": f"source:{source.source_sha256}",
                "name": f"the original {source.source_type} model",
                "hashes": [_sha256(source.source_sha256), *_md5s(manifest, "model")],
            }
        ]
    }
    if source.commit:
        found["commits"] = [{"uid": source.commit}]
        if source.dirty:
            found["notes"] = "The working tree had changes that are not in the commit."
    return found


def _data(manifest: Manifest) -> list[Json]:
    source = manifest.provenance
    if not source.data_sha256:
        return []
    columns = f" of {len(manifest.features):,} features" if manifest.features else ""
    return [
        {
            "type": "data",
            "bom-ref": f"data:{source.data_sha256}",
            "name": "reference rows",
            "hashes": [_sha256(source.data_sha256), *_md5s(manifest, "data")],
            "data": [
                {
                    "type": "dataset",
                    "name": "reference rows",
                    "description": f"{source.data_rows:,} rows{columns}: parity, metrics and the "
                    "reference profile were taken on them",
                }
            ],
        }
    ]


def _libraries(manifest: Manifest) -> list[Json]:
    source = manifest.provenance
    found = [
        {
            "type": "application" if name == "edge-pack" else "library",
            "bom-ref": _purl(name, version),
            "name": name,
            "version": version,
            "purl": _purl(name, version),
        }
        for name, version in sorted(source.libraries.items())
    ]
    if source.python:
        found.append(
            {"type": "platform", "bom-ref": "python", "name": "Python", "version": source.python}
        )
    return found


def _purl(name: str, version: str) -> str:
    """As the purl specification writes PyPI's names: lower case, with dashes."""
    return f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{quote(version, safe='')}"


def _card(manifest: Manifest) -> Json:
    source = manifest.provenance
    parameters: Json = {
        "task": manifest.task,
        "inputs": [{"format": f"{t.name}: {words.tensor(t)}"} for t in manifest.inputs],
        "outputs": [{"format": name} for name in manifest.outputs.tensors],
    }
    if manifest.task in _APPROACHES:
        parameters["approach"] = {"type": _APPROACHES[manifest.task]}
    if source.data_sha256:
        parameters["datasets"] = [{"ref": f"data:{source.data_sha256}"}]
    considerations: Json = {
        "technicalLimitations": limits(manifest),
        "performanceTradeoffs": [_tradeoff(manifest)],
    }
    if manifest.intended_use:
        considerations["useCases"] = [manifest.intended_use]
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": _metrics(manifest)},
        "considerations": considerations,
    }


def _metrics(manifest: Manifest) -> list[Json]:
    found = []
    for metric in manifest.metrics:
        entry: Json = {"type": metric.name, "value": repr(metric.bundle)}
        if metric.slice:
            entry["slice"] = metric.slice
        if metric.low is not None and metric.high is not None:
            entry["confidenceInterval"] = {
                "lowerBound": repr(metric.low), "upperBound": repr(metric.high),
            }  # fmt: skip
        found.append(entry)
    return found


def _tradeoff(manifest: Manifest) -> str:
    parity, mode = manifest.parity, manifest.compression.mode
    changed = (
        f"{parity.flips:,} of {parity.rows:,} labels changed, " if manifest.outputs.labels else ""
    )
    return (
        f"Form {mode}: {changed}largest difference {parity.diff_max:.3g} "
        f"to the original model on {parity.rows:,} rows"
    )


def _properties(manifest: Manifest) -> list[Json]:
    source, runtime, parity = manifest.provenance, manifest.runtime, manifest.parity
    facts: dict[str, object] = {
        "compression": manifest.compression.mode,
        "stock_bytes": manifest.compression.stock_bytes,
        "onnxruntime": f">={runtime.onnxruntime}",
        "ir": runtime.ir,
        **{f"opset:{name or 'ai.onnx'}": v for name, v in sorted(runtime.opsets.items())},
        "parity:rows": parity.rows,
        "parity:flips": parity.flips,
        "parity:diff_max": repr(parity.diff_max),
        "parity:forced": str(parity.forced).lower(),
        "run_id": source.run_id,
        "source_uri": source.source_uri,
        "registered": source.registered,
        "command": " ".join(source.command) and json.dumps(source.command, ensure_ascii=False),
    }
    return _listed({name: value for name, value in facts.items() if value not in ("", None)})


def _listed(facts: dict[str, Any]) -> list[Json]:
    return [{"name": f"edge-pack:{name}", "value": str(value)} for name, value in facts.items()]


def _sha256(digest: str) -> Json:
    return {"alg": "SHA-256", "content": digest}


def _md5s(manifest: Manifest, role: str) -> list[Json]:
    """DVC names files by MD5; the entry in the manifest was compared with the file."""
    return [
        {"alg": "MD5", "content": entry.md5}
        for entry in manifest.provenance.tracked
        if entry.role == role
    ]
