"""A bundle ready to answer: checked rows in, predictions out, each counted where asked.

Guards: the bytes that run are the ones whose digest the manifest names; a prediction is never
made from unchecked rows; every call is counted once, as answered, refused or failed.

Usable in a service, a notebook or a test, without a broker or an agent.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

from numpy.typing import NDArray

from edge_agent import blocks, memory, quick
from edge_agent.inputs import Batch, Inputs, row_count
from edge_agent.outputs import Outputs, Prediction, Reading, listed
from edge_agent.quick import Write
from edge_agent.runtime import Session, TensorInfo
from edge_contract import bundle as bundles
from edge_contract import golden as goldens
from edge_contract import manifest as manifests
from edge_contract import profile as profiles
from edge_contract.bundle import Bundle
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.golden import Golden
from edge_contract.manifest import GOLDEN_FILE, MODEL_FILE, PROFILE_FILE, Manifest
from edge_contract.ports import disk
from edge_contract.profile import Profile

if TYPE_CHECKING:
    from edge_contract.messages import Mismatch

_now_ns = time.perf_counter_ns
Scalar = float | str | None
Row = Mapping[str, Scalar] | Sequence[float | None]
Rows = Sequence[Mapping[str, Scalar]] | Sequence[Sequence[Scalar]]


class Table(Protocol):
    """What pandas and polars call a data frame: columns by name."""

    @property
    def columns(self) -> Any:
        """Their names."""

    def __getitem__(self, name: Any, /) -> Any:
        """One of them."""

    def __len__(self) -> int:
        """Rows."""


class Observer(Protocol):
    """Who counts: a telemetry window. Called from any thread; must be quick."""

    def observe(
        self, batch: Batch, labels: Sequence[int], scores: Sequence[float], latency_ns: int
    ) -> None:
        """One call was answered."""

    def refused(self, rows: int, code: str = "") -> None:
        """Rows were turned away for bad input; ``code``: the error's."""

    def failed(self, rows: int, code: str = "") -> None:
        """The model failed on rows that were fit; ``code``: the error's."""


class Model:
    """One version of one model in memory. Thread-safe.

    Make one by ``open``, ``from_bundle`` or ``from_slot``.

    Attributes:
        manifest, digest: what it is; the digest is the bundle's identity.
        profile, golden: its reference distributions and sample outputs, where the bundle has
            them.
        observer: counts every call, when set.
        tensors: names of the output tensors. outputs: with their types and shapes.
    """

    def __init__(
        self,
        manifest: Manifest,
        digest: str,
        session: Session,
        *,
        profile: Profile | None = None,
        golden: Golden | None = None,
    ) -> None:
        self.manifest = manifest
        self.digest = digest
        self.profile = profile
        self.golden = golden
        self.observer: Observer | None = None
        self._sample: dict[str, NDArray[Any]] | None = None
        self._session = session
        inputs = Inputs(manifest)
        self._read = inputs.read
        self._one_answer = manifest.task == "tensors"
        self._check_tensors()
        self.tensors = tuple(output.name for output in session.outputs)
        self._outputs = Outputs(manifest, self.tensors)
        plan = quick.plan(inputs, session, self._outputs)
        self._quick = plan.answer if plan is not None else None
        self._quick_row = plan.row if plan is not None else None

    @classmethod
    def open(cls, path: str | Path, *, threads: int = 1) -> Model:
        """The model in an ``.edgepack`` file. Raises InputFault when it is not a sound one."""
        data = disk.read_bounded(Path(path), bundles.BUNDLE_MAX_BYTES)
        return cls.from_bundle(bundles.read(data), threads=threads)

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, threads: int = 1) -> Model:
        """The model in a bundle that was read. Raises InputFault, NoRoom when memory is short."""
        memory.room(bundle.manifest)
        names = {file.name for file in bundle.manifest.files}
        return cls(
            bundle.manifest,
            bundle.digest,
            Session(bundle.file(MODEL_FILE), threads=threads),
            profile=profiles.decode(bundle.file(PROFILE_FILE)) if PROFILE_FILE in names else None,
            golden=goldens.decode(bundle.file(GOLDEN_FILE)) if GOLDEN_FILE in names else None,
        )

    @classmethod
    def from_slot(cls, folder: Path, *, threads: int = 1, gently: bool = False) -> Model:
        """The model whose decoded files lie in ``folder``, each checked by its digest again.

        ``gently``: as ``Session`` has it.

        Raises InputFault when a file is missing or was damaged on the disk, NoRoom when memory is
        short: asked before anything of the model is read.
        """
        data = disk.read_bounded(folder / bundles.MANIFEST_MEMBER, manifests.MANIFEST_MAX_BYTES)
        manifest = manifests.decode(data)
        memory.room(manifest)
        names = {file.name for file in manifest.files}
        for file in manifest.files:
            _check_digest(folder / file.name, file.raw_sha256)
        profile = golden = None
        if PROFILE_FILE in names:
            raw = disk.read_bounded(folder / PROFILE_FILE, profiles.PROFILE_MAX_BYTES)
            profile = profiles.decode(raw)
        if GOLDEN_FILE in names:
            raw = disk.read_bounded(folder / GOLDEN_FILE, goldens.GOLDEN_MAX_BYTES)
            golden = goldens.decode(raw)
        session = Session(folder / MODEL_FILE, threads=threads, gently=gently)
        return cls(manifest, manifests.digest(data), session, profile=profile, golden=golden)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The output tensors: name, type as numpy names it (or ``string``), shape."""
        return self._session.outputs

    @overload
    def predict(self, rows: Row) -> Prediction: ...
    @overload
    def predict(self, rows: Rows | Table) -> list[Prediction]: ...
    @overload
    def predict(self, rows: object) -> Prediction | list[Prediction]: ...
    def predict(self, rows: object) -> Prediction | list[Prediction]:
        """The answer for one row (a dict or a flat list), or the list of answers for many.

        Args:
            rows: a dict by feature name; a list of them; a 2-D array or list of lists in the
                manifest's order of features; a table of pandas, polars or Arrow; or a dict of
                arrays by tensor name. 10,000 at most: see ``predict_many``.

        Raises:
            InputFault: a row does not fit; the message names row and feature.
            MachineFault: the model failed, or answered NaN.
        """
        begin = _now_ns()
        observer = self.observer
        try:
            answered = self._quick(rows) if self._quick is not None else None
            batch, reading, _ = answered or self._answer(rows)
        except EdgeError as error:
            _count_fault(observer, rows, error)
            raise
        if observer is not None:
            observer.observe(batch, reading.labels, reading.scores, _now_ns() - begin)
        if batch.single or self._one_answer:
            return reading.predictions[0]
        return reading.predictions

    def infer(self, rows: object) -> dict[str, NDArray[Any]]:
        """The model's own output tensors by name for what ``predict`` takes, checked and counted.

        Raises as ``predict``.
        """
        begin = _now_ns()
        observer = self.observer
        try:
            answered = self._quick(rows, quick.copied) if self._quick is not None else None
            batch, reading, outputs = answered or self._answer(rows)
        except EdgeError as error:
            _count_fault(observer, rows, error)
            raise
        if observer is not None:
            observer.observe(batch, reading.labels, reading.scores, _now_ns() - begin)
        return dict(zip(self.tensors, outputs, strict=True))

    def infer_row(self, row: Sequence[float], write: Write) -> Any:
        """What ``write`` makes of the output tensors for one row of finite numbers, counted.

        As ``infer``, without copies: ``write`` gets them in the order of ``tensors`` and must not
        keep them. None: ask ``infer``, which says what is wrong if anything is; none was counted.

        Args:
            row: as many numbers as there are features; that they are finite is looked at already.

        Raises MachineFault as ``predict``.
        """
        begin = _now_ns()
        observer = self.observer
        try:
            answered = self._quick_row(row, write) if self._quick_row is not None else None
        except EdgeError as error:
            _count_fault(observer, row, error)
            raise
        if answered is None:
            return None
        label, score, made = answered
        if observer is not None:
            batch = Batch({}, 1, True, b"", (), row)
            observer.observe(batch, (label,), (score,), _now_ns() - begin)
        return made

    def _answer(self, rows: object) -> tuple[Batch, Reading, list[NDArray[Any]]]:
        batch = self._read(rows)
        outputs = self._session.call(batch.feeds)
        return batch, self._outputs.read(outputs, batch.rows), outputs

    @overload
    async def apredict(self, rows: Row) -> Prediction: ...
    @overload
    async def apredict(self, rows: Rows | Table) -> list[Prediction]: ...
    @overload
    async def apredict(self, rows: object) -> Prediction | list[Prediction]: ...
    async def apredict(self, rows: object) -> Prediction | list[Prediction]:
        """As ``predict``, without holding up the event loop."""
        import asyncio  # noqa: PLC0415 - a third of the start, and who awaits has it

        return await asyncio.to_thread(self.predict, rows)

    def predict_many(self, rows: object) -> Iterator[Prediction]:
        """The answers for any number of rows, a block at a time.

        Args:
            rows: a table, a 2-D array, or anything that gives rows one by one: a list, a
                generator, a ``csv.DictReader`` whose numbers were read.

        Raises as ``predict``; a row that is named in an error counts from the first.
        """
        for start, block in blocks.split(rows):
            try:
                yield from listed(self.predict(block))
            except InputFault as error:
                raise blocks.renumbered(error, start) from error

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The output tensors for input tensors, neither interpreted nor counted."""
        return self._session.run(feeds)

    def check_golden(self, machine: str | None = None) -> Sequence[str]:
        """What this machine computes otherwise than the packager did; empty when all is well.

        Args:
            machine: whose tolerance applies; this machine's when None.

        Raises MachineFault when the model fails on its own samples.
        """
        if self.golden is None:
            return ("the bundle has no golden samples",)
        return [goldens.str_of(mismatch) for mismatch in self.golden_mismatches(machine)]

    def golden_mismatches(self, machine: str | None = None) -> tuple[Mismatch, ...]:
        """As ``check_golden``, with rows and figures. Raises InputFault without golden samples."""
        if self.golden is None:
            raise InputFault("the bundle has no golden samples")
        feeds = {array.name: goldens.unpack(array) for array in self.golden.inputs}
        outputs = self.run(feeds)
        return goldens.mismatches(self.golden, outputs, machine or platform.machine())

    def check_answers(self) -> None:
        """At least one golden sample is answered: NaN for all of them is no answer.

        Raises MachineFault that says what is wrong with the answers.
        """
        if self.golden is None:
            raise InputFault("the bundle has no golden samples")
        whole = {array.name: goldens.unpack(array) for array in self.golden.inputs}
        fault = MachineFault("the bundle's golden samples are empty")
        for feeds in one_row(self.manifest, whole):
            rows = next(iter(feeds.values())).shape[:1] or (1,)
            try:
                self._outputs.read(self._session.call(feeds), 1 if self._one_answer else rows[0])
            except MachineFault as error:
                fault = error
            else:
                return
        raise MachineFault(f"no golden sample is answered: {fault.what}")

    def probe(self) -> None:
        """Run one golden sample, uncounted and unjudged: does the model come back at all?

        Raises MachineFault when it fails.
        """
        if self._sample is None and self.golden is not None:
            whole = {array.name: goldens.unpack(array) for array in self.golden.inputs}
            self._sample = one_row(self.manifest, whole)[0]
        if self._sample is not None:
            self.run(self._sample)

    def interrupt(self) -> None:
        """End the calls that are under way; they raise MachineFault. Later ones are answered."""
        self._session.interrupt()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        manifest = self.manifest
        takes = f"{len(manifest.features)} features" if manifest.features else "tensors"
        return (
            f"<Model {manifest.name} {manifest.version}: {manifest.task} of {takes}, "
            f"{self.digest[:12]}>"
        )

    def _repr_html_(self) -> str:
        """In a notebook: what it takes and gives."""
        from edge_agent import card  # noqa: PLC0415 - for notebooks alone

        return card.html(self.manifest, self.digest)

    def close(self) -> None:
        """Give the memory back; calls after this raise MachineFault."""
        self._quick = self._quick_row = None
        self._session.close()

    def _check_tensors(self) -> None:
        """The manifest's input tensors are the model's: name, type and rank."""
        actual = {info.name: info for info in self._session.inputs}
        declared = {tensor.name for tensor in self.manifest.inputs}
        if set(actual) != declared:
            raise InputFault(
                f"the manifest declares the inputs {sorted(declared)}, the model has "
                f"{sorted(actual)}"
            )
        for tensor in self.manifest.inputs:
            info = actual[tensor.name]
            if info.dtype != tensor.dtype or len(info.shape) != len(tensor.shape):
                raise InputFault(
                    f"input {tensor.name!r} is {info.dtype} {info.shape} in the model, "
                    f"{tensor.dtype} {tensor.shape} in the manifest"
                )


def _count_fault(observer: Observer | None, rows: object, error: EdgeError) -> None:
    """Whose fault it was decides what is counted."""
    if observer is None:
        return
    if isinstance(error, InputFault):
        observer.refused(row_count(rows), error.code)
    else:
        observer.failed(row_count(rows), error.code)


def one_row(manifest: Manifest, whole: Mapping[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
    """Inputs a row at a time where the model takes any number of rows, else as they are."""
    rows = {value.shape[0] if value.ndim else 0 for value in whole.values()}
    free = all(tensor.shape and tensor.shape[0] is None for tensor in manifest.inputs)
    if not free or len(rows) != 1 or not (count := rows.pop()):
        return [dict(whole)]
    return [{name: value[i : i + 1] for name, value in whole.items()} for i in range(count)]


def _check_digest(path: Path, sha256: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputFault(f"cannot read {path}: {error.strerror or error}") from error
    if found != sha256:
        raise InputFault(
            f"{path} is not what its manifest names: damaged on the disk",
            advice="Remove the slot: the agent fetches it again.",
        )
