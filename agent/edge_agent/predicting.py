"""What ``edge-agent predict`` does: rows of a file, or requests line by line, and their answers.

Guards: what is written is complete or not there; answers alone go to standard output, all else to
stderr.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

import msgspec
import typer

from edge_agent import config as configs
from edge_agent.doors import files, lines
from edge_agent.doors.files import Answered, CsvTable, JsonLines
from edge_agent.doors.rows import CsvRows, NpzRows
from edge_agent.doors.watch import DONE, FAILED, Result, Watcher
from edge_agent.ensemble import Ensemble
from edge_agent.installed import BUNDLE_SUFFIX, is_bundle, open_installed
from edge_agent.live import Live
from edge_agent.model import Model
from edge_agent.settings import Watch, faults_of
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.messages import Problem
from edge_contract.ports.disk import TEMPORARY, check_place, sync_directory
from edge_contract.typed import convert

__all__ = ["BUNDLE_SUFFIX", "file_of", "lines_of", "open_model", "watch"]

NAMED_MAX = 5
"""Refused rows that are named on stderr; the answers name all."""
STDIN = "-"


def open_model(name: str, config: Path) -> Model:
    """A bundle's file, or what is installed under a name ("": the only one). Raises InputFault."""
    if is_bundle(name):
        return Model.open(name)
    settings = configs.load(config, os.environ)
    spec = settings.ensembles.get(name)
    if spec is None:
        return open_installed(settings, name)
    members = {each: open_installed(settings, each) for each in spec.models}
    return Ensemble(name, spec, members)


def lines_of(name: str, config: Path) -> None:
    """Answer JSON requests on standard input, a line each, until its end."""
    model = open_model(name, config)
    tally = lines.serve(model, sys.stdin.buffer, sys.stdout.buffer)
    sys.stderr.write(f"{tally.answered:,} answered, {tally.refused:,} refused\n")


def file_of(
    model_name: str, name: str, config: Path, output: Path | None, *, as_json: bool, strict: bool
) -> int:
    """Answer all rows of the file ``name``; how many were refused.

    Raises InputFault for a file that cannot be read, and with ``strict`` for the first row.
    """
    if output is not None and output.suffix not in (".csv", ".jsonl"):
        raise InputFault(f"{output}: the suffix says the form: .csv or .jsonl")
    as_json = as_json or (output is not None and output.suffix == ".jsonl")
    model = open_model(model_name, config)
    bar = sys.stderr.isatty() and (output is not None or not sys.stdout.isatty())
    with _rows(model, name, bar=bar) as (rows, track), _target(output) as target:
        unused = getattr(rows, "unused", ())
        if unused:
            shown = ", ".join(unused[:NAMED_MAX]) + (", ..." if len(unused) > NAMED_MAX else "")
            sys.stderr.write(f"not used: {shown}\n")
        writer = JsonLines(target, model.manifest) if as_json else CsvTable(target, model.manifest)
        answered = refused = 0
        for each in track(files.answers(model.predict, rows.blocks())):
            writer.write(each)
            if isinstance(each.found, EdgeError):
                refused += 1
                _refuse(name, each, each.found, refused, strict=strict)
            else:
                answered += 1
    sys.stderr.write(f"{answered + refused:,} rows, {refused:,} refused\n")
    return refused


def _refuse(name: str, each: Answered, error: EdgeError, count: int, *, strict: bool) -> None:
    where = f"{name}, line {each.place}: " if name.endswith(".csv") else f"row {each.place}: "
    if strict:
        raise type(error)(where + error.what, advice=error.advice)
    if count <= NAMED_MAX:
        sys.stderr.write(f"{where}{error.what}\n")


def watch(settings: dict[str, object], model_name: str, config: Path, *, once: bool) -> int:
    """Answer the files that come into a folder; with ``once`` what is there.

    Returns how many of them failed. Raises InputFault for settings that could not work.
    """
    model = open_model(model_name, config)
    try:
        chosen = convert({**settings, "model": model.manifest.name}, Watch, strict=False)
    except msgspec.ValidationError as error:
        raise InputFault(str(error)) from error
    if faults := faults_of(chosen):
        raise InputFault("; ".join(faults))
    tally = {DONE: 0, FAILED: 0}

    def tell(name: str, result: Result) -> None:
        tally[FAILED if isinstance(result.error, Problem) else DONE] += 1
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        sys.stdout.flush()

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    seats = {chosen.model: Live(chosen.model, model)}
    watcher = Watcher(chosen, seats, size_max=chosen.file_max_bytes, tell=tell)
    watcher.prepare()
    if once:
        while watcher.look():
            pass
    else:
        watcher.run()
    return tally[FAILED]


@contextmanager
def _rows(model: Model, name: str, *, bar: bool) -> Iterator[tuple[CsvRows | NpzRows, _Track]]:
    """The rows of a file, and what shows how far they were read."""
    if name == STDIN:
        stream = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", newline="")
        yield CsvRows(stream, model.manifest), _Track(None, 0)
        return
    path = Path(name)
    if path.suffix == ".npz":
        yield NpzRows(path, model.manifest), _Track(None, 0)
        return
    if path.suffix in (".parquet", ".jsonl"):
        hint = "edge-pack predict reads it" if path.suffix == ".parquet" else "use --lines"
        raise InputFault(f"{path}: expected .csv or .npz", advice=f"For {path.suffix}, {hint}.")
    try:
        raw = path.open("rb")
        size = path.stat().st_size
    except OSError as error:
        raise InputFault(f"cannot read {path}: {error.strerror}") from error
    with raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as stream:
        yield CsvRows(stream, model.manifest), _Track(raw if bar else None, size)


class _Track:
    """A progress bar on stderr, by the bytes that were read; without ``raw`` none."""

    def __init__(self, raw: BinaryIO | None, size: int) -> None:
        self._raw, self._size = raw, size

    def __call__(self, answers: Iterator[Answered]) -> Iterator[Answered]:
        raw = self._raw
        if raw is None:
            yield from answers
            return
        with typer.progressbar(length=self._size, file=sys.stderr, label="rows") as bar:
            done = 0
            for count, each in enumerate(answers):
                if count % 1000 == 0:
                    at = raw.tell()
                    bar.update(at - done)
                    done = at
                yield each
            bar.update(self._size - done)


@contextmanager
def _target(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is there when all of it is."""
    if output is None:
        yield sys.stdout
        return
    check_place(output)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(TEMPORARY, f".{output.name}.", output.parent)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            os.fchmod(handle, 0o644)
            yield stream
            stream.flush()
            os.fsync(handle)
        Path(temporary).replace(output)
        sync_directory(output.parent)
        temporary = ""
    except OSError as error:
        raise MachineFault(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        if temporary:
            with suppress(OSError):
                Path(temporary).unlink()
