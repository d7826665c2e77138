"""Which devices are meant: ``site=lyon and hw=pi4 and agent<1.2``. Pure.

Guards: an expression is understood whole or refused with the place and what was expected there;
what a device says of itself is compared as text and never run. A key that a device does not have
equals nothing, and is neither below nor above anything.

    any      = all { "or" all }
    all      = one { "and" one }
    one      = "not" one | "(" any ")" | flag | key test
    test     = ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
             | [ "not" ] "in" "(" value { "," value } ")"

With ``=``, ``!=`` and ``in`` a value may hold ``*`` and ``?``; in quotes it may hold anything.
Order is that of versions (1.9 < 1.10), for ``QUANTITIES`` that of numbers with their unit. Of a
trait with several values, such as ``version``, one that fits is enough.

Rollouts and ``devices --where`` have this one language. What moves while a rollout does its work
(``MOVING``) is refused there: a device would leave the selection by being updated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from edge_contract import durations
from edge_contract.errors import InputFault
from edge_contract.names import version_key

CHARS_MAX = 2000
DEPTH_MAX = 32
YES = "yes"
FLAGS = ("alive", "alarmed", "strained", "unsigned")
"""Stand by themselves: heard of lately, with open alarms, slowed down, a version nobody signed."""
Unit = Literal["time", "size", "number"]
QUANTITIES: Mapping[str, Unit] = {
    "last_seen": "time", "clock_offset": "time", "ram": "size", "disk_free": "size",
    "spool": "size", "cpus": "number", "temperature": "number", "alarms": "number",
    "rows": "number", "dropped": "number", "boot": "number",
}  # fmt: skip
MOVING = frozenset(
    (
        *FLAGS, "state", "last_seen", "follows", "model", "version", "phase", "alarms", "rows",
        "dropped", "boot", "freshness", "clock", "clock_offset", "disk_free", "spool",
        "temperature",
    )
)  # fmt: skip
LABEL = "label."
"""``label.state`` is the label ``state``, whatever else is called so."""

_WORDS = ("and", "or", "not")
_ORDERS: Mapping[str, Callable[[object, object], bool]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,  # type: ignore[operator]
    ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,  # type: ignore[operator]
}  # fmt: skip
_TESTS = ("=", "!=", *_ORDERS)
_QUOTED = r"""|"(?P<quoted>[^"]*)"|'(?P<single>[^']*)'"""
_KEY = re.compile(
    r"""\s*(?:(?P<op>!=|<=|>=|=|<|>|\(|\))""" + _QUOTED + r"""|(?P<word>[^\s()=!<>"']+))"""
)
_VALUE = re.compile(r"""\s*(?:(?P<op>!=|=|\(|\))""" + _QUOTED + r"""|(?P<word>[^\s()=!"']+))""")
_LISTED = re.compile(r"""\s*(?:(?P<op>!=|=|\(|\)|,)""" + _QUOTED + r"""|(?P<word>[^\s()=!"',]+))""")
_SIZES = {
    "": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
    "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12,
    "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30, "tib": 2.0**40,
}  # fmt: skip
_UNITS: Mapping[Unit, tuple[Mapping[str, float], str]] = {
    "time": (durations.UNITS_S, "a time such as 90s, 15m, 2h or 7d"),
    "size": (_SIZES, "a size such as 500MB"),
    "number": ({"": 1.0}, "a number"),
}
_AMOUNT = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")
_ADVICE = "Write for example: site=lyon and (hw=aarch64 or device=pi-*)"

Traits = Mapping[str, str | tuple[str, ...]]
"""Labels, ``hw``, ``device`` ...: by name, a quantity in seconds, bytes or as it is counted."""
Selector = Callable[[Traits], bool]


@dataclass(frozen=True)
class _Token:
    kind: Literal["op", "word", "quoted"]
    text: str
    at: int


def parse(text: str, *, moving: bool = False) -> Selector:
    """Whether the traits of a device are meant; "" means all.

    Args:
        moving: the expression may also name what changes from hour to hour.

    Raises InputFault with the place of the fault.
    """
    if len(text) > CHARS_MAX:
        raise InputFault(f"a selection of {len(text)} characters, at most {CHARS_MAX}")
    if not text.strip():
        return lambda _traits: True
    parser = _Parser(text, _tokens(text), moving=moving)
    found = parser.any(0)
    parser.expect_end()
    return found


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at, listed = 0, False
    end = len(text.rstrip())
    while at < end:
        former = tokens[-1] if tokens else _Token("op", "", 0)
        if listed:
            pattern = _LISTED
        else:
            pattern = _VALUE if former.kind == "op" and former.text in _TESTS else _KEY
        match = pattern.match(text, at)
        if match is None:
            raise _fault(text, at, "a key, a value, '=', '!=' or a bracket")
        kind = str(match.lastgroup)
        value, start = match.group(kind), match.start(kind)
        if kind == "word" and value.lower() in _WORDS and not listed:
            kind, value = "op", value.lower()
        if kind == "op" and value in "()":
            listed = value == "(" and former.kind == "word" and former.text.lower() == "in"
        tokens.append(
            _Token("op" if kind == "op" else "word" if kind == "word" else "quoted", value, start)
        )
        at = match.end()
    return tokens


class _Parser:
    def __init__(self, text: str, tokens: list[_Token], *, moving: bool) -> None:
        self._text, self._tokens, self._at, self._moving = text, tokens, 0, moving

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
        return self._test()

    def _test(self) -> Selector:
        key = self._key()
        if self._took("not"):
            listed = self._listed(key)
            return lambda traits: not listed(traits)
        if self._next_is_in():
            return self._listed(key)
        for test in _TESTS:
            if self._took(test):
                return self._compared(key, test)
        if key in FLAGS:
            return lambda traits: traits.get(key) == YES
        raise self._wrong(f"'=', '!=', '<', '>' or 'in' after {key!r}")

    def _key(self) -> str:
        token = self._text_token("a key such as site")
        if not self._moving and token.text in MOVING:
            raise _fault(
                self._text, token.at, "what a device is, not what changes while it is updated",
                advice=f"A label of that name is {LABEL}{token.text}.",
            )  # fmt: skip
        return token.text

    def _listed(self, key: str) -> Selector:
        if not self._next_is_in():
            raise self._wrong(f"'in' after {key!r} not")
        self._at += 1
        if not self._took("("):
            raise self._wrong("'(' after 'in'")
        values = [self._text_token(f"a value of {key!r}").text]
        while self._took(","):
            values.append(self._text_token(f"a value of {key!r}").text)
        if not self._took(")"):
            raise self._wrong("',' or ')'")
        return lambda traits: any(fnmatchcase(own, v) for own in _of(traits, key) for v in values)

    def _compared(self, key: str, test: str) -> Selector:
        token = self._text_token(f"a value of {key!r}")
        value = token.text
        if test in ("=", "!="):
            equal = test == "="
            return lambda traits: any(fnmatchcase(own, value) for own in _of(traits, key)) is equal
        order = _ORDERS[test]
        unit = QUANTITIES.get(key)
        if unit is None:
            bound = version_key(value)
            return lambda traits: any(order(version_key(own), bound) for own in _of(traits, key))
        amount = _amount(value, unit)
        if amount is None:
            raise _fault(self._text, token.at, _UNITS[unit][1])
        return lambda traits: any(order(_number(own), amount) for own in _of(traits, key))

    def expect_end(self) -> None:
        if self._at < len(self._tokens):
            raise self._wrong("'and', 'or' or the end")

    def _next_is_in(self) -> bool:
        if self._at == len(self._tokens):
            return False
        token = self._tokens[self._at]
        return token.kind == "word" and token.text.lower() == "in"

    def _took(self, text: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == _Token(
            "op", text, self._tokens[self._at].at
        ):
            self._at += 1
            return True
        return False

    def _text_token(self, expected: str) -> _Token:
        if self._at == len(self._tokens) or self._tokens[self._at].kind == "op":
            raise self._wrong(expected)
        self._at += 1
        return self._tokens[self._at - 1]

    def _wrong(self, expected: str) -> InputFault:
        past = self._at == len(self._tokens)
        at = len(self._text) if past else self._tokens[self._at].at
        return _fault(self._text, at, expected)


def _of(traits: Traits, key: str) -> tuple[str, ...]:
    """The values of a trait; () for one that a device does not have."""
    found = traits.get(key)
    if found is None and key.startswith(LABEL):
        found = traits.get(key.removeprefix(LABEL))
    if found is None:
        return ()
    return (found,) if isinstance(found, str) else found


def _number(own: str) -> float:
    """NaN, which is neither below nor above anything, for what is none."""
    try:
        return float(own)
    except ValueError:
        return math.nan


def _amount(text: str, unit: Unit) -> float | None:
    found = _AMOUNT.fullmatch(text)
    scales, _ = _UNITS[unit]
    scale = scales.get(found[2].lower()) if found else None
    return float(found[1]) * scale if found and scale is not None else None


def _fault(text: str, at: int, expected: str, *, advice: str = _ADVICE) -> InputFault:
    got = repr(text[at : at + 20]) if text[at:].strip() else "the end"
    return InputFault(
        f"the selection {text[:200]!r} is wrong at character {at + 1}:"
        f" expected {expected}, got {got}",
        advice=advice,
    )
