"""Mean, spread and longest run of each number in a window, in about six bits a number.

Guards: what was rounded away is below what chance makes of it, so that rounding adds 4 % to the
standard error at most; every processor reads the same whole numbers out of the same bytes; no bytes
make the reader take more memory than the profile allows.

A number here is a monitor of kind quantile or lattice and of source feature or output. Of one with
n > 0 finite values in the window (its cells without ``missing`` and ``infinite``), whose reference
has the mean m and the standard deviation s (1 where that is 0):

    mean     a = (mean - m) / (s / sqrt(n)), rounded: in standard errors
    std      b = (std - the reference's) / (s / sqrt(2 n)), rounded
    run      r = floor(log2(longest run of equal values)), at most 31

The bytes are one string of bits, the first bit of a byte its highest:

    5 bits   k of all a; 5 bits: k of all b; one bit: 0 where every r is 0, and none is written
    then for each number with a finite value, in the order of the profile: a, b, r
    zeros to the end of the byte

a and b are written as z = 2 v for v >= 0, else -2 v - 1: z >> k zeros, a one, and the lowest k bits
of z, the highest first; a z whose z >> k is 24 or more as 24 zeros and the 42 bits of z. r is
written as r zeros and a one. Values beyond 2^40 are written as 2^40.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.profile import Monitor, Profile

NUMBER_KINDS = ("quantile", "lattice")
NUMBER_SOURCES = ("feature", "output")
RUN_MAX = 2**32 - 1
_VALUE_MAX = 2**40
_PARAMETER_BITS = 5
_QUOTIENT_MAX = 24
_ESCAPED_BITS = 42


class Moments(Struct, frozen=True):
    """Of the finite values of one number in one window.

    Attributes:
        mean, std: the latter as of all values (divided by their number).
        run: how often one value came in a row at most, those of earlier windows included; as read
            from a record the power of two below it.
    """

    mean: float
    std: float
    run: int


def numbers(profile: Profile) -> tuple[int, ...]:
    """Which monitors are numbers."""
    return tuple(
        i
        for i, each in enumerate(profile.monitors)
        if each.kind in NUMBER_KINDS and each.source in NUMBER_SOURCES
    )


def finite(profile: Profile, counts: NDArray[np.int64]) -> tuple[int, ...]:
    """How many finite values each number had, by the counts of a window's cells."""
    offsets = profile.offsets()
    found = []
    for i in numbers(profile):
        monitor, start = profile.monitors[i], offsets[i]
        # The cells before ``missing`` and ``infinite``, which stand last.
        found.append(int(counts[start : start + monitor.cells - 2].sum()))
    return tuple(found)


def write(profile: Profile, counts: NDArray[np.int64], moments: Sequence[Moments | None]) -> bytes:
    """The bytes of ``moments``, one for each number of the profile; None where it has no value.

    Args:
        counts: the window's cells: they say how many values there were.
    """
    values = []
    for monitor, n, seen in zip(_monitors(profile), finite(profile, counts), moments, strict=True):
        if n == 0:
            continue
        found = seen or Moments(monitor.mean, monitor.std, 1)
        scale = monitor.std or 1.0
        a = _whole((found.mean - monitor.mean) / scale * math.sqrt(n))
        b = _whole((found.std - monitor.std) / scale * math.sqrt(2 * n))
        values.append((_zigzag(a), _zigzag(b), min(max(found.run, 1), RUN_MAX).bit_length() - 1))
    if not values:
        return b""
    means, stds, runs = zip(*values, strict=True)
    k, j = _parameter(means), _parameter(stds)
    bits = [f"{k:05b}{j:05b}{int(any(runs))}"]
    for a, b, run in values:
        bits += (_rice(a, k), _rice(b, j), "0" * run + "1" if any(runs) else "")
    text = "".join(bits)
    size = -(-len(text) // 8)
    return int(text.ljust(8 * size, "0"), 2).to_bytes(size, "big")


def read(profile: Profile, counts: NDArray[np.int64], data: bytes) -> tuple[Moments | None, ...]:
    """The moments of each number; None where it has no value, or where ``data`` is empty.

    Raises InputFault, and nothing else, when ``data`` is not what ``write`` makes.
    """
    present = finite(profile, counts)
    if not data:
        return (None,) * len(present)
    stream = _Bits(data)
    k, j = stream.whole(_PARAMETER_BITS), stream.whole(_PARAMETER_BITS)
    runs = stream.whole(1)
    found: list[Moments | None] = []
    for monitor, n in zip(_monitors(profile), present, strict=True):
        if n == 0:
            found.append(None)
            continue
        scale = monitor.std or 1.0
        a, b = stream.rice(k), stream.rice(j)
        mean = monitor.mean + a * scale / math.sqrt(n)
        std = max(monitor.std + b * scale / math.sqrt(2 * n), 0.0)
        longest = stream.unary(RUN_MAX.bit_length() - 1) if runs else 0
        found.append(Moments(mean, std, 1 << longest))
    stream.end()
    return tuple(found)


def _monitors(profile: Profile) -> Iterator[Monitor]:
    return (profile.monitors[i] for i in numbers(profile))


def _whole(value: float) -> int:
    """Rounded, a half to the even one; what is no number counts as far beyond."""
    if math.isnan(value):
        return _VALUE_MAX
    return round(min(max(value, -_VALUE_MAX), _VALUE_MAX))


def _zigzag(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def _parameter(values: Sequence[int]) -> int:
    """The k with the fewest bits, the least of them."""
    return min(range(2**_PARAMETER_BITS), key=lambda k: sum(_cost(value, k) for value in values))


def _cost(value: int, k: int) -> int:
    quotient = value >> k
    return _QUOTIENT_MAX + _ESCAPED_BITS if quotient >= _QUOTIENT_MAX else quotient + 1 + k


def _rice(value: int, k: int) -> str:
    quotient = value >> k
    if quotient >= _QUOTIENT_MAX:
        return "0" * _QUOTIENT_MAX + f"{value:0{_ESCAPED_BITS}b}"
    rest = f"{value & ((1 << k) - 1):0{k}b}" if k else ""
    return "0" * quotient + "1" + rest


class _Bits:
    """Reads from the first bit to the last. Raises InputFault beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._text = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
        self._at = 0

    def whole(self, bits: int) -> int:
        """The next bits as a number."""
        part = self._text[self._at : self._at + bits]
        if len(part) != bits:
            raise InputFault("the moments are cut off, or of another profile")
        self._at += bits
        return int(part, 2) if bits else 0

    def unary(self, most: int) -> int:
        """How many zeros stand before the next one."""
        at = self._text.find("1", self._at, self._at + most + 1)
        if at < 0:
            raise InputFault("the moments are cut off, or of another profile")
        zeros, self._at = at - self._at, at + 1
        return zeros

    def rice(self, k: int) -> int:
        """A number with its sign."""
        if self._text.startswith("0" * _QUOTIENT_MAX, self._at):
            self._at += _QUOTIENT_MAX
            value = self.whole(_ESCAPED_BITS)
        else:
            quotient = self.unary(_QUOTIENT_MAX - 1)
            value = quotient << k | self.whole(k)
        return value >> 1 if not value & 1 else -(value + 1 >> 1)

    def end(self) -> None:
        """Only the rest of a byte may be left, and zeros."""
        left = self._text[self._at :]
        if len(left) >= 8 or "1" in left:
            raise InputFault("the moments go on behind the last number")
