"""The one place where an error becomes a line on stderr and an exit code.

Exit codes: 0 done; 1 the answer is no; 2 wrong input or usage; 3 the build refuses; 4 this
machine cannot; 5 the other side failed; 130 interrupted; 141 the reader of the output went away.

A command that stays in memory does without Typer, hence only ``finish`` imports it.
"""

import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from edge_contract import __version__, help_text
from edge_contract.errors import EdgeError
from edge_contract.ports.start import INTERRUPTED

if TYPE_CHECKING:
    import typer

MACHINE_FAULT = 4
READER_GONE = 141


def run(app: Callable[[], object]) -> None:
    """Run a command's ``app`` and exit; a user's mistake never shows a traceback."""
    _print_anything()
    interrupts = _watch_interrupts()
    try:
        try:
            app()
        except BaseException as ending:
            # Typer exits without a word, a library half loaded answers with an error of its own.
            if interrupts:
                raise KeyboardInterrupt from ending
            raise
        finally:
            sys.stdout.flush()  # here, where its failure can be answered
    except EdgeError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except SystemExit as ending:
        # Typer answers a reader that went away (`| head`) with 1, which here means "no".
        if isinstance(ending.__context__, BrokenPipeError):
            _stop_printing()
            sys.exit(READER_GONE)
        raise
    except BrokenPipeError:
        _stop_printing()
        sys.exit(READER_GONE)
    except OSError as error:
        # Files have faults of their own; what is left is most often our output, on a full disk.
        _stop_printing()
        sys.stderr.write(f"error: {error.filename or 'the output'}: {error.strerror or error}\n")
        sys.exit(MACHINE_FAULT)


def finish(app: "typer.Typer", name: str) -> None:
    """Give the command ``name``, which has all its commands, ``--version`` and copyable help."""
    import typer  # noqa: PLC0415 - see the module's text

    _make_copyable(app)

    def show(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{name} {__version__}")
            raise typer.Exit

    @app.callback()
    def options(
        _version: Annotated[
            bool,
            typer.Option("--version", help="Print the version.", callback=show, is_eager=True),
        ] = False,
    ) -> None:
        pass


def _make_copyable(app: "typer.Typer") -> None:
    if isinstance(app.info.help, str):
        app.info.help = help_text.copyable(app.info.help)
    for one in app.registered_commands:
        text = one.help or (one.callback.__doc__ if one.callback else None)
        one.help = help_text.copyable(text) if text else None
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _make_copyable(group.typer_instance)


def _print_anything() -> None:
    """Text that the terminal's encoding lacks is escaped; a pipe or file gets UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="backslashreplace")
        else:
            sys.stdout.reconfigure(encoding="utf-8")


def _watch_interrupts() -> list[int]:
    """A list that holds every Ctrl-C from now on, each of which still raises."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
    return seen


def _stop_printing() -> None:
    """Nothing more reaches stdout, so that the interpreter's last flush cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
