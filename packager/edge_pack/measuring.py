"""What is measured of a sealed bundle and its original, and the file that says so."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from edge_contract.ports.disk import write_atomic
from edge_pack import measure, parity
from edge_pack.asking import Asked
from edge_pack.compress.candidates import Candidate
from edge_pack.compress.search import Found
from edge_pack.config import BuildConfig
from edge_pack.gates import truth
from edge_pack.measure import Latency, Measured, OnDevice
from edge_pack.papers.evaluation import Evaluation, evaluate


def of_bundle(
    asked: Asked,
    form: Found,
    config: BuildConfig,
    *,
    digest: str,
    sizes: Mapping[str, int],
    device: OnDevice | None,
) -> Measured:
    """Latency, memory and answers of the bundle at ``config.out``, and its original's latency.

    Args:
        sizes: bytes of ``source`` and ``bundle``.

    Raises MachineFault when the bundle cannot be measured on this machine.
    """
    figures = measure.in_child(config.out, config.batch)
    chosen = form.chosen
    return Measured(
        bundle=digest,
        name=config.name,
        version=config.version,
        host=measure.host(),
        figures=figures,
        original=_original_latency(asked, figures.latency),
        stages_ms={},
        bytes={**sizes, "stock_onnx": asked.onnx.stock_bytes, "model": len(chosen.stored)},
        evaluation=_evaluation(asked, chosen, config),
        device=device,
        search=form.search,
    )


def write(measured: Measured, config: BuildConfig) -> None:
    """``NAME.measured.json`` beside the bundle."""
    text = msgspec.json.format(msgspec.json.encode(measured), indent=2)
    write_atomic(measure.path_beside(config.out), text + b"\n")


def _evaluation(asked: Asked, chosen: Candidate, config: BuildConfig) -> Evaluation:
    """The counts behind the report's charts, of the rows that the user gave."""
    task, labels = asked.onnx.task, asked.onnx.outputs.labels
    differences = parity.row_differences(asked.answers, chosen.answers)
    if not config.target:
        return evaluate(task, labels, chosen.answers, None, differences)
    known = truth.read(asked.table, config.target, task, labels)
    answers = chosen.answers.take(np.arange(asked.given))
    return evaluate(task, labels, answers, known, differences)


def _original_latency(asked: Asked, figures: tuple[Latency, ...]) -> tuple[Latency, ...]:
    """The original estimator's latency at the batch sizes that the bundle was measured at."""
    found = []
    for figure in figures:
        rows = asked.rows
        if asked.intake.batch != "whole":
            rows = rows.take(np.arange(figure.batch) % asked.given)
        found.append(measure.calls(asked.original.timed(rows), figure.batch))
    return tuple(found)
