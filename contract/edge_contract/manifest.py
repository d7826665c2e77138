"""The manifest: the signed description of one bundle.

Guards: a decoded manifest is complete and consistent (every file named once, every tensor's
features declared, sizes within limits); nobody behind ``decode`` checks that again.
It must never hold what differs from run to run: no time, path, host or measured figure.

Unknown fields are ignored, so that an agent can read a manifest with additions made after it;
a change that an old reader must not ignore raises ``SCHEMA``, which every reader checks.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
from msgspec import Struct

from edge_contract.errors import InputFault
from edge_contract.names import check_name, check_sha256
from edge_contract.typed import json_decoder

SCHEMA = 1
MANIFEST_MAX_BYTES = 120 * 1024
"""A manifest is one chunk, so that it fits a broker that takes 128 KB a message (AWS IoT Core)."""
FILES_MAX = 64
FEATURES_MAX = 20_000
FILE_MAX_BYTES = 2 * 1024**3

Dtype = Literal[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool", "string",
]  # fmt: skip
Task = Literal["classification", "regression", "clustering", "outliers", "tensors"]
Label = int | float | str | bool


class Feature(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One named input of a table model, as the reference data showed it.

    Attributes:
        type: ``number``, ``category`` (text from a closed list) or ``text`` (any text, which no
            device counts or reports).
        lower: text goes into its tensor in lower case, as Python's ``str.lower`` has it.
        unit: as the user declared it; never inferred.
        minimum, maximum: range in the reference rows; None when all were missing.
        resolution: greatest common step of the reference values; None when there is none.
        categories: known values of a category, sorted.
        missing: ``allow`` when the model was shown missing values, else ``refuse``.
    """

    name: str
    type: Literal["number", "category", "text"] = "number"
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    resolution: float | None = None
    categories: tuple[str, ...] = ()
    missing: Literal["allow", "refuse"] = "refuse"
    lower: bool = False


class Tensor(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One input tensor of the model: name, element type, shape (None: any), and its columns.

    ``features`` names the features that fill a rank-2 tensor ``[rows, len(features)]``; it is
    empty for a tensor that a caller passes whole.
    """

    name: str
    dtype: Dtype
    shape: tuple[int | None, ...]
    features: tuple[str, ...] = ()


class Outputs(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the output tensors mean.

    Attributes:
        label: tensor with one label a row, or "" (then the label is the best score's).
        scores: tensor ``[rows, len(labels)]`` of probabilities, or "".
        value: tensor ``[rows]`` or ``[rows, 1]`` of a regression, or "".
        labels: label of each score column, in order.
        threshold: decision threshold on the last label's score of a two-class model.
        tensors: every output tensor of the model, in order.
    """

    tensors: tuple[str, ...]
    label: str = ""
    scores: str = ""
    value: str = ""
    labels: tuple[Label, ...] = ()
    threshold: float | None = None


class File(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One member of the bundle.

    Attributes:
        name: the file's name on the device, such as ``model.onnx``.
        size, sha256: of the stored (compressed) bytes: what travels.
        raw_size, raw_sha256: of the decoded bytes: what is used.
        index: SHA-256 of the list of chunk digests when the stored bytes exceed one chunk.
    """

    name: str
    size: int
    sha256: str
    raw_size: int
    raw_sha256: str
    index: str = ""


class Runtime(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The least runtime that can run this bundle; an agent refuses before the first chunk.

    ``ram_bytes`` is an estimate from the graph (deterministic), not a measurement.
    ``ram_bytes_max``, ``latency_ms_max``: budgets that the user gave: the most resident memory that
    the model may cost, and the longest p99 for one row. A device that finds it over them does not
    keep the version. 0: none was given.
    ``proven``: the release under which the golden samples were run at build time, or "".
    """

    ir: int
    opsets: dict[str, int]
    ops: tuple[str, ...]
    onnxruntime: str
    ram_bytes: int
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    proven: str = ""
    ram_bytes_max: int = 0
    latency_ms_max: float = 0.0


class Compression(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How the model was made small.

    Attributes:
        mode: the form's name, such as ``int8-storage``; a reader need not know it.
        stock_bytes: the plain float32 conversion's size.
        tensors: tensors, layers or nodes that are other than in float32.
        parameters: all that the making of the form was told.
    """

    mode: str
    stock_bytes: int
    tensors: int = 0
    parameters: dict[str, int | float | str | bool] = {}


class Parity(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The bundle against the original model on the same raw rows.

    Attributes:
        rows: rows compared. ``synthetic`` when they were drawn, not given.
        flips: rows whose label changed; ``flips_max`` is the budget as a share.
        diff_max, diff_p99: absolute difference of probability, or of the value divided by the
            original outputs' standard deviation; ``diff_budget`` bounds ``diff_max``.
        forced: the budget was exceeded and the user insisted.
    """

    rows: int
    flips: int
    flips_max: float
    diff_max: float
    diff_p99: float
    diff_budget: float
    synthetic: bool = False
    forced: bool = False


class Metric(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One quality figure of the original model and of the bundle on the same rows.

    Attributes:
        low, high: 95 % bootstrap interval of the bundle's figure; None where there is none.
        slice: the slice's name, or the column for a disparity between its slices; "": all rows.
    """

    name: str
    original: float
    bundle: float
    low: float | None = None
    high: float | None = None
    slice: str = ""


class Slice(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One group of the rows that the metrics were computed on.

    Attributes:
        name: ``column=group``, as metrics and gates name it.
        minimum, maximum: of the column in this group, where it is a span of numbers.
        gated: it has enough rows for a gate to judge it.
    """

    name: str
    column: str
    group: str
    rows: int
    minimum: float | None = None
    maximum: float | None = None
    gated: bool = True


class Gate(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A condition that the build was given, and whether the bundle meets it.

    Attributes:
        name: such as ``recall[site=graz]`` or ``memory``. wanted: such as ``>=0.8``.
        got: the figure as text; "" where it was measured, so differs from run to run.
        passed: False only in a bundle that the user forced.
    """

    name: str
    wanted: str
    got: str = ""
    passed: bool


class Change(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A metric of an older bundle and of this one on the same rows.

    ``low`` and ``high`` bound the difference ``after - before`` with 95 %, by paired bootstrap.
    """

    name: str
    before: float
    after: float
    low: float | None = None
    high: float | None = None


class Baseline(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """This bundle against an older one on the same rows.

    Attributes:
        digest, name, version: of the older bundle.
        rows: rows that both answer. judged: those of them whose true label is known.
        changed: rows whose label differs between the two.
        regressions, fixed: rows right before and wrong now, and the reverse.
    """

    digest: str
    name: str
    version: str
    rows: int
    judged: int = 0
    changed: int = 0
    regressions: int = 0
    fixed: int = 0
    metrics: tuple[Change, ...] = ()


class Tracked(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What DVC knows of a file that was handed in, where its record fits the file's bytes.

    Attributes:
        role: which file. md5: as DVC computed it.
        record: base name of the file that says so, ``dvc.lock`` or ``NAME.dvc``; its SHA-256.
        stage: the stage of ``dvc.lock`` that wrote or read the file, else "".
    """

    role: Literal["model", "data"]
    md5: str
    record: str
    record_sha256: str
    stage: str = ""


class Provenance(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Where the bundle came from. Digests are SHA-256 of the files as given.

    Attributes:
        libraries: versions of what can change the bytes or the original's answers.
        commit: of the code that made the model. dirty: files of that working tree were changed,
            or nobody could tell.
        run_id: the training run. tracked: what DVC knows of model and data.
        source_uri: where the model was fetched from, without credentials or query; "" for a path.
        registered: ``NAME/VERSION`` in a model registry, also where an alias was asked for.
        command: arguments of ``edge-pack`` that repeat the build, files by their base names;
            what does not change the bundle's manifest is left out.
    """

    source_sha256: str
    source_type: str
    libraries: dict[str, str]
    data_sha256: str = ""
    data_rows: int = 0
    commit: str = ""
    run_id: str = ""
    dirty: bool = False
    python: str = ""
    tracked: tuple[Tracked, ...] = ()
    command: tuple[str, ...] = ()
    source_uri: str = ""
    registered: str = ""


class Calibration(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a device may do to the model's scores by labels that come there; never to its labels.

    Attributes:
        max_shift: no score moves farther. min_labels: with fewer labels nothing moves.
    """

    max_shift: float
    min_labels: int = 200


class Manifest(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The signed description of one bundle. See the field types for units and meaning."""

    schema: int
    name: str
    version: str
    task: Task
    features: tuple[Feature, ...]
    inputs: tuple[Tensor, ...]
    outputs: Outputs
    files: tuple[File, ...]
    runtime: Runtime
    compression: Compression
    parity: Parity
    provenance: Provenance
    metrics: tuple[Metric, ...] = ()
    slices: tuple[Slice, ...] = ()
    gates: tuple[Gate, ...] = ()
    baseline: Baseline | None = None
    licence: str = ""
    intended_use: str = ""
    calibration: Calibration | None = None

    def file(self, name: str) -> File:
        """The member called ``name``. Raises InputFault when the manifest has none."""
        for file in self.files:
            if file.name == name:
                return file
        raise InputFault(f"bundle {self.name} {self.version} has no file {name!r}")


MODEL_FILE = "model.onnx"
GOLDEN_FILE = "golden.json"
PROFILE_FILE = "profile.json"

_ENCODER = msgspec.json.Encoder()
_DECODER = json_decoder(Manifest)


def encode(manifest: Manifest) -> bytes:
    """JSON in the fields' declared order: equal manifests give equal bytes.

    Raises InputFault when the manifest breaks a rule that ``decode`` holds.
    """
    _check(manifest)
    data = _ENCODER.encode(manifest)
    if len(data) > MANIFEST_MAX_BYTES:
        raise InputFault(
            f"the manifest is {len(data)} bytes, over the limit of {MANIFEST_MAX_BYTES}",
            advice="Fewer slices, fewer or shorter names and categories make it smaller.",
        )
    return data


def decode(data: bytes) -> Manifest:
    """The manifest in ``data``, whole and consistent. Raises InputFault, and nothing else."""
    if len(data) > MANIFEST_MAX_BYTES:
        raise InputFault(
            f"the manifest is {len(data)} bytes, over the limit of {MANIFEST_MAX_BYTES}"
        )
    try:
        manifest = _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputFault(f"the manifest is not valid: {error}") from error
    _check(manifest)
    return manifest


def digest(data: bytes) -> str:
    """The bundle's identity: SHA-256 of its manifest's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def _check(manifest: Manifest) -> None:
    if manifest.schema != SCHEMA:
        raise InputFault(
            f"the manifest has schema {manifest.schema}, this reader knows {SCHEMA}",
            advice="Update edge-pack on this machine.",
        )
    check_name(manifest.name, "bundle name")
    check_name(manifest.version, "bundle version")
    _check_files(manifest.files)
    _check_inputs(manifest)
    produced = set(manifest.outputs.tensors)
    for tensor in (manifest.outputs.label, manifest.outputs.scores, manifest.outputs.value):
        if tensor and tensor not in produced:
            raise InputFault(f"output {tensor!r} is not among the model's output tensors")
    if manifest.outputs.scores and not manifest.outputs.labels:
        raise InputFault("the manifest has scores but no labels")
    bounds = manifest.calibration
    if bounds is not None and not (0 < bounds.max_shift <= 1 and bounds.min_labels >= 1):
        raise InputFault("the manifest's calibration has bounds out of range")


def _check_files(files: tuple[File, ...]) -> None:
    if not 1 <= len(files) <= FILES_MAX:
        raise InputFault(f"the manifest names {len(files)} files, not 1 to {FILES_MAX}")
    names = [check_name(file.name, "file name") for file in files]
    if len(set(names)) != len(names):
        raise InputFault("the manifest names a file twice")
    if MODEL_FILE not in names:
        raise InputFault(f"the manifest names no {MODEL_FILE}")
    for file in files:
        check_sha256(file.sha256, f"digest of {file.name}")
        check_sha256(file.raw_sha256, f"raw digest of {file.name}")
        if file.index:
            check_sha256(file.index, f"index of {file.name}")
        if not (0 <= file.size <= FILE_MAX_BYTES and 0 <= file.raw_size <= FILE_MAX_BYTES):
            raise InputFault(f"file {file.name} has a size out of range: {file.size}")


def _check_inputs(manifest: Manifest) -> None:
    names = [feature.name for feature in manifest.features]
    if len(names) > FEATURES_MAX:
        raise InputFault(f"{len(names)} features, over the limit of {FEATURES_MAX}")
    declared = set(names)
    if len(declared) != len(names):
        raise InputFault("the manifest declares a feature twice")
    if not manifest.inputs:
        raise InputFault("the manifest declares no input tensor")
    used = [name for tensor in manifest.inputs for name in tensor.features]
    unknown = sorted(set(used) - declared)
    if unknown:
        raise InputFault(f"input features without a declaration: {', '.join(unknown[:5])}")
    if len(set(used)) != len(used):
        raise InputFault("a feature fills two columns")
