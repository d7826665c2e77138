"""Late labels: no false alarms beyond the promise, a rise is found soon."""

import numpy as np
import pytest

from edge_fleet.quality.betting import BETS, ErrorDetector, rate_to_watch


def labels_until_alarm(
    rng: np.random.Generator,
    rate: float,
    streams: int,
    *,
    threshold: float,
    batch: int,
    labels: int = 1000,
) -> np.ndarray:
    """For each stream the labels at its first alarm; infinity for none."""
    detector = ErrorDetector(0.205)
    state = detector.start(streams)
    found = np.full(streams, np.inf)
    for at in range(batch, labels + 1, batch):
        state = detector.advance(
            state, rng.binomial(batch, rate, streams).astype(float), np.full(streams, float(batch))
        )
        crossed = detector.level(state) >= np.log(threshold)
        found = np.where(crossed & np.isinf(found), at, found)
    return found


@pytest.mark.parametrize("batch", [1, 10])
def test_quiet_streams_alarm_no_oftener_than_promised(seed: int, batch: int) -> None:
    """P(alarm within n batches) <= n / A: of 1,000 streams at most 100, here with A = 10 n."""
    batches = 1000 // batch
    found = labels_until_alarm(
        np.random.default_rng(seed), 0.205, 1000, threshold=10.0 * batches, batch=batch
    )
    assert np.isfinite(found).mean() <= 0.1 + 0.03


def test_a_rise_from_205_to_325_is_found_within_300_labels(seed: int) -> None:
    """At a threshold of a year of daily batches of ten labels, median over 400 streams."""
    found = labels_until_alarm(np.random.default_rng(seed), 0.325, 400, threshold=365.0, batch=10)
    assert np.isfinite(found).mean() > 0.98
    assert np.median(found) <= 300


def test_every_bet_breaks_even_at_the_rate_and_merging_is_addition() -> None:
    detector = ErrorDetector(0.2)
    one = np.exp(detector.log_e(np.array([1.0, 0.0]), np.array([1.0, 1.0])))
    assert 0.2 * one[0] + 0.8 * one[1] == pytest.approx(np.ones(len(BETS)))
    both = detector.log_e(np.array(3.0), np.array(10.0)) + detector.log_e(
        np.array(1.0), np.array(4.0)
    )
    assert both == pytest.approx(detector.log_e(np.array(4.0), np.array(14.0)))


def test_a_batch_without_labels_changes_nothing() -> None:
    detector = ErrorDetector(0.1)
    state = detector.advance(detector.start(2), np.array([3.0, 0.0]), np.array([10.0, 0.0]))
    assert (state[1] == detector.start()[0]).all()
    assert (state[0] != detector.start()[0]).all()


def test_the_rate_to_watch_leaves_room_for_the_references_own_error(seed: int) -> None:
    """A watched rate that is the reference's own count lets quiet streams alarm in the end."""
    rng = np.random.default_rng(seed)
    alarms = {"own count": 0, "bound": 0}
    for _ in range(40):
        wrong = int(rng.binomial(500, 0.2))
        for name, rate in (("own count", wrong / 500), ("bound", rate_to_watch(wrong, 500))):
            detector, state = ErrorDetector(rate), ErrorDetector(rate).start()
            for _ in range(100):
                state = detector.advance(
                    state, rng.binomial(300, 0.2, 1).astype(float), np.full(1, 300.0)
                )
            alarms[name] += int(detector.level(state)[0] >= np.log(1000))
    assert alarms["bound"] <= 3
    assert alarms["own count"] >= 8


def test_a_rate_without_anything_to_bet_on_is_refused() -> None:
    for rate in (0.0, 1.0):
        with pytest.raises(ValueError, match="nothing to bet on"):
            ErrorDetector(rate)
    assert 0 < rate_to_watch(0, 100) < 0.06
    assert rate_to_watch(100, 100) < 1
