"""A real bundle, from the publisher's disk over a broker into a model that answers."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.delivery import Delivery, DeliveryConfig
from edge_agent.model import Model
from edge_contract import broker_url, bundle
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.topics import Topics
from edge_release import create
from edge_release.publication import connect, sync
from edge_release.repository import Repository


def test_a_delivered_slot_answers_as_the_bundle_does(
    any_broker: Any, tmp_path: Path, tiny_bundle: Callable[..., bytes]
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    topics = Topics("home")
    url = broker_url.parse(any_broker.url)
    create(tmp_path / "keys", "home", now=now)
    repository = Repository(tmp_path / "keys")
    opened = bundle.read(tiny_bundle("1.0"))
    repository.publish(opened, fleet="home", channel="stable", now=now)
    with connect(LinkConfig(broker=url, client_id="publisher"), topics) as broker:
        sync(repository, topics, broker)

    device = Delivery(
        DeliveryConfig(folder=tmp_path / "pi1", broker=url, topics=topics, device="pi1")
    )
    device.enroll(root=repository.shelf.first_root())
    pointer = device.refresh(now=now, synchronised=True).pointer
    slot = tmp_path / "pi1" / "slots" / opened.digest

    def fetch() -> None:
        device.fetch(
            pointer.models["pump"].stable,
            name="pump",
            into=slot,
            accept=lambda manifest: None,
            progress=lambda done, total: None,
            stop=threading.Event(),
        )

    fetch()
    (tmp_path / "pump.edgepack").write_bytes(tiny_bundle("1.0"))
    row = {"temp": 0.3, "hum": -1.2, "rpm": 0.1, "volt": 2.0}
    delivered, original = Model.from_slot(slot), Model.open(tmp_path / "pump.edgepack")
    assert delivered.predict([row]) == original.predict([row])

    (slot / "manifest.json").unlink()
    (slot / "manifest.json").symlink_to("/proc/self/mem")  # EIO, as a bad block gives
    fetch()
    assert Model.from_slot(slot).predict([row]) == original.predict([row])
