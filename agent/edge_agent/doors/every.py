"""Every way into a running agent: MQTT, HTTP, labels, bindings, a watched folder.

Guards: what the settings do not want is neither imported nor run; doors that cannot all be opened
leave none open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_agent import closing
from edge_agent.bindings.counts import BindingReport
from edge_agent.bindings.memo import Memo
from edge_agent.config import Config
from edge_agent.doors import httpd
from edge_agent.doors.labels import LabelDoor
from edge_agent.doors.mqtt import DoorCounts, MqttDoor
from edge_agent.feedback import Feedback
from edge_agent.folder import Folder
from edge_agent.serving import Serving
from edge_agent.telemetry.recorder import Instant
from edge_contract.messages import Strain
from edge_contract.ports.mqtt import Link, Message

if TYPE_CHECKING:
    from edge_agent.bindings.build import Bindings
    from edge_agent.doors.watch import Watcher


class Doors:
    """The doors that the settings want. HTTP listens at once, the others from ``start`` on.

    Args:
        link: the agent's own connection. feedback: takes labels; None: nobody does.
        boot, version: of the agent. strain: of the machine, for ``/metrics``.

    Raises InputFault or MachineFault for a door that cannot be opened; then none is.
    """

    def __init__(
        self,
        config: Config,
        link: Link,
        serving: Serving,
        feedback: Feedback | None,
        *,
        now: Callable[[], Instant],
        boot: int,
        version: str,
        strain: Callable[[], Strain],
    ) -> None:
        self._strain = strain
        device, models = config.agent.device, serving.answering
        self._labels = LabelDoor(link, config.topics, device, feedback)
        self._watcher = _watcher(config, serving)
        self._bindings = _bindings(config, link, serving, now, boot=boot, version=version)
        self._mqtt = MqttDoor(link, config.topics, device, models, rules=config.overload.rules)
        try:
            self._http = httpd.open_door(config, models, version, feedback, self._figures)
        except BaseException:
            self._mqtt.stop()
            raise

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to with the agent's own broker."""
        return (*self._mqtt.filters, *self._labels.filters)

    def start(self) -> None:
        """Look for files, connect to local brokers."""
        if self._bindings is not None:
            self._bindings.start()
        if self._watcher is not None:
            self._watcher.start()

    def stop(self) -> None:
        """Finish what is under way; take nothing more but labels that are on their way here."""
        others = (self._watcher, self._bindings, self._http)
        closing.each(self._mqtt.stop, *(door.stop for door in others if door is not None))

    def stop_labels(self) -> None:
        """Count the labels that came; once the connection is gone."""
        self._labels.stop()

    def up(self) -> None:
        """The agent's own broker is there."""
        if self._bindings is not None:
            self._bindings.up()

    def hear(self, message: Message) -> None:
        """Every message of the agent's own broker; from the network thread, never blocks."""
        if self._bindings is not None:
            self._bindings.handle(message)

    def handle(self, message: Message) -> None:
        """A message that may be for a door; from the network thread, never blocks."""
        if not self._labels.handle(message):
            self._mqtt.handle(message)

    def reports(self) -> dict[str, BindingReport]:
        """How each binding is, by its name."""
        return self._bindings.reports() if self._bindings is not None else {}

    def _figures(self) -> tuple[Strain, DoorCounts]:
        return self._strain(), self._mqtt.counts


def _bindings(
    config: Config,
    link: Link,
    serving: Serving,
    now: Callable[[], Instant],
    *,
    boot: int,
    version: str,
) -> Bindings | None:
    """None where there is nothing to bind, nor to take away that was bound before."""
    if not config.bindings and not Memo(Folder(config.folder).bindings).brokers:
        return None
    from edge_agent.bindings.build import Bindings  # noqa: PLC0415

    return Bindings(config, link, serving, now, boot=boot, version=version)


def _watcher(config: Config, serving: Serving) -> Watcher | None:
    """None without ``[watch]``; then nothing that reads files is imported."""
    if config.watch is None:
        return None
    from edge_agent.doors.watch import Watcher  # noqa: PLC0415

    return Watcher(config.watch, serving.answering, size_max=config.watch.file_max_bytes)
