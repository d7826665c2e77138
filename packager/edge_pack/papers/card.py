"""The model card: what a bundle's manifest says, for people, in Markdown. Pure.

Headings are those of Hugging Face's card template (huggingface.co/docs/hub/model-cards) after
Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019).

Guards: every fact stands in the manifest, and the card names its digest; what nobody stated is
said to be not stated. Names from the data are escaped: they cannot become markup. The same bundle
gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from edge_contract.bundle import Bundle
from edge_contract.manifest import Manifest
from edge_pack.papers import words
from edge_pack.papers.command import as_text

FEATURES_SHOWN = 200
_TAGS = {"classification": "tabular-classification", "regression": "tabular-regression"}
LICENCES = {
    "apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause", "isc": "ISC", "mpl-2.0": "MPL-2.0", "gpl-3.0": "GPL-3.0",
    "lgpl-3.0": "LGPL-3.0", "cc0-1.0": "CC0-1.0", "cc-by-4.0": "CC-BY-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0", "unlicense": "Unlicense",
}  # fmt: skip
"""Names that Hugging Face knows -> SPDX's; any other licence is given as text."""


def card(bundle: Bundle) -> str:
    """The card of a bundle."""
    manifest = bundle.manifest
    sections = [
        _front(manifest),
        f"# {_plain(manifest.name)} {_plain(manifest.version)}\n",
        _warning(manifest),
        _section("Model details", _details(bundle)),
        _section("Uses", _uses(manifest)),
        _section("Bias, risks and limitations", _list(limits(manifest))),
        _section("How to get started", _start(manifest)),
        _section("Reference data", _data(manifest)),
        _section("Evaluation", _evaluation(manifest)),
        _section("Parity with the original model", _parity(manifest)),
        _section("Compression", _compression(manifest)),
        _section("Technical specifications", _technical(manifest)),
        _section("Provenance", _provenance(manifest)),
        _section("How to verify", _verify(bundle)),
    ]
    return "\n".join(section for section in sections if section)


def limits(manifest: Manifest) -> list[str]:
    """What follows from the manifest about where the model must not be trusted."""
    found = []
    parity = manifest.parity
    if parity.forced:
        found.append("The build exceeded a budget or failed a gate, and the user insisted.")
    if parity.synthetic:
        found.append(
            "There was no reference data: parity was shown on inputs drawn from the model's shapes."
        )
    if not manifest.metrics:
        found.append("No quality was measured: the build was given no true answers.")
    elif not manifest.slices:
        found.append("Quality was measured over all rows together, not for groups of them.")
    thin = [part.name for part in manifest.slices if not part.gated]
    if thin:
        found.append(f"Too few rows to judge these slices: {', '.join(thin[:10])}.")
    if manifest.metrics:
        found.append(
            "Metrics hold for the rows of the build; whether the model was trained on them, only "
            "its author can say."
        )
    refuses = sum(feature.missing == "refuse" for feature in manifest.features)
    if refuses:
        found.append(
            f"Missing values are refused in {refuses} of {len(manifest.features)} features: the "
            "reference rows had none there."
        )
    if manifest.features:
        found.append(
            "Outside the ranges and categories below nothing is known of its answers; devices "
            "count such values."
        )
    return found


def _front(manifest: Manifest) -> str:
    """YAML for Hugging Face; a JSON string is a YAML string."""
    lines = ["---", "library_name: onnx"]
    if manifest.licence:
        known = manifest.licence.lower()
        lines.append(f"license: {known if known in LICENCES else 'other'}")
        if known not in LICENCES:
            lines.append(f"license_name: {json.dumps(manifest.licence)}")
    if manifest.task in _TAGS and manifest.features:
        lines.append(f"pipeline_tag: {_TAGS[manifest.task]}")
    return "\n".join([*lines, "tags:", "- edge-pack", "- onnx", "---", ""])


def _warning(manifest: Manifest) -> str:
    failed = [gate for gate in manifest.gates if not gate.passed]
    if not manifest.parity.forced and not failed:
        return ""
    names = f" Failed: {', '.join(_plain(gate.name) for gate in failed)}." if failed else ""
    return f"> **Forced.** This bundle missed what its build required.{names}\n"


def _details(bundle: Bundle) -> str:
    manifest = bundle.manifest
    labels = [str(label) for label in manifest.outputs.labels]
    shown = ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
    return _list(
        [
            f"Task: {manifest.task}" + (f" ({len(labels)} labels: {shown})" if labels else ""),
            f"Made from: a {manifest.provenance.source_type} model",
            f"Licence: {manifest.licence or 'not stated'}",
            f"Digest: {bundle.digest}",
            f"Signature: {'there' if bundle.signature else 'none'}",
        ]
    )


def _uses(manifest: Manifest) -> str:
    return _plain(manifest.intended_use or "Not stated.") + "\n"


def _start(manifest: Manifest) -> str:
    name = f"{manifest.name}-{manifest.version}.edgepack"
    return (
        "```sh\npip install edge-pack\n"
        f"edge-pack predict {name} --data rows.csv\n```\n\n"
        "On devices it is pulled, proven and served by `edge-agent`.\n"
    )


def _data(manifest: Manifest) -> str:
    source = manifest.provenance
    lines = [f"Rows: {source.data_rows:,}"]
    if source.data_sha256:
        lines.append(f"SHA-256 of the file: {source.data_sha256}")
    text = _list(lines)
    if not manifest.features:
        return text
    rows = [
        (f.name, f.type, words.span(f), words.number(f.resolution), f.unit, f.missing)
        for f in manifest.features[:FEATURES_SHOWN]
    ]
    text += "\n" + _table(("feature", "type", "range", "resolution", "unit", "missing"), rows)
    more = len(manifest.features) - FEATURES_SHOWN
    return text + (
        f"\nand {more:,} more features (edge-pack inspect --json).\n" if more > 0 else ""
    )


def _evaluation(manifest: Manifest) -> str:
    if not manifest.metrics:
        return "Not measured: the build was given no true answers (--target).\n"
    rows = [
        (m.name, m.slice or "all rows", words.number(m.bundle), words.interval(m),
         words.number(m.original))
        for m in manifest.metrics
    ]  # fmt: skip
    text = _table(("metric", "rows", "bundle", "95 % interval", "original"), rows)
    if manifest.slices:
        sliced = [(s.name, f"{s.rows:,}", "yes" if s.gated else "too few rows to judge")
                  for s in manifest.slices]  # fmt: skip
        text += "\n### Slices\n\n" + _table(("slice", "rows", "judged"), sliced)
    if manifest.gates:
        gates = [(g.name, g.wanted, g.got or "(differs from run to run)",
                  "passed" if g.passed else "FAILED") for g in manifest.gates]  # fmt: skip
        text += "\n### Gates\n\n" + _table(("gate", "wanted", "got", "result"), gates)
    return text + _baseline(manifest)


def _baseline(manifest: Manifest) -> str:
    old = manifest.baseline
    if old is None:
        return ""
    facts = [
        f"Against {old.name} {old.version} ({old.digest}) on {old.rows:,} rows",
        f"Labels that changed: {old.changed:,}",
        f"Right before and wrong now: {old.regressions:,}; the reverse: {old.fixed:,} "
        f"(of {old.judged:,} rows with a known answer)",
    ]
    changes = [(c.name, words.number(c.before), words.number(c.after)) for c in old.metrics]
    table = "\n" + _table(("metric", "before", "after"), changes) if changes else ""
    return "\n### Change since the baseline\n\n" + _list(facts) + table


def _parity(manifest: Manifest) -> str:
    parity = manifest.parity
    drawn = " drawn from the model's shapes" if parity.synthetic else " with probes drawn from them"
    facts = [f"Rows compared: {parity.rows:,},{drawn}"]
    if manifest.outputs.labels:
        facts.append(
            f"Labels that changed: {parity.flips:,} ({words.share(parity.flips, parity.rows)}); "
            f"budget {words.share(parity.flips_max, 1)}"
        )
    facts.append(
        f"Largest difference: {words.number(parity.diff_max, 3)}; 99 % of rows under "
        f"{words.number(parity.diff_p99, 3)}; budget {words.number(parity.diff_budget, 3)}"
    )
    return _list(facts)


def _compression(manifest: Manifest) -> str:
    compression, model = manifest.compression, manifest.files[0]
    return _list(
        [
            f"Form: {compression.mode}",
            f"Model on the wire: {words.size(model.size)}, "
            f"{words.share(model.size, compression.stock_bytes)} of the plain conversion's "
            f"{words.size(compression.stock_bytes)}",
        ]
    )


def _technical(manifest: Manifest) -> str:
    runtime = manifest.runtime
    opsets = ", ".join(f"{name or 'ai.onnx'} {v}" for name, v in sorted(runtime.opsets.items()))
    facts = [
        f"ONNX Runtime {runtime.onnxruntime} or later (IR {runtime.ir}, {opsets})",
        f"Memory: about {words.size(runtime.ram_bytes)} (an estimate)",
        *(f"Input {t.name}: {words.tensor(t)}" for t in manifest.inputs[:50]),
        f"Outputs: {', '.join(manifest.outputs.tensors[:50])}",
    ]
    rows = [(f.name, f"{f.size:,}", f"{f.raw_size:,}", f.raw_sha256) for f in manifest.files]
    table = _table(("file", "stored bytes", "decoded bytes", "SHA-256 decoded"), rows)
    return _list(facts) + "\n" + table


def _provenance(manifest: Manifest) -> str:
    source = manifest.provenance
    facts = [f"Model file: {source.source_type}, SHA-256 {source.source_sha256}"]
    if source.source_uri:
        facts.append(f"Taken from: {source.source_uri}")
    if source.registered:
        facts.append(f"Registered as: {source.registered}")
    if source.commit:
        facts.append(f"Commit: {source.commit}" + (", with changes" if source.dirty else ""))
    if source.run_id:
        facts.append(f"Training run: {source.run_id}")
    for entry in source.tracked:
        stage = f", stage {entry.stage}" if entry.stage else ""
        facts.append(f"DVC, {entry.role}: MD5 {entry.md5} in {entry.record}{stage}")
    versions = dict(source.libraries) | ({"Python": source.python} if source.python else {})
    facts.append("Built with: " + ", ".join(f"{n} {v}" for n, v in sorted(versions.items())))
    text = _list(facts)
    if source.command:
        text += f"\n{_fenced(as_text(source.command))}"
    return text


def _verify(bundle: Bundle) -> str:
    name = f"{bundle.manifest.name}-{bundle.manifest.version}.edgepack"
    keys = " --root root.json" if bundle.signature else ""
    return (
        f"```sh\nedge-pack verify {name}{keys}\n```\n\nIt checks the archive, every digest, the "
        "golden samples on your machine"
        + (" and the signature" if bundle.signature else "")
        + f"; the digest must be `{bundle.digest}`.\n"
    )


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}"


def _list(lines: Iterable[str]) -> str:
    return "".join(f"- {_plain(line)}\n" for line in lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def lines() -> Iterator[str]:
        yield "| " + " | ".join(header) + " |"
        yield "|" + " --- |" * len(header)
        for row in rows:
            yield "| " + " | ".join(map(_plain, row)) + " |"

    return "\n".join(lines()) + "\n"


def _plain(text: str) -> str:
    """Text that stays text: one line, with what Markdown or HTML would read as markup escaped."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", line)


def _fenced(text: str) -> str:
    """Text in a fence longer than any run of backticks in it."""
    runs = re.findall(r"`{3,}", text)
    fence = "`" * max([3, *(len(run) + 1 for run in runs)])
    return f"{fence}sh\n{text}\n{fence}\n"
