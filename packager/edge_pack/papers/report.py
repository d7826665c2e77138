"""The report: one HTML page about a bundle that needs nothing but itself. Pure.

Guards: nothing is fetched (a content security policy forbids it too: no address stands in it, and
only its own style and script may run, by their hashes); every text is escaped by construction;
the same facts give the same bytes; a page stays under 2 MB, and says what it leaves out.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from importlib import resources

from edge_contract.errors import InputFault
from edge_pack.papers import model_sections as model
from edge_pack.papers import quality_sections as quality
from edge_pack.papers import words
from edge_pack.papers.html import Child, Html, element
from edge_pack.papers.parts import Facts, Section, soft

PAGE_MAX_BYTES = 2_000_000
_CAPS = ((240, 1000), (120, 400), (24, 100), (0, 0))
"""Histograms and rows of tables: the first pair whose page is small enough is taken."""


def page(facts: Facts) -> bytes:
    """The page, UTF-8. Raises InputFault when a bundle's own texts fill it."""
    for profiles_max, features_max in _CAPS:
        data = _render(replace(facts, profiles_max=profiles_max, features_max=features_max))
        if len(data) < PAGE_MAX_BYTES:
            return data
    raise InputFault("the report would be over 2 MB: the bundle's names and texts alone fill it")


def _render(facts: Facts) -> bytes:
    sections = [part for part in _sections(facts) if part is not None]
    manifest = facts.manifest
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{manifest.name} {manifest.version}: report"),
        element("style", style),
    )
    body = element(
        "body",
        element(
            "div", _header(facts), _banner(facts), _nav(sections),
            element("main", _tiles(facts), [part.html() for part in sections]), _footer(facts),
            class_="page",
        ),
        element("script", script),
    )  # fmt: skip
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n".encode()


def _asset(name: str) -> Html:
    """A file of ours, which needs no escaping."""
    return Html(resources.files(__package__).joinpath(name).read_text("utf-8").strip())


def _hash(text: Html) -> str:
    """A source expression of CSP level 3: the SHA-256 of an inline block."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _sections(facts: Facts) -> list[Section | None]:
    return [
        model.compression(facts), quality.parity(facts), quality.quality(facts),
        quality.slices(facts), quality.gates(facts), quality.baseline(facts), model.speed(facts),
        model.profile(facts), model.files(facts), model.interface(facts), model.origin(facts),
    ]  # fmt: skip


def _header(facts: Facts) -> Html:
    manifest = facts.manifest
    badges: list[Child] = [element("span", manifest.task, class_="badge")]
    if facts.bundle.signature:
        badges.append(element("span", "signed (not checked here)", class_="badge good"))
    else:
        badges.append(element("span", "not signed", class_="badge bad"))
    if manifest.parity.synthetic:
        badges.append(element("span", "parity on drawn inputs", class_="badge bad"))
    if _forced(facts):
        badges.append(element("span", "forced", class_="badge bad"))
    title = element(
        "div",
        element("p", "Model bundle report", class_="eyebrow"),
        element("h1", manifest.name, " ", element("small", manifest.version)),
        element("div", badges),
    )
    return element(
        "header", title, element("button", "Dark", id="theme", type="button", hidden=True)
    )


def _forced(facts: Facts) -> bool:
    manifest = facts.manifest
    return manifest.parity.forced or any(not gate.passed for gate in manifest.gates)


def _banner(facts: Facts) -> Html | None:
    if not _forced(facts):
        return None
    failed = [gate for gate in facts.manifest.gates if not gate.passed]
    lines = [f"{gate.name}: wanted {gate.wanted}, got {gate.got or 'worse'}" for gate in failed]
    return element(
        "div",
        element("p", "Forced: this bundle missed what its build required, and was sealed anyway."),
        element("ul", [element("li", line) for line in lines]) if lines else None,
        class_="banner", role="alert",
    )  # fmt: skip


def _nav(sections: list[Section]) -> Html:
    links = [element("li", element("a", part.title, href=f"#{part.name}")) for part in sections]
    return element("nav", element("ul", links), aria_label="Sections")


def _tiles(facts: Facts) -> Html:
    manifest, measured = facts.manifest, facts.measured
    model_file, parity = manifest.files[0], manifest.parity
    stock = words.share(model_file.size, manifest.compression.stock_bytes)
    tiles = [
        _tile("Bundle", words.size(facts.size_bytes), f"model {words.size(model_file.size)}"),
        _tile("Of the plain conversion", stock, f"form {manifest.compression.mode}"),
    ]
    if manifest.outputs.labels:
        tiles.append(_tile("Labels changed", f"{parity.flips:,}", f"of {parity.rows:,} rows"))
    tiles.append(
        _tile("Largest difference", words.number(parity.diff_max, 2), "to the original model")
    )
    lead = next((metric for metric in manifest.metrics if not metric.slice), None)
    if lead is not None:
        note = words.interval(lead) or f"original {words.number(lead.original, 4)}"
        tiles.append(_tile(lead.name, words.number(lead.bundle, 4), note))
    if measured is not None and measured.figures.latency:
        first = measured.figures.latency[0]
        note = f"p50, {first.batch} row{'' if first.batch == 1 else 's'}; p99 "
        tiles.append(_tile("Latency", words.time(first.p50_us), note + words.time(first.p99_us)))
    return element("dl", tiles, class_="tiles")


def _tile(name: str, value: str, note: str) -> Html:
    return element(
        "div", element("dt", name), element("dd", value, element("small", note)), class_="tile"
    )


def _footer(facts: Facts) -> Html:
    return element(
        "footer",
        soft("Bundle ", element("code", facts.bundle.digest), ". Made by edge-pack report from the "
             "bundle" + (" and the measurements beside it." if facts.measured else " alone.")),
    )  # fmt: skip
