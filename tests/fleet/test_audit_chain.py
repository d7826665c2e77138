"""The audit is added to and nothing else; who gets round that is seen."""

import dataclasses
import threading

import pytest
import sqlalchemy as sa

from edge_contract.errors import MachineFault
from edge_fleet.store import chain, sql
from edge_fleet.store.audit import Entry, audit
from edge_fleet.store.audit_rows import audits
from edge_fleet.store.sql import SqlStore


def checked(store: SqlStore, head: str = "") -> chain.Checked:
    with store.reading() as tx:
        return chain.check(tx.linked_audits(), head)


def say(store: SqlStore, actor: str, count: int = 1) -> None:
    for number in range(count):
        with store.transaction() as tx:
            audit(
                tx, number, actor, action="alarm.resolve", subject=f"alarm {number}", detail="é\0"
            )


def test_a_chain_holds_and_knows_a_head_noted_earlier(any_store: SqlStore) -> None:
    assert checked(any_store) == chain.Checked(0, "00" * 32, None, ())
    say(any_store, "ann", 3)
    early = checked(any_store)
    assert (early.entries, early.sound) == (3, True)
    with any_store.transaction() as tx:
        tx.add_audit([Entry(9, "bob", "a", "b"), Entry(9, "bob", "a", "c")])
    later = checked(any_store, early.head)
    assert (later.entries, later.held, later.sound) == (5, True, True)
    assert later.head != early.head
    assert not checked(any_store, "ab" * 32).sound, "a head that never was: the end was cut off"


@pytest.mark.parametrize(
    "statement", [audits.update().values(actor="nobody"), audits.delete()], ids=["change", "delete"]
)
def test_the_database_refuses_to_change_what_was_done(
    any_store: SqlStore, any_db: str, statement: sa.Executable
) -> None:
    say(any_store, "ann", 2)
    engine = sa.create_engine(sql._parse(any_db))
    with pytest.raises(sa.exc.DBAPIError, match="only added to"), engine.begin() as connection:
        connection.execute(statement)
    engine.dispose()
    assert (checked(any_store).entries, checked(any_store).sound) == (2, True)


@pytest.mark.parametrize(
    ("statement", "at"),
    [
        ("UPDATE audit SET actor = 'eve' WHERE id = 2", 2),
        ("UPDATE audit SET at_ms = at_ms + 1 WHERE id = 1", 1),
        ("DELETE FROM audit WHERE id = 2", 3),
        ("UPDATE audit SET link = zeroblob(32) WHERE id = 2", 2),
    ],
)
def test_who_gets_round_the_triggers_is_seen(
    store: SqlStore, db: str, statement: str, at: int
) -> None:
    say(store, "ann", 4)
    engine = sa.create_engine(sql._parse(db))
    with engine.begin() as connection:
        for name in ("audit_no_update", "audit_no_delete"):
            connection.execute(sa.text(f"DROP TRIGGER {name}"))
        connection.execute(sa.text(statement))
    engine.dispose()
    found = checked(store)
    assert not found.sound
    assert found.faults[0].startswith(f"entry {at} does not follow")


def test_writers_at_once_make_one_chain(any_store: SqlStore) -> None:
    errors: list[MachineFault] = []

    def write(actor: str) -> None:
        try:
            say(any_store, actor, 8)
        except MachineFault as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(f"writer {at}",)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    found = checked(any_store)
    assert (found.entries, found.faults) == (32, ())


def test_each_field_is_part_of_the_link() -> None:
    one = Entry(1, "a", "b", "c", "d")
    for field in ("at_ms", "actor", "action", "subject", "detail"):
        other = dataclasses.replace(one, **{field: 2 if field == "at_ms" else "x"})
        assert chain.link(chain.BEGIN, one) != chain.link(chain.BEGIN, other)
    joined = Entry(1, "a", "bc", "", "d"), Entry(1, "ab", "c", "", "d")
    assert chain.link(chain.BEGIN, joined[0]) != chain.link(chain.BEGIN, joined[1])
