"""From settings to a running bridge: links to local brokers, topics, the place in the fleet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from edge_agent.bindings.answers import answer_topic
from edge_agent.bindings.bridge import Answering, Bridge
from edge_agent.bindings.counts import BindingReport
from edge_agent.bindings.homeassistant import Place
from edge_agent.bindings.memo import Memo
from edge_agent.config import Config
from edge_agent.folder import Folder
from edge_agent.telemetry.recorder import Instant
from edge_contract import broker_url, messages
from edge_contract.errors import PeerFault
from edge_contract.messages import Status
from edge_contract.ports.mqtt import Link, LinkConfig, Message

OWN = ""
"""The agent's own broker among the links."""
GOODBYE_S = 2.0


class Bindings:
    """The bridge, and the connections to local brokers. Any thread may call any method.

    A local broker with sensors for Home Assistant is told what the fleet's is: the retained status
    of this device, with a last will. No other is: an account there may have no right to it, and
    mosquitto 2.0 ends the connection at a message that its rights refuse.

    Args:
        own: the agent's connection; it is neither started nor stopped here.
        boot, version: of the agent, for the status.

    Raises InputFault for a password file or an authority that cannot be read.
    """

    def __init__(
        self,
        config: Config,
        own: Link,
        serving: Answering,
        now: Callable[[], Instant],
        *,
        boot: int,
        version: str,
    ) -> None:
        device = config.agent.device
        self._status = config.topics.status(device)
        self._here = messages.encode(Status(online=True, boot=boot, agent=version))
        self._gone = messages.encode(Status(online=False, boot=boot, agent=version))
        memo = Memo(Folder(config.folder).bindings)
        used = {*(each.broker for each in config.bindings), *memo.brokers}
        self._local = {name: self._link(config, name) for name in config.brokers if name in used}
        links = {OWN: own, **self._local}
        self._bridge = Bridge(
            config.bindings,
            links,
            serving,
            topics={
                each.title: answer_topic(each, config.topics, device) for each in config.bindings
            },
            place=Place(config.agent.fleet, device, version, self._status),
            memo=memo,
            now=now,
        )

    def start(self) -> None:
        """Look into messages, and connect to the local brokers for as long as it takes."""
        self._bridge.start()
        for link in self._local.values():
            link.start()

    def stop(self) -> None:
        """Say goodbye to the local brokers, and end."""
        self._bridge.stop()
        for link in self._local.values():
            if link.up and link.config.will is not None:
                ticket = link.publish(self._status, self._gone, retain=True)
                _wait(ticket.wait)
            link.stop()

    def up(self) -> None:
        """The agent's own broker is there."""
        self._bridge.up(OWN)

    def handle(self, message: Message) -> None:
        """A message of the agent's own broker; never blocks or raises."""
        self._bridge.handle(OWN, message)

    def reports(self) -> dict[str, BindingReport]:
        """How each binding is, by its name."""
        return self._bridge.reports()

    def _link(self, config: Config, name: str) -> Link:
        shown = any(e.broker == name and e.homeassistant is not None for e in config.bindings)

        def came(_session: bool) -> None:
            if shown:
                link.publish(self._status, self._here, retain=True)
            self._bridge.up(name)

        link = Link(
            link_config(
                config,
                name,
                client_id=f"{config.agent.device}-bindings",
                will=Message(self._status, self._gone, qos=1, retain=True) if shown else None,
            ),
            on_message=lambda message: self._bridge.handle(name, message),
            on_up=came,
            on_refused=lambda reason: self._bridge.turned_away(name, reason),
        )
        return link


def link_config(
    config: Config, name: str, *, client_id: str, will: Message | None = None
) -> LinkConfig:
    """How to connect to a broker by its name; ``OWN`` is the agent's."""
    broker = config.broker if name == OWN else config.brokers[name]
    url = config.broker_url if name == OWN else broker_url.parse(broker.url)
    if name != OWN and (password := config.passwords.get(name, "")):
        url = dataclasses.replace(url, password=password)
    return LinkConfig(
        broker=url,
        client_id=client_id,
        will=will,
        keepalive_s=broker.keepalive_s,
        ca_file=broker.ca,
        cert_file=broker.cert,
        key_file=broker.key,
    )


def _wait(wait: Callable[[float], None]) -> None:
    try:
        wait(GOODBYE_S)
    except PeerFault:
        return
