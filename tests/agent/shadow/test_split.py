"""A/B: a key always meets the same side, a share is a share, a candidate that fails is out."""

from __future__ import annotations

import pytest

from edge_agent import Model
from edge_agent.live import Live
from edge_agent.split import FAILURES_MAX, Split, met
from edge_contract import bundle as bundles
from edge_contract.errors import InputFault, MachineFault

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}
KEYS = [f"machine {n}" for n in range(4000)]


def test_one_key_always_meets_the_same_side_and_a_larger_share_only_adds() -> None:
    small, large = Split("2.0", salt="s", share=0.2), Split("2.0", salt="s", share=0.5)
    first = {key for key in KEYS if small.version_for(key)}
    assert first == {key for key in KEYS if small.version_for(key)}
    assert first < {key for key in KEYS if large.version_for(key)}


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9])
def test_a_share_of_keys_and_of_requests_without_one(share: float) -> None:
    split = Split("2.0", salt="other", share=share)
    five_deviations = 5 * (share * (1 - share) / len(KEYS)) ** 0.5
    for keys in (KEYS, [""] * len(KEYS)):
        found = sum(bool(split.version_for(key)) for key in keys) / len(keys)
        assert abs(found - share) < five_deviations


def test_the_ends_of_the_range_are_none_and_all() -> None:
    assert not any(met(key, "s", 0.0) for key in KEYS)
    assert all(met(key, "s", 1.0) for key in KEYS)


def test_another_candidate_is_tried_on_other_keys() -> None:
    one, two = ({key for key in KEYS if met(key, salt, 0.5)} for salt in ("a" * 64, "b" * 64))
    assert 0.2 < len(one & two) / len(KEYS) < 0.3


@pytest.fixture
def seat(tiny_bundle) -> Live:
    made = Live("pump", Model.from_bundle(bundles.read(tiny_bundle("1.0"))))
    made.put_beside(Model.from_bundle(bundles.read(tiny_bundle("2.0", seed=8))))
    return made


def version_of(seat: Live, key: str = "", version: str = "") -> str:
    with seat.use(version, key) as model:
        return model.manifest.version


def test_each_side_answers_its_share_and_a_version_by_name_is_that_version(seat: Live) -> None:
    seat.split = Split("2.0", salt="s", share=0.5)
    sides = {key: version_of(seat, key) for key in KEYS[:200]}
    assert set(sides.values()) == {"1.0", "2.0"}
    assert sides == {key: version_of(seat, key) for key in KEYS[:200]}
    assert {version_of(seat, key, "1.0") for key in KEYS[:50]} == {"1.0"}


def test_a_candidate_that_was_let_go_leaves_every_request_to_the_live_one(seat: Live) -> None:
    seat.split = Split("2.0", salt="s", share=1.0)
    assert version_of(seat) == "2.0"
    seat.take_away(seat.loaded["2.0"].digest)
    assert version_of(seat) == "1.0"


def test_a_candidate_that_fails_in_a_row_answers_nobody_any_more(seat: Live) -> None:
    seat.split = split = Split("2.0", salt="s", share=1.0)
    seat.loaded["2.0"].close()
    for _ in range(FAILURES_MAX):
        assert not split.ended
        with pytest.raises(MachineFault):
            seat.predict(ROW)
    assert "failed 5 times in a row" in split.ended
    assert seat.predict(ROW).label in ("bad", "good")


def test_bad_input_is_no_failure_of_the_candidate(seat: Live) -> None:
    seat.split = split = Split("2.0", salt="s", share=1.0)
    for _ in range(FAILURES_MAX + 1):
        with pytest.raises(InputFault):
            seat.predict({"temp": "hot"})
    assert not split.ended
