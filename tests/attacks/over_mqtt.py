#!/usr/bin/env python3
"""The agent's TUF client over MQTT, for a suite that only speaks HTTP: a bridge.

Each file that the updater asks for is fetched from the HTTP repository first and put on a real
broker as a retained message, where the agent's own MQTT fetcher then reads it: the broker holds
what the repository serves at that moment, and the repository sees the requests of the client.

As the entry point of the public conformance suite (a broker must run at the address):

    EDGE_BROKER=mqtt://127.0.0.1:1883 pytest tuf_conformance --entrypoint tests/attacks/over_mqtt.py
"""

from __future__ import annotations

import contextlib
import os
import sys
import uuid

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent import tuf_client
from edge_agent.delivery.fetcher import METADATA, TARGETS, MqttFetcher
from edge_agent.tuf_client import HttpFetcher, Request
from edge_contract import broker_url
from edge_contract.broker_url import BrokerUrl
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_contract.ports.retained import SENTINEL, Retained
from edge_contract.topics import SENTINEL_FILE, Topics

_WAIT_S = 60.0
_FILE_MAX_BYTES = 8 * 1024 * 1024


class BridgedFetcher(MqttFetcher):
    """Puts what ``source`` has on the broker, then reads it there as a device does."""

    def __init__(self, source: FetcherInterface, broker: BrokerUrl, *, fleet: str) -> None:
        topics = Topics(fleet, prefix="b")
        name = uuid.uuid4().hex[:12]
        self._source = source
        self._publisher = Link(LinkConfig(broker=broker, client_id=f"bridge-{name}"))
        self._reader = Retained(
            LinkConfig(broker=broker, client_id=f"reader-{name}"),
            sentinel=topics.metadata(SENTINEL_FILE),
        )
        self._open = False
        super().__init__(self._connected, topics)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """As ``MqttFetcher``, after the topic was brought up to date."""
        topic = self._topic(url)
        try:
            payload = self._source.download_bytes(url, _FILE_MAX_BYTES)
        except DownloadHTTPError:
            payload = b""  # clears the topic: nothing is retained there
        self._connected()
        self._publisher.publish(topic, payload, retain=True).wait(_WAIT_S)
        return super().download_bytes(url, max_length)

    def close(self) -> None:
        """Leave the broker."""
        if self._open:
            self._reader.stop()
            self._publisher.stop()

    def _connected(self) -> Retained:
        if not self._open:
            self._publisher.start(_WAIT_S)
            self._reader.start(_WAIT_S)
            self._open = True
            sentinel = self._topics.metadata(SENTINEL_FILE)
            self._publisher.publish(sentinel, SENTINEL, retain=True).wait(_WAIT_S)
        return self._reader


def main() -> int:
    """One command of the suite's."""
    broker = broker_url.parse(os.environ.get("EDGE_BROKER", "mqtt://127.0.0.1:1883"))
    made = []

    def fetcher_of(request: Request) -> FetcherInterface:
        source = HttpFetcher(request.metadata_url, request.target_base_url)
        made.append(BridgedFetcher(source, broker, fleet=f"suite-{os.getpid()}"))
        return made[0]

    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [each.close() for each in made])
        return tuf_client.main(fetcher_of=fetcher_of)


__all__ = ["METADATA", "TARGETS", "BridgedFetcher"]

if __name__ == "__main__":
    sys.exit(main())
