"""Answers in words carry the model's probability and the one that labels here put right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edge_agent import Model, tap
from edge_agent.calibrating import Calibrating
from edge_agent.doors import plain
from edge_agent.feedback import Feedback
from edge_agent.live import Live
from edge_agent.settings import Calibration as Settings
from edge_contract import bundle as bundles
from edge_contract import messages, telemetry
from edge_contract.errors import InputFault
from edge_contract.manifest import Calibration, decode, encode
from edge_contract.messages import Label
from edge_contract.residuals import Residuals

ROWS = np.random.default_rng(5).normal(size=(60, 4)).tolist()
BOUNDS = Calibration(max_shift=0.15, min_labels=100)


@pytest.fixture
def seats(desk, tiny_bundle, tmp_path: Path):
    """The same model twice: calibrated from labels, and not."""
    made = {}
    calibrating = Calibrating(Settings(), tmp_path / "calibration")
    desk.feedback = Feedback(
        desk.answers, desk.recorder, desk.now, window_s=60, learner=calibrating
    )
    desk.recorder._observer = lambda model, window: tap.tapped(
        model, window, desk.answers, calibrating
    )
    for name, bounds in (("own", BOUNDS), ("plain", None)):
        model = Model.from_bundle(bundles.read(tiny_bundle()))
        model.manifest = replace(model.manifest, calibration=bounds)
        model.digest = {"own": "ab", "plain": "cd"}[name] * 32
        made[name] = Live(name)
        desk.recorder.swap(made[name], model, desk.now())
    return made, calibrating


def give_wrong_labels(desk, seat: Live) -> None:
    """The device's world: what the model calls good is bad there."""
    found = seat.predict(ROWS)
    taken = desk.feedback.give("", [Label(id=each.id, label="bad") for each in found])
    assert taken.counted == len(ROWS)
    again = desk.feedback.give("", [Label(id=found[0].id, label="bad")])
    assert again.repeated == 1  # and is not learnt from twice


def test_labels_change_what_is_said_of_the_score_and_nothing_else(desk, seats) -> None:
    made, calibrating = seats
    before = made["own"].predict(ROWS)
    assert all(each.calibrated is None for each in before)
    give_wrong_labels(desk, made["own"])
    assert made["own"].predict(ROWS[0]).calibrated is None  # 60 labels, 100 are asked for
    give_wrong_labels(desk, made["own"])
    assert calibrating.report("ab" * 32).labels == 120
    moved = 0
    for each, model_says in zip(
        made["own"].predict(ROWS), made["plain"].predict(ROWS), strict=True
    ):
        assert each.label == model_says.label
        assert each.probabilities == model_says.probabilities
        assert model_says.calibrated is None
        assert abs(each.calibrated - each.score) <= 0.15 + 1e-9
        toward = each.calibrated < each.score if each.label == "good" else True
        assert toward
        moved += abs(each.calibrated - each.score) > 0.02
    assert moved > 20


def test_telemetry_counts_the_models_own_scores(desk, seats) -> None:
    made, _ = seats
    for _ in range(2):
        give_wrong_labels(desk, made["own"])
    desk.recorder.flush(desk.now())
    for name in ("own", "plain"):
        made[name].predict(ROWS)
    desk.recorder.flush(desk.now())
    found = [data for _, data in desk.spool.pending()]
    profile = made["own"].model.profile
    last = [
        telemetry.counts_of(telemetry.decode(data), Residuals(profile)).tolist()
        for data in found[-2:]
    ]
    assert last[0] == last[1]


def test_an_answer_as_json_has_both(desk, seats) -> None:
    made, _ = seats
    for _ in range(2):
        give_wrong_labels(desk, made["own"])
    found = made["own"].predict(ROWS[0])
    sent = messages.encode(plain.answer_of("own", "1.0", found))
    read = messages.decode(sent, messages.Answer).predictions[0]
    assert read.calibrated == found.calibrated
    assert read.probabilities == found.probabilities
    assert b"calibrated" not in messages.encode(
        plain.answer_of("plain", "1.0", made["plain"].predict(ROWS[0]))
    )


@pytest.mark.parametrize(
    "bounds", [{"max_shift": 0.0}, {"max_shift": 1.5}, {"max_shift": 0.1, "min_labels": 0}]
)
def test_a_manifest_with_other_bounds_is_no_manifest(tiny_bundle, bounds) -> None:
    manifest = bundles.read(tiny_bundle()).manifest
    assert decode(encode(replace(manifest, calibration=BOUNDS))).calibration == BOUNDS
    with pytest.raises(InputFault, match="bounds out of range"):
        encode(replace(manifest, calibration=Calibration(**bounds)))
