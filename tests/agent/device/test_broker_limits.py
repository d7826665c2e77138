"""Everything of ours runs over a broker that is limited as AWS IoT Core is, without one violation.

The proxy is shown to catch each violation first: a proxy that lets all through would prove nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

sys.path.insert(0, str(Path(__file__).parent))  # `mqtt_limits` is beside the tests

from mqtt_limits import LimitedBroker

from edge_agent import Agent
from edge_agent.delivery import Delivery
from edge_agent.pull import delivery_of
from edge_contract import broker_url, messages
from edge_contract.bundle import read
from edge_contract.messages import Reported, Status
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.ports.retained import Retained
from edge_contract.topics import SENTINEL_FILE, Topics
from edge_fleet.broker import BrokerThread


@pytest.fixture
def broker(any_broker: Any) -> Iterator[LimitedBroker]:
    """Each broker, behind the limits; publisher, devices and clients all go through it."""
    with LimitedBroker(broker_url.parse(any_broker.url).port) as limited:
        yield limited


# -- the whole way -------------------------------------------------------------------------------


def test_an_agent_lives_its_whole_life_within_the_limits(
    broker: LimitedBroker, tiny_bundle: Callable[..., bytes], world: Any, tmp_path: Path
) -> None:
    """Enrol, publish, refresh, fetch, update, answer, events, telemetry, status, report."""
    world.publisher.publish(tiny_bundle("1.0"))
    device = world.new_device("pi1", telemetry={"window_s": 0.2})
    fresh = dataclasses.replace(delivery_of(device.config).config, folder=tmp_path / "fresh")
    assert Delivery(fresh).enroll(fingerprint=world.publisher.fingerprint)
    agent = Agent(device.config)
    agent.start()
    try:
        world.until(lambda: device.at("1.0"), "1.0 committed")
        world.publisher.publish(tiny_bundle("2.0", seed=9))
        world.until(lambda: device.at("2.0"), "2.0 committed")
        assert world.client.ask("pi1").predictions
        topics, heard = Topics("home"), world.client.heard
        world.until(lambda: any("/t/" in message.topic for message in heard), "telemetry")
        world.until(lambda: any(message.topic.endswith("/ev") for message in heard), "an event")
        link = LinkConfig(broker=broker_url.parse(broker.url), client_id="reader")
        with Retained(link, sentinel=topics.metadata(SENTINEL_FILE)) as retained:
            retained.start(60)
            wanted = [topics.status("pi1"), topics.reported("pi1")]
            found = retained.get(wanted, size_max=100_000)
        assert messages.decode(found[wanted[0]], Status).online
        assert messages.decode(found[wanted[1]], Reported).models
    finally:
        agent.stop()
    assert broker.violations == []
    assert broker.packets > 50


def test_a_bundle_of_many_chunks_is_pulled_and_put_within_the_limits(
    broker: LimitedBroker, publisher: Any, new_device: Callable[..., Any], tmp_path: Path
) -> None:
    """More chunks than a connection may have subscriptions: each is given up as it comes."""
    bundle = big_bundle(60)
    publisher.publish(bundle)
    delivery = delivery_of(new_device("pi1").config)
    now = datetime.datetime.now(datetime.UTC)
    pointer = delivery.refresh(now=now, synchronised=True).pointer
    assert pointer is not None
    delivery.fetch(
        pointer.models["pump"].stable, name="pump", into=tmp_path / "slot",
        accept=lambda manifest: None, progress=lambda done, total: None, stop=threading.Event(),
    )  # fmt: skip
    assert (tmp_path / "slot" / "model.onnx").read_bytes() == read(bundle).file("model.onnx")
    assert broker.violations == []
    assert 8 <= broker.most_subscribed <= 50


def test_what_is_absent_is_told_from_what_is_late_without_identifiers(
    broker: LimitedBroker, publisher: Any, tiny_bundle: Callable[..., bytes]
) -> None:
    publisher.publish(tiny_bundle("1.0"))
    topics = Topics("home")
    link = LinkConfig(broker=broker_url.parse(broker.url), client_id="reader")
    with Retained(link, sentinel=topics.metadata(SENTINEL_FILE), silence_s=20) as retained:
        retained.start(60)
        assert not retained.link.identifiers
        for _ in range(3):
            asked = [topics.metadata(f"{number}.root.json") for number in (1, 77, 78)]
            assert list(retained.get(asked, size_max=100_000)) == asked[:1]
    assert broker.violations == []


def big_bundle(chunk_number: int) -> bytes:
    """A bundle that no agent could run, but any can fetch."""
    from edge_contract import bundle as bundles
    from edge_contract import manifest as manifests
    from edge_contract.chunks import CHUNK_BYTES

    raw = random.Random(4).randbytes(chunk_number * CHUNK_BYTES - 1000)
    file, stored = bundles.encode_member("model.onnx", raw)
    manifest = manifests.Manifest(
        schema=manifests.SCHEMA, name="pump", version="9", task="tensors", features=(),
        inputs=(manifests.Tensor(name="x", dtype="float32", shape=(None, 1)),),
        outputs=manifests.Outputs(tensors=("y",)), files=(file,),
        runtime=manifests.Runtime(ir=8, opsets={"": 17}, ops=(), onnxruntime="1.18", ram_bytes=0),
        compression=manifests.Compression(mode="none", stock_bytes=1),
        parity=manifests.Parity(
            rows=0, flips=0, flips_max=0, diff_max=0, diff_p99=0, diff_budget=0
        ),
        provenance=manifests.Provenance(source_sha256="0" * 64, source_type="x", libraries={}),
    )  # fmt: skip
    return bundles.write(manifests.encode(manifest), {"model.onnx": stored})


# -- the proxy catches what it is there for ------------------------------------------------------


class Careless:
    """A client that knows no limit."""

    def __init__(self, url: str, client_id: str = "careless", keepalive: int = 60) -> None:
        self.codes: list[int] = []
        self.up = self.down = False
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5
        )
        self.client.on_connect = self._connected
        self.client.on_disconnect = self._disconnected
        place = broker_url.parse(url)
        self.client.connect(place.host, place.port, keepalive=keepalive)

    def _connected(self, _client: Any, _user: Any, _flags: Any, code: Any, _props: Any) -> None:
        self.up = not code.is_failure
        self.codes += [code.value] if code.is_failure else []

    def _disconnected(self, _client: Any, _user: Any, _flags: Any, code: Any, _p: Any) -> None:
        self.down = True
        self.codes.append(code.value)

    def until(self, name: str) -> None:
        for _ in range(600):
            if getattr(self, name):
                return
            self.client.loop(0.1)
        raise AssertionError(f"never {name}")


def identified(client: paho.Client) -> None:
    properties: Any = Properties(PacketTypes.SUBSCRIBE)
    properties.SubscriptionIdentifier = 7
    client.subscribe("a", properties=properties)


def many(client: paho.Client) -> None:
    for start in range(0, 56, 8):
        client.subscribe([(f"a/{number}", 1) for number in range(start, start + 8)])


VIOLATIONS: dict[str, tuple[Callable[[paho.Client], object], int]] = {
    "a payload of 131073 bytes": (lambda c: c.publish("a", bytes(128 * 1024 + 1)), 0x95),
    "a SUBSCRIBE of 9 filters": (lambda c: c.subscribe([(f"a/{n}", 1) for n in range(9)]), 0x97),
    "56 subscriptions": (many, 0x97),
    "8 slashes in 0/1/2/3/4/5/6/7/8": (lambda c: c.publish("0/1/2/3/4/5/6/7/8", b""), 0x90),
    "8 slashes in +/1/2/3/4/5/6/7/#": (lambda c: c.subscribe("+/1/2/3/4/5/6/7/#"), 0x90),
    "a topic of 257 bytes": (lambda c: c.publish("x" * 257, b""), 0x90),
    "the topic $SYS/a": (lambda c: c.subscribe("$SYS/a"), 0x90),
    "QoS 2": (lambda c: c.publish("a", b"", qos=2), 0x9B),
    "a subscription of QoS 2": (lambda c: c.subscribe("a", 2), 0x9B),
    "a subscription identifier": (identified, 0xA1),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_ends_the_connection_with_its_reason(name: str) -> None:
    act, reason = VIOLATIONS[name]
    with BrokerThread() as inner, LimitedBroker(inner.port) as limited:
        careless = Careless(limited.url)
        careless.until("up")
        act(careless.client)
        careless.until("down")
        assert limited.violations == [name]
        assert reason in careless.codes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"client_id": "x" * 129}, "a client id of 129 characters"),
        ({"keepalive": 5}, "keep alive 5 s"),
    ],
)
def test_a_connection_over_a_limit_is_refused(options: dict[str, Any], said: str) -> None:
    with BrokerThread() as inner, LimitedBroker(inner.port) as limited:
        careless = Careless(limited.url, **options)
        careless.until("codes")
        assert limited.violations == [said]
        assert not careless.up
