"""Log lines have one time: the journal's own, or ours where no journal is."""

from __future__ import annotations

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


def written(stream: TextIO, environment: dict[str, str]) -> list[str]:
    log = logging.getLogger(f"one {stream.name}")
    log.propagate = False
    log.addHandler(journal.handler(stream, environment))
    log.warning("disk full")
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
    assert lines[1] == "<3>failed"
    assert lines[-1] == "<3>ValueError: odd"
    assert all(line.startswith("<3>") for line in lines[1:])


@pytest.mark.parametrize("said", [{}, {"JOURNAL_STREAM": "1:1"}, {"JOURNAL_STREAM": "nonsense"}])
def test_anything_else_gets_the_time(stream: TextIO, said: dict[str, str]) -> None:
    assert re.match(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ WARNING disk full", written(stream, said)[0]
    )
