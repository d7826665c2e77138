"""The report of changes as one HTML file: no script, no font, no address; it opens anywhere.

Guards: every text, also what a device or a feature is called, becomes text by construction (a tree
of elements that is written out escaped), never markup; control characters become visible. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as Tree

from edge_fleet.changes import Change, Report
from edge_fleet.drift.explain import CellChange
from edge_fleet.terminal import clean

Element = Tree.Element

WIDTH, HEIGHT, FOOT = 420.0, 130.0, 18.0
SHOWN_MAX = 500
"""Changes with a chart; a page of more is slow to open. The table says how many there are."""

_STYLE = """
:root{color-scheme:light dark;--ink:#1a1f2b;--soft:#566072;--line:#dde1e8;--bg:#fff;
--before:#9aa7bd;--after:#b3420b}
@media (prefers-color-scheme:dark){:root{--ink:#e7eaf0;--soft:#a2adbf;--line:#303846;--bg:#11141a;
--before:#5d6b84;--after:#ff9d66}}
body{margin:0 auto;max-width:1000px;padding:24px;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
p,figcaption{color:var(--soft);max-width:75ch}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:4px 14px 4px 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
figure{margin:28px 0 0}svg{width:100%;max-width:640px;height:auto}
.before{fill:var(--before)}.after{fill:var(--after)}text{fill:var(--soft);font-size:11px}
h2{font-size:16px;margin:28px 0 0;overflow-wrap:anywhere}
"""


def page(report: Report) -> str:
    """The whole document."""
    root = Tree.Element("html", lang="en")
    head = _add(root, "head")
    _add(head, "meta", charset="utf-8")
    _add(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    _add(head, "title", "What changed")
    _add(head, "style", _STYLE)
    body = _add(root, "body")
    _add(body, "h1", "What changed")
    _add(body, "p", summary(report))
    if report.changes:
        _table(body, report.changes)
    for change in report.changes[:SHOWN_MAX]:
        _figure(body, change)
    return "<!DOCTYPE html>\n" + Tree.tostring(root, encoding="unicode", method="html") + "\n"


def summary(report: Report) -> str:
    """What was tested, and what the list promises."""
    if not report.tested:
        return (
            f"{report.since} to {report.until}: no window came. A longer period: --hours;"
            " `edge-fleet devices` says who was heard of."
        )
    expected = f"{100 * report.false_discovery_rate:g} %"
    kind = "any dependence" if report.method == "by" else "independent or rising together"
    shown = f" The first {SHOWN_MAX} have a chart." if len(report.changes) > SHOWN_MAX else ""
    return (
        f"{report.since} to {report.until}: {report.devices} devices, {report.rows} rows,"
        f" {report.tested} tests. {len(report.changes)} changes, of which at most {expected} are"
        f" expected to be false (tests {kind}); changes below {report.minimum_effect:g} standard"
        f" deviations are not reported.{shown}"
    )


def _table(body: Element, changes: Sequence[Change]) -> None:
    table = _add(_add(body, "div", class_="scroll"), "table")
    row = _add(_add(table, "thead"), "tr")
    for name in ("device", "model", "feature", "what", "test", "effect", "q", "rows"):
        _add(row, "th", name)
    rows = _add(table, "tbody")
    for change in changes:
        row = _add(rows, "tr")
        for value in (
            change.device, f"{change.model} {change.version}", change.feature, change.what,
            change.test, f"{change.effect:.3g}", f"{change.q:.2g}", str(change.rows),
        ):  # fmt: skip
            _add(row, "td", value)


def _figure(body: Element, change: Change) -> None:
    _add(body, "h2", f"{change.feature} on {change.device}")
    figure = _add(body, "figure")
    most = max((max(bar.before, bar.after) for bar in change.bars), default=0.0) or 1.0
    svg = _add(
        figure, "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
    )  # fmt: skip
    _add(svg, "title", f"Shares of rows by value, before and after: {change.what}")
    step = WIDTH / max(len(change.bars), 1)
    for at, bar in enumerate(change.bars):
        _bar(svg, bar, at * step, step, (HEIGHT - FOOT) / most)
    if change.bars:
        _add(svg, "text", change.bars[0].cell, x="0", y=f"{HEIGHT - 4:g}")
        last = _add(svg, "text", change.bars[-1].cell, x=f"{WIDTH:g}", y=f"{HEIGHT - 4:g}")
        last.set("text-anchor", "end")
    _add(
        figure,
        "figcaption",
        f"{change.what}. Grey: the reference; coloured: {change.rows} rows of the period."
        f" PSI {change.psi:.3g}, Jensen-Shannon {change.jensen_shannon:.3g}"
        + ("" if change.wasserstein is None else f", Wasserstein {change.wasserstein:.3g}")
        + ".",
    )


def _bar(svg: Element, bar: CellChange, left: float, step: float, scale: float) -> None:
    for at, (kind, share) in enumerate((("before", bar.before), ("after", bar.after))):
        height = share * scale
        rect = _add(
            svg, "rect", class_=kind, x=f"{left + step * (0.08 + 0.42 * at):.2f}",
            y=f"{HEIGHT - FOOT - height:.2f}", width=f"{step * 0.42:.2f}", height=f"{height:.2f}",
        )  # fmt: skip
        _add(rect, "title", f"{bar.cell}: {100 * share:.3g} % {kind}")


def _add(parent: Element, name: str, text: str = "", /, **attributes: str) -> Element:
    named = {key.rstrip("_"): clean(value) for key, value in attributes.items()}
    child = Tree.SubElement(parent, name, named)
    if text:
        # A style sheet is ours, and its lines stay lines.
        child.text = text if name == "style" else clean(text)
    return child
