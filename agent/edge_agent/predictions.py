"""The answers that a label may still come for: a bounded ring, and the ids that lead to it.

Guards: no row is kept, only what was answered: the version, the predicted label's index, its score
or value, and when; never more than ``keep`` answers; an id is given only to one who asks, so that
the way of a prediction pays for one entry and no text. What is on disk is a whole ring or none.

An id is ``<boot>-<number>``: ``7-1031``. Numbers rise by one a row over all boots; the third row
of a call whose id is 7-1031 is 7-1033, which may be written 7-1031.2 as well.
"""

from __future__ import annotations

import logging
import math
import mmap
import re
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from edge_agent.settings import Feedback as Settings
from edge_contract import aside, wire
from edge_contract.errors import EdgeError, InputFault
from edge_contract.manifest import Manifest
from edge_contract.messages import Count, Name, Sha256
from edge_contract.ports import disk
from edge_contract.profile import Profile

log = logging.getLogger(__name__)

ENTRY_BYTES = 40
BUNDLES_MAX = 64
"""Versions that labels are still taken for."""
LABELS_MAX = 1000
"""A model of more labels counts them by their score alone: a record has its bounds."""
_pack_into = struct.Struct("<QIIiHBxdd").pack_into
_DTYPE = np.dtype(
    [
        ("number", "<u8"), ("boot", "<u4"), ("at_s", "<u4"), ("label", "<i4"), ("bundle", "<u2"),
        ("labelled", "u1"), ("", "u1"), ("score", "<f8"), ("truth", "<f8"),
    ]
)  # fmt: skip
_MAGIC = b"EPA1"
_HEAD = struct.Struct("<4sII")
_HEAD_MAX_BYTES = 8 * 1024**2
_ID = re.compile(r"(\d{1,10})-(\d{1,16})(?:\.(\d{1,5}))?", re.ASCII)


class Bundle(Struct, frozen=True, kw_only=True):
    """A version whose answers are kept.

    Attributes:
        kind: what its labels are: one of ``labels``, or a number.
        edges: of the score bins; empty: one bin.
        unit: of a value's errors, see ``edge_contract.aside``.
    """

    model: Name
    version: Name
    sha256: Sha256
    kind: Literal["label", "value"]
    labels: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    unit: Annotated[float, Meta(gt=0)] = 1.0

    @property
    def bins(self) -> int:
        """How many score bins there are."""
        return max(len(self.edges) - 1, 1)


class _Head(Struct, frozen=True, kw_only=True):
    schema: int = 1
    next: Count
    bundles: Annotated[dict[str, Bundle], Meta(max_length=BUNDLES_MAX)]


class Answer(NamedTuple):
    """One answer in the ring.

    Attributes:
        at_s: by the device's clock, since 1970.
        label: index of the predicted label. score: as ``outputs.Reading`` has it, or the value.
        truth: the label that came, None before one did.
    """

    number: int
    boot: int
    at_s: int
    bundle: Bundle
    label: int
    score: float
    truth: float | None


class Id(NamedTuple):
    """What a label refers to."""

    boot: int
    number: int


def bundle_of(manifest: Manifest, profile: Profile | None, sha256: str) -> Bundle | None:
    """What is to be known of a version for labels that come later.

    None where a label could not be compared with its answer: tensors without meaning, clusters.
    """
    monitor = aside.output_monitor(profile)
    labels = tuple(str(label) for label in manifest.outputs.labels)
    if labels:
        scored = monitor is not None and monitor.kind == "score" and len(labels) <= LABELS_MAX
        return Bundle(
            model=manifest.name, version=manifest.version, sha256=sha256, kind="label",
            labels=labels, edges=monitor.edges if monitor is not None and scored else (),
        )  # fmt: skip
    if manifest.outputs.value and not manifest.outputs.label:
        return Bundle(
            model=manifest.name, version=manifest.version, sha256=sha256, kind="value",
            unit=aside.unit_of(profile),
        )  # fmt: skip
    return None


def parse_id(text: str) -> Id | None:
    """The answer that an id names, None for what is no id."""
    found = _ID.fullmatch(text)
    if found is None:
        return None
    return Id(int(found[1]), int(found[2]) + int(found[3] or 0))


class Answers:
    """The ring. Thread-safe; ``note`` takes 1 us.

    Args:
        path: where it is kept over restarts; None: in memory alone.
        boot: of this start. keep: answers. keep_s: how long a label may take.
        now_s: seconds since 1970 by the device's clock.
    """

    def __init__(
        self, path: Path | None, *, boot: int, keep: int, keep_s: float, now_s: Callable[[], float]
    ) -> None:
        self._path = path
        self._boot = boot & 0xFFFFFFFF
        self._keep = keep
        self._keep_s = keep_s
        self._now_s = now_s
        self._lock = threading.Lock()
        # Mapped, so that it takes memory as it fills: a device that gets few requests keeps that.
        self._ring = mmap.mmap(-1, keep * ENTRY_BYTES)
        self._table = np.frombuffer(self._ring, dtype=_DTYPE)
        self._next = 1
        self._bundles: dict[int, Bundle] = {}
        self._newest: dict[str, Bundle] = {}
        self._changed = False
        self._load()

    def open(self, bundle: Bundle) -> int:
        """The number under which answers of this version are noted."""
        with self._lock:
            self._newest[bundle.model] = bundle
            for number, known in self._bundles.items():
                if known == bundle:
                    return number
            if len(self._bundles) >= BUNDLES_MAX:
                self._forget_bundle()
            number = next(n for n in range(BUNDLES_MAX) if n not in self._bundles)
            self._bundles[number] = bundle
            return number

    def newest(self, model: str) -> Bundle | None:
        """The version of ``model`` that was opened last."""
        return self._newest.get(model)

    def note(self, bundle: int, labels: Sequence[int], scores: Sequence[float]) -> int:
        """Keep the answers of one call, as ``outputs.Reading`` has them; the first one's number."""
        rows, at_s = len(labels), int(self._now_s()) & 0xFFFFFFFF
        with self._lock:
            first = self._next
            self._next = first + rows
            self._changed = True
            if rows == 1:
                _pack_into(
                    self._ring, first % self._keep * ENTRY_BYTES,
                    first, self._boot, at_s, labels[0], bundle, 0, scores[0], 0.0,
                )  # fmt: skip
            else:
                self._note_many(first, at_s, bundle, labels, scores)
            return first

    def _note_many(
        self, first: int, at_s: int, bundle: int, labels: Sequence[int], scores: Sequence[float]
    ) -> None:
        kept = min(len(labels), self._keep)
        numbers = np.arange(first + len(labels) - kept, first + len(labels))
        entries = np.zeros(kept, dtype=_DTYPE)
        entries["number"], entries["boot"], entries["at_s"] = numbers, self._boot, at_s
        entries["label"], entries["bundle"] = labels[-kept:], bundle
        entries["score"] = scores[-kept:]
        self._table[numbers % self._keep] = entries

    def id_of(self, number: int) -> str:
        """The id of an answer of this boot."""
        return f"{self._boot}-{number}"

    def find(self, which: Id) -> Answer | Literal["late", "unknown"]:
        """The answer; ``late`` for one that is no longer kept, ``unknown`` for one that never was.

        What a power cut took out of the ring is unknown.
        """
        with self._lock:
            entry = self._table[which.number % self._keep]
            number, boot = int(entry["number"]), int(entry["boot"])
            if (boot, number) != which:
                gone = number > which.number and which.number > 0 and which.boot <= self._boot
                return "late" if gone else "unknown"
            bundle = self._bundles.get(int(entry["bundle"]))
            at_s = int(entry["at_s"])
            if bundle is None or self._now_s() - at_s > self._keep_s:
                return "late"
            return Answer(
                number, boot, at_s, bundle, int(entry["label"]), float(entry["score"]),
                float(entry["truth"]) if entry["labelled"] else None,
            )  # fmt: skip

    def mark(self, answer: Answer, truth: float) -> bool:
        """Note the label that came; False when one was there, or the answer is gone."""
        with self._lock:
            entry = self._table[answer.number % self._keep]
            known = (int(entry["number"]), int(entry["boot"])) == (answer.number, answer.boot)
            if not known or entry["labelled"]:
                return False
            entry["labelled"], entry["truth"] = 1, truth
            self._changed = True
            return True

    # -- on disk -----------------------------------------------------------------------------

    def save(self) -> None:
        """Have the ring on disk. Raises MachineFault; then the file is as it was."""
        with self._lock:
            if self._path is None or not self._changed:
                return
            head = _Head(next=self._next, bundles={str(n): b for n, b in self._bundles.items()})
            entries = self._table[self._table["number"] > 0]  # a copy: the rest needs no lock
            self._changed = False
        try:
            disk.write_atomic(self._path, _packed(head, entries))
        except EdgeError:
            self._changed = True
            raise

    def _load(self) -> None:
        if self._path is None or not self._path.exists():
            return
        try:
            bound = _HEAD.size + _HEAD_MAX_BYTES + 2**32
            self._unpack(disk.read_bounded(self._path, bound))
        except (EdgeError, ValueError, struct.error) as error:
            log.warning("the answers of earlier starts are lost: %s", error)
            self._ring[:] = bytes(len(self._ring))
            self._bundles.clear()
            self._next = 1

    def _unpack(self, data: bytes) -> None:
        magic, size, crc = _HEAD.unpack_from(data)
        body = data[_HEAD.size :]
        if magic != _MAGIC or zlib.crc32(body) != crc:
            raise InputFault(f"{self._path} is damaged")
        head = wire.decode_json(body[:size], _Head, size_max=_HEAD_MAX_BYTES)
        entries = np.frombuffer(body[size:], dtype=_DTYPE)
        entries = np.sort(entries, order="number")[-self._keep :]
        self._table[entries["number"] % self._keep] = entries
        self._bundles = {int(number): bundle for number, bundle in head.bundles.items()}
        self._newest = {bundle.model: bundle for bundle in self._bundles.values()}
        self._next = max(head.next, int(entries["number"].max(initial=0)) + 1)

    def _forget_bundle(self) -> None:
        """Make room for another version: the one whose last answer is the oldest goes."""
        newest = dict.fromkeys(self._bundles, 0)
        for number in newest:
            own = self._table["number"][self._table["bundle"] == number]
            newest[number] = int(own.max(initial=0))
        gone = min(newest, key=newest.__getitem__)
        self._table[self._table["bundle"] == gone] = np.zeros(1, dtype=_DTYPE)
        del self._bundles[gone]


def _packed(head: _Head, entries: NDArray[np.void]) -> bytes:
    first = wire.encode_json(head)
    body = first + entries.tobytes()
    return _HEAD.pack(_MAGIC, len(first), zlib.crc32(body)) + body


def kept(
    settings: Settings, path: Path, *, boot: int, now_s: Callable[[], float]
) -> Answers | None:
    """The ring that the settings want; None where they keep nothing."""
    if not settings.keep:
        return None
    return Answers(path, boot=boot, keep=settings.keep, keep_s=settings.hours * 3600, now_s=now_s)


class Noted:
    """The answers of one version, as its observer gives them to the ring.

    ``claim`` is for the thread that just got an answer: its id, once.
    """

    def __init__(self, answers: Answers, bundle: Bundle) -> None:
        self._answers = answers
        self._bundle = answers.open(bundle)
        self._last = threading.local()

    def note(self, labels: Sequence[int], scores: Sequence[float]) -> None:
        """One call was answered, by this thread."""
        self._last.number = self._answers.note(self._bundle, labels, scores)

    def claim(self) -> int:
        """The number of the first row of the last call that this thread made; 0 for none."""
        last = self._last
        try:
            number: int = last.number
        except AttributeError:  # this thread's first
            return 0
        last.number = 0
        return number

    def id_of(self, number: int) -> str:
        """As ``Answers.id_of``."""
        return self._answers.id_of(number)


def truth_of(bundle: Bundle, label: object) -> float | None:
    """A label as the ring keeps it: index among the bundle's labels, or a finite number.

    None for what is neither.
    """
    if bundle.kind == "value":
        number = not isinstance(label, bool) and isinstance(label, int | float)
        try:
            value = float(label) if number else math.nan  # type: ignore[arg-type]
        except OverflowError:
            return None
        return value if math.isfinite(value) else None
    words = [str(label)]
    if isinstance(label, float) and label.is_integer():
        words.append(str(int(label)))
    return next((float(bundle.labels.index(each)) for each in words if each in bundle.labels), None)
