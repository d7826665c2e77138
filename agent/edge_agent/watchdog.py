"""Is this agent alive? Requests that never end are ended; the service manager hears of the rest.

Guards: the service manager is told "alive" only while the loop decides and every model answers:
a run of golden inputs through each model that answers, and no request that is under way too long.
What cannot be ended silences the watchdog, and systemd starts the agent anew; a version on trial
has used up an attempt then.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping

from edge_agent.live import Live
from edge_agent.loop import Loop
from edge_agent.notify import Notifier
from edge_contract.errors import EdgeError

log = logging.getLogger(__name__)

_EVERY_MAX_S = 5.0
_STOP_S = 1.0


class Watchdog:
    """A thread that looks at the loop and the models, and says what it saw.

    Args:
        loop: answers a beat when it is alive.
        models: what answers, by name; looked up at each round.
        notifier: who is told.
        stall_s: a request that is under way for longer is ended.
        now: a clock that never jumps, in seconds.
    """

    def __init__(
        self,
        loop: Loop,
        models: Mapping[str, Live],
        notifier: Notifier,
        *,
        stall_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._models = models
        self._notifier = notifier
        self._stall_s = stall_s
        self._now = now
        asked = notifier.watchdog_s / 3 if notifier.watchdog_s else _EVERY_MAX_S
        self._every_s = min(asked, stall_s / 2, _EVERY_MAX_S)
        self._limit_s = stall_s + 2 * self._every_s
        self._beat_s = now()
        self._beating = False
        self._probe_s: float | None = None
        self._said = ""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edge-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._beat_s = self._now()
        self._thread.start()

    def stop(self) -> None:
        """Look no more. May be called twice, and without a start."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._ending.wait(self._every_s):
            try:
                self.look()
            except Exception:  # a bug must be seen; without a word systemd starts the agent anew
                log.exception("unexpected error of the watchdog")

    def look(self) -> str:
        """One round: end what is stuck, probe, tell; what is wrong, or ""."""
        now_s = self._now()
        for name, seat in list(self._models.items()):
            if seat.end_stalled(now_s, self._stall_s):
                log.error("%s: a request took over %g s and is ended", name, self._stall_s)
        self._beat()
        if self._notifier.watchdog_s:
            self._probe()
        wrong = self._wrong(self._now())
        text = f"stuck: {wrong}" if wrong else self._answering()
        if text != self._said:
            self._said = text
            if wrong:
                log.error("the watchdog is not told that all is well: %s", wrong)
            self._notifier.status(text)
        if not wrong and self._notifier.watchdog_s:
            self._notifier.alive()
        return wrong

    def _answering(self) -> str:
        """What answers, in words."""
        models = {name: seat.model for name, seat in list(self._models.items())}
        answering = [f"{name} {m.manifest.version}" for name, m in models.items() if m is not None]
        return f"answering: {', '.join(answering) or 'nothing yet'}"

    def _wrong(self, now_s: float) -> str:
        """What is not alive, or ""."""
        if self._beating and now_s - self._beat_s > self._limit_s:
            return f"the loop has not answered for {now_s - self._beat_s:.0f} s"
        for name, seat in list(self._models.items()):
            oldest_s = seat.oldest_s(now_s)
            if oldest_s > self._limit_s:
                return f"a request to {name} has been under way for {oldest_s:.0f} s"
        begun = self._probe_s
        if begun is not None and now_s - begun > self._limit_s:
            return f"a probe of the models has been under way for {now_s - begun:.0f} s"
        return ""

    def _beat(self) -> None:
        """Ask the loop for a sign of life, unless it still owes one."""
        if self._beating:
            return
        self._beating, self._beat_s = True, self._now()

        def answered() -> None:
            self._beating = False

        self._loop.post(answered)

    def _probe(self) -> None:
        """Run golden inputs through every model in a thread, unless the last such still runs."""
        if self._probe_s is not None:
            return
        self._probe_s = self._now()
        threading.Thread(target=self._probe_all, name="edge-probe", daemon=True).start()

    def _probe_all(self) -> None:
        try:
            for seat in list(self._models.values()):
                if seat.model is not None:
                    with contextlib.suppress(EdgeError), seat.use() as model:
                        model.probe()
        except Exception:
            log.exception("unexpected error while probing; the agent goes on")
        finally:
            self._probe_s = None
