"""Rows set aside: the right ones, no more than the quota, and nobody but the owner reads them."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from edge_agent import Model, sample_commands, tap
from edge_agent import config as configs
from edge_agent.live import Live
from edge_agent.samples import WRITE_ROWS, Samples
from edge_agent.sampling import DAY_S, Chooser, Quota
from edge_agent.settings import Sampling
from edge_agent.telemetry import Recorder, Spool
from edge_agent.telemetry.recorder import Instant
from edge_contract import bundle as bundles
from edge_contract import sealed
from edge_contract.errors import InputFault
from edge_contract.manifest import Feature, Manifest
from edge_fleet.cli import app as fleet_app
from edge_fleet.commands.sample import parcels_of, table

pytest.importorskip("cryptography", reason="pip install 'edge-pack[samples]'")
BEGIN_S = 20_000 * DAY_S
PRIVATE, PUBLIC = sealed.new_key()
RULES = Sampling(recipient=PUBLIC, per_day=240, random=0.0, uncertain=0.0, drifted=False)


class Clock:
    """Seconds since 1970 that a test moves."""

    def __init__(self) -> None:
        self.at_s = BEGIN_S

    def __call__(self) -> float:
        return self.at_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def model(tiny_bundle) -> Model:
    return Model.from_bundle(bundles.read(tiny_bundle()))


def served(model: Model, samples: Samples, tmp_path: Path) -> Live:
    """The model as an agent serves it, without feedback."""
    recorder = Recorder(
        Spool(tmp_path / "spool"), device="pi", boot=1,
        observer=lambda one, window: tap.tapped(one, window, None, samples=samples),
    )  # fmt: skip
    seat = Live("pump")
    recorder.swap(seat, model, Instant(0, 0.0))
    return seat


def held(folder: Path) -> list[tuple[str, dict[str, float]]]:
    """Why and what, of every sealed row."""
    found = list(parcels_of([folder], PRIVATE)) if list(folder.glob("*.sealed")) else []
    return [(row.why, row.values) for parcel in found for row in parcel.rows]


def ask(seat: Live, rows: np.ndarray) -> None:
    for row in rows.tolist():
        seat.predict(row)


def test_drifted_and_uncertain_rows_are_set_aside_and_others_are_not(
    model: Model, tmp_path: Path, clock: Clock
) -> None:
    rules = replace(RULES, drifted=True, uncertain=0.1, per_day=10_000)
    folder = tmp_path / "samples"
    samples = Samples(rules, folder, "pi", clock, random.Random(1))
    seat = served(model, samples, tmp_path)
    rows = np.random.default_rng(2).normal(size=(100, 4))
    rows[:3, 1] = 1e6
    ask(seat, rows)
    samples.flush()
    found = held(folder)
    names = [f.name for f in model.manifest.features]
    edges = {m.name: m.edges for m in model.profile.monitors if m.source == "feature"}
    wanted = {"drifted": [], "uncertain": []}
    for row in rows:
        far = any(not edges[n][0] <= v <= edges[n][-1] for n, v in zip(names, row, strict=True))
        score = model.predict(row.tolist()).probabilities["good"]
        if far or abs(score - 0.5) <= 0.1:
            wanted["drifted" if far else "uncertain"].append(dict(zip(names, row, strict=True)))
    for why, some in wanted.items():
        assert [values for kind, values in found if kind == why] == some
    assert len(wanted["drifted"]) >= 3
    assert len(wanted["uncertain"]) >= 1


def test_chance_takes_its_share_and_a_table_is_seen_row_by_row(
    model: Model, tmp_path: Path, clock: Clock
) -> None:
    samples = Samples(
        replace(RULES, random=0.25, per_day=100_000), tmp_path / "s", "pi", clock,
        random.Random(3),
    )  # fmt: skip
    seat = served(model, samples, tmp_path)
    seat.predict(np.zeros((400, 4)).tolist())
    samples.flush()
    assert 60 <= len(held(tmp_path / "s")) <= 140


def test_denied_features_and_free_text_are_never_kept(model: Model) -> None:
    manifest: Manifest = replace(
        model.manifest,
        features=(
            Feature(name="age"), Feature(name="customer", type="category"),
            Feature(name="note", type="text"), Feature(name="site", type="category"),
        ),
    )  # fmt: skip
    rules = replace(RULES, random=1.0, deny=("customer", "age"))
    chooser = Chooser(manifest, None, rules, random.Random(1))
    [row] = chooser.choose([(1, np.array([33.0]).tobytes(), [("jane", "graz")], [0], [0.9])], 10)
    assert row.values == {"site": "graz"}


def test_the_quota_is_spread_over_the_day_and_holds_over_restarts(
    model: Model, tmp_path: Path, clock: Clock
) -> None:
    rules, folder, taken = replace(RULES, random=1.0), tmp_path / "s", []
    rows = np.zeros((60, 4))
    for hour in range(48):
        samples = Samples(rules, folder, "pi", clock, random.Random(1))  # a start an hour
        seat = served(model, samples, tmp_path)
        for _ in range(3):
            ask(seat, rows)
            samples.tick()
        samples.flush()
        taken.append(len(held(folder)))
        assert taken[-1] <= 240 * (1 + hour // 24)
        clock.at_s += 3600.0
    assert taken[0] <= 10  # one hour's share at once
    assert taken[23] == 240
    assert taken[47] == 480


def test_a_clock_that_is_set_back_brings_no_second_day(clock: Clock) -> None:
    quota = Quota(replace(RULES, per_day=24), clock)
    assert quota.room() == 1
    assert quota.take(24, 10)
    clock.at_s -= DAY_S
    assert quota.room() == 0
    clock.at_s += 2 * DAY_S
    assert quota.room() > 0


def test_bytes_are_bounded_by_day_and_on_disk(model: Model, tmp_path: Path, clock: Clock) -> None:
    rules = replace(RULES, random=1.0, per_day=10_000, bytes_per_day="6 kB", disk_max="10 kB")
    folder = tmp_path / "s"
    samples = Samples(rules, folder, "pi", clock, random.Random(1))
    seat = served(model, samples, tmp_path)
    for day in range(3):
        for _ in range(20):
            ask(seat, np.zeros((10, 4)))
            samples.flush()
            clock.at_s += 600.0
        sizes = [path.stat().st_size for path in folder.glob("*.sealed")]
        assert 0 < sum(sizes) <= min(6000 * (day + 1), 10_000)
        clock.at_s = BEGIN_S + (day + 1) * DAY_S


def test_many_rows_at_once_are_cut_into_files_within_every_bound(
    model: Model, tmp_path: Path, clock: Clock
) -> None:
    rules = replace(RULES, random=1.0, per_day=24 * 1000, bytes_per_day="1 GB", disk_max="40 kB")
    folder = tmp_path / "s"
    samples = Samples(rules, folder, "pi", clock, random.Random(1))
    served(model, samples, tmp_path).predict(np.zeros((950, 4)).tolist())
    samples.tick()
    assert len(held(folder)) == WRITE_ROWS, "a look writes one file, whatever waits"
    samples.flush()
    assert samples._quota.rows == 950
    sizes = [path.stat().st_size for path in folder.glob("*.sealed")]
    assert 20_000 < sum(sizes) <= 40_000


def test_rows_that_are_larger_than_the_disks_bound_are_lost_alone(
    model: Model, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "s"
    rules = replace(RULES, random=1.0, per_day=24 * 1000, disk_max="10 kB")
    samples = Samples(rules, folder, "pi", clock, random.Random(1))
    seat = served(model, samples, tmp_path)
    ask(seat, np.zeros((5, 4)))
    samples.flush()
    ask(seat, np.zeros((WRITE_ROWS, 4)))
    samples.flush()
    assert len(held(folder)) == 5
    assert "over the limit of 10000 bytes" in caplog.text


def test_room_is_made_though_an_export_takes_files_meanwhile(tmp_path: Path, clock: Clock) -> None:
    samples = Samples(replace(RULES, disk_max="1 kB"), tmp_path, "pi", clock, random.Random(1))
    (tmp_path / "1.sealed").symlink_to(tmp_path / "listed, and gone when it is looked at")
    for name in ("2.sealed", "3.sealed"):
        (tmp_path / name).write_bytes(bytes(600))
    samples._make_room(100)
    assert {path.name for path in tmp_path.glob("[23].sealed")} == {"3.sealed"}


def test_nothing_on_disk_is_readable_and_no_other_key_opens_it(
    model: Model, tmp_path: Path, clock: Clock
) -> None:
    folder = tmp_path / "s"
    samples = Samples(replace(RULES, random=1.0), folder, "pi", clock, random.Random(1))
    ask(served(model, samples, tmp_path), np.full((5, 4), 1.25))
    samples.flush()
    [path] = folder.glob("*.sealed")
    data = path.read_bytes()
    assert b"1.25" not in data
    assert b"pump" not in data
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(InputFault, match="another key, or was changed"):
        sealed.unseal(data, sealed.new_key()[0])
    for at in (0, 5, 40, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(InputFault):
            sealed.unseal(bytes(changed), PRIVATE)
    for size in range(0, len(data), 7):
        with pytest.raises(InputFault):
            sealed.unseal(data[:size], PRIVATE)


def test_equal_rows_are_sealed_differently_each_time() -> None:
    assert sealed.seal(b"x" * 100, PUBLIC) != sealed.seal(b"x" * 100, PUBLIC)
    assert sealed.unseal(sealed.seal(b"row", PUBLIC), PRIVATE) == b"row"


def test_a_version_without_settings_for_it_has_no_tap(model: Model, tmp_path: Path) -> None:
    samples = Samples(
        replace(RULES, models=("fan",)), tmp_path / "s", "pi", Clock(), random.Random(1)
    )
    served(model, samples, tmp_path)
    assert not isinstance(model.observer, tap.Tap)


def test_from_the_key_to_the_table_by_the_commands(
    model: Model, tmp_path: Path, clock: Clock
) -> None:
    key, runner = tmp_path / "samples.key", CliRunner()
    made = runner.invoke(fleet_app, ["samples", "key", "--out", str(key)])
    assert key.stat().st_mode & 0o077 == 0
    again = runner.invoke(fleet_app, ["samples", "key", "--out", str(key)])
    assert "is there already" in str(again.exception)
    toml = tmp_path / "agent.toml"
    toml.write_text(
        '[agent]\ndevice = "pi"\nfleet = "home"\nfolder = "state"\n'
        f'[broker]\nurl = "mqtt://localhost"\n[sampling]\n{made.output}random = 1.0\n'
    )
    settings = configs.load(toml, {})
    assert settings.sampling is not None
    folder = settings.folder / "samples"
    samples = Samples(settings.sampling, folder, "pi", clock, random.Random(1))
    ask(served(model, samples, tmp_path), np.full((3, 4), 0.5))
    samples.flush()
    out, rows = tmp_path / "usb", tmp_path / "rows.csv"
    moved = runner.invoke(
        sample_commands.app, ["export", "--out", str(out), "--remove", "--config", str(toml)]
    )
    assert moved.exit_code == 0, moved.output
    assert not list(folder.glob("*.sealed"))
    opened = runner.invoke(
        fleet_app, ["samples", "open", str(out), "--key", str(key), "--out", str(rows)]
    )
    assert opened.exit_code == 0, opened.output
    read = list(csv.DictReader(io.StringIO(rows.read_text())))
    assert read
    assert {row["device"] for row in read} == {"pi"}
    assert {row["temp"] for row in read} == {"0.5"}
    none = runner.invoke(sample_commands.app, ["export", "--out", str(out), "--config", str(toml)])
    assert "no rows were set aside" in str(none.exception)


def test_a_value_that_looks_like_a_formula_is_text() -> None:
    from edge_fleet.commands.sample import Parcel, Row

    row = Row("random", "=1+1", None, {"site": "@cmd", "t": -2.0})
    text = table([Parcel("pi", "pump", "1.0", "ab" * 32, 0, [row])])
    assert "'=1+1" in text
    assert "'@cmd" in text
    assert ",-2.0" in text


@pytest.mark.parametrize("recipient", ["", "abc", "not base64!", "AAAA"])
def test_settings_without_a_key_are_refused(recipient: str) -> None:
    text = (
        '[agent]\ndevice = "pi"\nfleet = "home"\n[broker]\nurl = "mqtt://localhost"\n'
        f'[sampling]\nrecipient = "{recipient}"\n'
    )
    [fault] = configs.parse(text.encode(), Path("/"))[1]
    assert "[sampling] recipient" in fault
