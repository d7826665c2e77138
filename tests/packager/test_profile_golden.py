"""One profile, written down: what a build makes of these rows must not change unseen.

Made anew by ``python tests/packager/test_profile_golden.py`` where it changes on purpose.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_contract import profile as profiles
from edge_contract.manifest import Feature, Outputs, Tensor
from edge_contract.profile import Profile
from edge_pack import power
from edge_pack.answers import Answers
from edge_pack.intake import Rows
from edge_pack.profile_build import Order, build

GOLDEN = Path(__file__).parent / "profile_golden.json"
ROWS = 24 * 14


def made() -> Profile:
    """Two weeks of an hourly reading with a cycle, one that follows it, a step, a site, a frame."""
    rng = np.random.default_rng(27)
    hours = np.arange(ROWS)
    warm = np.round(20 + 3 * np.sin(2 * np.pi * hours / 24) + rng.normal(size=ROWS), 2)
    columns = {
        "warm": warm,
        "near": np.round(warm / 2 + 0.2 * rng.normal(size=ROWS), 2),
        "step": (hours % 5).astype(np.float64),
        "site": np.array(["lyon", "graz"], dtype=object)[rng.integers(0, 2, ROWS)],
    }
    columns["near"][::50] = np.nan
    scores = np.round(rng.random(ROWS), 3)
    answers = Answers(
        labels=(scores >= 0.4).astype(np.int64), scores=np.stack([1 - scores, scores], axis=1)
    )
    frames = rng.integers(0, 255, size=(ROWS, 2, 3)).astype(np.uint8)
    features = [Feature(name=name) for name in ("warm", "near", "step")]
    features.append(Feature(name="site", type="category", categories=("graz", "lyon")))
    found = build(
        features,
        Rows(ROWS, columns, {"frame": frames}),
        answers,
        answers,
        task="classification",
        outputs=Outputs(tensors=("p",), scores="p", labels=("off", "on"), threshold=0.4),
        order=Order(np.arange(ROWS), 1_735_689_600.0 + 3600.0 * hours),
        truth=(rng.random(ROWS) < scores).astype(np.float64),
        tensors=[Tensor(name="frame", dtype="uint8", shape=(None, 2, 3))],
    )
    return power.reckoned(found, 60.0)


def test_the_profile_is_the_one_that_was_written_down() -> None:
    golden, now = profiles.decode(GOLDEN.read_bytes()), made()
    for before, after in zip(golden.monitors, now.monitors, strict=True):
        assert before == after
    assert golden == now
    assert profiles.encode(now) == GOLDEN.read_bytes()


def test_it_shows_all_that_a_profile_can_hold() -> None:
    profile = made()
    by_name = {(monitor.source, monitor.name): monitor for monitor in profile.monitors}
    assert {source for source, _ in by_name} == {"feature", "output", "tensor", "projection"}
    warm = by_name["feature", "warm"]
    assert len(warm.hours) == 24 and warm.weekdays == () and warm.design_effect > 1
    assert 3 < max(warm.hours) - min(warm.hours) < 9
    assert by_name["feature", "near"].missing_rate > 0
    assert by_name["feature", "step"].longest_run == 1
    output = by_name["output", "prediction"]
    assert 0.4 in output.edges and output.labelled_counts().sum() == ROWS
    assert output.regular == 64 and len(output.rows_needed) == 3


if __name__ == "__main__":
    GOLDEN.write_bytes(profiles.encode(made()))
