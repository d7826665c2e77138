"""Rows set aside on the device, sealed for their owner; nothing of them is ever sent.

Guards: a row is on disk sealed or not at all, and this device cannot open it again; the quota of
a day holds over restarts; the oldest give way to the disk's bound. What a request pays is one
entry in a ring.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from edge_agent.inputs import Batch
from edge_agent.model import Model
from edge_agent.sampling import Chooser, Quota, Sample, Seen
from edge_agent.settings import Sampling
from edge_contract import sealed, wire
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.messages import Count, Name, Sha256
from edge_contract.ports.disk import make_folder, read_bounded, write_atomic

log = logging.getLogger(__name__)

RING_CALLS = 256
"""Calls of one version that are looked at together; of more, the last ones."""
CALL_MAX_BYTES = 64 * 1024
WRITE_S = 300.0
"""Chosen rows wait so long in memory for others to be sealed with."""
WRITE_ROWS = 100
"""In one sealed file; so many are written at once, the others at the next looks."""
_MAX_BYTES = 64 * 1024


class Parcel(Struct, frozen=True, kw_only=True):
    """What one sealed file holds."""

    schema: int = 1
    device: Name
    model: Name
    version: Name
    bundle: Sha256
    at_ms: Count
    rows: list[Sample]


class _Day(Struct, frozen=True, kw_only=True):
    day: int
    rows: Annotated[int, Meta(ge=0)]
    size: Annotated[int, Meta(ge=0)]


class Sampler:
    """The rows of one loaded version. Any thread may offer; one thread looks."""

    def __init__(self, chooser: Chooser, model: Model) -> None:
        self.chooser = chooser
        self.model = model.manifest.name
        self.version = model.manifest.version
        self.bundle = model.digest
        self._ring: deque[Seen] = deque(maxlen=RING_CALLS)

    def offer(self, batch: Batch, labels: Sequence[int], scores: Sequence[float]) -> None:
        """One call was answered: an entry in the ring, whatever it holds."""
        values = batch.values
        if values:
            self._ring.append((1, tuple(values), (), labels, scores))
        elif len(batch.numbers) <= CALL_MAX_BYTES:
            self._ring.append((batch.rows, batch.numbers, batch.categories, labels, scores))

    @property
    def waiting(self) -> bool:
        """Calls came since the last look."""
        return bool(self._ring)

    def look(self, most: int) -> list[Sample]:
        """Choose among what came since the last look."""
        calls: list[Seen] = []
        while self._ring:
            calls.append(self._ring.popleft())
        return self.chooser.choose(calls, most)


class _Waiting(Struct):
    """Chosen rows of one version that are not sealed yet."""

    sampler: Sampler
    since_s: float
    rows: list[Sample]


class Samples:
    """The sealed rows of this device. Thread-safe.

    Args:
        folder: where they are kept. now_s: seconds since 1970 UTC. rng: for the random ones.

    Raises MachineFault without the package that seals, InputFault for a recipient that is none.
    """

    def __init__(
        self,
        rules: Sampling,
        folder: Path,
        device: str,
        now_s: Callable[[], float],
        rng: random.Random,
    ) -> None:
        sealed.check_installed()
        self._recipient = rules.recipient
        sealed.check_recipient(self._recipient)
        self._rules = rules
        self._folder = folder
        self._device = device
        self._now_s = now_s
        self._rng = rng
        self._lock = threading.Lock()
        self._samplers: list[Sampler] = []
        self._waiting: dict[str, _Waiting] = {}
        make_folder(folder)
        self._quota = self._load()
        self._number = 0

    def attach(self, model: Model) -> Sampler | None:
        """Who sees the rows of a version that was loaded; None where it takes no features."""
        wanted = not self._rules.models or model.manifest.name in self._rules.models
        chooser = Chooser(model.manifest, model.profile, self._rules, self._rng)
        if not (wanted and chooser.fits):
            return None
        sampler = Sampler(chooser, model)
        with self._lock:
            self._samplers = [x for x in self._samplers if x.bundle != sampler.bundle]
            self._samplers.append(sampler)
        return sampler

    def tick(self) -> None:
        """Choose among what came, and seal what waited long enough."""
        with self._lock:
            self._choose()
            for bundle, waiting in list(self._waiting.items()):
                due = self._now_s() - waiting.since_s >= WRITE_S
                if due or len(waiting.rows) >= WRITE_ROWS:
                    self._write(bundle)

    def flush(self) -> None:
        """Before a stop: seal all that was chosen."""
        with self._lock:
            self._choose()
            while self._waiting:
                self._write(next(iter(self._waiting)))

    def _choose(self) -> None:
        for sampler in self._samplers:
            if not sampler.waiting:
                continue
            pending = sum(len(each.rows) for each in self._waiting.values())
            rows = sampler.look(max(self._quota.room() - pending, 0))
            if rows:
                fresh = _Waiting(sampler, self._now_s(), [])
                self._waiting.setdefault(sampler.bundle, fresh).rows.extend(rows)

    def _write(self, bundle: str) -> None:
        """Seal the next rows of one version; what the day has no room for is forgotten."""
        waiting = self._waiting[bundle]
        own = waiting.sampler
        rows, waiting.rows = waiting.rows[:WRITE_ROWS], waiting.rows[WRITE_ROWS:]
        if not waiting.rows:
            del self._waiting[bundle]
        parcel = Parcel(
            device=self._device,
            model=own.model,
            version=own.version,
            bundle=own.bundle,
            at_ms=max(int(self._now_s() * 1000), 0),
            rows=rows,
        )
        data = sealed.seal(wire.encode_json(parcel), self._recipient)
        self._quota.room()  # a new day may have begun
        if not self._quota.take(len(rows), len(data)):
            return
        try:
            self._save()  # first: a cut costs rows, never the quota
            self._make_room(len(data))
            write_atomic(self._next(), data, mode=0o600)
        except EdgeError as error:
            log.warning(
                "%d sampled rows of %s are lost: %s", len(parcel.rows), own.model, error.what
            )

    def _next(self) -> Path:
        self._number += 1
        return self._folder / f"{int(self._now_s() * 1000):013d}-{self._number:06d}.sealed"

    def _make_room(self, size: int) -> None:
        """Raises MachineFault. What `samples export --remove` takes meanwhile needs no room."""
        if size > (most := min(self._rules.disk_bytes, sealed.FILE_MAX_BYTES)):
            raise MachineFault(f"sealed they take {size} bytes, over the limit of {most} bytes")
        sizes: dict[Path, int] = {}
        try:
            for path in sorted(self._folder.glob("*.sealed")):
                with contextlib.suppress(FileNotFoundError):
                    sizes[path] = path.stat().st_size
            for path in list(sizes):
                if sum(sizes.values()) + size <= self._rules.disk_bytes:
                    return
                del sizes[path]
                path.unlink(missing_ok=True)
        except OSError as error:
            raise MachineFault(
                f"cannot make room in {self._folder}: {error.strerror or error}"
            ) from error

    def _load(self) -> Quota:
        path = self._folder / "day.json"
        if not path.exists():
            return Quota(self._rules, self._now_s)
        try:
            day = wire.decode_json(read_bounded(path, _MAX_BYTES), _Day, size_max=_MAX_BYTES)
        except InputFault as error:
            log.warning(
                "today's quota of sampled rows cannot be read, it counts as spent: %s", error
            )
            today = int(self._now_s() // 86_400)
            return Quota(self._rules, self._now_s, day=today, rows=self._rules.per_day)
        return Quota(self._rules, self._now_s, day=day.day, rows=day.rows, size=day.size)

    def _save(self) -> None:
        day = _Day(day=self._quota.day, rows=self._quota.rows, size=self._quota.size)
        write_atomic(self._folder / "day.json", wire.encode_json(day), mode=0o600)
