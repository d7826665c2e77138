"""Runs a factory of the user's, and says where their code went wrong.

Guards: the folder that the command runs in is importable for as long as the call takes; whatever
the user's code raises, ``SystemExit`` too, comes out as one InputFault with their file and line.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge_contract.errors import InputFault


def call_factory(name: str, notice: Callable[[str], None]) -> tuple[Any, bytes]:
    """What ``package.module:function`` returns, and the source that it stands in.

    Raises InputFault when there is no such function, or it fails.
    """
    module_name, _, function = name.partition(":")
    notice(f"{name} is code: building runs it")
    with _here():
        module = _imported(module_name)
        made = getattr(module, function, None)
        if not callable(made):
            offered = [n for n, v in vars(module).items() if callable(v) and n[0] != "_"]
            raise InputFault(
                f"{module_name} has no function {function!r}",
                advice=f"It has {', '.join(sorted(offered)[:8]) or 'none'}.",
            )
        try:
            returned = made()
        except (Exception, SystemExit) as error:
            raise InputFault(
                f"{name} fails: {blame(error)}",
                advice="It is called without arguments and must return the trained module.",
            ) from error
    file = getattr(module, "__file__", None)
    return returned, Path(file).read_bytes() if file else b""


@contextlib.contextmanager
def _here() -> Iterator[None]:
    """The current folder is importable, as it is for ``python -m``."""
    folder = os.getcwd()  # noqa: PTH109  the text that sys.path holds
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputFault(
                f"there is no Python module {error.name!r} here",
                advice="Run the command in its folder, or name that folder in PYTHONPATH.",
            ) from error
        raise InputFault(
            f"module {name!r} needs {error.name!r}, which is not installed",
            advice="Install it here, as it was for training.",
        ) from error
    except (Exception, SystemExit) as error:
        raise InputFault(
            f"module {name!r} cannot be imported: {blame(error)}",
            advice="Correct it: python -c 'import " + name + "' must work.",
        ) from error


def blame(error: BaseException) -> str:
    """The error, and the last line of the user's own code that it came through."""
    said = next((line for line in str(error).splitlines() if line.strip()), "")
    text = f"{type(error).__name__}: {said[:300]}" if said else type(error).__name__
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename
        and "edge_pack" not in Path(frame.filename).parts
        and frame.filename[0] != "<"
        and not frame.filename.startswith(sys.base_prefix)
    ]
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text
