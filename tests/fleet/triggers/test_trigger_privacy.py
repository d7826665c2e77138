"""What triggers send says no figure of fewer than k rows: looked at in the bytes that left."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
from fleet_kit import FLEET, Packed, draw, until
from hypothesis import given, settings
from hypothesis import strategies as st
from trigger_kit import NOW_MS, alarm
from typer.testing import CliRunner

from edge_contract import broker_url, trigger
from edge_contract import manifest as manifests
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_contract.topics import Topics
from edge_fleet import disclosure, estimating
from edge_fleet.alarm_disclosure import disclosed, safe
from edge_fleet.cli import app
from edge_fleet.drift import explain
from edge_fleet.drift.explain import Explanation
from edge_fleet.library import Known
from edge_fleet.quality.estimates import Estimate, of_enough
from edge_fleet.store.base import Alarm
from edge_fleet.store.sql import SqlStore
from edge_fleet.triggers import settings as trigger_settings
from edge_fleet.triggers.delivery import Place
from edge_fleet.triggers.runner import TriggerRun

K = 10
COLOUR = 2
FEW = 3
"""Rows of an unseen category, beside 497 of known ones."""


def known_of(packed: Packed) -> Known:
    return Known(packed.digest, manifests.decode(packed.manifest_bytes), packed.profile)


def explained(packed: Packed, at: int, counts: np.ndarray, entry: int | None = None) -> Explanation:
    """What the collector says of ``counts`` in the ``at``-th monitor."""
    known = known_of(packed)
    table = known.table.monitors[at]
    if entry is None:
        entry = explain.telling_entry(table, (counts @ table.log_e).astype(np.float32))
    return explain.explain(table, entry, counts, known.labels)


def seldom(packed: Packed) -> Explanation:
    """An alarm on the few rows of an unseen category themselves."""
    monitor = packed.profile.monitors[COLOUR]
    counts = np.zeros(monitor.cells, dtype=np.int64)
    unseen = monitor.regular + monitor.specials.index("unseen")
    counts[:3], counts[unseen] = (47, 150, 300), FEW
    table = known_of(packed).table.monitors[COLOUR]
    names = [table.components[each.component].name for each in table.entries]
    return explained(packed, COLOUR, counts, names.index("unseen"))


def raised(store: SqlStore, packed: Packed) -> int:
    made = alarm(
        packed, monitor=COLOUR, feature="colour", explanation=explain.encode(seldom(packed))
    )
    with store.transaction() as tx:
        return tx.add_alarm(made)


def fire(store: SqlStore, place: Place, text: str) -> None:
    [(name, rule)] = trigger_settings.read(text.encode()).triggers.items()
    [done] = TriggerRun(name, rule, store, place, lambda: 1.0).step()
    assert done.state in ("done", "active"), done.detail


def shares(evidence: trigger.Evidence) -> list[float]:
    [found] = evidence.alarms
    return [cell.after * found.rows for cell in found.cells]


def test_the_alarm_is_one_of_few_rows(packed: Packed) -> None:
    said = seldom(packed)
    assert "unseen categories: 0.6 % of rows" in said.text
    assert any(cell.cell == "unseen" and cell.after for cell in said.cells)


@pytest.mark.parametrize("own", ["", "k = 4", "k = 0"])
@pytest.mark.parametrize("action", ["webhook", "command"])
def test_bytes_that_leave_hold_no_few_rows(
    watched: SqlStore, packed: Packed, receiver: Any, place: Place, action: str, *, own: str
) -> None:
    raised(watched, packed)
    out = place.folder / "evidence.json"
    copy = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    words = json.dumps([sys.executable, "-c", copy, str(out)])
    does = {
        "webhook": f'webhook = {{ url = "{receiver.url}", secret_file = "hook.secret" }}',
        "command": f"command = {{ run = {words} }}",
    }[action]
    fire(watched, place, f"[triggers.t]\n{own}\n{does}")
    data = receiver.came[0][2] if action == "webhook" else out.read_bytes()
    found = trigger.decode(data)
    if own != "k = 0":
        assert b"0.6 %" not in data and b"0.006" not in data
        assert all(rows == 0 or rows >= K - 0.01 for rows in shares(found)), data
        assert found.alarms[0].what == "unseen" and found.alarms[0].rows == 500
        assert any(c.cell.startswith("other: ") and "unseen" in c.cell
                   for c in found.alarms[0].cells)  # fmt: skip
    else:
        assert b"0.6 %" in data and FEW in [round(rows, 2) for rows in shares(found)]


def test_drift_is_printed_for_others_where_a_k_is_given(
    watched: SqlStore, packed: Packed, db: str
) -> None:
    raised(watched, packed)
    plain, merged = (
        json.loads(CliRunner().invoke(app, ["drift", "--json", "--db", db, *words]).output)
        for words in ([], ["--k", "10"])
    )
    assert plain["alarms"][0]["what"] == "unseen categories: 0.6 % of rows, was 0 %"
    assert merged["alarms"][0]["what"] == "unseen"
    bars = [bar["after"] * merged["alarms"][0]["rows"] for bar in merged["alarms"][0]["bars"]]
    assert bars and all(rows == 0 or rows >= K - 0.01 for rows in bars)
    assert len(plain["levels"]) == len(merged["levels"]) == 2 * len(packed.profile.monitors)
    none = json.loads(CliRunner().invoke(app, ["drift", "--json", "--db", db, "--k", "501"]).output)
    assert none["levels"] == [] and none["alarms"][0]["rows"] == 0


def test_quality_is_printed_for_others_where_a_k_is_given(watched: SqlStore) -> None:
    """500 rows came, in one window."""
    [plain] = estimating.qualities(watched, NOW_MS, period_ms=86_400_000)
    merged = estimating.of_enough(plain, 501)
    assert (plain.rows, merged.rows, estimating.of_enough(plain, 500)) == (500, 0, plain)
    by_score = [each for each in merged.estimates if each.method == "score"]
    assert by_score and all(each.refused == "fewer than 501 rows for it" for each in by_score)
    assert any(each.value is not None for each in plain.estimates)


def test_neither_do_alerts(watched: SqlStore, packed: Packed, receiver: Any, place: Place) -> None:
    raised(watched, packed)
    fire(watched, place, f'[triggers.page]\nalertmanager = {{ url = "{receiver.url}" }}')
    [(path, _, data)] = receiver.came
    assert path == "/api/v2/alerts" and b"colour: unseen" in data and b"0.6 %" not in data


def test_nor_does_a_message(
    watched: SqlStore, packed: Packed, place: Place, any_broker: Any
) -> None:
    raised(watched, packed)
    fire(watched, place, f"[triggers.say]\nmqtt = {{ broker = '{any_broker.url}', retain = true }}")
    heard: list[bytes] = []
    link = Link(
        LinkConfig(broker_url.parse(any_broker.url), client_id="test-listener"),
        on_message=lambda message: heard.append(message.payload),
    )
    link.start(60)
    link.subscribe([Topics(FLEET).trigger("say")]).wait(60)
    until(lambda: heard, "the retained message")
    link.stop()
    assert b"0.6 %" not in heard[0] and trigger.decode(heard[0]).alarms[0].what == "unseen"


def test_the_file_s_k_is_that_of_triggers_without_their_own() -> None:
    text = "k = 25\n[triggers.a]\ncommand = { run = ['x'] }\n[triggers.b]\nk = 0\n"
    found = trigger_settings.read((text + "command = { run = ['x'] }").encode())
    assert [rule.k for rule in found.triggers.values()] == [25, 0]
    plain = trigger_settings.read(b"[triggers.a]\ncommand = { run = ['x'] }")
    assert plain.triggers["a"].k == disclosure.K


def test_a_figure_of_few_rows_is_neither_told_nor_grounds() -> None:
    some = Estimate(figure="accuracy", method="labels", value=0.5, low=0.4, high=0.6, rows=24)
    told = of_enough(some, 25)
    assert (told.value, told.low, told.rows, told.refused) == (
        None, None, 0.0, "fewer than 25 rows for it"
    )  # fmt: skip
    assert of_enough(some, 24) is some
    none = Estimate(figure="auc", method="score", value=None, refused="the model gives no scores")
    assert of_enough(none, 24) is none


@pytest.mark.parametrize("why", ["few rows", "unknown bundle", "an old store"])
def test_what_cannot_be_merged_says_its_kind_alone(packed: Packed, why: str) -> None:
    rows = 8 if why == "few rows" else 500
    said = explained(packed, 0, packed.counts(draw(np.random.default_rng(3), rows))[:37])
    bars = () if why == "an old store" else said.bars
    kept = Explanation(said.kind, said.text, said.rows, said.cells, bars, members=4, moved=2)
    found = safe(kept, 0, None if why == "unknown bundle" else known_of(packed), K)
    assert (found.text, found.cells, found.bars) == (f"{said.kind}, on 2 of 4 devices", (), ())
    assert found.rows == (0 if why == "few rows" else 500)


def test_an_alarm_by_labels_is_of_all_labels_or_says_no_figure(packed: Packed) -> None:
    said = Explanation("errors-up", "30 % of 20 labels", 20, ())
    assert safe(said, -1, known_of(packed), K) == said
    assert safe(said, -1, known_of(packed), 21).text == "errors-up"


def test_without_a_k_an_alarm_is_as_it_was(packed: Packed) -> None:
    kept: Alarm = alarm(packed)
    assert disclosed(kept, known_of(packed), 1) is kept


def cells_of(packed: Packed, at: int) -> int:
    return packed.profile.monitors[at].cells


@settings(max_examples=40, deadline=None)
@given(data=st.data(), at=st.integers(0, 3), k=st.integers(2, 40))
def test_what_is_told_is_a_function_of_the_merged_cells(
    packed: Packed, data: st.DataObject, at: int, k: int
) -> None:
    """Whatever was counted: parts of k rows or none; two worlds of equal parts are told as one."""
    monitor, known = packed.profile.monitors[at], known_of(packed)
    cell = st.one_of(st.just(0), st.integers(0, 12), st.integers(0, 5000))
    counts = np.array(
        data.draw(st.lists(cell, min_size=monitor.cells, max_size=monitor.cells)), dtype=np.int64
    )
    if not counts.any():
        return
    said = explained(packed, at, counts)
    found = safe(said, at, known, k)
    for bar in (*found.bars, *found.cells):
        rows = bar.after * found.rows
        assert rows < 0.5 or rows > k - 0.5, bar
    parts = disclosure.parts(monitor, counts, k)
    if any(0 < part.rows < k for part in parts) or not parts:
        assert found.bars == ()
        return
    assert sum(bar.after for bar in found.bars) == pytest.approx(1, abs=1e-4)
    moved = counts.copy()
    for part in parts:
        if len(part.cells) > 1:
            moved[list(part.cells)] = np.random.default_rng(1).permutation(counts[list(part.cells)])
    if disclosure.parts(monitor, moved, k) == parts and len(parts) < monitor.cells:
        other = explained(packed, at, moved)
        same = Explanation(said.kind, other.text, other.rows, other.cells, other.bars)
        assert safe(same, at, known, k) == found
