"""What the agent says: to the fleet when something changed, to ``status.json`` for its owner.

Guards: every event has its own (boot, seq); progress of a download does not flood the broker;
what cannot be written or sent never stands in the way of an update.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from msgspec import UNSET
from msgspec.structs import replace

from edge_agent import report
from edge_agent.bindings.counts import BindingReport
from edge_agent.config import Config
from edge_agent.folder import Folder
from edge_agent.report import AgentStatus, PrivacyReport
from edge_agent.steps import State, Tell
from edge_agent.telemetry.recorder import Instant
from edge_agent.transfer import Transfer
from edge_contract import wire
from edge_contract.errors import EdgeError
from edge_contract.messages import (
    Calibrated,
    Event,
    Hardware,
    ModelReport,
    Reported,
    Room,
    Strain,
)
from edge_contract.ports.disk import TEMPORARY

log = logging.getLogger(__name__)

PROGRESS_S = 5.0
PROGRESS_SHARE = 0.01
PROGRESS_IDLE_S = 60.0
"""Progress of a fetch is published at most every 5 s, for less than a hundredth every 60 s."""
TOLD_WAITS = frozenset({"slot", "clock", "day"})
"""Waits that are an event; a start that is put off by chance is one of thousands."""
BESIDE_MAX_CHARS = 4_000
"""Of all models together, so that a report stays within its bound."""
STATUS_S = 1.0
"""``status.json`` is written at most this often, unless an update moved on."""


Freshness = Literal["verified", "unverified", "expired", "none"]


@dataclass(frozen=True)
class Facts:
    """What there is to say, as the agent's parts know it.

    Attributes:
        states, why, waits: of the updates; why nothing is wanted of a model; what it waits for.
        freshness, revision: of the signed metadata; of the newest ``desired``.
        factory: version of the factory's bundle that answers, by model.
        requests: rows answered and failed by what answers now, by model.
        spool_records, spool_bytes, events_waiting: what is not home yet.
        twin: what is known of another agent under this name. strain: heat, memory.
        bindings: what each did. beside: what is tried beside the active version, by model.
        privacy: what noise costs; None: counts leave without.
        calibrated: how labels put scores right, by model; where counts leave with noise, the fleet
            is not told.
        quality: what is wrong with the input, by model; "": with the device's clock.
        room: on the disk that its folder is on.
    """

    states: Mapping[str, State]
    why: Mapping[str, str]
    waits: Mapping[str, str]
    freshness: Freshness
    revision: int
    connected: bool
    factory: Mapping[str, str]
    requests: dict[str, tuple[int, int]]
    spool_records: int
    spool_bytes: int
    events_waiting: int
    twin: str = ""
    strain: Strain = field(default_factory=Strain)
    bindings: dict[str, BindingReport] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    privacy: PrivacyReport | None = None
    calibrated: Mapping[str, Calibrated] = field(default_factory=dict)
    quality: dict[str, tuple[str, ...]] = field(default_factory=dict)
    room: Room = field(default_factory=Room)


class Ears(Protocol):
    """Who hears it: what the voice needs of the uplink."""

    def report(self, reported: Reported) -> None:
        """Replace the retained report."""

    def tell(self, event: Event) -> None:
        """Send an event, now or later."""


class Voice:
    """The updater's listener. Every method: in the loop.

    Args:
        facts: asked for at each report. ears: who hears it.
        version: of the agent. now: this moment by both clocks.
    """

    def __init__(
        self,
        config: Config,
        folder: Folder,
        *,
        boot: int,
        version: str,
        hardware: Hardware,
        facts: Callable[[], Facts],
        ears: Ears,
        now: Callable[[], Instant],
    ) -> None:
        self._config = config
        self._folder = folder
        self._boot = boot
        self._version = version
        self._hardware = hardware
        self._facts = facts
        self._ears = ears
        self._now = now
        self._seq = 0
        self._transfers: dict[str, Transfer] = {}
        self._shares_said: dict[str, float] = {}
        self._last_error = ""
        self._last_about = ""
        self._last_error_ms = self._last_over_ms = 0
        self._report_due_s = 0.0
        self._status_due_s = 0.0

    # -- the updater's listener ----------------------------------------------------------------

    def changed(self, model: str, now: State) -> None:
        """Say at once what the model is at now."""
        if now.candidate is None or now.phase.value != "fetching":
            self._transfers.pop(model, None)
        self.publish()

    def told(self, model: str, tell: Tell) -> None:
        """Send an event home."""
        event = Event(
            boot=self._boot,
            seq=self._seq,
            at_ms=max(self._now().wall_ms, 0),
            kind=tell.kind,
            model=model,
            version=tell.version,
            detail=tell.detail,
            findings=tell.findings or UNSET,
        )
        self._seq += 1
        self._ears.tell(event)

    def progressed(self, model: str, transfer: Transfer) -> None:
        """Keep it for the next report; a wait is said at once, and told the fleet once."""
        before = self._transfers.get(model)
        self._transfers[model] = transfer
        if before is None or (before.version, before.wait) != (transfer.version, transfer.wait):
            if transfer.wait in TOLD_WAITS:
                self.told(model, Tell("waiting", transfer.version, transfer.text))
            self.publish()
            return
        now_s = self._now().monotonic_s
        moved = abs(transfer.share - self._shares_said.get(model, 0.0)) >= PROGRESS_SHARE
        due_s = PROGRESS_S if moved else PROGRESS_IDLE_S
        self._report_due_s = min(self._report_due_s, now_s + due_s)
        self._status_due_s = min(self._status_due_s, now_s + STATUS_S)

    def trouble(self, error: EdgeError, about: str = "") -> None:
        """Remember what went wrong, for whoever looks; ``about``: what ``over`` will name."""
        log.warning("%s", error.what)
        self._last_error, self._last_about = error.what[:4000], about
        self._last_error_ms, self._last_over_ms = max(self._now().wall_ms, 0), 0

    def over(self, about: str) -> None:
        """It works again: the last error is over, if it was about this."""
        if self._last_error and self._last_about == about and not self._last_over_ms:
            self._last_over_ms = max(self._now().wall_ms, 0)

    # -- saying --------------------------------------------------------------------------------

    def publish(self) -> None:
        """Say it now: to the fleet and on disk."""
        now, facts = self._now(), self._facts()
        self._report_due_s = now.monotonic_s + self._config.update.report_s
        self._shares_said = {name: each.share for name, each in self._transfers.items()}
        self._ears.report(
            Reported(
                boot=self._boot,
                at_ms=max(now.wall_ms, 0),
                agent=self._version,
                hardware=self._hardware,
                revision=facts.revision,
                freshness=facts.freshness,
                labels=self._config.agent.labels,
                models=self._models(facts, home=True),
                twin=facts.twin[:200],
                strain=facts.strain,
                channel=self._config.agent.channel,
                synchronised=now.synchronised,
                room=facts.room,
            )
        )
        self._write_status(now)

    def tick(self) -> None:
        """Say what is due."""
        now = self._now()
        if now.monotonic_s >= self._report_due_s:
            self.publish()
        elif now.monotonic_s >= self._status_due_s:
            self._write_status(now)

    def status(self, *, running: bool = True) -> AgentStatus:
        """The agent at this moment."""
        now, facts = self._now(), self._facts()
        identity = self._config.agent
        return AgentStatus(
            device=identity.device,
            fleet=identity.fleet,
            channel=identity.channel,
            running=running,
            pid=os.getpid() if running else 0,
            boot=self._boot,
            at_ms=max(now.wall_ms, 0),
            enrolled=True,
            connected=running and facts.connected,
            broker=str(self._config.broker_url),
            freshness=facts.freshness,
            revision=facts.revision,
            clock_synchronised=now.synchronised,
            models=self._models(facts),
            requests=facts.requests,
            spool_records=facts.spool_records,
            spool_bytes=facts.spool_bytes,
            events_waiting=facts.events_waiting,
            twin=facts.twin,
            strain=facts.strain,
            quality=facts.quality,
            bindings=facts.bindings,
            privacy=facts.privacy,
            last_error=self._last_error,
            last_error_ms=self._last_error_ms,
            last_error_over_ms=self._last_over_ms,
        )

    def farewell(self) -> None:
        """Leave word that the agent stopped in order."""
        write_status(self._folder.status, self.status(running=False))

    def _models(self, facts: Facts, *, home: bool = False) -> dict[str, ModelReport]:
        found = report.model_reports(
            facts.states, self._transfers, facts.why, facts.factory, facts.waits
        )
        room = max(BESIDE_MAX_CHARS // max(len(facts.beside), 1), 40)
        for name in found.keys() & facts.beside.keys():
            found[name] = replace(found[name], beside=facts.beside[name][: min(room, 200)])
        if not home or facts.privacy is None:
            for name in found.keys() & facts.calibrated.keys():
                found[name] = replace(found[name], calibration=facts.calibrated[name])
        return found

    def _write_status(self, now: Instant) -> None:
        said = self.status()
        moving = any(model.phase == "trial" for model in said.models.values())
        self._status_due_s = now.monotonic_s + (STATUS_S if moving else 10 * STATUS_S)
        write_status(self._folder.status, said)


def write_status(path: Path, status: AgentStatus) -> None:
    """Replace ``status.json`` in one step; without fsync, for it is worth nothing after a cut.

    A flash card would not take an fsync a second for long. What cannot be written is not.
    """
    data = wire.encode_json(status)
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(TEMPORARY, f".{path.name}.", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(data)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
