"""Coding 3: counts with noise say so, and are held to what all counts are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edge_contract import telemetry
from edge_contract.errors import InputFault
from edge_contract.profile import Monitor, Profile
from edge_contract.residuals import Residuals
from edge_contract.telemetry import Record

MONITOR = Monitor(name="c", kind="category", categories=("a", "b"), counts=(5, 5, 0, 0, 0))
REFERENCE = Residuals(Profile(rows=10, monitors=(MONITOR,)))
RECORD = Record(
    schema=1, device="d", boot=1, seq=1, model="m", version="1", bundle=b"x" * 32, start_ms=0,
    end_ms=1, synchronised=True, rows=9, refused=0, failed=0, coding=telemetry.CODING_NOISY,
    counts=telemetry.pack_noisy([4, 5, 0, 0, 0], 2.5), latency=b"",
)  # fmt: skip


def test_counts_and_noise_come_back() -> None:
    assert RECORD.counts.hex() == "2804050002"  # 40 sixteenths; 4, 5, three zeros
    read = telemetry.decode(telemetry.encode(RECORD))
    assert telemetry.noise_of(read) == 2.5
    assert telemetry.counts_of(read, REFERENCE).tolist() == [4, 5, 0, 0, 0]
    plain = replace(RECORD, coding=1, counts=telemetry.pack_counts([4, 5, 0, 0, 0]))
    assert telemetry.noise_of(plain) == 1.0
    both = telemetry.counts_of_many([read, plain], REFERENCE)
    assert (both == [4, 5, 0, 0, 0]).all()


@given(st.floats(1, telemetry.NOISE_MAX))
def test_the_factor_is_never_told_too_small(noise: float) -> None:
    record = replace(RECORD, counts=telemetry.pack_noisy([9, 0, 0, 0, 0], noise))
    assert noise <= telemetry.noise_of(record) <= noise + 1 / 16


@pytest.mark.parametrize("noise", [0.0, 0.99, float("nan"), 2.0**21])
def test_a_factor_out_of_range_is_not_written(noise: float) -> None:
    with pytest.raises(InputFault, match="noise factor"):
        telemetry.pack_noisy([1], noise)


def test_noise_is_no_licence_to_count_what_was_not_there() -> None:
    record = replace(RECORD, counts=telemetry.pack_noisy([4, 6, 0, 0, 0], 2.0))
    with pytest.raises(InputFault, match="add up to 10"):
        telemetry.counts_of(record, REFERENCE)


@given(st.binary(max_size=12))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    record = replace(RECORD, counts=data)
    for read in (telemetry.noise_of, lambda one: telemetry.counts_of(one, REFERENCE)):
        try:
            found = read(record)
        except InputFault:
            continue
        assert np.all(np.asarray(found) >= 0)
