"""Records beside the windows read back as written, and are never taken for a window."""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_contract import aside, messages, telemetry
from edge_contract.aside import DIFFERENCE_BUCKETS, Labelled, Shadow
from edge_contract.errors import InputFault
from edge_contract.telemetry import LATENCY_BUCKETS, pack_counts


def latency(calls: int) -> bytes:
    return pack_counts([0] * 10 + [calls] + [0] * (LATENCY_BUCKETS - 11))


SHADOW = Shadow(
    device="pi1", boot=3, seq=2, model="pump", version="2.0", bundle=b"\xcd" * 32,
    live_version="1.0", live_bundle=b"\xab" * 32, start_ms=1000, end_ms=2000, synchronised=True,
    rows=5, refused=1, failed=2, skipped=3, agreed=3, differed=1, unit=1.0,
    counts=pack_counts([5, 0]), latency=latency(4), live_latency=latency(4),
    differences=aside.pack_differences([4] + [0] * (DIFFERENCE_BUCKETS - 1)),
)  # fmt: skip
LABELLED = Labelled(
    device="pi1", boot=3, seq=3, model="pump", version="1.0", bundle=b"\xab" * 32,
    start_ms=1000, end_ms=2000, synchronised=True, kind="label", labels=2, bins=2, unit=1.0,
    counts=pack_counts([1, 0, 0, 2, 5, 0, 0, 7]), repeated=1, contradicted=2, late=3, unknown=4,
    refused=5,
)  # fmt: skip


@pytest.mark.parametrize("record", [SHADOW, LABELLED])
def test_a_record_survives_a_round_trip_and_is_no_window(record: aside.Aside) -> None:
    data = aside.encode(record)
    assert aside.is_aside(data)
    assert aside.decode(data) == record
    with pytest.raises(InputFault):
        telemetry.decode(data)


def test_a_window_is_no_record_of_this_kind() -> None:
    window = telemetry.Record(
        1, "pi1", 3, 2, "pump", "1.0", b"\xab" * 32, 0, 1, True, 0, 0, 0, 1, b"", b""
    )
    data = telemetry.encode(window)
    assert not aside.is_aside(data)
    with pytest.raises(InputFault):
        aside.decode(data)


def test_the_first_version_keeps_its_bytes() -> None:
    """Golden vectors: a change of these bytes needs a new schema number."""
    head = "a370693103"
    assert aside.encode(SHADOW).hex() == (
        "dc0018" "02" + head + "02" "a470756d70" "a3322e30" "c420" + "cd" * 32
        + "a3312e30" "c420" + "ab" * 32 + "cd03e8" "cd07d0" "c3" "05" "01" "02" "03" "03" "01"
        "cb3ff0000000000000" "c403" "050000" "c405" "000904" "0024" "c405" "000904" "0024"
        "c403" "04001e" "00"
    )  # fmt: skip
    assert aside.encode(LABELLED).hex() == (
        "dc0015" "03" + head + "03" "a470756d70" "a3312e30" "c420" + "ab" * 32
        + "cd03e8" "cd07d0" "c3" "a56c6162656c" "02" "02" "cb3ff0000000000000"
        "c408" "0100010205000107" "01" "02" "03" "04" "05" "00"
    )  # fmt: skip


def test_counts_of_labels_are_wrong_then_right_by_label_and_bin() -> None:
    assert aside.counts_of(LABELLED).tolist() == [[[1, 0], [0, 2]], [[5, 0], [0, 7]]]


@pytest.mark.parametrize("record", [SHADOW, LABELLED])
def test_a_record_cut_off_at_any_length_is_refused(record: aside.Aside) -> None:
    data = aside.encode(record)
    for length in range(len(data)):
        with pytest.raises(InputFault):
            aside.decode(data[:length])


@pytest.mark.parametrize(
    "record",
    [
        msgspec.structs.replace(SHADOW, agreed=5),
        msgspec.structs.replace(SHADOW, end_ms=999),
        msgspec.structs.replace(SHADOW, unit=math.inf),
        msgspec.structs.replace(SHADOW, unit=0.0),
        msgspec.structs.replace(SHADOW, live_latency=latency(5)),
        msgspec.structs.replace(SHADOW, differences=aside.pack_differences([6] + [0] * 31)),
        msgspec.structs.replace(SHADOW, bundle=b"short"),
        msgspec.structs.replace(SHADOW, version="../x"),
        msgspec.structs.replace(LABELLED, bins=3),
        msgspec.structs.replace(LABELLED, labels=100_001),
        msgspec.structs.replace(LABELLED, labels=100_000, bins=100_000),
        msgspec.structs.replace(LABELLED, kind="value"),
        msgspec.structs.replace(LABELLED, kind="other"),
        msgspec.structs.replace(LABELLED, repeated=-1),
    ],
)
def test_figures_that_do_not_go_together_are_refused(record: aside.Aside) -> None:
    with pytest.raises(InputFault):
        aside.decode(aside.encode(record))


@given(st.binary(max_size=300))
def test_bytes_of_others_raise_the_one_error_alone(data: bytes) -> None:
    with pytest.raises(InputFault):
        aside.decode(data)


def test_a_difference_lies_below_the_bound_of_its_bucket_and_not_of_the_one_before() -> None:
    for units in np.geomspace(1e-9, 1e9, 500).tolist():
        bucket = aside.difference_bucket(units)
        assert units < aside.difference_bound(bucket)
        assert bucket == 0 or units >= aside.difference_bound(bucket - 1)
    ends = [aside.difference_bucket(each) for each in (0.0, math.inf, math.nan)]
    assert ends == [0, DIFFERENCE_BUCKETS - 1, DIFFERENCE_BUCKETS - 1]
    bounds = [aside.difference_bound(bucket) for bucket in range(DIFFERENCE_BUCKETS)]
    assert all(low < high for low, high in itertools.pairwise(bounds))


def test_labels_are_one_object_or_a_list() -> None:
    one = messages.decode_labels(b'{"id": "7-1031", "label": "bad"}')
    many = messages.decode_labels(b'[{"id": "7-1", "label": 1}, {"id": "7-2", "label": 0.5}]')
    assert [(each.id, each.label) for each in (*one, *many)] == [
        ("7-1031", "bad"), ("7-1", 1), ("7-2", 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b'{"id": "7-1"}', b'{"id": "", "label": 1}', b'{"label": 1}',
        b'{"id": "7-1", "label": null}', b'{"id": "7-1", "label": [1]}', b"\xff",
        b'{"id": "7-1", "label": 1, "row": {"temp": 20}}',
        b'{"id": "' + b"7" * 41 + b'", "label": 1}',
        b"[" * 5000, b"[" + b",".join([b'{"id":"7-1","label":1}'] * 10_001) + b"]",
        b'{"id": "7-1", "label": "' + b"x" * 2**20 + b'"}',
    ],
)  # fmt: skip
def test_hostile_labels_are_refused(data: bytes) -> None:
    with pytest.raises(InputFault):
        messages.decode_labels(data)
