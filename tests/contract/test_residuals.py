"""Coding 2 of a record: exact, near its bound, and safe to read from anybody."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edge_contract import telemetry
from edge_contract.errors import InputFault
from edge_contract.profile import Monitor, Profile
from edge_contract.residuals import ROWS_MAX, Residuals

REFERENCE_ROWS = 20_000


def monitors(rng: np.random.Generator) -> tuple[Monitor, ...]:
    """15 numbers of 32 bins, 5 categories, 2 labels of 16 score bins: 668 cells or so."""

    def counts(shares: Sequence[float], specials: int) -> tuple[int, ...]:
        return (*rng.multinomial(REFERENCE_ROWS, shares).tolist(), *[0] * specials)

    numbers = [
        Monitor(name=f"n{i}", kind="quantile", edges=tuple(map(float, range(33))),
                counts=counts([1 / 32] * 32, 5))
        for i in range(15)
    ]  # fmt: skip
    texts = []
    for i, size in enumerate((3, 5, 9, 14, 20)):
        names = tuple(f"v{j}" for j in range(size))
        shares = rng.dirichlet([1.0] * size).tolist()
        texts.append(
            Monitor(name=f"t{i}", kind="category", categories=names, counts=counts(shares, 3))
        )
    scores = Monitor(
        name="prediction", kind="score", source="output", labels=2,
        edges=tuple(np.linspace(0, 1, 17).tolist()),
        counts=counts(rng.dirichlet([0.7] * 32).tolist(), 1),
    )  # fmt: skip
    return (*numbers, *texts, scores)


PROFILE = Profile(rows=REFERENCE_ROWS, monitors=monitors(np.random.default_rng(5)))
CODER = Residuals(PROFILE)
SMALL = Profile(
    rows=10,
    monitors=(
        Monitor(name="a", kind="lattice", edges=(0.0, 1.0), counts=(7, 3, 0, 0, 0, 0, 0)),
        Monitor(name="b", kind="category", categories=("x", "y"), counts=(5, 5, 0, 0, 0)),
    ),
)


def window(rows: int, rng: np.random.Generator) -> list[int]:
    """Counts of so many rows from the reference's own distribution."""
    shares = [np.array(monitor.counts) / REFERENCE_ROWS for monitor in PROFILE.monitors]
    return [count for share in shares for count in rng.multinomial(rows, share).tolist()]


def test_golden_vectors() -> None:
    # By hand, for 10 rows. a: 6 of 7 expected is left out, its other cells have n p = 3, 0 0 0 0 0;
    # s^2 = 10 * .3 * .7 * 2 = 4.2, k = floor(log2(5.04) / 2) = 1. b: x is left out, y expects 5,
    # s^2 = 5, k = floor(log2(6) / 2) = 1. Counts (6, 4, ...) and (5, 4, 1 other):
    # a: d = 1, z = 2, quotient 1, remainder 0; zeros 0. b: d = -1, z = 1, quotient 0, remainder 1;
    # other: d = 1, k = 0, z = 2, quotient 2; the rest 0.
    spreads = "11"
    quotients = "01" + "11111" + "100111"
    remainders = "0" + "1"
    bits = spreads + quotients + remainders
    data = int(bits.ljust(24, "0"), 2).to_bytes(3, "big")
    counts = [6, 4, 0, 0, 0, 0, 0, 5, 4, 1, 0, 0]
    assert Residuals(SMALL).write(counts, 10) == data
    assert Residuals(SMALL).read(data, 10).tolist() == counts


@pytest.mark.parametrize("rows", [0, 1, 10, 1_000, 10_000, 2**31])
def test_a_window_of_the_reference_comes_back(rows: int) -> None:
    counts = window(rows, np.random.default_rng(rows))
    assert CODER.read(CODER.write(counts, rows), rows).tolist() == counts


@given(st.data(), st.integers(0, ROWS_MAX))
def test_any_counts_come_back(data: st.DataObject, rows: int) -> None:
    counts: list[int] = []
    for monitor in SMALL.monitors:
        cuts = sorted(
            data.draw(st.lists(st.integers(0, rows), min_size=monitor.cells - 1,
                               max_size=monitor.cells - 1))
        )  # fmt: skip
        counts += np.diff([0, *cuts, rows]).tolist()
    coder = Residuals(SMALL)
    written = coder.write(counts, rows)
    assert coder.read(written, rows).tolist() == counts
    assert len(written) * 8 <= len(counts) * (rows.bit_length() + 5)


@pytest.mark.parametrize(("rows", "times"), [(200, 1.25), (1_000, 1.25), (10_000, 1.25)])
def test_the_bytes_are_near_the_entropy_bound(rows: int, times: float) -> None:
    """The bound: what an ideal code for the multinomial distribution takes, by scipy."""
    rng = np.random.default_rng(7)
    taken = bound = 0.0
    for _ in range(20):
        counts = np.array(window(rows, rng))
        taken += 8 * len(CODER.write(counts, rows))
        for monitor, part in zip(
            PROFILE.monitors, np.split(counts, PROFILE.offsets()[1:]), strict=True
        ):
            share = np.array(monitor.counts) / REFERENCE_ROWS
            bound -= stats.multinomial.logpmf(part, rows, share) / np.log(2)
    assert taken <= times * bound


def test_a_sensor_that_died_costs_little_more() -> None:
    counts = np.array(window(10_000, np.random.default_rng(3)))
    usual = len(CODER.write(counts, 10_000))
    first = PROFILE.monitors[0]
    counts[: first.cells] = 0
    counts[first.cells - 2] = 10_000  # all of them missing
    assert len(CODER.write(counts, 10_000)) < usual + first.cells * 14 // 8
    assert CODER.read(CODER.write(counts, 10_000), 10_000).tolist() == counts.tolist()


def test_many_windows_are_read_as_each_alone() -> None:
    rng = np.random.default_rng(11)
    rows = [0, 5, 60, 3_000, 1, 100_000, 60]
    written = [CODER.write(window(count, rng), count) for count in rows]
    alone = [CODER.read(data, count) for data, count in zip(written, rows, strict=True)]
    assert (CODER.read_many(written, rows) == np.stack(alone)).all()
    with pytest.raises(InputFault):
        CODER.read_many([*written[:3], written[3][:-1], *written[4:]], rows)
    assert CODER.read_many([], []).shape == (0, PROFILE.cells)


def test_counts_that_do_not_add_up_are_not_written() -> None:
    counts = window(100, np.random.default_rng(2))
    for wrong in ([*counts[:-1], counts[-1] + 1], counts[:-1], [-1, counts[0] + 1, *counts[2:]]):
        with pytest.raises(InputFault):
            CODER.write(wrong, 100)


def test_every_cut_and_every_longer_string_is_refused() -> None:
    written = CODER.write(window(500, np.random.default_rng(4)), 500)
    for size in range(len(written)):
        with pytest.raises(InputFault):
            CODER.read(written[:size], 500)
    with pytest.raises(InputFault):
        CODER.read(written + b"\0", 500)


@given(st.binary(max_size=300), st.integers(-1, 2**60))
def test_whatever_the_bytes_there_is_a_count_or_a_clear_fault(data: bytes, rows: int) -> None:
    coder = Residuals(SMALL)
    try:
        counts = coder.read(data, rows)
    except InputFault:
        return
    assert (counts >= 0).all()
    assert (np.add.reduceat(counts, SMALL.offsets()) == rows).all()


@given(st.integers(0, 8 * 300 - 1), st.integers(0, 2**20))
def test_a_flipped_bit_makes_no_count_below_zero(place: int, seed: int) -> None:
    written = bytearray(CODER.write(window(500, np.random.default_rng(seed)), 500))
    written[place // 8 % len(written)] ^= 1 << place % 8
    try:
        counts = CODER.read(bytes(written), 500)
    except InputFault:
        return
    assert (counts >= 0).all()
    assert (np.add.reduceat(counts, PROFILE.offsets()) == 500).all()


def test_a_profile_without_monitors_has_no_bytes() -> None:
    coder = Residuals(Profile(rows=0, monitors=()))
    assert coder.write([], 5) == b""
    assert coder.read(b"", 5).tolist() == []
    with pytest.raises(InputFault):
        coder.read(b"\x80", 5)


def test_fewer_bytes_than_leb128() -> None:
    counts = window(10_000, np.random.default_rng(9))
    assert len(CODER.write(counts, 10_000)) < len(telemetry.pack_counts(counts)) / 2
