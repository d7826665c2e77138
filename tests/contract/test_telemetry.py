"""A telemetry record reads back as written, and nothing malformed reads at all."""

from __future__ import annotations

import contextlib
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract import telemetry
from edge_contract.errors import InputFault
from edge_contract.profile import Monitor, Profile
from edge_contract.residuals import Residuals
from edge_contract.telemetry import COUNT_MAX, Record

PROFILE = Profile(
    rows=6,
    monitors=(
        Monitor(name="a", kind="quantile", edges=(0.0, 1.0, 2.0), counts=(3, 3, 0, 0, 0, 0, 0)),
        Monitor(name="b", kind="category", categories=("x",), counts=(6, 0, 0, 0)),
    ),
)
REFERENCE = Residuals(PROFILE)


VECTOR = [3, 2, 0, 0, 0, 0, 0, 4, 0, 0, 1]


def record(**changes: object) -> Record:
    fields = Record(
        schema=1,
        device="pi1",
        boot=3,
        seq=2,
        model="pump",
        version="1.0",
        bundle=b"\xab" * 32,
        start_ms=1000,
        end_ms=2000,
        synchronised=True,
        rows=5,
        refused=1,
        failed=0,
        coding=telemetry.CODING_LEB128,
        counts=telemetry.pack_counts(VECTOR),
        latency=telemetry.pack_counts([0] * 10 + [5] + [0] * 37),
        dropped=0,
    )
    return msgspec.structs.replace(fields, **changes)


def test_a_record_survives_a_round_trip() -> None:
    read = telemetry.decode(telemetry.encode(record()))
    assert read == record()
    assert telemetry.counts_of(read, REFERENCE).tolist() == VECTOR
    assert telemetry.latency_of(read)[10] == 5


FIRST_FIELDS = (
    "01" "a3706931" "03" "02" "a470756d70" "a3312e30"
    "c420" + "ab" * 32 + "cd03e8" "cd07d0" "c3" "05" "01" "00" "01"
    "c408" "0302" "0004" "04" "0001" "01"
    "c405" "0009" "05" "0024" "00"
)  # fmt: skip
"""Golden: a change of these bytes needs a new schema or coding number."""

FULL = {
    "errors": (0, 1),
    "moments": b"\x12\x34",
    "quality": ((9, 0), (5, 1)),
    "resources": telemetry.Resources(
        cpu_percent=37, rss_mib=96, temperature_c=-5, disk_free_mib=20_000, slowed=0x41
    ),
}


def test_version_one_keeps_its_bytes() -> None:
    plain = "dc0015" + FIRST_FIELDS + "90c40090c0"
    assert telemetry.encode(record()).hex() == plain
    full = "dc0015" + FIRST_FIELDS + (
        "920001" "c4021234" "92" "920900" "920501" "96" "25" "c0" "60" "fb" "cd4e20" "41"
    )  # fmt: skip
    assert telemetry.encode(record(**FULL)).hex() == full
    assert telemetry.decode(bytes.fromhex(full)) == record(**FULL)


def test_a_record_of_an_older_agent_reads_with_defaults() -> None:
    assert telemetry.decode(bytes.fromhex("dc0011" + FIRST_FIELDS)) == record()


def test_fields_of_a_later_agent_are_passed_over() -> None:
    later = "dc0016" + FIRST_FIELDS + "90c40090c0a3616263"
    assert telemetry.decode(bytes.fromhex(later)) == record()


def test_findings_and_errors_have_names() -> None:
    found = record(**FULL)
    assert telemetry.quality_of(found, PROFILE) == (("stale-clock", ""), ("stuck", "a"))
    assert telemetry.errors_of(found) == {"missing": 1}
    later = record(quality=((40, 2),), errors=(*[0] * 40, 1))
    assert telemetry.quality_of(later, PROFILE) == (("code 40", "b"),)
    assert telemetry.errors_of(later) == {"code 40": 1}
    with pytest.raises(InputFault, match="monitor 3 of 2"):
        telemetry.quality_of(record(quality=((0, 3),)), PROFILE)


def test_a_record_cut_off_at_any_length_is_refused() -> None:
    data = telemetry.encode(record(**FULL))
    for length in range(len(data)):
        with pytest.raises(InputFault):
            telemetry.decode(data[:length])


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"coding": 9},
        {"device": "a/b"},
        {"device": "#"},
        {"bundle": b"short"},
        {"boot": -1},
        {"rows": 2**60},
        {"start_ms": 2001},
        {"counts": "text"},
        {"synchronised": 1},
        {"errors": (1, 1)},
        {"errors": (-1,)},
        {"errors": (0,) * 65},
        {"quality": ((64, 0),)},
        {"quality": ((0, 1, 2),)},
        {"quality": ((0, 0),) * 65},
        {"resources": (101, 0, 0, 0, 0, 0)},
        {"resources": (50, 50, 9, float("nan"), 0, 0)},
        {"resources": (50, 50, 9, 1000, 0, 0)},
        {"moments": "text"},
        {"moments": [float("nan")]},
    ],
)
def test_a_record_with_a_wrong_field_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputFault):
        telemetry.decode(msgspec.msgpack.encode(record(**changes)))


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(InputFault, match="'b' add up to 4"):
        telemetry.counts_of(record(counts=telemetry.pack_counts([*VECTOR[:-1], 0])), REFERENCE)


def test_counts_that_wrap_around_to_the_right_sum_are_refused() -> None:
    huge = [COUNT_MAX, *VECTOR[1:]]
    with pytest.raises(InputFault):
        telemetry.counts_of(record(counts=telemetry.pack_counts(huge)), REFERENCE)


def test_many_records_are_read_as_each_alone_in_either_coding() -> None:
    new = record(coding=telemetry.CODING_RESIDUALS, counts=REFERENCE.write(VECTOR, 5))
    for records in ([record(), new], [new, new], []):
        counts = telemetry.counts_of_many(records, REFERENCE)
        assert counts.tolist() == [VECTOR] * len(records)
    damaged = msgspec.structs.replace(new, counts=new.counts + b"\0")
    with pytest.raises(InputFault):
        telemetry.counts_of_many([new, damaged], REFERENCE)


@pytest.mark.parametrize("cells", [10, 12])
def test_counts_of_another_profile_are_refused(cells: int) -> None:
    with pytest.raises(InputFault):
        telemetry.unpack_counts(telemetry.pack_counts([1] * cells), 11)


def test_a_hostile_zero_run_is_refused_before_it_is_expanded() -> None:
    with pytest.raises(InputFault):
        telemetry.unpack_counts(b"\x00\xff\xff\xff\xff\xff\xff\xff\x0f", 100)


def test_an_oversized_record_is_refused_both_ways() -> None:
    with pytest.raises(InputFault, match="over the limit"):
        telemetry.encode(record(counts=telemetry.pack_counts([2**50] * 10_000)))
    with pytest.raises(InputFault, match="over the limit"):
        telemetry.decode(bytes(telemetry.RECORD_MAX_BYTES + 1))


@given(st.lists(st.integers(0, COUNT_MAX) | st.just(0), max_size=80))
def test_counts_survive_packing(counts: list[int]) -> None:
    unpacked = telemetry.unpack_counts(telemetry.pack_counts(counts), len(counts))
    assert unpacked.tolist() == counts


@settings(max_examples=500)
@given(st.binary(max_size=60), st.integers(0, 200))
def test_only_the_declared_error_escapes_the_count_decoder(data: bytes, cells: int) -> None:
    with contextlib.suppress(InputFault):
        assert len(telemetry.unpack_counts(data, cells)) == cells


@settings(max_examples=500)
@given(st.data())
def test_only_the_declared_error_escapes_the_record_decoder(data: st.DataObject) -> None:
    altered = bytearray(telemetry.encode(record(**FULL)))
    for _ in range(data.draw(st.integers(1, 4))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputFault):
        read = telemetry.decode(bytes(altered))
        telemetry.moments_of(read, REFERENCE)
        telemetry.quality_of(read, PROFILE)


@given(st.integers(1, 10**13))
def test_a_latency_falls_into_the_bucket_of_its_logarithm(nanoseconds: int) -> None:
    bucket = telemetry.latency_bucket(nanoseconds)
    exact = math.floor(2 * math.log2(nanoseconds / 1000) + 1e-12)
    assert abs(bucket - np.clip(exact, 0, telemetry.LATENCY_BUCKETS - 1)) == 0
