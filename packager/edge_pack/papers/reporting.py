"""Writes the report of a bundle: reads what lies beside it, and asks it about rows if told to."""

from __future__ import annotations

from pathlib import Path

from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault
from edge_contract.ports.disk import write_atomic
from edge_pack import reading, tables
from edge_pack.gates import truth
from edge_pack.papers.evaluation import Evaluation, evaluate
from edge_pack.papers.parts import Facts
from edge_pack.papers.report import page

SUFFIX = ".report.html"


def write(path: Path, out: Path | None, data: Path | None, target: str) -> tuple[Path, int]:
    """Write the report of the bundle in ``path``; on return it is on disk.

    Args:
        out: the page's file, else beside the bundle. data, target: rows to ask the bundle about,
            and their column with the true answer; both or neither.

    Returns where it is and its bytes.

    Raises InputFault when bundle, rows or options are wrong, MachineFault when the disk refuses.
    """
    if (data is None) == bool(target):
        raise InputFault(
            "--data and --target go together",
            advice="The charts of other rows need their true answers: name both, or neither.",
        )
    opened = reading.open_bundle(path)
    measured = reading.measured_beside(path, opened.digest)
    if data is not None:
        evaluation: Evaluation | None = _evaluation(opened, data, target)
        rows = f"those in {data.name}, asked anew"
    else:
        evaluation = measured.evaluation if measured else None
        rows = "those of the build"
    html = page(Facts(opened, path.stat().st_size, measured, evaluation, rows))
    place = path.with_name(path.name.removesuffix(".edgepack") + SUFFIX) if out is None else out
    write_atomic(place, html)
    return place, len(html)


def _evaluation(bundle: Bundle, data: Path, target: str) -> Evaluation:
    manifest = bundle.manifest
    table = tables.read(data)
    known = truth.read(table, target, manifest.task, manifest.outputs.labels)
    answers = reading.answers(bundle, table)
    return evaluate(manifest.task, manifest.outputs.labels, answers, known)
