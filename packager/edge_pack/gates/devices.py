"""Device profiles: what a kind of device has, and how much slower it is than this machine.

A profile is a TOML file: one of those in this package by name (``pi3``, ``pi4``, ``pi5``,
``container``), or the user's own. All faults of a file are reported at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_pack import runtimes

PROFILE_MAX_BYTES = 64 * 1024
MB = 1024**2


@dataclass(frozen=True)
class Device:
    """A kind of device.

    Attributes:
        ram_mb: what a model's session may take beyond the agent itself.
        latency_p99_ms: longest acceptable answer for one row; None: any.
        slowdown: how many times longer one core of it takes than one of this machine.
        spread: the slowdown may be that many times more or less.
        runtime: the oldest ONNX Runtime on such devices, such as ``>=1.18``.
    """

    name: str
    arch: str
    ram_mb: float
    runtime: str
    latency_p99_ms: float | None = None
    slowdown: float = 1.0
    spread: float = 1.0

    @property
    def ram_bytes(self) -> int:
        """``ram_mb`` in bytes."""
        return int(self.ram_mb * MB)


def names() -> tuple[str, ...]:
    """The profiles that come with this package."""
    folder = resources.files("edge_pack.gates") / "profiles"
    return tuple(
        sorted(
            entry.name.removesuffix(".toml")
            for entry in folder.iterdir()
            if entry.name.endswith(".toml")
        )
    )


def load(name: str) -> Device:
    """The profile called ``name``, or in the TOML file of that path.

    Raises InputFault when there is none, or naming every fault of the file.
    """
    if name in names():
        folder = resources.files("edge_pack.gates") / "profiles"
        return parse((folder / f"{name}.toml").read_bytes(), name)
    if not name.lower().endswith(".toml"):
        raise InputFault(
            f"--device {name!r} is no device known here",
            advice=f"Expected {', '.join(names())}, or the path of a .toml file.",
        )
    return parse(read_bounded(Path(name), PROFILE_MAX_BYTES), name)


def parse(data: bytes, name: str) -> Device:
    """The profile in a TOML file's bytes. Raises InputFault with every fault in it."""
    try:
        found = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputFault(f"--device {name}: no valid TOML: {error}") from error
    faults = [f"{key} is unknown" for key in sorted(found.keys() - _RULES.keys())]
    for key, (required, rule, expected) in _RULES.items():
        if key not in found:
            faults += [f"{key} is missing: expected {expected}"] if required else []
        elif not rule(found[key]):
            faults.append(f"{key} = {found[key]!r}: expected {expected}")
    if faults:
        raise InputFault(
            f"--device {name} has {len(faults)} faults: {'; '.join(faults)}",
            advice=f"It takes {', '.join(_RULES)}.",
        )
    return Device(**{"name": Path(name).stem, **found})


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _above(least: float) -> Callable[[Any], bool]:
    def rule(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and least <= value < 1e9 and value > 0

    return rule


def _floor(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(runtimes.limits_of(value))
    except InputFault:
        return False


_RULES: dict[str, tuple[bool, Callable[[Any], bool], str]] = {
    "name": (False, _text, "text"),
    "arch": (True, _text, "text such as 'aarch64'"),
    "ram_mb": (True, _above(0), "megabytes above 0"),
    "runtime": (True, _floor, "text such as '>=1.18'"),
    "latency_p99_ms": (False, _above(0), "milliseconds above 0"),
    "slowdown": (False, _above(0), "a factor above 0"),
    "spread": (False, _above(1), "a factor of 1 or more"),
}
"""Key -> (required, what it must be, the same in words)."""
