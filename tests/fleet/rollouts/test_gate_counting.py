"""What the gates compare is read from the store: whose windows, of which version, from when."""

import msgspec
import numpy as np
import pytest
from fleet_kit import Packed, draw, pack, record

from edge_contract import manifest as manifests
from edge_contract import telemetry
from edge_contract.telemetry import LATENCY_BUCKETS, Resources
from edge_fleet.rollouts import counting, otherwise, slower
from edge_fleet.rollouts import order as orders
from edge_fleet.store.base import Counted, Detector
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

BEGAN_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
ORDER = orders.made(fleet="test", model="boiler", version="2.0")
SELECTED = {"d1": "pi4", "d2": "pi4", "d3": "x86"}


@pytest.fixture(scope="module")
def versions() -> dict[str, Packed]:
    return {v: pack(np.random.default_rng(5), v) for v in ("1.0", "2.0")}


class Told:
    """A store that hears windows."""

    def __init__(self, store: SqlStore, versions: dict[str, Packed]) -> None:
        self.store, self.versions, self.seq = store, versions, 0
        self.rng = np.random.default_rng(1)
        with store.transaction() as tx:
            for packed in versions.values():
                manifest = manifests.decode(packed.manifest_bytes)
                file = manifest.file(manifests.PROFILE_FILE)
                tx.put_blob(packed.digest, packed.manifest_bytes, BEGAN_MS)
                tx.put_blob(file.sha256, packed.stored, BEGAN_MS)
                tx.put_detectors([Detector("d1", packed.digest, "boiler", manifest.version, b"")])

    def window(
        self, device: str, version: str, at_ms: int, *, rows: int = 100, failed: int = 0,
        bucket: int = 20, rss_mib: int = 50,
    ) -> None:  # fmt: skip
        packed = self.versions[version]
        self.seq += 1
        one = record(packed, packed.counts(draw(self.rng, rows)), device=device, seq=self.seq)
        latency = np.eye(LATENCY_BUCKETS, dtype=np.int64)[bucket] * rows
        one = msgspec.structs.replace(
            one, version=version, failed=failed, latency=telemetry.pack_counts(latency),
            resources=Resources(rss_mib=rss_mib),
        )  # fmt: skip
        window = window_of(telemetry.encode(one), at_ms)
        with self.store.transaction() as tx:
            tx.add_windows([window])
            tx.mark([window.key], Counted.YES)

    def counted(self) -> counting.Counted:
        with self.store.reading() as tx:
            digests = [self.versions["2.0"].digest]
            return counting.counted(tx, ORDER, BEGAN_MS, digests, SELECTED)


def test_each_window_is_in_the_arm_of_its_device_version_and_time(
    any_store: SqlStore, versions: dict[str, Packed]
) -> None:
    told = Told(any_store, versions)
    told.window("d1", "1.0", BEGAN_MS - 2 * DAY_MS)  # too long ago
    told.window("d1", "1.0", BEGAN_MS - HOUR_MS)
    told.window("d1", "1.0", BEGAN_MS + HOUR_MS, rows=50)
    told.window("d2", "1.0", BEGAN_MS - HOUR_MS)  # before it began: not of the same time
    told.window("d2", "1.0", BEGAN_MS + HOUR_MS)
    told.window("d4", "1.0", BEGAN_MS + HOUR_MS)  # not selected
    told.window("d1", "2.0", BEGAN_MS - HOUR_MS)  # before it began
    assert told.counted().rows == 0 and told.counted().arms.others == {}
    told.window("d1", "2.0", BEGAN_MS + HOUR_MS, rows=150, failed=5)
    told.window("d4", "2.0", BEGAN_MS + HOUR_MS, rows=10)
    found = told.counted()
    assert (found.rows, found.failed) == (150 + 5 + 10, 5), "rows of every device"
    arms = found.arms
    assert (set(arms.new), set(arms.own), set(arms.others)) == ({"d1", "d4"}, {"d1", "d4"}, {"d2"})
    assert len(arms.own["d1"].calls) == 2 and len(arms.others["d2"].calls) == 1
    assert (arms.new["d1"].rows, arms.new["d1"].failed, arms.own["d1"].rows) == (155, 5, 50)
    assert arms.new["d1"].scores is None, "150 rows are no outcome yet"
    told.window("d1", "2.0", BEGAN_MS + 2 * HOUR_MS)
    scores = told.counted().arms.new["d1"].scores
    assert scores is not None and scores.sum() == 250
    told.window("d1", "2.0", BEGAN_MS + 3 * HOUR_MS)
    after = told.counted().arms.new["d1"]
    assert after.scores is not None and after.scores.sum() == 250 and len(after.calls) == 3


def test_the_gates_see_what_came_home(store: SqlStore, versions: dict[str, Packed]) -> None:
    told = Told(store, versions)
    for i in range(24):
        told.window("d1", "1.0", BEGAN_MS - (i + 1) * HOUR_MS // 2)
    for i in range(12):
        told.window("d1", "2.0", BEGAN_MS + i, bucket=23, rss_mib=120)
    arms = told.counted().arms
    found = slower.slower(arms, 1.5)
    assert found.ratio == pytest.approx(2**1.5) and found.log_e > 4.6
    assert slower.heavier(arms) == (1, 1)
    judged = otherwise.shifted(arms, 0.2)
    assert "1 devices on the version and 0 on others" in judged.cannot
    assert arms.grounds[versions["1.0"].digest].labels == ("ok", "worn")


def test_of_a_large_fleet_a_sample_by_lot_is_looked_at_and_every_row_counts(
    store: SqlStore, versions: dict[str, Packed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "NEW_MAX", 3)
    monkeypatch.setattr(counting, "OTHERS_MAX", 2)
    told = Told(store, versions)
    many = {f"e{i}": "pi4" for i in range(20)}
    for i, device in enumerate(many):
        told.window(device, "2.0" if i < 8 else "1.0", BEGAN_MS + i)
    with store.reading() as tx:
        digests = [versions["2.0"].digest]
        once, again = (counting.counted(tx, ORDER, BEGAN_MS, digests, many) for _ in range(2))
    assert once.rows == 800
    assert (len(once.arms.new), len(once.arms.others)) == (3, 2)
    assert list(once.arms.new) == list(again.arms.new), "the lot is the same at each look"


def test_of_many_others_those_of_the_same_site_are_looked_at(
    store: SqlStore, versions: dict[str, Packed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "OTHERS_MAX", 4)
    told = Told(store, versions)
    many = {f"e{i}": ("pi4", "lyon" if i < 10 else "rome") for i in range(30)}
    for i, device in enumerate(many):
        told.window(device, "2.0" if i < 3 else "1.0", BEGAN_MS + i)
    with store.reading() as tx:
        found = counting.counted(
            tx, ORDER, BEGAN_MS, [versions["2.0"].digest], dict.fromkeys(many, "pi4"), strata=many
        )
    assert len(found.arms.others) == 4
    assert {many[device] for device in found.arms.others} == {("pi4", "lyon")}
    assert found.arms.strata == many
