"""What is exported is what is in the store, in every form, and no formula to a spreadsheet."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from fleet_kit import Packed, draw, record
from msgspec.structs import replace
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent))

from edge_contract import manifest as manifests
from edge_contract import telemetry
from edge_fleet import table_export
from edge_fleet.cli import app
from edge_fleet.drift import explain
from edge_fleet.options import now_ms
from edge_fleet.store.audit import audit
from edge_fleet.store.base import Alarm, EventSeen, Window
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

KINDS = ("devices", "events", "alarms", "windows", "audit")


def run(*words: str, db: str) -> Result:
    return CliRunner().invoke(app, [*words, "--db", db])


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow")
        rows: list[dict[str, object]] = parquet.read_table(path).to_pylist()
        return rows
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", KINDS)
def test_all_forms_hold_the_same(
    kind: str, filled: SqlStore, db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_export, "BATCH", 2)  # several batches of this small store
    with filled.transaction() as tx:
        for at in range(5):
            audit(tx, at, "=1+1", action="a.b", subject=f"s {at}")
    found = {}
    for form in ("jsonl", "parquet", "csv"):
        path = tmp_path / f"x.{form}"
        result = run("export", kind, "--out", str(path), db=db)
        assert result.exit_code == 0, f"{result.output} {result.exception}"
        found[form] = read(path)
        assert f"{len(found[form])} lines" in result.output
    assert found["jsonl"] == found["parquet"]
    expected = {"devices": 5, "events": 20, "windows": 30, "audit": 5}
    assert len(found["jsonl"]) == expected.get(kind, len(found["jsonl"])) > 0
    assert list(found["jsonl"][0]) == list(table_export.COLUMNS[kind])  # type: ignore[index]
    assert len(found["csv"]) == len(found["jsonl"])
    if kind == "devices":
        assert [one["device"] for one in found["csv"]] == [f"pi-{n}" for n in range(5)]
    if kind == "audit":
        assert {one["actor"] for one in found["csv"]} == {"'=1+1"}, "no formula"
        assert {one["actor"] for one in found["jsonl"]} == {"=1+1"}


def window(seq: int, rows: int, packed: Packed, rng: np.random.Generator) -> Window:
    one = record(packed, packed.counts(draw(rng, rows)), seq=seq, start_ms=10**12 + seq * 60_000)
    return window_of(telemetry.encode(one), 5)


@pytest.mark.parametrize("k", [0, 1, 10, 40])
def test_no_line_is_of_fewer_rows_and_none_is_lost(
    k: int, packed: Packed, rng: np.random.Generator
) -> None:
    sizes = [int(n) for n in rng.integers(0, 25, 40)]
    lines = table_export.merged([window(s, n, packed, rng) for s, n in enumerate(sizes)], k)
    names = list(table_export.COLUMNS["windows"])
    rows = [line[names.index("rows")] for line in lines]
    assert sum(int(n or 0) for n in rows) == sum(sizes)
    assert sum(int(line[names.index("windows")] or 0) for line in lines) == len(sizes)
    assert all(int(n or 0) >= k for n in rows)
    assert table_export.merged([window(0, 3, packed, rng), window(1, 4, packed, rng)], 10) == []


def test_what_cannot_be_written_leaves_the_former_file(
    filled: SqlStore, db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "devices.csv"
    path.write_text("former")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("export", "devices", "--out", str(path), "--format", "parquet", db=db)
    assert result.exit_code != 0
    assert "edge-pack[parquet]" in str(result.exception)
    assert path.read_text() == "former"
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []
    odd = run("export", "devices", "--out", str(tmp_path / "devices.xls"), db=db)
    assert "'xls' is none of csv, jsonl and parquet" in str(odd.exception)


def test_a_dash_is_standard_output_and_no_file(
    filled: SqlStore, db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = tmp_path / "devices.csv"
    assert run("export", "devices", "--out", str(whole), db=db).exit_code == 0
    assert run("export", "devices", "--out", "-", db=db).output == whole.read_text()
    lines = run("export", "devices", "--out", "-", "--format", "jsonl", db=db).output.splitlines()
    assert [json.loads(line)["device"] for line in lines] == [f"pi-{n}" for n in range(5)]
    odd = run("export", "devices", "--out", "-", "--format", "parquet", db=db)
    assert "Parquet does not go to stdout" in str(odd.exception)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith("-")] == []


def test_a_large_table_is_never_held_whole(store: SqlStore, tmp_path: Path) -> None:
    """Ten thousand events: the lines that exist at once are a batch, whoever reads slowly."""
    now = now_ms()
    with store.transaction() as tx:
        tx.add_events(
            [EventSeen("pi", 1, n, n, "update", "m", "1", "x" * 50, now + n // 7)
             for n in range(10_000)]
        )  # fmt: skip
    asked: list[int] = []
    with store.reading() as tx:
        real = tx.events_before

        class Counting:
            def events_before(self, key: tuple[int | str, ...], limit: int) -> list[EventSeen]:
                asked.append(limit)
                return real(key, limit)

        found = table_export._events(Counting())  # type: ignore[arg-type]
        first = next(found)
        assert asked == [table_export.BATCH], "nothing is read ahead"
        rest = sum(1 for _ in found)
    assert (rest, len(first)) == (9_999, 8)
    assert max(asked) == table_export.BATCH


def test_alarms_are_told_from_cells_of_enough_rows(
    store: SqlStore, db: str, packed: Packed, tmp_path: Path
) -> None:
    """Three rows of an unseen category raised one: which kind it is, and nothing of three rows."""
    monitor = packed.profile.monitors[2]
    names = explain.cell_names(monitor)
    counts = dict.fromkeys(names, 0) | {"blue": 47, "green": 150, "red": 300, "unseen": 3}
    bars = tuple(explain.CellChange(name, 0.0, count / 500) for name, count in counts.items())
    said = explain.Explanation("unseen", "unseen categories: 0.6 % of rows", 500, bars[-3:], bars)
    entry = manifests.decode(packed.manifest_bytes).file(manifests.PROFILE_FILE)
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, 1)
        tx.put_blob(entry.sha256, packed.stored, 1)
        for each in (said, replace(said, text="no other")):
            tx.add_alarm(
                Alarm("pi-1", "boiler", "1.0", packed.digest, 2, "feature", "colour", 1, 1, 20.0,
                      15.0, explain.encode(each))
            )  # fmt: skip
    path = tmp_path / "alarms.jsonl"
    assert run("export", "alarms", "--out", str(path), db=db).exit_code == 0
    assert [one["what"] for one in read(path)] == ["unseen", "unseen"]
    assert run("export", "alarms", "--out", str(path), "--k", "0", db=db).exit_code == 0
    assert [one["what"] for one in read(path)] == ["no other", "unseen categories: 0.6 % of rows"]
