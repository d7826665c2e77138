"""`edge-fleet export counts` and what `edge-fleet report` writes: tables of no few rows."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from fleet_kit import Packed, draw, record
from typer.testing import CliRunner, Result

from edge_contract import manifest as manifests
from edge_contract import telemetry
from edge_fleet import changes
from edge_fleet.cli import app
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.options import now_ms
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

DAY_MS = 86_400_000
K = 10


def export(*words: str, db: str) -> Result:
    return CliRunner().invoke(app, ["export", "counts", *words, "--db", db])


@pytest.fixture
def filled(store: SqlStore, packed: Packed, rng: np.random.Generator) -> SqlStore:
    """Yesterday and today: pi-1 and pi-2 with 150 rows each, pi-3 with 4."""
    now = now_ms()
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, now)
        [entry] = [
            f for f in manifests.decode(packed.manifest_bytes).files if f.name == "profile.json"
        ]
        tx.put_blob(entry.sha256, packed.stored, now)
        windows = []
        for day in (0, 1):
            start = (now // DAY_MS - day) * DAY_MS
            for device, rows in (("pi-1", 150), ("pi-2", 150), ("pi-3", 4)):
                one = record(
                    packed, packed.counts(draw(rng, rows)), device=device, seq=9 - day,
                    start_ms=start, end_ms=start + 1000,
                )  # fmt: skip
                windows.append(window_of(telemetry.encode(one), now))
        Evidence(Library(), Budget(1, 60)).count(tx, tx.add_windows(windows), now)
    return store


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_yesterday_is_exported_with_no_figure_below_k(
    filled: SqlStore, db: str, tmp_path: Path, packed: Packed
) -> None:
    out = tmp_path / "counts.csv"
    said = export("--out", str(out), db=db)
    assert said.exit_code == 0
    assert "none of fewer than 10 rows" in said.output
    lines = read(out.read_text())
    assert {line["device"] for line in lines} == {""}
    assert len({line["day"] for line in lines}) == 1  # today is still growing
    for feature in ("temperature", "level", "colour", "prediction"):
        rows = [int(line["rows"]) for line in lines if line["feature"] == feature]
        assert sum(rows) == 304
        assert all(n == 0 or n >= K for n in rows)
        shares = [float(x["reference_share"]) for x in lines if x["feature"] == feature]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert len([x for x in lines if x["feature"] == "temperature"]) < 37  # of 37 cells


def test_a_table_of_few_rows_is_left_out_and_others_are_by_device(
    filled: SqlStore, db: str
) -> None:
    lines = read(export("--out", "-", "--by-device", "--today", db=db).output)
    assert {line["device"] for line in lines} == {"pi-1", "pi-2"}
    assert len({line["day"] for line in lines}) == 2


def test_without_a_threshold_every_cell_is_there(filled: SqlStore, db: str, packed: Packed) -> None:
    lines = read(export("--out", "-", "--k", "0", db=db).output)
    assert len(lines) == packed.profile.cells


def test_parquet_and_json_hold_the_same(filled: SqlStore, db: str, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow")
    for name in ("x.csv", "x.json", "x.parquet"):
        assert export("--out", str(tmp_path / name), db=db).exit_code == 0
    lines = json.loads((tmp_path / "x.json").read_text())["lines"]
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist() == lines
    found = read((tmp_path / "x.csv").read_text())
    assert [line["rows"] for line in found] == [str(line["rows"]) for line in lines]
    assert [line["cells"] for line in found] == [line["cells"] for line in lines]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x.xlsx"], "neither .csv nor .parquet nor .json"),
        (["--out", "-", "--model", "other"], "no window lies in"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    filled: SqlStore, db: str, words: list[str], said: str
) -> None:
    result = export(*words, db=db)
    assert result.exit_code != 0
    assert said in str(result.exception)


def test_a_report_that_is_handed_out_is_computed_from_merged_cells(
    store: SqlStore, db: str, packed: Packed, rng: np.random.Generator
) -> None:
    """Six rows of new colours are a finding on the screen; in the file they are told of nobody."""
    now = now_ms()
    rows = draw(rng, 600)
    rows.colour[:6] = ["violet"] * 6
    rows.temperature += 3.0  # a change that may be told
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, now)
        [entry] = [
            f for f in manifests.decode(packed.manifest_bytes).files if f.name == "profile.json"
        ]
        tx.put_blob(entry.sha256, packed.stored, now)
        one = window_of(telemetry.encode(record(packed, packed.counts(rows))), now)
        Evidence(Library(), Budget(1, 60)).count(tx, tx.add_windows([one]), now)

    raw = changes.changes(store, now, period_ms=DAY_MS, minimum_effect=0.0)
    assert {"colour", "temperature"} <= {x.feature for x in raw.changes}
    handed = json.loads(
        CliRunner().invoke(app, ["report", "--json", "--minimum-effect", "0", "--db", db]).output
    )
    assert [x["feature"] for x in handed["changes"]] == ["temperature"]
    kept = CliRunner().invoke(
        app, ["report", "--json", "--minimum-effect", "0", "--k", "0", "--db", db]
    )
    assert {"colour", "temperature"} <= {x["feature"] for x in json.loads(kept.output)["changes"]}


def test_two_exports_of_overlapping_days_agree_day_by_day(filled: SqlStore, db: str) -> None:
    """A longer period adds days; it never tells a day in other parts, which could be subtracted."""
    short = read(export("--out", "-", "--days", "1", db=db).output)
    long = read(export("--out", "-", "--days", "30", "--today", db=db).output)
    assert short
    assert [line for line in long if line["day"] == short[0]["day"]] == short
