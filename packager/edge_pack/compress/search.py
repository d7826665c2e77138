"""The search: makes the candidates, measures those within the budget, and takes one.

Guards: an explicit form that fails is refused, never swapped for another; a form that computes
in integers is only taken by a search that has timed it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_contract.errors import BuildFault, EdgeError, MachineFault
from edge_pack import graphs, inference, runtimes
from edge_pack.asking import Asked
from edge_pack.compress import bench, forms, pareto
from edge_pack.compress.candidates import Candidate, Judge, Member, encode, refusal
from edge_pack.compress.entry import Entry, confirm, keep
from edge_pack.compress.forms import Form, Material
from edge_pack.compress.modes import COMPUTE, LIGHTER, LOSSY_TREES, MODES, Mode, Parameters
from edge_pack.config import MAX_METRIC_DROP, BuildConfig
from edge_pack.gates import truth
from edge_pack.inference import Tensors
from edge_pack.measure import CandidateFigures, Searched
from edge_pack.parity import Budget

CALIBRATION_ROWS = 512
"""Ranges of activations hardly move beyond some hundred rows."""
_CHUNK_ROWS = 64
_FEED_BYTES = 16 * 1024**2
"""A batch whose input is larger is cut to this."""


@dataclass(frozen=True)
class Found:
    """What a build seals. ``search``: None where the form was given."""

    chosen: Candidate
    sizes: dict[str, int]
    search: Searched | None = None

    @property
    def timed(self) -> CandidateFigures | None:
        """What the search measured of the chosen form, or None where it measured nothing."""
        every = self.search.candidates if self.search is not None else ()
        return next((one for one in every if one.verdict == "chosen" and one.latency), None)


@dataclass(frozen=True)
class Search:
    """One search for the form of a converted model.

    Attributes:
        progress: called with the name of each candidate as it is made, and before they are timed.
        notice: told when timing fails; the search then goes by size.
    """

    asked: Asked
    budget: Budget
    config: BuildConfig
    progress: Callable[[str], None]
    notice: Callable[[str], None]

    def find(self) -> Found:
        """The form of the model that goes into the bundle.

        Raises BuildFault when a given form changes nothing, or nothing is within the budget.
        """
        if self.config.quantize != "auto":
            return self._given(self.config.quantize)
        entries = self._entries()
        plain = entries[0]
        for entry in entries[1:]:
            _check_gain(entry, plain.made, self.config)
        open_ = [entry for entry in entries if not entry.verdict]
        if not open_:
            if not self.config.force:
                raise self._refusal(plain.made)
            open_ = [plain]
        noise = self._time(plain, open_)
        if noise is None:
            open_ = [entry for entry in open_ if entry.mode not in COMPUTE] or open_
        open_ = [entry for entry in open_ if not entry.verdict] or open_
        chosen = _decide(open_, plain, self.config)
        made = [entry.candidate for entry in entries if entry.candidate is not None]
        figures = Searched(
            optimize=self.config.optimize,
            noise={batch: round(share, 4) for batch, share in (noise or {}).items()},
            candidates=tuple(_figures(entry, plain.made) for entry in entries),
        )
        sizes: dict[str, int] = {candidate.mode: len(candidate.stored) for candidate in made}
        return Found(chosen.made, sizes, figures)

    def _given(self, mode: Mode) -> Found:
        self.progress(mode)
        candidate = self._strongest(mode, self.config.parameters)
        if not (self.config.force or self.within(candidate)):
            raise self._refusal(candidate)
        return Found(candidate, {str(mode): len(candidate.stored)})

    def _modes(self) -> list[Mode]:
        """Forms that suit the model, the plainest first; what computes only if it is timed."""
        return [
            mode
            for mode in MODES
            if forms.suits(mode, self._material)
            and (self.config.measure or mode not in COMPUTE)
            and (self.config.max_metric_drop is not None or mode != "trees-pruned")
        ]

    def _strongest(self, mode: Mode, given: Parameters) -> Candidate:
        """The form with the parameters given, else with the first choice within the budget.

        Raises BuildFault when every choice changes nothing.
        """
        fault, form = None, None
        for parameters in [given] if given else forms.choices(mode):
            try:
                form = forms.make(mode, self._material, parameters)
            except BuildFault as error:
                fault = error
                continue
            self._check_floor(form)
            cost = self._judge.cost(graphs.serialise(form.proto))
            if cost.within(self.budget, self._max_drop(mode)):
                break
        if form is None:
            assert fault is not None
            raise fault
        return self._judge.candidate(form)

    def _entries(self) -> list[Entry]:
        """Every form, made and judged. Encoding takes longest, so all cores do that at once."""
        entries: list[Entry] = []
        pool = ThreadPoolExecutor(os.cpu_count() or 1, "encode")
        try:
            waiting: list[tuple[Entry, Form, Future[Member]]] = []
            for mode in self._modes():
                self.progress(mode)
                entries.append(Entry(mode))
                with _failing(entries[-1]):
                    if len(forms.choices(mode)) > 1:
                        entries[-1].candidate = self._strongest(mode, {})
                        self._settle(entries[-1])
                        continue
                    form = forms.make(mode, self._material, {})
                    self._check_floor(form)
                    waiting.append((entries[-1], form, pool.submit(encode, form)))
            for entry, form, member in waiting:
                self.progress(f"{entry.mode} against the original")
                with _failing(entry):
                    entry.candidate = self._judge.candidate(form, member.result())
                    self._settle(entry)
        finally:
            pool.shutdown(cancel_futures=True)
        return entries

    def _settle(self, entry: Entry) -> None:
        """The verdict of the budgets."""
        if not self.within(entry.made):
            entry.verdict = "over budget"
        elif entry.mode in LOSSY_TREES and self.config.max_metric_drop is None:
            entry.verdict = "not asked for"
            entry.reason = "trees stay exact without --max-metric-drop"

    def _check_floor(self, form: Form) -> None:
        """Raise BuildFault when a form needs a newer runtime than the devices have."""
        if form.mode != "none":
            ir = int(form.proto.ir_version)
            opsets, ops = graphs.opsets(form.proto), graphs.operators(form.proto)
            runtimes.check_floor(self.config.runtime, ir, opsets, ops)

    def _time(self, plain: Entry, open_: Sequence[Entry]) -> dict[int, float] | None:
        """Time what is still open against float32; the noise, None where it was not timed."""
        if not self.config.measure or all(entry is plain for entry in open_):
            return None
        self.progress("timing")
        timed = [plain, *(entry for entry in open_ if entry is not plain)]
        feeds = _feeds(self.asked, self.config.batch)
        try:
            noise = keep(timed, bench.run([entry.made.raw for entry in timed], feeds))
            if doubted := [entry for entry in timed if entry.verdict == "slower"]:
                self.progress("timing again what seemed slower")
                again = [plain, *doubted]
                confirm(again, bench.run([entry.made.raw for entry in again], feeds))
        except MachineFault as error:
            self.notice(f"{error}; the smallest form that computes in float32 is taken")
            return None
        return noise

    def within(self, candidate: Candidate) -> bool:
        """Whether the candidate keeps all budgets."""
        return candidate.within(self.budget, self._max_drop(candidate.mode))

    def _refusal(self, candidate: Candidate) -> BuildFault:
        asked = self.asked
        return refusal(
            candidate, self.budget, self._max_drop(candidate.mode), asked.given, asked.hint
        )

    def _max_drop(self, mode: Mode) -> float | None:
        """The plain conversion answers for its metric only where the user says so."""
        default = None if mode == "none" else MAX_METRIC_DROP
        given = self.config.max_metric_drop
        return default if given is None else given

    @cached_property
    def _material(self) -> Material:
        onnx = self.asked.onnx
        return Material(
            onnx.proto, _calibration(self.asked), onnx.forest, onnx.remake, self.config.runtime
        )

    @cached_property
    def _judge(self) -> Judge:
        asked, task = self.asked, self.asked.onnx.task
        true = None
        if self.config.target:
            labels = asked.onnx.outputs.labels
            true = truth.read(asked.table, self.config.target, task, labels)
        return Judge(asked.model_answers, asked.answers, task, true)


@contextmanager
def _failing(entry: Entry) -> Iterator[None]:
    """What stops a form is its verdict; the plain conversion must not fail."""
    try:
        yield
    except EdgeError as error:
        if entry.mode == "none":
            raise
        said = str(error).splitlines()[0]
        _, nothing, why = said.partition("changed nothing: ")
        entry.verdict = "changed nothing" if nothing else "failed"
        entry.reason = why or said


def _check_gain(entry: Entry, plain: Candidate, config: BuildConfig) -> None:
    """A form that is hardly smaller is only worth its while if it computes or loads otherwise."""
    if entry.candidate is None or entry.verdict:
        return
    saved = len(plain.stored) - len(entry.candidate.stored)
    otherwise = config.measure and entry.mode in (*COMPUTE, *LIGHTER)
    if saved < pareto.GAIN_BYTES and (not otherwise or config.optimize == "size"):
        entry.verdict = "hardly smaller" if saved > 0 else "no smaller"
        entry.reason = f"saves {saved:,} B on the wire"


def _decide(open_: Sequence[Entry], plain: Entry, config: BuildConfig) -> Entry:
    """The entry that is taken; every other one that was open learns why it is not."""
    points = {entry.mode: _point(entry, plain) for entry in open_}
    taken = pareto.choose(list(points.values()), config.optimize).mode
    for entry in open_:
        if entry.mode == taken:
            entry.verdict = "chosen"
        elif not entry.verdict:
            better = pareto.dominated(
                points[entry.mode], [p for m, p in points.items() if m != entry.mode]
            )
            entry.verdict = "dominated" if better else "possible"
            entry.reason = f"by {better}" if better else ""
    return next(entry for entry in open_ if entry.mode == taken)


def _point(entry: Entry, plain: Entry) -> pareto.Point:
    rss = [each.alone.rss_bytes if each.alone is not None else None for each in (plain, entry)]
    return pareto.Point(
        mode=entry.mode,
        size_bytes=len(entry.made.stored),
        latency=entry.against,
        memory=pareto.memory_ratio(*rss),
    )


def _figures(entry: Entry, plain: Candidate) -> CandidateFigures:
    found = entry.candidate
    if found is None:
        return CandidateFigures(mode=entry.mode, verdict=entry.verdict, reason=entry.reason)
    metric = found.metric
    return CandidateFigures(
        mode=entry.mode,
        verdict=entry.verdict,
        reason=entry.reason,
        parameters=dict(found.parameters),
        size_bytes=len(found.stored),
        ratio=round(len(found.stored) / len(plain.stored), 4),
        raw_bytes=len(found.raw),
        load_ms=entry.alone.load_ms if entry.alone is not None else None,
        rss_bytes=entry.alone.rss_bytes if entry.alone is not None else None,
        latency=tuple(entry.latency),
        against={batch: round(ratio, 4) for batch, ratio in entry.against.items()},
        rows=found.comparison.rows,
        flips=found.comparison.flips,
        diff_max=float(f"{min(found.comparison.diff_max, 1e308):.6g}"),
        metric=metric.name if metric is not None else "",
        metric_value=float(f"{metric.value:.9g}") if metric is not None else 0.0,
        metric_drop=float(f"{metric.drop:.9g}") if metric is not None else 0.0,
    )


def _calibration(asked: Asked) -> list[Tensors]:
    """Feeds of evenly spaced rows that the user gave: never of probes, which are extreme."""
    rows, takes = asked.data, asked.intake
    if takes.batch == "whole":
        return [inference.feeds_of(takes, asked.features, rows)]
    count = min(CALIBRATION_ROWS, asked.given)
    where = np.unique(np.linspace(0, asked.given - 1, count).astype(np.int64))
    step = 1 if takes.batch == "single" else _CHUNK_ROWS
    return [
        inference.feeds_of(takes, asked.features, rows.take(where[start : start + step]))
        for start in range(0, len(where), step)
    ]


def _feeds(asked: Asked, batch: int) -> dict[int, Tensors]:
    """What one call gets, by batch size: one row, and ``batch`` rows where the model takes them."""
    rows, takes = asked.data, asked.intake
    if takes.batch == "whole":
        return {1: inference.feeds_of(takes, asked.features, rows)}
    one = inference.feeds_of(takes, asked.features, rows.take(np.array([0])))
    if takes.batch == "single":
        return {1: one}
    fits = max(1, _FEED_BYTES // max(sum(array.nbytes for array in one.values()), 1))
    count = min(batch, fits)
    many = rows.take(np.arange(count) % asked.given)
    return {1: one, count: inference.feeds_of(takes, asked.features, many)}
