"""Judges a candidate before it is sealed: quality, slices, an older bundle, the device.

Guards: what is wrong in an option is said before the conversion begins; every gate is looked at
before one stops the build, so that a person sees all that failed in one table; nothing is written
by then. A figure that was measured on this machine never reaches the manifest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault, InputFault, MachineFault
from edge_contract.manifest import Baseline, Gate, Metric, Slice
from edge_pack import memory
from edge_pack.answers import Answers
from edge_pack.asking import Asked
from edge_pack.config import BuildConfig
from edge_pack.gates import baseline, devices, disparity, figures, on_device, require, slices, truth
from edge_pack.gates.baseline import Older
from edge_pack.gates.devices import Device
from edge_pack.gates.measures import FLAGGED, SILHOUETTE, names
from edge_pack.gates.require import Requirement
from edge_pack.gates.slices import Group
from edge_pack.measure import CandidateFigures, OnDevice

Notice = Callable[[str], None]


class Candidate(Protocol):
    """The form of the model that is about to be sealed, and its answers to all rows."""

    @property
    def proto(self) -> Any: ...
    @property
    def raw(self) -> bytes: ...
    @property
    def answers(self) -> Answers: ...


@dataclass(frozen=True)
class Failure:
    """A gate that does not hold: its entry, the figure as a person reads it, and a way out."""

    gate: Gate
    got: str
    advice: str


@dataclass(frozen=True)
class Judgement:
    """What the manifest says of quality and gates, which do not hold, and the device's figures."""

    metrics: tuple[Metric, ...] = ()
    slices: tuple[Slice, ...] = ()
    gates: tuple[Gate, ...] = ()
    baseline: Baseline | None = None
    failures: tuple[Failure, ...] = ()
    device: OnDevice | None = None


@dataclass(frozen=True)
class Plan:
    """What the options demand, read and checked before the conversion.

    Attributes:
        truth: float64 [given rows], or None without ``--target``.
        older: the baseline's answers and its truth in its own labels.
    """

    requirements: tuple[Requirement, ...]
    truth: NDArray[np.float64] | None
    groups: tuple[Group, ...]
    device: Device | None
    older: Older | None
    older_truth: NDArray[np.float64] | None


def prepare(asked: Asked, config: BuildConfig) -> Plan:
    """Read the truth, cut the slices, ask the baseline, and check every requirement's name.

    Raises InputFault for an option that the task or the data does not fit, MachineFault when
    there are slices and fairlearn is not installed.
    """
    task, labels = asked.original.task, asked.original.labels
    requirements = tuple(require.parse(text) for text in config.require)
    for requirement in requirements:
        require.check_name(requirement, names(task), task)
        if not config.target and requirement.name not in (FLAGGED.name, SILHOUETTE.name):
            raise InputFault(
                f"--require {requirement.what}{requirement.wanted} needs the true answers",
                advice="Name their column with --target.",
            )
    true = truth.read(asked.table, config.target, task, labels) if config.target else None
    judged = np.isfinite(true) if true is not None else np.ones(asked.given, dtype=bool)
    if config.slices:
        disparity.frame()
    groups = tuple(
        group for column in config.slices for group in slices.cut(asked.table, column, judged)
    )
    for requirement in requirements:
        require.check_slice(requirement, figures.slices(groups), config.slices)
    older = older_truth = None
    if config.baseline is not None:
        older = baseline.ask(config.baseline, asked.table, task)
        if true is not None:
            older_truth = truth.read(asked.table, config.target, task, older.labels)
    if config.max_regressions is not None and (true is None or not labels):
        raise InputFault(
            "--max-regressions counts labels that were right before, so it needs the true ones",
            advice="Name their column with --target; a regression has none: use --require.",
        )
    device = devices.load(config.device) if config.device else None
    return Plan(requirements, true, groups, device, older, older_truth)


def judge(
    plan: Plan,
    asked: Asked,
    chosen: Candidate,
    config: BuildConfig,
    notice: Notice,
    *,
    seen: CandidateFigures | None = None,
) -> Judgement:
    """Every figure and every gate.

    Args:
        seen: what the search measured of the candidate, or None.

    Raises BuildFault with a table of the gates that do not hold, unless forced.
    """
    given = np.arange(asked.given)
    sides = figures.Sides(
        asked.onnx.task,
        len(asked.onnx.outputs.labels),
        asked.answers.take(given),
        chosen.answers.take(given),
    )
    demanded = {
        requirement.name.removesuffix("_difference").removesuffix("_ratio")
        for requirement in plan.requirements
    }
    metrics = figures.of_rows(sides, plan.truth, asked.data, plan.groups, demanded)
    pieces = figures.slices(plan.groups)
    gates, failures = _quality(plan, metrics, pieces, notice)
    compared, there = None, None
    if plan.older is not None:
        compared = _compared(plan, plan.older, sides, asked)
        _add(_regressions(compared, config), gates, failures)
    if plan.device is not None:
        there = _on_device(plan.device, asked, chosen, config, notice, seen=seen)
        for gate, got, advice in on_device.gates(there):
            _add(Failure(gate, got, advice), gates, failures)
    judgement = Judgement(metrics, pieces, tuple(gates), compared, tuple(failures), there)
    if failures:
        if not config.force:
            raise BuildFault(table(judgement), advice=_advice(failures))
        notice(f"{table(judgement)}\n  sealed all the same because of --force")
    return judgement


def _quality(
    plan: Plan, metrics: tuple[Metric, ...], pieces: tuple[Slice, ...], notice: Notice
) -> tuple[list[Gate], list[Failure]]:
    gates: list[Gate] = []
    failures: list[Failure] = []
    for requirement in plan.requirements:
        gate = require.judge(requirement, metrics, pieces)
        if gate is None:
            notice(
                f"--require {requirement.what}{requirement.wanted} is not judged: the slice has "
                f"fewer than {slices.ROWS_MIN} rows"
            )
            continue
        advice = "" if gate.passed else _why(requirement, gate, metrics)
        _add(Failure(gate, gate.got, advice), gates, failures)
    return gates, failures


def _why(requirement: Requirement, gate: Gate, metrics: tuple[Metric, ...]) -> str:
    """Whether the conversion is to blame, or the model itself."""
    for metric in metrics:
        same = (metric.name, metric.slice) == (requirement.name, requirement.slice)
        if same and not requirement.end:
            if requirement.holds(metric.original):
                return (
                    f"{gate.name}: the original model holds it ({metric.original:g}), the "
                    "bundle does not: try --quantize none."
                )
            return f"{gate.name}: the original model does not hold it either."
    return ""


def _compared(plan: Plan, older: Older, sides: figures.Sides, asked: Asked) -> Baseline:
    truths = None
    if plan.truth is not None and plan.older_truth is not None:
        truths = (plan.older_truth, plan.truth)
    return baseline.compare(older, sides.bundle, sides.task, asked.onnx.outputs.labels, truths)


def _regressions(compared: Baseline, config: BuildConfig) -> Failure | None:
    if config.max_regressions is None:
        return None
    share = compared.regressions / max(compared.judged, 1)
    got = f"{share:.4%} ({compared.regressions} of {compared.judged} rows)"
    gate = Gate(
        name="regressions",
        wanted=f"<={config.max_regressions:.4%}",
        got=got,
        passed=compared.judged > 0 and share <= config.max_regressions,
    )
    return Failure(gate, got, "Train on the rows that were right before, or weigh them more.")


def _on_device(
    device: Device,
    asked: Asked,
    chosen: Candidate,
    config: BuildConfig,
    notice: Notice,
    *,
    seen: CandidateFigures | None,
) -> OnDevice:
    """Memory by the estimate; what was measured, unless measuring is switched off or fails."""
    ram_bytes = memory.estimate(chosen.proto)
    try:
        if config.measure:
            return on_device.measured(device, ram_bytes, asked, chosen, seen)
        reason = "measuring is switched off"
    except MachineFault as error:
        reason = str(error)
    notice(f"latency and resident memory on {device.name} are not judged: {reason}")
    return on_device.estimated(device, ram_bytes)


def _add(found: Failure | None, gates: list[Gate], failures: list[Failure]) -> None:
    """A gate that holds goes into the manifest unless it was measured; a failed one always."""
    if found is None:
        return
    if not found.gate.passed:
        failures.append(found)
    if found.gate.got or not found.gate.passed:
        gates.append(found.gate)


def table(judgement: Judgement) -> str:
    """The gates that failed, one a line: gate, wanted, got."""
    rows = [("gate", "wanted", "got")]
    rows += [(each.gate.name, each.gate.wanted, each.got) for each in judgement.failures]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows]
    count = len(judgement.failures)
    return "\n".join([f"{count} gate{'s' * (count > 1)} failed", *lines])


def _advice(failures: list[Failure]) -> str:
    hints = dict.fromkeys(each.advice for each in failures if each.advice)
    return " ".join([*hints, "--force seals the bundle anyway and says so in its manifest."])
