"""The published JSON Schemas (2020-12) of what is JSON on the wire or in a bundle.

They are generated from the types; ``python -m edge_contract.schemas FOLDER`` writes them, and a
test holds the copies in this folder to the types.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from edge_contract.golden import Golden
from edge_contract.manifest import Manifest
from edge_contract.messages import SCHEMA_KINDS
from edge_contract.profile import Profile
from edge_contract.trigger import Evidence

KINDS: tuple[type[msgspec.Struct], ...] = (Manifest, Golden, Profile, Evidence, *SCHEMA_KINDS)


def schema_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of one kind, with a dialect and a stable id."""
    schema = msgspec.json.schema(kind)
    name = kind.__name__.lower()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:edge-pack:schema:{name}:1",
        **schema,
    }


def render() -> dict[str, str]:
    """File name -> text, for every kind."""
    return {
        f"{kind.__name__.lower()}.schema.json": json.dumps(
            schema_of(kind), indent=2, sort_keys=True
        )
        + "\n"
        for kind in KINDS
    }
