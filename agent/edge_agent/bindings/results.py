"""An answer as a message: which of its fields, as JSON or as one bare text. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edge_agent.bindings.settings import Publish
from edge_agent.outputs import Prediction
from edge_contract.errors import InputFault

_ENCODER = msgspec.json.Encoder()


def fields_of(
    found: Prediction, *, model: str, version: str, at_ms: int, row: Mapping[str, object]
) -> dict[str, object]:
    """Every field that an answer has, by name, in the order of a message."""
    fields: dict[str, object] = {"model": model, "version": version, "at_ms": at_ms}
    if found.label is not None:
        fields["label"] = found.label
    if found.probabilities:
        fields["probabilities"] = found.probabilities
    if found.value is not None:
        fields["value"] = found.value
    fields["inputs"] = dict(row)
    return fields


_LEFT_OUT = ("inputs",)
"""Published only where it is asked for: it is a row."""


def payload(publish: Publish, fields: Mapping[str, object]) -> bytes:
    """The message's bytes. Raises InputFault for a field that the answer has not."""
    wanted = publish.fields or tuple(name for name in fields if name not in _LEFT_OUT)
    if publish.format == "plain":
        return bare(pick(fields, wanted[0])).encode()
    chosen: dict[str, object] = {}
    for name in wanted:
        group, _, label = name.partition(".")
        if group == "probabilities" and label:
            some = chosen.setdefault(group, {})
            assert isinstance(some, dict)
            some[label] = pick(fields, name)
        else:
            chosen[name] = pick(fields, name)
    return _ENCODER.encode(chosen)


def pick(fields: Mapping[str, object], name: str) -> object:
    """One field, ``probabilities.LABEL`` included. Raises InputFault."""
    group, _, label = name.partition(".")
    if group == "probabilities" and label:
        some = fields.get(group)
        if isinstance(some, Mapping) and label in some:
            return some[label]
    elif name in fields:
        return fields[name]
    known = [name for name in fields if name != "probabilities"]
    some = fields.get("probabilities")
    if isinstance(some, Mapping):
        known += ["probabilities", *(f"probabilities.{label}" for label in some)]
    raise InputFault(
        f"the answer has no field {name!r}", advice=f"It has: {', '.join(known)[:500]}."
    )


def bare(value: object) -> str:
    """A value as text: what is no text, number or truth as JSON."""
    if isinstance(value, str):
        return value
    return _ENCODER.encode(value).decode()


def short(fields: Mapping[str, object]) -> str:
    """An answer in a line, for a person: label or value, and the probabilities."""
    said = [bare(fields[name]) for name in ("label", "value") if name in fields]
    scores = fields.get("probabilities")
    if isinstance(scores, Mapping):
        said.append("(" + ", ".join(f"{label} {p:.3f}" for label, p in scores.items()) + ")")
    return " ".join(said)
