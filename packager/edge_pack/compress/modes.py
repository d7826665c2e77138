"""The forms a model can travel in, by name, and what a search can aim for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Mode = Literal[
    "none", "int8-storage", "int4-storage", "fp16-storage",
    "int8-static", "int8-static-tensor", "int8-dynamic",
    "trees-merged", "trees-leaf8", "trees-pruned", "trees-v5",
]  # fmt: skip
MODES: tuple[Mode, ...] = get_args(Mode)
"""The plainest first: at a tie the earlier one is taken."""
COMPUTE: tuple[Mode, ...] = ("int8-static", "int8-static-tensor", "int8-dynamic")
"""Forms that compute in integers: only a measurement says whether they are faster."""
LIGHTER: tuple[Mode, ...] = ("trees-v5",)
"""Forms of more bytes that load faster and into less memory: only a measurement says whether."""

TREES: tuple[Mode, ...] = ("trees-merged", "trees-leaf8", "trees-pruned", "trees-v5")
LOSSY_TREES: tuple[Mode, ...] = ("trees-leaf8", "trees-pruned")
"""Trees convert exactly; a search gives that away only where it is told what may be lost."""

Quantize = Literal["auto", Mode]
QUANTIZE: tuple[Quantize, ...] = ("auto", *MODES)

Optimize = Literal["size", "latency", "memory", "balanced"]
OPTIMIZE: tuple[Optimize, ...] = get_args(Optimize)

Parameter = int | float | str | bool
Parameters = Mapping[str, Parameter]
