"""Log lines have one time: the journal's own, or ours where no journal is."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from edge_agent import journal


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "stderr").open("w+") as file:
        yield file


def written(stream: TextIO, environment: dict[str, str], *, as_json: bool = False) -> list[str]:
    log = logging.getLogger(f"one {stream.name}")
    log.propagate = False
    log.addHandler(journal.handler(stream, environment, as_json=as_json))
    log.warning("disk full")
    log.warning("no way to mqtt://pi1:geheim@broker\nü", extra={"tries": 3})
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("failed")
    stream.seek(0)
    return stream.read().splitlines()


def test_the_journal_gets_levels_and_no_time_on_every_line(stream: TextIO) -> None:
    found = os.fstat(stream.fileno())
    lines = written(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
    assert lines[0] == "<4>disk full"
    assert lines[3] == "<3>failed"
    assert lines[-1] == "<3>ValueError: odd"
    assert all(line.startswith("<3>") for line in lines[3:])


@pytest.mark.parametrize("said", [{}, {"JOURNAL_STREAM": "1:1"}, {"JOURNAL_STREAM": "nonsense"}])
def test_anything_else_gets_the_time(stream: TextIO, said: dict[str, str]) -> None:
    assert re.match(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ WARNING disk full", written(stream, said)[0]
    )


@pytest.mark.parametrize("journalled", [False, True])
def test_as_json_each_record_is_one_line_without_a_password(
    stream: TextIO, journalled: bool
) -> None:
    """To the journal the level stands before it, which the journal takes off again."""
    found = os.fstat(stream.fileno())
    environment = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"} if journalled else {}
    lines = written(stream, environment, as_json=True)
    assert [line[:3] for line in lines] == (["<4>", "<4>", "<3>"] if journalled else ['{"t'] * 3)
    full, refused, failed = (
        json.loads(line.partition(">")[2] if journalled else line) for line in lines
    )
    assert (full["level"], full["message"]) == ("warning", "disk full")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", full["ts"])
    assert refused["message"] == "no way to mqtt://pi1:***@broker\nü"
    assert refused["tries"] == 3
    assert failed["exception"].endswith("ValueError: odd")
