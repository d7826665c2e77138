"""Threads that work off the requests of a door, by the one rule of ``edge_agent.overload``.

Guards: a request that fails in an unforeseen way silences no thread; after ``stop`` nobody waits
for an answer that does not come.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from edge_agent.overload import RETRY_MAX_S, Away, Counts, Queue, Reason, Rules, Waiting

log = logging.getLogger(__name__)


class Desk:
    """Threads that work off a ``Queue``. Any thread may call any method.

    Args:
        name: of its threads. now_s: the monotonic clock.
    """

    def __init__(
        self,
        name: str,
        rules: Rules,
        threads: int = 1,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = rules
        self._now_s = now_s
        self._queue = Queue(rules, threads)
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{at}", daemon=True)
            for at in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def counts(self) -> Counts:
        """At this moment."""
        with self._changed:
            return self._queue.counts

    def submit(self, new: Waiting) -> None:
        """Have it worked off in its turn, or turned away: now, by this thread, or later."""
        with self._changed:
            if self._stopping:
                away: Away = [(new, Reason.STOPPING)]
            else:
                away = self._queue.offer(new, self._now_s())
                self._changed.notify()
        _tell(away)

    def retry_s(self, model: str) -> int:
        """After how many whole seconds it is worth asking again."""
        with self._changed:
            return min(max(math.ceil(self._queue.wait_s(model)), 1), RETRY_MAX_S)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Finish what is under way, turn the rest away, end the threads."""
        with self._changed:
            self._stopping = True
            away = self._queue.clear(Reason.STOPPING)
            self._changed.notify_all()
        _tell(away)
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(deadline_s - time.monotonic(), 0))

    def _serve(self) -> None:
        while True:
            with self._changed:
                taken, late = self._queue.take(self._now_s())
                while taken is None and not late and not self._stopping:
                    self._changed.wait()
                    taken, late = self._queue.take(self._now_s())
            _tell(late)
            if taken is not None:
                self._work(taken)
            elif not late:
                return

    def _work(self, taken: Waiting) -> None:
        begin_s = self._now_s()
        try:
            taken.work()
        except Exception:
            log.exception("a request of %s could not be answered", taken.model)
        with self._changed:
            self._queue.done(taken.model, self._now_s() - begin_s)
            self._changed.notify()  # its model may have been at its limit


def _tell(away: Away) -> None:
    for who, reason in away:
        try:
            who.turned_away(reason)
        except Exception:
            log.exception("a request of %s could not be turned away", who.model)
