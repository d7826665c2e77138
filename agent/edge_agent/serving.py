"""The models that answer on this device, by name: loaded from verified slots, swapped in place.

Guards: a slot is compared byte by byte with its digest before it is loaded; a swap to what
answers already does nothing, and one to what is loaded beside it loads nothing; every request is
counted for the version that answered it, and what the version costs is measured while it answers.
"""

from __future__ import annotations

import logging
import threading
from collections import ChainMap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent import hardware, slot
from edge_agent.factory import Factory
from edge_agent.live import Live
from edge_agent.model import Model
from edge_agent.outputs import Prediction
from edge_agent.runtime import trim_memory
from edge_agent.selftest import Limits
from edge_agent.settings import Loading
from edge_agent.steps import Evidence
from edge_agent.telemetry import Recorder, Totals
from edge_agent.telemetry.recorder import Instant
from edge_contract.errors import EdgeError, InputFault

if TYPE_CHECKING:
    from edge_agent.ensemble import EnsembleSeat  # few agents have one

log = logging.getLogger(__name__)


class DamagedSlot(InputFault):
    """The slot's bytes are not what its name promises."""


class Serving:
    """One seat a model. Any thread may call any method.

    Args:
        recorder: counts what is answered.
        now: this moment by both clocks.
        limits: what a version may cost, besides what its manifest says.
        rss_bytes: resident memory of this process.
        loading: how a model of a name is kept in memory.
    """

    def __init__(
        self,
        recorder: Recorder,
        now: Callable[[], Instant],
        *,
        limits: Limits | None = None,
        rss_bytes: Callable[[], int] = hardware.rss_bytes,
        loading: Callable[[str], Loading] = lambda _: Loading(),
    ) -> None:
        self._recorder = recorder
        self._now = now
        self._limits = limits or Limits()
        self._rss_bytes = rss_bytes
        self._loading = loading
        self._formers: dict[str, set[str]] = {}
        """Digests of what was kept when another took its place."""
        self._factory: dict[str, str] = {}
        self._without: dict[str, int] = {}
        """This process's memory before each model was loaded, and what others gained since."""
        self._lock = threading.Lock()
        self._seats: dict[str, Live] = {}
        self._ensembles: dict[str, Live] = {}
        self._refits: list[Callable[[str], None]] = []

    def seat(self, name: str) -> Live:
        """The seat of ``name``, empty until something answers there."""
        with self._lock:
            return self._seats.setdefault(name, Live(name))

    @property
    def models(self) -> Mapping[str, Live]:
        """Every seat by its name; it grows while one looks."""
        return self._seats

    @property
    def answering(self) -> Mapping[str, Live]:
        """Every seat that can be asked by its name: the models', then the ensembles'."""
        return ChainMap(self._seats, self._ensembles)

    def join(self, ensemble: EnsembleSeat) -> None:
        """Let an ensemble of the models here be asked by its name."""
        self._ensembles[ensemble.name] = ensemble
        self._refits.append(ensemble.refit)

    def answer(self, name: str, folder: Path, sha256: str) -> None:
        """Let the slot ``sha256`` in ``folder`` answer under ``name``; the old one until then.

        Raises:
            DamagedSlot: its bytes on disk are not sound.
            InputFault, MachineFault: a sound slot cannot be loaded or cannot answer.
        """
        seat = self.seat(name)
        if seat.model is not None and seat.model.digest == sha256:
            return
        before = self._rss_bytes()
        keep, old = self._loading(name).keep_former, seat.model
        model = seat.loaded_as(sha256) or self._load(name, folder, sha256)
        self._recorder.swap(seat, model, self._now(), keep=keep)
        self._refit(name)
        if keep and old is not None:
            self._formers.setdefault(name, set()).add(old.digest)
        self._factory.pop(name, None)
        trim_memory()
        gained = self._rss_bytes() - before
        for other in self._without:
            self._without[other] += gained
        self._without[name] = before

    def beside(self, name: str, folder: Path, sha256: str) -> Model:
        """Have the slot ``sha256`` loaded beside what answers under ``name``, and counted.

        It is asked by its version, as ``seat.use(version)``, ``/v2/models/.../versions/...``, until
        ``dismiss``; ``answer`` with its digest puts it in the seat without a second load. What is
        loaded already is returned as it is. Only one thread at a time may load under a name.

        Raises as ``answer``; then nothing changed.
        """
        seat = self.seat(name)
        model = seat.loaded_as(sha256)
        if model is None:
            model = self._load(name, folder, sha256)
            self._recorder.put_beside(seat, model, self._now())
            trim_memory()
        return model

    def dismiss(self, name: str, sha256: str) -> None:
        """Let go of what is beside the one that answers, once its last request returned."""
        self._recorder.take_away(self.seat(name), sha256, self._now())

    def keeps_former(self, name: str) -> bool:
        """Whether the version before the one that answers stays loaded."""
        return self._loading(name).keep_former

    def keep_former(self, name: str, folder: Path, sha256: str) -> None:
        """Have the slot ``sha256`` loaded beside as the former version, "" for none, and no other.

        Raises as ``answer``, when it cannot be loaded; what answers goes on.
        """
        formers = self._formers.setdefault(name, set())
        for past in formers - {sha256}:
            self.dismiss(name, past)
        formers.intersection_update({sha256})
        if sha256 and self.seat(name).model is not None:
            self.beside(name, folder, sha256)
            formers.add(sha256)

    def _load(self, name: str, folder: Path, sha256: str) -> Model:
        try:
            slot.verify(folder, sha256)
        except InputFault as error:
            raise DamagedSlot(error.what) from error
        busy = any(seat.model is not None for seat in list(self._seats.values()))
        return Model.from_slot(folder, threads=self._loading(name).threads, gently=busy)

    def answer_by_factory(self, name: str, factory: Factory) -> bool:
        """Let the factory's bundle answer under ``name``; whether it does.

        It is loaded and has answered its golden inputs before anything else is let go.
        """
        seat = self.seat(name)
        if seat.model is not None and self._factory.get(name) == seat.model.digest:
            return True
        model = factory.load(name, threads=self._loading(name).threads)
        if model is None:
            return False
        try:
            self._recorder.swap(seat, model, self._now())
        except EdgeError as error:
            log.warning("%s: the factory's bundle does not answer: %s", name, error.what)
            return False
        finally:
            factory.ended()
        self._factory[name] = model.digest
        self._refit(name)
        log.warning("%s: the factory's %s answers", name, model.manifest.version)
        return True

    def _refit(self, name: str) -> None:
        """Another version answers: whether ensembles fit is said now, not when one is asked."""
        for refit in self._refits:
            refit(name)

    def factory_version(self, name: str) -> str:
        """The version of the factory's bundle when it answers under ``name``, else ""."""
        model = self.seat(name).model
        own = model is not None and self._factory.get(name) == model.digest
        return model.manifest.version if model is not None and own else ""

    def clear(self, name: str) -> None:
        """Let nothing answer under ``name``."""
        seat = self.seat(name)
        if seat.model is not None:
            self._recorder.swap(seat, None, self._now())
        for model in list(seat.loaded.values()):
            self.dismiss(name, model.digest)

    def seen(self, name: str) -> tuple[str, Totals]:
        """What answers under ``name`` ("" for nothing), and its requests since it was put there."""
        model = self.seat(name).model
        return (model.digest if model else ""), self._recorder.totals(name)

    def evidence(self, name: str, elapsed_s: float) -> Evidence | None:
        """What a trial of the version that answers under ``name`` has seen; None for nothing.

        Memory is what this process gained since before the load: too little by what the version
        before it gave back.
        """
        seat = self.seat(name)
        model, totals, stalled = seat.model, self._recorder.totals(name), seat.stalled
        if model is None:
            return None
        limits = self._limits.within(model.manifest.runtime)
        return Evidence(
            sha256=model.digest,
            requests=totals.answered + totals.failed,
            failures=totals.failed,
            elapsed_s=elapsed_s,
            slow=totals.slow,
            stalled=stalled,
            latency_p99_ms=self._recorder.latency_p99_ms(name),
            latency_limit_ms=limits.latency_max_ms,
            ram_bytes=max(self._rss_bytes() - self._without.get(name, 0), 0),
            ram_limit_bytes=limits.ram_bytes_max,
        )

    def predict(
        self, name: str, rows: object, version: str = "", key: str = ""
    ) -> Prediction | list[Prediction]:
        """As ``Model.predict``, by what answers under ``name`` now, or its loaded ``version``.

        Raises InputFault for a name that this device does not know, NoSuchVersion for a version
        that is not loaded.
        """
        with self._lock:
            seat = self._seats.get(name) or self._ensembles.get(name)
        if seat is None:
            known = ", ".join(sorted(self.answering)) or "none"
            raise InputFault(f"this device has no model {name!r}; it has: {known}")
        return seat.predict(rows, version, key)
