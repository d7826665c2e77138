"""What triggers set off is kept once, in every store, and a store of before gets the tables."""

from __future__ import annotations

from dataclasses import replace

from edge_fleet.store.base import AsideKind, AsideSeen
from edge_fleet.store.firings import Firing, LabelEvidence
from edge_fleet.store.sql import SqlStore

BUNDLE = "ab" * 32
FIRST = Firing(
    key="k1", trigger="retrain", number=1, model="boiler", version="1.0", bundle=BUNDLE,
    alarms=(3, 4), rows=500, at_ms=1000, state="waiting", next_ms=1000, evidence=b"{}",
)  # fmt: skip


def test_a_firing_is_kept_once_under_its_number(any_store: SqlStore) -> None:
    with any_store.transaction() as tx:
        assert tx.add_firing(FIRST)
        assert not tx.add_firing(replace(FIRST, key="k2")), "another process was faster"
        assert tx.add_firing(replace(FIRST, key="k3", number=2, at_ms=2000))
        assert tx.add_firing(replace(FIRST, key="k4", trigger="other"))
    done = replace(FIRST, state="done", attempts=3, done_ms=1500, detail="200\0" + "x" * 9000)
    with any_store.transaction() as tx:
        tx.put_firing(done)
    with any_store.reading() as tx:
        assert [f.key for f in tx.firings("retrain")] == ["k3", "k1"]
        assert [f.key for f in tx.open_firings("retrain")] == ["k3"]
        assert len(tx.firings(limit=2)) == 2
        kept = tx.firings("retrain")[1]
    assert replace(kept, detail="") == replace(done, detail="")
    assert len(kept.detail) == 8000 and "\0" not in kept.detail


def test_old_firings_are_those_that_nothing_is_counted_from(any_store: SqlStore) -> None:
    other = "cd" * 32
    with any_store.transaction() as tx:
        for number, (state, bundle) in enumerate(
            [
                ("done", BUNDLE), ("failed", BUNDLE), ("done", other), ("active", BUNDLE),
                ("waiting", BUNDLE), ("done", BUNDLE), ("failed", BUNDLE), ("done", BUNDLE),
            ], 1,
        ):  # fmt: skip
            tx.add_firing(
                replace(FIRST, key=f"k{number}", number=number, at_ms=number, state=state,
                        bundle=bundle)
            )  # fmt: skip
        tx.add_firing(replace(FIRST, key="other", trigger="other", state="done"))

    def old(before_ms: int) -> list[str]:
        with any_store.reading() as tx:
            return [f.key for f in tx.old_firings("retrain", before_ms)]

    assert (old(1), old(6), old(10_000)) == ([], ["k1", "k2"], ["k1", "k2", "k6"])
    with any_store.transaction() as tx:
        assert tx.old_firings("retrain", 2) == [replace(FIRST, at_ms=1, state="done", evidence=b"")]
        tx.drop_firings(["k1", "k2"])
    assert old(10_000) == ["k6"]


def test_bets_on_labels_are_kept_by_bundle(any_store: SqlStore) -> None:
    first = LabelEvidence(BUNDLE, b"state", wrong=1, rows=9, updated_ms=5)
    with any_store.transaction() as tx:
        tx.put_label_evidence([first])
        tx.put_label_evidence([replace(first, wrong=2, alarm=7, risen=True)])
        tx.put_label_evidence([])
    with any_store.reading() as tx:
        found = tx.label_evidence([BUNDLE, "cd" * 32])
    assert found == {BUNDLE: replace(first, wrong=2, alarm=7, risen=True)}


def test_a_record_beside_is_new_once(any_store: SqlStore) -> None:
    seen = AsideSeen("pi-1", 1, 7, AsideKind.LABELLED, BUNDLE, 90, b"bytes")
    with any_store.transaction() as tx:
        assert tx.add_asides([seen, seen]) == [seen]
        assert tx.add_asides([seen, replace(seen, seq=8)]) == [replace(seen, seq=8)]
        assert tx.add_asides([replace(seen, seq=9, kind=AsideKind.SHADOW, device="pi-2")])
        tx.add_asides([replace(seen, device="pi-3", received_ms=91)])
        assert [tx.labelling_streams(since) for since in (0, 91, 92)] == [2, 1, 0]
