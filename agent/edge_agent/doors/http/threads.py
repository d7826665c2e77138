"""Requests whose model takes long are answered in threads, each in its turn or not at all.

Guards: they never hold up other requests; more work than can be done is turned away at once, see
``edge_agent.overload``.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable

from edge_agent.desk import Desk
from edge_agent.doors.http.exchange import Request, Response
from edge_agent.doors.http.faults import Away, fault_of
from edge_agent.overload import Counts, Reason, Rules, Waiting


class Threads:
    """They, and the line before them. In the loop.

    Args:
        threads: so many. rules: for what waits for one.
    """

    def __init__(self, rules: Rules, threads: int) -> None:
        self._desk = Desk("http-model", rules, threads)

    @property
    def counts(self) -> Counts:
        """What waits, runs, and was turned away."""
        return self._desk.counts

    def close(self) -> None:
        """Let go of the threads."""
        self._desk.stop(0)

    async def answer(
        self, model: str, request: Request, work: Callable[[], Response], timeout_s: float = 0.0
    ) -> Response:
        """Do the work in its turn, or say that it was not done.

        Never raises for what the work raises. ``timeout_s``: the client waits so long; 0: for ever.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Response] = loop.create_future()

        def settle(response: Response) -> None:
            if not answer.done():
                answer.set_result(response)

        def serve() -> None:
            if answer.cancelled():
                return  # the client is gone
            try:
                response = work()
            except Exception as error:  # noqa: BLE001 - as in ``Api.handle``
                response = fault_of(error)
            with contextlib.suppress(RuntimeError):  # the door was closed meanwhile
                loop.call_soon_threadsafe(settle, response)

        def turned_away(reason: Reason) -> None:
            response = fault_of(Away(reason, self._desk.retry_s(model)))
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, response)

        deadline_s = time.monotonic() + timeout_s if timeout_s else math.inf
        self._desk.submit(Waiting(model, serve, turned_away, deadline_s, len(request.body)))
        return await answer
