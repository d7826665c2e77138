"""The time that signatures are judged at: one function, every combination, and any clock at all."""

from __future__ import annotations

import datetime
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.delivery.freshness import (
    BUILT_AT,
    SIGNED_AT_FORMAT,
    Judgement,
    Profile,
    freshness,
    raised,
)

NOW = datetime.datetime(2026, 5, 4, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
SECOND = datetime.timedelta(seconds=1)
FLOOR = NOW - 10 * DAY
ANCIENT = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
FUTURE = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)

times = st.datetimes(
    min_value=datetime.datetime(1970, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime.datetime(2150, 1, 1),  # noqa: DTZ001
    timezones=st.just(datetime.UTC),
)
profiles = st.sampled_from(["home", "managed"])

# clock, kept?, floor, profile -> judged at, reported as, and leniently at
TABLE: list[tuple[datetime.datetime, bool, datetime.datetime, Profile, Judgement]] = [
    # a clock that nobody keeps is not looked at, wherever it stands
    *(
        (clock, False, FLOOR, profile, Judgement(FLOOR, "unverified"))
        for clock, profile in itertools.product(
            (ANCIENT, BUILT_AT, NOW, FUTURE), ("home", "managed")
        )
    ),
    # without any floor yet, the agent's own build is one
    (NOW, False, ANCIENT, "home", Judgement(BUILT_AT, "unverified")),
    (ANCIENT, False, BUILT_AT, "managed", Judgement(BUILT_AT, "unverified")),
    # a kept clock decides; only home is lenient, at the last time a publisher vouched for
    (NOW, True, FLOOR, "managed", Judgement(NOW, "verified")),
    (NOW, True, FLOOR, "home", Judgement(NOW, "verified", FLOOR)),
    (NOW, True, ANCIENT, "home", Judgement(NOW, "verified", BUILT_AT)),
    # a floor in the future does not outvote a kept clock
    (NOW, True, NOW + 99 * DAY, "managed", Judgement(NOW, "verified")),
    (NOW, True, NOW + 99 * DAY, "home", Judgement(NOW, "verified", NOW)),
    # a clock that claims to be kept and stands before this program was built is not believed
    (ANCIENT, True, FLOOR, "managed", Judgement(FLOOR, "unverified")),
    (BUILT_AT - SECOND, True, FLOOR, "home", Judgement(FLOOR, "unverified")),
    (BUILT_AT, True, BUILT_AT, "managed", Judgement(BUILT_AT, "verified")),
    # a time service that lies about the future expires everything, and is forgotten afterwards
    (FUTURE, True, FLOOR, "managed", Judgement(FUTURE, "verified")),
    (FUTURE, True, FLOOR, "home", Judgement(FUTURE, "verified", FLOOR)),
]


@pytest.mark.parametrize(("clock", "kept", "floor", "profile", "expected"), TABLE)
def test_what_the_rules_say(
    clock: datetime.datetime,
    kept: bool,
    floor: datetime.datetime,
    profile: Profile,
    expected: Judgement,
) -> None:
    assert freshness(clock, synchronised=kept, floor=floor, profile=profile) == expected


@given(one=times, other=times, floor=times, profile=profiles)
def test_a_clock_that_nobody_keeps_changes_nothing_at_all(
    one: datetime.datetime, other: datetime.datetime, floor: datetime.datetime, profile: Profile
) -> None:
    said = [
        freshness(clock, synchronised=False, floor=floor, profile=profile) for clock in (one, other)
    ]
    assert said[0] == said[1] == Judgement(max(floor, BUILT_AT), "unverified")
    floors = {
        raised(floor, "2026-05-01T00:00:00Z", now=clock, synchronised=False, limit=FUTURE)
        for clock in (one, other)
    }
    assert len(floors) == 1


@given(now=times, kept=st.booleans(), floor=times, profile=profiles)
def test_nothing_is_judged_before_the_build_nor_leniently_later_than_strictly(
    now: datetime.datetime, kept: bool, floor: datetime.datetime, profile: Profile
) -> None:
    rule = freshness(now, synchronised=kept, floor=floor, profile=profile)
    assert rule.at >= BUILT_AT
    assert rule.word in ("verified", "unverified")
    if rule.lenient_at is not None:
        assert BUILT_AT <= rule.lenient_at <= rule.at
        assert (profile, kept) == ("home", True)


@given(
    start=times,
    looks=st.lists(st.tuples(times, times, times), max_size=12),
)
def test_the_floor_never_falls_while_nobody_keeps_the_clock(
    start: datetime.datetime,
    looks: list[tuple[datetime.datetime, datetime.datetime, datetime.datetime]],
) -> None:
    """The clock jumps to any ``now``, timestamps say any ``signed_at``, ends lie anywhere."""
    floor = start
    for now, signed, limit in looks:
        said = signed.strftime(SIGNED_AT_FORMAT)
        after = raised(floor, said, now=now, synchronised=False, limit=limit)
        assert after >= floor
        assert after == floor or after < limit
        assert after <= max(floor, signed)
        floor = after


@given(floor=times, now=times, signed=times, limit=times, kept=st.booleans())
def test_no_clock_ever_raises_the_floor(
    floor: datetime.datetime,
    now: datetime.datetime,
    signed: datetime.datetime,
    limit: datetime.datetime,
    kept: bool,
) -> None:
    said = signed.strftime(SIGNED_AT_FORMAT)
    after = raised(floor, said, now=now, synchronised=kept, limit=limit)
    assert after <= max(floor, signed)
    if kept and now >= BUILT_AT:
        assert after <= now


@given(floor=times, signed=times, end=times, now=times)
def test_metadata_that_was_good_before_is_still_good_at_the_floor_that_it_raised(
    floor: datetime.datetime,
    signed: datetime.datetime,
    end: datetime.datetime,
    now: datetime.datetime,
) -> None:
    """Else one ``signed_at`` in the far future would expire all there is, for years."""
    said = signed.strftime(SIGNED_AT_FORMAT)
    after = raised(floor, said, now=now, synchronised=False, limit=end)
    if floor < end:
        assert after < end


@pytest.mark.parametrize(
    "said",
    ["2020-01-01T00:00:00Z", "", "rubbish", "9999-99-99T00:00:00Z", "None", "9" * 9000, "\0"],
)
def test_an_old_or_unreadable_signed_at_leaves_the_floor_where_it_is(said: str) -> None:
    assert raised(FLOOR, said, now=NOW, synchronised=False, limit=FUTURE) == FLOOR


def test_a_lie_about_the_time_is_bounded_by_the_metadata_and_healed_by_a_real_clock() -> None:
    limit = NOW + 100 * DAY
    said = "9999-01-01T00:00:00Z"
    poisoned = raised(FLOOR, said, now=NOW, synchronised=False, limit=limit)
    assert poisoned == limit - SECOND
    assert raised(poisoned, said, now=NOW, synchronised=True, limit=limit) == NOW
