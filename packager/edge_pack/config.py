"""What a build is told: one frozen struct, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from edge_contract.errors import InputFault
from edge_contract.manifest import Label
from edge_contract.names import check_name
from edge_pack.compress.modes import OPTIMIZE, QUANTIZE, Optimize, Parameters, Quantize
from edge_pack.gates import devices, require

DeclaredTask = Literal["", "classification", "regression"]

RUNTIME = ">=1.18"
"""The oldest release that the agent itself is installed with."""
MAX_FLIPS = 0.001
"""Labels that may differ from the original's, as a share of the rows."""
MAX_DIFF_PROBABILITY = 0.05
"""Largest difference of one probability: well under what moves a decision by itself."""
MAX_DIFF_VALUE = 0.01
"""Largest difference of a regression, as a share of its outputs' standard deviation."""
MAX_METRIC_DROP = 0.005
"""Of accuracy or R2, that a compressed form may cost where the true answers are known."""
BATCH = 256
"""The second batch size that is timed: a gateway's backlog rather than one reading."""
BATCH_MAX = 65_536


@dataclass(frozen=True)
class BuildConfig:
    """What to build, from what, and how far it may differ from the original.

    Attributes:
        model: a path or a URI; see ``origins.resolve``.
        data: .csv, .tsv, .parquet or .npz; None: inputs are drawn from the model's own shapes,
            where it has any.
        out: where the bundle goes; measurements go beside it.
        target: column with the true answer; held out of the features, used for metrics.
        time_column: column that orders the rows in time; held out of the features.
        rows_per_hour: that one device will answer, 0: not declared. A monitor that cannot work at
            that rate is left out, or stops the build with ``strict_data``.
        min_shift: least movement of a feature or an output that counts as drift, in standard
            deviations: devices that rest apart by less raise no alarm; 0: what the reference
            can show.
        quantize: a form to take, or ``auto`` to search for one.
        parameters: of that form, as a recipe has them; a form knows its own for what is not there.
        max_flips: share of rows. max_diff: None takes the default of the model's task.
        max_metric_drop: None takes the default, and offers no pruning of trees.
        optimize: what a search aims for. batch: rows of the second batch size that is timed.
        recipe: the decision of an earlier search, followed instead of searching.
        prove_runtime: run the golden samples under the oldest ONNX Runtime of ``runtime``.
        runtime: the oldest ONNX Runtime that must run the bundle, such as ``>=1.18``; "" takes
            the device's, or the default.
        require: demands on figures, as ``gates.require`` reads them. slices: columns to tell
            figures by, whether the model reads them or not.
        baseline: an older bundle to compare with on the same rows. max_regressions: share of
            rows that it got right and the new one may get wrong; None: any.
        device: a profile's name or TOML file, whose memory and latency the bundle must keep.
        strict_data: a warning about the rows stops the build.
        task: what a network's outputs are; "" reads it off their last operator.
        labels: of a network that classifies, in the order of its output columns.
        force: seal a bundle beyond the budget, and say so in its manifest.
        keys: directory of signing keys, or None for an unsigned bundle.
        measure: time the bundle on this machine, in a process of its own.
        allow_calibration: devices may move scores by up to this much by labels that come there,
            from ``calibration_labels`` labels on; 0: never.
        provenance: record commit, DVC entries, run and command (``papers.provenance``).
    """

    model: str | Path
    name: str
    version: str
    out: Path
    data: Path | None = None
    target: str = ""
    time_column: str = ""
    rows_per_hour: float = 0.0
    min_shift: float = 0.0
    quantize: Quantize = "auto"
    max_flips: float = MAX_FLIPS
    max_diff: float | None = None
    max_metric_drop: float | None = None
    parameters: Parameters = field(default_factory=dict)
    optimize: Optimize = "size"
    batch: int = BATCH
    recipe: Path | None = None
    prove_runtime: bool = False
    runtime: str = ""
    require: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    baseline: Path | None = None
    max_regressions: float | None = None
    device: str = ""
    strict_data: bool = False
    task: DeclaredTask = ""
    labels: tuple[Label, ...] = ()
    force: bool = False
    trust: bool = False
    keys: Path | None = None
    measure: bool = True
    provenance: bool = True
    commit: str = ""
    run_id: str = ""
    licence: str = ""
    intended_use: str = ""
    allow_calibration: float = 0.0
    calibration_labels: int = 200

    def __post_init__(self) -> None:
        check_name(self.name, "bundle name")
        check_name(self.version, "bundle version")
        if self.quantize not in QUANTIZE:
            raise InputFault(
                f"--quantize {self.quantize!r} is unknown",
                advice=f"Expected one of: {', '.join(QUANTIZE)}.",
            )
        if self.task not in get_args(DeclaredTask):
            raise InputFault(
                f"--task {self.task!r} is unknown",
                advice="Expected classification or regression.",
            )
        if self.labels and self.task != "classification":
            raise InputFault(
                "--labels are those of a classifier", advice="Pass --task classification too."
            )
        if len(set(map(str, self.labels))) != len(self.labels):
            raise InputFault(f"--labels names a label twice: {', '.join(map(str, self.labels))}")
        if self.data is None and (self.target or self.time_column):
            raise InputFault(
                "--target and --time-column name columns of the data, and there is no --data"
            )
        self._check_gates()
        self._check_device()
        if not 0 <= self.max_flips <= 1:
            raise InputFault(f"--max-flips {self.max_flips} is not between 0 and 100%")
        self._check_search()
        if self.max_diff is not None and not self.max_diff >= 0:
            raise InputFault(f"--max-diff {self.max_diff} is not 0 or more")
        if self.target and self.target == self.time_column:
            raise InputFault("--target and --time-column name the same column")
        if self.out.is_dir():
            raise InputFault(
                f"{self.out} is a directory", advice="Name the file: -o model.edgepack."
            )

    def _check_device(self) -> None:
        """What devices will count and may change."""
        if not 0 <= self.rows_per_hour < float("inf"):
            raise InputFault(f"--rows-per-hour {self.rows_per_hour} is not a rate of 0 or more")
        if not 0 <= self.min_shift < float("inf"):
            raise InputFault(f"--min-shift {self.min_shift} is not 0 or more standard deviations")
        if not 0 <= self.allow_calibration <= 1 or self.calibration_labels < 1:
            raise InputFault(
                f"--allow-calibration {self.allow_calibration} by {self.calibration_labels} labels "
                "is not a shift of 0 to 1 by one label or more"
            )

    def _check_search(self) -> None:
        if self.optimize not in OPTIMIZE:
            raise InputFault(
                f"--optimize {self.optimize!r} is unknown",
                advice=f"Expected one of: {', '.join(OPTIMIZE)}.",
            )
        if self.optimize != "size" and not self.measure:
            raise InputFault(
                f"--optimize {self.optimize} needs measurements, and --no-measure forbids them"
            )
        if not 1 <= self.batch <= BATCH_MAX:
            raise InputFault(f"--batch {self.batch} is not between 1 and {BATCH_MAX}")
        if self.max_metric_drop is not None:
            if not 0 <= self.max_metric_drop <= 1:
                raise InputFault(
                    f"--max-metric-drop {self.max_metric_drop} is not between 0 and 100%"
                )
            if not self.target and self.recipe is None:
                raise InputFault(
                    "--max-metric-drop needs the true answers", advice="Name them with --target."
                )
        if self.recipe is not None and self.quantize != "auto":
            raise InputFault(
                "--recipe and --quantize both say which form to take: pass one of them"
            )

    def _check_gates(self) -> None:
        if not self.runtime:
            floor = devices.load(self.device).runtime if self.device else RUNTIME
            object.__setattr__(self, "runtime", floor)
        for text in self.require:
            require.parse(text)
        if len(set(self.slices)) != len(self.slices):
            raise InputFault(f"--slice names a column twice: {', '.join(self.slices)}")
        if self.data is None and (self.slices or self.baseline or self.require):
            raise InputFault("--slice, --baseline and --require need rows: there is no --data")
        if self.max_regressions is not None:
            if self.baseline is None:
                raise InputFault(
                    "--max-regressions compares with an older bundle",
                    advice="Name it with --baseline.",
                )
            if not 0 <= self.max_regressions <= 1:
                raise InputFault(
                    f"--max-regressions {self.max_regressions} is not between 0 and 100%"
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


def read_labels(text: str) -> tuple[Label, ...]:
    """``ok,worn,broken`` as labels; whole numbers where all of them are."""
    names = tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    if "" in names:
        raise InputFault(f"--labels {text!r} has an empty label", advice="Write it as a,b,c.")
    if all(name.removeprefix("-").isdecimal() for name in names):
        return tuple(int(name) for name in names)
    return names
