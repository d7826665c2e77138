"""One build: convert, compress, check parity, profile, seal, measure.

Guards: nothing is written before every check passed, and then in one step, so an interrupted
build leaves the old file or none; what differs from run to run stays out of the bundle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from logging import getLogger

import numpy as np
from msgspec.structs import replace

from edge_contract import bundle as bundles
from edge_contract import manifest as manifests
from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault, MachineFault
from edge_contract.manifest import GOLDEN_FILE, Manifest
from edge_contract.ports.disk import check_place, write_atomic
from edge_contract.profile import Profile
from edge_pack import (
    asking,
    measure,
    measuring,
    origins,
    parity,
    sealing,
    sources,
    tables,
    times,
    training_rows,
)
from edge_pack.asking import Asked
from edge_pack.compress import prove
from edge_pack.compress import recipe as recipes
from edge_pack.compress.recipe import Recipe
from edge_pack.compress.search import Found as Form
from edge_pack.compress.search import Search
from edge_pack.config import BuildConfig
from edge_pack.extras import need_build
from edge_pack.frameworks.meaning import Declared
from edge_pack.frameworks.networks import NetworkOriginal
from edge_pack.gates import check, judge
from edge_pack.gates.data import Finding
from edge_pack.intake import Intake, Rows
from edge_pack.measure import Measured, OnDevice, Searched
from edge_pack.origins import Origin
from edge_pack.papers import provenance, writing
from edge_pack.subject import Draws, Subject
from edge_pack.tables import Table

STAGES = (
    "load", "ask the original", "convert", "compress and check parity", "gates",
    "profile and golden", "seal", "measure",
)  # fmt: skip

log = getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """A sealed bundle.

    Attributes:
        stages_s: seconds of each stage, in order.
        sizes: compression mode -> bytes of the model on the wire, for each that was tried.
        search: all candidates, None where the form was given.
        measured: None when the build was told not to measure.
        data: what was found in the rows, errors first; notes are told here alone.
        profile: the reference that devices count against; None: the bundle has none.
    """

    config: BuildConfig
    manifest: Manifest
    digest: str
    size_bytes: int
    stages_s: dict[str, float]
    sizes: dict[str, int]
    search: Searched | None
    measured: Measured | None
    signed: bool
    notices: tuple[str, ...]
    data: tuple[Finding, ...] = ()
    profile: Profile | None = None


@dataclass
class _Run:
    """What one build reports while it goes on."""

    progress: Callable[[str], None]
    tell: Callable[[str], None]
    stages_s: dict[str, float] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    data: list[Finding] = field(default_factory=list)
    source_bytes: int = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.progress(name)
        began = time.perf_counter()
        yield
        self.stages_s[name] = time.perf_counter() - began

    def fetched(self, done: int, total: int | None) -> None:
        """How much of a URI is here."""
        of = f" of {total / 1e6:.0f}" if total else ""
        self.detail(f"fetched {done / 1e6:.0f}{of} MB")

    def detail(self, what: str) -> None:
        """What goes on within the stage, such as a candidate's name."""
        self.progress(f"{STAGES[len(self.stages_s)]}: {what}")

    def notice(self, text: str) -> None:
        self.tell(text)
        self.notices.append(text)


def build(
    config: BuildConfig,
    progress: Callable[[str], None] = lambda _stage: None,
    notice: Callable[[str], None] = log.warning,
) -> Built:
    """Package a model; on return the bundle is on disk at ``config.out``.

    Args:
        progress: called with the name of each stage (``STAGES``) as it begins, and with
            ``stage: detail`` within it.
        notice: told at once what a user should know although nothing is wrong.

    Raises:
        InputFault: the model, the data or an option is wrong.
        BuildFault: a step has no conversion, or the bundle differs from the original beyond the
            budget.
        MachineFault: the build extra is missing, or the disk refuses.
    """
    need_build()
    check_place(config.out)
    run = _Run(progress, notice)
    recipe = recipes.load(config.recipe) if config.recipe is not None else None
    if recipe is not None:
        config = recipes.applied(recipe, config)
    run.progress(STAGES[0])
    with origins.resolve(config.model, run.notice, run.fetched) as origin:
        run.source_bytes = origin.path.stat().st_size if origin.path.is_file() else 0
        return _build(config, origin, run, recipe)


def _build(config: BuildConfig, origin: Origin, run: _Run, recipe: Recipe | None) -> Built:
    with run.stage("load"):
        declared = Declared(config.task, config.labels)
        source = sources.load(origin, run.notice, trust=config.trust, declared=declared)
        table = _rows(source, origin, config, run.notice)
        fitted = training_rows.note(getattr(source, "model", None), table.total_rows or table.rows)
        if fitted:
            run.notice(fitted)
        found = provenance.Found()
        if config.provenance:
            found = provenance.find(origin, config.data, run.notice)
    with run.stage("ask the original"):
        asked = asking.ask(source, table, config, partial(_look, run, table, config))
        demands = judge.prepare(asked, config)
        if isinstance(asked.original, NetworkOriginal) and asked.original.note:
            run.notice(asked.original.note)
    with run.stage("convert"):
        asked = asking.to_onnx(asked, config)
    with run.stage("compress and check parity"):
        budget = parity.budget_of(asked.onnx.task, config.max_flips, config.max_diff)
        search = Search(asked, budget, config, run.detail, run.notice)
        form = search.find()
        chosen = form.chosen
    with run.stage("gates"):
        judgement = judge.judge(demands, asked, chosen, config, run.notice, seen=form.timed)
    with run.stage("profile and golden"):
        parts = sealing.members(asked, chosen, config, run.notice)
        proven = ""
        if config.prove_runtime:
            run.detail("the oldest runtime")
            proven = prove.prove(chosen.raw, parts.raw(GOLDEN_FILE), config.runtime)
    with run.stage("seal"):
        manifest = sealing.manifest(
            asked, chosen, parts, budget, config, judgement=judgement, found=found,
            beyond=not search.within(chosen), proven=proven,
        )  # fmt: skip
        manifest_bytes = manifests.encode(manifest)
        signature = sealing.sign(manifest_bytes, config)
        data = bundles.write(manifest_bytes, parts.stored, signature)
        write_atomic(config.out, data)
        measure.path_beside(config.out).unlink(missing_ok=True)  # of the bundle that was here
        try:
            _write_recipe(run, manifest, config, recipe)
            writing.write(Bundle(manifest, manifest_bytes, parts.stored, signature), config.out)
        except MachineFault as error:
            raise MachineFault(
                f"{config.out} is sealed and whole, but {error.what}", advice=error.advice
            ) from error
    digest = manifests.digest(manifest_bytes)
    measured = None
    if config.measure:
        sizes = {"source": run.source_bytes, "bundle": len(data)}
        measured = _measure(
            run, asked, config, form, digest=digest, sizes=sizes, device=judgement.device
        )
    return Built(
        config=config,
        manifest=manifest,
        digest=digest,
        size_bytes=len(data),
        stages_s=run.stages_s,
        sizes=form.sizes,
        search=form.search,
        measured=measured,
        signed=bool(signature),
        notices=tuple(run.notices),
        data=tuple(run.data),
        profile=parts.profile,
    )


def _look(run: _Run, table: Table, config: BuildConfig, takes: Intake, given: Rows) -> None:
    run.data += check.rows(table, takes, given, config, run.notice)


def _rows(
    source: Subject, origin: Origin, config: BuildConfig, notice: Callable[[str], None]
) -> Table:
    """The user's rows, or inputs drawn from the model's own shapes where there are none."""
    if config.data is not None:
        table = tables.read(config.data)
        if origin.columns and table.columns and not table.unnamed:
            keep = (config.target, config.time_column, *config.slices)
            table = table.arranged(origin.columns, keep)
        _say_part(table, config, notice)
        return table
    if not isinstance(source, Draws):
        raise InputFault(
            f"--data is missing: a {source.kind} model does not say what its inputs look like",
            advice="Give rows as a device will see them: --data rows.csv.",
        )
    table = source.draw()
    notice(
        f"no --data: parity is shown on {table.rows} inputs drawn from the model's own shapes, "
        "and the bundle has no reference profile"
    )
    return table


def _say_part(table: Table, config: BuildConfig, notice: Callable[[str], None]) -> None:
    """Tell what was done with a file too large to keep."""
    if not table.part:
        return
    notice(
        f"{table.path.name} has {table.total_rows:,} rows: ranges, categories and missing values "
        f"are of all of them; the models are compared on {table.rows:,}, in blocks evenly apart"
    )
    if (
        config.time_column in table.columns
        and (np.diff(times.order(table, config.time_column)) < 0).any()
    ):
        notice(
            f"the rows are not in order of {config.time_column}, and a part of them was kept: "
            "sort the file, or drift over time is underestimated"
        )


def _write_recipe(
    run: _Run, manifest: Manifest, config: BuildConfig, followed: Recipe | None
) -> None:
    """The decision, beside the bundle; told where a followed one was made with other things."""
    made = recipes.of(manifest, config)
    if followed is not None:
        other = recipes.differences(followed, made)
        if other:
            run.notice(other)
    write_atomic(recipes.path_beside(config.out), recipes.encode(made))


def _measure(
    run: _Run,
    asked: Asked,
    config: BuildConfig,
    form: Form,
    *,
    digest: str,
    sizes: dict[str, int],
    device: OnDevice | None,
) -> Measured | None:
    """Measurements beside the bundle, which is sealed by now: where that fails, it stands."""
    try:
        with run.stage("measure"):
            found = measuring.of_bundle(
                asked, form, config, digest=digest, sizes=sizes, device=device
            )
    except MachineFault as error:
        run.notice(str(error))
        return None
    stages_ms = {name: round(seconds * 1000, 1) for name, seconds in run.stages_s.items()}
    measured = replace(found, stages_ms=stages_ms)
    measuring.write(measured, config)
    warning = measure.slower(measured.figures.latency, measured.original)
    if warning:
        run.notice(warning)
    return measured
