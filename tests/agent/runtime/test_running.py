"""``edge-agent run`` reads its own command line as Typer would, and stays without it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import typer.core
import typer.main
from typer.testing import CliRunner

from edge_agent import running
from edge_agent.cli import app
from edge_agent.config import DEFAULT_PATH
from edge_agent.running import CONFIG_VARIABLE, LOG_VARIABLE, Line
from edge_contract.errors import InputFault

WORDS = (
    "run", "status", "--config", "a.toml", "--config=b.toml", "--config=", "-v", "--verbose",
    "--verbose=1", "-vv", "--help", "--version", "--", "-", "", "--log-format", "json",
    "--log-format=json",
)  # fmt: skip
FEW = ("--config", "--config=b.toml", "a.toml", "-v", "--log-format", "json", "--help")
ENVIRONMENTS: tuple[dict[str, str], ...] = (
    {},
    {CONFIG_VARIABLE: "c.toml", LOG_VARIABLE: "json"},
    {CONFIG_VARIABLE: "", LOG_VARIABLE: ""},
)


def as_typer_reads(words: list[str]) -> Line:
    """What the whole command would hand to ``running.run``. Raises whatever Typer raises."""
    whole = typer.main.get_command(app)
    assert isinstance(whole, typer.core.TyperGroup)
    with whole.commands["run"].make_context("run", words[1:]) as read:
        config, *others = (read.params[name] for name in Line._fields)
        return Line(str(config), *others)


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=["unset", "set", "empty"])
def test_a_line_that_is_read_here_is_read_as_typer_reads_it(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line of up to two words behind ``run`` that mean something to either, some of three."""
    for name in (CONFIG_VARIABLE, LOG_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    known = 0
    for count in range(4):
        for rest in itertools.product(WORDS if count < 3 else FEW, repeat=count):
            line = running.read(["run", *rest], environment)
            if line is not None:
                known += 1
                whole = line._replace(config=line.config or str(DEFAULT_PATH))
                assert as_typer_reads(["run", *rest]) == whole, rest
    assert known > 30


@pytest.mark.parametrize(
    "words",
    [[], ["--help"], ["--version"], ["status"], ["run", "--help"], ["run", "--config"],
     ["run", "--config", "--verbose"], ["run", "a.toml"], ["run", "--conf", "a.toml"],
     ["run", "--log-format", "yaml"]],
)  # fmt: skip
def test_everything_else_is_for_the_whole_command(words: list[str]) -> None:
    assert running.read(words, {}) is None


def test_a_form_of_logs_that_is_none_is_refused() -> None:
    done = CliRunner().invoke(app, ["run", "--log-format", "yaml", "--config", "none.toml"])
    assert isinstance(done.exception, InputFault)
    assert "--log-format 'yaml' is none of text, json" in str(done.exception)


def test_the_process_that_stays_holds_no_reader_of_command_lines(tmp_path: Path) -> None:
    """The real command up to its fault, and the agent itself."""
    program = (
        "import sys; sys.argv[1:] = ['run', '--config', sys.argv[1]]\n"
        "import edge_agent.agent\n"
        "from edge_agent.__main__ import main\n"
        "try:\n    main()\n"
        "finally:\n    print({'typer', 'click', 'rich', 'pydantic'} & sys.modules.keys())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "nowhere.toml"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "set()\n")
    assert done.stderr.startswith("error: no settings at")
