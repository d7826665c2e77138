"""``[[bindings]]`` of ``agent.toml``: which topics feed a model, when it answers, where to.

Guards: a binding that could not work is a fault here, at the start: a filter that is none, a
window without a length, a binding that would feed on its own answers. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from edge_agent.bindings import filters, pointer
from edge_contract import durations
from edge_contract.errors import InputFault
from edge_contract.messages import Name

BINDINGS_MAX = 32
INPUTS_MAX = 256
SAMPLES_MAX = 10_000
"""Samples kept an input: 160 kB of times and values."""
Format = Literal["json", "number", "text", "zigbee2mqtt", "tasmota", "sparkplug"]
Aggregate = Literal[
    "last", "mean", "min", "max", "std", "rms", "slope", "count", "band"
]  # fmt: skip
Scalar = float | str
Topic = Annotated[str, Meta(max_length=filters.TOPIC_MAX_CHARS)]
Share = Annotated[float, Meta(ge=-1e300, le=1e300)]


class Input(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one feature comes from; see ``docs/bindings.md``.

    Attributes:
        topic: filter of the messages; "" with ``value``: a constant.
        format: how their payload is read. field: where in it the value is.
        time: where in it the sample's time is; "": the moment it arrived.
        map: text (or true, false, a number as JSON writes it) that stands for another value.
        scale, offset: a number is multiplied, then added to. unit: of the result, to compare.
        aggregate: of the samples within ``over``: a number of samples, or a time as ``60s``.
        at_least: with fewer samples there is no value.
        rate_hz: samples a second, of a payload that is a list, and for ``band``.
        band: lowest and first excluded frequency in Hz.
        stale: older than this the value is missing; "": the binding's.
        deadband: with ``on = "change"``, by how much the value must differ.
    """

    topic: Topic = ""
    format: Format = "json"
    field: Annotated[str, Meta(max_length=512)] = ""
    time: Annotated[str, Meta(max_length=512)] = ""
    value: bool | float | str | None = None
    map: Annotated[dict[str, Scalar], Meta(max_length=256)] = {}
    scale: Share = 1.0
    offset: Share = 0.0
    unit: Annotated[str, Meta(max_length=32)] = ""
    aggregate: Aggregate = "last"
    over: Annotated[int, Meta(ge=1, le=SAMPLES_MAX)] | str = ""
    at_least: Annotated[int, Meta(ge=1, le=SAMPLES_MAX)] = 1
    rate_hz: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    band: tuple[float, float] = (0.0, 0.0)
    stale: str = ""
    deadband: Annotated[float, Meta(ge=0, le=1e300)] = 0.0

    @property
    def over_samples(self) -> int:
        """Most samples of the window."""
        return self.over if isinstance(self.over, int) else SAMPLES_MAX

    @property
    def over_s(self) -> float:
        """Length of the window in seconds; 0: it is counted in samples."""
        return seconds(self.over) if isinstance(self.over, str) else 0.0


class Publish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of an answer.

    Attributes:
        topic: may hold {fleet}, {device}, {model}, {binding}; "": ``out/<binding>`` of the device.
        format: a JSON object, or the one field's bare text.
        fields: of the answer; empty: all that it has. ``probabilities.LABEL`` is one of them.
    """

    topic: Topic = ""
    format: Literal["json", "plain"] = "json"
    fields: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    retain: bool = False
    qos: Literal[0, 1] = 0


class Sensor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sensor in Home Assistant: which field of the answer, and how it is shown there."""

    field: Annotated[str, Meta(min_length=1, max_length=128)]
    name: Annotated[str, Meta(max_length=128)] = ""
    unit: Annotated[str, Meta(max_length=32)] = ""
    device_class: Annotated[str, Meta(max_length=64)] = ""
    state_class: Literal["", "measurement", "total", "total_increasing"] = "measurement"


class HomeAssistant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``homeassistant``: show the predictions there; without ``sensors`` label or value.

    Attributes:
        prefix: of the discovery topics. expire: without an answer for so long, unavailable.
    """

    prefix: Topic = "homeassistant"
    sensors: Annotated[tuple[Sensor, ...], Meta(max_length=16)] = ()
    expire: str = ""


class Binding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[bindings]]``: inputs by feature name, a trigger, a place for the answers.

    Attributes:
        name: "": the model's. broker: name of a ``[brokers.NAME]``; "": the agent's own.
        every: predict this often. on: or at each message, or when a value changed.
        at_most: no two predictions within this time.
        stale: older than this a value is missing; "": never.
        on_missing: without a value no prediction, or the manifest's policy for missing values.
        rebirth: ask a Sparkplug node for its births when they were missed: publishes a command.
    """

    model: Name
    name: str = ""
    broker: str = ""
    every: str = ""
    on: Literal["", "message", "change"] = ""
    at_most: str = ""
    stale: str = ""
    on_missing: Literal["wait", "predict"] = "wait"
    rebirth: bool = False
    inputs: Annotated[dict[str, Input], Meta(min_length=1, max_length=INPUTS_MAX)]
    publish: Publish = Publish()
    homeassistant: HomeAssistant | None = None

    @property
    def title(self) -> str:
        """Its name in counts, logs and topics."""
        return self.name or self.model

    @property
    def every_s(self) -> float:
        """Seconds between predictions; 0: another trigger."""
        return seconds(self.every)

    @property
    def at_most_s(self) -> float:
        """Least seconds between predictions."""
        return seconds(self.at_most)

    def stale_s(self, feature: str) -> float:
        """Seconds after which the feature's value is missing; 0: never."""
        return seconds(self.inputs[feature].stale or self.stale)

    @property
    def topics(self) -> tuple[str, ...]:
        """Every filter of its inputs, each once."""
        return tuple(dict.fromkeys(each.topic for each in self.inputs.values() if each.topic))


def seconds(text: str) -> float:
    """The seconds that ``text`` says, over 0; "" is 0. Raises InputFault."""
    if not text:
        return 0.0
    found = durations.seconds(text)
    if found <= 0:
        raise InputFault(f"{text!r} is no time: expected such as 500ms, 90s, 15m or 2h")
    return found


def faults_of(bindings: Iterable[Binding], brokers: Iterable[str]) -> list[str]:
    """What the types of the settings cannot say, a line each."""
    bindings, known = list(bindings), set(brokers)
    faults: list[str] = []
    for each in bindings:
        where = f"[[bindings]] {each.title}"
        if each.broker and each.broker not in known:
            faults.append(f"{where}: broker = {each.broker!r} has no section [brokers.*]")
        faults.extend(f"{where}: {fault}" for fault in _of_binding(each))
    titles = [each.title for each in bindings]
    for title in sorted({title for title in titles if titles.count(title) > 1}):
        faults.append(f"[[bindings]] {title}: two of this name; give one another `name`")
    return faults


def _of_binding(binding: Binding) -> Iterator[str]:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", binding.title):
        yield f"name = {binding.name!r}: expected letters, digits, '.', '_' or '-'"
    for setting in ("every", "at_most", "stale"):
        yield from _said(setting, getattr(binding, setting))
    if binding.every and (binding.on or binding.at_most):
        yield "every excludes on and at_most"
    if not binding.topics:
        yield "no input has a topic: nothing would ever arrive"
    if len(binding.publish.fields) != 1 and binding.publish.format == "plain":
        yield "publish: format = 'plain' needs exactly one of fields"
    ha = binding.homeassistant
    if ha is not None:
        yield from _said("homeassistant.expire", ha.expire)
        if len({sensor.field for sensor in ha.sensors}) != len(ha.sensors):
            yield "homeassistant: two sensors of one field"
        if binding.publish.format == "plain" and len(ha.sensors) > 1:
            yield "homeassistant: several sensors need publish.format = 'json'"
    for feature, source in binding.inputs.items():
        yield from (f"input {feature}: {fault}" for fault in _of_input(source))


def _of_input(source: Input) -> Iterator[str]:
    if source.value is not None or not source.topic:
        if source.topic or source.value is None:
            yield "expected one of topic and value"
        return
    try:
        filters.check_filter(source.topic)
    except InputFault as error:
        yield error.what
    if source.format == "sparkplug" and not source.topic.startswith("spBv1.0/"):
        yield f"topic = {source.topic!r}: Sparkplug B's begin with spBv1.0/"
    if source.format in ("zigbee2mqtt", "tasmota", "sparkplug") and not source.field:
        yield f"format = {source.format!r} needs a field"
    if source.format in ("number", "text") and (source.field or source.time):
        yield f"format = {source.format!r} has no field and no time"
    if source.format in ("json", "zigbee2mqtt", "tasmota"):
        for text in (source.field, source.time):
            try:
                pointer.steps(text, dotted=source.format != "json")
            except InputFault as error:
                yield f"{error.what}: {error.advice}" if error.advice else error.what
    yield from _said("stale", source.stale)
    yield from _of_window(source)


def _of_window(source: Input) -> Iterator[str]:
    if source.aggregate == "last":
        if source.over != "":
            yield "over without an aggregate"
        return
    if source.over == "":
        yield f"aggregate = {source.aggregate!r} needs over: samples, or a time as '60s'"
        return
    if isinstance(source.over, str):
        yield from _said("over", source.over)
    elif source.aggregate == "count":
        yield "aggregate = 'count' needs a time for over"
    if source.at_least > source.over_samples:
        yield f"at_least = {source.at_least} is more than over holds"
    low, high = source.band
    if source.aggregate == "band" and not (source.rate_hz > 0 and 0 <= low < high):
        yield "aggregate = 'band' needs rate_hz and band = [lowest, first excluded] in Hz"


def _said(setting: str, text: str) -> Iterator[str]:
    try:
        seconds(text)
    except InputFault as error:
        yield f"{setting}: {error.what}"
