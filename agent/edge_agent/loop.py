"""One thread in which all of the agent's decisions are made, one after the other.

Other threads (network, downloads, tests, loading) only post to it, so that no state needs a lock
and no decision sees a half-made one. What is posted must be quick.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from edge_contract.errors import EdgeError, MachineFault

log = logging.getLogger(__name__)

T = TypeVar("T")
Call = Callable[[], object]


class Timer:
    """A call that is due; ``cancel`` may be called from any thread, any number of times."""

    def __init__(self, call: Call) -> None:
        self._call: Call | None = call

    def cancel(self) -> None:
        """Do not make the call."""
        self._call = None

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


class Loop:
    """Runs what is posted, in order, and timers when they are due (monotonic clock)."""

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._wake = threading.Condition()
        self._due: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._ending = False

    def start(self) -> None:
        """Begin to run what is posted."""
        self._thread.start()

    def stop(self) -> None:
        """Run what is due already, then end. What is posted later is dropped."""
        with self._wake:
            self._ending = True
            self._wake.notify()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def post(self, call: Call) -> None:
        """Run ``call`` soon. From any thread."""
        self.later(0.0, call)

    def later(self, delay_s: float, call: Call) -> Timer:
        """Run ``call`` once ``delay_s`` have passed. From any thread."""
        timer = Timer(call)
        with self._wake:
            if not self._ending:
                due = time.monotonic() + max(delay_s, 0.0) if delay_s > 0 else 0.0
                heapq.heappush(self._due, (due, next(self._order), timer))
                self._wake.notify()
        return timer

    def every(self, period_s: float, *calls: Call) -> None:
        """Run ``calls`` soon, and again and again ``period_s`` later. From any thread.

        What one raises hinders neither the others nor its own next run, and is said once, until
        it went well or failed in another way.
        """
        guarded = [_saying_once(call) for call in calls]

        def again() -> None:
            for call in guarded:
                self.post(call)
            self.later(period_s, again)

        self.post(again)

    def ask(self, call: Callable[[], T]) -> T:
        """The result of ``call``, made in the loop. Never from within the loop.

        Raises what ``call`` raises, and MachineFault when the loop has ended.
        """
        future: Future[T] = Future()

        def answer() -> None:
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - handed to whoever asked
                future.set_exception(error)

        with self._wake:
            if self._ending:
                raise MachineFault("the agent has stopped")
            heapq.heappush(self._due, (0.0, next(self._order), Timer(answer)))
            self._wake.notify()
        return future.result()

    def _run(self) -> None:
        while (timer := self._next()) is not None:
            try:
                timer()
            except EdgeError as error:
                log.error("%s", error.what)  # noqa: TRY400 - a fault, not a bug: no traceback
            except Exception:  # a bug must be seen, and must not stop the model from answering
                log.exception("unexpected error; the agent goes on")

    def _next(self) -> Timer | None:
        with self._wake:
            while True:
                wait_s = self._due[0][0] - time.monotonic() if self._due else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._due)[2]
                if self._ending:
                    return None
                self._wake.wait(wait_s)


def _saying_once(call: Call) -> Call:
    """``call``, but for an error that it raised the last time as well."""
    said = ""

    def run() -> None:
        nonlocal said
        try:
            call()
        except Exception as error:
            before, said = said, repr(error)
            if said != before:
                raise
        else:
            said = ""

    return run
