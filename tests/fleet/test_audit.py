"""Who did what: entries stand as they came, newest first, in every store."""

import pytest

from edge_fleet.store.audit import Entry, audit
from edge_fleet.store.sql import SqlStore


def test_entries_are_read_back_newest_first_by_pages_and_filters(any_store: SqlStore) -> None:
    with any_store.transaction() as tx:
        audit(tx, 9, "ann", action="rollout.start", subject="rollout 1", detail="pump 2.0")
        audit(tx, 3, "bob", action="rollout.pause", subject="rollout 1")  # a clock that went back
        audit(tx, 4, "ann", action="rollouts", subject="rollout 10", detail="x\0" + "é" * 5000)
    with any_store.reading() as tx:
        every = tx.audits_before((), 10)
        assert [(one.actor, one.action) for one in every] == [
            ("ann", "rollouts"), ("bob", "rollout.pause"), ("ann", "rollout.start"),
        ]  # fmt: skip
        assert every[0].detail == "x" + "é" * 1999, "what a column cannot hold is left out"
        assert tx.audits_before((every[0].id,), 1) == every[1:2]
        assert tx.audits_before((), 10, actor="ann") == [every[0], every[2]]
        assert tx.audits_before((), 10, action="rollout") == every[1:], "all of the kind"
        assert tx.audits_before((), 10, action="rollout.pause") == every[1:2]
        assert tx.audits_before((), 10, subject="rollout 1") == every[1:]


def test_what_was_not_kept_is_not_told_either(any_store: SqlStore) -> None:
    with pytest.raises(RuntimeError), any_store.transaction() as tx:
        audit(tx, 9, "ann", action="rollout.start", subject="rollout 1")
        raise RuntimeError
    with any_store.reading() as tx:
        assert tx.audits_before((), 10) == []
    assert Entry(1, "a", "b", "c").id == 0
