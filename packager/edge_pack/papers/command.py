"""The arguments of ``edge-pack`` that repeat a build. Pure.

Guards: no folder, user name, password, token or signed query stands in it; the same options give
the same words in any folder, in any order, from the command line or from Python.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import PurePath
from typing import Any

from edge_pack.config import BuildConfig
from edge_pack.origins.uris import as_model, recorded

_OPTIONS = {"slices": "slice"}
"""Fields whose option has another name."""
LEFT_OUT = frozenset(
    {
        "out", "keys", "measure", "prove_runtime",  # change nothing that the manifest says
        # how to search: the decision is under ``compression``, and a build from its recipe must
        # repeat the bytes
        "quantize", "parameters", "optimize", "batch", "recipe", "max_metric_drop",
        "licence", "intended_use",  # stand beside it in full
        "provenance",  # off: no command is recorded
        "model",  # comes first, without an option's name
    }
)  # fmt: skip


def command_of(config: BuildConfig) -> tuple[str, ...]:
    """``build MODEL --option value ...``: what differs from its default, in declared order."""
    words = ["build", _shown(as_model(config.model))]
    for field in fields(config):
        value = getattr(config, field.name)
        default = field.default if field.default is not MISSING else None
        if field.name in LEFT_OUT or value == default:
            continue
        words += _option(_OPTIONS.get(field.name, field.name).replace("_", "-"), value)
    return tuple(words)


def as_text(command: Iterable[str]) -> str:
    """The command as a shell takes it."""
    return shlex.join(["edge-pack", *command])


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if name == "labels":  # one option holds them all
        return [f"--{name}", ",".join(map(str, value))]
    many = value if isinstance(value, tuple) else (value,)
    return [word for item in many for word in (f"--{name}", _shown(item))]


def _shown(value: Any) -> str:
    """A file by its base name (as file:// too), a URI without its secrets, else as it is."""
    if isinstance(value, PurePath):
        return value.name or "."
    text = str(value)
    if "://" not in text:
        return text
    uri = recorded(text)
    return uri.rpartition("/")[2] if uri.lower().startswith("file:") else uri
