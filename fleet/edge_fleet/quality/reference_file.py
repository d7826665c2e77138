"""Labelled reference rows from a file, beside what the model answered to them. Pure.

Two files: the rows with their true answers, and what `edge-agent predict BUNDLE rows.csv --output
answers.csv` made of them, which names lines. The server holds no model, so it cannot ask.

Guards: a row counts in the very cells that devices count it in; every fault is named with its line;
rows stay in memory and go nowhere.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract import profile as profiles
from edge_contract.errors import InputFault
from edge_contract.profile import Monitor, Profile
from edge_fleet.quality.raking import Labelled

FILE_MAX_BYTES = 256 * 1024 * 1024
ROWS_MAX = 200_000
_PROBABILITY = "probability_"


@dataclass(frozen=True)
class Reference:
    """Rows in cells.

    Attributes:
        monitors: indices of the profile's monitors that ``cells [rows, monitors]`` are of.
        labelled: the truth and the answers. refused: rows without an answer, which are left out.
    """

    monitors: tuple[int, ...]
    cells: NDArray[np.int64]
    labelled: Labelled
    refused: int


def read(
    rows: bytes, answers: bytes, profile: Profile, labels: Sequence[str], target: str
) -> Reference:
    """Labelled rows as ``raking`` wants them.

    Args:
        labels: of the model, as text; () for values. target: column with the truth.

    Raises InputFault: not CSV, a column lacks, a truth that the model cannot say, no row.
    """
    said = [row for _, row in _lines(answers, "the answers")]
    if "line" not in said[0]:
        raise InputFault(
            "the answers have no column line",
            advice="Make them: edge-agent predict BUNDLE ROWS.csv --output ANSWERS.csv",
        )
    by_line = {row["line"]: row for row in said}
    pairs, refused = [], 0
    for line, row in _lines(rows, "the rows"):
        answer = by_line.get(str(line))
        if answer is None or answer.get("error"):
            refused += 1
        else:
            pairs.append((line, row, answer))
    if not pairs:
        raise InputFault("no row of the file has an answer", advice="Are these answers to it?")
    if target not in pairs[0][1]:
        raise InputFault(f"the rows have no column {target!r}: name the truth with --target")
    labelled = _labelled(pairs, labels, target)
    monitors, columns = [], []
    for at, monitor in enumerate(profile.monitors):
        cells = _cells(monitor, pairs, labelled)
        if cells is not None:
            monitors.append(at)
            columns.append(cells)
    return Reference(tuple(monitors), np.stack(columns, axis=1), labelled, refused)


Pair = tuple[int, Mapping[str, str], Mapping[str, str]]
"""Line, row, answer."""


def _lines(data: bytes, what: str) -> list[tuple[int, dict[str, str]]]:
    if len(data) > FILE_MAX_BYTES:
        raise InputFault(f"{what}: {len(data)} bytes, over the limit of {FILE_MAX_BYTES}")
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        found = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputFault(f"{what} are no CSV in UTF-8: {error}") from error
    if not 0 < len(found) <= ROWS_MAX:
        raise InputFault(f"{what}: {len(found)} rows, expected 1 to {ROWS_MAX}")
    for line, row in found:
        if None in row or None in row.values():
            raise InputFault(f"{what}, line {line}: more or fewer cells than columns")
    return found


def _labelled(pairs: Sequence[Pair], labels: Sequence[str], target: str) -> Labelled:
    if not labels:
        true = _each(pairs, lambda _, row, __: _number(row[target]), "truth")
        values = _each(pairs, lambda _, __, answer: _number(answer["value"]), "answer")
        return Labelled(true, values)
    at = {label: index for index, label in enumerate(labels)}
    true = _each(pairs, lambda _, row, __: float(at[row[target].strip()]), "truth")
    predicted = _each(pairs, lambda _, __, answer: float(at[answer["label"]]), "answer")
    name = _PROBABILITY + labels[-1]
    score = None
    if len(labels) == 2 and name in pairs[0][2]:
        score = _each(pairs, lambda _, __, answer: _number(answer[name]), "answer")
    return Labelled(true, predicted, len(labels), score)


def _each(
    pairs: Sequence[Pair], read: Callable[[int, Mapping[str, str], Mapping[str, str]], float],
    what: str,
) -> NDArray[np.float64]:  # fmt: skip
    found = np.empty(len(pairs))
    for at, (line, row, answer) in enumerate(pairs):
        try:
            found[at] = read(line, row, answer)
        except (KeyError, ValueError) as error:
            raise InputFault(f"line {line}: the {what} is none of this model's: {error}") from error
    return found


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not finite")
    return value


def _cells(monitor: Monitor, pairs: Sequence[Pair], labelled: Labelled) -> NDArray[np.int64] | None:
    """The cell of each row, or None for a monitor of what the file does not hold."""
    if monitor.source == "output":
        return _output_cells(monitor, pairs, labelled)
    if monitor.source != "feature":
        return None  # directions and figures of tensors: seen through their features
    if monitor.name not in pairs[0][1]:
        raise InputFault(f"the rows have no column {monitor.name!r}, which the model reads")
    texts = [row[monitor.name].strip() for _, row, _ in pairs]
    known = {text: _cell(monitor, text) for text in dict.fromkeys(texts)}
    return np.array([known[text] for text in texts], dtype=np.int64)


def _cell(monitor: Monitor, text: str) -> int:
    """The cell that a device counts this value in."""
    if monitor.kind == "category":
        return int(profiles.count_categories(monitor, [text]).argmax())
    try:
        value = float(text) if text else math.nan
    except ValueError as error:
        raise InputFault(f"column {monitor.name!r}: {text[:60]!r} is no number") from error
    return int(profiles.count_numbers(monitor, np.array([value])).argmax())


def _output_cells(
    monitor: Monitor, pairs: Sequence[Pair], labelled: Labelled
) -> NDArray[np.int64] | None:
    if monitor.kind != "score":
        return np.array([_cell(monitor, answer.get("value", "")) for *_, answer in pairs])
    predicted = labelled.predicted.astype(np.int64)
    scores: NDArray[Any] = np.full(len(pairs), np.nan)
    if labelled.score is not None:
        scores = labelled.score
    elif any(name.startswith(_PROBABILITY) for name in pairs[0][2]):
        names = [name for name in pairs[0][2] if name.startswith(_PROBABILITY)]
        scores = np.array(
            [float(pairs[at][2][names[p]] or "nan") for at, p in enumerate(predicted)]
        )
    return profiles.score_cells(monitor, predicted, scores)
