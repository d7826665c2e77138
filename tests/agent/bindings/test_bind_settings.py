"""What a binding may say: every fault of it is told at the start, in one go."""

from __future__ import annotations

import importlib.util
import json
import random
import re
from pathlib import Path

import pytest

from edge_agent import config as configs
from edge_agent.bindings.bound import Bound
from edge_agent.bindings.join import Moment
from edge_agent.bindings.payloads import Decoded
from edge_agent.bindings.settings import (
    Binding,
    HomeAssistant,
    Input,
    Publish,
    Sensor,
    seconds,
)
from edge_agent.bindings.sparkplug import Names
from edge_contract.errors import InputFault

BASE = """
[agent]
device = "pi1"
fleet = "home"
[broker]
url = "mqtt://localhost"
[brokers.local]
url = "mqtt://localhost:1884"
"""
GOOD = """
[[bindings]]
model = "pump"
{settings}
[bindings.inputs]
temp = {{ topic = "a/+", field = "/t"{source} }}
"""


def faults(settings: str = "", source: str = "", more: str = "") -> list[str]:
    text = BASE + GOOD.format(settings=settings, source=source) + more
    return configs.parse(text.encode(), Path())[1]


def test_a_good_binding_has_no_fault() -> None:
    assert faults('broker = "local"\nevery = "10s"', ', aggregate = "mean", over = "5min"') == []


@pytest.mark.parametrize(
    ("settings", "source", "said"),
    [
        ('brokker = "x"', "", "did you mean 'broker'"),
        ('broker = "far"', "", "no section [brokers.*]"),
        ('every = "soon"', "", "90s"),
        ('every = "0s"', "", "90s"),
        ('every = "1s"\non = "message"', "", "every excludes"),
        ('on = "never"', "", "Invalid enum"),
        ('name = "a/b"', "", "letters"),
        ('publish = { format = "plain" }', "", "exactly one of fields"),
        ('publish = { topic = "a/#" }', "", "no topic to publish to"),
        ('publish = { topic = "edge/1/home/d/pi1/status" }', "", "not for answers"),
        ('publish = { topic = "{what}/x" }', "", "not for answers"),
        ('publish = { qos = 2 }', "", "Invalid enum"),
        ('publish = { topic = "a/b" }', "", "its own answers would come back"),
        ('homeassistant = { expire = "x" }', "", "90s"),
        ('homeassistant = { sensors = [{ field = "a" }, { field = "a" }] }', "", "two sensors"),
        ("", ', over = 5', "over without an aggregate"),
        ("", ', aggregate = "mean"', "needs over"),
        ("", ', aggregate = "mean", over = 0', ">= 1"),
        ("", ', aggregate = "mean", over = 100000', "<= 10000"),
        ("", ', aggregate = "mean", over = 5, at_least = 6', "more than over holds"),
        ("", ', aggregate = "count", over = 5', "needs a time"),
        ("", ', aggregate = "band", over = 64', "needs rate_hz"),
        ("", ', aggregate = "band", over = 64, rate_hz = 9, band = [3, 1]', "needs rate_hz"),
        ("", ', value = 3', "one of topic and value"),
        ("", ', format = "sparkplug"', "spBv1.0/"),
        ("", ', format = "number"', "no field and no time"),
        ("", ', stale = "x"', "90s"),
        ("", ', felid = 1', "unknown field"),
    ],
)  # fmt: skip
def test_what_could_not_work_is_said(settings: str, source: str, said: str) -> None:
    found = faults(settings, source)
    assert any(said in fault for fault in found), found


def test_what_is_no_json_pointer_is_said_before_the_first_message() -> None:
    assert any("JSON pointer" in fault for fault in faults("", ', time = "t"'))


def test_bindings_that_feed_each_other_in_a_circle_are_refused_and_a_chain_is_not() -> None:
    other = """
[[bindings]]
model = "pump"
name = "{name}"
publish = {{ topic = "{to}" }}
[bindings.inputs]
temp = {{ topic = "{of}", field = "/value" }}
"""
    chain = other.format(name="one", of="a/b", to="c/d") + other.format(
        name="two", of="c/d", to="e/f"
    )
    assert configs.parse((BASE + chain).encode(), Path())[1] == []
    circle = other.format(name="one", of="c/d", to="a/b") + other.format(
        name="two", of="a/b", to="c/d"
    )
    found = configs.parse((BASE + circle).encode(), Path())[1]
    assert len(found) == 2 and all("come back to it" in fault for fault in found)


@pytest.mark.parametrize(
    "topic", ["#", "edge/1/home/#", "edge/1/home/d/+/in/pump", "+/+/+/d/pi1/+"]
)
def test_what_the_agent_itself_is_asked_on_feeds_no_binding(topic: str) -> None:
    binding = GOOD.format(settings="", source="").replace("a/+", topic)
    found = configs.parse((BASE + binding).encode(), Path())[1]
    assert found and all("name the sensors' topics" in fault for fault in found)
    elsewhere = binding.replace("[bindings.inputs]", 'broker = "local"\n[bindings.inputs]')
    others = configs.parse((BASE + elsewhere).encode(), Path())[1]
    assert not any("name the sensors' topics" in fault for fault in others)


def test_another_device_s_answers_may_feed_a_binding() -> None:
    binding = GOOD.format(settings="", source="").replace("a/+", "edge/1/home/d/pi2/out/pump")
    assert configs.parse((BASE + binding).encode(), Path())[1] == []


def test_every_fault_is_told_at_once() -> None:
    found = faults('every = "x"\nstale = "y"', ', aggregate = "mean"', "[[bindings]]\nmodel = 3\n")
    assert len(found) == 5, found


def test_two_bindings_of_one_name_are_refused() -> None:
    twice = GOOD.format(settings="", source="")
    assert any("two of this name" in fault for fault in faults(more=twice))


def test_the_password_of_a_local_broker_comes_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("geheim\n")
    path = tmp_path / "agent.toml"
    path.write_text(BASE + 'password_file = "secret"\n')
    assert configs.load(path, {}).passwords == {"local": "geheim"}
    (tmp_path / "secret").unlink()
    with pytest.raises(InputFault, match=r"\[brokers.local\] password_file"):
        configs.load(path, {})


def test_faults_of_a_local_broker_name_its_section() -> None:
    text = BASE.replace("mqtt://localhost:1884", "http://x")
    found = configs.parse(text.encode(), Path())[1]
    assert len(found) == 1 and found[0].startswith("[brokers.local] url:"), found


@pytest.mark.parametrize(
    ("text", "found"), [("500ms", 0.5), ("10s", 10), ("1.5 min", 90), ("2h", 7200), ("1d", 86400)]
)
def test_times_as_a_person_writes_them(text: str, found: float) -> None:
    assert seconds(text) == found


def test_the_example_shows_every_setting_of_a_binding_and_is_valid() -> None:
    text = (Path(__file__).parents[3] / "agent" / "agent.example.toml").read_text()
    part = text[text.index("# [brokers.local]") :]
    for kind in (Binding, Input, Publish, HomeAssistant, Sensor):
        for name in kind.__struct_fields__:
            assert re.search(rf"\b{name} =", part) or f"[bindings.{name}]" in part, name
    lines = [line.removeprefix("# ") for line in part.splitlines()]
    settings = [line for line in lines if re.match(r"\[|[a-z_]+ = ", line)]
    whole = BASE.partition("[brokers.local]")[0] + "\n".join(settings)
    whole = whole.replace("password_file", "keepalive_s = 30 #").replace('every = "10s"', "")
    config, faults = configs.parse(whole.encode(), Path())
    assert config is not None, faults
    assert len(config.bindings) == 1 and len(config.bindings[0].inputs) == 7


def test_the_settings_of_the_example_fit_what_its_sensors_say() -> None:
    """Three seconds of simulated sensors give every feature; a worn pump hums more."""
    folder = Path(__file__).parents[3] / "examples" / "bindings"
    spec = importlib.util.spec_from_file_location("example_sensors", folder / "sensors.py")
    assert spec is not None and spec.loader is not None
    sensors = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sensors)
    config, faults = configs.parse((folder / "agent.toml").read_bytes(), folder)
    assert config is not None, faults
    (binding,) = config.bindings

    def hum(begin: int) -> float:
        bound, rng = Bound(binding, Names(()), 0.0), random.Random(1)
        for second in range(begin, begin + 3):
            for topic, document in sensors.messages(float(second), rng):
                message = Decoded(topic, json.dumps(document).encode())
                bound.take(message, {topic}, Moment(float(second), None), retained=False)
        row = bound.row(begin + 2.0)
        assert not row.missing
        return float(row.values["hum_50hz"])  # type: ignore[arg-type]

    assert hum(0) < 0.01 < hum(60)
