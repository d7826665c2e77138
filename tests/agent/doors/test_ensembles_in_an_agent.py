"""An ensemble in agent.toml answers under its name: Python, MQTT, HTTP; its faults are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import config as configs
from edge_contract.errors import InputFault

HEAD = '[agent]\ndevice = "pi1"\nfleet = "home"\n[broker]\nurl = "mqtt://localhost"\n'


def load(tmp_path: Path, text: str):
    path = tmp_path / "agent.toml"
    path.write_text(HEAD + text)
    return configs.load(path, {})


def test_the_examples_ensemble_can_be_taken_over(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "agent" / "agent.example.toml").read_text()
    start = text.index("# [ensembles.wear]")
    block = text[start : text.index("\n\n", start)]
    config = load(tmp_path, "\n".join(line.removeprefix("# ") for line in block.splitlines()))
    spec = config.ensembles["wear"]
    assert spec.models == ("vibration", "pump")
    assert spec.feeds["pump.bearing"] == "vibration.label"
    assert spec.answer == "pump"
    assert load(tmp_path, "").ensembles == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('models = ["a", "b"]\nfeeds = {"a.x" = "b.value", "b.y" = "a.value"}', "a cycle"),
        ('models = ["a"]\nfeeds = {"a.x" = "b.value"}', "of length >= 2"),
        ('models = ["a", "b"]', "feeds is missing"),
        ('models = ["a", "b"]\nfeeds = {"a.x" = "b.value"}\nanswers = "a"', "mean 'answer'"),
        ('models = ["a", "e"]\nfeeds = {"a.x" = "e.value"}', "a model has this name"),
        ('models = ["a", "b c"]\nfeeds = {"a.x" = "b.value"}', "letters, digits"),
    ],
)  # fmt: skip
def test_a_fault_names_the_ensemble(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputFault, match=r"\[ensembles\.e\]") as caught:
        load(tmp_path, "[ensembles.e]\n" + text)
    assert said in caught.value.what
