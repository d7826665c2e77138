"""`edge-fleet quality --reference`: labelled rows of old, weighted to look like today's."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fleet_kit import Packed, Rows, draw, record
from typer.testing import CliRunner, Result

from edge_contract import manifest as manifests
from edge_contract import profile, telemetry
from edge_contract.errors import InputFault
from edge_fleet.cli import app
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.options import now_ms
from edge_fleet.quality import reference_file
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

LABELS = ("ok", "worn")


def truth_of(rng: np.random.Generator, rows: Rows) -> np.ndarray:
    """The model errs more often where it is hot: 5 % of the rows below 22 degrees, 60 % above."""
    predicted = (rows.score >= 0.5).astype(int)
    wrong = rng.random(len(predicted)) < np.where(rows.temperature > 22.0, 0.6, 0.05)
    return np.where(wrong, 1 - predicted, predicted)


def files(rows: Rows, truth: np.ndarray, *, refuse: int = 0) -> tuple[bytes, bytes]:
    """Rows and answers as a person and `edge-agent predict --output` write them."""
    given, said = io.StringIO(), io.StringIO()
    csv.writer(given).writerows(
        [["temperature", "level", "colour", "state"]]
        + [[t, v, c, LABELS[y]] for t, v, c, y in
           zip(rows.temperature, rows.level, rows.colour, truth, strict=True)]
    )  # fmt: skip
    csv.writer(said).writerows(
        [["line", "label", "probability_ok", "probability_worn", "error"]]
        + [[line + 2, LABELS[int(s >= 0.5)], 1 - s, s, "no" if line < refuse else ""]
           for line, s in enumerate(rows.score)]
    )  # fmt: skip
    return given.getvalue().encode(), said.getvalue().encode()


def test_rows_lie_in_the_cells_that_devices_count_them_in(
    packed: Packed, rng: np.random.Generator
) -> None:
    rows = draw(rng, 500)
    rows.temperature[:3] = (-1e6, 1e6, 20.0)
    found = reference_file.read(*files(rows, truth_of(rng, rows)), packed.profile, LABELS, "state")
    assert found.monitors == (0, 1, 2, 3) and found.refused == 0
    counted = packed.counts(rows)
    starts = packed.profile.offsets()
    for column, at in enumerate(found.monitors):
        cells = packed.profile.monitors[at].cells
        assert (
            np.bincount(found.cells[:, column], minlength=cells)
            == counted[starts[at] : starts[at] + cells]
        ).all(), packed.profile.monitors[at].name
    assert found.labelled.score == pytest.approx(rows.score)


def test_missing_values_have_their_cell(packed: Packed, rng: np.random.Generator) -> None:
    rows = draw(rng, 3)
    rows.colour[0] = ""
    given, said = files(rows, truth_of(rng, rows))
    lines = given.decode().splitlines()
    lines[2] = "," + lines[2].split(",", 1)[1]
    found = reference_file.read("\n".join(lines).encode(), said, packed.profile, LABELS, "state")
    temperature, _, colour, _ = packed.profile.monitors[:4]
    missing = temperature.regular + profile.NUMBER_SPECIALS.index("missing")
    assert found.cells[1, 0] == missing
    assert found.cells[0, 2] == colour.regular + profile.CATEGORY_SPECIALS.index("missing")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g, a: (g.replace(b"colour", b"color"), a), "no column 'colour'"),
        (lambda g, a: (g.replace(b"state", b"truth"), a), "no column 'state'"),
        (lambda g, a: (g.replace(b",worn\r\n", b",borken\r\n", 1), a), "truth is none of this"),
        (lambda g, a: (g, a.replace(b"line", b"row")), "no column line"),
        (lambda g, a: (g, a.splitlines()[0]), "0 rows"),
        (lambda g, a: (g, b"line,label\n9999,ok\n"), "no row of the file has an answer"),
        (lambda g, a: (b"\xff\xfe" + g, a), "no CSV"),
        (lambda g, a: (g + b"1,2\r\n", a), "more or fewer cells"),
        (lambda g, a: (g.replace(b"\r\n", b"\r\nhot", 1), a), "is no number"),
    ],
)  # fmt: skip
def test_a_fault_of_the_files_is_named(
    packed: Packed, rng: np.random.Generator, change: object, said: str
) -> None:
    rows = draw(rng, 50)
    assert callable(change)
    with pytest.raises(InputFault) as caught:
        reference_file.read(
            *change(*files(rows, truth_of(rng, rows))), packed.profile, LABELS, "state"
        )
    assert said in caught.value.what


# -- the command -----------------------------------------------------------------------------


def keep(store: SqlStore, packed: Packed, rows: Rows) -> None:
    """One window of ``rows``."""
    entry = manifests.decode(packed.manifest_bytes).file(manifests.PROFILE_FILE)
    data = telemetry.encode(record(packed, packed.counts(rows)))
    now = now_ms()
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, now)
        tx.put_blob(entry.sha256, packed.stored, now)
        Evidence(Library(), Budget(1, 60)).count(tx, tx.add_windows([window_of(data, now)]), now)


def hotter(rng: np.random.Generator, rows: int) -> Rows:
    """By one and a half degrees."""
    found = draw(rng, rows)
    return replace(found, temperature=found.temperature + 1.5)


def quality(folder: Path, db: str, given: bytes, said: bytes, *more: str) -> Result:
    (folder / "rows.csv").write_bytes(given)
    (folder / "answers.csv").write_bytes(said)
    words = ["quality", "--db", db, "--reference", str(folder / "rows.csv"),
             "--answers", str(folder / "answers.csv"), "--target", "state", *more]  # fmt: skip
    return CliRunner().invoke(app, words)


def test_a_raked_estimate_follows_the_inputs(
    store: SqlStore, db: str, packed: Packed, tmp_path: Path, rng: np.random.Generator
) -> None:
    today = hotter(rng, 4000)
    keep(store, packed, today)
    old = draw(rng, 4000)
    told = quality(tmp_path, db, *files(old, truth_of(rng, old), refuse=7), "--json")
    [found] = json.loads(told.output)
    figures = {(e["method"], e["figure"]): e for e in found["estimates"]}
    raked = figures["raked", "accuracy"]
    hot, hot_before = (today.temperature > 22).mean(), (old.temperature > 22).mean()
    assert hot > hot_before + 0.2
    assert raked["value"] == pytest.approx(0.95 - 0.55 * hot, abs=0.05)
    assert raked["low"] - 0.02 < 0.95 - 0.55 * hot < raked["high"] + 0.02
    assert 100 < raked["rows"] < 4000, "effective rows"
    assert "concept drift" in raked["blind"]
    table = quality(tmp_path, db, *files(old, truth_of(rng, old))).output
    assert "raked" in table and raked["blind"] in table


@pytest.fixture
def kept(store: SqlStore, db: str) -> tuple[SqlStore, str]:
    return store, db


@pytest.mark.parametrize("why", ["few", "unlike"])
def test_an_estimate_on_thin_grounds_is_refused(
    kept: tuple[SqlStore, str], packed: Packed, tmp_path: Path, rng: np.random.Generator, why: str
) -> None:
    store, db = kept
    today = hotter(rng, 4000)
    if why == "unlike":
        today.temperature[:400] = 1e6
    keep(store, packed, today)
    old = draw(rng, 90 if why == "few" else 4000)
    found = json.loads(quality(tmp_path, db, *files(old, truth_of(rng, old)), "--json").output)
    [raked] = [
        e for e in found[0]["estimates"] if (e["method"], e["figure"]) == ("raked", "accuracy")
    ]
    assert raked["value"] is None
    assert ("like no labelled" if why == "unlike" else "labelled reference row") in raked["refused"]


def test_the_options_belong_together(store: SqlStore, db: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["quality", "--db", db, "--reference", "rows.csv"])
    assert "belong together" in str(told.exception)
