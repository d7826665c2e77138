"""Where in a JSON document: a JSON Pointer (RFC 6901), or a path with dots. Pure."""

from __future__ import annotations

from edge_contract.errors import InputFault


class Absent(Exception):
    """There is nothing at that place."""


def steps(field: str, *, dotted: bool) -> tuple[str, ...]:
    """The keys on the way to ``field``; none: the whole document.

    Args:
        dotted: without a slash in front the keys are separated by dots, as in ``AM2301.Humidity``.

    Raises InputFault for what is no pointer.
    """
    if not field:
        return ()
    if not field.startswith("/"):
        if dotted:
            return tuple(field.split("."))
        raise InputFault(
            f"field {field!r} is no JSON pointer",
            advice=f"It begins with a slash: '/{field.replace('.', '/')}'.",
        )
    if "~" in field.replace("~0", "").replace("~1", ""):
        raise InputFault(f"field {field!r}: '~' is written '~0', and '/' within a key '~1'")
    return tuple(key.replace("~1", "/").replace("~0", "~") for key in field[1:].split("/"))


def find(document: object, keys: tuple[str, ...]) -> object:
    """What lies at ``keys``. Raises Absent."""
    for key in keys:
        if isinstance(document, dict):
            if key not in document:
                raise Absent
            document = document[key]
        elif isinstance(document, list):
            # RFC 6901, section 4: digits without a leading zero.
            plain = key.isascii() and key.isdigit() and len(key) < 10
            if not plain or (key[0] == "0" and key != "0") or int(key) >= len(document):
                raise Absent
            document = document[int(key)]
        else:
            raise Absent
    return document
