"""One-shot tests against scipy, on the same bins, and their levels in simulation."""

import msgspec
import numpy as np
import pytest
from fleet_kit import category, lattice, number
from scipy import integrate, stats
from scipy.spatial import distance

from edge_contract import profile as profiles
from edge_contract.profile import Monitor
from edge_fleet.drift import oneshot, tails
from edge_fleet.drift.discovery import adjusted
from edge_fleet.drift.oneshot import Samples


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def two(rng: np.random.Generator, groups: int = 9) -> Samples:
    """Two samples with ties and different shares; no cell too small to be pooled."""
    p = rng.dirichlet(np.full(groups, 20.0), 2)
    return Samples(
        rng.multinomial(4000, p[0]).astype(float), rng.multinomial(700, p[1]).astype(float)
    )


def lattice_of(samples: Samples) -> tuple[Monitor, np.ndarray]:
    """The same samples as a monitor of whole numbers and a window's counts."""
    groups = len(samples.reference)
    monitor = Monitor(
        name="x", kind="lattice", edges=tuple(map(float, range(groups))),
        counts=(*samples.reference.astype(int).tolist(), 0, 0, 0, 0, 0),
    )  # fmt: skip
    return monitor, np.concatenate([samples.window, np.zeros(5)])


def expanded(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    values = np.arange(len(samples.reference))
    return (
        np.repeat(values, samples.reference.astype(int)),
        np.repeat(values, samples.window.astype(int)),
    )


# -- statistics ------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [-0.5, 0.0, 2 / 3, 1.0])
def test_power_divergence_is_scipys(rng: np.random.Generator, power: float) -> None:
    samples = two(rng)
    table = np.stack([samples.reference, samples.window])
    expected = stats.chi2_contingency(table, correction=False, lambda_=power)
    found = oneshot.power_divergence(samples, power)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-9)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)


@pytest.mark.parametrize(
    ("unknown", "table"),
    [
        # Both samples together expect 9 of the window's rows in the three small cells,
        (50.0, [[900.0, 80.0, 20.0, 3.0], [80.0, 8.0, 60.0, 52.0]]),
        # or 1: then those join the smallest cell that can stand alone.
        (5.0, [[900.0, 80.0, 23.0], [80.0, 8.0, 67.0]]),
    ],
)
def test_cells_that_expect_too_few_rows_are_pooled_and_the_rest_is_scipys(
    unknown: float, table: list[list[float]]
) -> None:
    reference = np.array([2.0, 900.0, 20.0, 80.0, 1.0, 0.0])
    window = np.array([1.0, 80.0, 60.0, 8.0, 1.0, unknown])
    expected = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
    found = oneshot.power_divergence(Samples(reference, window))
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)


def test_kolmogorov_smirnov_is_scipys(rng: np.random.Generator) -> None:
    samples = two(rng)
    monitor, counts = lattice_of(samples)
    found = oneshot.kolmogorov_smirnov(monitor, counts)
    expected = stats.ks_2samp(*expanded(samples), method="asymp").statistic
    assert found.statistic == pytest.approx(expected, abs=1e-12)
    assert found.p == pytest.approx(stats.kstwobign.sf(np.sqrt(samples.rows) * expected), rel=1e-9)


def test_anderson_darling_is_scipys(rng: np.random.Generator) -> None:
    """scipy standardises by the sizes of the samples alone: differences are proportional."""
    ours, theirs = [], []
    for _ in range(4):
        samples = two(rng)
        monitor, counts = lattice_of(samples)
        ours.append(float(oneshot.anderson_darling(monitor, counts).statistic))
        chance = stats.PermutationMethod(n_resamples=1, rng=rng)  # for its p-value, unused here
        found = stats.anderson_ksamp(expanded(samples), variant="midrank", method=chance)
        theirs.append(found.statistic)
    slope = np.diff(ours) / np.diff(theirs)
    assert slope == pytest.approx(np.full(3, slope[0]), rel=1e-6)
    # The mean of the two-sample statistic is 1 (Scholz and Stephens, section 2).
    assert ours[0] - slope[0] * theirs[0] == pytest.approx(1.0, abs=1e-6)


def test_jensen_shannon_psi_and_wasserstein_are_scipys(rng: np.random.Generator) -> None:
    samples = two(rng)
    before, after = samples.shares
    assert oneshot.jensen_shannon(samples) == pytest.approx(
        distance.jensenshannon(before, after, base=2), abs=1e-12
    )
    smoothed = [x + 0.5 for x in (samples.reference, samples.window)]
    both = stats.entropy(*smoothed) + stats.entropy(*smoothed[::-1])
    assert oneshot.population_stability(samples) == pytest.approx(both, abs=1e-12)
    monitor, counts = lattice_of(samples)
    assert oneshot.wasserstein(monitor, counts) == pytest.approx(
        stats.wasserstein_distance(*expanded(samples)), abs=1e-12
    )


def test_wasserstein_of_bins_puts_rows_in_their_middle(rng: np.random.Generator) -> None:
    monitor = number("x", rng.normal(size=2000))
    counts = profiles.count_numbers(monitor, rng.normal(0.3, 1.2, 500))
    samples = oneshot.ordered(monitor, counts)
    edges = np.asarray(monitor.edges)
    middles = (edges[1:] + edges[:-1]) / 2
    expected = stats.wasserstein_distance(middles, middles, samples.reference, samples.window)
    assert oneshot.wasserstein(monitor, counts) == pytest.approx(expected, abs=1e-12)


def test_with_as_many_components_as_cells_neyman_is_chi_square(rng: np.random.Generator) -> None:
    """Five values have four components: together Pearson's statistic on the reference's shares."""
    samples = two(rng, 5)
    monitor, counts = lattice_of(samples)
    smoothed = (samples.reference + 0.5) / (samples.reference + 0.5).sum()
    expected = samples.rows * (samples.difference**2 / smoothed).sum()
    found = oneshot.neyman(monitor, counts)
    assert found.statistic == pytest.approx(expected, rel=1e-9)
    assert found.p == pytest.approx(stats.chi2.sf(expected, 4), rel=1e-9)


def test_the_effect_of_a_shift_is_its_size_in_sigmas(rng: np.random.Generator) -> None:
    monitor = number("x", rng.normal(size=50_000))
    counts = profiles.count_numbers(monitor, rng.normal(0.25, 1.0, 200_000))
    assert oneshot.neyman(monitor, counts).effect == pytest.approx(0.25, abs=0.04)


# -- tails -----------------------------------------------------------------------------------


def test_the_noncentral_tail_is_scipys_even_far_out() -> None:
    for degrees, moved in ((4, 1.0), (4, 100.0), (1, 9.0), (31, 1e4), (4, 1e7)):
        x = stats.ncx2.isf([0.9, 0.5, 0.05, 1e-3, 1e-9, 1e-12], degrees, moved)
        expected = stats.norm.sf(stats.norm.isf([0.9, 0.5, 0.05, 1e-3, 1e-9, 1e-12]))
        assert tails.chi_square(x, degrees, moved) == pytest.approx(expected, rel=0.05)


def test_the_weighted_tail_is_the_integral_of_imhof() -> None:
    """Imhof, Biometrika 48, 1961; his integral loses its digits far out, ours does not."""
    for weights in ([0.5, 1 / 6, 1 / 12, 0.05], [1.0, 1.0, 1.0], [0.3], [2.0, 0.01]):
        some = np.array(weights)
        for x in some.sum() * np.array([0.3, 0.99, 1.0, 1.01, 2.0, 5.0, 9.0]):

            def term(u: float, some: np.ndarray = some, x: float = x) -> float:
                angle = 0.5 * (np.arctan(some * u).sum() - x * u)
                return np.sin(angle) / (u * np.prod((1 + (some * u) ** 2) ** 0.25))

            area = sum(
                integrate.quad(term, low, low + 5, limit=400)[0] for low in np.arange(1e-9, 4e3, 5)
            ) if len(weights) > 1 else None  # fmt: skip
            expected = stats.chi2.sf(x / some[0], 1) if area is None else 0.5 + area / np.pi
            found = float(tails.weighted_chi_squares(np.array([x]), some)[0])
            assert found == pytest.approx(expected, rel=0.09, abs=2e-3), (weights, x)


def test_on_many_cells_anderson_darling_has_its_published_critical_values() -> None:
    """2.492 and 3.857 are the 5 % and 1 % points (Stephens, JASA 69, 1974, case 0)."""
    weights = 1.0 / (np.arange(1, 400) * np.arange(2, 401))
    p = tails.weighted_chi_squares(np.array([1.933, 2.492, 3.857]), weights)
    assert p == pytest.approx([0.10, 0.05, 0.01], rel=0.08)
    monitor = lattice("x", np.repeat(np.arange(400.0), 20))
    found = oneshot._darling_eigenvalues(np.full(400, 1 / 400))
    assert sorted(found)[-5:] == pytest.approx(weights[:5][::-1], rel=0.03)
    assert monitor.regular == 400


def test_a_rare_share_is_judged_by_an_exact_binomial(rng: np.random.Generator) -> None:
    monitor = category("c", ["a"] * 990 + ["b"] * 10)
    counts = np.array([97, 3, 0, 0, 0])
    found = oneshot.share_above(monitor, counts, np.array([1]))
    assert found.p == pytest.approx(
        stats.binomtest(3, 13, 100 / 1100, alternative="greater").pvalue
    )
    assert found.effect == pytest.approx(0.02)


# -- levels ----------------------------------------------------------------------------------


TESTS = {
    "neyman": lambda monitor, counts: oneshot.neyman(monitor, counts).p,
    "minimum effect": lambda monitor, counts: oneshot.neyman(
        monitor, counts, minimum_effect=0.1
    ).p,
    "anderson-darling": lambda monitor, counts: oneshot.anderson_darling(monitor, counts).p,
    "kolmogorov-smirnov": lambda monitor, counts: oneshot.kolmogorov_smirnov(monitor, counts).p,
    "g": lambda monitor, counts: oneshot.power_divergence(oneshot.ordered(monitor, counts)).p,
    "pearson": lambda monitor, counts: oneshot.power_divergence(
        oneshot.ordered(monitor, counts), oneshot.PEARSON
    ).p,
    "cressie-read": lambda monitor, counts: oneshot.power_divergence(
        oneshot.ordered(monitor, counts), oneshot.CRESSIE_READ
    ).p,
}  # fmt: skip
SMALLEST = {"minimum effect": 0.0, "kolmogorov-smirnov": 0.0}
"""The rest reaches its level; these two may stay below it, as their docstrings say."""


def quiet(rng: np.random.Generator, n: int, times: int, distinct: int = 0) -> tuple[list, list]:
    """Fresh references and windows of one distribution."""
    pairs: tuple[list[Monitor], list[np.ndarray]] = ([], [])
    for _ in range(times):
        make = lattice if distinct else number
        draw = (lambda k: rng.integers(0, distinct, k).astype(float)) if distinct else rng.normal
        monitor = make("x", draw(size=2000) if not distinct else draw(2000))
        pairs[0].append(monitor)
        values = draw(n) if distinct else rng.normal(size=n)
        pairs[1].append(profiles.count_numbers(monitor, values))
    return pairs


@pytest.mark.parametrize("distinct", [0, 6])
@pytest.mark.parametrize("rows", [60, 1000])
def test_every_test_keeps_its_level_when_nothing_changed(
    rng: np.random.Generator, rows: int, distinct: int
) -> None:
    """5 % of 800 quiet windows: between 2.2 % and 8.2 % at five standard errors and a little."""
    monitors, windows = quiet(rng, rows, 800, distinct)
    for name, test in TESTS.items():
        p = np.array([test(m, w) for m, w in zip(monitors, windows, strict=True)])
        level = (p < 0.05).mean()
        assert SMALLEST.get(name, 0.015) <= level <= 0.095, (name, level)


def test_rows_that_repeat_each_other_need_the_design_effect(rng: np.random.Generator) -> None:
    """Every row eight times: without the effect everything alarms, with it the level holds."""
    found = {1.0: 0, 8.0: 0}
    for _ in range(200):
        monitor = number("x", np.repeat(rng.normal(size=1000), 8))
        counts = 8 * profiles.count_numbers(monitor, rng.normal(size=200))
        for effect in found:
            tempered = msgspec.structs.replace(monitor, design_effect=effect)
            found[effect] += int(oneshot.neyman(tempered, counts).p < 0.05)
    assert found[1.0] > 150
    assert found[8.0] <= 30


def test_a_shift_too_small_to_matter_is_found_only_without_a_minimum_effect(
    rng: np.random.Generator,
) -> None:
    monitor = number("x", rng.normal(size=200_000))
    counts = np.stack(
        [profiles.count_numbers(monitor, rng.normal(0.03, 1.0, 10_000)) for _ in range(50)]
    )
    assert (oneshot.neyman(monitor, counts).p < 0.05).mean() > 0.3
    assert (oneshot.neyman(monitor, counts, minimum_effect=0.1).p < 0.05).mean() == 0
    large = np.stack(
        [profiles.count_numbers(monitor, rng.normal(0.25, 1.0, 10_000)) for _ in range(50)]
    )
    assert (oneshot.neyman(monitor, large, minimum_effect=0.1).p < 1e-6).all()


# -- shapes and awkward input ----------------------------------------------------------------


@pytest.mark.parametrize("name", TESTS)
def test_many_devices_at_once_are_each_device_alone(rng: np.random.Generator, name: str) -> None:
    monitor = number("x", rng.normal(size=2000))
    counts = np.stack(
        [profiles.count_numbers(monitor, rng.normal(0.1, 1, n)) for n in (0, 1, 60, 5000)]
    ).reshape(2, 2, -1)
    together = TESTS[name](monitor, counts)
    assert together.shape == (2, 2)
    for at in np.ndindex(2, 2):
        assert together[at] == pytest.approx(float(TESTS[name](monitor, counts[at])))
    assert together[0, 0] == 1.0  # no rows, no finding


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize("n", [1, 2**31, 2**52])
def test_one_row_or_billions_in_one_cell_give_a_probability(name: str, n: int) -> None:
    for values in (np.ones(100), np.arange(100.0) % 3, np.zeros(0)):
        monitor = lattice("x", values) if len(values) else lattice("x", np.ones(1))
        counts = np.zeros(monitor.cells)
        counts[0] = n
        p = float(TESTS[name](monitor, counts))
        assert 0.0 <= p <= 1.0


def test_distances_are_zero_without_a_change_and_without_rows() -> None:
    samples = Samples(np.array([10.0, 30.0]), np.array([[1.0, 3.0], [0.0, 0.0]]))
    assert oneshot.jensen_shannon(samples) == pytest.approx([0, 0], abs=1e-7)
    assert oneshot.population_stability(samples)[1] == 0
    apart = Samples(np.array([10.0, 0.0]), np.array([0.0, 3.0]))
    assert oneshot.jensen_shannon(apart) == pytest.approx(1.0)


# -- findings --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bh", "by"])
def test_false_discovery_rates_are_scipys(rng: np.random.Generator, method: str) -> None:
    p = rng.beta(0.5, 2.0, (7, 13))
    p[0, :3] = 0.0
    assert adjusted(p, method) == pytest.approx(
        stats.false_discovery_control(p, axis=None, method=method).reshape(p.shape)
    )
    assert adjusted(np.zeros(0), method).shape == (0,)


def test_the_share_of_false_findings_stays_below_the_stated_one(rng: np.random.Generator) -> None:
    shares = []
    for _ in range(300):
        z = rng.normal(size=200)
        z[:20] += 3.0
        found = adjusted(stats.norm.sf(z)) <= 0.1
        shares.append(found[20:].sum() / max(found.sum(), 1))
    assert np.mean(shares) <= 0.12
    assert np.mean(shares) >= 0.05
