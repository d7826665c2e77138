"""Puts the bundle together: members, manifest, signature.

Guards: what goes in depends on the model, the data and the options alone: no time, path, host or
measured figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_contract import bundle as bundles
from edge_contract import golden as goldens
from edge_contract import manifest as manifests
from edge_contract import profile as profiles
from edge_contract.golden import Golden
from edge_contract.manifest import (
    GOLDEN_FILE,
    PROFILE_FILE,
    Compression,
    File,
    Manifest,
    Metric,
    Runtime,
)
from edge_pack import (
    golden_build,
    graphs,
    inference,
    memory,
    parity,
    profile_build,
    quality,
    runtimes,
    times,
)
from edge_pack.asking import Asked
from edge_pack.candidates import Candidate
from edge_pack.config import BuildConfig
from edge_pack.papers import provenance
from edge_pack.papers.provenance import Found
from edge_pack.parity import Budget
from edge_release import signing


@dataclass(frozen=True)
class Members:
    """The bundle's files as the manifest names them, and their bytes on the wire."""

    files: tuple[File, ...]
    stored: Mapping[str, bytes]


def members(asked: Asked, chosen: Candidate, config: BuildConfig) -> Members:
    """The model, its golden samples, and for table models the reference profile."""
    raws = {GOLDEN_FILE: goldens.encode(_golden(asked, chosen))}
    if asked.intake.columns:
        raws[PROFILE_FILE] = _profile(asked, chosen, config)
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
        where = golden_build.choose(rows, given, row_bytes)
        rows = rows.take(where[:1] if asked.intake.batch == "single" else where)
    feeds = inference.feeds_of(asked.intake, asked.features, rows)
    return golden_build.build(feeds, chosen.session.run(feeds))


def _profile(asked: Asked, chosen: Candidate, config: BuildConfig) -> bytes:
    order = times.order(asked.table, config.time_column) if config.time_column else None
    profile = profile_build.build(
        asked.features,
        asked.data,
        chosen.answers.take(np.arange(asked.given)),
        asked.answers.take(np.arange(asked.given)),
        task=asked.onnx.task,
        outputs=asked.onnx.outputs,
        order=order,
    )
    encoded = profiles.encode(profile)
    profiles.decode(encoded)  # what a device would refuse is not sealed
    return encoded


def metrics(asked: Asked, chosen: Candidate, config: BuildConfig) -> tuple[Metric, ...]:
    """Quality of the original and of the bundle, where the data holds the true answers."""
    if not config.target:
        return ()
    task, given = asked.onnx.task, np.arange(asked.given)
    truth = quality.read_truth(asked.table, config.target, task, asked.onnx.outputs.labels)
    return quality.metrics(task, asked.answers.take(given), chosen.answers.take(given), truth)


def manifest(
    asked: Asked,
    chosen: Candidate,
    parts: Members,
    budget: Budget,
    config: BuildConfig,
    found: Found,
) -> Manifest:
    """The signed description.

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
        runtime=_runtime(chosen, config),
        compression=Compression(
            mode=chosen.mode, stock_bytes=asked.onnx.stock_bytes, tensors=chosen.changed
        ),
        parity=parity.record(chosen.comparison, budget, synthetic=asked.table.drawn),
        provenance=provenance.record(asked.source, asked.table, asked.given, config, found),
        metrics=metrics(asked, chosen, config),
        licence=config.licence,
        intended_use=config.intended_use,
    )


def _runtime(chosen: Candidate, config: BuildConfig) -> Runtime:
    opsets, ops = graphs.opsets(chosen.proto), graphs.operators(chosen.proto)
    ir = int(chosen.proto.ir_version)
    return Runtime(
        ir=ir,
        opsets=opsets,
        ops=ops,
        onnxruntime=runtimes.check_floor(config.runtime, ir, opsets, ops),
        ram_bytes=memory.estimate(chosen.proto),
    )


def sign(manifest_bytes: bytes, config: BuildConfig) -> bytes:
    """The signature's envelope, or b"" where no keys were named."""
    if config.keys is None:
        return b""
    return signing.sign_bundle(manifest_bytes, config.name, config.version, config.keys)
