"""`edge-fleet report`: what changed, at a stated share of false findings, on a safe page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from fleet_kit import Packed, category, draw, number, record
from typer.testing import CliRunner, Result

from edge_contract import manifest as manifests
from edge_contract import profile as profiles
from edge_contract import telemetry
from edge_fleet.changes import EVERY_DEVICE
from edge_fleet.cli import app
from edge_fleet.collector import now_ms
from edge_fleet.drift import ranking
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.page import page
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m"


def report(*words: str, db: str) -> Result:
    return CliRunner().invoke(app, ["report", *words, "--db", db])


@pytest.fixture
def filled(store: SqlStore, packed: Packed, rng: np.random.Generator) -> SqlStore:
    """Three devices of 600 rows each; pi-2's temperature moved by one sigma, pi-3 has new colours.

    A window of pi-1 that came two days ago is of another world altogether.
    """
    now = now_ms()
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, now)
        [entry] = [
            f for f in manifests.decode(packed.manifest_bytes).files if f.name == "profile.json"
        ]
        tx.put_blob(entry.sha256, packed.stored, now)
        windows = []
        for device in ("pi-1", "pi-2", "pi-3"):
            for seq in range(7):
                rows = draw(rng, 100)
                came = now
                if seq == 0:
                    rows.temperature += 100.0 if device == "pi-1" else 0.0
                    came -= 48 * 3_600_000
                elif device == "pi-2":
                    rows.temperature += 2.0
                elif device == "pi-3":
                    rows.colour = ["violet" if i % 5 == 0 else c for i, c in enumerate(rows.colour)]
                one = record(packed, packed.counts(rows), device=device, seq=seq)
                windows.append(window_of(telemetry.encode(one), came))
        Evidence(Library(), Budget(1, 60)).count(tx, tx.add_windows(windows), now)
    return store


def test_the_report_names_what_changed_where_and_nothing_else(filled: SqlStore, db: str) -> None:
    found = json.loads(report("--json", db=db).output)
    assert (found["devices"], found["rows"], found["tested"]) == (3, 1800, 4 * 4)
    changes = {(x["device"], x["feature"]): x for x in found["changes"]}
    moved, new = changes["pi-2", "temperature"], changes["pi-3", "colour"]
    assert moved["test"] == "neyman"
    said = re.match(r"mean up by about ([0-9.]+) sigma", moved["what"])
    assert said is not None
    assert float(said[1]) == pytest.approx(1.0, abs=0.3)
    assert moved["effect"] == pytest.approx(1.0, abs=0.35)
    assert moved["wasserstein"] == pytest.approx(2.0, abs=0.8)  # in degrees, not in sigmas
    assert max(moved["anderson_darling_p"], moved["kolmogorov_smirnov_p"]) < 1e-6
    assert new["test"] == "unseen"
    assert new["effect"] == pytest.approx(0.2)
    assert new["anderson_darling_p"] is None
    assert (EVERY_DEVICE, "temperature") in changes
    assert not [x for x in changes if x[0] == "pi-1"]
    q = [x["q"] for x in found["changes"]]
    assert q == sorted(q)
    assert max(q) <= 0.05


def test_a_longer_period_takes_older_windows_in(filled: SqlStore, db: str) -> None:
    found = json.loads(report("--json", "--hours", "72", db=db).output)
    assert found["rows"] == 2100
    assert ("pi-1", "temperature") in {(x["device"], x["feature"]) for x in found["changes"]}


def test_the_table_says_what_the_list_promises(filled: SqlStore, db: str) -> None:
    output = report("--fdr", "0.01", "--method", "by", db=db).output
    assert "at most 1 % are expected to be false (tests any dependence)" in output
    assert "pi-2" in output
    assert "temperature" in output


class Tags(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href") or k.startswith("on")]


def test_the_page_has_a_histogram_a_change_and_loads_nothing(
    filled: SqlStore, db: str, tmp_path: Path
) -> None:
    file = tmp_path / "week.html"
    assert report("--html", str(file), db=db).exit_code == 0
    text = file.read_text(encoding="utf-8")
    found = json.loads(report("--json", db=db).output)
    seen = Tags()
    seen.feed(text)
    assert seen.tags.count("svg") == len(found["changes"]) >= 3
    assert not seen.addresses
    assert "script" not in seen.tags
    assert "https://" not in text
    bars = next(x["bars"] for x in found["changes"] if x["feature"] == "colour")
    assert {bar["cell"] for bar in bars} >= {"red", "green", "blue", "unseen"}
    for side in ("before", "after"):
        assert sum(bar[side] for bar in bars) == pytest.approx(1.0, abs=1e-5)
    assert report("--html", "-", db=db).output == text or "<!DOCTYPE html>" in text


def test_no_name_becomes_markup(filled: SqlStore, db: str) -> None:
    from edge_fleet import changes

    found = changes.changes(filled, now_ms(), period_ms=86_400_000)
    [first, *_] = found.changes
    hostile = first.__class__(
        **{name: getattr(first, name) for name in first.__struct_fields__}
        | {"device": HOSTILE, "feature": HOSTILE, "what": HOSTILE, "version": HOSTILE}
        | {"bars": tuple(bar.__class__(HOSTILE, bar.before, bar.after) for bar in first.bars)}
    )
    text = page(
        found.__class__(
            **{name: getattr(found, name) for name in found.__struct_fields__}
            | {"changes": (hostile,)}
        )
    )
    seen = Tags()
    seen.feed(text)
    assert "script" not in seen.tags
    assert "\x1b" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    svg = text[text.index("<svg") : text.index("</svg>") + 6]
    ElementTree.fromstring(svg)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hours", "0"], "--hours 0 is not above 0"),
        (["--fdr", "1"], "--fdr 1 is not between 0 and 1"),
        (["--method", "holm"], "neither bh nor by"),
        (["--minimum-effect", "-1"], "not from 0 to 10"),
        (["--model", "other"], "no device was ever heard of with model 'other'"),
    ],
)
def test_what_cannot_be_reported_is_refused(
    filled: SqlStore, db: str, words: list[str], said: str
) -> None:
    result = report(*words, db=db)
    assert result.exit_code != 0
    assert said in str(result.exception)


def test_a_period_in_which_nothing_came_is_no_fault(
    filled: SqlStore, db: str, tmp_path: Path
) -> None:
    """A job that looks every hour must not fail in a quiet one."""
    page = tmp_path / "quiet.html"
    result = report("--hours", "0.000001", "--html", str(page), db=db)
    assert (result.exit_code, "no window came" in result.output) == (0, True)
    assert "no window came" in page.read_text()
    found = json.loads(report("--hours", "0.000001", "--json", db=db).output)
    assert (found["tested"], found["devices"], found["changes"]) == (0, 0, [])


def test_a_page_that_cannot_be_written_says_so(filled: SqlStore, db: str, tmp_path: Path) -> None:
    result = report("--html", str(tmp_path / "no" / "x.html"), db=db)
    assert "cannot be written" in str(result.exception)


def test_every_store_gives_the_windows_of_a_period(
    any_store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    with any_store.transaction() as tx:
        made = [
            window_of(
                telemetry.encode(record(packed, packed.counts(draw(rng, 10)), seq=seq)), 1000 * seq
            )
            for seq in range(4)
        ]
        tx.add_windows(made)
        tx.put_blob(packed.digest, packed.manifest_bytes, 0)
        [entry] = [
            f for f in manifests.decode(packed.manifest_bytes).files if f.name == "profile.json"
        ]
        tx.put_blob(entry.sha256, packed.stored, 0)
        Evidence(Library(), Budget()).count(tx, made[:3], 4000)
    with any_store.reading() as tx:
        some = [one for at_once in tx.counted_since(packed.digest, 1000, 1) for one in at_once]
        found = {telemetry.decode(one.record).seq for one in some}
        assert found == {1, 2}  # 0 is older, 3 not counted yet
        assert not list(tx.counted_since("0" * 64, 0, 9))


def test_of_many_quiet_streams_the_ranking_names_next_to_none(seed: int) -> None:
    """20 features of 50 devices, ten times: at 5 % one list in twenty may hold anything at all."""
    rng = np.random.default_rng(seed)
    lists = 0
    for _ in range(10):
        screened = []
        for at in range(20):
            if at % 4:
                monitor = number("x", rng.normal(size=5000))
                counts = [profiles.count_numbers(monitor, rng.normal(size=300)) for _ in range(50)]
            else:
                letters = np.array(list("abcdefgh"))
                monitor = category("x", rng.choice(letters, 5000).tolist())
                counts = [
                    profiles.count_categories(monitor, rng.choice(letters, 300).tolist())
                    for _ in range(50)
                ]
            screened.append(ranking.screen(monitor, np.stack(counts), 0.0))
        lists += ranking.rank(screened)[0].q <= 0.05
    assert lists <= 4


def test_a_device_that_moved_stands_first_among_quiet_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    screened = []
    for at in range(5):
        monitor = number("x", rng.normal(size=5000))
        shift = np.zeros(30)
        if at == 3:
            shift[17] = 0.5
        counts = [profiles.count_numbers(monitor, rng.normal(s, 1, 1000)) for s in shift]
        screened.append(ranking.screen(monitor, np.stack(counts)))
    first, second = ranking.rank(screened)[:2]
    assert (first.place, first.stream, first.test) == (3, 17, "neyman")
    assert first.q < 1e-6
    assert second.q > 0.05
    assert ranking.rank([]) == []
