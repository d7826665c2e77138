"""`edge-fleet labels import`: from a file over a real broker into a real device's counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from edge_agent.doors.labels import LabelDoor
from edge_contract import aside, broker_url, messages
from edge_contract.errors import InputFault
from edge_contract.messages import Label
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_contract.topics import Topics
from edge_fleet.cli import app
from edge_fleet.quality import label_file

TOPICS = Topics("home")
ROWS = np.random.default_rng(5).normal(size=(30, 4)).tolist()


def bring(file: Path, *words: str, broker: str) -> Result:
    return CliRunner().invoke(
        app, ["labels", "import", str(file), "--fleet", "home", "--broker", broker, *words]
    )


@pytest.fixture
def device(desk, any_broker) -> Iterator[None]:
    """The desk's labels come over MQTT, as pi1."""
    link = Link(
        LinkConfig(broker_url.parse(any_broker.url), client_id="pi1"),
        on_message=lambda message: door.handle(message),  # noqa: PLW0108 - made after the link
    )
    door = LabelDoor(link, TOPICS, "pi1", desk.feedback)
    link.start(60)
    link.subscribe(list(door.filters)).wait(60)
    yield
    door.stop()
    link.stop()


def test_labels_of_a_file_become_counts_of_the_device_once(
    desk, tiny_bundle, device, any_broker, tmp_path: Path
) -> None:
    """Twice the same file: counted, then repeated; one id that no answer has."""
    found = desk.serve(tiny_bundle()).predict(ROWS)
    file = tmp_path / "inspected.csv"
    lines = [f"pi1,{each.id},{'good' if i % 3 else 'bad'}" for i, each in enumerate(found)]
    file.write_text("\n".join(["device,id,label", *lines, ""]), encoding="utf-8")
    words = ["--model", "pump", "--json", "--wait-s", "60"]
    first = bring(file, *words, broker=any_broker.url)
    assert first.exit_code == 0, first.output
    told = json.loads(first.output)
    assert (told["sent"], told["counted"], told["silent"]) == (30, 30, [])
    again = bring(file, *words, broker=any_broker.url)
    assert again.exit_code == 0
    assert json.loads(again.output)["repeated"] == 30
    with file.open("a", encoding="utf-8") as more:
        more.write("pi1,7-999999,good\n")
    some = bring(file, "--model", "pump", "--wait-s", "60", broker=any_broker.url)
    assert some.exit_code == 1
    assert "31 labels sent: 30 repeated, 1 unknown" in some.output
    desk.at_s = 61
    desk.feedback.tick(desk.now())
    [record] = desk.records()
    assert aside.counts_of(record).sum() == 30


def test_a_label_that_the_model_does_not_know_is_told_with_those_it_knows(
    desk, tiny_bundle, device, any_broker, tmp_path: Path
) -> None:
    [found] = desk.serve(tiny_bundle()).predict(ROWS[:1])
    file = tmp_path / "x.csv"
    file.write_text(f"device,model,id,label\npi1,pump,{found.id},excellent\n", encoding="utf-8")
    result = bring(file, "--wait-s", "60", broker=any_broker.url)
    assert result.exit_code == 1
    assert "'excellent' is no label of pump 1.0: bad, good" in result.output


def test_a_device_that_is_away_is_named_and_waited_for_once(any_broker, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    lines = [f"pi9,1-{i},good" for i in range(label_file.BATCH + 1)]  # two messages
    file.write_text("\n".join(["device,id,label", *lines]), encoding="utf-8")
    result = bring(file, "--model", "pump", "--wait-s", "0.2", "--json", broker=any_broker.url)
    assert result.exit_code == 1
    told = json.loads(result.output)
    assert (told["sent"], told["answered"], told["silent"]) == (1001, 0, ["pi9"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "the file lacks device, id, label, model (or --model); it has -"),
        (b"device,id\npi1,1-1\n", "the file lacks label, model"),
        (b"device,model,id,label\n", "the file has no label"),
        (b"device,model,id,label\npi1,pump,1-1,ok\npi/1,pump,1-2,ok\n", "line 3: "),
        (b"device,model,id,label\npi1,pump,,ok\n", "line 2: '' is no prediction's id"),
        (b"device,model,id,label\npi1,pump,1-1,\n", "line 2: no label"),
        (b"device,model,id,label\npi1,pump,1-1,ok,more\n", "line 2: more cells than columns"),
        (b'device,model,id,label\npi1,pump,1-1,"ok\n', "no CSV in UTF-8"),
        (b"device,model,id,label\npi1,pump,1-1,\xff\n", "no CSV in UTF-8"),
    ],
)
def test_a_file_with_a_fault_sends_nothing_and_names_the_line(text: bytes, said: str) -> None:
    with pytest.raises(InputFault) as fault:
        label_file.read(text)
    assert said in fault.value.what


def test_many_faults_are_named_by_the_first_five() -> None:
    text = b"device,model,id,label\n" + b"pi1,pump,,ok\n" * 9
    with pytest.raises(InputFault, match="and 4 more"):
        label_file.read(text)


def test_labels_are_split_by_device_and_model_in_order() -> None:
    text = b"\xef\xbb\xbflabel,id,device,model\n1,1-1,a,m\n2.5,1-2,b,\n007,1-3,a,m\n"
    assert label_file.read(text, "n") == [
        ("a", "m", [Label(id="1-1", label=1), Label(id="1-3", label="007")]),
        ("b", "n", [Label(id="1-2", label=2.5)]),
    ]
    assert label_file.value_of("-1e-3") == -0.001
    assert label_file.value_of("nan") == "nan"
    assert label_file.value_of("1_000") == "1_000"


def test_a_number_that_json_cannot_say_is_sent_as_text() -> None:
    """As null it would have the device refuse the whole message."""
    ((_, _, labels),) = label_file.read(b"device,model,id,label\na,m,1-1,1e999\n")
    assert messages.decode_labels(msgspec.json.encode(labels)) == labels
