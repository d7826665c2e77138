"""The agent's own connection: who it is, that it is alive, what it runs, what happened.

Guards: birth and last will carry the same boot number; what is retained is said again at every
connect, since brokers lose retained messages; an event leaves the outbox only after a PUBACK that
does not say that nobody listens.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.config import Config
from edge_agent.outbox import Outbox
from edge_agent.twin import Twins
from edge_contract import messages
from edge_contract.errors import EdgeError, InputFault, PeerFault
from edge_contract.messages import Event, Reported, Status
from edge_contract.ports.mqtt import FILTERS_MAX, Link, LinkConfig, Message, Ticket

log = logging.getLogger(__name__)

SESSION_EXPIRY_S = 7 * 86400
WILL_DELAY_S = 30
"""A device that reconnects within this was never reported as gone."""
GOODBYE_S = 2.0
UNHEARD_S = 900.0
"""So long after an event that nobody listened to, one of those that wait is tried again."""


class Uplink:
    """Publishes for one device. Any thread may call any method.

    Args:
        on_message: gets what arrives on ``filters``, in the network thread.
        on_up, on_down: the broker came, the broker went; in the network thread.
        on_twin: another agent under this name was met; in the network thread, once an hour.
        on_trouble: the broker refuses what this side needs; in the network thread.
        run, machine: this run's number, and the hardware's fingerprint.
        clock_s: seconds that never jump.
    """

    def __init__(
        self,
        config: Config,
        *,
        boot: int,
        version: str,
        outbox: Outbox,
        on_message: Callable[[Message], None],
        on_up: Callable[[], None],
        on_down: Callable[[str], None],
        on_twin: Callable[[str], None] = lambda _: None,
        on_trouble: Callable[[EdgeError], None] = lambda _: None,
        run: str = "",
        machine: str = "",
        rng: random.Random | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock_s = clock_s
        self._topics = config.topics
        self._device = config.agent.device
        self._boot = boot
        self._version = version
        self._outbox = outbox
        self._sending: set[Path] = set()
        self._claiming = threading.Lock()
        self._unheard_until_s: float | None = None
        self._machine = machine
        self._twins = Twins(run or secrets.token_hex(8))
        self._rng = rng or random.Random()  # noqa: S311 - spreads two agents in time
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._on_twin = on_twin
        self._on_trouble = on_trouble
        self.filters: list[str] = []
        self._status = self._topics.status(self._device)
        gone = messages.encode(self._birth(online=False))
        self.link = Link(
            LinkConfig(
                broker=config.broker_url,
                client_id=self._device,
                session_expiry_s=SESSION_EXPIRY_S,
                will=Message(self._status, gone, qos=1, retain=True),
                will_delay_s=WILL_DELAY_S,
                keepalive_s=config.broker.keepalive_s,
                ca_file=config.broker.ca,
                cert_file=config.broker.cert,
                key_file=config.broker.key,
            ),
            on_message=self._received,
            on_up=self._came,
            on_down=self._went,
            on_refused=self._refused,
        )

    @property
    def up(self) -> bool:
        """Connected at this moment."""
        return self.link.up

    @property
    def twin(self) -> str:
        """What is known of another agent under this name; "" when there was none of late."""
        return self._twins.describe(self._clock_s())

    def start(self) -> None:
        """Connect, and go on trying for as long as it takes."""
        self.link.start()

    def stop(self) -> None:
        """Say goodbye, when there is anybody to hear it, and end."""
        if self.up:
            try:
                self._say_status(online=False).wait(GOODBYE_S)
            except PeerFault as error:
                log.warning("no goodbye: %s", error.what)
        self.link.stop()

    def report(self, reported: Reported) -> None:
        """Replace the retained report. Off line nothing is queued: connecting reports anew."""
        if self.up:
            topic = self._topics.reported(self._device)
            ticket = self.link.publish(topic, messages.encode(reported), retain=True)
            self._watch(ticket, "this device's report")
            self.flush()

    def tell(self, event: Event) -> None:
        """Send an event, now or when the broker is back, in this life or a later one."""
        payload = messages.encode(event)
        path = self._outbox.add(event.boot, event.seq, payload)
        if self.up:
            self._send(path, payload)

    def flush(self) -> None:
        """Send the events that wait; one of them, now and then, while nobody listens."""
        unheard_until_s = self._unheard_until_s
        if unheard_until_s is not None and self._clock_s() < unheard_until_s:
            return
        waiting = [path for path in self._outbox.waiting() if path not in self._sending]
        for path in waiting if unheard_until_s is None else waiting[:1]:
            self._send(path)

    def _came(self, _session_present: bool) -> None:
        filters = [*self.filters, self._status]
        for i in range(0, len(filters), FILTERS_MAX):
            some = filters[i : i + FILTERS_MAX]
            self._watch(self.link.subscribe(some), f"to subscribe to {', '.join(some)}")
        self._watch(self._say_status(online=True), "this device's status")
        self._sending.clear()
        if self._unheard_until_s is not None:
            self._unheard_until_s = 0.0
        self._on_up()

    def _went(self, reason: str) -> None:
        now_s = self._clock_s()
        first = self._twins.dropped(reason, now_s)
        self.link.hold_s = self._twins.hold_s(now_s, self._rng)
        if first:
            self._on_twin(self.twin)
        self._on_down(reason)

    def _refused(self, reason: str) -> None:
        self._on_trouble(
            PeerFault(
                f"the broker refuses this device: {reason}",
                advice="Check its user, password or certificate, and its right to its own status.",
            )
        )

    def _received(self, message: Message) -> None:
        """What is on this device's own status is for this class, all else is passed on."""
        if message.topic != self._status:
            self._on_message(message)
            return
        try:
            status = messages.decode(message.payload, Status)
        except InputFault as error:
            log.warning("not a status on %s: %s", message.topic, error.what)
            return
        if self._twins.heard(status, self._clock_s()):
            self._on_twin(self.twin)

    def _watch(self, ticket: Ticket, what: str) -> None:
        """Say it when the broker refuses; that a connection was lost is no news here."""

        def answered(accepted: bool) -> None:
            if not accepted and self.up:
                self._on_trouble(
                    PeerFault(
                        f"the broker refuses {what}: {ticket.error}",
                        advice="Check this account's rights: edge-pack broker-acl writes them.",
                    )
                )

        ticket.then(answered)

    def _birth(self, *, online: bool) -> Status:
        return Status(
            online=online,
            boot=self._boot,
            agent=self._version,
            run=self._twins.run,
            machine=self._machine,
        )

    def _say_status(self, *, online: bool) -> Ticket:
        status = self._birth(online=online)
        return self.link.publish(self._status, messages.encode(status), retain=True)

    def _send(self, path: Path, fresh: bytes | None = None) -> None:
        """Send it, unless it is on its way; it is as long as its file is there.

        ``fresh``: sent even if the disk did not take it.
        """
        with self._claiming:
            if path in self._sending:
                return
            self._sending.add(path)
        payload = fresh if fresh is not None else self._outbox.read(path)
        if payload is None:
            self._sending.discard(path)
            return

        def answered(accepted: bool) -> None:
            heard_again = False
            if ticket.unheard:
                self._unheard_until_s = self._clock_s() + UNHEARD_S
            elif accepted:
                self._outbox.done(path)
                heard_again, self._unheard_until_s = self._unheard_until_s is not None, None
            self._sending.discard(path)
            if heard_again:
                self.flush()

        ticket = self.link.publish(self._topics.events(self._device), payload)
        ticket.then(answered)
        self._watch(ticket, "an event")
