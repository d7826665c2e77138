"""Charts as inline SVG. Pure.

Guards: colours come from the page's style alone (light, dark, print); each chart has a title that
is read aloud and says what it shows; text keeps a size that can be read on a phone; a chart's
figures stand in a table or a caption too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_pack.papers.html import Child, Html, element
from edge_pack.papers.words import number

BAND_STEP = 17
"""Pixels for each point that was not timed."""
BAR_LABEL = 130
"""Pixels for the names in front of bars."""
Scale = Callable[[float], float]
Show = Callable[[float], str]


@dataclass(frozen=True)
class Dot:
    """A labelled point; ``kind``: chosen, open or out."""

    x: float
    y: float
    label: str
    kind: str


@dataclass(frozen=True)
class Axis:
    """Where values go, which of them are named, and how."""

    at: Scale
    ticks: Sequence[float]
    show: Show = number


@dataclass(frozen=True)
class Frame:
    """The plotting area inside a chart of ``width`` by ``height``."""

    width: float = 460
    height: float = 280
    left: float = 68
    right: float = 16
    top: float = 14
    bottom: float = 44

    def x(self, low: float, high: float, *, log: bool = False) -> Scale:
        """Values to pixels, left to right."""
        return _scale(low, high, self.left, self.width - self.right, log=log)

    def y(self, low: float, high: float, *, log: bool = False) -> Scale:
        """Values to pixels, bottom to top."""
        return _scale(low, high, self.height - self.bottom, self.top, log=log)


def pareto(
    dots: Sequence[Dot], untimed: Sequence[Dot], labels: tuple[str, str], show_x: Show, show_y: Show
) -> Html:
    """Points in two dimensions, less of both being better, with the line of the best.

    Args:
        untimed: points of which only ``x`` is known; they stand in a band of their own below.
    """
    band = BAND_STEP * len(untimed) + (12 if untimed else 0)
    frame = Frame(right=24, height=280 + band, bottom=44 + band)
    x_low, x_high, x_log = _extent([dot.x for dot in (*dots, *untimed)])
    y_low, y_high, y_log = _extent([dot.y for dot in dots])
    x, y = frame.x(x_low, x_high, log=x_log), frame.y(y_low, y_high, log=y_log)
    across = Axis(x, ticks(x_low, x_high, log=x_log), show_x)
    parts: list[Child] = [_grid(frame, across, Axis(y, ticks(y_low, y_high, log=y_log), show_y))]
    best = [dot for dot in dots if dot.kind != "out" and not _beaten(dot, dots)]
    line = " ".join(f"{x(d.x):.1f},{y(d.y):.1f}" for d in sorted(best, key=lambda d: (d.x, -d.y)))
    if len(best) > 1:
        parts.append(element("polyline", points=line, class_="front"))
    taken: list[tuple[float, float, float]] = []
    for dot in sorted(dots, key=lambda d: (d.kind != "chosen", d.y, d.x)):
        title = f"{dot.label}: {show_x(dot.x)}, {show_y(dot.y)}"
        parts += [_mark(x(dot.x), y(dot.y), dot, title), _label(frame, dot, x, y, taken)]
    top = frame.height - band - 4
    for i, dot in enumerate(sorted(untimed, key=lambda d: d.x)):
        at = top + BAND_STEP * (i + 0.5)
        text = element("text", dot.label, x=f"{x(dot.x) + 10:.1f}", y=at + 4, class_="name out")
        if x(dot.x) + 10 + 6.6 * len(dot.label) > frame.width:
            text = element("text", dot.label, x=f"{x(dot.x) - 10:.1f}", y=at + 4,
                           class_="name out end")  # fmt: skip
        parts += [_mark(x(dot.x), at, dot, f"{dot.label}: {show_x(dot.x)}, not timed"), text]
    parts.append(_axis_names(frame, *labels))
    chosen = next((dot.label for dot in dots if dot.kind == "chosen"), "none")
    return svg(frame, f"{labels[1]} against {labels[0]}; chosen: {chosen}", parts)


def _mark(x: float, y: float, dot: Dot, title: str) -> Html:
    radius = 6.5 if dot.kind == "chosen" else 4.5
    return element("circle", element("title", title), cx=f"{x:.1f}", cy=f"{y:.1f}", r=radius,
                   class_=f"dot {dot.kind}")  # fmt: skip


def bars(rows: Sequence[tuple[str, float, str]], title: str, *, marked: int = -1) -> Html:
    """Horizontal bars from zero: (name, value, what stands behind it); one may be ``marked``."""
    step, most = 26, max((value for _, value, _ in rows), default=0.0) or 1.0
    frame = Frame(width=460, height=step * len(rows) + 8, left=BAR_LABEL, right=96)
    span = frame.width - frame.left - frame.right
    parts: list[Child] = []
    for i, (name, value, shown) in enumerate(rows):
        top = 4 + i * step
        width = max(span * value / most, 1.0 if value else 0.0)
        kind = "bar mark" if i == marked else "bar"
        parts += [
            element("text", _cut(name, int(BAR_LABEL / 6.6)), x=frame.left - 8, y=top + 15,
                    class_="end"),
            element("rect", element("title", f"{name}: {shown}"), x=frame.left, y=top + 2,
                    width=f"{width:.1f}", height=step - 8, rx=2, class_=kind),
            element("text", shown, x=f"{frame.left + width + 7:.1f}", y=top + 15),
        ]  # fmt: skip
    return svg(frame, title, parts)


def histogram(
    edges: Sequence[float], counts: Sequence[int], title: str, x_label: str, *, zero: bool = False
) -> Html:
    """Counts in bins of equal width; ``zero`` draws a line where the value is 0."""
    frame = Frame(height=220)
    most = max(counts, default=0) or 1
    x, y = frame.x(edges[0], edges[-1]), frame.y(0, most)
    across = Axis(x, ticks(edges[0], edges[-1]))
    parts: list[Child] = [_grid(frame, across, Axis(y, ticks(0, most), _whole))]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            parts.append(
                element("rect", element("title", f"{number(low, 4)} to {number(high, 4)}: {count}"),
                        x=f"{x(low) + 0.5:.1f}", y=f"{y(count):.1f}",
                        width=f"{max(x(high) - x(low) - 1, 0.5):.1f}",
                        height=f"{y(0) - y(count):.1f}", class_="bar")
            )  # fmt: skip
    if zero and edges[0] < 0 < edges[-1]:
        parts.append(_line(x(0), frame.top, x(0), y(0), "rule"))
    parts.append(_axis_names(frame, x_label, "rows"))
    return svg(frame, title, parts)


def columns(names: Sequence[str], counts: Sequence[int], title: str, x_label: str) -> Html:
    """Counts of named bins."""
    frame = Frame(height=220)
    most = max(counts, default=0) or 1
    y = frame.y(0, most)
    width = (frame.width - frame.left - frame.right) / max(len(names), 1)
    parts: list[Child] = [_rows_grid(frame, Axis(y, ticks(0, most), _whole))]
    for i, (name, count) in enumerate(zip(names, counts, strict=True)):
        left = frame.left + i * width
        if i % 2 == 0:  # room for each name on a phone
            parts.append(element("text", name, x=f"{left + width / 2:.1f}",
                                 y=frame.height - frame.bottom + 16, class_="mid"))  # fmt: skip
        if count:
            parts.append(
                element("rect", element("title", f"{name}: {count}"), x=f"{left + 2:.1f}",
                        y=f"{y(count):.1f}", width=f"{width - 4:.1f}",
                        height=f"{max(y(0) - y(count), 1):.1f}", class_="bar")
            )  # fmt: skip
    parts.append(_axis_names(frame, x_label, "rows"))
    return svg(frame, title, parts)


def calibration(said: Sequence[float], came: Sequence[float], counts: Sequence[int]) -> Html:
    """How often what was said with a probability came true; the diagonal is what it should be."""
    frame = Frame(width=360, height=330)
    x, y = frame.x(0, 1), frame.y(0, 1)
    at = [0, 0.25, 0.5, 0.75, 1]
    parts: list[Child] = [
        _grid(frame, Axis(x, at), Axis(y, at)),
        _line(x(0), y(0), x(1), y(1), "rule"),
    ]
    shown = [(s, c, n) for s, c, n in zip(said, came, counts, strict=True) if n]
    points = " ".join(f"{x(s):.1f},{y(c):.1f}" for s, c, _ in shown)
    parts.append(element("polyline", points=points, class_="front solid"))
    most = max(counts, default=0) or 1
    for s, c, n in shown:
        title = f"said {number(s, 3)}, came true {number(c, 3)}, {n} rows"
        parts.append(
            element("circle", element("title", title), cx=f"{x(s):.1f}", cy=f"{y(c):.1f}",
                    r=f"{3 + 6 * math.sqrt(n / most):.1f}", class_="dot open")
        )  # fmt: skip
    parts.append(_axis_names(frame, "probability that was said", "share that came true"))
    return svg(frame, "Calibration: share that came true against the probability said", parts)


def density(edges: Sequence[float], counts: Sequence[Sequence[int]]) -> Html:
    """Rows in a grid of true (x) and predicted (y) values; a stronger shade holds more."""
    frame = Frame(width=360, height=330)
    x, y = frame.x(edges[0], edges[-1]), frame.y(edges[0], edges[-1])
    at = ticks(edges[0], edges[-1])
    parts: list[Child] = [_grid(frame, Axis(x, at), Axis(y, at))]
    most = max((count for row in counts for count in row), default=0) or 1
    for row, low, high in zip(counts, edges, edges[1:], strict=False):
        for count, left, right in zip(row, edges, edges[1:], strict=False):
            if count:
                title = f"true near {number((left + right) / 2, 3)}: {count} rows"
                parts.append(
                    element("rect", element("title", title), x=f"{x(left):.1f}",
                            y=f"{y(high):.1f}", width=f"{x(right) - x(left):.1f}",
                            height=f"{y(low) - y(high):.1f}", class_="bar",
                            fill_opacity=f"{0.15 + 0.85 * count / most:.2f}")
                )  # fmt: skip
    parts.append(_line(x(edges[0]), y(edges[0]), x(edges[-1]), y(edges[-1]), "rule"))
    parts.append(_axis_names(frame, "true value", "predicted value"))
    return svg(frame, "Predicted against true values; on the line they are equal", parts)


def intervals(rows: Sequence[tuple[str, float, float | None, float | None]], title: str) -> Html:
    """Figures with their intervals, one a row: (name, value, low, high)."""
    step = 26
    frame = Frame(height=step * len(rows) + 40, left=150, right=70, bottom=30, top=6)
    known = [v for _, value, low, high in rows for v in (value, low, high) if v is not None]
    low, high = min(known), max(known)
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.05
    x = frame.x(low - margin, high + margin)
    at = ticks(low - margin, high + margin, 4)
    parts: list[Child] = []
    for tick in at:
        parts += [
            _line(x(tick), frame.top, x(tick), frame.height - frame.bottom, "grid"),
            element("text", number(tick, 4), x=f"{x(tick):.1f}", y=frame.height - 12,
                    class_="mid"),
        ]  # fmt: skip
    for i, (name, value, lower, upper) in enumerate(rows):
        middle = frame.top + i * step + step / 2
        parts.append(element("text", _cut(name, 22), element("title", name), x=frame.left - 10,
                             y=middle + 4, class_="end"))  # fmt: skip
        if lower is not None and upper is not None:
            parts.append(_line(x(lower), middle, x(upper), middle, "whisker"))
        parts += [
            element("circle", cx=f"{x(value):.1f}", cy=middle, r=4.5, class_="dot open"),
            element("text", number(value, 4), x=frame.width - frame.right + 10, y=middle + 4),
        ]
    return svg(frame, title, parts)


def spark(heights: Sequence[float], title: str) -> Html:
    """A small histogram without axes: one shape, so that hundreds of them fit a page."""
    width, height = 200.0, 56.0
    most = max(heights, default=0.0) or 1.0
    step = width / (len(heights) or 1)
    path = [f"M0 {height:g}"]
    for i, value in enumerate(heights):
        path.append(f"V{height - (height - 2) * value / most:.1f}H{(i + 1) * step:.1f}")
    path.append(f"V{height:g}Z")
    return element(
        "svg", element("title", title), element("path", d="".join(path), class_="bar"),
        viewBox=f"0 0 {width:g} {height:g}", class_="spark", role="img",
        preserveAspectRatio="none",
    )  # fmt: skip


def svg(frame: Frame, title: str, parts: Child) -> Html:
    """A chart with a title for those who do not see it."""
    return element(
        "svg", element("title", title), parts, viewBox=f"0 0 {frame.width:g} {frame.height:g}",
        role="img", class_="chart",
    )  # fmt: skip


def ticks(low: float, high: float, most: int = 6, *, log: bool = False) -> list[float]:
    """Round values in [low, high]: 1, 2 or 5 times a power of ten."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        found = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
        inside = [tick for tick in found if low <= tick <= high]
        return inside if len(inside) <= most + 2 else inside[:: math.ceil(len(inside) / most)]
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [float(f"{(first + i) * step:.12g}") for i in range(min(count, 4 * most))]


def _extent(values: Sequence[float]) -> tuple[float, float, bool]:
    """Ends with some room, and whether the values ask for a logarithmic axis."""
    low, high = min(values), max(values)
    if low > 0 and high / low > 8:
        return low / 1.4, high * 1.6, True
    room = max(0.14 * (high - low), 0.2 * abs(high), 1e-9)  # noise is not drawn as a cliff
    return max(low - room, 0.0) if low >= 0 else low - room, high + room, False


def _scale(low: float, high: float, start: float, end: float, *, log: bool) -> Scale:
    if log:
        low, high = math.log10(low), math.log10(high)
    span = (high - low) or 1.0
    return lambda value: (
        start + (end - start) * (((math.log10(value) if log else value) - low) / span)
    )


def _beaten(dot: Dot, dots: Sequence[Dot]) -> bool:
    return any(
        other.kind != "out" and other.x <= dot.x and other.y <= dot.y
        and (other.x < dot.x or other.y < dot.y)
        for other in dots
    )  # fmt: skip


def _label(
    frame: Frame, dot: Dot, across: Scale, up: Scale, taken: list[tuple[float, float, float]]
) -> Html:
    """A label beside its point, moved down or up until it covers no other."""
    x, y = across(dot.x), up(dot.y)
    width = 6.4 * len(dot.label)
    left = x + 10 if x + 10 + width < frame.width else x - 10 - width
    for shift in (0, 13, -13, 26, -26, 39, -39, 52):
        at = y + 4 + shift
        free = all(abs(at - t) > 11 or left + width < a or left > b for a, b, t in taken)
        if free and frame.top < at < frame.height - frame.bottom:
            break
    taken.append((left, left + width, at))
    return element("text", dot.label, x=f"{left:.1f}", y=f"{at:.1f}", class_=f"name {dot.kind}")


def _grid(frame: Frame, x: Axis, y: Axis) -> list[Child]:
    base = frame.height - frame.bottom
    parts: list[Child] = [_rows_grid(frame, y)]
    for tick in x.ticks:
        at = x.at(tick)
        parts += [
            _line(at, base, at, base + 4, "axis"),
            element("text", x.show(tick), x=f"{at:.1f}", y=base + 16, class_="mid"),
        ]
    return parts


def _rows_grid(frame: Frame, y: Axis) -> list[Child]:
    base = frame.height - frame.bottom
    parts: list[Child] = []
    for tick in y.ticks:
        at = y.at(tick)
        parts += [
            _line(frame.left, at, frame.width - frame.right, at, "grid"),
            element("text", y.show(tick), x=frame.left - 7, y=f"{at + 4:.1f}", class_="end"),
        ]
    parts.append(_line(frame.left, base, frame.width - frame.right, base, "axis"))
    return parts


def _axis_names(frame: Frame, x_label: str, y_label: str) -> list[Child]:
    middle = (frame.top + frame.height - frame.bottom) / 2
    return [
        element("text", x_label, x=(frame.left + frame.width - frame.right) / 2,
                y=frame.height - frame.bottom + 36, class_="mid axis-name"),
        element("text", y_label, x=12, y=middle, class_="mid axis-name",
                transform=f"rotate(-90 12 {middle:g})"),
    ]  # fmt: skip


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return element(
        "line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _whole(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else ""
