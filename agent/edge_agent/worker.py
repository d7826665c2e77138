"""A thread for one kind of long work, one piece after the other.

A daemon thread: what a process that ends cuts off here was written to survive that.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

Work = Callable[[], object]


class Worker:
    """Does what is submitted, in order. Any thread may call any method."""

    def __init__(self, name: str) -> None:
        self._waiting: deque[Work] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> None:
        """Do ``work`` when its turn comes; after ``stop``, never."""
        with self._changed:
            if not self._ending:
                self._waiting.append(work)
                self._changed.notify()

    def drain(self) -> None:
        """Wait until everything submitted so far is done."""
        done = threading.Event()
        self.submit(done.set)
        done.wait()

    def stop(self, timeout_s: float) -> bool:
        """Begin nothing more; wait for what is under way; whether it ended in time."""
        with self._changed:
            self._ending = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ending:
                    self._changed.wait()
                if not self._waiting:
                    return
                work = self._waiting.popleft()
            try:
                work()
            except Exception:  # a bug must be seen, and must not end the thread
                log.exception("unexpected error; the agent goes on")
