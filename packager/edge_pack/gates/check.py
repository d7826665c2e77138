"""Runs the data checks of a build: tells warnings, and stops where the rows cannot be right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_contract.errors import BuildFault, InputFault
from edge_pack.config import BuildConfig
from edge_pack.gates import data
from edge_pack.gates.data import Finding, Target
from edge_pack.intake import Intake, Rows
from edge_pack.tables import Table

LABELS_MAX = 50
"""Whole numbers of more different values than these are taken for a regression's."""


def rows(
    table: Table, takes: Intake, given: Rows, config: BuildConfig, notice: Callable[[str], None]
) -> tuple[Finding, ...]:
    """Everything found in the rows; warnings are told, and rows that serve no figure.

    Raises:
        InputFault: no bundle could be shown right on these rows, unless forced.
        BuildFault: there are warnings, and the user asked for strict data.
    """
    target = None
    if config.target in table.columns:
        target = _target(table, config.target)
    found = tuple(data.inspect(given, takes.columns, target))
    errors = [one.what for one in found if one.severity == "error"]
    warnings = [one.what for one in found if one.severity == "warning"]
    if errors and not config.force:
        raise InputFault(
            _listed(f"{table.path} cannot show that a bundle is right", errors),
            advice="Correct the rows; --force builds all the same.",
        )
    if warnings and config.strict_data and not config.force:
        raise BuildFault(
            _listed(f"the rows of {table.path} raise warnings, and --strict-data forbids them",
                    errors + warnings),
            advice="Correct the rows, or leave --strict-data out.",
        )  # fmt: skip
    unanswered = [one.what for one in found if one.check == "missing answers"]
    for what in errors + warnings + unanswered:
        notice(f"data: {what}")
    return found


def _target(table: Table, name: str) -> Target:
    if not table.is_numeric(name):
        return Target(name, table.texts(name), continuous=False)
    values = table.numbers(name)
    finite = np.unique(values[np.isfinite(values)])
    whole = bool((finite == np.rint(finite)).all())
    return Target(name, values, continuous=not whole or len(finite) > LABELS_MAX)


def _listed(what: str, each: list[str]) -> str:
    return "\n".join([f"{what}:", *(f"  {one}" for one in each)])
