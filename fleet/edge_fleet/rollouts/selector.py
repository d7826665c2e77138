"""Which devices are meant: ``site=lyon and hw=pi4``. Pure.

Guards: an expression is understood whole or refused with the place and what was expected there;
what a device says of itself is compared as text and never run. A key that a device does not have
equals nothing.

    any      = all { "or" all }
    all      = one { "and" one }
    one      = "not" one | "(" any ")" | key ( "=" | "!=" ) value

A value may hold ``*`` and ``?``; in quotes it may hold anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edge_contract.errors import InputFault

CHARS_MAX = 2000
DEPTH_MAX = 32
_WORDS = ("and", "or", "not")
_TOKEN = re.compile(
    r"""\s*(?:(?P<op>!=|=|\(|\))|"(?P<quoted>[^"]*)"|'(?P<single>[^']*)'"""
    r"""|(?P<word>[^\s()=!"']+))"""
)
_ADVICE = "Write for example: site=lyon and (hw=aarch64 or device=pi-*)"

Selector = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str) -> Selector:
    """Whether the traits of a device (labels, ``hw``, ``device`` ...) are meant; "" means all.

    Raises InputFault with the place of the fault.
    """
    if len(text) > CHARS_MAX:
        raise InputFault(f"a selection of {len(text)} characters, at most {CHARS_MAX}")
    if not text.strip():
        return lambda _traits: True
    parser = _Parser(text, _tokens(text))
    found = parser.any(0)
    parser.expect_end()
    return found


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise _fault(text, at, "a key, a value, '=', '!=' or a bracket")
        kind = str(match.lastgroup)
        value, start = match.group(kind), match.start(kind)
        if kind == "word" and value.lower() in _WORDS:
            kind, value = "op", value.lower()
        tokens.append(_Token("op" if kind == "op" else "text", value, start))
        at = match.end()
    return tokens


class _Parser:
    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text, self._tokens, self._at = text, tokens, 0

    def any(self, depth: int) -> Selector:
        parts = [self._all(depth)]
        while self._took("or"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else lambda traits: any(one(traits) for one in parts)

    def _all(self, depth: int) -> Selector:
        parts = [self._one(depth)]
        while self._took("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else lambda traits: all(one(traits) for one in parts)

    def _one(self, depth: int) -> Selector:
        if depth > DEPTH_MAX:
            raise self._wrong(f"at most {DEPTH_MAX} brackets and 'not' within each other")
        if self._took("not"):
            inner = self._one(depth + 1)
            return lambda traits: not inner(traits)
        if self._took("("):
            inner = self.any(depth + 1)
            if not self._took(")"):
                raise self._wrong("')', 'and' or 'or'")
            return inner
        key = self._text_token("a key such as site")
        equal = self._took("=")
        if not equal and not self._took("!="):
            raise self._wrong(f"'=' or '!=' after {key!r}")
        value = self._text_token(f"a value of {key!r}")
        return lambda traits: (key in traits and fnmatchcase(traits[key], value)) is equal

    def expect_end(self) -> None:
        if self._at < len(self._tokens):
            raise self._wrong("'and', 'or' or the end")

    def _took(self, text: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == _Token(
            "op", text, self._tokens[self._at].at
        ):
            self._at += 1
            return True
        return False

    def _text_token(self, expected: str) -> str:
        if self._at == len(self._tokens) or self._tokens[self._at].kind != "text":
            raise self._wrong(expected)
        self._at += 1
        return self._tokens[self._at - 1].text

    def _wrong(self, expected: str) -> InputFault:
        past = self._at == len(self._tokens)
        at = len(self._text) if past else self._tokens[self._at].at
        return _fault(self._text, at, expected)


def _fault(text: str, at: int, expected: str) -> InputFault:
    got = repr(text[at : at + 20]) if text[at:].strip() else "the end"
    return InputFault(
        f"the selection {text[:200]!r} is wrong at character {at + 1}:"
        f" expected {expected}, got {got}",
        advice=_ADVICE,
    )
