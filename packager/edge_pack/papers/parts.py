"""Pieces that the report's sections are made of: tables, figures, lists of facts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edge_contract.bundle import Bundle
from edge_contract.manifest import Manifest
from edge_pack.measure import Measured
from edge_pack.papers.evaluation import Evaluation
from edge_pack.papers.html import Child, Html, element


@dataclass(frozen=True)
class Facts:
    """What a report is made of.

    Attributes:
        size_bytes: of the bundle's file. measured: None where nothing was measured.
        evaluation: None where there is none; evaluated_on: what rows it is of, in words.
        profiles_max: features whose histograms are drawn; features_max: rows of tables.
    """

    bundle: Bundle
    size_bytes: int
    measured: Measured | None = None
    evaluation: Evaluation | None = None
    evaluated_on: str = "those of the build"
    profiles_max: int = 240
    features_max: int = 1000

    @property
    def manifest(self) -> Manifest:
        """The bundle's."""
        return self.bundle.manifest


@dataclass(frozen=True)
class Section:
    """One section: an id for links, a heading and what stands under it."""

    name: str
    title: str
    body: list[Child] = field(default_factory=list)

    def html(self) -> Html:
        """The section's element."""
        heading = element("h2", self.title, id=f"{self.name}-title")
        return element(
            "section", heading, self.body, id=self.name, aria_labelledby=f"{self.name}-title"
        )


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[Child]],
    *,
    numbers: Sequence[int] = (),
    marks: Sequence[str] = (),
) -> Html:
    """A table whose first column names its rows.

    Args:
        numbers: columns to align right. marks: a class a row, "" for none.
    """

    def kind(column: int) -> str | None:
        return "num" if column in numbers else None

    head = [element("th", name, scope="col", class_=kind(i)) for i, name in enumerate(header)]
    body = []
    for i, row in enumerate(rows):
        cells = [
            element("th", cell, scope="row", class_=kind(j))
            if j == 0
            else cell
            if isinstance(cell, Html) and cell.startswith("<td")
            else element("td", cell, class_=kind(j))
            for j, cell in enumerate(row)
        ]
        body.append(element("tr", cells, class_=(marks[i] or None) if i < len(marks) else None))
    whole = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", head)),
        element("tbody", body),
    )
    return element("div", whole, class_="scroll", tabindex=0, role="group", aria_label=caption)


def verdict(text: str, *, good: bool) -> Html:
    """A cell that says whether something is well, in words and in colour."""
    return element("td", text, class_="good" if good else "bad")


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """A list of names and values; empty values are left out."""
    return element(
        "dl",
        [[element("dt", name), element("dd", value)] for name, value in pairs if value],
        class_="facts",
    )


def figure(chart: Html, caption: Child) -> Html:
    """A chart with what it shows in words."""
    return element("figure", chart, element("figcaption", caption))


def soft(*text: Child) -> Html:
    """A paragraph of explanation."""
    return element("p", text, class_="soft")


def aside(summary: str, *body: Child) -> Html:
    """What opens on a click."""
    return element("details", element("summary", summary), body)


def side(*parts: Child) -> Html:
    """Parts beside each other where there is room."""
    return element("div", parts, class_="side")


def cut(text: str, most: int = 80) -> str:
    """A name that is not longer than a page bears."""
    return text if len(text) <= most else text[: most - 1] + "…"
