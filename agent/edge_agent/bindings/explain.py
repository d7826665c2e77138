"""A binding against the manifest of its model: what fits, what does not, and a start for a new one.

Pure.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator

from msgspec import Struct

from edge_agent.bindings.settings import INPUTS_MAX, Binding, Input
from edge_contract.errors import InputFault
from edge_contract.manifest import Feature, Manifest

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_KNOWN_SHOWN = 5


class Finding(Struct, frozen=True):
    """One feature, input or field: where it comes from, and what is to be said of it.

    Attributes:
        wrong: rows or answers of this binding would be refused.
    """

    name: str
    source: str
    wanted: str
    said: tuple[str, ...] = ()
    wrong: bool = False


def explain(binding: Binding, manifest: Manifest) -> list[Finding]:
    """A finding a feature in the manifest's order, then what the model knows nothing of."""
    if not manifest.features:
        return [
            Finding(
                binding.model, "", "whole tensors",
                ("this model takes tensors, not features by name: no binding can feed it",), True,
            )
        ]  # fmt: skip
    found = [_of_feature(binding, feature) for feature in manifest.features]
    names = [feature.name for feature in manifest.features]
    for name, source in binding.inputs.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            found.append(
                Finding(name, describe(source), "", (f"the model has no such feature{hint}",), True)
            )
    return [*found, *_of_fields(binding, manifest)]


def _of_feature(binding: Binding, feature: Feature) -> Finding:
    source = binding.inputs.get(feature.name)
    if source is None:
        return Finding(feature.name, "", wanted(feature), ("no input gives it",), True)
    wrong = tuple(_wrong(source, feature))
    notes = tuple(_notes(binding, source, feature))
    return Finding(
        feature.name, describe(source), wanted(feature), (*wrong, *notes), wrong=bool(wrong)
    )


def _wrong(source: Input, feature: Feature) -> Iterator[str]:
    number = feature.type == "number"
    if source.value is not None and isinstance(source.value, str) == number:
        yield f"the constant {source.value!r} is no {'number' if number else 'text'}"
    if number and source.format == "text" and not source.map:
        yield "text never becomes a number: use format = 'number', or map"
    if not number and source.topic and source.aggregate != "last":
        yield f"a {feature.type} has no {source.aggregate}"
    if not number and source.format == "number":
        yield f"format = 'number' gives no {feature.type}: use 'text'"
    if source.unit and feature.unit and source.unit != feature.unit:
        yield (
            f"it gives {source.unit}, the model was trained on {feature.unit}: set scale and"
            f" offset, then unit = {feature.unit!r}"
        )


def _notes(binding: Binding, source: Input, feature: Feature) -> Iterator[str]:
    unknown = sorted({str(v) for v in source.map.values()} - set(feature.categories))
    if feature.type == "category" and unknown:
        yield f"map gives categories that the model was not shown: {', '.join(unknown)}"
    if binding.on_missing == "predict" and feature.missing == "refuse" and source.topic:
        yield "rows without it are refused: the model was trained on rows that have it"
    if source.topic and not binding.stale_s(feature.name):
        yield "no staleness limit: its last value is used however old it is"
    value = source.value
    if isinstance(value, int | float) and not _within(float(value), feature):
        yield "the constant is outside of the range that the model was trained on"


def _within(value: float, feature: Feature) -> bool:
    low, high = feature.minimum, feature.maximum
    return (low is None or value >= low) and (high is None or value <= high)


def _of_fields(binding: Binding, manifest: Manifest) -> Iterator[Finding]:
    """Fields of the answer that would not be there."""
    has = {"model", "version", "at_ms", "inputs"}
    if manifest.outputs.label or manifest.outputs.scores:
        has.add("label")
    if manifest.outputs.scores:
        labels = {f"probabilities.{label}" for label in manifest.outputs.labels}
        has |= {"probabilities", *labels}
    if manifest.outputs.value:
        has.add("value")
    sensors = binding.homeassistant.sensors if binding.homeassistant else ()
    for name in dict.fromkeys((*binding.publish.fields, *(sensor.field for sensor in sensors))):
        if name not in has:
            said = f"the answer has no such field; it has {', '.join(sorted(has))}"
            yield Finding(name, "a field of the answer", "", (said,), True)
    published = binding.publish.fields
    for sensor in sensors:
        group = sensor.field.partition(".")[0]
        if published and sensor.field not in published and group not in published:
            said = "Home Assistant is to show it, and publish.fields leaves it out"
            yield Finding(sensor.field, "a field of the answer", "", (said,), True)


def wanted(feature: Feature) -> str:
    """What the model expects of a feature: ``number, °C, -3.5 to 71``."""
    parts: list[str] = [feature.type]
    if feature.unit:
        parts.append(feature.unit)
    if feature.minimum is not None and feature.maximum is not None:
        parts.append(f"{feature.minimum:g} to {feature.maximum:g}")
    if feature.categories:
        more = " ..." if len(feature.categories) > _KNOWN_SHOWN else ""
        parts.append(f"one of {', '.join(feature.categories[:_KNOWN_SHOWN])}{more}")
    return ", ".join(parts)


def describe(source: Input) -> str:
    """Where an input comes from: ``mean over 60s of temperature in zigbee2mqtt/cellar``."""
    if not source.topic:
        return f"constant {source.value!r}"
    over = f"{source.over} samples" if isinstance(source.over, int) else source.over
    what = "" if source.aggregate == "last" else f"{source.aggregate} over {over} of "
    if source.aggregate == "band":
        what = f"{source.band[0]:g} to {source.band[1]:g} Hz over {over} of "
    where = f"{source.field} in " if source.field else ""
    return f"{what}{where}{source.topic} ({source.format})"


def skeleton(manifest: Manifest) -> str:
    """``[[bindings]]`` for a model, to be filled in: it parses, and every feature is there.

    Raises InputFault for a model that no binding can feed.
    """
    if not 1 <= len(manifest.features) <= INPUTS_MAX:
        raise InputFault(
            f"{manifest.name} has {len(manifest.features)} features, a binding feeds 1 to"
            f" {INPUTS_MAX}",
            advice="Feed it over MQTT (in/<model>), HTTP or from Python.",
        )
    lines = [
        "[[bindings]]",
        f"model = {_quoted(manifest.name)}",
        '# Predict at a rate; or at each message (on = "message"), or when a value changed.',
        'every = "10s"',
        "# Older than this a value is missing, and there is no prediction.",
        'stale = "1min"',
        "",
        "[bindings.inputs]",
    ]
    for feature in manifest.features:
        key = feature.name if _BARE.fullmatch(feature.name) else _quoted(feature.name)
        place = "/" + feature.name.replace("~", "~0").replace("/", "~1")
        unit = f", unit = {_quoted(feature.unit)}" if feature.unit else ""
        lines.append(f"# {wanted(feature)}".replace("\n", " "))
        source = f'topic = "sensors/{_topic(manifest.name)}", field = {_quoted(place)}{unit}'
        lines.append(f"{key} = {{ {source} }}")
    lines += [
        "",
        "[bindings.publish]",
        f'topic = "home/{{device}}/{_topic(manifest.name)}"',
        "retain = true",
        "",
        "# Shows the prediction as a sensor in Home Assistant.",
        "# [bindings.homeassistant]",
        f"# sensors = [{{ field = {_quoted(_shown(manifest))} }}]",
    ]
    return "\n".join(lines) + "\n"


def _shown(manifest: Manifest) -> str:
    return "value" if manifest.task == "regression" else "label"


def _topic(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _quoted(text: str) -> str:
    """A TOML basic string: the escapes of JSON are among its own."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
