"""Sensors as Home Assistant's documentation asks for them, and answers as messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jinja2
import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.bindings import results
from edge_agent.bindings.homeassistant import Place, config_topics, discovery, object_id, template
from edge_agent.bindings.settings import Binding, Publish
from edge_agent.outputs import Prediction
from edge_contract import bundle as bundles
from edge_contract import messages
from edge_contract.errors import InputFault
from edge_contract.manifest import Manifest
from edge_contract.messages import Status

PLACE = Place("home", "pi1", "0.1", "edge/1/home/d/pi1/status")
INPUTS = {"temp": {"topic": "t", "format": "number"}}

SENSOR_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["state_topic", "unique_id", "device", "origin"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "unique_id": {"type": "string", "minLength": 1},
        "state_topic": {"type": "string", "pattern": "^[^+#]+$"},
        "value_template": {"type": "string"},
        "availability_topic": {"type": "string", "pattern": "^[^+#]+$"},
        "availability_template": {"type": "string"},
        "qos": {"enum": [0, 1, 2]},
        "expire_after": {"type": "integer", "minimum": 1},
        "unit_of_measurement": {"type": "string", "minLength": 1},
        "device_class": {"type": "string", "minLength": 1},
        "state_class": {"enum": ["measurement", "total", "total_increasing"]},
        "options": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "device": {
            "type": "object",
            "additionalProperties": False,
            "required": ["identifiers"],
            "properties": {
                "identifiers": {"type": "array", "minItems": 1, "items": {"type": "string"}},
                "name": {"type": "string"},
                "manufacturer": {"type": "string"},
                "model": {"type": "string"},
                "sw_version": {"type": "string"},
            },
        },
        "origin": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {
                "name": {"type": "string"},
                "sw_version": {"type": "string"},
                "support_url": {"type": "string", "format": "uri"},
            },
        },
    },
    "allOf": [
        {
            "if": {"required": ["options"]},
            "then": {
                "required": ["device_class"],
                "properties": {
                    "device_class": {"const": "enum"},
                    "state_class": False,
                    "unit_of_measurement": False,
                },
            },
        }
    ],
}
"""Written from the documentation of MQTT discovery and of the MQTT sensor, 2026."""


@pytest.fixture(scope="module")
def pump(tiny_bundle: Callable[..., bytes]) -> Manifest:
    return bundles.read(tiny_bundle("1.0")).manifest


@pytest.fixture(scope="module")
def flow(regression_bundle: Callable[..., bytes]) -> Manifest:
    return bundles.read(regression_bundle()).manifest


def make(**settings: Any) -> Binding:
    return msgspec.convert(
        {"model": "pump", "inputs": INPUTS, "homeassistant": {}, **settings}, Binding
    )


SETTINGS: list[dict[str, Any]] = [
    {},
    {"name": "cellar.1", "homeassistant": {"expire": "90s", "prefix": "ha"}},
    {"homeassistant": {"sensors": [
        {"field": "label", "name": "State"},
        {"field": "probabilities.bad", "unit": "%"},
        {"field": "value", "device_class": "temperature", "unit": "°C"},
        {"field": "at_ms", "state_class": ""},
    ]}},
    {"publish": {"format": "plain", "fields": ["label"], "qos": 1}},
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("task", ["pump", "flow"])
def test_every_configuration_holds_to_the_documented_rules(
    settings: dict[str, Any], task: str, request: pytest.FixtureRequest
) -> None:
    binding = make(**settings)
    found = discovery(binding, request.getfixturevalue(task), PLACE, "x/y")
    assert set(found) == set(config_topics(binding, PLACE))
    prefix = settings.get("homeassistant", {}).get("prefix", "homeassistant")
    for topic, payload in found.items():
        config = json.loads(payload)
        jsonschema.validate(config, SENSOR_SCHEMA)
        begin, component, unique, last = topic.split("/")
        assert (begin, component, last) == (prefix, "sensor", "config")
        assert set(unique) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
        )
        assert config["unique_id"] == unique
    names = [json.loads(payload)["unique_id"] for payload in found.values()]
    assert len(set(names)) == len(names)


def test_the_agents_status_says_whether_a_sensor_is_there(pump: Manifest) -> None:
    (payload,) = discovery(make(), pump, PLACE, "x/y").values()
    config = json.loads(payload)
    assert config["availability_topic"] == PLACE.status
    for online, said in ((True, "online"), (False, "offline")):
        status = json.loads(messages.encode(Status(online=online, boot=1, agent="0.1")))
        shown = jinja2.Environment().from_string(config["availability_template"])
        assert shown.render(value_json=status) == said


def test_a_classifier_shows_its_label_and_a_regression_its_value(
    pump: Manifest, flow: Manifest
) -> None:
    (label,) = (json.loads(p) for p in discovery(make(), pump, PLACE, "x").values())
    (value,) = (json.loads(p) for p in discovery(make(), flow, PLACE, "x").values())
    assert (label["device_class"], label["options"]) == ("enum", ["bad", "good"])
    assert value["state_class"] == "measurement" and "options" not in value


@given(st.text(min_size=1, max_size=30).filter(lambda text: "\0" not in text))
def test_the_probability_of_any_label_is_found_by_its_template(label: str) -> None:
    text = jinja2.Environment().from_string(template(f"probabilities.{label}"))
    assert text.render(value_json={"probabilities": {label: 0.25}}) == "0.25"


@given(st.text(max_size=20), st.text(max_size=20))
def test_two_names_never_share_an_object(one: str, other: str) -> None:
    if one != other:
        assert object_id(one) != object_id(other)


# -- answers as messages -------------------------------------------------------------------------

ANSWER = results.fields_of(
    Prediction("bad", {"bad": 0.75, "good.ish": 0.25}),
    model="pump", version="1.0", at_ms=5, row={"temp": 1.0},
)  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "payload"),
    [
        ({}, {"model": "pump", "version": "1.0", "at_ms": 5, "label": "bad",
              "probabilities": {"bad": 0.75, "good.ish": 0.25}}),
        ({"fields": ("label", "inputs")}, {"label": "bad", "inputs": {"temp": 1.0}}),
        ({"fields": ("probabilities.good.ish", "probabilities.bad")},
         {"probabilities": {"good.ish": 0.25, "bad": 0.75}}),
    ],
)  # fmt: skip
def test_an_answer_has_the_fields_that_were_asked_for(
    settings: dict[str, Any], payload: dict[str, Any]
) -> None:
    assert json.loads(results.payload(Publish(**settings), ANSWER)) == payload


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("label", b"bad"),
        ("probabilities.bad", b"0.75"),
        ("probabilities", b'{"bad":0.75,"good.ish":0.25}'),
    ],
)
def test_one_field_as_bare_text(field: str, text: bytes) -> None:
    assert results.payload(Publish(format="plain", fields=(field,)), ANSWER) == text


@pytest.mark.parametrize("field", ["value", "probabilities.none", "x"])
def test_a_field_that_is_not_there_is_said_with_those_that_are(field: str) -> None:
    with pytest.raises(InputFault) as caught:
        results.payload(Publish(fields=(field,)), ANSWER)
    assert "probabilities.bad" in caught.value.advice
