"""The report's sections on answers: parity, quality, slices, gates, the baseline. Pure."""

from __future__ import annotations

from collections.abc import Container, Sequence

from edge_contract.manifest import Manifest, Metric
from edge_pack.papers import charts, words
from edge_pack.papers.evaluation import DIFFERENCE_DECADES, Confusion, Evaluation
from edge_pack.papers.html import Child, Html, element
from edge_pack.papers.parts import (
    Facts,
    Section,
    cut,
    figure,
    side,
    soft,
    table,
    verdict,
)

SLICES_SHOWN = 60
WIDE_LABELS = 12
"""A confusion matrix of more labels takes the page's whole width."""
_NOT_KEPT = (
    "Confusion, calibration and residuals are kept in the file NAME.measured.json that a build "
    "writes beside the bundle; it is not here. --data and --target of this command compute them "
    "anew."
)
_LEVELS = (0.02, 0.1, 0.3)
"""Shares of a row from which a cell of the confusion matrix gets a darker shade."""


def parity(facts: Facts) -> Section:
    """How far the bundle is from the original model."""
    found, labels = facts.manifest.parity, facts.manifest.outputs.labels
    if found.synthetic:
        drawn = "inputs drawn from the model's own shapes, for there was no data"
    elif not facts.manifest.features:
        drawn = "rows: those of the build"
    else:
        drawn = (
            "rows: those of the build, and probes drawn from them (both ends of each range, other "
            "combinations, unseen categories)"
        )
    rows: list[list[Child]] = []
    if labels:
        rows.append(
            [
                "labels changed",
                f"{found.flips:,} ({words.share(found.flips, found.rows)})",
                f"at most {words.share(found.flips_max, 1)}",
                _kept(found.flips <= found.flips_max * found.rows),
            ]
        )
    rows += [
        [
            "largest difference",
            words.number(found.diff_max, 3),
            f"at most {words.number(found.diff_budget, 3)}",
            _kept(found.diff_max <= found.diff_budget),
        ],
        ["99 % of rows under", words.number(found.diff_p99, 3), "", ""],
    ]
    unit = "of a probability" if labels else "in standard deviations of the original's answers"
    body: list[Child] = [
        soft(f"The bundle and the original model answered the same {found.rows:,} {drawn}."),
    ]
    figures = table(f"Differences, {unit}", ("", "found", "budget", ""), rows, numbers=(1,))
    evaluation = facts.measured.evaluation if facts.measured else None
    chart = _differences(evaluation) if evaluation is not None and evaluation.compared else None
    body.append(side(figures, chart) if chart else figures)
    return Section("parity", "Parity with the original model", body)


def _kept(kept: bool) -> Html:
    return verdict("within" if kept else "beyond", good=kept)


def _differences(evaluation: Evaluation) -> Html:
    names = ["none", "less"]
    names += [f"1e{decade}" for decade in DIFFERENCE_DECADES[:-1]] + ["1"]
    chart = charts.columns(
        names, evaluation.differences, "Rows by their largest difference to the original",
        "difference, from this value on",
    )  # fmt: skip
    exact = evaluation.differences[0]
    return figure(
        chart,
        f"{exact:,} of {evaluation.compared:,} rows have no difference at all. The second column "
        f"holds those under 1e{DIFFERENCE_DECADES[0]}, where the order of additions alone decides.",
    )


def quality(facts: Facts) -> Section:
    """Metrics with intervals, and the charts of the task."""
    metrics = [metric for metric in facts.manifest.metrics if not metric.slice]
    evaluation = facts.evaluation
    if not metrics:
        first: Html = soft(
            "No metric was recorded: the build was given no true answers (--target)."
        )
    else:
        first = _metrics(metrics)
    if evaluation is None or not evaluation.rows:
        body: list[Child] = [first, *([] if evaluation else [soft(_NOT_KEPT)])]
        return Section("quality", "Quality", body)
    wide = evaluation.confusion is not None and len(evaluation.confusion.labels) > WIDE_LABELS
    matrix = _confusion(evaluation.confusion) if evaluation.confusion is not None else None
    beside = [first, *([matrix] if matrix and not wide else []), *_charts(evaluation)]
    note = soft(f"The charts are of {evaluation.rows:,} rows: {facts.evaluated_on}.")
    return Section("quality", "Quality", [note, side(*beside), matrix if wide else None])


def _metrics(metrics: Sequence[Metric]) -> Html:
    rows = [
        [m.name, words.number(m.bundle), words.interval(m), words.number(m.original)]
        for m in metrics
    ]
    return table(
        "On the rows with a known answer; 95 % bootstrap intervals",
        ("metric", "bundle", "95 % interval", "original"), rows, numbers=(1, 2, 3),
    )  # fmt: skip


def _charts(evaluation: Evaluation) -> list[Child]:
    found: list[Child] = []
    if evaluation.calibration is not None:
        part = evaluation.calibration
        whose = f"label {part.label}" if part.label else "the predicted label"
        found.append(
            figure(
                charts.calibration(part.said, part.came, part.counts),
                f"Probability of {whose} in ten equal bins; larger dots hold more rows. On the "
                "dashed line a probability says how often it comes true.",
            )
        )
    if evaluation.scatter is not None:
        found.append(
            figure(
                charts.density(evaluation.scatter.edges, evaluation.scatter.counts),
                "Stronger cells hold more rows; on the dashed line prediction and truth are equal.",
            )
        )
    if evaluation.residuals is not None:
        part_edges, counts = evaluation.residuals.edges, evaluation.residuals.counts
        found.append(
            figure(
                charts.histogram(
                    part_edges, counts, "Residuals", "predicted minus true", zero=True
                ),
                "Right of the dashed line the prediction is too high.",
            )
        )
    return found


def _confusion(matrix: Confusion) -> Html:
    head: list[Child] = [element("td")]
    head += [element("th", cut(label, 16), scope="col") for label in matrix.labels]
    rows = []
    for i, (label, counts) in enumerate(zip(matrix.labels, matrix.counts, strict=True)):
        total = sum(counts)
        cells = [
            element("td", count, class_=f"h{_level(count, total)}" + (" diag" if i == j else ""))
            for j, count in enumerate(counts)
        ]
        rows.append(element("tr", element("th", cut(label, 16), scope="row"), cells))
    notes = "Rows: the true label. Columns: the predicted one. Outlined: right."
    if matrix.others:
        notes += f" The {matrix.others} rarest labels are counted together."
    if matrix.unknown:
        notes += f" {matrix.unknown:,} rows with a label that the model never learned are left out."
    whole = element(
        "table", element("caption", "Confusion matrix"), element("thead", element("tr", head)),
        element("tbody", rows), class_="matrix",
    )  # fmt: skip
    box = element(
        "div", whole, class_="scroll", tabindex=0, role="group", aria_label="Confusion matrix"
    )
    return element("figure", box, element("figcaption", notes))


def _level(count: int, total: int) -> int:
    if not count:
        return 0
    return 1 + sum(count / total >= level for level in _LEVELS)


def slices(facts: Facts) -> Section | None:
    """The metrics of each group of rows."""
    manifest = facts.manifest
    if not manifest.slices:
        return None
    shown = manifest.slices[:SLICES_SHOWN]
    groups = {part.name for part in manifest.slices}
    names = list(dict.fromkeys(m.name for m in manifest.metrics if m.slice in groups))
    found = {(m.slice, m.name): m for m in manifest.metrics}
    rows: list[list[Child]] = []
    for part in shown:
        cells: list[Child] = [cut(part.name), f"{part.rows:,}{'' if part.gated else ' (few)'}"]
        for name in names:
            metric = found.get((part.name, name))
            cells.append("" if metric is None else _with_interval(metric))
        rows.append(cells)
    left = len(manifest.slices) - len(shown)
    body: list[Child] = [soft(f"{left:,} more slices are in the manifest.")] if left else []
    lead = _lead(manifest, names)
    apart = _apart(manifest, groups)
    if lead:
        body.append(side(_intervals(manifest, lead), apart))
    elif apart:
        body.append(apart)
    body.append(table("Metrics by slice, with 95 % intervals", ("slice", "rows", *names), rows,
                      numbers=range(1, len(names) + 2)))  # fmt: skip
    return Section("slices", "Slices", body)


def _apart(manifest: Manifest, groups: Container[str]) -> Html | None:
    """How far the groups of each column are apart."""
    between = [m for m in manifest.metrics if m.slice and m.slice not in groups]
    if not between:
        return None
    columns = list(dict.fromkeys(m.slice for m in between))[:SLICES_SHOWN]
    names = list(dict.fromkeys(m.name for m in between))
    found = {(m.slice, m.name): words.number(m.bundle, 4) for m in between}
    rows: list[list[Child]] = [
        [name.replace("_", " "), *(found.get((column, name), "") for column in columns)]
        for name in names
    ]
    header = ("", *(cut(column, 40) for column in columns))
    return table("Disparities: the groups of a column that are furthest apart", header, rows,
                 numbers=range(1, len(columns) + 1))  # fmt: skip


def _with_interval(metric: Metric) -> str:
    span = words.interval(metric)
    return words.number(metric.bundle, 4) + (f" ({span})" if span else "")


def _lead(manifest: Manifest, names: Sequence[str]) -> str:
    """The task's leading metric: the first that is there for all rows and for slices."""
    return next((m.name for m in manifest.metrics if not m.slice and m.name in names), "")


def _intervals(manifest: Manifest, lead: str) -> Html:
    kept = {part.name for part in manifest.slices[:24]}
    rows = [
        (cut(m.slice or "all rows", 40), m.bundle, m.low, m.high)
        for m in manifest.metrics
        if m.name == lead and (not m.slice or m.slice in kept)
    ]
    return figure(
        charts.intervals(rows, f"{lead} by slice"),
        f"{lead} of all rows and of each slice; lines are 95 % intervals.",
    )


def gates(facts: Facts) -> Section | None:
    """What the build was required to meet."""
    manifest = facts.manifest
    if not manifest.gates:
        return None
    measured = "(measured at the build; differs from run to run)"
    rows: list[list[Child]] = [
        [cut(gate.name), gate.wanted, gate.got or measured,
         verdict("passed" if gate.passed else "FAILED", good=gate.passed)]
        for gate in manifest.gates
    ]  # fmt: skip
    failed = sum(not gate.passed for gate in manifest.gates)
    text = f"{len(rows) - failed} of {len(rows)} gates passed."
    return Section(
        "gates", "Gates",
        [soft(text), table("Gates", ("gate", "wanted", "got", "result"), rows)],
    )  # fmt: skip


def baseline(facts: Facts) -> Section | None:
    """The comparison with an older bundle."""
    old = facts.manifest.baseline
    if old is None:
        return None
    rows: list[list[Child]] = [
        [c.name, words.number(c.before), words.number(c.after), words.number(c.after - c.before, 3),
         f"{words.number(c.low, 3)} to {words.number(c.high, 3)}" if c.low is not None else ""]
        for c in old.metrics
    ]  # fmt: skip
    body: list[Child] = [
        soft(
            f"Against {old.name} {old.version} on the same {old.rows:,} rows: {old.changed:,} "
            f"labels changed; {old.regressions:,} rows were right before and are wrong now, "
            f"{old.fixed:,} the reverse (of {old.judged:,} with a known answer)."
        )
    ]
    if rows:
        header = ("metric", "before", "now", "change", "95 % interval")
        body.append(table("Change of the metrics", header, rows, numbers=(1, 2, 3, 4)))
    body.append(element("p", "Digest of the older bundle: ", element("code", old.digest)))
    return Section("baseline", "Change since the baseline", body)
