"""One page that needs nothing but itself, says what it must, and holds whatever the names are."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest
from typer.testing import CliRunner

from edge_contract import bundle as bundles
from edge_contract import profile as profiles
from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault
from edge_contract.manifest import PROFILE_FILE, Feature
from edge_contract.profile import Monitor, Profile
from edge_pack import measure, reading
from edge_pack.cli import app
from edge_pack.papers import charts
from edge_pack.papers.html import Html, element
from edge_pack.papers.parts import Facts
from edge_pack.papers.report import PAGE_MAX_BYTES, page

VOID = {"meta", "br", "link", "line", "rect", "circle", "path", "polyline"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in order, ids are unique."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._note(tag, attrs)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        assert tag in VOID
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def _note(self, tag: str, attrs: Any) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    @property
    def words(self) -> str:
        return " ".join(self.text)


def _facts(case: Any) -> Facts:
    measured = reading.measured_beside(case.path, case.bundle.digest)
    evaluation = measured.evaluation if measured else None
    return Facts(case.bundle, case.path.stat().st_size, measured, evaluation)


@pytest.fixture(params=["iris", "forced", "tensors"])
def facts(request: pytest.FixtureRequest) -> Facts:
    return _facts(request.getfixturevalue(request.param))


def test_the_page_is_whole_small_and_the_same_again(facts: Facts) -> None:
    data = page(facts)
    assert len(data) < 300_000 and page(facts) == data
    found = Page(data.decode())
    assert data.startswith(b"<!doctype html>")
    assert found.count["h1"] == found.count["main"] == found.count["html"] == 1
    ids = [value for _, name, value in found.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    targets = {value[1:] for tag, name, value in found.attributes if (tag, name) == ("a", "href")}
    assert targets and targets <= set(ids)


def test_nothing_is_fetched(facts: Facts) -> None:
    data = page(facts).decode()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", data.replace("</", ""))
    for tag, name, value in Page(data).attributes:
        assert name not in ("src", "srcset", "data", "action", "style"), (tag, name, value)
        assert not name.startswith("on")
    assert "default-src &#x27;none&#x27;" in data


def test_the_policy_lets_exactly_the_pages_own_style_and_script_run(facts: Facts) -> None:
    import base64
    import hashlib
    import html

    data = page(facts).decode()
    policy = html.unescape(re.search(r'http-equiv="[^"]*" content="([^"]*)"', data)[1])  # type: ignore[index]
    for tag in ("style", "script"):
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", data, re.DOTALL)
        assert len(blocks) == 1
        digest = base64.b64encode(hashlib.sha256(blocks[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_charts_and_tables_can_be_read_aloud(facts: Facts) -> None:
    found = Page(page(facts).decode())
    assert ("html", "lang", "en") in found.attributes
    assert found.count["caption"] == found.count["table"]
    pictures = [value for tag, name, value in found.attributes if (tag, name) == ("svg", "role")]
    assert len(pictures) == found.count["svg"] and set(pictures) == {"img"}
    headers = [value for tag, name, value in found.attributes if (tag, name) == ("th", "scope")]
    assert len(headers) == found.count["th"]


def test_the_facts_of_the_manifest_are_on_the_page(facts: Facts) -> None:
    found = Page(page(facts).decode()).words
    manifest = facts.manifest
    assert facts.bundle.digest in found and manifest.name in found
    for file in manifest.files:
        assert file.raw_sha256 in found
    for metric in manifest.metrics:
        if not metric.slice:
            assert f"{metric.bundle:.6g}" in found
    assert manifest.provenance.source_sha256 in found
    for name, version in manifest.provenance.libraries.items():
        assert f"{name} {version}" in found
    assert "not signed" in found


def test_a_classifiers_page_has_confusion_calibration_slices_gates_and_profiles(iris: Any) -> None:
    data = page(_facts(iris)).decode()
    found = Page(data)
    for part in (
        "Confusion matrix",
        "Calibration",
        "Slices",
        "Gates",
        "Reference profile",
        "Speed",
    ):
        assert part in found.words, part
    assert found.words.count("Histogram of") == len(iris.bundle.manifest.features) + 1
    assert "FAILED" not in found.words and 'class="banner"' not in data
    evaluation = _facts(iris).evaluation
    assert evaluation is not None and evaluation.confusion is not None
    cells = re.findall(r'<td class="h\d(?: diag)?">(\d+)</td>', data)
    assert list(map(int, cells)) == [n for row in evaluation.confusion.counts for n in row]


def test_names_that_are_markup_stay_text(iris: Any) -> None:
    data = page(_facts(iris)).decode()
    found = Page(data)
    assert found.count["script"] == 1 and "b" not in found.count and "i" not in found.count
    assert "<script>alert('x')</script>|`*_\"&" in "".join(found.text)
    assert "<b>setosa</b>" in "".join(found.text) and "<i>irises</i>" in "".join(found.text)


def test_a_forced_bundle_says_so_at_the_top(forced: Any) -> None:
    data = page(_facts(forced)).decode()
    assert data.index('class="banner"') < data.index("<section")
    words = Page(data).words
    assert "Forced: this bundle missed what its build required" in words
    assert "r2: wanted >=0.9999" in words and "FAILED" in words


def test_what_was_not_kept_is_said(forced: Any) -> None:
    words = Page(page(_facts(forced)).decode()).words
    assert "NAME.measured.json" in words and "Not measured" in words


def test_a_model_of_whole_tensors_has_a_request_of_tensors(tensors: Any) -> None:
    words = Page(page(_facts(tensors)).decode()).words
    assert '"tensors": {"x": {"shape": [1, 2, 3]' in words
    assert "Reference profile" in words and "x:mean" in words


def test_signed_is_said_without_a_check_being_claimed(iris: Any) -> None:
    facts = _facts(iris)
    signed = replace(facts, bundle=replace(facts.bundle, signature=b"{}"))
    assert "signed (not checked here)" in Page(page(signed).decode()).words


def _candidate(mode: str, verdict: str, size: int, p50: float | None, **more: Any) -> Any:
    latency = (
        () if p50 is None else (measure.Latency(batch=1, p50_us=p50, p99_us=2 * p50, calls=9),)
    )
    return measure.CandidateFigures(
        mode=mode, verdict=verdict, size_bytes=size, latency=latency, rows=100, **more
    )


def test_the_search_is_drawn_with_the_chosen_form_marked(iris: Any) -> None:
    facts = _facts(iris)
    assert facts.measured is not None
    found = (
        _candidate("none", "dominated", 20_000, 14.0),
        _candidate("int8-storage", "chosen", 6_000, 14.2),
        _candidate("int8-dynamic", "slower", 6_500, 90.0, reason="6 times"),
        _candidate("int4-storage", "over budget", 4_000, None, flips=14),
    )
    search = measure.Searched(optimize="size", noise={1: 0.03}, candidates=found)
    measured = msgspec.structs.replace(facts.measured, search=search)
    data = page(replace(facts, measured=measured)).decode()
    circles = re.findall(r'<circle [^>]*class="dot (\w+)"><title>([^<:]*)', data)
    assert circles[:4] == [
        ("chosen", "int8-storage"), ("open", "none"), ("out", "int8-dynamic"),
        ("out", "int4-storage"),
    ]  # fmt: skip
    words = Page(data).words
    assert "slower: 6 times" in words and "int4-storage: over budget" in words
    assert 'class="front"' in data


def _wide(bundle: Bundle, features: int) -> Bundle:
    """The bundle with as many features, each with its histogram of 32 bins."""
    names = [f"sensor_{i:04d} <temperature>" for i in range(features)]
    monitors = [
        Monitor(name=name, kind="quantile", edges=tuple(float(e) for e in range(33)),
                counts=(*range(32), 0, 0, 0, 0, 0), mean=1.5, std=0.5)
        for name in names
    ]  # fmt: skip
    rows = sum(range(32))
    raw = profiles.encode(Profile(rows=rows, monitors=tuple(monitors)))
    file, stored = bundles.encode_member(PROFILE_FILE, raw)
    kept = [f for f in bundle.manifest.files if f.name != PROFILE_FILE]
    manifest = msgspec.structs.replace(
        bundle.manifest, files=(*kept, file),
        features=tuple(Feature(name=name, minimum=0.0, maximum=32.0) for name in names),
    )  # fmt: skip
    return replace(bundle, manifest=manifest, stored={**bundle.stored, PROFILE_FILE: stored})


def test_a_thousand_features_stay_under_two_megabytes_and_the_rest_is_said(iris: Any) -> None:
    facts = _facts(iris)
    data = page(replace(facts, bundle=_wide(facts.bundle, 1000)))
    assert len(data) < PAGE_MAX_BYTES
    found = Page(data.decode())
    drawn = found.words.count("Histogram of")
    assert drawn == 240 and f"{1000 - drawn} more are not drawn" in found.words
    assert found.count["details"] == 2 and "1,000 features" in found.words


def _inflated(bundle: Bundle, texts: int, length: int) -> Bundle:
    features = tuple(Feature(name=f"{i}" + "ä" * length) for i in range(texts))
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, features=features))


def test_tables_shrink_until_the_page_fits(iris: Any) -> None:
    facts = _facts(iris)
    huge = replace(facts, bundle=_inflated(facts.bundle, 20_000, 70))
    data = page(huge)
    assert len(data) < PAGE_MAX_BYTES and b"more features are not listed" in data
    use = msgspec.structs.replace(facts.manifest, intended_use="x" * PAGE_MAX_BYTES)
    with pytest.raises(InputFault, match="over 2 MB"):
        page(replace(facts, bundle=replace(facts.bundle, manifest=use)))


def _call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_beside_the_bundle_or_where_it_is_told(
    iris: Any, tmp_path: Path
) -> None:
    said = _call("report", iris.path, "--json")
    assert said.exit_code == 0, said.output
    beside = Path(json.loads(said.stdout)["path"])
    assert beside == iris.path.with_name("model.report.html")
    assert beside.read_bytes() == page(_facts(iris))
    assert json.loads(said.stdout)["size_bytes"] == beside.stat().st_size
    beside.unlink()
    assert str(tmp_path / "r.html") in _call("report", iris.path, "-o", tmp_path / "r.html").stdout
    assert (tmp_path / "r.html").exists() and "Example" in _call("report", "--help").output


def test_other_rows_are_asked_anew(iris: Any, forced: Any, tmp_path: Path) -> None:
    table = pd.read_csv(iris.path.parent / "rows.csv").iloc[:20]
    table.to_csv(tmp_path / "june.csv", index=False)
    out = tmp_path / "june.html"
    done = _call(
        "report", iris.path, "--data", tmp_path / "june.csv", "--target", "kind", "-o", out
    )
    assert done.exit_code == 0, done.output
    data = out.read_text()
    assert "The charts are of 20 rows: those in june.csv, asked anew." in data
    cells = re.findall(r'<td class="h\d(?: diag)?">(\d+)</td>', data)
    assert sum(map(int, cells)) == 20
    done = _call("report", forced.path, "--data", forced.path.parent / "rows.csv", "--target", "y",
                 "-o", out)  # fmt: skip
    assert done.exit_code == 0 and "Residuals" in out.read_text()


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        (["--data", "rows.csv"], "go together"),
        (["--target", "kind"], "go together"),
        (["--data", "absent.csv", "--target", "kind"], "cannot read absent.csv"),
    ],
)
def test_wrong_options_are_input_faults_and_write_nothing(
    options: list[str], finding: str, iris: Any, tmp_path: Path
) -> None:
    out = tmp_path / "r.html"
    done = _call("report", iris.path, *options, "-o", out)
    assert isinstance(done.exception, InputFault) and finding in str(done.exception)
    assert not out.exists()


def _luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    short = colour.lstrip("#")
    whole = short if len(short) == 6 else "".join(c * 2 for c in short)
    parts = [int(whole[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_the_contrast_of_wcag_aa_in_light_and_dark() -> None:
    css = resources.files("edge_pack.papers").joinpath("page.css").read_text()
    themes = [dict(re.findall(r"--([a-z-]+):(#[0-9a-f]+)", block))
              for block in re.findall(r":root[^{]*\{([^}]*)\}", css)[:3]]  # fmt: skip
    assert len(themes) == 3 and themes[1] == themes[2] != themes[0]
    pairs = [(text, ground) for text in ("ink", "soft", "main", "mark", "good", "bad")
             for ground in ("card", "bg")]  # fmt: skip
    pairs += [("good", "good-soft"), ("bad", "bad-soft"), ("ink", "main-soft"), ("ink", "code")]
    for theme in themes:
        for text, ground in pairs:
            light, dark = sorted((_luminance(theme[text]), _luminance(theme[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground, theme["bg"])


def test_elements_escape_all_but_elements() -> None:
    made = element("p", "<b>", element("b", 1.5, [None, "&"]), title='"x"', hidden=True, id=None)
    assert made == '<p title="&quot;x&quot;" hidden>&lt;b&gt;<b>1.5&amp;</b></p>'
    assert isinstance(made, Html)
    assert element("p", "a\x00\x1bb") == "<p>a\ufffd\ufffdb</p>"
    assert element("meta", charset="utf-8") == '<meta charset="utf-8"/>'


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0, 1, False), (-3, 7, False), (5, 5, False), (1e-9, 2e-9, False),
                             (3, 50_000, True), (1e6, 1e6 + 1, False)],
)  # fmt: skip
def test_ticks_are_round_few_and_inside(low: float, high: float, *, log: bool) -> None:
    found = charts.ticks(low, high, log=log)
    assert 1 <= len(found) <= 12 and found == sorted(found)
    slack = (high - low) * 1e-6
    assert all(low - slack <= tick <= high + slack for tick in found)
