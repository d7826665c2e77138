"""A model as a notebook shows it: what it is called, what it takes, what it gives. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from edge_contract.manifest import Feature, Manifest

FEATURES_SHOWN = 50
LABELS_SHOWN = 12


def html(manifest: Manifest, digest: str) -> str:
    """A heading and a table of features or tensors; every text from the manifest escaped."""
    outputs = manifest.outputs
    labels = [str(label) for label in outputs.labels]
    more = f" and {len(labels) - LABELS_SHOWN} more" if len(labels) > LABELS_SHOWN else ""
    gives = ", ".join(labels[:LABELS_SHOWN]) + more if labels else ", ".join(outputs.tensors)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in _rows(manifest)
    )
    return (
        f"<b>{escape(manifest.name)} {escape(manifest.version)}</b>, {manifest.task}: "
        f"{escape(gives)} <small>{digest[:12]}</small>"
        f"<table><tr><th>input</th><th>type</th><th>seen</th><th>missing</th></tr>{rows}</table>"
    )


def _rows(manifest: Manifest) -> Iterator[tuple[str, str, str, str]]:
    for tensor in manifest.inputs:
        if not tensor.features:
            extents = ", ".join("any" if e is None else str(e) for e in tensor.shape)
            yield tensor.name, f"{tensor.dtype} [{extents}]", "", ""
    for feature in manifest.features[:FEATURES_SHOWN]:
        unit = f" {feature.unit}" if feature.unit else ""
        yield feature.name, f"{feature.type}{unit}", _seen(feature), feature.missing
    if len(manifest.features) > FEATURES_SHOWN:
        yield f"and {len(manifest.features) - FEATURES_SHOWN} more", "", "", ""


def _seen(feature: Feature) -> str:
    if feature.categories:
        more = ", ..." if len(feature.categories) > LABELS_SHOWN else ""
        return ", ".join(feature.categories[:LABELS_SHOWN]) + more
    if feature.minimum is None or feature.maximum is None:
        return ""
    return f"{feature.minimum:g} to {feature.maximum:g}"
