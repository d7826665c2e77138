"""An example in a help text can be copied into a shell as it is printed."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from edge_agent.cli import app as agent
from edge_contract import help_text
from edge_fleet.cli import app as fleet
from edge_pack.cli import app as pack

LONG = "edge-pack build pump.joblib --data rows.csv --name pump --slice 'a  b' --version 1.0 -o x.y"
APPS = {"edge-pack": pack, "edge-agent": agent, "edge-fleet": fleet}


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """``command`` and all below it, with the words that call it."""
    yield path, command
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, *path, name)


def as_a_shell_reads(printed: str) -> list[str]:
    return shlex.split(printed.replace("\\\n", ""))


def examples(printed: str) -> list[list[str]]:
    """The words of each example in a help text."""
    texts = re.split(r"\n\s*\n", printed.partition("\nOptions:")[0])
    found = (re.fullmatch(r"(?: {4}| {2}Example: )(edge-.*)", one, re.DOTALL) for one in texts)
    return [as_a_shell_reads(one[1]) for one in found if one]


def test_a_long_example_goes_on_behind_a_backslash() -> None:
    text = help_text.copyable(f"Do it.\n\nExamples:\n\n  {LONG}\n")
    first, _, rest = text.partition("\b\n")
    assert first == "Do it.\n\nExamples:\n\n"
    lines = rest.split("\n")
    assert len(lines) > 1
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert all(len(line) <= help_text.WIDTH for line in lines)
    assert as_a_shell_reads(rest) == shlex.split(LONG)


def test_how_an_example_is_written_in_the_code_does_not_show() -> None:
    written = LONG.replace(" --name", "\n    --name")
    once = help_text.copyable(f"Do it.\n\nExamples:\n\n  {written}")
    assert once == help_text.copyable(f"Do it.\n\nExamples:\n\n  {LONG}")
    assert once == help_text.copyable(once)


def test_an_example_behind_its_word_moves_below_when_it_is_long() -> None:
    assert help_text.copyable("Example: edge-pack gc --keep 2") == "Example: edge-pack gc --keep 2"
    assert help_text.copyable(f"Example: {LONG}").startswith("Example:\n\n\b\n  edge-pack build")


def test_other_text_is_the_formatters() -> None:
    text = "Sent by edge-agent\nand kept.\n\n  a list\n  of words"
    assert help_text.copyable(text) == text


@pytest.mark.parametrize("name", APPS)
def test_a_shell_reads_every_printed_example_as_a_command_that_there_is(name: str) -> None:
    app, seen = APPS[name], 0
    top = get_command(app)
    for path, _ in commands(top):
        result = CliRunner().invoke(app, [*path, "--help"], prog_name=name)
        assert result.exit_code == 0, (path, result.output)
        assert max(map(len, result.output.split("\n"))) <= 80, path
        for words in examples(result.output):
            seen += 1
            told = list(itertools.takewhile(lambda word: word not in ("|", "&&", ">>"), words))
            called: Any = get_command(APPS[told.pop(0)])
            while told and told[0] in getattr(called, "commands", {}):
                called = called.commands[told.pop(0)]
            known = {one for each in called.params for one in (*each.opts, *each.secondary_opts)}
            options = {word for word in told if re.match(r"--?[a-z]", word)}
            assert options <= known, (path, words, options - known)
            assert all(word == word.strip() and word for word in told), (path, words)
    assert seen >= 10
