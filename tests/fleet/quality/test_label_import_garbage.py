"""A device that answers nonsense to labels is named, and the others get theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fleet_kit import FLEET
from typer.testing import CliRunner

from edge_contract import broker_url
from edge_contract.messages import LabelsTaken
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_contract.topics import Topics
from edge_fleet.cli import app

GARBAGE = (b"\xff\xfe", b"{}" * 3, b"[" * 100_000, b'{"counted": "all"}', b'{"some": "thing"}', b"")


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda data: repr(data[:8]))
def test_a_device_that_answers_nonsense_is_named_and_the_others_get_theirs(
    any_broker: Any, tmp_path: Path, garbage: bytes
) -> None:
    url = broker_url.parse(any_broker.url)
    topics = Topics(FLEET)
    given: list[tuple[str, int]] = []

    def answer(message: Message) -> None:
        device = topics.parse(message.topic).device
        labels = msgspec.json.decode(message.payload)
        given.append((device, len(labels)))
        taken = msgspec.json.encode(LabelsTaken(counted=len(labels)))
        devices.publish(
            message.response_topic,
            garbage if device == "liar" else taken,
            correlation=message.correlation,
        )

    devices = Link(LinkConfig(url, client_id="devices"), on_message=answer)
    devices.start(60)
    devices.subscribe([topics.labels_filter(each) for each in ("liar", "pi-1")]).wait(60)
    file = tmp_path / "labels.csv"
    file.write_text("device,id,label\nliar,1-1,ok\nliar,1-2,ok\npi-1,1-1,worn\n")
    words = ["labels", "import", str(file), "--fleet", FLEET, "--broker", any_broker.url]
    told = CliRunner().invoke(app, [*words, "--model", "boiler", "--json"])
    devices.stop()
    assert told.exit_code == 1, "not all were counted"
    found = json.loads(told.output)
    assert given == [("liar", 2), ("pi-1", 1)]
    assert (found["sent"], found["counted"], found["refused"]) == (3, 1, 2)
    assert (found["garbled"], found["silent"]) == (["liar"], [])
