"""``edge-agent bind``: a binding is begun, explained and watched; nothing is published by it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from edge_agent import config as configs
from edge_agent.bindings.explain import explain, skeleton
from edge_agent.bindings.settings import Binding
from edge_agent.cli import app
from edge_contract import bundle as bundles
from edge_contract.errors import InputFault
from edge_contract.manifest import Feature, Manifest

BASE = '[agent]\ndevice = "pi1"\nfleet = "home"\nfolder = "state"\n[broker]\nurl = "{url}"\n'


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", "bind", *words],
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, tiny_bundle: Callable[..., bytes]) -> Path:
    (tmp_path / "pump.edgepack").write_bytes(tiny_bundle("1.0"))
    (tmp_path / "agent.toml").write_text(BASE.format(url="mqtt://localhost"))
    return tmp_path


def test_what_new_prints_is_a_binding_that_check_finds_nothing_wrong_with(folder: Path) -> None:
    made = run("--new", "pump.edgepack", cwd=folder)
    assert made.returncode == 0, made.stderr
    settings = folder / "agent.toml"
    settings.write_text(settings.read_text() + made.stdout)
    checked = run("--check", "--config", "agent.toml", "--bundle", "pump.edgepack", cwd=folder)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for name in ("temp", "hum", "rpm", "volt"):
        assert f"ok {name} (number) <- /{name} in sensors/pump (json)" in checked.stdout
    settings.write_text(settings.read_text().replace("volt =", "vollt ="))
    checked = run(
        "--check", "--json", "--config", "agent.toml", "--bundle", "pump.edgepack", cwd=folder
    )
    assert checked.returncode == 1
    wrong = {each["name"]: each for each in json.loads(checked.stdout)["pump"] if each["wrong"]}
    assert set(wrong) == {"volt", "vollt"}
    assert "did you mean 'volt'" in wrong["vollt"]["said"][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "one of --check, --try and --new"),
        (("--check", "--try"), "one of --check, --try and --new"),
        (("--check", "--config", "agent.toml"), "no [[bindings]]"),
        (("--check", "--config", "none.toml"), "no settings at"),
        (("--new", "none.edgepack"), "none.edgepack"),
        (("--new", "pump", "--config", "agent.toml"), "no model 'pump' is installed"),
    ],
)
def test_a_users_mistake_is_named(
    folder: Path, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    found = CliRunner().invoke(app, ["bind", *words])
    assert isinstance(found.exception, InputFault)
    assert said in found.exception.what


def test_try_shows_what_would_be_answered_and_publishes_nothing(desk: Any, folder: Path) -> None:
    binding = """
[[bindings]]
model = "pump"
publish = { topic = "home/answer" }
homeassistant = {}
[bindings.inputs]
temp = { topic = "sensors/temp", format = "number" }
hum = { topic = "sensors/json", field = "/hum", stale = "1h" }
rpm = { value = 0.1 }
volt = { value = 1.0 }
"""
    (folder / "agent.toml").write_text(BASE.format(url=desk.url) + binding)
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent.cli", "bind", "--try", "--json", "--seconds", "60",
         "--config", "agent.toml", "--bundle", "pump.edgepack"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            shown = json.loads(line)
            if shown["prediction"] is not None:
                break
            assert shown["missing"]
            desk.say("sensors/temp", b"1.5")
            desk.say("sensors/json", {"hum": 0.2})
        else:
            raise AssertionError(process.communicate()[1])
        assert shown["values"] == {"temp": 1.5, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
        assert 0 <= shown["ages_s"]["hum"] < 60
        assert shown["prediction"]["label"] == desk.serving.predict("pump", shown["values"]).label
    finally:
        process.kill()
        process.communicate()
    topics = {message.topic for message in desk.heard}
    assert not {topic for topic in topics if not topic.startswith("sensors/")}, topics


def test_try_ends_with_1_when_nothing_could_be_predicted(desk: Any, folder: Path) -> None:
    binding = '[[bindings]]\nmodel = "pump"\n[bindings.inputs]\ntemp = { topic = "none" }\n'
    (folder / "agent.toml").write_text(BASE.format(url=desk.url) + binding)
    done = run(
        "--try", "--seconds", "0.5", "--config", "agent.toml", "--bundle", "pump.edgepack",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "waits for temp" in done.stdout and "never seen" in done.stdout


# -- the explanation, purely ---------------------------------------------------------------------


def bound(inputs: dict[str, Any], **settings: Any) -> Binding:
    return msgspec.convert({"model": "site-model", "inputs": inputs, **settings}, Binding)


@pytest.mark.parametrize(
    ("name", "source", "said", "wrong"),
    [
        ("temp", {"topic": "t", "format": "text"}, "never becomes a number", True),
        ("temp", {"topic": "t", "unit": "°F"}, "trained on °C", True),
        ("temp", {"topic": "t", "unit": "°C", "stale": "1s"}, "", False),
        ("temp", {"topic": "t"}, "no staleness limit", False),
        ("temp", {"value": 900.0}, "outside of the range", False),
        ("temp", {"value": "warm"}, "is no number", True),
        ("site", {"topic": "t", "aggregate": "mean", "over": 3}, "has no mean", True),
        ("site", {"topic": "t", "format": "number"}, "gives no category", True),
        ("site", {"topic": "t", "map": {"1": "lyon", "2": "rome"}}, "rome", False),
        ("site", {"value": 3}, "is no text", True),
    ],
)
def test_an_input_is_held_against_its_feature(
    mixed_bundle: Callable[..., bytes], name: str, source: dict[str, Any], said: str, wrong: bool
) -> None:
    manifest = _with_units(bundles.read(mixed_bundle()).manifest)
    inputs = {
        "temp": {"value": 1.0},
        "hum": {"value": 0.0},
        "site": {"value": "lyon"},
        name: source,
    }
    (found,) = [each for each in explain(bound(inputs), manifest) if each.name == name]
    assert said in " ".join(found.said)
    assert found.wrong == wrong
    assert bool(found.said) == bool(said)


def _with_units(manifest: Manifest) -> Manifest:
    features = tuple(
        msgspec.structs.replace(each, unit="°C", minimum=-20.0, maximum=60.0)
        if each.name == "temp"
        else each
        for each in manifest.features
    )
    return msgspec.structs.replace(manifest, features=features)


def test_fields_that_no_answer_has_are_wrong(mixed_bundle: Callable[..., bytes]) -> None:
    manifest = bundles.read(mixed_bundle()).manifest
    inputs = {"temp": {"value": 1.0}, "hum": {"value": 0.0}, "site": {"value": "lyon"}}
    binding = bound(
        inputs,
        publish={"fields": ["label", "value"]},
        homeassistant={"sensors": [{"field": "probabilities.1"}]},
    )
    wrong = {each.name: each.said[0] for each in explain(binding, manifest) if each.wrong}
    assert "has no such field" in wrong["value"]
    assert "leaves it out" in wrong["probabilities.1"]


@pytest.mark.parametrize(
    "name", ["a b", 'quo"te', "sl/ash~", "ünï", "tab\t", "dot.ted", "-", "\x7f"]
)
def test_a_skeleton_is_valid_toml_for_any_name_of_a_feature(
    tiny_bundle: Callable[..., bytes], name: str
) -> None:
    manifest = bundles.read(tiny_bundle("1.0")).manifest
    odd = Feature(name=name, unit='"°C', minimum=-1.5, maximum=2.0)
    manifest = msgspec.structs.replace(manifest, features=(odd,))
    text = BASE.format(url="mqtt://localhost") + skeleton(manifest)
    config, faults = configs.parse(text.encode(), Path())
    assert config is not None, faults
    assert list(config.bindings[0].inputs) == [name]
    assert not [each for each in explain(config.bindings[0], manifest) if each.wrong]
