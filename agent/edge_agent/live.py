"""The model that answers under a name, replaced in one step while requests go on.

Guards: no request fails or waits because of a swap; each request is answered wholly by one
version; the memory of the old version goes back as soon as its last request returned; a request
that never returns is known by its age, and can be ended.

Further versions may be loaded beside the one that answers: the former one, a candidate. They are
asked by their version only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from edge_agent import loading, tap
from edge_agent.model import Model
from edge_agent.outputs import Prediction
from edge_agent.runtime import trim_memory
from edge_agent.split import Split
from edge_contract.errors import InputFault, MachineFault

log = logging.getLogger(__name__)


class NoSuchVersion(InputFault):
    """A version was asked for by name that is not loaded."""


class _Place:
    """One model in memory, and the requests that are with it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.since: dict[object, float] = {}
        """When each request that is under way began, by the monotonic clock."""
        self.stalled = 0
        self.retired = False
        self.on_left: Callable[[Model], None] | None = None


class _Visit(AbstractContextManager["Model"]):
    """One request with a model; a third of what a generator's ``with`` costs."""

    __slots__ = ("_place", "_seat", "_strict", "_version")

    def __init__(self, seat: Live, version: str, *, strict: bool = True) -> None:
        self._seat = seat
        self._version = version
        self._strict = strict

    def __enter__(self) -> Model:
        seat = self._seat
        with seat._lock:
            place = seat._place
            if place is None or self._version:
                place = seat._asked(self._version, self._strict)
            place.since[self] = time.monotonic()
        self._place = place
        return place.model

    def __exit__(self, *_raised: object) -> None:
        seat, place = self._seat, self._place
        with seat._lock:
            del place.since[self]
            left = place.retired and not place.since
            if left:
                seat._leaving.remove(place)
        if left:
            seat._retire(place)


class Live:
    """Holds the current model of a name. Thread-safe.

    Args:
        name: the model's name, as topics and paths use it.
        model: what answers at first; None: nothing yet.
    """

    def __init__(self, name: str, model: Model | None = None) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._place = _Place(model) if model is not None else None
        self._beside: dict[str, _Place] = {}
        """By digest, the newest last."""
        self._leaving: list[_Place] = []
        self.split: Split | None = None
        """Which requests go to a version beside, where one answers a share."""

    @property
    def model(self) -> Model | None:
        """The current model. It may be closed once another took its place: see ``use``."""
        place = self._place
        return place.model if place is not None else None

    @property
    def loaded(self) -> Mapping[str, Model]:
        """What can be asked, by its version: the one that answers first, then those beside it."""
        found: dict[str, Model] = {}
        for place in self._askable():
            found.setdefault(place.model.manifest.version, place.model)
        return found

    def loaded_as(self, sha256: str) -> Model | None:
        """The model with this digest, whether it answers or is beside what does, or None."""
        models = (place.model for place in self._askable())
        return next((model for model in models if model.digest == sha256), None)

    def use(self, version: str = "", key: str = "") -> AbstractContextManager[Model]:
        """The current model, or the loaded one of ``version``, kept open until the ``with`` ends.

        ``key``: where a candidate answers a share, one key always meets the same side.

        Raises MachineFault when there is none, NoSuchVersion when ``version`` is not loaded.
        """
        split = self.split
        if split is None or version:
            return _Visit(self, version)
        return self._choose(split, key)

    @contextmanager
    def _choose(self, split: Split, key: str) -> Iterator[Model]:
        version = split.version_for(key)
        with split.watching(version), _Visit(self, version, strict=False) as model:
            yield model

    def _asked(self, version: str, strict: bool) -> _Place:
        """What answers a request for ``version``; the lock is held."""
        place = self._place
        if version and (place is None or place.model.manifest.version != version):
            place = self._of_version(version) if strict else self._find(version) or place
        if place is None:
            raise MachineFault(
                f"model {self.name!r} is not installed",
                advice="Publish a version on this device's channel.",
            )
        return place

    def predict(
        self, rows: object, version: str = "", key: str = ""
    ) -> Prediction | list[Prediction]:
        """As ``Model.predict``; version and key as for ``use``."""
        with self.use(version, key) as model:
            return tap.predict(model, rows)

    async def apredict(self, rows: object, version: str = "") -> Prediction | list[Prediction]:
        """As ``predict``, without holding up the event loop."""
        import asyncio  # noqa: PLC0415 - as in edge_agent.model

        return await asyncio.to_thread(self.predict, rows, version)

    def swap(
        self,
        new: Model | None,
        *,
        on_left: Callable[[Model], None] | None = None,
        keep: bool = False,
        warm: bool = False,
    ) -> Model | None:
        """Put ``new`` in the old one's place, once ``new`` has answered one of its golden inputs.

        Args:
            new: what answers from now on, maybe one that is beside; None: nothing.
            on_left: called with the old model when its last request returned and it was closed;
                by this thread, or by the one that was the last to leave.
            keep: the old one stays loaded, beside.
            warm: ``new`` has answered already, see ``warm``.

        Returns the old model, or None. Raises MachineFault when ``new`` cannot answer; then
        nothing changed.
        """
        if new is not None and not warm:
            self.warm(new)
        place = self._place_beside(new) if new is not None else None
        if new is not None and place is None:
            place = _Place(new)
        with self._lock:
            old, self._place = self._place, place
            if new is not None and self._beside.get(new.digest) is place:
                del self._beside[new.digest]
            if place is not None:
                place.stalled = 0
            if old is None:
                return None
            if keep:
                self._beside[old.model.digest] = old
            left = not keep and self._leaves(old, on_left)
        if new is not None:
            log.info("%s: %s took over", self.name, new.manifest.version)
        if left:
            self._retire(old)
        return old.model

    def warm(self, model: Model) -> None:
        """Have ``model`` answer one of its golden inputs, unless it is beside and has done so.

        It takes as long as the model does; requests that are answered meanwhile come first.
        Raises MachineFault when it cannot answer.
        """
        if self._place_beside(model) is not None:
            return
        if self._place is not None:
            loading.gently(lambda: warm_up(model))
        else:
            warm_up(model)

    def put_beside(self, model: Model, *, warm: bool = False) -> None:
        """Let ``model`` be asked by its version, once it has answered one of its golden inputs.

        ``warm``: as for ``swap``. Raises MachineFault when it cannot answer; InputFault when it is
        loaded already.
        """
        if not warm:
            self.warm(model)
        with self._lock:
            if self.loaded_as(model.digest) is not None:
                raise InputFault(f"{self.name} {model.manifest.version} is loaded already")
            self._beside[model.digest] = _Place(model)
        log.info("%s: %s is loaded beside", self.name, model.manifest.version)

    def take_away(
        self, sha256: str, *, on_left: Callable[[Model], None] | None = None
    ) -> Model | None:
        """Let go of what is beside with this digest; ``on_left`` as for ``swap``.

        Returns it, or None when nothing beside has the digest.
        """
        with self._lock:
            place = self._beside.pop(sha256, None)
            if place is None:
                return None
            left = self._leaves(place, on_left)
        if left:
            self._retire(place)
        return place.model

    def oldest_s(self, now_s: float) -> float:
        """How long the oldest request has been under way, with any version.

        Args:
            now_s: of ``time.monotonic``.
        """
        with self._lock:
            since = (since for place in self._places() for since in place.since.values())
            return max((now_s - each for each in since), default=0.0)

    def end_stalled(self, now_s: float, stall_s: float) -> int:
        """End the runs of each model that has a request older than ``stall_s``; how many have.

        A run in ONNX Runtime ends between two operators; its request, and any other that is in
        that model at this moment, fails with MachineFault. Later requests are answered.
        """
        with self._lock:
            places = self._places()
            stuck = [p for p in places if any(now_s - s > stall_s for s in p.since.values())]
            for place in stuck:
                place.stalled += 1
        for place in stuck:
            place.model.interrupt()
        return len(stuck)

    @property
    def stalled(self) -> int:
        """How often the current model had to be interrupted since it was put in place."""
        place = self._place
        return place.stalled if place is not None else 0

    def _place_beside(self, model: Model) -> _Place | None:
        """Of this very model."""
        place = self._beside.get(model.digest)
        return place if place is not None and place.model is model else None

    def _askable(self) -> list[_Place]:
        """What answers, then what is beside, the newest first."""
        place, beside = self._place, list(self._beside.values())
        return [*([place] if place is not None else []), *reversed(beside)]

    def _places(self) -> list[_Place]:
        return [*self._leaving, *self._askable()]

    def _of_version(self, version: str) -> _Place:
        """The lock is held."""
        if place := self._find(version):
            return place
        known = ", ".join(self.loaded) or "none"
        raise NoSuchVersion(
            f"version {version[:80]!r} of {self.name!r} is not loaded on this device; "
            f"it has: {known}"
        )

    def _find(self, version: str) -> _Place | None:
        places = (p for p in self._askable() if p.model.manifest.version == version)
        return next(places, None)

    def _leaves(self, place: _Place, on_left: Callable[[Model], None] | None) -> bool:
        """Begin to let go of a place, with the lock held; whether nobody is with it."""
        place.on_left = on_left
        place.retired = True
        if place.since:
            self._leaving.append(place)
        return not place.since

    def _retire(self, place: _Place) -> None:
        place.model.close()
        if place.on_left is not None:
            place.on_left(place.model)
        trim_memory()


def warm_up(model: Model) -> float:
    """Run one golden input, so that no request pays for first-time work; the seconds.

    One row, not all of them: memory for the largest batch that ever ran stays with the session.
    Raises MachineFault when the model cannot run it. What it answers is not judged here.
    """
    begin = time.perf_counter()
    model.probe()
    return time.perf_counter() - begin
