"""Windows with noise: nothing leaves unpaid, nothing leaves bare, and what waits is not lost."""

import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from edge_agent import config as configs
from edge_agent import noise
from edge_agent.ledger import DAY_S, Ledger
from edge_agent.privacy import Privacy
from edge_agent.report import AgentStatus
from edge_agent.settings import Noise
from edge_agent.show import lines
from edge_agent.telemetry.recorder import Instant
from edge_contract import telemetry
from edge_contract.profile import Monitor, Profile
from edge_contract.residuals import Residuals
from edge_contract.telemetry import Record

MONITOR = Monitor(name="colour", kind="category", categories=("a", "b"), counts=(500, 500, 0, 0, 0))
PROFILE = Profile(rows=1000, monitors=(MONITOR,))
RULES = Noise(epsilon_per_day=4.0)
BEGIN_MS = 1_800_000_000_000
HOUR_S = 3600.0


@pytest.fixture
def chance() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def at(seconds: float, *, wall_s: float | None = None) -> Instant:
    """So many seconds after the beginning, by both clocks unless told otherwise."""
    wall = seconds if wall_s is None else wall_s
    return Instant(BEGIN_MS + int(1000 * wall), seconds, synchronised=True)


def window(rows: int, end_s: float, *, length_s: float = HOUR_S, bundle: int = 1) -> Record:
    end_ms = BEGIN_MS + int(1000 * end_s)
    return Record(
        schema=1, device="pi", boot=1, seq=0, model="pump", version="1.0",
        bundle=bytes([bundle]) * 32, start_ms=end_ms - int(1000 * length_s), end_ms=end_ms,
        synchronised=True, rows=rows, refused=2, failed=1, coding=telemetry.CODING_LEB128,
        counts=b"", latency=telemetry.pack_counts([rows] + [0] * 47),
        errors=(2,), moments=b"secret", quality=((0, 1),),
    )  # fmt: skip


def counts(rows: int) -> np.ndarray:
    return np.array([rows // 2, rows - rows // 2, 0, 0, 0])


def give(privacy: Privacy, rows: int, hour: float, **more: float) -> Record | None:
    record = window(rows, hour * HOUR_S, **more)
    return privacy.take(record, counts(rows), PROFILE, at(hour * HOUR_S), 1)


def veil(folder: Path, chance: random.Random, *, begin_s: float = 0.0) -> Privacy:
    return Privacy(RULES, folder, at(begin_s), window_s=DAY_S, randbelow=chance.randrange)


def test_hours_become_a_day_with_noise_and_nothing_bare_in_it(
    tmp_path: Path, chance: random.Random
) -> None:
    privacy = veil(tmp_path, chance)
    for hour in range(1, 24):
        assert give(privacy, 60, hour) is None
    told = give(privacy, 60, 24)
    assert told is not None
    assert (told.rows, told.refused, told.failed) == (1440, 48, 24)
    assert (told.start_ms, told.end_ms) == (BEGIN_MS, BEGIN_MS + int(1000 * DAY_S))
    assert (told.errors, told.moments, told.quality) == ((), b"", ())
    assert telemetry.latency_of(told)[0] == 1440
    read = telemetry.decode(telemetry.encode(told))
    assert 1 < telemetry.noise_of(read) <= noise.FACTOR_MAX
    noisy = telemetry.counts_of(read, Residuals(PROFILE))
    assert noisy.sum() == 1440
    assert abs(int(noisy[0]) - 720) < 60
    assert privacy.report().spent == pytest.approx(4.0)
    assert privacy.report().left == pytest.approx(0.0, abs=1e-6)


def test_a_day_of_few_rows_waits_for_more(tmp_path: Path, chance: random.Random) -> None:
    privacy = veil(tmp_path, chance)
    assert give(privacy, 2, 25, length_s=DAY_S) is None
    rows, needed = privacy.report().waiting["pump"]
    assert rows == 2 < needed
    assert privacy.report().spent == 0
    said = AgentStatus(
        device="pi", fleet="f", channel="stable", running=True, privacy=privacy.report()
    )
    assert f"  waits     pump: 2 rows, {needed} or more make a window" in lines(said)
    told = give(privacy, needed, 26)
    assert told is not None
    assert told.rows == 2 + needed
    assert privacy.report().waiting == {}


def test_when_the_budget_is_spent_windows_are_merged_until_it_is_back(
    tmp_path: Path, chance: random.Random
) -> None:
    privacy = veil(tmp_path, chance)
    long = {"length_s": DAY_S}
    first = privacy.take(window(900, DAY_S, **long), counts(900), PROFILE, at(DAY_S), 1)
    assert first is not None
    other = window(900, DAY_S, bundle=2, **long)  # a second model wants the same day's budget
    assert privacy.take(other, counts(900), PROFILE, at(DAY_S + 1), 1) is None
    later = window(50, 2 * DAY_S + 2, bundle=2)
    told = privacy.take(later, counts(50), PROFILE, at(2 * DAY_S + 2), 1)
    assert told is not None
    assert told.rows == 950


def test_models_that_share_a_day_share_its_budget(tmp_path: Path, chance: random.Random) -> None:
    privacy = veil(tmp_path, chance)
    for bundle in (1, 2):
        record = window(2000, DAY_S, bundle=bundle, length_s=DAY_S)
        assert privacy.take(record, counts(2000), PROFILE, at(DAY_S), 2) is not None
    assert privacy.report().spent == pytest.approx(4.0)


def test_what_waits_and_what_was_spent_outlive_a_restart(
    tmp_path: Path, chance: random.Random
) -> None:
    privacy = veil(tmp_path, chance)
    assert give(privacy, 700, 25, length_s=DAY_S) is not None
    assert give(privacy, 100, 26) is None
    privacy.flush(at(26 * HOUR_S))
    again = veil(tmp_path, chance, begin_s=27 * HOUR_S)
    assert again.report().spent == pytest.approx(4.0)
    told = None
    for hour in range(28, 52):
        told = give(again, 10, hour) or told
    assert told is not None
    assert told.rows == 100 + 10 * 22  # from hour 25 to hour 49, where the budget is back
    assert told.start_ms == BEGIN_MS + int(25 * HOUR_S * 1000)


def test_rows_of_a_version_that_is_gone_are_forgotten_after_a_week(
    tmp_path: Path, chance: random.Random
) -> None:
    privacy = veil(tmp_path, chance)
    assert give(privacy, 100, 1) is None
    privacy.flush(at(HOUR_S))
    (tmp_path / f"{'ab' * 32}.json").write_bytes(b"{")
    veil(tmp_path, chance, begin_s=7 * DAY_S)
    assert [path.stem for path in tmp_path.glob("*.json")] == ["01" * 32]
    veil(tmp_path, chance, begin_s=7 * DAY_S + 2 * HOUR_S)
    assert not list(tmp_path.glob("*.json"))


def test_a_cut_after_a_release_never_tells_the_rows_again(
    tmp_path: Path, chance: random.Random
) -> None:
    privacy = veil(tmp_path, chance)
    assert give(privacy, 100, 1) is None
    privacy.flush(at(HOUR_S))
    assert give(privacy, 700, 25, length_s=DAY_S) is not None
    again = veil(tmp_path, chance, begin_s=49.5 * HOUR_S)
    told = give(again, 700, 74)
    assert told is None or told.rows == 700


def test_a_disk_that_takes_nothing_tells_nothing(tmp_path: Path, chance: random.Random) -> None:
    privacy = veil(tmp_path, chance)
    (tmp_path / "ledger.json").mkdir()  # in the way of the file, for root as well
    assert give(privacy, 900, 25, length_s=DAY_S) is None
    assert privacy.report().spent == 0
    (tmp_path / "ledger.json").rmdir()
    assert give(privacy, 1, 26) is not None


def test_windows_of_refused_rows_alone_cost_nothing(tmp_path: Path, chance: random.Random) -> None:
    told = give(veil(tmp_path, chance), 0, 25, length_s=DAY_S)
    assert told is not None
    assert told.rows == 0
    assert told.refused == 2
    assert telemetry.counts_of(told, Residuals(PROFILE)).sum() == 0


@pytest.mark.parametrize("wall_s", [-DAY_S, 0.0, 3 * DAY_S], ids=["back", "still", "forward"])
def test_a_clock_that_jumps_brings_no_budget_back(tmp_path: Path, wall_s: float) -> None:
    ledger = Ledger(tmp_path / "l.json", at(0), 1.0)
    assert ledger.spend(at(10), 1.0)
    assert not ledger.spend(at(20, wall_s=20 + wall_s), 0.01)
    assert ledger.spend(at(10 + DAY_S, wall_s=max(wall_s, 0) + 10 + DAY_S), 1.0)


def test_a_ledger_that_cannot_be_read_counts_as_spent(tmp_path: Path) -> None:
    path = tmp_path / "l.json"
    path.write_bytes(b"{")
    ledger = Ledger(path, at(0), 1.0)
    assert ledger.spent(at(1)) == 1.0
    assert not ledger.spend(at(1), 0.01)


def test_no_order_of_spending_overdraws_a_day(tmp_path: Path, chance: random.Random) -> None:
    ledger, now_s, given = Ledger(tmp_path / "l.json", at(0), 1.0), 0.0, []
    for _ in range(300):
        now_s += chance.expovariate(1 / 3000)
        if chance.random() < 0.05:  # a restart
            ledger = Ledger(tmp_path / "l.json", at(now_s), 1.0)
        cost = chance.choice([0.1, 0.25, 0.6])
        if ledger.spend(at(now_s), cost):
            given.append((now_s, cost))
    assert len(given) > 10
    for end_s, _ in given:
        assert sum(cost for s, cost in given if end_s - DAY_S + 1 < s <= end_s) <= 1.0 + 1e-6


def _settings(privacy: str, window_s: float) -> list[str]:
    text = (
        '[agent]\ndevice = "pi"\nfleet = "home"\n[broker]\nurl = "mqtt://localhost"\n'
        f"[telemetry]\nwindow_s = {window_s}\n[privacy]\n{privacy}\n"
    )
    return configs.parse(text.encode(), Path("/"))[1]


def test_settings_whose_noise_would_drown_everything_are_refused_with_the_reason() -> None:
    assert _settings("noise = { epsilon_per_day = 4 }", 86400) == []
    [fault] = _settings("noise = { epsilon_per_day = 1 }", 3600)
    assert "24 windows a day share epsilon 1" in fault
    assert "window_s = 86400" in fault
    [fault] = _settings("noise = { epsilon_per_day = 0 }", 86400)
    assert "epsilon_per_day" in fault


def test_records_of_other_kinds_stay_on_the_device(tmp_path: Path, chance: random.Random) -> None:
    from edge_agent.telemetry import Recorder, Spool
    from edge_contract.aside import Labelled

    label = Labelled(
        device="", boot=0, seq=0, model="pump", version="1", bundle=b"x" * 32, start_ms=0,
        end_ms=1, synchronised=True, kind="label", labels=1, bins=1, unit=1.0,
        counts=telemetry.pack_counts([1, 0]), repeated=0, contradicted=0, late=0, unknown=0,
        refused=0,
    )  # fmt: skip
    spool = Spool(tmp_path / "spool", max_bytes=2**20)
    for behind, kept in ((veil(tmp_path / "private", chance), 0), (None, 1)):
        Recorder(spool, device="pi", boot=1, veil=behind).add(label)
        assert len(spool) == kept


def test_the_report_is_read_back_as_written() -> None:
    report = AgentStatus(device="a", fleet="b", channel="c", running=True)
    assert b"privacy" not in msgspec.json.encode(report)
    assert replace(report).privacy is None
