"""What pages of drift, models and quality are answered: figures against scipy and the commands."""

from typing import Any

import msgspec
import numpy as np
import pytest
from api_kit import Client, fill
from fleet_kit import BUDGET, Packed, draw, number, record
from scipy.spatial.distance import jensenshannon
from test_api_service import is_problem

from edge_contract import telemetry
from edge_contract.profile import Power
from edge_fleet import disclosure, estimating, kept, trends
from edge_fleet.api import drift_views, model_views
from edge_fleet.drift import promises
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.options import now_ms
from edge_fleet.store.sql import SqlStore
from edge_fleet.windows import window_of

HOUR = trends.HOUR_MS


def test_the_map_shows_when_and_where_by_scipys_distance(
    client: Client, filled: SqlStore, packed: Packed
) -> None:
    found = client("viewer").get(f"/api/v1/bundles/{packed.digest}/drift").json()
    assert len(found["starts"]) == len(found["rows"]) == 168
    assert sum(found["rows"]) == 5 * 6 * 60
    assert "At most 1 false alarm in 30 days" in found["promise"]
    features = {(one["source"], one["feature"]): one for one in found["features"]}
    assert found["features"][0]["feature"] == "temperature", "what moved stands first"
    assert features["feature", "temperature"]["alarms"] >= 1
    assert features["feature", "level"]["most"] < 0.1
    at = [i for i, rows in enumerate(found["rows"]) if rows]
    assert len(at) == 1, "windows belong to the hour in which they came"
    with filled.reading() as tx:
        known = Library().find(tx, packed.digest)
        counts = sum(kept.by_device(tx, known, 0).values())
    for monitor, start in zip(packed.profile.monitors, packed.profile.offsets(), strict=True):
        one = features[monitor.source, monitor.name]
        own = counts[start : start + monitor.cells]
        truth = jensenshannon(monitor.counts, own, 2)
        assert one["distance"][at[0]] == pytest.approx(truth, abs=6e-4)
        assert one["shift"][at[0]] <= one["distance"][at[0]]
        assert set(one["distance"][: at[0]]) == {None}, "no rows, no figure"


def test_of_quiet_counts_next_to_nothing_is_beyond_chance(rng: np.random.Generator) -> None:
    """Cells with a shift among quiet ones: 2 standard deviations leave about one in forty."""
    monitor = number("x", rng.normal(size=20_000))
    share = np.asarray(monitor.counts) / sum(monitor.counts)
    for rows in (60, 600, 6000):
        counts = rng.multinomial(rows, share, size=400)
        distance, shift = drift_views.distances(monitor, counts)
        assert (distance > 0).all()
        assert (shift > 0).mean() < 0.08, rows
    moved = rng.normal(0.5, 1.0, size=(50, 600))
    from edge_contract import profile

    counts = np.stack([profile.count_numbers(monitor, one) for one in moved])
    assert (drift_views.distances(monitor, counts)[1] > 0.05).mean() > 0.9


def test_histograms_hold_no_cell_of_fewer_rows_than_may_be_told(
    client: Client, filled: SqlStore, packed: Packed
) -> None:
    reader, path = client("viewer"), f"/api/v1/bundles/{packed.digest}/histogram"
    period = {"since_ms": now_ms() - 2 * HOUR, "until_ms": now_ms() + HOUR}
    found = reader.get(path, params={"feature": "temperature", **period}).json()
    assert found["rows"] == 1800
    assert "mean up" in found["what"]
    assert found["median_after"] > found["median_before"]
    monitor = packed.profile.monitors[0]
    before = np.asarray(monitor.counts) / sum(monitor.counts)
    shares = [bar["before"] for bar in found["bars"]]
    np.testing.assert_allclose(shares[: monitor.regular], before[: monitor.regular], atol=1e-5)
    assert sum(bar["after"] for bar in found["bars"]) == pytest.approx(1, abs=1e-3)
    colour = reader.get(path, params={"feature": "colour", **period}).json()
    assert {bar["cell"] for bar in colour["bars"]} >= {"red", "green", "blue"}
    assert colour["what"] == "nothing in these rows speaks for a change"
    scores = {"feature": "prediction", "source": "output"}
    told = reader.get(path, params={**scores, **period}).json()
    with filled.reading() as tx:
        known = Library().find(tx, packed.digest)
        counts = sum(kept.by_device(tx, known, 0).values())
    own = counts[packed.profile.offsets()[3] :]
    safe = disclosure.safe_counts(packed.profile.monitors[3], own, disclosure.K)
    assert told["merged"] is bool((safe != own).any())
    shares = [bar["after"] for bar in told["bars"]][:64]
    np.testing.assert_allclose(shares, safe[:64] / safe.sum(), atol=1e-5)
    early = {"since_ms": 0, "until_ms": HOUR}
    nothing = reader.get(path, params={"feature": "colour", **early}).json()
    assert (nothing["rows"], nothing["what"]) == (0, "")
    is_problem(reader.get(path, params={"feature": "none", **period}), 404)
    backwards = {"since_ms": 5, "until_ms": 5}
    is_problem(reader.get(path, params={"feature": "colour", **backwards}), 400)


def test_a_period_of_a_handful_of_rows_shows_none(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    fill(store, packed, rng)
    later = now_ms() + 48 * HOUR
    few = record(packed, packed.counts(draw(rng, disclosure.K - 1)), device="pi-9")
    with store.transaction() as tx:
        window = window_of(telemetry.encode(few), later)
        Evidence(Library(), BUDGET).count(tx, tx.add_windows([window]), later)
        known = Library().find(tx, packed.digest)
        assert known is not None
        found = drift_views.histogram(
            tx, known, source="feature", feature="temperature", since_ms=later - HOUR,
            until_ms=later + HOUR,
        )  # fmt: skip
        shown = drift_views.drift_map(tx, known, later, Budget(1, 60), hours=2)
    assert found.rows == 0
    assert {bar.after for bar in found.bars} == {0.0}
    assert shown.rows[-1] == disclosure.K - 1
    assert {one.distance for one in shown.features} == {(None, None)}


def test_who_holds_the_evidence(client: Client, packed: Packed) -> None:
    reader, path = client("viewer"), f"/api/v1/bundles/{packed.digest}/contributors"
    any_feature = reader.get(path).json()
    assert any_feature["devices"] == 5
    first = any_feature["items"][0]
    assert (first["device"], first["feature"]) == ("pi-2", "temperature")
    assert first["alarm"] >= 1
    assert first["evidence"] >= any_feature["threshold"]
    assert any_feature["above"] == 1
    by_level = reader.get("/api/v1/drift", params={"device": "pi-2", "limit": 1000}).json()
    level = {one["feature"]: one["evidence"] for one in by_level["levels"]}
    named = reader.get(path, params={"feature": "temperature", "limit": 1}).json()
    assert [one["evidence"] for one in named["items"]] == [level["temperature"]]
    assert named["items"][0]["share"] > 0.9


def test_a_model_has_its_versions_and_where_they_are(client: Client, packed: Packed) -> None:
    reader = client("viewer")
    (model,) = reader.get("/api/v1/models").json()
    assert (model["model"], model["devices"]) == ("boiler", 5)
    versions = {one["version"]: one for one in model["versions"]}
    assert set(versions) == {"1.0", "1.1", "1.2", "1.3", "1.4"}
    assert {one["running"] for one in versions.values()} == {1}
    assert versions["1.0"]["bundle"] == packed.digest
    assert versions["1.0"]["counted"] == 5
    page: dict[str, Any] = reader.get(f"/api/v1/bundles/{packed.digest}").json()
    assert page["rows"] == 1800
    assert page["labels"] == ["ok", "worn"]
    assert {one["name"] for one in page["features"]} == {"temperature", "level", "colour"}
    assert sum(step["rows"] for step in page["steps"]) == 1800
    is_problem(reader.get(f"/api/v1/bundles/{'0' * 64}"), 404)
    is_problem(reader.get("/api/v1/bundles/short"), 422)


def test_latencies_errors_and_findings_are_sums_over_devices(
    store: SqlStore, packed: Packed, rng: np.random.Generator
) -> None:
    fill(store, packed, rng)
    now, every = now_ms(), []
    for seq in range(20):
        nanoseconds = rng.integers(1_000_000, 64_000_000, 50).tolist()
        every += nanoseconds
        latency = np.bincount(
            [telemetry.latency_bucket(one) for one in nanoseconds],
            minlength=telemetry.LATENCY_BUCKETS,
        )
        made = msgspec.structs.replace(
            record(packed, packed.counts(draw(rng, 50)), device="pi-7", seq=seq),
            latency=telemetry.pack_counts(latency), refused=2, failed=1, errors=(0, 2, 0, 0, 0, 1),
            quality=((5, 1), (9, 0)),
        )  # fmt: skip
        with store.transaction() as tx:
            window = window_of(telemetry.encode(made), now)
            Evidence(Library(), BUDGET).count(tx, tx.add_windows([window]), now)
    with store.reading() as tx:
        known = Library().find(tx, packed.digest)
        assert known is not None
        page = model_views.page(tx, known, now, hours=24)
    assert page.errors == {"missing": 40, "failed": 20}
    assert (page.refused, page.failed) == (40, 20)
    found = {(one.code, one.feature): one.windows for one in page.findings}
    assert found == {("stuck", "temperature"): 20, ("stale-clock", ""): 20}
    for at, told in ((0.5, page.latency.p50_ms), (0.99, page.latency.p99_ms)):
        truth = float(np.quantile(every, at)) / 1e6
        assert told is not None
        assert truth / 1.01 <= told <= truth * 1.43


def test_quality_over_time_is_what_the_command_says_of_the_same_hours(
    client: Client, filled: SqlStore, packed: Packed
) -> None:
    path = f"/api/v1/bundles/{packed.digest}/quality"
    found = client("viewer").get(path, params={"hours": 24}).json()
    (point,) = [one for one in found["points"] if one["rows"]]
    (whole,) = estimating.qualities(filled, now_ms(), period_ms=24 * HOUR)
    by_page = {one["figure"]: one["value"] for one in point["estimates"]}
    assert by_page["accuracy"] == pytest.approx(
        next(e.value for e in whole.estimates if e.figure == "accuracy")
    )
    assert found["calibration"] == whole.calibration
    assert set(found["blind"]) == {"score", "raked", "labels"}
    assert found["why_not"] == ""
    assert len(found["points"]) == 24


def test_the_powers_sentence_says_never_where_it_is_never(packed: Packed) -> None:
    monitor = packed.profile.monitors[0]
    assert promises.finds(monitor, None) == ""
    told = msgspec.structs.replace(monitor, rows_needed=(0.0, 720.0, 30.0))
    power = Power(shifts=(0.1, 0.25, 1.0), log_threshold=16.0, rows_per_hour=60.0)
    assert promises.finds(told, power) == (
        "finds a shift of 0.1 sigma never, of 0.25 sigma in 12 h, of 1 sigma in 30 min"
        " at 60 rows an hour"
    )
    assert promises.false_alarms(Budget(2, 300), 40).startswith("At most 2 false alarms in 30")


def test_these_paths_want_a_viewer(client: Client, packed: Packed) -> None:
    nobody = client("")
    for path in ("", "/drift", "/quality", "/contributors", "/histogram"):
        is_problem(nobody.get(f"/api/v1/bundles/{packed.digest}{path}"), 401)
    is_problem(nobody.get("/api/v1/models"), 401)
