"""Labels that come late raise an alarm of their own kind, once, within the fleet's promise."""

from __future__ import annotations

import dataclasses
import json

import msgspec
import numpy as np
import pytest
from fleet_kit import Packed
from typer.testing import CliRunner

from edge_contract import aside
from edge_contract import manifest as manifests
from edge_contract.profile import SCORE_BINS
from edge_contract.telemetry import pack_counts
from edge_fleet.cli import app
from edge_fleet.drift import explain
from edge_fleet.drift.budget import Budget
from edge_fleet.error_watch import ErrorWatch
from edge_fleet.library import Library
from edge_fleet.store.base import Alarm, AsideKind, AsideSeen
from edge_fleet.store.sql import SqlStore

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
BUDGET = Budget(1.0, 3600)


def graded(packed: Packed, accuracy: float = 0.8) -> Packed:
    metric = manifests.Metric(
        name="accuracy", original=accuracy, bundle=accuracy, low=accuracy - 0.02,
        high=accuracy + 0.02,
    )  # fmt: skip
    manifest = manifests.decode(packed.manifest_bytes)
    data = manifests.encode(msgspec.structs.replace(manifest, metrics=(metric,)))
    return dataclasses.replace(packed, manifest_bytes=data)


def learn(store: SqlStore, packed: Packed) -> None:
    entry = manifests.decode(packed.manifest_bytes).file(manifests.PROFILE_FILE)
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, 1)
        tx.put_blob(entry.sha256, packed.stored, 1)


def labels(
    packed: Packed, seq: int, wrong: int, right: int, *, device: str = "pi-1", kind: str = "label"
) -> AsideSeen:
    bins = SCORE_BINS if kind == "label" else aside.DIFFERENCE_BUCKETS
    counts = np.zeros((2, 2, bins), dtype=np.int64)
    counts[0, 1, -1], counts[1, 1, -1] = wrong, right
    flat = counts.reshape(-1) if kind == "label" else counts[0].reshape(-1)
    made = aside.Labelled(
        device=device, boot=1, seq=seq, model="boiler", version="1.0",
        bundle=bytes.fromhex(packed.digest), start_ms=NOW_MS, end_ms=NOW_MS, synchronised=True,
        kind=kind, labels=2, bins=bins, unit=1.0, counts=pack_counts(flat),
    )  # type: ignore[arg-type]  # fmt: skip
    at_ms = NOW_MS + seq * HOUR_MS
    return AsideSeen(device, 1, seq, AsideKind.LABELLED, packed.digest, at_ms, aside.encode(made))


def come(store: SqlStore, seen: AsideSeen) -> list[Alarm]:
    """One record arrives at a collector that was just started."""
    with store.transaction() as tx:
        fresh = tx.add_asides([seen])
        return ErrorWatch(Library(), BUDGET).count(tx, fresh, seen.received_ms)


def test_an_alarm_of_labels_that_waited_for_their_profile_opens_when_it_is_raised(
    store: SqlStore, packed: Packed
) -> None:
    ours = graded(packed)
    for seq in range(1, 40):
        assert come(store, labels(ours, seq, 10, 0)) == []
    learn(store, ours)
    [alarm] = come(store, labels(ours, 40, 10, 0))
    assert alarm.opened_ms == NOW_MS + 40 * HOUR_MS
    assert alarm.since_ms < NOW_MS + 20 * HOUR_MS


def drawn(rng: np.random.Generator, rate: float, rows: int = 10) -> tuple[int, int]:
    wrong = int(rng.binomial(rows, rate))
    return wrong, rows - wrong


def test_a_risen_error_rate_raises_one_alarm_that_explains_itself(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    """At most 22 % wrong in the build; 10 % of ten labels an hour, then half of them."""
    ours = graded(packed)
    learn(any_store, ours)
    alarms = [a for seq in range(40) for a in come(any_store, labels(ours, seq, *drawn(rng, 0.1)))]
    assert alarms == []
    for seq in range(40, 200):
        found = come(any_store, labels(ours, seq, *drawn(rng, 0.5)))
        assert come(any_store, labels(ours, seq, 10, 0)) == [], "a record that came counts once"
        alarms += found
        if found:
            break
    [alarm] = alarms
    print(f"found after {seq - 40} records")
    assert seq < 100
    assert (alarm.source, alarm.scope, alarm.device) == ("labels", "fleet", "(all devices)")
    assert abs((alarm.since_ms - NOW_MS) / HOUR_MS - 40) < 12
    said = explain.decode(alarm.explanation)
    assert said.kind == "errors-up" and "at most 22 % were in the build" in said.text
    assert said.cells[0].cell == "wrong" and said.cells[0].after > 0.3
    assert alarm.log_threshold == BUDGET.log_thresholds({"labels": 1})["labels"]
    with any_store.reading() as tx:
        placed = tx.label_evidence([ours.digest])[ours.digest]
        assert tx.alarms(open_only=True) == [alarm]
    assert placed.risen and placed.rows == 10 * (seq + 1) and placed.alarm == alarm.id
    assert come(any_store, labels(ours, 500, 10, 0)) == [], "it is open already"
    with any_store.transaction() as tx:
        tx.resolve([alarm.id], NOW_MS, "known")
    later = [come(any_store, labels(ours, seq, 8, 2)) for seq in range(501, 531)]
    assert later[0] == [], "its bets began anew"
    assert sum(map(len, later)) == 1


def test_a_quiet_fleet_keeps_the_promise(packed: Packed, seed: int) -> None:
    """Each stream a device; the rate at the very edge of what is no alarm; a month of hours."""
    from edge_fleet.error_watch import detector_of

    rng = np.random.default_rng(seed)
    detector = detector_of(manifests.decode(graded(packed).manifest_bytes))
    assert detector is not None
    streams, hours = 400, 720
    threshold = BUDGET.log_thresholds({"labels": 1})["labels"]
    state, crossed = detector.start(streams), np.zeros(streams, dtype=bool)
    for _ in range(hours):
        rows = rng.poisson(5, streams).astype(float)
        wrong = rng.binomial(rows.astype(int), 0.22).astype(float)
        state = detector.advance(state, wrong, rows)
        crossed |= detector.level(state) >= threshold
    assert crossed.mean() <= 0.1, "a tenth of one false alarm a month for each such fleet"


def test_labels_from_before_anybody_bet_are_bet_on_with_the_next(
    store: SqlStore, packed: Packed
) -> None:
    ours = graded(packed)
    with store.transaction() as tx:
        for seq in range(30):
            tx.add_asides([labels(ours, seq, 9, 1)])
    assert come(store, labels(ours, 30, 9, 1)) == [], "its profile is not known yet"
    learn(store, ours)
    [alarm] = come(store, labels(ours, 31, 9, 1))
    assert alarm.since_ms == NOW_MS


@pytest.mark.parametrize("why", ["no accuracy", "values"])
def test_what_cannot_be_held_to_a_rate_is_not_watched(
    store: SqlStore, packed: Packed, why: str
) -> None:
    ours = packed if why == "no accuracy" else graded(packed)
    learn(store, ours)
    kind = "label" if why == "no accuracy" else "value"
    assert [come(store, labels(ours, seq, 50, 0, kind=kind)) for seq in range(20)] == [[]] * 20


def test_the_alarm_stands_in_the_list_with_the_others(
    store: SqlStore, db: str, packed: Packed
) -> None:
    ours = graded(packed)
    learn(store, ours)
    for seq in range(30):
        come(store, labels(ours, seq, 9, 1))
    told = CliRunner().invoke(app, ["drift", "--db", db, "--json"])
    [alarm] = json.loads(told.output)["alarms"]
    assert (alarm["feature"], alarm["kind"], alarm["source"]) == (
        "error rate", "errors-up", "labels",
    )  # fmt: skip
    assert "labels say wrong" in CliRunner().invoke(app, ["drift", "--db", db]).output
