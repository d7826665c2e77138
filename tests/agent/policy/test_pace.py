"""Whatever the clocks do, no cap is exceeded, every wait ends, and each is said."""

import random
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from edge_agent.delivery import pace
from edge_agent.delivery.pace import BATCH_BYTES, CLOCK_GRACE_S, Now, Room
from edge_agent.delivery.pacer import Pacer
from edge_agent.policy import Policy, hours, next_opening
from edge_contract.chunks import CHUNK_BYTES
from edge_contract.errors import InputFault

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PARIS = ZoneInfo("Europe/Paris")
ZONES = [UTC, PARIS, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kolkata"),
         ZoneInfo("America/Santiago"), ZoneInfo("Australia/Lord_Howe")]  # fmt: skip


def at(seconds: float = 0.0, local: datetime = NOON, *, synchronised: bool = True) -> Now:
    return Now(seconds, local, synchronised)


class World:
    """Two clocks that a test turns, and the policy's keeper across restarts."""

    def __init__(self, policy: Policy, path: Path, *, local: datetime = NOON, seed: int = 0):
        self.policy, self.path, self.seed = policy, path, seed
        self.monotonic_s, self.local, self.synchronised = 1000.0, local, True
        self.came: list[tuple[float, datetime, int]] = []
        self.boot()

    def now(self) -> Now:
        return Now(self.monotonic_s, self.local, self.synchronised)

    def boot(self) -> None:
        """Begin from what is on disk; what was in memory is gone."""
        self.pacer = Pacer(self.policy, self.path, now=self.now, rng=random.Random(self.seed))

    def passes(self, seconds: float) -> None:
        self.monotonic_s += seconds
        zone = self.local.tzinfo
        self.local = (self.local.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(zone)

    def download(self, size: int = CHUNK_BYTES) -> Room:
        """Ask for one chunk, and have it come when there is room."""
        room = self.pacer.room(size)
        if room.size_bytes:
            assert room.size_bytes >= size
            self.pacer.spent(size)
            self.came.append((self.monotonic_s, self.local, size))
        return room

    def per_date(self) -> dict[object, int]:
        sums: dict[object, int] = defaultdict(int)
        for _, local, size in self.came:
            sums[local.date()] += size
        return sums


# -- rate ------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(
    rate=st.integers(1_000, 5_000_000),
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, CHUNK_BYTES)), max_size=80),
)
def test_in_any_time_no_more_comes_than_the_rate_and_one_burst(
    rate: int, steps: list[tuple[float, int]]
) -> None:
    policy = Policy(rate_max=rate)
    state = pace.begin(policy, at())
    came: list[tuple[float, int]] = []
    now_s = 0.0
    for wait_s, size in steps:
        now_s += wait_s
        state, room = pace.room(policy, state, at(now_s), size)
        if room.size_bytes:
            take = max(size, min(room.size_bytes, 3 * size))
            state = pace.spend(state, take)
            came.append((now_s, take))
        else:
            assert room.wait == "rate"
            after = pace.room(policy, state, at(now_s + room.wait_s + 1e-6), size)[1]
            assert after.size_bytes >= size, "there is room after the wait that was named"
    for first in range(len(came)):
        total = 0
        for when, size in came[first:]:
            total += size
            assert total <= pace.burst(policy) + rate * (when - came[first][0]) + 1


def test_a_download_that_is_always_ready_uses_all_of_the_rate() -> None:
    policy = Policy(rate_max=200_000)
    state, now_s, came = pace.begin(policy, at()), 0.0, 0
    while now_s < 600:
        state, room = pace.room(policy, state, at(now_s), CHUNK_BYTES)
        if room.size_bytes:
            state, came = pace.spend(state, CHUNK_BYTES), came + CHUNK_BYTES
        else:
            now_s += room.wait_s + 1e-6
    assert came == pytest.approx(200_000 * 600, rel=0.01)


# -- the day ---------------------------------------------------------------------------------

JUMPS = st.sampled_from(
    [timedelta(0)] * 10
    + [timedelta(days=days) for days in (1, -1, -9000, 3650)]
    + [timedelta(hours=5)]
)


@settings(max_examples=150)
@given(
    cap=st.integers(CHUNK_BYTES, 12 * CHUNK_BYTES),
    steps=st.lists(
        st.tuples(JUMPS, st.sampled_from(["chunk", "chunk", "small", "cut", "restart", "hour"])),
        max_size=60,
    ),
)
def test_no_date_gets_more_than_the_cap_over_cuts_restarts_and_jumps(
    tmp_path_factory: pytest.TempPathFactory, cap: int, steps: list[tuple[timedelta, str]]
) -> None:
    path = tmp_path_factory.mktemp("day") / "download.json"
    world = World(Policy(daily_max=cap), path)
    ran_s = 0.0
    for jump, what in steps:
        world.local += jump
        match what:
            case "cut":
                world.boot()
            case "restart":
                world.pacer.rest()
                world.boot()
            case "hour":
                world.passes(3600)
                ran_s += 3600
            case _:
                world.download(CHUNK_BYTES if what == "chunk" else 1000)
    note(f"{world.per_date()}")
    if ran_s < pace.DAY_RUN_S:
        assert all(spent <= cap for spent in world.per_date().values())


def test_a_restart_in_order_gives_back_nothing_and_takes_nothing(tmp_path: Path) -> None:
    cap = 40 * CHUNK_BYTES
    world = World(Policy(daily_max=cap), tmp_path / "download.json")
    while world.download().size_bytes:
        world.pacer.rest()
        world.boot()
    assert world.per_date() == {NOON.date(): cap}


def test_a_cut_costs_no_more_than_what_was_asked_for_and_a_sixteenth(tmp_path: Path) -> None:
    cap = 64 * CHUNK_BYTES
    world = World(Policy(daily_max=cap), tmp_path / "download.json")
    cuts = 0
    while world.download().size_bytes:
        world.boot()
        cuts += 1
        assert world.per_date()[NOON.date()] <= cap
    assert cuts >= 3
    world = World(Policy(daily_max=cap), tmp_path / "other.json")
    world.download()
    world.boot()
    while world.download().size_bytes:
        pass
    assert sum(world.per_date().values()) >= cap - BATCH_BYTES - cap // 16 - CHUNK_BYTES


def test_the_cap_is_said_and_ends_at_midnight_of_the_zone(tmp_path: Path) -> None:
    local = datetime(2026, 10, 24, 23, tzinfo=PARIS)  # the night that has 25 hours
    world = World(Policy(daily_max=2 * CHUNK_BYTES), tmp_path / "d.json", local=local)
    assert world.download().size_bytes and world.download().size_bytes
    room = world.download()
    assert (room.size_bytes, room.wait, room.wait_s) == (0, "day", 3600.0)
    assert room.text == "daily cap of 246 kB reached, goes on at 00:00"
    assert room.until == datetime(2026, 10, 25, tzinfo=PARIS)
    world.passes(3599)
    assert not world.download().size_bytes
    world.passes(1)
    assert world.download().size_bytes and world.download().size_bytes
    assert world.download().wait_s == 25 * 3600


def test_metadata_is_counted_and_never_makes_the_sum_smaller(tmp_path: Path) -> None:
    world = World(Policy(daily_max=2 * CHUNK_BYTES), tmp_path / "d.json")
    world.pacer.spent(CHUNK_BYTES)  # a look, say
    assert world.download().size_bytes
    assert world.download().wait == "day"
    assert world.pacer.came_bytes == 2 * CHUNK_BYTES


def test_a_clock_that_stands_still_between_restarts_does_not_starve_the_device(
    tmp_path: Path,
) -> None:
    world = World(Policy(daily_max=CHUNK_BYTES), tmp_path / "d.json")
    world.synchronised = False
    assert world.download().size_bytes
    for _ in range(35):  # each runs an hour, always from noon of the same date
        assert len(world.came) == 1
        world.local = NOON
        world.boot()
        for _ in range(60):
            if world.download().size_bytes:
                return
            world.passes(60)
    raise AssertionError("35 hours of running were no day")


def test_an_account_that_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    for damage in (b"", b"{", b'{"schema":1,"days":[{"date":"x"}]}', b"\0" * 9000):
        path.write_bytes(damage)
        world = World(Policy(daily_max=CHUNK_BYTES), path)
        assert world.download().size_bytes
        assert not world.download().size_bytes


def test_without_a_daily_cap_nothing_is_written(tmp_path: Path) -> None:
    world = World(Policy(rate_max=10**6), tmp_path / "d.json")
    world.download()
    world.pacer.rest()
    assert list(tmp_path.iterdir()) == []


# -- slots -----------------------------------------------------------------------------------


def minutes(start: datetime, count: int) -> Iterable[datetime]:
    """Real minutes, as the wall clock of the zone shows them."""
    for minute in range(count):
        yield (start.astimezone(UTC) + timedelta(minutes=minute)).astimezone(start.tzinfo)


def allowed(texts: list[str], local: datetime) -> bool:
    """As a person reads the setting."""
    shown = f"{local:%H:%M}"
    for text in texts:
        start, end = text.split("-")
        inside = start <= shown < end if start < end else shown >= start or shown < end
        if inside:
            return True
    return False


CLOCK = st.builds(lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23),
                  st.sampled_from([0, 15, 30, 59]))  # fmt: skip
SLOT = st.tuples(CLOCK, CLOCK).filter(lambda ends: ends[0] != ends[1]).map("-".join)


@settings(max_examples=30)
@given(
    texts=st.lists(SLOT, min_size=1, max_size=3),
    zone=st.sampled_from(ZONES),
    day=st.dates(date(2026, 1, 1), date(2026, 12, 31)),
)
def test_a_slot_is_open_exactly_when_the_wall_clock_says_so(
    texts: list[str], zone: ZoneInfo, day: date
) -> None:
    start = datetime(day.year, day.month, day.day, 12, tzinfo=zone)
    policy = Policy(slot=tuple(hours(text) for text in texts))
    walk = list(minutes(start, 26 * 60))
    for index in range(0, len(walk), 11):
        local = walk[index]
        _, room = pace.room(policy, pace.begin(policy, at(0, local)), at(0, local), 1)
        assert bool(room.size_bytes) == allowed(texts, local), local
        if room.size_bytes:
            assert room.size_bytes <= BATCH_BYTES
            continue
        assert room.wait == "slot" and room.until is not None
        assert allowed(texts, room.until)
        opened = next((m for m in walk[index:] if allowed(texts, m)), None)
        if opened and opened.utcoffset() == local.utcoffset():
            assert room.until == opened


def test_hours_that_summer_time_leaves_out_begin_the_day_after() -> None:
    evening = datetime(2026, 3, 28, 22, tzinfo=PARIS)
    assert next_opening([hours("02:00-03:00")], evening) == datetime(2026, 3, 30, 2, tzinfo=PARIS)


def test_a_slot_is_said_with_its_opening() -> None:
    policy = Policy(slot=(hours("01:00-05:00"), hours("22:30-24:00")))
    _, room = pace.room(policy, pace.begin(policy, at()), at(), 1)
    assert room.text == "waiting for the slot 01:00-05:00, 22:30-24:00, opens at 22:30"
    assert room.wait_s == 10.5 * 3600


@pytest.mark.parametrize(
    "text", ["", "1:00-2:00", "01:00", "25:00-01:00", "01:60-02:00", "01:00-24:01", "24:00-01:00",
             "01:00 - 02:00", "01:00-01:00", "00:00-24:00", "01:00-05:00\n"],
)  # fmt: skip
def test_what_is_no_slot_is_refused(text: str) -> None:
    with pytest.raises(InputFault):
        hours(text)


def test_a_clock_that_nobody_keeps_is_waited_for_then_taken_as_it_is() -> None:
    inside, outside = NOON.replace(hour=2), NOON
    policy = Policy(slot=(hours("01:00-05:00"),))
    state = pace.begin(policy, at(50, inside, synchronised=False))
    state, room = pace.room(policy, state, at(60, inside, synchronised=False), 1)
    assert (room.size_bytes, room.wait) == (0, "clock")
    assert "clock to be set" in room.text and "10 minutes more at most" in room.text
    assert pace.room(policy, state, at(60, inside), 1)[1].size_bytes, "set: the slot is open"
    late = 50 + CLOCK_GRACE_S
    assert pace.room(policy, state, at(late, inside, synchronised=False), 1)[1].size_bytes
    _, room = pace.room(policy, state, at(late, outside, synchronised=False), 1)
    assert room.wait == "slot" and room.text.endswith("by a clock that nobody keeps")


# -- the start -------------------------------------------------------------------------------


def test_starts_of_a_fleet_are_spread_over_the_delay_and_repeat_by_seed(tmp_path: Path) -> None:
    policy = Policy(start_delay_max_s=1800)

    def delay(seed: int) -> float:
        world = World(policy, tmp_path / "d.json", seed=seed)
        world.pacer.begin("a" * 64)
        return world.download().wait_s

    delays = sorted(delay(seed) for seed in range(5000))
    assert delays[0] >= 0
    assert delays[-1] < 1800
    assert delays[2500] == pytest.approx(900, rel=0.1)
    busiest = max(sum(1 for d in delays if 60 * m <= d < 60 * m + 60) for m in range(30))
    assert busiest < 5000 / 30 * 1.5, "no minute in which many more start than in another"
    assert delay(17) == delay(17)


def test_a_start_is_put_off_once_a_bundle_and_again_when_a_slot_opens(tmp_path: Path) -> None:
    policy = Policy(start_delay_max_s=600, slot=(hours("13:00-14:00"),))
    world = World(policy, tmp_path / "d.json", seed=3)
    world.pacer.begin("a" * 64)
    assert world.download().wait == "slot"
    world.passes(3600)
    room = world.download()
    assert room.wait == "start" and 0 < room.wait_s <= 600
    assert room.text == f"random start delay, begins at {room.until:%H:%M:%S}"
    world.passes(room.wait_s + 0.001)
    assert world.download().size_bytes
    world.pacer.begin("a" * 64)  # a failed fetch begins again
    assert world.download().size_bytes
    world.pacer.begin("b" * 64)  # another version
    assert world.download().wait == "start"
    world.passes(3600)
    assert world.download().wait == "slot"
    world.passes(23 * 3600)
    assert world.download().wait == "start"


def test_a_delay_longer_than_the_slot_still_begins_in_its_first_half(tmp_path: Path) -> None:
    policy = Policy(start_delay_max_s=86400, slot=(hours("13:00-14:00"),))
    for seed in range(50):
        world = World(policy, tmp_path / "d.json", seed=seed, local=NOON.replace(hour=13))
        world.pacer.begin("a" * 64)
        assert world.download().wait_s <= 1800


# -- all of it -------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    policy=st.builds(
        Policy,
        rate_max=st.sampled_from([0, 2_000, 100_000]),
        daily_max=st.sampled_from([0, 2 * CHUNK_BYTES, 5 * CHUNK_BYTES]),
        slot=st.lists(SLOT.map(hours), max_size=2).map(tuple),
        start_delay_max_s=st.sampled_from([0.0, 600.0, 86400.0]),
    ),
    synchronised=st.booleans(),
    zone=st.sampled_from(ZONES),
    seed=st.integers(0, 2**32),
)
def test_whoever_waits_as_told_gets_on(
    tmp_path_factory: pytest.TempPathFactory,
    policy: Policy,
    synchronised: bool,
    zone: ZoneInfo,
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("all") / "d.json"
    world = World(policy, path, local=NOON.astimezone(zone), seed=seed)
    world.synchronised = synchronised
    world.pacer.begin("a" * 64)
    began_s = world.monotonic_s
    while len(world.came) < 8:
        room = world.download()
        if not room.size_bytes:
            assert room.wait and room.text and room.wait_s > 0
            world.passes(max(room.wait_s, 0.001))
        days = (world.monotonic_s - began_s) / 86400
        assert days < 12, f"{room} after {days:.1f} days"
    if policy.daily_max:
        assert all(spent <= policy.daily_max for spent in world.per_date().values())
    if policy.slot:
        texts = [each.text for each in policy.slot]
        assert all(allowed(texts, local) for _, local, _ in world.came)
