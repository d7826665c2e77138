"""The time that signatures are judged at: one function, every combination."""

from __future__ import annotations

import datetime

import pytest

from edge_agent.delivery.freshness import BUILT_AT, Judgement, Profile, freshness, raised

NOW = datetime.datetime(2026, 5, 4, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
FLOOR = NOW - 10 * DAY


@pytest.mark.parametrize("profile", ["home", "managed"])
def test_a_clock_that_nothing_disciplines_is_never_used(profile: Profile) -> None:
    for now in (BUILT_AT - 3650 * DAY, NOW, NOW + 3650 * DAY):
        judgement = freshness(now, synchronised=False, floor=FLOOR, profile=profile)
        assert judgement == Judgement(at=FLOOR, word="unverified")


def test_the_floor_is_never_before_the_agents_own_build() -> None:
    ancient = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert freshness(NOW, synchronised=False, floor=ancient, profile="home").at == BUILT_AT


def test_a_disciplined_clock_decides_and_only_home_is_lenient() -> None:
    assert freshness(NOW, synchronised=True, floor=FLOOR, profile="managed") == Judgement(
        at=NOW, word="verified"
    )
    assert freshness(NOW, synchronised=True, floor=FLOOR, profile="home") == Judgement(
        at=NOW, word="verified", lenient_at=FLOOR
    )


def test_a_floor_in_the_future_does_not_outvote_a_disciplined_clock() -> None:
    judgement = freshness(NOW, synchronised=True, floor=NOW + 99 * DAY, profile="home")
    assert judgement.at == NOW
    assert judgement.lenient_at == NOW


def test_the_floor_rises_with_verified_timestamps_and_never_falls() -> None:
    limit = NOW + 3650 * DAY
    later = raised(FLOOR, "2026-05-01T00:00:00Z", now=NOW, synchronised=False, limit=limit)
    assert later == datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)
    for said in ("2020-01-01T00:00:00Z", "", "rubbish", "9999-99-99T00:00:00Z"):
        assert raised(later, said, now=NOW, synchronised=False, limit=limit) == later


def test_a_lie_about_the_time_is_bounded_by_the_root_and_healed_by_a_real_clock() -> None:
    limit = NOW + 100 * DAY
    said = "9999-01-01T00:00:00Z"
    poisoned = raised(FLOOR, said, now=NOW, synchronised=False, limit=limit)
    assert poisoned == limit
    assert raised(poisoned, said, now=NOW, synchronised=True, limit=limit) == NOW
