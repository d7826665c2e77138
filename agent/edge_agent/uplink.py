"""The agent's own connection: who it is, that it is alive, what it runs, what happened.

Guards: birth and last will carry the same boot number; what is retained is said again at every
connect, since brokers lose retained messages; an event leaves the outbox only after its PUBACK.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from edge_agent.config import Config
from edge_agent.outbox import Outbox
from edge_contract import messages
from edge_contract.errors import PeerFault
from edge_contract.messages import Event, Reported, Status
from edge_contract.ports.mqtt import FILTERS_MAX, Link, LinkConfig, Message, Ticket

log = logging.getLogger(__name__)

SESSION_EXPIRY_S = 7 * 86400
WILL_DELAY_S = 30
"""A device that reconnects within this was never reported as gone."""
GOODBYE_S = 2.0


class Uplink:
    """Publishes for one device. Any thread may call any method.

    Args:
        on_message: gets what arrives on ``filters``, in the network thread.
        on_up, on_down: the broker came, the broker went; in the network thread.
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
    ) -> None:
        self._topics = config.topics
        self._device = config.agent.device
        self._boot = boot
        self._version = version
        self._outbox = outbox
        self._sending: set[Path] = set()
        self._on_up = on_up
        self.filters: list[str] = []
        status = self._topics.status(self._device)
        gone = messages.encode(Status(online=False, boot=boot, agent=version))
        self.link = Link(
            LinkConfig(
                broker=config.broker_url,
                client_id=self._device,
                session_expiry_s=SESSION_EXPIRY_S,
                will=Message(status, gone, qos=1, retain=True),
                will_delay_s=WILL_DELAY_S,
                ca_file=config.broker.ca,
                cert_file=config.broker.cert,
                key_file=config.broker.key,
            ),
            on_message=on_message,
            on_up=self._came,
            on_down=on_down,
        )

    @property
    def up(self) -> bool:
        """Connected at this moment."""
        return self.link.up

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
            self.link.publish(topic, messages.encode(reported), retain=True)

    def tell(self, event: Event) -> None:
        """Send an event, now or when the broker is back, in this life or a later one."""
        path = self._outbox.add(event.boot, event.seq, messages.encode(event))
        if self.up:
            self._send(path)

    def flush(self) -> None:
        """Send the events that wait."""
        for path in self._outbox.waiting():
            if path not in self._sending:
                self._send(path)

    def _came(self, _session_present: bool) -> None:
        for i in range(0, len(self.filters), FILTERS_MAX):
            self.link.subscribe(self.filters[i : i + FILTERS_MAX])
        self._say_status(online=True)
        self._sending.clear()
        self._on_up()

    def _say_status(self, *, online: bool) -> Ticket:
        status = Status(online=online, boot=self._boot, agent=self._version)
        topic = self._topics.status(self._device)
        return self.link.publish(topic, messages.encode(status), retain=True)

    def _send(self, path: Path) -> None:
        payload = self._outbox.read(path)
        if payload is None:
            return
        self._sending.add(path)

        def answered(accepted: bool) -> None:
            if accepted:
                self._outbox.done(path)
            self._sending.discard(path)

        self.link.publish(self._topics.events(self._device), payload).then(answered)
