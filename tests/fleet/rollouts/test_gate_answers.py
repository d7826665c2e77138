"""Scores and what they promise, new against old: a device an outcome; a refusal is no pass."""

import math

import msgspec
import numpy as np
import pytest
from fleet_kit import number, score
from scipy import stats

from edge_contract import profile
from edge_contract.profile import Monitor
from edge_fleet.rollouts import otherwise
from edge_fleet.rollouts.otherwise import BLOCK_ROWS, DEVICES_MIN
from edge_fleet.rollouts.tallies import Arms, Grounds, Tally

ALPHA = 0.01
LABELS = ("ok", "worn")


def monitor(rng: np.random.Generator, *, labelled: bool = True) -> Monitor:
    """Of two labels, calibrated by 5,000 rows whose scores are worth what they say."""
    scores = rng.beta(2, 3, 5000)
    made = score((scores >= 0.5).astype(np.int64), scores, 2)
    if not labelled:
        return made
    truth = (rng.random(5000) < scores).astype(int)
    counts = np.zeros((2, 2, len(made.edges) - 1), dtype=np.int64)
    at = np.minimum((scores * (len(made.edges) - 1)).astype(int), len(made.edges) - 2)
    np.add.at(counts, (truth, (scores >= 0.5).astype(int), at), 1)
    return msgspec.structs.replace(made, labelled=tuple(counts.ravel().tolist()))


def devices(
    rng: np.random.Generator, of: Monitor, count: int, kind: tuple[float, float], bundle: str
) -> dict[str, Tally]:
    """Each with scores of its own kind around Beta(*kind)."""
    found = {}
    for i in range(count):
        scores = rng.beta(*(rng.uniform(0.8, 1.2, 2) * kind), BLOCK_ROWS)
        cells = profile.count_scores(of, (scores >= 0.5).astype(np.int64), scores)
        found[f"{bundle}{i}"] = Tally(scores=np.asarray(cells), bundle=bundle)
    return found


def arms(
    rng: np.random.Generator, new: tuple[float, float], count: int = 40, *, labelled: bool = True
) -> Arms:
    of = monitor(rng, labelled=labelled)
    return Arms(
        new=devices(rng, of, count, new, "new"),
        others=devices(rng, of, max(count, 80), (2, 3), "old"),
        grounds=dict.fromkeys(("new", "old"), Grounds(of, LABELS)), bundle="new",
    )  # fmt: skip


def test_scores_that_moved_far_are_found_and_those_of_like_devices_are_not(
    rng: np.random.Generator, seed: int
) -> None:
    for new, moved in (((2, 3), False), ((2.2, 3), False), ((6, 2), True)):
        found = otherwise.shifted(arms(rng, new), 0.2)
        assert (found.log_e >= -math.log(ALPHA)) == moved, (seed, new, found)
        exact = abs(stats.beta.sf(0.5, *new) - stats.beta.sf(0.5, 2, 3))
        assert found.value is not None and found.value >= exact - 0.1, seed


def test_one_odd_device_does_not_move_the_fleet(rng: np.random.Generator, seed: int) -> None:
    made = arms(rng, (2, 3), 12)
    of = made.grounds["new"].monitor
    assert of is not None
    odd = devices(rng, of, 1, (50, 1), "new")
    with_odd = Arms(
        new={**made.new, **odd}, others=made.others, grounds=made.grounds, bundle="new"
    )  # fmt: skip
    assert otherwise.shifted(with_odd, 0.05).log_e < -math.log(ALPHA), seed


def test_a_lower_promised_accuracy_is_found_and_the_same_one_is_not(
    rng: np.random.Generator, seed: int
) -> None:
    """Scores in the middle are worth a half: Beta(30, 30) promises less than Beta(2, 3)."""
    same = otherwise.less_right(arms(rng, (2, 3)), 0.02, ALPHA)
    assert same.log_e < -math.log(ALPHA) and same.cannot == "", seed
    assert same.interval is not None and same.interval[0] <= 0 <= same.interval[1], seed
    worse = otherwise.less_right(arms(rng, (30, 30), 400), 0.02, ALPHA)
    x = np.linspace(0, 1, 20001)[1:-1]
    right = [float(np.trapezoid(np.maximum(x, 1 - x) * stats.beta.pdf(x, *ab), x))
             for ab in ((2, 3), (30, 30))]  # fmt: skip
    assert worse.value == pytest.approx(right[0] - right[1], abs=0.03), seed
    assert worse.interval is not None and worse.interval[0] <= worse.value <= worse.interval[1]
    assert worse.log_e >= -math.log(ALPHA), (seed, worse)


@pytest.mark.parametrize("ask", ["shifted", "less_right"])
def test_what_cannot_be_judged_is_said(ask: str, rng: np.random.Generator) -> None:
    def judge(made: Arms) -> str:
        if ask == "shifted":
            return otherwise.shifted(made, 0.2).cannot
        return otherwise.less_right(made, 0.2, ALPHA).cannot

    few = arms(rng, (6, 2), DEVICES_MIN - 1)
    assert f"{DEVICES_MIN - 1} devices on the version" in judge(few)
    made = arms(rng, (6, 2))
    assert judge(made) == ""
    if ask == "less_right":
        assert "no 200 labelled rows" in judge(arms(rng, (6, 2), labelled=False))
        value = Grounds(number("prediction", rng.normal(size=1000)), ())
        assert "no scores" in judge(Arms(made.new, {}, made.others, {"new": value}, "new"))
        return
    other = {**made.grounds, "old": Grounds(made.grounds["old"].monitor, ("ok", "broken"))}
    assert "other labels" in judge(Arms(made.new, {}, made.others, other, "new"))
    assert "not counted" in judge(Arms(made.new, {}, made.others, {}, "new"))


def test_values_are_compared_place_by_place(rng: np.random.Generator, seed: int) -> None:
    of = msgspec.structs.replace(number("prediction", rng.normal(size=5000)), source="output")
    grounds = dict.fromkeys(("new", "old"), Grounds(of, ()))

    def some(count: int, mean: float, bundle: str) -> dict[str, Tally]:
        return {
            f"{bundle}{i}": Tally(
                scores=np.asarray(profile.count_numbers(of, rng.normal(mean, 1, BLOCK_ROWS))),
                bundle=bundle,
            )
            for i in range(count)
        }

    for mean, moved in ((0.0, False), (2.5, True), (9.0, True)):
        made = Arms(new=some(30, mean, "new"), others=some(60, 0, "old"), grounds=grounds,
                    bundle="new")  # fmt: skip
        found = otherwise.shifted(made, 0.2)
        assert (found.log_e >= -math.log(ALPHA)) == moved, (seed, mean, found)


def test_labels_of_the_same_time_decide_and_what_is_within_the_limit_does_not() -> None:
    assert otherwise.counted_worse((400, 2000), (200, 2000), 0.02, ALPHA).log_e > -math.log(ALPHA)
    assert otherwise.counted_worse((220, 2000), (200, 2000), 0.02, ALPHA).log_e < 0
    assert otherwise.counted_worse((0, 0), (200, 2000), 0.02, ALPHA).value is None
