"""Counts as differences from what the profile expects: coding 2 of a telemetry record.

Guards: every processor reads the same counts out of the same bytes (whole numbers, and float64
operations that IEEE 754 rounds correctly); every vector of counts whose monitors add up to the
window's rows has a coding of at most log2(rows) + 5 bits a cell; no bytes make the reader
take more memory than their length and the profile allow.

The bytes are one string of bits, the first bit of a byte its highest:

    spreads     one a monitor, unary: v zeros, then a one
    quotients   one a coded cell, unary
    remainders  one a coded cell, k bits, the highest first
    padding     zeros to the end of the byte

Cells stand in the order of the profile. In each monitor the cell with the most reference rows (the
first of those) is not coded: it is the window's rows less all others. Any other cell i, with the
share p = its reference rows / those of its monitor, of a window of n rows and a profile of N:

    expected  e = n p, rounded to a whole number, a half to the even one
    residual  d = count - e, as z = 2 d for d >= 0, else -2 d - 1
    k         = the monitor's spread + max(0, floor(log2(1.2 s^2) / 2)), s^2 = n p (1-p) (1 + n/N),
                at most one more than n has bits, and at most 52
    quotient  = z >> k, remainder = the lowest k bits of z

s^2 is the variance of d when window and reference come from the same distribution; 1.1 s is then
the best parameter of a Rice code for z (Rice and Plaunt 1971; Golomb 1966). A monitor whose world
has moved says so by its spread, which the writer chooses for the fewest bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.profile import Profile

ROWS_MAX = 2**53
_PARAMETER_MAX = 52
"""Most bits of a remainder: float64 holds them all."""


class Residuals:
    """Writes and reads counts in the cells of one profile. Thread-safe: it never changes.

    Attributes:
        profile: the reference.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._offsets = np.array(profile.offsets(), dtype=np.int64)
        reference = np.array(
            [count for monitor in profile.monitors for count in monitor.counts], dtype=np.float64
        )
        self._rows = float(max(profile.rows, 1))
        cells = [monitor.cells for monitor in profile.monitors]
        totals = [max(sum(monitor.counts), 1) for monitor in profile.monitors]
        share = reference / np.repeat(np.array(totals, dtype=np.float64), cells)
        self._coded = np.ones(len(reference), dtype=np.bool_)
        self._left_out = self._offsets + np.array(
            [int(np.argmax(monitor.counts)) for monitor in profile.monitors], dtype=np.int64
        )
        self._coded[self._left_out] = False
        self._share = share[self._coded]
        self._coded_per = np.array(cells, dtype=np.int64) - 1
        self._coded_at = self._offsets - np.arange(len(cells))

    def write(self, counts: Sequence[int] | NDArray[np.int64], rows: int) -> bytes:
        """The bytes of ``counts`` (cells,), each monitor's adding up to ``rows``.

        Raises InputFault when they don't, or when a count is negative.
        """
        vector = np.asarray(counts, dtype=np.int64)
        self._check(vector, rows)
        if not len(self._offsets):
            return b""
        expected, least = self._model(rows)
        residuals = vector[self._coded] - expected
        zigzag = (residuals << 1) ^ (residuals >> 63)
        spreads = self._spreads(zigzag, least, int(_most(rows)))
        parameters = np.minimum(least + np.repeat(spreads, self._coded_per), _most(rows))
        unary = np.concatenate([spreads, zigzag >> parameters])
        bits = np.zeros(int(unary.sum()) + len(unary) + int(parameters.sum()), dtype=np.uint8)
        ones = np.cumsum(unary + 1) - 1
        bits[ones] = 1
        owner, place = _remainder_bits(parameters)
        bits[ones[-1] + 1 :] = zigzag[owner] >> place & 1
        return np.packbits(bits).tobytes()

    def read(self, data: bytes, rows: int) -> NDArray[np.int64]:
        """The counts (cells,) in ``data``; each monitor's add up to ``rows``.

        Raises InputFault, and nothing else, when ``data`` is not what ``write`` makes.
        """
        counts: NDArray[np.int64] = self.read_many([data], [rows])[0]
        return counts

    def read_many(self, data: Sequence[bytes], rows: Sequence[int]) -> NDArray[np.int64]:
        """The counts (windows, cells) of many windows at once: a fifth of the work of each alone.

        Raises InputFault, and nothing else, when one of them is not what ``write`` makes.
        """
        if not all(0 <= count <= ROWS_MAX for count in rows):
            raise InputFault("a window's rows are out of range")
        windows, monitors = len(data), len(self._offsets)
        if not monitors and any(data):
            raise InputFault("counts for a profile without monitors")
        if not monitors or not windows:
            return np.zeros((windows, len(self._coded)), dtype=np.int64)
        totals = np.array(rows, dtype=np.int64)[:, None]
        expected, least = self._model(totals)
        stream = _Stream(data, monitors + expected.shape[1])
        spreads = np.repeat(stream.unary[:, :monitors], self._coded_per, axis=1)
        parameters = np.minimum(least + spreads, _most(totals))
        remainders = stream.remainders(parameters)
        quotients = stream.unary[:, monitors:]
        if (np.ldexp(quotients.astype(np.float64), parameters) > 2 * ROWS_MAX).any():
            raise InputFault("a count is out of range")
        zigzag = (quotients << parameters) + remainders
        return self._whole(expected + ((zigzag >> 1) ^ -(zigzag & 1)), totals)

    def _whole(self, coded: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """All counts from those that were coded. Raises InputFault when one is negative."""
        counts = np.zeros((len(coded), len(self._coded)), dtype=np.int64)
        counts[:, self._coded] = coded
        # In float64 first: a sum of hostile counts may not fit 64 bits.
        sums = np.add.reduceat(counts.astype(np.float64), self._offsets, axis=1)
        if (coded < 0).any() or (sums > rows).any():
            raise InputFault("counts do not add up to the window's rows")
        counts[:, self._left_out] = rows - np.add.reduceat(counts, self._offsets, axis=1)
        return counts

    def _check(self, counts: NDArray[np.int64], rows: int) -> None:
        if len(counts) != len(self._coded):
            raise InputFault(f"{len(counts)} counts for the profile's {len(self._coded)} cells")
        if not 0 <= rows <= ROWS_MAX or (len(counts) and int(counts.min()) < 0):
            raise InputFault("a count below 0, or too many rows")
        if len(counts) and (np.add.reduceat(counts, self._offsets) != rows).any():
            raise InputFault(f"counts do not add up to the window's {rows} rows")

    def _model(self, rows: int | NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What is expected of each coded cell, and the least Rice parameter."""
        expected = rows * self._share
        variance = expected * (1 - self._share) * (1 + rows / self._rows)
        # frexp is exact: 1.2 s^2 = m 2^x with m in [.5, 1), so that floor(log2) is x - 1.
        exponents = np.frexp(1.2 * variance)[1].astype(np.int64)
        return np.rint(expected).astype(np.int64), np.maximum((exponents - 1) >> 1, 0)

    def _spreads(
        self, zigzag: NDArray[np.int64], least: NDArray[np.int64], most: int
    ) -> NDArray[np.int64]:
        """For each monitor what is added to its parameters, so that its bits are fewest."""
        best = np.zeros(len(self._offsets), dtype=np.int64)
        fewest = np.full(len(self._offsets), np.iinfo(np.int64).max)
        for spread in range(most + 1):
            parameters = np.minimum(least + spread, most)
            quotients = zigzag >> parameters
            cost = np.add.reduceat(quotients + parameters, self._coded_at) + spread
            better = cost < fewest
            best[better], fewest[better] = spread, cost[better]
            if not quotients.any():
                break  # from here on each bit more is a loss
        return best


def _most(rows: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """The most bits of a remainder in a window of so many rows: z is at most twice that."""
    bits = np.frexp(np.asarray(rows, dtype=np.float64))[1].astype(np.int64)
    return np.minimum(bits + 1, _PARAMETER_MAX)


class _Stream:
    """The bits of many windows, one behind the other.

    Attributes:
        unary: the numbers at the begin of each window, (windows, numbers).
    """

    def __init__(self, data: Sequence[bytes], numbers: int) -> None:
        self._bits = np.unpackbits(np.frombuffer(b"".join(data), dtype=np.uint8))
        self._stops = 8 * np.cumsum([len(one) for one in data])
        starts = np.concatenate([[0], self._stops[:-1]])
        ones = np.flatnonzero(self._bits)
        first, last = np.searchsorted(ones, starts), np.searchsorted(ones, self._stops)
        if (last - first < numbers).any():
            raise InputFault("counts are cut off, or of another profile")
        places = ones[first[:, None] + np.arange(numbers)]
        self.unary = np.diff(places, prepend=starts[:, None] - 1) - 1
        self._begin = places[:, -1] + 1
        self._ones_left = len(ones) - places.size

    def remainders(self, parameters: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of so many bits behind the unary ones, (windows, cells)."""
        lengths = parameters.sum(axis=1)
        whole = -(-(self._begin + lengths) // 8) * 8
        if (whole != self._stops).any():
            raise InputFault("counts are cut off, or of another profile")
        owner, weight = _remainder_bits(parameters.ravel())
        shift = self._begin - (np.cumsum(lengths) - lengths)
        bits = self._bits[np.arange(len(owner)) + np.repeat(shift, lengths)]
        if np.count_nonzero(bits) != self._ones_left:
            raise InputFault("counts end in bits that are not zero")
        # Sums of different powers of two below 2^53 are exact in float64 only so far: see _check.
        sums = np.bincount(owner, np.ldexp(bits.astype(np.float64), weight), parameters.size)
        return sums.astype(np.int64).reshape(parameters.shape)


def _remainder_bits(
    parameters: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each bit of the remainders: whose it is, and its place, 0 for the lowest."""
    owner = np.repeat(np.arange(len(parameters)), parameters)
    ends = np.cumsum(parameters)
    return owner, ends[owner] - 1 - np.arange(len(owner))
