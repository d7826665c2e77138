"""Predictions as sensors of Home Assistant, by MQTT discovery. Pure.

By its documentation (integrations/mqtt, "MQTT discovery"; integrations/sensor.mqtt): a retained
configuration a sensor at ``<prefix>/sensor/<object>/config``, the object made of letters, digits,
'_' and '-'; ``unique_id``, a ``device`` with ``identifiers`` and an ``origin`` with a ``name``;
an ``enum`` has ``options`` and neither unit nor state class. Home Assistant says ``online`` on
``<prefix>/status`` when it started; an empty retained configuration removes the sensor.
"""

from __future__ import annotations

import hashlib
import json
import math
import re

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from edge_agent.bindings.settings import Binding, Sensor, seconds
from edge_contract.manifest import Manifest

ORIGIN_URL = "https://github.com/edge-pack/edge-pack"
ONLINE = b"online"
MAIN = Sensor(field=" ")
"""Where the settings name no sensor: what the model is for."""
_NOT_OBJECT = re.compile(r"[^A-Za-z0-9_-]")
_ENCODER = msgspec.json.Encoder()


class Place(Struct, frozen=True):
    """What the sensors of one device have in common.

    Attributes:
        status: topic of the agent's retained status, whose ``online`` says whether it is there.
    """

    fleet: str
    device: str
    agent: str
    status: str


def birth_topic(prefix: str) -> str:
    """Where Home Assistant says that it started."""
    return f"{prefix}/status"


def config_topics(binding: Binding, place: Place) -> dict[str, Sensor]:
    """Its sensors by the topic of their configuration; ``MAIN`` shows label or value."""
    ha = binding.homeassistant
    if ha is None:
        return {}
    stem = f"{place.fleet}-{place.device}-{binding.title}"
    names = {sensor: f"{stem}-{sensor.field}" for sensor in ha.sensors} or {MAIN: stem}
    return {
        f"{ha.prefix}/sensor/{object_id(name)}/config": sensor for sensor, name in names.items()
    }


def discovery(
    binding: Binding, manifest: Manifest, place: Place, state_topic: str
) -> dict[str, bytes]:
    """Configurations by their topics: one a sensor. Empty without ``homeassistant``."""
    found: dict[str, bytes] = {}
    for topic, sensor in config_topics(binding, place).items():
        shown = sensor if sensor != MAIN else replace(MAIN, field=_main_field(binding, manifest))
        config = _config(binding, shown, manifest, place)
        config |= {
            "unique_id": topic.split("/")[-2],
            "state_topic": state_topic,
            "qos": binding.publish.qos,
        }
        found[topic] = _ENCODER.encode(config)
    return found


def _config(
    binding: Binding, sensor: Sensor, manifest: Manifest, place: Place
) -> dict[str, object]:
    assert binding.homeassistant is not None
    several = len(binding.homeassistant.sensors) > 1
    name = sensor.name or (f"{binding.title} {sensor.field}" if several else binding.title)
    config: dict[str, object] = {
        "name": name,
        "availability_topic": place.status,
        "availability_template": "{{ 'online' if value_json.online else 'offline' }}",
        "device": {
            "identifiers": [object_id(f"edge-agent-{place.fleet}-{place.device}")],
            "name": place.device,
            "manufacturer": "edge-pack",
            "model": "edge-agent",
            "sw_version": place.agent,
        },
        "origin": {"name": "edge-agent", "sw_version": place.agent, "support_url": ORIGIN_URL},
    }
    if binding.publish.format == "json":
        config["value_template"] = template(sensor.field)
    if sensor.field == "label":
        if manifest.outputs.labels:
            config["device_class"] = "enum"
            config["options"] = [str(label) for label in manifest.outputs.labels]
    else:
        shown = {
            "device_class": sensor.device_class, "state_class": sensor.state_class,
            "unit_of_measurement": sensor.unit,
        }  # fmt: skip
        config |= {key: value for key, value in shown.items() if value}
    if binding.homeassistant.expire:
        config["expire_after"] = math.ceil(seconds(binding.homeassistant.expire))
    return config


def template(field: str) -> str:
    """The Jinja expression that takes a field out of the answer."""
    group, _, label = field.partition(".")
    if group == "probabilities" and label:
        return f"{{{{ value_json.probabilities[{json.dumps(label, ensure_ascii=False)}] }}}}"
    return f"{{{{ value_json[{json.dumps(field, ensure_ascii=False)}] }}}}"


def object_id(text: str) -> str:
    """``text`` in the letters that a discovery topic may have; two texts never give the same."""
    plain = _NOT_OBJECT.sub("_", text)
    if plain == text:
        return text
    return f"{plain}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _main_field(binding: Binding, manifest: Manifest) -> str:
    if binding.publish.format == "plain":
        return binding.publish.fields[0]
    return "value" if manifest.task == "regression" else "label"
