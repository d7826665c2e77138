"""A regression's error from late labels: right to a few per cent, and grounds of a trigger."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fleet_kit import FLEET, Packed, number, record

from edge_contract import aside, broker_url, bundle, profile, telemetry, trigger
from edge_contract import manifest as manifests
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.telemetry import pack_counts
from edge_contract.topics import Topics
from edge_fleet import estimating
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.quality import values
from edge_fleet.store.base import AsideKind, AsideSeen
from edge_fleet.store.sql import SqlStore
from edge_fleet.triggers import facts
from edge_fleet.triggers import settings as trigger_settings
from edge_fleet.triggers.delivery import Place
from edge_fleet.triggers.runner import TriggerRun
from edge_fleet.windows import window_of

NOW_MS = 1_700_000_600_000
DRAWS = {
    "normal": lambda rng, n: rng.normal(0, 1, n),
    "laplace": lambda rng, n: rng.laplace(0, 3, n),
    "uniform": lambda rng, n: rng.uniform(-0.01, 0.01, n),
    "student": lambda rng, n: rng.standard_t(4, n),
    "biased": lambda rng, n: rng.normal(1.5, 1, n),
}


def counted(errors: np.ndarray, unit: float = 1.0) -> np.ndarray:
    """``[2, buckets]`` as devices count them."""
    counts = np.zeros((2, aside.DIFFERENCE_BUCKETS), dtype=np.int64)
    for error in errors.tolist():
        counts[int(error >= 0), aside.difference_bucket(abs(error) / unit)] += 1
    return counts


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("unit", [1.0, 0.37, 150.0])
def test_buckets_give_the_mean_absolute_error(kind: str, unit: float, seed: int) -> None:
    errors = DRAWS[kind](np.random.default_rng(seed), 20_000)
    [found] = values.estimate(counted(errors, unit), unit)
    real = np.abs(errors).mean()
    print(f"{kind}: {found.value} of {real}")
    assert found.value == pytest.approx(real, rel=0.05 if kind == "uniform" else 0.02)
    assert found.low < real < found.high
    first, second = values.moments(counted(errors, unit).sum(axis=0))
    square = counted(errors, unit).sum(axis=0) @ second / len(errors) * unit**2
    assert square == pytest.approx(np.mean(errors**2), rel=0.2)
    assert (first > 0).all()


def test_its_interval_holds_at_every_look(seed: int) -> None:
    """Looked at after every 25 of 1,500 labels: the true error is ever outside in few runs."""
    rng = np.random.default_rng(seed)
    real, outside = np.sqrt(2 / np.pi), 0
    for _ in range(60):
        errors = np.abs(rng.normal(size=1_500))
        # As ``aside.difference_bucket``, of many at once.
        bucket = np.frexp(errors)[1] + aside.difference_bucket(1.0) - 1
        for rows in range(100, 1_501, 25):
            by_size = np.bincount(bucket[:rows], minlength=aside.DIFFERENCE_BUCKETS)
            [found] = values.estimate(np.stack([by_size, 0 * by_size]), 1.0)
            if not found.low <= real <= found.high:
                outside += 1
                break
    assert outside <= 8, "5 % of 60 are 3"


def test_what_cannot_be_said_is_refused() -> None:
    few = counted(np.ones(99))
    assert values.estimate(few, 1.0)[0].refused == "99 labels came, at least 100 are needed"
    wide = counted(np.concatenate([np.ones(500), [1e9]]))
    [refused] = values.estimate(wide, 1.0)
    assert refused.value is None and refused.refused.startswith("1 errors are larger than any")
    [same] = values.estimate(counted(np.full(500, 3.0)), 1.0)
    assert same.low < 3.0 < same.high, "one bucket alone"


# -- a model of values in a store, and a trigger on it ---------------------------------------


@pytest.fixture(scope="module")
def meter(packed: Packed) -> Packed:
    """A model of values whose mean absolute error was 0.8 at build time (0.75 to 0.85)."""
    rng = np.random.default_rng(5)
    output = msgspec.structs.replace(
        number("prediction", rng.normal(50, 2.5, 5_000)), source="output"
    )
    made = profile.Profile(rows=5_000, monitors=(number("x", rng.normal(size=5_000)), output))
    entry, stored = bundle.encode_member(manifests.PROFILE_FILE, profile.encode(made))
    was = manifests.decode(packed.manifest_bytes)
    manifest = msgspec.structs.replace(
        was, task="regression", files=(was.files[0], entry),
        outputs=manifests.Outputs(tensors=("value",), value="value"),
        metrics=(manifests.Metric(name="mae", original=0.8, bundle=0.8, low=0.75, high=0.85),),
    )  # fmt: skip
    return Packed(made, manifests.encode(manifest), stored, {})


def answered(store: SqlStore, meter: Packed, errors: np.ndarray, *, unit: float = 0.0) -> None:
    """500 rows, and labels with these errors."""
    store.claim(FLEET)
    store.put_settings({"window_s": "300"})
    entry = manifests.decode(meter.manifest_bytes).file(manifests.PROFILE_FILE)
    rng = np.random.default_rng(6)
    counts = np.concatenate([
        profile.count_numbers(meter.profile.monitors[0], rng.normal(size=500)),
        profile.count_numbers(meter.profile.monitors[1], rng.normal(50, 2.5, 500)),
    ])  # fmt: skip
    own = aside.unit_of(meter.profile)
    made = aside.Labelled(
        device="pi-1", boot=1, seq=2, model="boiler", version="1.0",
        bundle=bytes.fromhex(meter.digest), start_ms=NOW_MS, end_ms=NOW_MS, synchronised=True,
        kind="value", labels=2, bins=aside.DIFFERENCE_BUCKETS, unit=unit or own,
        counts=pack_counts(counted(errors, unit or own).reshape(-1)),
    )  # fmt: skip
    at_ms = NOW_MS - 200_000
    with store.transaction() as tx:
        tx.put_blob(meter.digest, meter.manifest_bytes, 1)
        tx.put_blob(entry.sha256, meter.stored, 1)
        fresh = tx.add_windows([window_of(telemetry.encode(record(meter, counts)), at_ms)])
        Evidence(Library(), Budget()).count(tx, fresh, at_ms)
        tx.add_asides(
            [AsideSeen("pi-1", 1, 2, AsideKind.LABELLED, meter.digest, at_ms, aside.encode(made))]
        )


def case_of(store: SqlStore, when: str) -> facts.Case:
    text = f"[triggers.t]\nwhen = {{ alarms = 0, {when} }}\ncommand = {{ run = ['cat'] }}"
    rule = trigger_settings.read(text.encode()).triggers["t"]
    [case] = facts.cases(store, "t", rule, FLEET, NOW_MS)
    return case


def test_errors_that_grew_fire_a_trigger_and_are_in_its_evidence(
    any_store: SqlStore, meter: Packed, rng: np.random.Generator, tmp_path: Path
) -> None:
    errors = rng.normal(0, 2.0, 2_000)
    answered(any_store, meter, errors)
    case = case_of(any_store, "growth = 0.5")
    print(case.verdict.said)
    assert case.verdict.fires and "mean absolute error grown by labels: " in case.verdict.said[0]
    assert case.firing is not None
    found = trigger.decode(case.firing.evidence)
    assert (found.built_mae, found.built_mae_low, found.built_mae_high) == (0.8, 0.75, 0.85)
    [figure] = [each for each in found.quality if each.figure == "mae"]
    assert figure.value == pytest.approx(np.abs(errors).mean(), rel=0.03) and figure.blind
    assert not case_of(any_store, "growth = 1.5").verdict.fires, "they doubled"
    other = case_of(any_store, "loss = 0.03")
    assert other.verdict.said == ("no estimate of accuracy by labels or score",)
    link = LinkConfig(broker_url.parse("mqtt://127.0.0.1:1"), client_id="")
    place = Place(tmp_path, link, Topics(FLEET), lambda: NOW_MS, threading.Event())
    text = "[triggers.t]\nwhen = { alarms = 0, growth = 0.5 }\n"
    text += "command.run = ['sh', '-c', 'cat > said.json']"
    [done] = TriggerRun(
        "t", trigger_settings.read(text.encode()).triggers["t"], any_store, place, lambda: 1.0
    ).step()
    assert done.state == "done", done.detail
    assert trigger.decode((tmp_path / "said.json").read_bytes()).built_mae == 0.8


def test_errors_of_before_do_not(store: SqlStore, meter: Packed, rng: np.random.Generator) -> None:
    answered(store, meter, rng.normal(0, 1.0, 2_000))
    case = case_of(store, "growth = 0.05")
    assert not case.verdict.fires
    assert "mean absolute error grown by labels: " in case.verdict.said[0]
    [found] = estimating.qualities(store, NOW_MS, period_ms=86_400_000)
    assert (found.rows, found.labelled) == (500, 2_000)


def test_a_device_that_counts_in_another_unit_is_left_out(
    store: SqlStore, meter: Packed, rng: np.random.Generator
) -> None:
    answered(store, meter, rng.normal(0, 9.0, 2_000), unit=7.0)
    case = case_of(store, "growth = 0.05")
    assert case.verdict.said == ("no estimate of errors by labels or score",)


def test_a_build_that_stated_no_error_is_held_to_none(
    store: SqlStore, meter: Packed, rng: np.random.Generator
) -> None:
    bare = manifests.encode(
        msgspec.structs.replace(manifests.decode(meter.manifest_bytes), metrics=())
    )
    answered(store, replace(meter, manifest_bytes=bare), rng.normal(0, 9.0, 2_000))
    assert not case_of(store, "growth = 0.05").verdict.fires
