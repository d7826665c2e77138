"""Moments in a record: as near as chance allows, and safe to read from anybody."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import moments
from edge_contract import profile as profiles
from edge_contract.errors import InputFault
from edge_contract.moments import Moments
from edge_contract.profile import Monitor, Profile

PROFILE = Profile(
    rows=6,
    monitors=(
        Monitor(name="a", kind="quantile", edges=(0.0, 1.0, 2.0), counts=(3, 3, 0, 0, 0, 0, 0),
                mean=1.0, std=0.5),
        Monitor(name="site", kind="category", categories=("x",), counts=(6, 0, 0, 0)),
        Monitor(name="b", kind="lattice", edges=(0.0,), counts=(6, 0, 0, 0, 0, 0)),
        Monitor(name="c", kind="quantile", edges=(0.0, 9.0), counts=(6, 0, 0, 0, 0, 0), std=2.0),
    ),
)  # fmt: skip
COUNTS = np.array([2, 1, 0, 1, 0, 0, 0, *(4, 0, 0, 0), *(0, 0, 0, 0, 4, 0), *(1, 0, 0, 0, 2, 1)])
"""Four finite values of a, none of b, one of c."""


def test_golden_vector() -> None:
    # By hand. a: steps .5 / 2 = .25 and .5 / sqrt(8); mean 1.5 is +2 steps, z = 4; std .5 is 0.
    # c: step 2 for the mean: -2 is -1, z = 1; std 0 against 2 in steps of 2 / sqrt(2): -1.41,
    # rounded -1, z = 1. k for (4, 1): k = 0 takes 5 + 2 bits, 1 takes 4 + 2, 2 takes 4 + 3: 1.
    # k for (0, 1): 0 takes 1 + 2, 1 takes 2 + 2: 0. Runs 3 -> r = 1, 1 -> r = 0.
    bits = "00001000001" + ("0010" + "1" + "01") + ("11" + "01" + "1")
    data = int(bits.ljust(24, "0"), 2).to_bytes(3, "big")
    seen = (Moments(1.5, 0.5, 3), None, Moments(-2.0, 0.0, 1))
    assert moments.write(PROFILE, COUNTS, seen) == data
    a, b, c = moments.read(PROFILE, COUNTS, data)
    assert a == Moments(1.5, 0.5, 2)
    assert b is None
    assert c is not None
    assert (c.mean, c.run) == (-2.0, 1)
    assert c.std == pytest.approx(2 - math.sqrt(2))
    assert moments.finite(PROFILE, COUNTS) == (4, 0, 1)
    # Without runs: another bit in front, and no r.
    bits = "00001000000" + ("0010" + "1") + ("11" + "01")
    data = int(bits.ljust(24, "0"), 2).to_bytes(3, "big")
    seen = (Moments(1.5, 0.5, 1), None, Moments(-2.0, 0.0, 1))
    assert moments.write(PROFILE, COUNTS, seen) == data
    assert [each and each.run for each in moments.read(PROFILE, COUNTS, data)] == [1, None, 1]


def test_no_moments_are_no_bytes() -> None:
    nothing = np.zeros(PROFILE.cells, dtype=np.int64)
    assert moments.write(PROFILE, nothing, (None,) * 3) == b""
    assert moments.read(PROFILE, COUNTS, b"") == (None,) * 3


@given(
    st.integers(1, 10**6),
    st.floats(-1e3, 1e3),
    st.floats(0, 1e3),
    st.integers(1, 2**40),
)
def test_what_is_rounded_away_is_half_a_standard_error(n, mean, std, run) -> None:
    profile = Profile(rows=6, monitors=PROFILE.monitors[:1])
    counts = np.array([n, 0, 0, 0, 0, 0, 0])
    (read,) = moments.read(
        profile, counts, moments.write(profile, counts, (Moments(mean, std, run),))
    )
    assert read is not None
    assert abs(read.mean - mean) <= 0.5001 * 0.5 / math.sqrt(n)
    assert abs(read.std - std) <= 0.5001 * 0.5 / math.sqrt(2 * n)
    assert read.run == 2 ** (min(run, moments.RUN_MAX).bit_length() - 1)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e300, -1e300])
def test_moments_that_are_no_numbers_are_written_as_far_away(value: float) -> None:
    profile = Profile(rows=6, monitors=PROFILE.monitors[:1])
    counts = np.array([4, 0, 0, 0, 0, 0, 0])
    data = moments.write(profile, counts, (Moments(value, math.nan, 0),))
    (read,) = moments.read(profile, counts, data)
    assert read is not None
    assert math.isfinite(read.mean)
    assert abs(read.mean) > 1e11
    assert (read.mean < 0) == (value < 0)


def test_twenty_numbers_of_the_reference_take_less_than_six_bits_each() -> None:
    rng = np.random.default_rng(4)
    edges = tuple(np.linspace(-3, 3, 33).tolist())
    monitors = [
        Monitor(name=f"n{i}", kind="quantile", edges=edges, counts=(0,) * 37, std=1.0)
        for i in range(20)
    ]
    profile = Profile(rows=0, monitors=tuple(monitors))
    sizes = []
    for _ in range(50):
        values = rng.normal(size=(20, 1000))
        counts = [profiles.count_numbers(m, v) for m, v in zip(monitors, values, strict=True)]
        seen = [Moments(float(v.mean()), float(v.std()), 1) for v in values]
        sizes.append(len(moments.write(profile, np.concatenate(counts), seen)))
    assert 8 * np.mean(sizes) / 20 < 5.8


def test_every_cut_and_every_longer_string_is_refused() -> None:
    data = moments.write(PROFILE, COUNTS, (Moments(7.0, 3.0, 9), None, Moments(0.0, 1e9, 2)))
    for size in range(1, len(data)):
        with pytest.raises(InputFault):
            moments.read(PROFILE, COUNTS, data[:size])
    for more in (b"\0", b"\x01"):
        with pytest.raises(InputFault):
            moments.read(PROFILE, COUNTS, data + more)


@given(st.binary(max_size=40))
def test_whatever_the_bytes_there_are_moments_or_a_clear_fault(data: bytes) -> None:
    with contextlib.suppress(InputFault):
        for seen in moments.read(PROFILE, COUNTS, data):
            assert seen is None or (math.isfinite(seen.mean) and seen.std >= 0 and seen.run >= 1)
