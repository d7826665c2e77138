"""What a build is told: one frozen struct, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_contract.errors import InputFault
from edge_contract.names import check_name

Quantize = Literal["auto", "none", "int8-storage"]
QUANTIZE_MODES: tuple[Quantize, ...] = ("auto", "none", "int8-storage")

MAX_FLIPS = 0.001
"""Labels that may differ from the original's, as a share of the rows."""
MAX_DIFF_PROBABILITY = 0.05
"""Largest difference of one probability: well under what moves a decision by itself."""
MAX_DIFF_VALUE = 0.01
"""Largest difference of a regression, as a share of its outputs' standard deviation."""


@dataclass(frozen=True)
class BuildConfig:
    """What to build, from what, and how far it may differ from the original.

    Attributes:
        model: .joblib, .pkl, .skops or .onnx. data: .csv, .tsv, .parquet or .npz.
        out: where the bundle goes; measurements go beside it.
        target: column with the true answer; held out of the features, used for metrics.
        time_column: column that orders the rows in time; held out of the features.
        max_flips: share of rows. max_diff: None takes the default of the model's task.
        runtime: the oldest ONNX Runtime that must run the bundle, such as ``>=1.18``.
        force: seal a bundle beyond the budget, and say so in its manifest.
        keys: directory of signing keys, or None for an unsigned bundle.
        measure: time the bundle on this machine, in a process of its own.
        provenance: record commit, DVC entries, run and command (``papers.provenance``).
    """

    model: Path
    data: Path
    name: str
    version: str
    out: Path
    target: str = ""
    time_column: str = ""
    quantize: Quantize = "auto"
    max_flips: float = MAX_FLIPS
    max_diff: float | None = None
    runtime: str = ">=1.18"
    force: bool = False
    trust: bool = False
    keys: Path | None = None
    measure: bool = True
    provenance: bool = True
    commit: str = ""
    run_id: str = ""
    licence: str = ""
    intended_use: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "bundle name")
        check_name(self.version, "bundle version")
        if self.quantize not in QUANTIZE_MODES:
            raise InputFault(
                f"--quantize {self.quantize!r} is unknown",
                advice=f"Expected one of: {', '.join(QUANTIZE_MODES)}.",
            )
        if not 0 <= self.max_flips <= 1:
            raise InputFault(f"--max-flips {self.max_flips} is not between 0 and 100%")
        if self.max_diff is not None and not self.max_diff >= 0:
            raise InputFault(f"--max-diff {self.max_diff} is not 0 or more")
        if self.target and self.target == self.time_column:
            raise InputFault("--target and --time-column name the same column")
        if self.out.is_dir():
            raise InputFault(
                f"{self.out} is a directory", advice="Name the file: -o model.edgepack."
            )


def share(text: str, option: str) -> float:
    """``0.1%`` or ``0.001`` as a share. Raises InputFault when it is neither."""
    number = text.strip()
    scale = 1.0
    if number.endswith("%"):
        number, scale = number[:-1], 0.01
    try:
        value = float(number) * scale
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InputFault(
            f"{option} {text!r} is not a share between 0 and 100%",
            advice="Write it as 0.1% or 0.001.",
        )
    return value
