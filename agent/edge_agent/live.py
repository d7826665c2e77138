"""The model that answers under a name, replaced in one step while requests go on.

Guards: no request fails or waits because of a swap; each request is answered wholly by one
version; the memory of the old version goes back as soon as its last request returned; a request
that never returns is known by its age, and can be ended.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge_agent.model import Model
from edge_agent.outputs import Prediction
from edge_agent.runtime import trim_memory
from edge_contract.errors import MachineFault

log = logging.getLogger(__name__)


class _Place:
    """One model in the live seat, and the requests that are with it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.since: dict[object, float] = {}
        """When each request that is under way began, by the monotonic clock."""
        self.stalled = 0
        self.retired = False
        self.on_left: Callable[[Model], None] | None = None


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
        self._leaving: list[_Place] = []

    @property
    def model(self) -> Model | None:
        """The current model. It may be closed once another took its place: see ``use``."""
        place = self._place
        return place.model if place is not None else None

    @contextmanager
    def use(self) -> Iterator[Model]:
        """The current model, kept open until the end of the ``with``.

        Raises MachineFault when there is none.
        """
        with self._lock:
            place = self._place
            if place is None:
                raise MachineFault(
                    f"model {self.name!r} is not installed",
                    advice="Publish a version on this device's channel.",
                )
            request = object()
            place.since[request] = time.monotonic()
        try:
            yield place.model
        finally:
            self._leave(place, request)

    def predict(self, rows: object) -> Prediction | list[Prediction]:
        """As ``Model.predict``, by the current model."""
        with self.use() as model:
            return model.predict(rows)

    async def apredict(self, rows: object) -> Prediction | list[Prediction]:
        """As ``predict``, without holding up the event loop."""
        return await asyncio.to_thread(self.predict, rows)

    def swap(
        self, new: Model | None, *, on_left: Callable[[Model], None] | None = None
    ) -> Model | None:
        """Put ``new`` in the old one's place, once ``new`` has answered its own golden inputs.

        Args:
            new: what answers from now on; None: nothing.
            on_left: called with the old model when its last request returned and it was closed;
                by this thread, or by the one that was the last to leave.

        Returns the old model, or None. Raises MachineFault when ``new`` cannot answer; then
        nothing changed.
        """
        if new is not None:
            warm_up(new)
        with self._lock:
            old, self._place = self._place, _Place(new) if new is not None else None
            if old is None:
                return None
            old.on_left = on_left
            old.retired = True
            left = not old.since
            if not left:
                self._leaving.append(old)
        if new is not None:
            log.info("%s: %s took over", self.name, new.manifest.version)
        if left:
            self._retire(old)
        return old.model

    def oldest_s(self, now_s: float) -> float:
        """How long the oldest request has been under way, with the model now or one before it.

        Args:
            now_s: of ``time.monotonic``.
        """
        with self._lock:
            return max((now_s - since for since in self._under_way()), default=0.0)

    def end_stalled(self, now_s: float, stall_s: float) -> int:
        """End the runs of each model that has a request older than ``stall_s``; how many have.

        A run in ONNX Runtime ends between two operators; its request, and any other that is in
        that model at this moment, fails with MachineFault. Later requests are answered.
        """
        with self._lock:
            places = [*self._leaving, *([self._place] if self._place else [])]
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

    def _under_way(self) -> Iterator[float]:
        for place in (*self._leaving, self._place):
            if place is not None:
                yield from place.since.values()

    def _leave(self, place: _Place, request: object) -> None:
        with self._lock:
            del place.since[request]
            left = place.retired and not place.since
            if left:
                self._leaving.remove(place)
        if left:
            self._retire(place)

    def _retire(self, place: _Place) -> None:
        place.model.close()
        if place.on_left is not None:
            place.on_left(place.model)
        trim_memory()


def warm_up(model: Model) -> float:
    """Run the golden inputs once, so that no request pays for first-time work; the seconds.

    Raises MachineFault when the model cannot run them. What they answer is not judged here.
    """
    begin = time.perf_counter()
    if model.golden is not None:
        model.check_golden()
    return time.perf_counter() - begin
