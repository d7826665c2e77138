"""Shadows and labels on their way home: kept once, apart from the windows, and summed rightly."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fleet_kit import FLEET
from msgspec.structs import replace
from scipy import stats

from edge_contract import aside
from edge_contract.aside import DIFFERENCE_BUCKETS, Labelled, Shadow
from edge_contract.errors import InputFault
from edge_contract.telemetry import LATENCY_BUCKETS, pack_counts
from edge_contract.topics import Topics
from edge_fleet import aside_tables, asides, intake, reports
from edge_fleet.store.base import AsideKind, AsideSeen, Fault
from edge_fleet.store.sql import open_store

TOPICS = Topics(FLEET)
NOW = 1_800_000_000_000


def buckets(size: int, **counts: int) -> bytes:
    found = [0] * size
    for at, count in counts.items():
        found[int(at[1:])] = count
    return pack_counts(found)


def shadow(device: str = "pi-1", seq: int = 1, **changes: object) -> Shadow:
    made = Shadow(
        device=device, boot=1, seq=seq, model="pump", version="2.0", bundle=b"\x02" * 32,
        live_version="1.0", live_bundle=b"\x01" * 32, start_ms=0, end_ms=1, synchronised=True,
        rows=100, refused=1, failed=2, skipped=3, agreed=80, differed=10, unit=1.0, counts=b"",
        latency=buckets(LATENCY_BUCKETS, b10=90, b20=10),
        live_latency=buckets(LATENCY_BUCKETS, b8=100),
        differences=buckets(DIFFERENCE_BUCKETS, b0=60, b18=30),
    )  # fmt: skip
    return replace(made, **changes)


def labelled(device: str = "pi-1", seq: int = 2, **changes: object) -> Labelled:
    made = Labelled(
        device=device, boot=1, seq=seq, model="pump", version="1.0", bundle=b"\x01" * 32,
        start_ms=0, end_ms=1, synchronised=True, kind="label", labels=2, bins=2, unit=1.0,
        counts=pack_counts([1, 0, 0, 1, 10, 5, 3, 0]), repeated=1, late=2,
    )  # fmt: skip
    return replace(made, **changes)


def read(record: aside.Aside, device: str = "pi-1") -> intake.Item:
    topic = TOPICS.telemetry(device)
    return intake.read(TOPICS, topic, aside.encode(record), retained=False, now_ms=NOW)


def test_records_beside_are_read_as_what_they_are() -> None:
    for record, kind in ((shadow(), AsideKind.SHADOW), (labelled(), AsideKind.LABELLED)):
        seen = read(record)
        assert isinstance(seen, AsideSeen)
        assert (seen.device, seen.kind, seen.bundle) == ("pi-1", kind, record.bundle.hex())
        assert aside.decode(seen.record) == record


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (shadow("pi-2"), "wrong-device"),
        (shadow(agreed=91), "bad-telemetry"),
        (shadow(rows=2**37), "bad-telemetry"),
        (labelled(bins=3), "bad-telemetry"),
        (labelled(counts=pack_counts([2**37] + [0] * 7)), "bad-telemetry"),
        (labelled(labels=100_000, bins=100_000), "bad-telemetry"),
        (labelled(bins=512, counts=pack_counts([2**53] * 2048)), "bad-telemetry"),  # 2^64 is 0
        (labelled(bins=512, counts=pack_counts([2**26] * 2048)), "bad-telemetry"),
        (labelled(late=2**53), "bad-telemetry"),
        (shadow(failed=2**53), "bad-telemetry"),
        (
            shadow(latency=buckets(48, b0=2**53), live_latency=buckets(48, b1=2**53)),
            "bad-telemetry",
        ),
    ],
)
def test_what_makes_no_sense_is_a_fault_of_the_device(record: aside.Aside, kind: str) -> None:
    found = read(record)
    assert isinstance(found, Fault)
    assert (found.device, found.kind) == ("pi-1", kind)


def test_shadows_of_a_pair_are_summed_and_pairs_kept_apart() -> None:
    other = shadow("pi-3", live_version="1.1", live_bundle=b"\x03" * 32)
    found = asides.shadows([shadow(), shadow("pi-2"), other])
    assert [(each.live_version, each.version) for each in found] == [("1.0", "2.0"), ("1.1", "2.0")]
    both = found[0]
    assert (both.devices, both.rows, both.compared, both.agreed) == (2, 200, 180, 160)
    assert (both.refused, both.failed, both.skipped) == (2, 4, 6)
    assert both.agreement is not None
    oracle = stats.binomtest(160, 180).proportion_ci(0.95, "exact")
    assert (both.agreement.low, both.agreement.high) == pytest.approx((oracle.low, oracle.high))
    assert both.difference_p50 == aside.difference_bound(0)
    assert both.difference_p99 == aside.difference_bound(18) == 0.125
    assert both.latency_p50_ms == pytest.approx(2**5.5 / 1000)
    assert both.latency_p99_ms == pytest.approx(2**10.5 / 1000)
    assert both.live_p99_ms == pytest.approx(2**4.5 / 1000)


def test_nothing_compared_is_no_share_and_no_quantile() -> None:
    none = buckets(DIFFERENCE_BUCKETS)
    (found,) = asides.shadows([shadow(agreed=0, differed=0, differences=none)])
    assert (found.agreement, found.difference_p50) == (None, None)
    json.dumps(found.difference_p99, allow_nan=False)


def test_accuracy_is_of_what_has_a_label_and_coverage_of_what_was_answered() -> None:
    answered = {("pi-1", "01" * 32): 100, ("pi-2", "01" * 32): 60}
    (found,) = asides.labels([labelled(), labelled(seq=3), labelled("pi-2")], answered)
    assert (found.labelled, found.right, found.devices, found.answered) == (60, 54, 2, 160)
    assert found.coverage == 60 / 160
    assert found.accuracy is not None
    assert found.accuracy.share == 0.9
    oracle = stats.binomtest(54, 60).proportion_ci(0.95, "exact")
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((oracle.low, oracle.high))
    assert (found.repeated, found.late) == (3, 6)
    (partly,) = asides.labels([labelled(), labelled("pi-9")], answered)
    assert (partly.answered, partly.coverage) == (None, None), "a figure not known is none"


def test_errors_of_values_are_in_their_own_unit() -> None:
    counts = np.zeros((2, DIFFERENCE_BUCKETS), dtype=np.int64)
    counts[0, 18], counts[1, 21] = 9, 1
    value = labelled(
        kind="value",
        labels=2,
        bins=DIFFERENCE_BUCKETS,
        unit=4.0,
        counts=pack_counts(counts.ravel()),
    )
    (found,) = asides.labels([value], {})
    assert found.accuracy is None
    assert (found.error_p50, found.too_low) == (4.0 * 0.125, 0.9)
    json.dumps(found.error_p90, allow_nan=False)


def test_reports_read_what_the_store_kept_and_tables_show_it(tmp_path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/fleet.db", create=True)
    with store.transaction() as tx:
        tx.add_asides([read(shadow()), read(shadow()), read(labelled())])  # type: ignore[list-item]
    (found,) = reports.shadow(store)
    (accuracy,) = reports.accuracy(store)
    store.close()
    assert (found.rows, accuracy.labelled) == (100, 20)
    for columns, rows in (aside_tables.shadow([found]), aside_tables.accuracy([accuracy])):
        assert all(len(row) == len(columns) for row in rows)
    assert "88.9% (80.5% to 94.5%)" in aside_tables.shadow([found])[1][0]
    assert "90.0% (68.3% to 98.8%)" in aside_tables.accuracy([accuracy])[1][0]


def test_a_label_record_of_hostile_size_is_refused_before_anything_is_made_of_it() -> None:
    run, left = bytearray([0]), 2 * 100_000**2 - 1  # one run of zeros for all the cells it names
    while left > 0x7F:
        run.append(left & 0x7F | 0x80)
        left >>= 7
    bomb = labelled(labels=100_000, bins=100_000, counts=bytes([*run, left]))
    with pytest.raises(InputFault, match="100000 times 100000 cells"):
        aside.decode(aside.encode(bomb))
