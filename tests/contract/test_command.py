"""However a command ends, a person sees a line and a script an exit code; never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import signal
import sys
import typer
from edge_contract.errors import BuildFault, InputFault, MachineFault, PeerFault
from edge_contract.ports import command

app = typer.Typer()

@app.command()
def main(what: str) -> None:
    if what == "print":
        for _ in range(100_000):
            typer.echo("São Paulo")
    elif what == "little":
        typer.echo("São Paulo")
    elif what == "interrupt":
        signal.raise_signal(signal.SIGINT)
    elif what == "loading":  # Ctrl-C while a library loads, which answers with its own error
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None
    elif what == "missing":
        open("/no/such/file")
    else:
        raise {"input": InputFault, "build": BuildFault, "machine": MachineFault,
               "peer": PeerFault}[what]("what happened", advice="what to do")

command.run(app)
"""


def run(what: str, redirect: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    words = f'set -o pipefail; "{sys.executable}" -c "$PROGRAM" {what} {redirect}'
    return subprocess.run(
        ["bash", "-c", words],
        env={"PROGRAM": PROGRAM, "PATH": "/usr/bin:/bin", "PYTHONUTF8": "0"} | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("what", "code"), [("input", 2), ("build", 3), ("machine", 4), ("peer", 5)]
)
def test_each_family_has_its_exit_code_and_says_what_to_do(what: str, code: int) -> None:
    ended = run(what)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr == "error: what happened\n  what to do\n"


@pytest.mark.parametrize("what", ["interrupt", "loading"])
def test_an_interrupt_is_130_and_a_word(what: str) -> None:
    ended = run(what)
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("what", ["print", "little"])
def test_a_full_disk_behind_the_output_is_said(what: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    ended = run(what, "> /dev/full")
    assert (ended.returncode, ended.stderr) == (4, "error: the output: No space left on device\n")


def test_a_reader_that_goes_away_is_no_answer_of_ours() -> None:
    ended = run("print", "| head -1")
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_file_that_nobody_wrapped_is_named() -> None:
    ended = run("missing")
    assert ended.returncode == 4
    assert ended.stderr == "error: /no/such/file: No such file or directory\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_text_that_the_encoding_lacks_is_printed_all_the_same(encoding: str) -> None:
    ended = run("little", PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stdout) == (0, "São Paulo\n")
