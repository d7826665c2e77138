"""Rows of several inputs in time: staleness, wrong clocks, order, retained messages, triggers."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.bindings.bound import Bound
from edge_agent.bindings.join import Moment
from edge_agent.bindings.payloads import Decoded
from edge_agent.bindings.settings import Binding
from edge_agent.bindings.sparkplug import Names

WALL = 1_795_255_200.0


class Bench:
    """A binding with a clock of its own; topics ``a``, ``b`` for features of these names."""

    def __init__(self, inputs: dict[str, dict[str, Any]] | None = None, **settings: Any) -> None:
        inputs = inputs or {"a": {}, "b": {}}
        whole = {
            name: {"topic": name, "field": "/v", **source} if "value" not in source else source
            for name, source in inputs.items()
        }
        self.bound = Bound(
            msgspec.convert({"model": "m", "inputs": whole, **settings}, Binding), Names({"t"}), 0.0
        )

    def say(
        self,
        topic: str,
        value: Any,
        at: float,
        *,
        retained: bool = False,
        wall: float | None = WALL,
        **more: Any,
    ) -> None:
        payload = json.dumps({"v": value, **more}).encode()
        moment = Moment(at, None if wall is None else wall + at)
        self.bound.take(Decoded(topic, payload), {topic}, moment, retained=retained)

    def odd(self) -> dict[str, int]:
        return dict(self.bound.report("", connected=True).odd)


def test_a_stale_value_is_missing_and_its_age_is_told() -> None:
    bench = Bench({"a": {"stale": "10s"}, "b": {}})
    bench.say("a", 1, 0.0)
    bench.say("b", 2, 0.0)
    assert bench.bound.row(10.0).values == {"a": 1.0, "b": 2.0}
    row = bench.bound.row(10.5)
    assert row.values == {"a": None, "b": 2.0}
    assert row.missing == {"a": "stale: 10.5 s old"}
    assert row.ages_s == {"a": 10.5, "b": 10.5}


def test_the_bindings_limit_holds_where_the_input_has_none() -> None:
    bench = Bench({"a": {"stale": "10s"}, "b": {}}, stale="1s")
    bench.say("a", 1, 0.0)
    bench.say("b", 2, 0.0)
    assert list(bench.bound.row(5.0).missing) == ["b"]


def test_a_null_takes_the_last_value_away_and_leaves_a_window_as_it_is() -> None:
    bench = Bench({"a": {}, "b": {"aggregate": "mean", "over": 5, "stale": "10s"}})
    for topic in "ab":
        bench.say(topic, 4, 0.0)
        bench.say(topic, None, 8.0)
    row = bench.bound.row(9.0)
    assert (row.values, row.missing) == ({"a": None, "b": 4.0}, {"a": "null"})
    assert "b" in bench.bound.row(11.0).missing, "a null is no fresh sample"


def test_the_time_in_a_payload_counts_and_only_backwards() -> None:
    bench = Bench({"a": {"time": "/t", "stale": "30s"}, "b": {"value": 1.0}})
    bench.say("a", 1, 100.0, t=WALL + 80.0)
    assert bench.bound.row(100.0).ages_s["a"] == pytest.approx(20.0)
    bench.say("a", 2, 101.0, t=WALL + 9_000.0)
    assert bench.bound.row(101.0).ages_s["a"] == pytest.approx(0.0)
    assert bench.odd() == {"clock": 1}


def test_a_sample_that_is_older_than_one_that_is_there_is_late() -> None:
    bench = Bench({"a": {"time": "/t"}, "b": {"value": 1.0}})
    bench.say("a", 1, 100.0, t=WALL + 99.0)
    bench.say("a", 2, 101.0, t=WALL + 50.0)
    assert bench.bound.row(101.0).values["a"] == 1.0
    assert bench.odd() == {"late": 1}


def test_without_a_clock_that_is_kept_arrival_counts() -> None:
    bench = Bench({"a": {"time": "/t"}, "b": {"value": 1.0}})
    bench.say("a", 1, 100.0, wall=None, t=WALL - 9_999)
    assert bench.bound.row(100.0).ages_s["a"] == 0.0
    assert bench.odd() == {"clock": 1}


@pytest.mark.parametrize(
    ("source", "taken"),
    [
        ({}, True),
        ({"stale": "1h"}, False),
        ({"aggregate": "mean", "over": 3}, False),
        ({"stale": "1h", "time": "/t"}, True),
    ],
)
def test_a_retained_message_counts_where_its_age_is_known_or_does_not_matter(
    source: dict[str, Any], taken: bool
) -> None:
    bench = Bench({"a": source, "b": {"value": 1.0}})
    bench.say("a", 7, 100.0, retained=True, t=WALL + 90.0)
    assert (bench.bound.row(100.0).values["a"] == 7.0) == taken
    assert bench.odd() == ({} if taken else {"retained": 1})
    assert bench.bound.due_s is None, "what was retained asks for no prediction"


def test_text_has_no_mean() -> None:
    bench = Bench({"a": {"aggregate": "mean", "over": 3}, "b": {"value": 1.0}})
    bench.say("a", "high", 1.0)
    assert bench.odd() == {"unreadable": 1}


def test_a_spectrum_waits_for_all_its_samples_and_reads_them_from_one_message() -> None:
    source = {"aggregate": "band", "over": 64, "rate_hz": 64.0, "band": [7.5, 8.5]}
    bench = Bench({"a": source, "b": {"value": 1.0}})
    tone = np.sin(2 * np.pi * 8 * np.arange(64) / 64)
    bench.say("a", tone[:32].tolist(), 1.0)
    assert bench.bound.row(1.0).missing == {"a": "32 of 64 samples"}
    bench.say("a", tone[32:].tolist(), 1.5)
    assert bench.bound.row(1.5).values["a"] == pytest.approx(0.5)


def test_samples_that_came_in_one_list_lie_evenly_in_time() -> None:
    source = {"aggregate": "slope", "over": 100, "rate_hz": 10.0}
    bench = Bench({"a": source, "b": {"value": 1.0}})
    bench.say("a", [float(i) for i in range(20)], 5.0)
    assert bench.bound.row(5.0).values["a"] == pytest.approx(10.0)


def test_a_count_is_zero_when_nothing_comes() -> None:
    bench = Bench({"a": {"aggregate": "count", "over": "10s"}, "b": {}})
    bench.say("b", 1, 100.0)
    assert bench.bound.row(100.0).values == {"a": 0.0, "b": 1.0}
    for at in (101.0, 102.0, 109.0):
        bench.say("a", 1, at)
    assert bench.bound.row(110.0).values["a"] == 3.0
    assert bench.bound.row(111.5).values["a"] == 2.0
    assert bench.bound.row(500.0).values["a"] == 0.0


# -- triggers ------------------------------------------------------------------------------------


def test_at_most_puts_a_prediction_off_and_loses_none() -> None:
    bench = Bench(at_most="10s")
    bench.say("a", 1, 0.0)
    bench.say("b", 1, 0.0)
    assert bench.bound.due(0.0) is not None
    for at in np.arange(0.5, 9.9, 0.1):
        bench.say("a", float(at), float(at))
        assert bench.bound.due(float(at)) is None
    row = bench.bound.due(10.0)
    assert row is not None and row.values["a"] == pytest.approx(9.8, abs=0.1)


def test_a_rate_does_not_catch_up_what_it_slept_through() -> None:
    bench = Bench(every="10s")
    bench.say("a", 1, 0.0)
    bench.say("b", 1, 0.0)
    assert bench.bound.due(9.9) is None
    assert bench.bound.due(10.0) is not None
    assert bench.bound.due(1000.0) is not None
    assert bench.bound.due(1000.1) is None
    assert bench.bound.due_s == 1010.0


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40), st.floats(0, 5))
def test_on_change_each_prediction_is_more_than_the_deadband_from_the_last(
    values: list[float], deadband: float
) -> None:
    bench = Bench({"a": {"deadband": deadband}, "b": {"value": 1.0}}, on="change")
    predicted: list[float] = []
    for i, value in enumerate(values):
        bench.say("a", value, float(i))
        row = bench.bound.due(float(i))
        if row is not None:
            predicted.append(float(row.values["a"]))  # type: ignore[arg-type]
    assert predicted[0] == values[0]
    assert all(abs(b - a) > deadband for a, b in itertools.pairwise(predicted))
    assert abs(values[-1] - predicted[-1]) <= deadband


def test_nothing_seen_at_all_is_no_row_even_where_missing_values_are_the_models_matter() -> None:
    bench = Bench({"a": {}, "b": {"value": 1.0}}, every="1s", on_missing="predict")
    assert bench.bound.due(1.0) is None
    bench.say("a", None, 1.5)
    row = bench.bound.due(2.0)
    assert row is not None and row.values == {"a": None, "b": 1.0}


def test_the_death_of_a_sparkplug_device_takes_its_values_away() -> None:
    source = {"topic": "spBv1.0/g/+/n/d", "format": "sparkplug", "field": "t"}
    bench = Bench({"a": source})
    # A metric "t" of type Double (10): 1.5, as the protobuf library writes it.
    birth = bytes.fromhex("120e0a0174200a69") + bytes.fromhex("000000000000f83f")

    def say(kind: str, payload: bytes, at: float) -> None:
        message = Decoded(f"spBv1.0/g/{kind}/n/d", payload)
        bench.bound.take(message, {source["topic"]}, Moment(at, None), retained=False)

    say("DBIRTH", birth, 1.0)
    assert bench.bound.row(1.0).values == {"a": 1.5}
    say("DDEATH", b"", 2.0)
    assert bench.bound.row(2.0).missing == {"a": "null"}
