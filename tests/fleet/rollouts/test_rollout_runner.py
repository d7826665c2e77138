"""Wishes are kept before they are sent, rise, and come again after a restart or a loss."""

import sys
from pathlib import Path

import numpy as np
import pytest
from fleet_kit import FLEET, Packed, until

sys.path.insert(0, str(Path(__file__).parent))

from rollout_store import BEGAN_MS, TOPICS, Fleet, order

from edge_contract import broker_url, messages
from edge_contract import manifest as manifests
from edge_contract.errors import InputFault
from edge_contract.messages import Desired
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_fleet.broker import BrokerThread
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts import publication, words
from edge_fleet.store.rollouts import Wish
from edge_fleet.store.sql import SqlStore
from edge_fleet.store.states import NamedRelease


def test_a_planner_that_starts_anew_each_round_brings_everybody_there(
    any_store: SqlStore, rng: np.random.Generator, seed: int
) -> None:
    """The power goes before, or after, what was kept is sent; some of it is lost on the way."""
    fleet = Fleet(any_store, 8)
    assert not fleet.run().step(), "nothing to do, and no connection"
    fleet.begin()
    for _ in range(40):
        run = fleet.run()
        run.step()
        fleet.live([wish for wish in run.pending() if rng.random() < 0.6])
    (rollout,) = fleet.rollouts()
    assert rollout.phase == "finished", (seed, rollout.reason)
    assert {d.models["pump"] for d in fleet.heard.values()} == {"2.0"}
    assert {d.revision for d in fleet.heard.values()} == {1}, "one wish a device"
    assert fleet.run().pending() == []


def test_a_bad_version_stops_with_its_canary_and_another_may_begin(store: SqlStore) -> None:
    fleet = Fleet(store, 8)
    fleet.bad = set(fleet.heard)
    fleet.begin()
    with pytest.raises(InputFault, match="another rollout of pump holds 8 of the 8"):
        fleet.begin("3.0")
    for _ in range(5):
        run = fleet.run()
        run.step()
        fleet.live(run.pending())
    (rollout,) = fleet.rollouts()
    assert (rollout.phase, len(rollout.members)) == ("halted", 1)
    (canary,) = rollout.members
    assert fleet.heard[canary].models == {"pump": "stable"}
    assert fleet.heard[canary].revision == 2, "its wish rose"
    fleet.bad = set()
    fleet.begin("3.0")
    for _ in range(10):
        run = fleet.run()
        run.step()
        fleet.live(run.pending())
    assert fleet.rollouts()[1].phase == "finished"
    assert {d.models["pump"] for d in fleet.heard.values()} == {"3.0"}


def test_what_was_not_heard_is_sent_again_when_the_broker_lost_all_it_retained(
    store: SqlStore,
) -> None:
    fleet = Fleet(store, 2)
    fleet.begin(waves=orders.waves("100%"))
    run = fleet.run()
    for _ in range(2):  # two brokers, the second of which knows nothing of the first
        heard: dict[str, Message] = {}
        with BrokerThread() as broker:
            link = Link(LinkConfig(broker_url.parse(broker.url), "planner"))
            link.start(60)
            run.step()
            run.broker_is_back()
            assert run.send(link) == 2
            assert run.send(link) == 0, "not again at once"
            late = Link(
                LinkConfig(broker_url.parse(broker.url), "device"),
                on_message=lambda m, heard=heard: heard.update({m.topic: m}),
            )
            late.start(60)
            late.subscribe([f"{TOPICS.root}/d/+/desired"]).wait(60)
            until(lambda heard=heard: len(heard) == 2, "both are retained")
            late.stop()
            link.stop()
        wish = messages.decode(heard[TOPICS.desired("d00")].payload, Desired)
        assert (wish.revision, wish.models) == (1, {"pump": "2.0"})
        assert heard[TOPICS.desired("d00")].retain
    fleet.live(run.pending())
    fleet.now_ms += 10**7
    assert {one.device for one in run.pending()} == {"d00", "d01"}, "sent, and never heard"
    with store.reading() as tx:
        fleet.live(list(tx.wishes().values()))
    assert run.pending() == []


def test_a_device_that_follows_a_later_wish_of_somebody_else_is_brought_back(
    store: SqlStore,
) -> None:
    fleet = Fleet(store, 1)
    fleet.begin(waves=orders.waves("100%"))
    run = fleet.run()
    run.step()
    fleet.heard["d00"] = Desired(revision=70, models={"pump": "0.9"})
    fleet.tell("d00")
    run.step()
    fleet.live(run.pending())
    assert (fleet.heard["d00"].revision, fleet.heard["d00"].models) == (71, {"pump": "2.0"})
    fleet.tell("d00", revision=2**53)  # a liar
    run.step()
    with store.reading() as tx:
        assert tx.wishes()["d00"].revision == 71


def test_a_wish_never_falls_and_other_models_stay_as_they_were(any_store: SqlStore) -> None:
    fleet = Fleet(any_store, 1)
    former = Desired(revision=5, models={"fan": "3.1"})
    with any_store.transaction() as tx:
        tx.put_wishes([Wish("d00", 5, BEGAN_MS, messages.encode(former))])
        tx.put_wishes([Wish("d00", 4, BEGAN_MS, b"older")])
    fleet.begin(waves=orders.waves("100%"))
    fleet.run().step()
    with any_store.reading() as tx:
        desired = messages.decode(tx.wishes()["d00"].desired, Desired)
    assert (desired.revision, desired.models) == (6, {"fan": "3.1", "pump": "2.0"})


def test_what_no_signed_channel_names_is_refused(tmp_path: Path) -> None:
    release = messages.release("pump", "1.0", "1" * 64)
    other = messages.release("pump", "2.0", "2" * 64)
    track = messages.Track(stable=release, candidate=other)
    pointer = messages.Pointer(fleet=FLEET, channel="stable", models={"pump": track})
    with BrokerThread() as broker:
        link = Link(LinkConfig(broker_url.parse(broker.url), "publisher"))
        link.start(60)
        config = LinkConfig(broker_url.parse(broker.url), "asks")
        with pytest.raises(InputFault, match="the broker retains no signed channel"):
            publication.check(config, TOPICS, order(), 0.5)
        topic = TOPICS.target(f"fleet/{FLEET}/{'a' * 64}.stable.json")
        link.publish(topic, messages.encode(pointer), retain=True).wait(60)
        found = publication.check(config, TOPICS, order(), 60)
        assert found == publication.Found("2" * 64), "and no manifest is there"
        assert not publication.promoted(config, TOPICS, order(), 1.0), "a candidate only"
        assert publication.promoted(config, TOPICS, order("1.0"), 1.0)
        with pytest.raises(InputFault, match=r"they name 1.0 \(stable\), 2.0 \(stable\)"):
            publication.check(config, TOPICS, order("3.0"), 0.5)
        link.stop()
    below = messages.Track(stable=other, others=(release,), floor="2.0")
    floor = messages.Pointer(fleet=FLEET, channel="stable", models={"pump": below})
    with pytest.raises(InputFault, match=r"below the floor 2.0"):
        publication.digest_in(floor, order("1.0"))


def test_what_a_version_needs_comes_from_its_manifest_on_the_broker(packed: Packed) -> None:
    release = messages.release("pump", "2.0", packed.digest)
    pointer = messages.Pointer(
        fleet=FLEET, channel="stable", models={"pump": messages.Track(stable=release)}
    )
    with BrokerThread() as broker:
        link = Link(LinkConfig(broker_url.parse(broker.url), "publisher"))
        link.start(60)
        topic = TOPICS.target(f"fleet/{FLEET}/{'a' * 64}.stable.json")
        link.publish(topic, messages.encode(pointer), retain=True).wait(60)
        link.publish(TOPICS.chunk(packed.digest), packed.manifest_bytes, retain=True).wait(60)
        config = LinkConfig(broker_url.parse(broker.url), "asks")
        found = publication.check(config, TOPICS, order(), 60)
        link.stop()
    manifest = manifests.decode(packed.manifest_bytes)
    assert found.needs.onnxruntime == manifest.runtime.onnxruntime != ""
    assert found.needs.ram_bytes == manifest.runtime.ram_bytes
    assert found.needs.disk_bytes == sum(f.size + f.raw_size for f in manifest.files) > 0
    assert publication.with_it(order(), found).digest == packed.digest


def test_a_version_is_stable_once_every_channel_that_has_the_model_says_so() -> None:
    old, new = (messages.release("pump", v, v[0] * 64) for v in ("1.0", "2.0"))

    def pointer(channel: str, stable: messages.Release) -> messages.Pointer:
        models = {"pump": messages.Track(stable=stable)}
        return messages.Pointer(fleet=FLEET, channel=channel, models=models)

    other = messages.Pointer(
        fleet=FLEET, channel="fans", models={"fan": messages.Track(stable=old)}
    )
    wanted = order()
    assert publication.is_stable([pointer("stable", new), other], wanted)
    assert not publication.is_stable([pointer("stable", new), pointer("beta", old)], wanted)
    assert not publication.is_stable([other], wanted)
    assert not publication.is_stable([], wanted)
    another = publication.with_it(wanted, publication.Found("7" * 64))
    assert not publication.is_stable([pointer("stable", new)], another), "another bundle"


def test_a_device_that_says_it_runs_what_nobody_signed_counts_as_none_that_installed(
    store: SqlStore,
) -> None:
    fleet = Fleet(store, 2)
    with store.transaction() as tx:
        tx.add_releases([
            NamedRelease("pump", version, digest, "stable", 1)
            for version, digest in (("1.0", "1" * 64), ("2.0", "7" * 64))
        ])  # fmt: skip
    fleet.begin(waves=orders.waves("100%"))
    for _ in range(3):
        run = fleet.run()
        run.step()
        fleet.live(run.pending())
    with store.reading() as tx:
        found = words.status(tx, 1, fleet.now_ms)
    assert (found.phase, found.devices) == ("running", {"asked": 2}), "another bundle of that name"
    fleet.now_ms += 3_600_000
    fleet.live([])
    fleet.run().step()
    assert fleet.rollouts()[0].phase == "halted"
    assert "0 of 2 devices of the wave run the version" in fleet.rollouts()[0].reason
