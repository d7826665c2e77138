"""Cohorts and the fleet: the promise, the power, and what a group's event does to its devices."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import pytest
from fleet_kit import FLEET, Packed, draw, number, record
from typer.testing import CliRunner, Result

from edge_contract import manifest as manifests
from edge_contract import messages, telemetry
from edge_contract import profile as profiles
from edge_contract.profile import Profile
from edge_fleet import reports
from edge_fleet.alarm_log import log_raised
from edge_fleet.cli import app
from edge_fleet.cohorts import NAME_MAX_CHARS, cohort_name, cohorts_of
from edge_fleet.drift import explain, groups
from edge_fleet.drift.budget import Budget
from edge_fleet.drift.edetector import DriftTable
from edge_fleet.drift.groups import EVERY_DEVICE, GroupState, GroupTable, Pace
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.store.base import Alarm, ReportSeen
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
PACE = Pace(learn=48, memory=336)
SIXTY = np.array([60])


@pytest.fixture(scope="module")
def one_number() -> GroupTable:
    """A profile of one number, 20,000 independent rows."""
    rng = np.random.default_rng(3)
    profile = Profile(rows=20_000, monitors=(number("x", rng.normal(size=20_000)),))
    return GroupTable(DriftTable(profile), PACE)


def log_e(table: GroupTable, values: np.ndarray) -> np.ndarray:
    """Of windows ``[windows, rows]``."""
    monitor = table.table.monitors[0].monitor
    counts = np.stack([profiles.count_numbers(monitor, window) for window in values])
    return table.table.log_e(counts)


def advance(table: GroupTable, state: GroupState, slot: int, values: np.ndarray) -> GroupState:
    """With windows ``[windows, rows]``."""
    rows = np.full(len(values), values.shape[1])
    return table.advance(state, slot, log_e(table, values), rows)


# -- pure ----------------------------------------------------------------------------------


def test_without_dependence_a_group_learns_to_add_its_devices_up(
    one_number: GroupTable, rng: np.random.Generator
) -> None:
    state = one_number.start()
    for slot in range(1, PACE.learn + 2):
        assert one_number.divisors(state)[0] == max(state.windows_before, state.windows, 1)
        state = advance(one_number, state, slot, rng.normal(size=(20, 60)))
    state = advance(one_number, state, slot + 1, rng.normal(size=(20, 60)))
    assert state.learnt > PACE.learn
    assert 1 <= one_number.divisors(state)[0] < 4, "20 windows are worth more than 5"


@pytest.mark.parametrize("devices", [7, 50, 123])
def test_what_never_happens_says_nothing_of_how_alike_devices_are(
    one_number: GroupTable, rng: np.random.Generator, devices: int
) -> None:
    """Nothing is ever missing here, whatever the rows: all are busy by day, and two a bit more."""
    state = one_number.start()
    for slot in range(1, PACE.learn + 3):
        rows = 60 if 8 <= slot % 24 < 20 else 20
        state = advance(one_number, state, slot, rng.normal(size=(devices - 2, rows)))
        state = advance(one_number, state, slot, rng.normal(size=(2, rows + 7)))
    assert one_number.divisors(state)[0] < 4


def test_a_change_that_takes_days_to_find_is_not_learnt_as_weather(
    one_number: GroupTable, rng: np.random.Generator
) -> None:
    state, threshold = one_number.start(), Budget(1, 3600).log_thresholds({"fleet": 20})["fleet"]
    rows = np.full(8, 60)
    for slot in range(1, PACE.learn + 400):
        moved = rng.normal(0.25 * (slot > PACE.learn), 1.0, size=(8, 60))
        state = one_number.advance(state, slot, log_e(one_number, moved) / 20, rows)
        if one_number.table.levels(state.log_m)[0] >= threshold:
            break
    assert PACE.learn + 24 < slot < PACE.learn + 300, "a median of 73, 161 at most, of 120 seeds"


def test_devices_that_move_together_count_as_one(
    one_number: GroupTable, rng: np.random.Generator
) -> None:
    """A daily rhythm of all devices is no event, though a sum over devices would be sure of one."""
    state, added_up, threshold = one_number.start(), -60.0, Budget(1, 3600).log_threshold(1)
    sure = False
    for slot in range(1, 24 * 10):
        rhythm = 0.9 * np.sin(2 * np.pi * slot / 24)
        windows = log_e(one_number, rng.normal(size=(20, 60)) * 0.6 + rhythm)
        # The build's design effect for such a rhythm, so that each device alone keeps the promise.
        windows /= 130
        state = one_number.advance(state, slot, windows, np.full(20, 60))
        added_up = float(np.logaddexp(added_up, 0) + windows.sum(axis=0).max())
        sure |= added_up > threshold
        assert one_number.table.levels(state.log_m)[0] < threshold
    assert one_number.divisors(state)[0] > 10
    assert sure


def test_a_group_finds_what_no_device_can(one_number: GroupTable, rng: np.random.Generator) -> None:
    """.1 sigma on each of 200 devices, once it has learnt: within four hours."""
    state, threshold = one_number.start(), Budget(1, 3600).log_thresholds({"fleet": 20})["fleet"]
    for slot in range(1, PACE.learn + 3):
        state = advance(one_number, state, slot, rng.normal(size=(200, 60)))
        assert one_number.table.levels(state.log_m)[0] < threshold
    delay = 0
    while one_number.table.levels(state.log_m)[0] < threshold:
        delay += 1
        moved = rng.normal(0.1, 1.0, size=(200, 60))
        state = advance(one_number, state, slot + delay, moved)
    assert delay <= 4
    assert slot <= state.began[int(np.argmax(state.log_m))] <= slot + delay


def test_the_chance_of_an_alarm_is_at_most_slots_by_threshold(
    one_number: GroupTable, rng: np.random.Generator
) -> None:
    """Doob's inequality, at a threshold low enough to be crossed; windows come one by one."""
    slots, log_threshold, crossed, runs = 20, np.log(100.0), 0, 150
    quiet = log_e(one_number, rng.normal(size=(2000, 60)))
    for _ in range(runs):
        state = one_number.start()
        for slot in range(1, slots + 1):
            for window in rng.integers(0, len(quiet), 3):
                state = one_number.advance(state, slot, quiet[window : window + 1], SIXTY)
                if one_number.table.levels(state.log_m)[0] >= log_threshold:
                    crossed += 1
                    break
            else:
                continue
            break
    allowed = runs * slots / 100.0
    assert crossed <= allowed + 4 * np.sqrt(allowed)


def test_evidence_is_the_same_whole_or_window_by_window(
    one_number: GroupTable, rng: np.random.Generator
) -> None:
    """Merging devices is addition: in one batch or in many, in any order, late ones included."""
    state = one_number.start()
    for slot in range(1, 60):
        state = advance(one_number, state, slot, rng.normal(size=(5, 60)))
    windows = log_e(one_number, rng.normal(0.2, 1, size=(4, 60)))
    together = one_number.advance(state, 60, windows, np.full(4, 60))
    apart = state
    for slot, at in ((60, 2), (60, 0), (17, 3), (60, 1)):  # one comes with the stamp of long ago
        apart = one_number.advance(apart, slot, windows[at : at + 1], SIXTY)
    assert apart.log_m == pytest.approx(together.log_m, abs=1e-4)
    assert apart.windows == together.windows == 4
    assert apart.slot == 60


def test_a_state_comes_back_as_it_was(one_number: GroupTable, rng: np.random.Generator) -> None:
    state = one_number.start()
    for slot in (5, 6, 9):
        state = advance(one_number, state, slot, rng.normal(size=(3, 60)))
    data = groups.save(state, {0: 7})
    loaded, latched = groups.load(data, one_number)
    assert latched == {0: 7}
    assert groups.save(loaded, latched) == data


def test_the_promise_is_split_over_the_scopes() -> None:
    """What each scope may raise adds up to what was promised, with cohorts and without."""
    for streams in ({"device": 20_000, "fleet": 20}, {"device": 9, "cohort": 40, "fleet": 20}):
        budget = Budget(3.0, 3600)
        thresholds = budget.log_thresholds(streams)
        rate = sum(n * budget.windows_per_month / np.exp(thresholds[s]) for s, n in streams.items())
        assert rate == pytest.approx(3.0)
    assert Budget(1, 60).log_thresholds({"device": 5})["device"] == Budget(1, 60).log_threshold(5)


def test_a_cohort_is_a_label_that_a_device_has() -> None:
    assert cohorts_of({"site": "north", "line": ""}, ("site", "line", "hall")) == ("site=north",)
    long = cohort_name("site", "x" * 200)
    assert len(long) == NAME_MAX_CHARS
    assert long != cohort_name("site", "x" * 199 + "y")


# -- with a store --------------------------------------------------------------------------


@dataclass
class Fleet:
    """Devices that send an hour's windows, and the evidence that counts them."""

    store: SqlStore
    packed: Packed
    rng: np.random.Generator
    evidence: Evidence
    hour: int = 0
    alarms: list[Alarm] = field(default_factory=list)

    def windows(self, shifts: dict[str, float], n: int = 60) -> list:
        made = []
        for device, shift in shifts.items():
            rows = draw(self.rng, n)
            rows.temperature = rows.temperature + 2.0 * shift
            at = START_MS + self.hour * HOUR_MS
            one = record(
                self.packed, self.packed.counts(rows), device=device, seq=self.hour,
                start_ms=at - HOUR_MS, end_ms=at,
            )  # fmt: skip
            made.append(window_of(telemetry.encode(one), at))
        return made

    @property
    def now_ms(self) -> int:
        return START_MS + self.hour * HOUR_MS

    def tick(self, shifts: dict[str, float], n: int = 60) -> list[Alarm]:
        """An hour in which each device's temperature is off by so many sigma."""
        self.hour += 1
        windows = self.windows(shifts, n)
        with self.store.transaction() as tx:
            found = self.evidence.count(tx, tx.add_windows(windows), self.now_ms).alarms
        self.alarms += found
        return found

    def until(self, shifts: dict[str, float], scope: str, hours: int = 60) -> Alarm:
        """Go on until an alarm of this scope."""
        for _ in range(hours):
            for alarm in self.tick(shifts):
                if alarm.scope == scope:
                    return alarm
        raise AssertionError(f"no alarm of a {scope} in {hours} hours")

    def open_alarms(self) -> dict[str, Alarm]:
        with self.store.reading() as tx:
            return {alarm.device: alarm for alarm in tx.alarms(open_only=True)}


def run(*words: str, db: str) -> Result:
    return CliRunner().invoke(app, [*words, "--db", db], catch_exceptions=False)


def milliseconds(instant: str) -> int:
    return int(datetime.fromisoformat(instant).timestamp() * 1000)


def names(count: int, prefix: str = "pi") -> list[str]:
    return [f"{prefix}-{at}" for at in range(count)]


def label(store: SqlStore, site: str, devices: Sequence[str], now_ms: int = START_MS) -> None:
    hardware = messages.Hardware(
        machine="m", cpus=1, ram_bytes=1, system="s", python="3", onnxruntime="1"
    )
    with store.transaction() as tx:
        for device in devices:
            report = messages.Reported(
                boot=1, at_ms=now_ms, agent="1", hardware=hardware, labels={"site": site}
            )
            tx.report(ReportSeen(device, messages.encode(report), now_ms, retained=False))


def learnt(store: SqlStore, packed: Packed) -> None:
    """The store knows the bundle."""
    store.claim(FLEET)
    [entry] = [f for f in manifests.decode(packed.manifest_bytes).files if f.name == "profile.json"]
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, START_MS)
        tx.put_blob(entry.sha256, packed.stored, START_MS)


@pytest.fixture
def fleet(store: SqlStore, packed: Packed, rng: np.random.Generator) -> Fleet:
    """Cohorts by site; nothing came yet."""
    learnt(store, packed)
    return Fleet(store, packed, rng, Evidence(Library(), Budget(1, 3600), ("site",)))


def test_an_event_of_the_fleet_holds_its_devices_alarms_until_it_is_resolved(fleet: Fleet) -> None:
    drifting = dict.fromkeys(names(5), 0.6)
    for _ in range(3):
        assert fleet.tick(dict.fromkeys(names(5), 0.0)) == []
    event = fleet.until(drifting, "fleet")
    for _ in range(24):
        fleet.tick(drifting)
    opened = fleet.open_alarms()
    assert set(opened) == {EVERY_DEVICE, *names(5)}
    assert all(opened[name].parent == event.id for name in names(5))
    found = reports.drift(fleet.store, fleet.now_ms)
    [top] = [alarm for alarm in found.alarms if alarm.parent is None]
    assert (top.scope, top.device, top.feature, top.kind) == (
        "fleet", EVERY_DEVICE, "temperature", "mean-up",
    )  # fmt: skip
    assert top.under == 5
    assert (top.moved, top.members) == (5, 5)
    assert {each.device for each in top.devices} == set(names(5))
    assert abs(milliseconds(top.since) - (START_MS + 4 * HOUR_MS)) <= 4 * HOUR_MS
    reports.resolve(fleet.store, [event.id], fleet.now_ms, "the season")
    found = reports.drift(fleet.store, fleet.now_ms)
    assert {alarm.device for alarm in found.alarms if alarm.parent is None} == set(names(5))


def test_one_broken_device_is_no_event_of_its_group(fleet: Fleet) -> None:
    """Of five, one is off by far: its own alarm names it, and no group's."""
    shifts = {name: 4.0 if name == "pi-2" else 0.0 for name in names(5)}
    label(fleet.store, "north", names(5))
    fleet.until(shifts, "device")
    for _ in range(30):
        fleet.tick(shifts)
    assert {alarm.device for alarm in fleet.alarms} == {"pi-2"}
    assert fleet.alarms[0].parent is None


def test_a_cohort_drifts_by_itself_and_its_event_goes_under_the_fleets(fleet: Fleet) -> None:
    north, south = names(4, "north"), names(12, "south")
    label(fleet.store, "north", north)
    label(fleet.store, "south", south)
    quiet = dict.fromkeys([*north, *south], 0.0)
    event = fleet.until({**quiet, **dict.fromkeys(north, 0.6)}, "cohort")
    assert event.device == "site=north"
    assert event.parent is None
    moved = explain.decode(event.explanation)
    assert {each.device for each in moved.devices} <= set(north)
    assert moved.members == 4
    whole = fleet.until(dict.fromkeys(quiet, 0.6), "fleet")
    assert whole.since_ms > event.opened_ms - 24 * HOUR_MS
    late = {a.device: a for a in fleet.open_alarms().values() if a.scope == "cohort"}
    if "site=south" in late:
        assert late["site=south"].parent == whole.id


def test_a_device_that_moves_counts_where_it_is(fleet: Fleet) -> None:
    label(fleet.store, "north", ["pi-0"])
    label(fleet.store, "south", ["pi-1"])
    fleet.tick({"pi-0": 0.0, "pi-1": 0.0, "pi-2": 0.0})
    label(fleet.store, "south", ["pi-0"], fleet.now_ms)
    fleet.tick({"pi-0": 0.0, "pi-1": 0.0, "pi-2": 0.0})
    with fleet.store.reading() as tx:
        windows = {group.name: group.windows for group in tx.all_groups()}
    assert windows == {EVERY_DEVICE: 6, "site=north": 1, "site=south": 3}


def test_after_a_restart_and_a_failure_groups_count_on_and_each_window_once(
    fleet: Fleet, any_store: SqlStore
) -> None:
    """Against a twin that never stopped, on either database."""
    learnt(any_store, fleet.packed)
    twin = Evidence(Library(), Budget(1, 3600), ("site",))
    for hour in range(1, 7):
        fleet.hour = hour
        windows = fleet.windows(dict.fromkeys(names(3), 0.2))
        with fleet.store.transaction() as tx:
            fleet.evidence.count(tx, tx.add_windows(windows), fleet.now_ms)
        with pytest.raises(RuntimeError, match="cut"), any_store.transaction() as tx:
            twin.count(tx, tx.add_windows(windows), fleet.now_ms)
            raise RuntimeError("cut")
        twin = Evidence(Library(), Budget(1, 3600), ("site",))  # as a new process
        for _ in range(2):  # the broker sends everything twice
            with any_store.transaction() as tx:
                twin.count(tx, tx.add_windows(windows), fleet.now_ms)
    with fleet.store.reading() as tx, any_store.reading() as other:
        assert [each.state for each in tx.all_groups()] == [
            each.state for each in other.all_groups()
        ]
        assert [each.windows for each in other.all_groups()] == [18]


def test_alarms_are_logged_once_they_are_kept(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """A transaction that fails is tried again, and raises the same."""
    raised: list[Alarm] = []
    for _ in range(60):
        fleet.hour += 1
        windows = fleet.windows(dict.fromkeys(names(3), 0.9), 60)
        with pytest.raises(RuntimeError, match="full"), fleet.store.transaction() as tx:
            raised = fleet.evidence.count(tx, tx.add_windows(windows), fleet.now_ms).alarms
            raise RuntimeError("full")
        fleet.evidence.forget()
        if raised:
            break
        with fleet.store.transaction() as tx:
            fleet.evidence.count(tx, tx.add_windows(windows), fleet.now_ms)
    assert raised
    assert caplog.messages == [], "nobody kept it"
    one = replace(raised[0], parent=None)
    log_raised([one, replace(one, parent=1, scope="device"), replace(one, source="labels")])
    assert [text.partition(":")[0] for text in caplog.messages] == ["drift", "errors"]


def test_the_commands_show_events_and_close_them_with_what_is_under(fleet: Fleet, db: str) -> None:
    drifting = dict.fromkeys(names(4), 0.8)
    event = fleet.until(drifting, "fleet")
    while len(fleet.open_alarms()) < 5:
        fleet.tick(drifting)
    listed = run("drift", db=db).output
    assert EVERY_DEVICE in listed
    assert f"{event.id} (+4)" in listed
    assert "pi-0" not in listed
    assert "█" in listed
    assert f"(under {event.id})" in run("drift", "--all", db=db).output
    found = json.loads(run("drift", "--json", db=db).output)
    tops = [alarm for alarm in found["alarms"] if alarm["parent"] is None]
    assert [(top["scope"], top["under"]) for top in tops] == [("fleet", 4)]
    bars = tops[0]["bars"]
    assert sum(bar["before"] for bar in bars) == pytest.approx(1, abs=1e-3)
    assert sum(bar["after"] for bar in bars) == pytest.approx(1, abs=1e-3)
    assert set(found["thresholds"]) >= {"device", "cohort", "fleet"}
    closed = run("resolve", str(event.id), "--with-devices", "--comment", "winter", db=db)
    assert closed.exit_code == 0
    assert fleet.open_alarms() == {}
    assert "no drift alarms" in run("drift", db=db).output


def test_resolving_an_event_starts_its_group_anew(fleet: Fleet) -> None:
    drifting = dict.fromkeys(names(4), 0.8)
    event = fleet.until(drifting, "fleet")
    reports.resolve(fleet.store, [event.id], fleet.now_ms, "", under=True)
    fleet.tick(dict.fromkeys(names(4), 0.0))
    assert EVERY_DEVICE not in fleet.open_alarms()
    again = fleet.until(drifting, "fleet")
    assert again.id != event.id
    assert again.since_ms >= event.opened_ms
