"""Loads libraries without what they would only look into.

Guards: a process with other work keeps its memory, and nobody misses what was left out: whoever
asks for it afterwards gets it. Each function says what it spares, and must be called before any
other thread runs; otherwise it does nothing, and the library loads as it always does.

Imports nothing but the standard library at its top.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType

EXTENSIONS = "typing_extensions"
REQUEST = "urllib.request"
ZONES_VARIABLE = "PYTHONTZPATH"
ZONES = "/usr/share/zoneinfo:/usr/lib/zoneinfo:/usr/share/lib/zoneinfo:/etc/zoneinfo"
"""Where CPython looks for zones by default (its ``configure --with-tzpath``)."""


def load_msgspec() -> None:
    """Import msgspec without typing_extensions.

    msgspec 0.22 takes three names from there where it is installed (Typer's pydantic brings it),
    4 MB and 20 ms at each start, and from ``typing`` where it is not; from Python 3.11 on, they
    are the same three.
    """
    if may_hide("msgspec", EXTENSIONS):
        with hidden(EXTENSIONS, None):
            import msgspec  # noqa: F401, PLC0415 - the very point


def load_paho() -> None:
    """Import paho's client without ``urllib.request``, which brings http.client and email: 1.8 MB.

    It asks that for a proxy, by PySocks; where PySocks is installed nothing is left out.
    """
    if may_hide("paho.mqtt.client", REQUEST) and find_spec("socks") is None:
        with hidden(REQUEST, ModuleType(REQUEST)):
            import paho.mqtt.client  # noqa: F401, PLC0415


def load_zoneinfo() -> None:
    """Import zoneinfo without Python's table of how it was built, 0.7 MB: it looks up one path.

    A process that is given a zone by its name looks where this Python was built to.
    """
    if may_hide("zoneinfo", "sysconfig") and not {ZONES_VARIABLE, "TZ"} & os.environ.keys():
        os.environ[ZONES_VARIABLE] = ZONES
        try:
            import zoneinfo  # noqa: F401, PLC0415
        finally:
            del os.environ[ZONES_VARIABLE]


@contextlib.contextmanager
def put_off(*names: str) -> Iterator[None]:
    """Whoever imports one of these modules meanwhile has it loaded when it first takes from it.

    For what libraries import at their top and use in a corner of theirs.
    """
    with contextlib.ExitStack() as stack:
        for name in names:
            if may_hide(name):
                stack.enter_context(hidden(name, _later(name)))
        yield


def _later(name: str) -> ModuleType:
    """What stands for a module until somebody takes something from it."""
    stand_in = ModuleType(name)

    def take(attribute: str) -> object:
        if attribute.startswith("__"):  # what the machinery of imports asks of any module
            raise AttributeError(attribute)
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    stand_in.__dict__["__getattr__"] = take
    return stand_in


@contextlib.contextmanager
def hidden(name: str, stand_in: ModuleType | None) -> Iterator[None]:
    """Whoever imports the module ``name`` meanwhile gets ``stand_in``; None: it is not there."""
    sys.modules[name] = stand_in  # type: ignore[assignment]  # None: importlib knows it
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


def may_hide(*names: str) -> bool:
    """Nobody has one of them yet, and no other thread could miss it."""
    return not sys.modules.keys() & set(names) and threading.active_count() == 1
