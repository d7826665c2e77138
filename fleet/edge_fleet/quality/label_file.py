"""Labels from a file: CSV with columns ``device``, ``id``, ``label`` and, where wanted, ``model``.

Guards: every fault of a file is named with its line before anything is sent. Pure.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator

from edge_contract.errors import InputFault
from edge_contract.messages import Label
from edge_contract.names import check_name

FILE_MAX_BYTES = 256 * 1024 * 1024
BATCH = 1000
"""Labels in one message: some 60 KB."""
ID_MAX_CHARS = 40
LABEL_MAX_CHARS = 1000
FAULTS_SHOWN = 5
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
"""A label written in another way, such as 007, is a word."""

Batch = tuple[str, str, list[Label]]
"""Device, model, at most ``BATCH`` labels."""


def value_of(text: str) -> int | float | str:
    """A number where the text is one that JSON can say, else the text."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return text
    if not (found[2] or found[3]):
        return int(text)
    value = float(text)
    return value if math.isfinite(value) else text


def read(data: bytes, model: str = "") -> list[Batch]:
    """The labels in ``data`` by device and model, in the file's order.

    Args:
        data: UTF-8, at most ``FILE_MAX_BYTES``; a first line of column names.
        model: of rows that name none.

    Raises InputFault with the first faults when one line is wrong.
    """
    if len(data) > FILE_MAX_BYTES:
        raise InputFault(f"{len(data)} bytes of labels, over the limit of {FILE_MAX_BYTES}")
    try:
        lines = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = set(lines.fieldnames or ())
        lacking = sorted({"device", "id", "label"} - columns)
        if lacking or (not model and "model" not in columns):
            lacking += [] if model or "model" in columns else ["model (or --model)"]
            raise InputFault(
                f"the file lacks {', '.join(lacking)}; it has {', '.join(sorted(columns)) or '-'}",
                advice="The first line names columns: device,model,id,label",
            )
        return list(_batches(lines, model))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputFault(f"the labels are no CSV in UTF-8: {error}") from error


def _batches(lines: csv.DictReader[str], model: str) -> Iterator[Batch]:
    by_place: dict[tuple[str, str], list[Label]] = {}
    faults: list[str] = []
    for row in lines:
        try:
            device, named, label = _row(row, model)
        except InputFault as error:
            faults.append(f"line {lines.line_num}: {error.what}")
            continue
        by_place.setdefault((device, named), []).append(label)
    if faults:
        more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise InputFault("; ".join(faults[:FAULTS_SHOWN]) + more, advice="Nothing was sent.")
    if not by_place:
        raise InputFault("the file has no label")
    for (device, named), labels in by_place.items():
        for at in range(0, len(labels), BATCH):
            yield device, named, labels[at : at + BATCH]


def _row(row: dict[str, str], model: str) -> tuple[str, str, Label]:
    cells = {name: (row.get(name) or "").strip() for name in ("device", "model", "id", "label")}
    if None in row:
        raise InputFault("more cells than columns")
    if not cells["id"] or len(cells["id"]) > ID_MAX_CHARS:
        raise InputFault(f"{cells['id'][:60]!r} is no prediction's id")
    if not cells["label"] or len(cells["label"]) > LABEL_MAX_CHARS:
        raise InputFault(f"no label, or one of over {LABEL_MAX_CHARS} characters")
    device = check_name(cells["device"], "device")
    named = check_name(cells["model"] or model, "model")
    return device, named, Label(id=cells["id"], label=value_of(cells["label"]))
