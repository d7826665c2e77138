"""Looks into a sealed bundle: what it says, whether it holds, and what it predicts.

Needs the base install only, except for Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.model import Model
from edge_agent.outputs import Prediction
from edge_agent.runtime import Session
from edge_contract import bundle as bundles
from edge_contract import profile as profiles
from edge_contract.bundle import Bundle
from edge_contract.errors import EdgeError, InputFault
from edge_contract.manifest import MODEL_FILE, PROFILE_FILE, Manifest
from edge_contract.ports.disk import read_bounded
from edge_contract.profile import Profile
from edge_contract.typed import json_decoder
from edge_pack import inference, intake, tables
from edge_pack.answers import Answers
from edge_pack.intake import Column, Intake, Rows
from edge_pack.measure import Measured, path_beside
from edge_pack.originals import missing
from edge_pack.tables import Table
from edge_release import signing

PREDICT_ROWS = 4096
_MEASURED_MAX_BYTES = 1024**2
_ROOT_MAX_BYTES = 512_000
"""python-tuf's own limit for root metadata."""


def open_bundle(path: Path) -> Bundle:
    """The bundle in ``path``, every digest checked. Raises InputFault."""
    return bundles.read(read_bounded(path, bundles.BUNDLE_MAX_BYTES))


def profile_of(bundle: Bundle) -> Profile | None:
    """The reference profile, None where the bundle has none. Raises InputFault."""
    there = any(file.name == PROFILE_FILE for file in bundle.manifest.files)
    return profiles.decode(bundle.file(PROFILE_FILE)) if there else None


def measured_beside(path: Path, digest: str) -> Measured | None:
    """The measurements beside a bundle; None where there are none of this very bundle."""
    beside = path_beside(path)
    if not beside.exists():
        return None
    data = read_bounded(beside, _MEASURED_MAX_BYTES)
    try:
        measured = json_decoder(Measured).decode(data)
    except ValueError as error:
        raise InputFault(
            f"{beside} is not readable: {error}", advice="Remove it; a build writes it anew."
        ) from error
    return measured if measured.bundle == digest else None


@dataclass(frozen=True)
class Verdict:
    """What ``verify`` found out, one line a step; all of them hold."""

    bundle: Bundle
    steps: tuple[str, ...]
    signature: str


def verify(path: Path, *, keys: Path | None = None, root: Path | None = None) -> Verdict:
    """Check a bundle as a device would.

    1. the archive is the one valid encoding of its members, and each has the digest and size
       that the manifest names; 2. each member decodes to the digest that the manifest names;
    3. the model loads and its golden samples come out within tolerance; 4. the signature over
    the manifest is by a key that ``keys`` or ``root`` trusts, where one of them is named.

    Raises:
        InputFault: step 1, 2 or 4 fails.
        EdgeError: the golden samples come out differently on this machine.
    """
    bundle = open_bundle(path)  # 1.
    for file in bundle.manifest.files:  # 2.
        bundle.file(file.name)
    model = Model.from_bundle(bundle)  # 3.
    findings = model.check_golden()
    if findings:
        raise EdgeError(
            f"{path}: golden samples come out differently here: {'; '.join(findings)}",
            advice="Do not publish it; rebuild, and report the processor if it happens again.",
        )
    samples = model.golden.inputs[0].shape[0] if model.golden else 0
    steps = [
        f"archive: {len(bundle.manifest.files)} members with the manifest's digests",
        "members: each decodes to the manifest's digest",
        f"golden: {samples} samples come out within tolerance",
    ]
    signature = _check_signature(bundle, keys, root)  # 4.
    steps.append(f"signature: {signature}")
    if keys or root:
        steps.append(f"vouched for: {_materials(bundle.manifest)}")
    return Verdict(bundle, tuple(steps), signature)


def _materials(manifest: Manifest) -> str:
    """What the signed statement says that the bundle was made of."""
    source = manifest.provenance
    parts = [f"model {source.source_sha256[:12]}..."]
    if source.data_sha256:
        parts.append(f"data {source.data_sha256[:12]}...")
    if source.commit:
        parts.append(f"commit {source.commit[:12]}{' with changes' if source.dirty else ''}")
    if "edge-pack" in source.libraries:
        parts.append(f"by edge-pack {source.libraries['edge-pack']}")
    return ", ".join(parts)


def _check_signature(bundle: Bundle, keys: Path | None, root: Path | None) -> str:
    if keys is None and root is None:
        return "there, not checked (name --keys or --root)" if bundle.signature else "none"
    anchor = read_bounded(root, _ROOT_MAX_BYTES) if root else None
    signing.verify_bundle(bundle, root=anchor, keys_dir=keys)
    return f"valid, trusted by {keys or root}"


def predict(path: Path, data: Path) -> Iterator[Prediction]:
    """The bundle's predictions for every row of ``data``, in order.

    Raises InputFault naming column and row when a row does not fit.
    """
    model = Model.from_bundle(open_bundle(path))
    for table in tables.pages(data):
        takes = intake_of(model.manifest, table)
        rows = intake.read_rows(takes, table)
        if not takes.columns:
            yield from _predict_tensors(model, takes, rows)
            continue
        _check_missing(model.manifest, rows)
        yield from _predict_rows(model, rows)


def _predict_rows(model: Model, rows: Rows) -> Iterator[Prediction]:
    for start in range(0, rows.count, PREDICT_ROWS):
        chunk = rows.take(np.arange(start, min(start + PREDICT_ROWS, rows.count)))
        yield from _listed(model.predict(_Chunk(chunk)))


def answers(bundle: Bundle, table: Table) -> Answers:
    """What the bundle's model says to every row of ``table``, by the agent's own code.

    Raises InputFault when the table lacks a column or holds a missing value that is refused.
    """
    manifest = bundle.manifest
    takes = intake_of(manifest, table)
    rows = intake.read_rows(takes, table)
    if takes.columns:
        _check_missing(manifest, rows)
    session = Session(bundle.file(MODEL_FILE))
    return inference.answer(session, takes, manifest.features, rows, manifest.outputs)


def _predict_tensors(model: Model, takes: Intake, rows: Rows) -> Iterator[Prediction]:
    if takes.batch != "single":
        yield from _listed(model.predict(dict(rows.tensors)))
        return
    for i in range(rows.count):
        yield from _listed(model.predict(dict(rows.take(np.array([i])).tensors)))


def _listed(found: Prediction | list[Prediction]) -> Sequence[Prediction]:
    return found if isinstance(found, list) else [found]


def intake_of(manifest: Manifest, table: Table) -> Intake:
    """What the manifest declares, matched with the table. Raises InputFault for what it lacks."""
    if not manifest.features:
        return intake.whole_tensors(manifest.inputs, table)
    lacking = [f.name for f in manifest.features if f.name not in table.columns]
    if lacking and table.unnamed and len(table.columns) >= len(manifest.features):
        raise InputFault(
            f"{table.path} has no names for its columns, the model takes them by name",
            advice="Add an array 'columns' with the names to the NPZ file.",
        )
    if lacking:
        raise InputFault(
            f"{table.path} lacks the column {', '.join(map(repr, lacking[:6]))}",
            advice=f"It has {', '.join(map(repr, list(table.columns)[:6]))}.",
        )
    columns = tuple(
        Column(f.name, f.type != "number", free=f.type == "text") for f in manifest.features
    )
    return Intake(columns, manifest.inputs)


def _check_missing(manifest: Manifest, rows: Rows) -> None:
    for feature in manifest.features:
        empty = np.flatnonzero(missing(rows.columns[feature.name]))
        if feature.missing == "refuse" and len(empty):
            row = rows.row_number(int(empty[0]))
            raise InputFault(
                f"column {feature.name!r}, row {row}: the value is missing "
                f"({len(empty)} in all), and the model was built on rows where it never is",
                advice="Fill it in or drop those rows.",
            )


class _Chunk:
    """Rows as the agent's ``Model`` reads a table: columns by name, and a length."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.columns = list(rows.columns)

    def __len__(self) -> int:
        return self._rows.count

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._rows.columns[name]
