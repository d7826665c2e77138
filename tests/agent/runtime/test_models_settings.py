"""``[models.NAME]`` in agent.toml: how each model is kept in memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_agent import config as configs
from edge_agent.settings import Loading

NEEDED = '[agent]\ndevice = "pi1"\nfleet = "home"\n[broker]\nurl = "mqtt://localhost"\n'


def test_each_model_has_its_own_and_others_the_defaults() -> None:
    text = NEEDED + "[models.camera]\nthreads = 2\n[models.pump]\nkeep_former = true\n"
    config, faults = configs.parse(text.encode(), Path("/"))
    assert faults == []
    assert config.loading("camera") == Loading(threads=2)
    assert config.loading("pump") == Loading(keep_former=True)
    assert config.loading("fan") == Loading() == Loading(threads=1, keep_former=False)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("[models.pump]\nthreads = 0\n", "[models.pump] threads = 0: "),
        ("[models.pump]\nthread = 2\n", "unknown setting 'thread'; did you mean 'threads'?"),
        ("[models.pump]\nkeep_former = 1\n", "[models.pump] keep_former = 1: "),
        ("[models]\npump = 3\n", "[models.pump]: expected a table, got int"),
        ("[models.'../pump']\nthreads = 1\n", "[models] = "),
        ("models = 3\n" + NEEDED, "[models] = 3: "),
    ],
)
def test_what_cannot_work_is_said_at_the_start(section: str, said: str) -> None:
    text = section if NEEDED in section else NEEDED + section
    config, faults = configs.parse(text.encode(), Path("/"))
    assert config is None
    assert len(faults) == 1
    assert faults[0].startswith(said) or said in faults[0]


def test_the_example_shows_them_with_their_defaults() -> None:
    shown = (Path(__file__).parents[3] / "agent" / "agent.example.toml").read_text()
    found = re.search(r"# \[models\.camera\]\n((?:# .+\n)+)", shown)
    assert found, "the section is in the example"
    section = "[models.camera]\n" + found[1].replace("# ", "")
    config, faults = configs.parse((NEEDED + section).encode(), Path("/"))
    assert faults == []
    assert config.models == {"camera": Loading()}
    for name in Loading.__struct_fields__:
        assert f"{name} = " in section
