"""HTML and SVG as values: every text is escaped by construction. Pure.

Guards: a ``str`` that goes into an element is text and is escaped; only what ``element`` made
stands as markup. So no feature, label or file name can end up as a tag or an attribute.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias


class Html(str):
    """Markup that is safe to put into a page."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | Iterable[Child] | None"
_VOID = frozenset({"meta", "br", "link", "input", "line", "rect", "circle", "path", "polyline"})
_CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), "\ufffd")
"""Characters that no HTML document may hold."""


def element(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """One element.

    Args:
        children: text, numbers, other elements, or lists of them; None is left out.
        attributes: ``class_`` and ``data_x`` as ``class`` and ``data-x``; True is the bare name,
            None and False are left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        shown = key.rstrip("_").replace("_", "-")
        words.append(shown if value is True else f'{shown}="{_text(value)}"')
    if name in _VOID and not children:
        return Html(f"<{' '.join(words)}/>")
    return Html(f"<{' '.join(words)}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Html:
    """Several children, one after the other."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            parts.append(str(child))
        elif isinstance(child, str | int | float):
            parts.append(_text(child))
        else:
            parts.append(join(child))
    return Html("".join(parts))


def _text(value: str | float) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return escape(text.translate(_CONTROLS), quote=True)
