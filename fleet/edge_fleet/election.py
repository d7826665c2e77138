"""One process a store does a piece of work; others stand by, and one takes over when it ends.

Guards: what the work itself raises is never taken for another process's lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack

from edge_contract.errors import EdgeError, InputFault
from edge_fleet.store.base import Store

ELECTION_S = 1.0
"""Who stands by asks this often."""


def whenever_free(
    store: Store,
    ordinal: int,
    work: Callable[[Callable[[], None]], None],
    stop: threading.Event,
    *,
    log: logging.Logger,
    what: str,
    stands_by: Callable[[], None] = lambda: None,
    every_s: float = ELECTION_S,
    again_s: float = ELECTION_S,
) -> None:
    """Do ``work`` under the lock ``ordinal`` whenever it is free, until ``stop`` is set.

    Args:
        work: gets a check that raises MachineFault once the lock may be another's.
        log, what: where a failure of the work is told, and under which word.
        stands_by: called once each time that another process turns out to have the lock.
        every_s: between two questions for the lock. again_s: after a failure.
    """
    waits = False
    while not stop.is_set():
        pause_s = every_s
        try:
            with ExitStack() as stack:
                try:
                    held = stack.enter_context(store.lock(ordinal))
                except InputFault:
                    if not waits:
                        stands_by()
                    waits = True
                else:
                    waits = False
                    work(held)
        except EdgeError as error:
            pause_s = again_s
            log.warning("%s: %s; again in %.0f s", what, error.what, again_s)
        except Exception:
            pause_s = again_s
            log.exception("%s failed; again in %.0f s", what, again_s)
        stop.wait(pause_s)
