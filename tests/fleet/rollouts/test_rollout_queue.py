"""Two rollouts of one model: refused, or in a line; never both on a device, whoever is first."""

import contextlib
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from fleet_kit import FLEET, until

sys.path.insert(0, str(Path(__file__).parent))

from rollout_store import Fleet, order

from edge_contract import messages
from edge_contract.errors import InputFault
from edge_fleet.rollouts import facts, words
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts.order import Refused
from edge_fleet.rollouts.state import ACTIVE
from edge_fleet.rollouts.words import Saying
from edge_fleet.store import sql
from edge_fleet.store.sql import SqlStore, open_store

ALL = orders.waves("100%")


def turn(fleet: Fleet, rounds: int = 1) -> None:
    for _ in range(rounds):
        run = fleet.run()
        run.step()
        fleet.live(run.pending())


def phases(fleet: Fleet) -> list[str]:
    return [rollout.phase for rollout in fleet.rollouts()]


def test_one_that_is_queued_begins_when_the_one_before_it_ends(any_store: SqlStore) -> None:
    fleet = Fleet(any_store, 6)
    fleet.begin()
    with pytest.raises(Refused, match=r"holds 6 of the 6 selected devices, such as d00: number 1"):
        fleet.begin("3.0")
    fleet.begin("3.0", queue=True)
    fleet.begin("4.0", queue=True, select="device=d05", waves=ALL)
    turn(fleet, 3)
    assert phases(fleet) == ["running", "queued", "queued"]
    assert "number 1" in fleet.rollouts()[1].reason
    assert not fleet.rollouts()[1].members
    turn(fleet, 20)
    assert phases(fleet) == ["finished"] * 3
    began = [
        next(note.at_ms for note in rollout.notes if note.phase == "running")
        for rollout in fleet.rollouts()
    ]
    ended = [rollout.notes[-1].at_ms for rollout in fleet.rollouts()]
    assert began[1] >= ended[0]
    assert began[2] >= ended[1], "nobody overtakes"
    assert {d.models["pump"] for d in fleet.heard.values()} == {"3.0", "4.0"}


def test_a_person_ends_the_one_before_or_the_one_that_waits(store: SqlStore) -> None:
    fleet = Fleet(store, 4)
    fleet.begin()
    for version in ("3.0", "4.0"):
        fleet.begin(version, queue=True)
    with pytest.raises(Refused, match="it is queued, expected running"):
        words.say(store, 2, "pause", Saying("ann", fleet.now_ms))
    words.say(store, 2, "abort", Saying("ann", fleet.now_ms))
    words.say(store, 1, "abort", Saying("ann", fleet.now_ms))
    turn(fleet, 12)
    assert phases(fleet) == ["aborted", "aborted", "finished"]
    assert {d.models["pump"] for d in fleet.heard.values()} == {"4.0"}


def test_nobody_overtakes_one_that_waits_for_many_devices(store: SqlStore) -> None:
    fleet = Fleet(store, 4)
    fleet.begin(select="device=d00", waves=ALL, bake_s=600)
    fleet.begin("3.0", queue=True, waves=ALL)
    with pytest.raises(Refused, match=r"holds 1 of the 1 selected devices, such as d03: number 2"):
        fleet.begin("4.0", select="device=d03", waves=ALL)
    fleet.begin("4.0", select="device=d03", waves=ALL, queue=True)
    turn(fleet, 3)
    assert phases(fleet) == ["running", "queued", "queued"]
    turn(fleet, 20)
    assert phases(fleet) == ["finished"] * 3
    assert fleet.heard["d03"].models == {"pump": "4.0"}


def test_rollouts_of_two_models_or_of_other_devices_do_not_wait_for_each_other(
    store: SqlStore,
) -> None:
    fleet = Fleet(store, 4)
    fleet.begin(select="device=d00", waves=ALL)
    fleet.begin("3.0", select="not device=d00", waves=ALL)
    other = orders.made(fleet=FLEET, model="fan", version="2.0", waves=ALL)
    with store.transaction() as tx:
        words.begin(tx, other, "ann", fleet.now_ms)
    assert phases(fleet) == ["running"] * 3


def test_a_device_that_two_rollouts_come_to_mean_belongs_to_one(store: SqlStore) -> None:
    """One that was set up, or labelled anew, while both were under way."""
    fleet = Fleet(store, 2)
    fleet.labels = {"site": "lyon"}
    fleet.live([])
    fleet.begin(select="site=lyon", waves=ALL, bake_s=86400)
    fleet.heard["d99"] = messages.Desired(revision=0)
    fleet.labels = {"line": "3"}
    fleet.tell("d99")
    fleet.begin("3.0", select="line=3", waves=ALL, bake_s=86400)
    turn(fleet)
    fleet.labels = {"site": "lyon", "line": "3"}
    fleet.heard["d50"] = messages.Desired(revision=0)
    fleet.live([])
    turn(fleet, 3)
    owners = [rollout.id for rollout in fleet.rollouts() if "d50" in rollout.members]
    assert owners == [1]
    assert fleet.heard["d50"].models == {"pump": "2.0"}


def test_of_two_orders_at_one_moment_one_begins(any_db: str, any_store: SqlStore) -> None:
    fleet = Fleet(any_store, 3)
    other = open_store(any_db, create=False)
    told: list[str] = []

    def second() -> None:
        try:
            with other.transaction() as tx:
                words.begin(tx, order("3.0"), "bob", fleet.now_ms)
            told.append("began")
        except InputFault as fault:
            told.append(fault.what)

    thread = threading.Thread(target=second)
    with any_store.transaction() as tx:
        words.begin(tx, order("2.0"), "ann", fleet.now_ms)
        thread.start()
        if any_db.startswith("postgresql"):
            until(lambda: waits_for_a_lock(any_db), "the second order waits")
    thread.join(60)
    assert told and "holds 3 of the 3" in told[0]
    assert [rollout.order.version for rollout in fleet.rollouts()] == ["2.0"]
    with any_store.reading() as tx:
        assert [one.actor for one in tx.audits_before((), 9, action="rollout")] == ["ann"]
    other.close()


def waits_for_a_lock(db: str) -> bool:
    engine = sa.create_engine(sql._parse(db))
    with engine.connect() as connection:
        asked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        found = connection.execute(sa.text(asked)).scalar_one()
    engine.dispose()
    return bool(found)


def test_what_the_planner_decides_is_audited_beside_what_people_order(store: SqlStore) -> None:
    fleet = Fleet(store, 4)
    fleet.bad = set(fleet.heard)
    fleet.begin()
    turn(fleet, 5)
    with store.reading() as tx:
        found = [
            (one.actor == "edge-fleet", one.action, one.subject)
            for one in reversed(tx.audits_before((), 9, action="rollout"))
        ]
        newest = tx.audits_before((), 1)[0]
    assert found == [(False, "rollout.start", "rollout 1"), (True, "rollout.halted", "rollout 1")]
    assert "1 of 1 devices refuse the version" in newest.detail


def test_whatever_is_ordered_and_said_no_device_belongs_to_two_and_no_wave_is_too_large(
    store: SqlStore, rng: np.random.Generator, seed: int
) -> None:
    """Random orders, words, deaths and labels; the process dies before or after it has sent."""
    fleet = Fleet(store, 10)
    names = sorted(fleet.heard)
    asked: dict[str, list[int]] = {}
    for at in range(40):
        if rng.random() < 0.2:
            picked = rng.choice(["d0*", "d1*", "*", "d*5"])
            with contextlib.suppress(Refused):
                fleet.begin(
                    f"{2 + at}.0", queue=bool(rng.random() < 0.5), select=f"device={picked}",
                    waves=orders.waves(str(rng.choice(["1,50%,100%", "100%", "2,100%"]))),
                )  # fmt: skip
        every = fleet.rollouts()
        if every and rng.random() < 0.2:
            word = rng.choice(["pause", "resume", "abort", "rollback", "release"])
            with contextlib.suppress(Refused):
                words.say(
                    store, int(rng.integers(1, len(every) + 1)), word, Saying("a", fleet.now_ms)
                )
        fleet.bad = {name for name in names if rng.random() < 0.05}
        run = fleet.run()
        run.step()
        if rng.random() < 0.2:
            run.step()  # a second process that took over: it asks nothing anew
        check(fleet, seed)
        sent = run.pending()
        fleet.live([wish for wish in sent if rng.random() < 0.7])
        for name, desired in fleet.heard.items():
            revisions = asked.setdefault(name, [])
            if not revisions or desired.revision != revisions[-1]:
                revisions.append(desired.revision)
    for _ in range(25):  # left alone, what is wanted gets everywhere
        run = fleet.run()
        run.step()
        fleet.live(run.pending())
    assert all(revisions == sorted(revisions) for revisions in asked.values()), seed
    assert fleet.run().pending() == [], seed
    with store.reading() as tx:
        wanted = {device: facts.word_of(wish, "pump") for device, wish in tx.wishes().items()}
    followed = {name: fleet.heard[name].models["pump"] for name in wanted}
    assert followed == wanted, seed


def check(fleet: Fleet, seed: int) -> None:
    """What holds after each step, whatever went before."""
    every = fleet.rollouts()
    owners: dict[str, list[int]] = {}
    for rollout in every:
        if rollout.phase in ACTIVE and rollout.phase != "rolling-back":
            for device in rollout.members:
                owners.setdefault(device, []).append(rollout.id)
        if rollout.phase == "running":
            with fleet.store.reading() as tx:
                found = words.status(tx, rollout.id, fleet.now_ms)
            assert len(rollout.members) <= found.each[rollout.wave].size, seed
    assert all(len(some) == 1 for some in owners.values()), (seed, owners)
