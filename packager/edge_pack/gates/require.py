"""``--require "roc_auc>=0.9"``: what the user demands of a figure. Pure.

    NAME OP NUMBER              a figure of all rows                  roc_auc>=0.9
    NAME[COLUMN=GROUP] OP ...   of one slice                          recall[site=graz]>=0.8
    NAME_difference[COLUMN] ... how far the slices of a column are    accuracy_difference[site]<=5%
    NAME_ratio[COLUMN] ...      apart
    NAME.low, NAME.high         an end of the 95 % interval, not the  roc_auc.low>=0.9
                                figure itself; also behind a bracket  recall[site=graz].low>=0.7

A group may hold any character: the last comparison and the last bracket count.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from edge_contract.errors import InputFault
from edge_contract.manifest import Gate, Metric, Slice

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_DEMAND = re.compile(
    r"\s*(?P<name>\w+)\s*(?:\[(?P<slice>.*)\])?\s*(?:\.(?P<end>low|high))?"
    r"\s*(?P<op>>=|<=|>|<)\s*(?P<bound>[^<>=\]]+)",
    re.DOTALL,
)
_DISPARITY = re.compile(r"(?P<name>\w+)_(?:difference|ratio)")
_FORM = 'Write it as "roc_auc>=0.9", "recall[site=graz]>=0.8" or "accuracy_difference[site]<=5%".'


@dataclass(frozen=True)
class Requirement:
    """A figure's name, its slice ("": all rows), "", ``low`` or ``high``, and its bound."""

    name: str
    slice: str
    end: str
    op: str
    bound: float
    bound_text: str

    @property
    def what(self) -> str:
        """The left side, as the user wrote it but for blanks."""
        inside = f"[{self.slice}]" if self.slice else ""
        return f"{self.name}{inside}{'.' + self.end if self.end else ''}"

    @property
    def wanted(self) -> str:
        """The right side."""
        return f"{self.op}{self.bound_text}"

    def holds(self, figure: float) -> bool:
        """Whether a figure meets it."""
        return _OPERATORS[self.op](figure, self.bound)


def parse(text: str) -> Requirement:
    """The requirement in ``text``. Raises InputFault when it is none."""
    match = _DEMAND.fullmatch(text)
    bound = match["bound"].strip() if match else ""
    try:
        number = float(bound.removesuffix("%")) / (100 if bound.endswith("%") else 1)
    except ValueError:
        number = float("nan")
    if match is None or math.isnan(number) or match["slice"] == "":
        raise InputFault(f"--require {text!r} is not understood", advice=_FORM)
    return Requirement(
        match["name"], match["slice"] or "", match["end"] or "", match["op"], number, bound
    )


def check_name(requirement: Requirement, known: Sequence[str], task: str) -> None:
    """Raise InputFault when the task has no such figure."""
    disparity = _DISPARITY.fullmatch(requirement.name)
    if requirement.name in known:
        return
    if disparity and disparity["name"] in known:
        if requirement.slice and "=" not in requirement.slice and not requirement.end:
            return
        raise InputFault(
            f"--require {requirement.what}{requirement.wanted}: a disparity is one figure between "
            "the slices of one column",
            advice=f"Write it as {requirement.name}[COLUMN]{requirement.wanted}, "
            "with --slice COLUMN.",
        )
    raise InputFault(
        f"--require names {requirement.name!r}, which is no figure of a {task} model",
        advice=f"It has {', '.join(known)}." if known else "It has none.",
    )


def check_slice(
    requirement: Requirement, slices: Sequence[Slice], columns: Collection[str]
) -> None:
    """Raise InputFault when the rows have no such slice. Args: columns: of ``--slice``."""
    there = [piece.name for piece in slices]
    disparity = requirement.name not in there and _DISPARITY.fullmatch(requirement.name)
    expected = list(columns) if disparity and requirement.slice not in there else there
    if not requirement.slice or requirement.slice in expected:
        return
    listed = ", ".join(repr(name) for name in expected[:12]) or "none: pass --slice COLUMN"
    raise InputFault(
        f"--require {requirement.what}{requirement.wanted}: there is no slice "
        f"{requirement.slice!r}",
        advice=f"There are: {listed}.",
    )


def judge(
    requirement: Requirement, metrics: Sequence[Metric], slices: Sequence[Slice]
) -> Gate | None:
    """The gate's entry, of the bundle's figure; None where the slice has too few rows."""
    for piece in slices:
        if piece.name == requirement.slice and not piece.gated:
            return None
    found: float | None = None
    for metric in metrics:
        if (metric.name, metric.slice) == (requirement.name, requirement.slice):
            ends = {"": metric.bundle, "low": metric.low, "high": metric.high}
            found = ends[requirement.end]
    return Gate(
        name=requirement.what,
        wanted=requirement.wanted,
        got="not defined on these rows" if found is None else f"{found:g}",
        passed=found is not None and requirement.holds(found),
    )
