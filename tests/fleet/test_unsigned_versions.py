"""A device that says it runs what nobody signed is told of, shown, and believed in nothing."""

import json
from typing import Any

from fleet_kit import FLEET, Publisher, fault_kinds, until
from typer.testing import CliRunner

from edge_contract import broker_url, messages
from edge_contract.messages import ModelReport, Pointer, Reported, Track
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.topics import Topics
from edge_fleet.cli import app
from edge_fleet.naming import KIND, Naming
from edge_fleet.options import now_ms
from edge_fleet.store.base import ReportSeen
from edge_fleet.store.sql import SqlStore

GOOD, OTHER = "a" * 64, "b" * 64
HARDWARE = messages.Hardware(
    machine="aarch64", cpus=4, ram_bytes=1, system="Linux", python="3.11", onnxruntime="1.20"
)


def says(store: SqlStore, device: str, version: str, digest: str) -> None:
    model = ModelReport(phase="committed", active=version, digest=digest)
    report = Reported(boot=1, at_ms=1, agent="1", hardware=HARDWARE, models={"boiler": model})
    with store.transaction() as tx:
        tx.report(ReportSeen(device, messages.encode(report), 5_000, retained=False))


def events(store: SqlStore) -> list[tuple[str, str]]:
    with store.reading() as tx:
        return [(e.device, e.version) for e in tx.events(100) if e.kind == KIND]


def pointer(version: str, digest: str) -> Pointer:
    release = messages.release("boiler", version, digest)
    return Pointer(fleet=FLEET, channel="stable", models={"boiler": Track(stable=release)})


def test_what_no_channel_names_is_told_once_by_the_second_look(any_store: SqlStore) -> None:
    naming = Naming(any_store, Topics(FLEET), now_ms)
    says(any_store, "liar", "9.9", OTHER)
    assert [naming.look(), naming.look()] == [0, 0], "no channel is known: nothing is"
    naming.hear(pointer("1.0", GOOD))
    says(any_store, "good", "1.0", GOOD)
    says(any_store, "copy", "1.0", OTHER)
    says(any_store, "early", "2.0", OTHER)
    assert naming.look() == 0, "one look is no ground"
    naming.hear(pointer("2.0", OTHER))
    assert naming.look() == 2
    assert naming.look() == 0
    assert sorted(events(any_store)) == [("copy", "1.0"), ("liar", "9.9")]
    again = Naming(any_store, Topics(FLEET), now_ms)
    assert [again.look(), again.look()] == [0, 0], "nor after a restart"
    assert fault_kinds(any_store) == {("copy", KIND): 1, ("liar", KIND): 1}
    says(any_store, "good", "1.0", GOOD)
    assert naming.look() == 0, "what a channel named once stays known"
    with any_store.reading() as tx:
        assert {one.seen_ms for one in tx.devices()} == {5_000}, (
            "the server's word is no sign of life"
        )


def test_a_version_that_no_database_can_hold_is_told_of_beside_the_others(
    any_store: SqlStore,
) -> None:
    naming = Naming(any_store, Topics(FLEET), now_ms)
    naming.hear(pointer("1.0", GOOD))
    says(any_store, "hostile", "9\0.9", OTHER)
    says(any_store, "liar", "9.9", OTHER)
    assert [naming.look(), naming.look(), naming.look()] == [0, 2, 0]
    assert sorted(events(any_store)) == [("hostile", "9.9"), ("liar", "9.9")]


def test_it_is_shown_and_followed_by_nobody(store: SqlStore, db: str) -> None:
    store.claim(FLEET)
    naming = Naming(store, Topics(FLEET), now_ms)
    naming.hear(pointer("1.0", GOOD))
    says(store, "liar", "<script>9.9", OTHER)
    naming.look()
    naming.look()

    def run(*words: str) -> str:
        return CliRunner().invoke(app, [*words, "--db", db]).output

    assert "boiler <script>9.9 (signed by nobody)" in run("device", "liar")
    assert "which no channel names" in run("events", "--kind", KIND)
    [found] = json.loads(run("devices", "--where", "unsigned", "--json"))
    assert found["models"][0]["signed"] is False
    with store.reading() as tx:
        assert [(r.model, r.version) for r in tx.releases()] == [("boiler", "1.0")]
        assert tx.wishes() == {}, "nothing is asked of anybody because of it"


def test_channels_are_heard_as_the_broker_retains_them(
    any_broker: Any, publisher: Publisher, store: SqlStore
) -> None:
    topics = Topics(FLEET)
    path = f"fleet/{FLEET}/{'c' * 64}.stable.json"
    publisher.raw(topics.target(path), messages.encode(pointer("1.0", GOOD)), retain=True)
    publisher.raw(topics.target(f"fleet/{FLEET}/junk"), b"{no json", retain=True)
    naming = Naming(store, topics, now_ms)
    link = naming.link(LinkConfig(broker_url.parse(any_broker.url), client_id="test-naming"))
    link.start(60)

    def named() -> set[str]:
        naming.look()
        with store.reading() as tx:
            return {release.version for release in tx.releases()}

    try:
        until(lambda: named() == {"1.0"}, "the retained channel", 30)
        publisher.raw(topics.target(path), messages.encode(pointer("1.1", OTHER)), retain=True)
        until(lambda: named() == {"1.0", "1.1"}, "the next publication", 30)
    finally:
        link.stop()
