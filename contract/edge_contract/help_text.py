"""Examples in help texts that can be copied as they stand.

Guards: a command that is longer than a line is broken where a shell goes on (a backslash), never
by a formatter in the middle of it, where its second line would be a command of its own.
"""

from __future__ import annotations

import inspect
import re

WIDTH = 76
"""Of Click's 80 columns two stay free on either side."""
AS_IT_STANDS = "\b\n"
"""What Click asks before a paragraph that it is not to wrap."""
_WORDS = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"'])+""")


def copyable(text: str) -> str:
    """A help text, each of whose examples can be pasted into a shell.

    An example is an indented paragraph that begins with one of this project's commands, or a
    paragraph ``Example: edge-...``. Everything else is left to the formatter.
    """
    return "\n\n".join(_paragraph(one) for one in inspect.cleandoc(text).split("\n\n"))


def _paragraph(text: str) -> str:
    lines = text.split("\n")
    lead, _, rest = text.partition("Example: ")
    if not lead and rest:
        return text if len(text) <= WIDTH else f"Example:\n\n{_broken('  ', rest)}"
    if all(line.startswith("  ") for line in lines) and _is_command(lines[0]):
        return _broken("  ", text)
    return text


def _is_command(line: str) -> bool:
    return re.search(r"(^|\s)edge-(pack|agent|fleet)\s", line) is not None


def _broken(indent: str, command: str) -> str:
    """The command in lines of at most ``WIDTH``, each but the last with a backslash."""
    lines = [indent.removesuffix(" ")]
    for part in _parts(command):
        if len(lines[-1]) + 1 + len(part) + len(" \\") > WIDTH and lines[-1].strip():
            lines.append(indent + "   ")
        lines[-1] += f" {part}"
    return AS_IT_STANDS + " \\\n".join(lines)


def _parts(command: str) -> list[str]:
    """Its words, an option together with its value."""
    parts: list[str] = []
    for word in _WORDS.findall(command):
        if word == "\\":
            continue
        if parts and parts[-1].startswith("-") and " " not in parts[-1] and word[0] != "-":
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    return parts
