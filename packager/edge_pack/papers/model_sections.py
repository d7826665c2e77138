"""The report's sections on the model: form, speed, files, interface, profile, origin. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_contract import golden as goldens
from edge_contract import profile as profiles
from edge_contract.bundle import Bundle
from edge_contract.manifest import GOLDEN_FILE, PROFILE_FILE
from edge_contract.profile import Monitor, Profile
from edge_pack.measure import CandidateFigures, Latency
from edge_pack.papers import charts, words
from edge_pack.papers.command import as_text
from edge_pack.papers.html import Child, Html, element
from edge_pack.papers.parts import (
    Facts,
    Section,
    aside,
    cut,
    figure,
    side,
    soft,
    table,
)
from edge_pack.papers.parts import (
    facts as listed,
)

PROFILES_OPEN = 24
EXAMPLE_FEATURES = 12
PROFILE_BINS = 20
EDGE_LEAST = 1e-30


def compression(facts: Facts) -> Section:
    """The forms that were tried, and the one that was taken."""
    manifest = facts.manifest
    model, stock = manifest.files[0], manifest.compression.stock_bytes
    body: list[Child] = [
        soft(
            f"The model travels as {words.size(model.size)} in the form ",
            element("code", manifest.compression.mode),
            f": {words.share(model.size, stock)} of the plain conversion's {words.size(stock)}.",
        )
    ]
    search = facts.measured.search if facts.measured else None
    found = search.candidates if search else ()
    timed = [c for c in found if c.size_bytes and c.latency]
    if len(timed) > 1:
        dots = [charts.Dot(c.size_bytes, c.latency[0].p50_us, c.mode, _kind(c)) for c in timed]
        untimed = [
            charts.Dot(c.size_bytes, 0, f"{c.mode}: {c.verdict}", "out")
            for c in found
            if c.size_bytes and not c.latency
        ]
        labels = ("bytes on the wire", "latency p50 at batch 1")
        body.append(
            figure(
                charts.pareto(dots, untimed, labels, words.size, words.time),
                "Left is smaller, down is faster. The large mark was chosen, hollow ones were "
                "refused, and a dotted line joins those that no other beats"
                + ("; below the axis are forms that were refused before they were timed." if untimed
                   else "."),
            )
        )  # fmt: skip
    else:
        sizes = [(c.mode, float(c.size_bytes), words.size(c.size_bytes)) for c in found
                 if c.size_bytes]  # fmt: skip
        sizes = sizes or [(manifest.compression.mode, float(model.size), words.size(model.size))]
        chosen = [name for name, _, _ in sizes].index(manifest.compression.mode)
        rows = [("plain conversion", float(stock), words.size(stock)), *sizes]
        chart = charts.bars(rows, "Bytes of the model by form", marked=chosen + 1)
        body.append(
            figure(chart, "Bytes of the model: as converted, and as it travels (chosen: marked).")
        )
    if found:
        body.append(_candidates(found, search.optimize if search else ""))
    return Section("compression", "Compression", body)


def _kind(candidate: CandidateFigures) -> str:
    if candidate.verdict == "chosen":
        return "chosen"
    return "open" if candidate.verdict in ("dominated", "possible") else "out"


def _candidates(found: tuple[CandidateFigures, ...], optimize: str) -> Html:
    metric = next((c.metric for c in found if c.metric), "metric")
    header = ("form", "bytes", "of float32's", "p50", "p99", "memory", "labels changed",
              "largest difference", metric)  # fmt: skip
    rows = [_candidate(c) for c in found]
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    cells: list[list[Child]] = []
    for c, row in zip(found, rows, strict=True):
        verdict = element("td", c.verdict + (f": {c.reason}" if c.reason else ""), class_="long")
        cells.append([*(row[i] for i in kept), verdict])
    marks = ["mark" if c.verdict == "chosen" else "" for c in found]
    return table(
        f"All candidates; the search aimed for {optimize}",
        (*(header[i] for i in kept), "verdict"), cells,
        numbers=range(1, len(kept)), marks=marks,
    )  # fmt: skip


def _candidate(c: CandidateFigures) -> list[str]:
    first = c.latency[0] if c.latency else None
    return [
        c.mode,
        words.size(c.size_bytes) if c.size_bytes else "",
        f"{c.ratio:.3g}" if c.ratio else "",
        words.time(first.p50_us) if first else "",
        words.time(first.p99_us) if first else "",
        words.size(c.rss_bytes) if c.rss_bytes is not None else "",
        f"{c.flips:,}" if c.rows else "",
        words.number(c.diff_max, 3) if c.rows else "",
        words.number(c.metric_value, 4) if c.metric else "",
    ]


def speed(facts: Facts) -> Section:
    """Latency, start and memory where the bundle was built."""
    measured = facts.measured
    if measured is None:
        return Section("speed", "Speed", [soft(
            "Not measured, or the measurements (NAME.measured.json) are not beside the bundle."
        )])  # fmt: skip
    before = {figure.batch: figure for figure in measured.original}
    rows = [_latency_row(now, before.get(now.batch)) for now in measured.figures.latency]
    header = ("rows at once", "p50", "p99", "original's p50", "original's p99", "times as fast")
    figures, host = measured.figures, measured.host
    rss = "" if figures.rss_bytes is None else words.size(figures.rss_bytes)
    where = ", ".join(f"{name} {value}" for name, value in sorted(host.items()))
    return Section("speed", "Speed", [
        soft("Measured in a process of its own on the machine that built it; a device has figures "
             "of its own."),
        table("Latency of one call", header, rows, numbers=range(6)),
        listed([
            ("Load", f"{figures.load_ms:.1f} ms"),
            ("Cold start", f"{figures.cold_start_ms:.0f} ms with the agent's imports"),
            ("Memory", rss and f"{rss} resident after load and calls"),
            ("Measured on", where),
        ]),
    ])  # fmt: skip


def _latency_row(now: Latency, before: Latency | None) -> list[Child]:
    row: list[Child] = [f"{now.batch:,}", words.time(now.p50_us), words.time(now.p99_us)]
    if before is None:
        return [*row, "", "", ""]
    return [*row, words.time(before.p50_us), words.time(before.p99_us),
            _times(before.p50_us / max(now.p50_us, 1e-9))]  # fmt: skip


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2g}"


def files(facts: Facts) -> Section:
    """What the bundle's bytes are."""
    members = facts.manifest.files
    rows: list[list[Child]] = [
        [f.name, f"{f.size:,}", f"{f.raw_size:,}", element("code", f.raw_sha256)] for f in members
    ]
    manifest_bytes = len(facts.bundle.manifest_bytes)
    shown = [*((f.name, float(f.size), words.size(f.size)) for f in members),
             ("manifest.json", float(manifest_bytes), words.size(manifest_bytes))]  # fmt: skip
    if facts.bundle.signature:
        signature = len(facts.bundle.signature)
        shown.append(("signature.json", float(signature), words.size(signature)))
    total = words.size(facts.size_bytes)
    return Section("files", "Files", [
        figure(charts.bars(shown, "Bytes of each file in the bundle"),
               f"Bytes on the wire; with the archive's headers {total} in all."),
        table("Files", ("file", "stored bytes", "decoded bytes", "SHA-256 decoded"), rows,
              numbers=(1, 2)),
    ])  # fmt: skip


def profile(facts: Facts) -> Section | None:
    """The reference distributions that devices compare with."""
    if not any(file.name == PROFILE_FILE for file in facts.manifest.files):
        return None
    found = profiles.decode(facts.bundle.file(PROFILE_FILE))
    shown = [monitor for monitor in found.monitors if monitor.source != "projection"]
    drawn = shown[: facts.profiles_max]
    cards = [_monitor(monitor, found) for monitor in drawn]
    left = len(shown) - len(drawn)
    order = "They are in time order." if found.time_ordered else "Their order in time is not known."
    directions = len(found.monitors) - len(shown)
    if directions:
        order += f" Devices count {directions} directions through them too, to see a lost relation."
    body: list[Child] = [
        soft(
            f"The {found.rows:,} reference rows as devices count them. {order} Each shape is a "
            "histogram over its own range."
        ),
        element("div", cards[:PROFILES_OPEN], class_="profiles"),
    ]
    if len(cards) > PROFILES_OPEN:
        more = element("div", cards[PROFILES_OPEN:], class_="profiles")
        body.append(aside(f"{len(cards) - PROFILES_OPEN} more", more))
    if left:
        body.append(
            soft(f"{left:,} more are not drawn, to keep this page small; they are in profile.json.")
        )
    return Section("profile", "Reference profile", body)


def _monitor(monitor: Monitor, whole: Profile) -> Html:
    regular = list(monitor.counts[: monitor.regular])
    specials = dict(zip(monitor.specials, monitor.counts[monitor.regular :], strict=True))
    notes = [f"{words.share(n, whole.rows)} {name}" for name, n in specials.items() if n]
    if monitor.kind in ("quantile", "lattice"):
        notes.insert(0, f"mean {words.number(monitor.mean, 4)}, deviation "
                        f"{words.number(monitor.std, 4)}")  # fmt: skip
    if monitor.design_effect > 1:
        notes.append(f"design effect {monitor.design_effect:.3g}")
    name = f"output: {monitor.name}" if monitor.source == "output" else monitor.name
    body: list[Child] = [element("h4", cut(name, 60), title=name if len(name) > 60 else None)]
    if regular:
        heights, ends = _shape(monitor, regular)
        body.append(charts.spark(heights, f"Histogram of {cut(name, 60)}"))
        body.append(element("p", element("span", ends[0]), element("span", ends[1]),
                            class_="ends"))  # fmt: skip
    body.append(element("p", "; ".join(notes) or "no value missing"))
    return element("div", body, class_="profile")


def _shape(monitor: Monitor, counts: list[int]) -> tuple[list[float], tuple[str, str]]:
    """Heights of equal bins, and what stands at both ends."""
    plain = [float(count) for count in counts]
    match monitor.kind:
        case "quantile":
            heights, edges = _equal(monitor.edges, counts), monitor.edges
        case "lattice":
            heights, edges = plain, monitor.edges
        case "category":
            names = monitor.categories
            return plain, (cut(names[0], 14), cut(names[-1], 14) if len(names) > 1 else "")
        case "score":
            return plain, ("first label", "last label" if monitor.labels > 1 else "")
    # An edge just under 0 keeps 0 itself inside its bin: to a reader it is 0.
    low, high = (0.0 if abs(edge) < EDGE_LEAST else edge for edge in (edges[0], edges[-1]))
    return heights, (words.number(low, 5), words.number(high, 5))


def _equal(edges: Sequence[float], counts: Sequence[int]) -> list[float]:
    """Bins that hold about as many rows each, as bins of equal width: narrow ones would be spikes.

    A bin's rows are taken to lie evenly in it, as nothing else is known of them.
    """
    at = np.linspace(edges[0], edges[-1], PROFILE_BINS + 1)
    below = np.interp(at, edges, np.concatenate([[0], np.cumsum(counts)]))
    return [float(rows) for rows in np.diff(below)]


def interface(facts: Facts) -> Section:
    """What goes in and comes out, with a request to copy."""
    manifest = facts.manifest
    inputs: list[list[Child]] = [
        [cut(t.name), words.tensor(t), f"{len(t.features):,} features" if t.features else "whole"]
        for t in manifest.inputs[: facts.features_max]
    ]
    outputs = manifest.outputs
    meaning = {outputs.label: "label", outputs.scores: "probabilities", outputs.value: "value"}
    made: list[list[Child]] = [[cut(n), meaning.get(n, "tensor")] for n in outputs.tensors[:200]]
    labels = [cut(str(label), 40) for label in outputs.labels]
    body: list[Child] = [
        side(
            table("Input tensors", ("tensor", "type and shape", "filled by"), inputs),
            table("Output tensors", ("tensor", "meaning"), made),
        )
    ]
    if labels:
        more = f" and {len(labels) - 50:,} more" if len(labels) > 50 else ""
        body.append(listed([("Labels", ", ".join(labels[:50]) + more)]))
    body.append(_example(facts))
    if manifest.features:
        body.append(_features(facts))
    return Section("interface", "Interface", body)


def _features(facts: Facts) -> Html:
    features = facts.manifest.features
    rows: list[list[Child]] = [
        [cut(f.name), f.type, cut(words.span(f), 120), words.number(f.resolution), cut(f.unit, 30),
         f.missing]
        for f in features[: facts.features_max]
    ]  # fmt: skip
    left = len(features) - len(rows)
    header = ("feature", "type", "range", "resolution", "unit", "missing values")
    notes = [soft(f"{left:,} more features are not listed; edge-pack inspect --json has all.")]
    return aside(
        f"{len(features):,} features", table("Features", header, rows, numbers=(3,)),
        notes if left else None,
    )  # fmt: skip


def _example(facts: Facts) -> Html:
    name = facts.manifest.name
    request = json.dumps(example_request(facts.bundle), ensure_ascii=False)
    if len(request) > 2000:
        request = request[:2000] + " …"
    return element(
        "div", element("h3", "An example request"),
        soft("The first golden sample, as a device takes it over MQTT, and in Python"
             + ("." if facts.manifest.features else "; long tensors are cut short here.")),
        element("pre", f"topic    edge/1/FLEET/d/DEVICE/in/{name}\npayload  {request}"),
        element("pre", f"agent.predict({name!r}, {request})"),
    )  # fmt: skip


def example_request(bundle: Bundle) -> dict[str, Any]:
    """The first golden sample as a request: features by name, or whole tensors."""
    manifest = bundle.manifest
    arrays = {a.name: goldens.unpack(a) for a in goldens.decode(bundle.file(GOLDEN_FILE)).inputs}
    if not manifest.features:
        found: dict[str, Any] = {}
        for tensor in manifest.inputs:
            value = arrays[tensor.name]
            value = value[:1] if tensor.shape and tensor.shape[0] is None else value
            shown = [_plain(item) for item in value.ravel()[:EXAMPLE_FEATURES]]
            if value.size > EXAMPLE_FEATURES:
                shown.append(f"... {value.size:,} in all")
            found[tensor.name] = {"shape": list(value.shape), "data": shown}
        return {"tensors": found}
    row = {
        name: _plain(arrays[tensor.name][0, column])
        for tensor in manifest.inputs
        for column, name in enumerate(tensor.features)
    }
    names = [feature.name for feature in manifest.features if feature.name in row]
    return {name: row[name] for name in names}


def _plain(value: Any) -> float | int | str | None:
    """A number as short as its type tells it from its neighbours; None where it is missing."""
    if isinstance(value, np.floating):
        if not np.isfinite(value):
            return None
        short = float(np.format_float_positional(value, unique=True))
        return int(short) if short.is_integer() and abs(short) < 2**53 else short
    return value.item() if isinstance(value, np.generic) else str(value)


def origin(facts: Facts) -> Section:
    """Where the bundle came from, and how to check it."""
    manifest, source = facts.manifest, facts.manifest.provenance
    versions = dict(source.libraries) | ({"Python": source.python} if source.python else {})
    runtime = manifest.runtime
    opsets = ", ".join(f"{name or 'ai.onnx'} {v}" for name, v in sorted(runtime.opsets.items()))
    pairs: list[tuple[str, Child]] = [
        ("Digest", element("code", facts.bundle.digest)),
        ("Model", [f"{source.source_type}, SHA-256 ", element("code", source.source_sha256)]),
    ]
    if source.data_sha256:
        pairs.append(("Data", [f"{source.data_rows:,} rows, SHA-256 ",
                               element("code", source.data_sha256)]))  # fmt: skip
    if source.commit:
        changed = " with changes that are not in it" if source.dirty else ""
        pairs.append(("Commit", [element("code", source.commit), changed]))
    pairs += [("DVC", f"{e.role}: MD5 {e.md5} in {e.record}" + (f", stage {e.stage}" if e.stage
               else "")) for e in source.tracked]  # fmt: skip
    pairs += [
        ("Taken from", source.source_uri),
        ("Registered as", source.registered),
        ("Training run", source.run_id),
        ("Built with", ", ".join(f"{n} {v}" for n, v in sorted(versions.items()))),
        ("Runs on", f"ONNX Runtime {runtime.onnxruntime} or later (IR {runtime.ir}, {opsets})"),
        ("Memory", f"about {words.size(runtime.ram_bytes)} (estimated from the graph)"),
        ("Licence", manifest.licence),
        ("Intended use", manifest.intended_use),
    ]
    body: list[Child] = [listed(pairs)]
    if source.command:
        body += [element("h3", "Command"), element("pre", as_text(source.command))]
    body += [
        element("h3", "How to verify"),
        element("pre", f"edge-pack verify {manifest.name}-{manifest.version}.edgepack"
                + (" --root root.json" if facts.bundle.signature else "")),
    ]  # fmt: skip
    return Section("origin", "Provenance", body)
