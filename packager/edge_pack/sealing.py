"""Puts the bundle together: members, manifest, signature.

Guards: what goes in depends on the model, the data and the options alone: no time, path, host or
measured figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edge_contract import bundle as bundles
from edge_contract import golden as goldens
from edge_contract import manifest as manifests
from edge_contract import profile as profiles
from edge_contract.errors import InputFault
from edge_contract.golden import Golden
from edge_contract.manifest import (
    GOLDEN_FILE,
    PROFILE_FILE,
    Calibration,
    Compression,
    File,
    Manifest,
    Runtime,
)
from edge_contract.profile import Profile
from edge_pack import (
    golden_build,
    graphs,
    inference,
    memory,
    parity,
    power,
    profile_build,
    reference,
    runtimes,
    times,
)
from edge_pack.asking import Asked
from edge_pack.compress.candidates import Candidate
from edge_pack.compress.modes import COMPUTE
from edge_pack.config import BuildConfig
from edge_pack.gates import truth
from edge_pack.gates.devices import MB
from edge_pack.gates.judge import Judgement
from edge_pack.papers import provenance
from edge_pack.papers.provenance import Found
from edge_pack.parity import Budget
from edge_pack.passphrases import Asking
from edge_pack.profile_build import Order
from edge_release import signing


@dataclass(frozen=True)
class Members:
    """The bundle's files as the manifest names them, and their bytes on the wire."""

    files: tuple[File, ...]
    stored: Mapping[str, bytes]

    @property
    def profile(self) -> Profile | None:
        """The reference profile, where there is one."""
        there = PROFILE_FILE in self.stored
        return profiles.decode(self.raw(PROFILE_FILE)) if there else None

    def raw(self, name: str) -> bytes:
        """The decoded bytes of a member."""
        (file,) = (file for file in self.files if file.name == name)
        return bundles.decode_member(file, self.stored[name])


def members(
    asked: Asked, chosen: Candidate, config: BuildConfig, notice: Callable[[str], None]
) -> Members:
    """The model, its golden samples, and the reference profile of given rows.

    Raises InputFault where a monitor cannot work at the declared rate and data is strict.
    """
    raws = {GOLDEN_FILE: goldens.encode(_golden(asked, chosen))}
    if asked.intake.columns or (asked.intake.batch != "whole" and not asked.table.drawn):
        raws[PROFILE_FILE] = _profile(asked, chosen, config, notice)
    files, stored = [chosen.file], {chosen.file.name: chosen.stored}
    for name, raw in raws.items():
        file, stored[name] = bundles.encode_member(name, raw)
        files.append(file)
    return Members(tuple(files), stored)


def _golden(asked: Asked, chosen: Candidate) -> Golden:
    """Samples as one run of the agent's code gives them, so that a device can repeat it."""
    rows = asked.data
    if asked.intake.batch != "whole":
        one = inference.feeds_of(asked.intake, asked.features, rows.take(np.array([0])))
        row_bytes = sum(array.nbytes for array in one.values())
        given = chosen.answers.take(np.arange(asked.given))
        margin = golden_build.MARGIN_INT8 if chosen.mode in COMPUTE else golden_build.MARGIN
        where = golden_build.choose(rows, given, row_bytes, margin)
        rows = rows.take(where[:1] if asked.intake.batch == "single" else where)
    feeds = inference.feeds_of(asked.intake, asked.features, rows)
    session = chosen.session
    slack = golden_build.slack(session.run, feeds) if chosen.mode in COMPUTE else 0.0
    seen = session.run(feeds)
    if asked.onnx.forest is None and chosen.mode not in COMPUTE:
        seen = reference.outputs(chosen.proto, feeds, seen, golden_build.TOLERANCE)
    return golden_build.build(feeds, seen, slack)


def _profile(
    asked: Asked, chosen: Candidate, config: BuildConfig, notice: Callable[[str], None]
) -> bytes:
    profile = power.tolerant(_profiled(asked, chosen, config), config.min_shift)
    reckoned = power.reckoned(profile, config.rows_per_hour)
    refusals = power.refused(reckoned)
    if refusals:
        what = power.told(refusals, config.rows_per_hour)
        if config.strict_data:
            raise InputFault(what, advice="Leave out --strict-data to build without them.")
        notice(f"not monitored: {what}")
    encoded = profiles.encode(power.without(reckoned, refusals))
    profiles.decode(encoded)  # what a device would refuse is not sealed
    return encoded


def _profiled(asked: Asked, chosen: Candidate, config: BuildConfig) -> Profile:
    task, outputs = asked.onnx.task, asked.onnx.outputs
    known = None
    if config.target and config.target in asked.table.columns:
        known = truth.read(asked.table, config.target, task, outputs.labels)
    return profile_build.build(
        asked.features,
        asked.data,
        chosen.answers.take(np.arange(asked.given)),
        asked.answers.take(np.arange(asked.given)),
        task=task,
        outputs=outputs,
        order=_order(asked, config.time_column),
        truth=known,
        tensors=[tensor for tensor in asked.intake.tensors if not tensor.features],
    )


def _order(asked: Asked, column: str) -> Order | None:
    if not column:
        return None
    seconds = times.seconds_of(asked.table, column)
    clock = times.are_clock_times(asked.table, column, seconds)
    return Order(np.argsort(seconds, kind="stable"), seconds if clock else None)


def manifest(
    asked: Asked,
    chosen: Candidate,
    parts: Members,
    budget: Budget,
    config: BuildConfig,
    *,
    judgement: Judgement,
    found: Found,
    beyond: bool = False,
    proven: str = "",
) -> Manifest:
    """The signed description.

    Args:
        beyond: a budget other than parity's is exceeded, and the user insisted.
        proven: the runtime release under which the golden samples were run, or "".

    Raises BuildFault when the oldest runtime that must run the model cannot.
    """
    return Manifest(
        schema=manifests.SCHEMA,
        name=config.name,
        version=config.version,
        task=asked.onnx.task,
        features=asked.features,
        inputs=asked.intake.tensors,
        outputs=asked.onnx.outputs,
        files=parts.files,
        runtime=_runtime(chosen, config, proven, judgement),
        compression=Compression(
            mode=chosen.mode,
            stock_bytes=asked.onnx.stock_bytes,
            tensors=chosen.changed,
            parameters=dict(sorted(chosen.parameters.items())),
        ),
        parity=parity.record(chosen.comparison, budget, synthetic=asked.table.drawn, beyond=beyond),
        provenance=provenance.record(asked.source, asked.table, _rows_of(asked), config, found),
        metrics=judgement.metrics,
        slices=judgement.slices,
        gates=judgement.gates,
        baseline=judgement.baseline,
        licence=config.licence,
        intended_use=config.intended_use,
        calibration=Calibration(
            max_shift=config.allow_calibration, min_labels=config.calibration_labels
        )
        if config.allow_calibration
        else None,
    )


def _rows_of(asked: Asked) -> int:
    """Rows of the user's data, also of those that were looked at and not kept."""
    if asked.table.part:
        return asked.table.total_rows
    return 0 if asked.table.drawn else asked.given


def _runtime(chosen: Candidate, config: BuildConfig, proven: str, judgement: Judgement) -> Runtime:
    """The budgets of the device that the user named, less those that a forced build exceeds."""
    budget = judgement.device
    forced = {gate.name.partition(" ")[0] for gate in judgement.gates if not gate.passed}
    opsets, ops = graphs.opsets(chosen.proto), graphs.operators(chosen.proto)
    ir = int(chosen.proto.ir_version)
    return Runtime(
        ir=ir,
        opsets=opsets,
        ops=ops,
        onnxruntime=runtimes.check_floor(config.runtime, ir, opsets, ops),
        ram_bytes=memory.estimate(chosen.proto),
        proven=proven,
        ram_bytes_max=int(budget.ram_mb * MB) if budget and "memory" not in forced else 0,
        latency_ms_max=(budget.latency_p99_ms or 0.0)
        if budget and "latency" not in forced
        else 0.0,
    )


def sign(manifest_bytes: bytes, config: BuildConfig) -> bytes:
    """The signature's envelope, or b"" where no keys were named."""
    if config.keys is None:
        return b""
    return signing.sign_bundle(manifest_bytes, config.keys, Asking())
