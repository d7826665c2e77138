"""The e-detector keeps its promise on quiet streams and finds what it should, against scipy."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from fleet_kit import Packed, category, draw, lattice, number, pack, score
from scipy import special, stats

from edge_contract import profile as profiles
from edge_contract.profile import Monitor, Profile
from edge_contract.projection import Projector
from edge_fleet.drift import edetector
from edge_fleet.drift.budget import Budget
from edge_fleet.drift.components import (
    components_of,
    group_probabilities,
    groups_of,
    polynomials,
)
from edge_fleet.drift.discovery import e_adjusted
from edge_fleet.drift.edetector import DriftTable, advance, change_point, monitor_table, tolerance
from edge_fleet.drift.explain import (
    CellChange,
    decode,
    encode,
    explain,
    family,
    median_of,
    sparkline,
    telling_entry,
)
from edge_pack import directions

RNG = np.random.default_rng(7)
MONITORS = {
    "quantile": number("x", RNG.normal(size=20_000)),
    "skewed": number("x", RNG.exponential(size=5_000)),
    "small": number("x", RNG.normal(size=200)),
    "autocorrelated": number("x", RNG.normal(size=20_000), design_effect=8.0),
    "lattice": lattice("x", RNG.integers(0, 12, 20_000).astype(float)),
    "binary": lattice("x", (RNG.random(20_000) < 0.02).astype(float)),
    "constant": lattice("x", np.ones(1000)),
    "category": category("x", [str(c) for c in RNG.choice(list("abcdef"), 20_000)]),
    "one category": category("x", ["only"] * 1000),
    "score": score(RNG.integers(0, 3, 20_000), RNG.random(20_000), 3),
    "sure score": score(np.zeros(20_000, np.int64), np.full(20_000, 0.99), 2),
}


@pytest.fixture(params=MONITORS)
def monitor(request: pytest.FixtureRequest) -> Monitor:
    """One monitor of each kind, and the awkward ones."""
    return MONITORS[request.param]


def profile_of(*monitors: Monitor) -> Profile:
    named = [msgspec.structs.replace(m, name=f"m{i}") for i, m in enumerate(monitors)]
    return Profile(rows=sum(monitors[0].counts), monitors=tuple(named))


def reference(monitor: Monitor) -> np.ndarray:
    return np.asarray(monitor.counts, dtype=float) / sum(monitor.counts)


# -- components ----------------------------------------------------------------------------


def test_components_are_orthonormal_under_the_smoothed_reference(monitor: Monitor) -> None:
    probabilities = group_probabilities(monitor)
    groups = groups_of(monitor)
    by_group = []
    for component in components_of(monitor):
        if component.degree:
            by_group.append([component.values[groups == g][0] for g in range(len(probabilities))])
        else:
            inside = component.values > 0
            p = np.where(inside, component.share, 1 - component.share) / np.where(
                inside, inside.sum(), (~inside).sum()
            )
            assert p @ component.values == pytest.approx(0, abs=1e-9)
            assert p @ component.values**2 == pytest.approx(1)
    if by_group:
        phi = np.array(by_group)
        assert phi @ probabilities == pytest.approx(np.zeros(len(phi)), abs=1e-9)
        assert (phi * probabilities) @ phi.T == pytest.approx(np.eye(len(phi)), abs=1e-6)


def test_on_many_equal_cells_the_components_are_legendre_polynomials() -> None:
    cells = 2000
    values = polynomials(np.full(cells, 1 / cells), 4)
    u = 2 * (np.arange(cells) + 0.5) / cells - 1
    for k in range(1, 5):
        expected = special.eval_legendre(k, u) * np.sqrt(2 * k + 1)
        assert values[:, k - 1] == pytest.approx(expected, abs=2e-4)


def test_all_components_together_are_pearsons_chi_square(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(6, 5.0))
    counts = rng.multinomial(500, p)
    scores = counts @ polynomials(p, 5) / np.sqrt(500)
    assert (scores**2).sum() == pytest.approx(stats.chisquare(counts, 500 * p).statistic)


def test_a_value_out_of_range_ranks_with_the_outermost_cell() -> None:
    mean = components_of(MONITORS["quantile"])[0]
    assert mean.name == "mean"
    assert mean.values[32] == mean.values[0] < 0  # under
    assert mean.values[33] == mean.values[31] > 0  # over


# -- bets ----------------------------------------------------------------------------------


def test_every_bet_loses_on_the_reference_and_breaks_even_at_its_tolerance(
    monitor: Monitor,
) -> None:
    """E[e] = 1 - lambda eps under the reference, 1 where the component moved by eps."""
    untempered = msgspec.structs.replace(monitor, design_effect=1.0)
    table = monitor_table(untempered)
    eps = tolerance(untempered)
    for at, entry in enumerate(table.entries):
        component = table.components[entry.component]
        e = np.exp(table.log_e[:, at])
        margin = edetector.component_tolerance(component, eps)
        gain = entry.sign * component.values - margin
        assert entry.lambda_ > 0
        assert e[component.active] == pytest.approx(1 + entry.lambda_ * gain[component.active])
        assert (e[component.active] > 0).all()
        assert e[~component.active] == pytest.approx(1.0)
        assert np.sum(reference(monitor)[component.active] * (e[component.active] - 1)) < 0


def test_a_tolerance_is_mandatory() -> None:
    """Below 4 / sqrt(reference rows) no caller can set it; more is allowed."""
    assert tolerance(MONITORS["quantile"]) == 0.05
    assert tolerance(MONITORS["quantile"], 0.0) == pytest.approx(4 / np.sqrt(20_000))
    assert tolerance(MONITORS["small"], 0.0) == pytest.approx(4 / np.sqrt(200))
    assert tolerance(MONITORS["autocorrelated"], 0.0) == pytest.approx(4 / np.sqrt(20_000 / 8))
    assert tolerance(MONITORS["quantile"], 0.2) == 0.2


def test_without_tolerance_the_references_own_error_is_found(seed: int) -> None:
    """Why it is mandatory: the reference is a sample, and a test for ever sees that."""
    rng = np.random.default_rng(seed)
    false = {"none": 0, "ours": 0}
    for _ in range(20):
        monitor = number("x", rng.normal(size=500))
        counts = profiles.count_numbers(monitor, rng.normal(size=400_000))
        tables = {"none": monitor_table(monitor, 0.0), "ours": monitor_table(monitor)}
        for name, table in tables.items():
            mean = [e.component == 0 for e in table.entries]
            false[name] += bool((counts @ table.log_e[:, mean]).max() > 16)
    print(false)
    assert false["none"] >= 8
    assert false["ours"] == 0


def test_evidence_is_linear_in_the_counts(rng: np.random.Generator) -> None:
    """Windows and devices merge by addition; the order of rows in a window is no matter."""
    packed = pack(rng)
    table = DriftTable(packed.profile)
    one, two = (packed.counts(draw(rng, 200)) for _ in range(2))
    apart = table.log_e(np.stack([one, two]))
    together = table.log_e((one + two)[None])
    assert together[0] == pytest.approx(apart.sum(axis=0))
    rows = draw(rng, 300)
    counts = packed.counts(rows)
    order = rng.permutation(300)
    rows.temperature, rows.level = rows.temperature[order], rows.level[order]
    rows.colour, rows.score = [rows.colour[i] for i in order], rows.score[order]
    assert (packed.counts(rows) == counts).all()


def test_stacked_monitors_give_what_each_gives_alone(rng: np.random.Generator) -> None:
    whole = profile_of(*(m for m in MONITORS.values() if sum(m.counts) == 20_000))
    table = DriftTable(whole)
    counts = rng.integers(0, 9, (5, whole.cells))
    stacked = table.log_e(counts)
    levels = table.levels(advance(table.start(5), stacked))
    for at, (monitor, offset) in enumerate(zip(whole.monitors, whole.offsets(), strict=True)):
        alone = DriftTable(Profile(rows=whole.rows, monitors=(monitor,)))
        log_e = alone.log_e(counts[:, offset : offset + monitor.cells])
        own = slice(table.starts[at], table.starts[at] + table.sizes[at])
        assert stacked[:, own] == pytest.approx(log_e)
        state = advance(alone.start(5), log_e)
        assert levels[:, at] == pytest.approx(alone.levels(state)[:, 0], abs=1e-5)


def test_a_profile_without_monitors_gives_no_evidence() -> None:
    table = DriftTable(Profile(rows=0, monitors=()))
    state = advance(table.start(3), table.log_e(np.zeros((3, 0), dtype=np.int64)))
    assert table.levels(state).shape == (3, 0)


def test_the_recursion_is_shiryaev_roberts(rng: np.random.Generator) -> None:
    log_e = rng.normal(-0.05, 0.3, 50)
    state = np.full(1, edetector.NO_EVIDENCE, dtype=np.float32)
    m = 0.0
    for step in log_e:
        state = advance(state, np.array([step]))
        m = (m + 1) * np.exp(step)
        assert np.exp(state[0]) == pytest.approx(m, rel=1e-4)


def test_evidence_stays_finite_whatever_a_device_claims() -> None:
    packed = pack(np.random.default_rng(1))
    table = DriftTable(packed.profile)
    counts = np.zeros((2, packed.profile.cells), dtype=np.int64)
    for start, monitor in zip(packed.profile.offsets(), packed.profile.monitors, strict=True):
        counts[0, start] = 2**36
        counts[1, start + monitor.cells - 1] = 2**53
    state = advance(table.start(2), table.log_e(counts))
    assert np.isfinite(state).all()
    assert np.isfinite(table.levels(state)).all()


# -- the promise ---------------------------------------------------------------------------


def windows_until_alarm(
    monitor: Monitor, p: np.ndarray, rows: int, log_threshold: float, *,
    streams: int, windows: int, rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """For each stream the first window over the threshold; 0 for none."""
    table = DriftTable(Profile(rows=sum(monitor.counts), monitors=(monitor,)))
    state = table.start(streams)
    first = np.zeros(streams, dtype=np.int64)
    for window in range(1, windows + 1):
        counts = rng.multinomial(rows, p, size=streams)
        state = advance(state, table.log_e(counts))
        over = (table.levels(state)[:, 0] >= log_threshold) & (first == 0)
        first[over] = window
    return first


@pytest.mark.slow
def test_quiet_streams_keep_the_promise(rng: np.random.Generator) -> None:
    """200 devices x 20 monitors, 720 hourly windows of 60 rows: a fleet-month.

    Each monitor's reference is a sample of its own, as it is in life.
    """
    promised = 20.0
    log_threshold = Budget(promised, 3600).log_threshold(200 * 20)
    alarms = 0
    for _ in range(20):
        values = rng.normal(size=20_000)
        monitor = number("x", values)
        cut = np.concatenate([[-np.inf], monitor.edges[1:-1], [np.inf]])
        p = np.zeros(monitor.cells)
        p[:32] = np.diff(stats.norm.cdf(cut))
        p[32], p[33] = stats.norm.cdf(monitor.edges[0]), stats.norm.sf(monitor.edges[-1])
        p[0] -= p[32]
        p[31] -= p[33]
        first = windows_until_alarm(
            monitor, p, 60, log_threshold, streams=200, windows=720, rng=rng
        )
        alarms += int((first > 0).sum())
    print(f"{alarms} false alarms, {promised:g} promised")
    assert alarms <= promised + 3 * np.sqrt(promised)


@pytest.mark.parametrize("kind", ["lattice", "binary", "category", "score", "small", "skewed"])
def test_quiet_streams_of_each_kind_keep_the_promise(kind: str, rng: np.random.Generator) -> None:
    monitor = MONITORS[kind]
    promised = 5.0
    streams, windows = 300, 150
    log_threshold = np.log(streams * windows / promised)
    first = windows_until_alarm(
        monitor, reference(monitor), 60, log_threshold, streams=streams, windows=windows, rng=rng
    )
    print(f"{(first > 0).sum()} false alarms, {promised:g} promised")
    assert (first > 0).sum() <= promised + 3 * np.sqrt(promised)


def test_at_the_edge_of_the_tolerance_the_promise_still_holds(rng: np.random.Generator) -> None:
    """The worst case of the null hypothesis: E[e] is 1, and alarms come as often as allowed."""
    monitor = MONITORS["lattice"]
    mean = components_of(monitor)[0]
    p = reference(monitor) * (1 + 0.05 * mean.values * mean.active)
    p /= p.sum()
    first = windows_until_alarm(
        monitor, p, 60, np.log(300 * 150 / 5.0), streams=300, windows=150, rng=rng
    )
    assert (first > 0).sum() <= 5 + 3 * np.sqrt(5)


def test_tempering_saves_autocorrelated_streams(rng: np.random.Generator) -> None:
    """AR(1) with rho = .9 and no drift: the iid test cries wolf, the tempered one does not."""
    rho, streams, windows, rows = 0.9, 200, 60, 60  # (1 + rho) / (1 - rho) = 19
    values = rng.normal(size=20_000)
    alarms = {}
    for effect in (1.0, 19.0):
        monitor = number("x", values, design_effect=effect)
        table = DriftTable(Profile(rows=20_000, monitors=(monitor,)))
        state, over = table.start(streams), np.zeros(streams, dtype=bool)
        x = rng.normal(size=streams)
        for _ in range(windows):
            block = np.empty((streams, rows))
            for at in range(rows):
                x = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=streams)
                block[:, at] = x
            counts = np.stack([profiles.count_numbers(monitor, row) for row in block])
            state = advance(state, table.log_e(counts))
            over |= table.levels(state)[:, 0] >= Budget(1, 3600).log_threshold(streams)
        alarms[effect] = int(over.sum())
    print(alarms)
    assert alarms[1.0] > streams / 4
    assert alarms[19.0] <= 2


# -- delay ---------------------------------------------------------------------------------

THOUSAND_DEVICES = Budget(1, 3600).log_threshold(1000 * 20)


@pytest.mark.parametrize(("sigma", "delay_max"), [(0.25, 26), (-0.25, 30), (0.5, 8), (1.0, 3)])
def test_a_shift_is_found_soon(sigma: float, delay_max: int, rng: np.random.Generator) -> None:
    """60 rows a window, at the threshold of 1,000 devices x 20 features."""
    monitor = MONITORS["quantile"]
    counts = profiles.count_numbers(monitor, rng.normal(sigma, 1, 2_000_000))
    first = windows_until_alarm(
        monitor, counts / counts.sum(), 60, THOUSAND_DEVICES, streams=100, windows=80, rng=rng
    )
    print(f"median {np.median(first)} windows, worst {first.max()}")
    assert (first > 0).all()
    assert np.median(first) <= delay_max


def test_a_shift_nobody_wants_is_not_found(rng: np.random.Generator) -> None:
    monitor = MONITORS["quantile"]
    counts = profiles.count_numbers(monitor, rng.normal(0.03, 1, 2_000_000))
    first = windows_until_alarm(
        monitor, counts / counts.sum(), 1000, THOUSAND_DEVICES, streams=50, windows=200, rng=rng
    )
    assert (first > 0).sum() == 0


Draw = Callable[[np.random.Generator, int], np.ndarray]


def one_in_ten(value: float, others: Draw) -> Draw:
    return lambda rng, n: np.where(rng.random(n) < 0.1, value, others(rng, n))


def normal(mean: float, sigma: float) -> Draw:
    return lambda rng, n: rng.normal(mean, sigma, n)


def heavier_tail(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.where(rng.random(n) < 0.2, rng.uniform(3.5, 6, n), rng.exponential(0.8, n))


CHANGES: dict[str, tuple[str, Draw]] = {
    "spread-up": ("quantile", normal(0, 1.5)),
    "spread-down": ("quantile", normal(0, 0.5)),
    "mean-down": ("quantile", normal(-0.7, 1)),
    "missing": ("quantile", one_in_ten(np.nan, normal(0, 1))),
    "infinite": ("quantile", one_in_ten(np.inf, normal(0, 1))),
    "out-of-range": ("quantile", one_in_ten(99.0, normal(0, 1))),
    "stuck": ("quantile", lambda _, n: np.full(n, 0.3)),
    "off": ("lattice", one_in_ten(4.4, lambda rng, n: rng.integers(0, 12, n))),
    "tail-up": ("skewed", heavier_tail),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_found_and_named(kind: str, rng: np.random.Generator) -> None:
    base, make = CHANGES[kind]
    monitor = MONITORS[base]
    table = monitor_table(monitor)
    whole = DriftTable(Profile(rows=sum(monitor.counts), monitors=(monitor,)))
    state = whole.start()
    for _ in range(12):
        counts = profiles.count_numbers(monitor, make(rng, 60).astype(float))
        state = advance(state, whole.log_e(counts[None]))
        if whole.levels(state)[0, 0] >= THOUSAND_DEVICES:
            break
    assert whole.levels(state)[0, 0] >= THOUSAND_DEVICES, "not found in 12 windows"
    found = explain(table, telling_entry(table, state[0]), counts)
    print(found)
    wanted = {"tail-up": {"tail-up", "spread-up", "shape", "mean-up"}}.get(kind, {kind})
    assert found.kind in wanted
    assert found.cells


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.5, -1.5, 2.0])
def test_a_large_shift_is_still_told_as_a_shift(sigma: float, rng: np.random.Generator) -> None:
    """Its spread and tails change too, within the reference's bins; that is not the news."""
    monitor = MONITORS["quantile"]
    whole = DriftTable(Profile(rows=20_000, monitors=(monitor,)))
    counts = profiles.count_numbers(monitor, rng.normal(sigma, 1, 300))
    counts[32:34] = 0  # out of range is news of its own
    state = advance(whole.start(), whole.log_e(counts[None]))
    found = explain(whole.monitors[0], telling_entry(whole.monitors[0], state[0]), counts)
    assert found.kind == ("mean-up" if sigma > 0 else "mean-down")


def test_new_and_vanished_categories_are_named() -> None:
    monitor = MONITORS["category"]
    table = DriftTable(Profile(rows=20_000, monitors=(monitor,)))
    for values, kind, word in (
        (["new"] * 10 + list("abcdef") * 15, "unseen", "unseen categories: 10 % of rows"),
        (list("abcde") * 60, "category", "category 'f': 0 % of rows, was 1"),
    ):
        counts = profiles.count_categories(monitor, values)
        state = advance(table.start(), table.log_e(counts[None]))
        assert table.levels(state)[0, 0] >= THOUSAND_DEVICES / 2
        found = explain(table.monitors[0], telling_entry(table.monitors[0], state[0]), counts)
        assert found.kind == kind
        assert word in found.text


def test_a_changed_mix_of_predictions_is_named_by_its_label() -> None:
    monitor = MONITORS["score"]
    table = DriftTable(Profile(rows=20_000, monitors=(monitor,)))
    rng = np.random.default_rng(3)
    counts = profiles.count_scores(monitor, rng.choice(3, 300, p=[0.8, 0.1, 0.1]), rng.random(300))
    state = advance(table.start(), table.log_e(counts[None]))
    found = explain(
        table.monitors[0],
        telling_entry(table.monitors[0], state[0]),
        counts,
        ("ok", "worn", "gone"),
    )
    assert found.kind == "label"
    assert found.text.startswith("predicted ok: ")


def test_the_median_comes_from_the_bins(rng: np.random.Generator) -> None:
    monitor = MONITORS["quantile"]
    values = rng.normal(0.4, 0.8, 5000)
    median = median_of(monitor, profiles.count_numbers(monitor, values))
    assert median == pytest.approx(np.median(values), abs=0.02)
    assert median_of(monitor, profiles.count_numbers(monitor, np.full(9, 99.0))) is None
    assert median_of(monitor, np.zeros(monitor.cells, dtype=np.int64)) is None


def test_the_beginning_of_a_change_is_where_its_evidence_begins() -> None:
    assert change_point(np.array([-1.0, -1.0, 0.5, 2.0, -0.1, 3.0])) == 2
    assert change_point(np.array([-1.0, -1.0, 2.0])) == 2
    assert change_point(np.array([1.0])) == 0


# -- budget --------------------------------------------------------------------------------


def test_the_threshold_is_streams_times_windows_over_alarms() -> None:
    assert np.exp(Budget(1, 3600).log_threshold(20_000)) == pytest.approx(14_400_000)
    assert np.exp(Budget(2, 3600).log_threshold(20_000)) == pytest.approx(7_200_000)
    assert np.exp(Budget(1, 300).log_threshold(20_000)) == pytest.approx(172_800_000)
    assert Budget(1e9, 3600).log_threshold(1) == 0.0


def test_evidence_can_reach_the_threshold_of_a_million_devices() -> None:
    assert Budget(0.1, 60).log_threshold(1_000_000 * 10_000) < edetector.LOG_MAX


# -- what an alarm shows -------------------------------------------------------------------


def test_a_lost_correlation_is_named_with_its_features(rng: np.random.Generator) -> None:
    """Margins stay as they were; the narrow direction of the pair widens, and says which pair."""
    z = rng.normal(size=(20_000, 3))
    table = np.column_stack([z[:, 0], 0.9 * z[:, 0] + np.sqrt(1 - 0.81) * z[:, 1], z[:, 2]])
    columns = {"flow": table[:, 0], "power": table[:, 1], "noise": table[:, 2]}
    found = directions.of_features(columns, None)
    assert found is not None
    projection, projected = found
    monitors = [
        msgspec.structs.replace(number(name, values), source="projection")
        for name, values in zip(projection.names, projected.T, strict=True)
    ]
    apart = np.column_stack([rng.permutation(table[:200, 0]), table[:200, 1], table[:200, 2]])
    strongest, told = -np.inf, None
    for monitor, values in zip(monitors, Projector(projection)(apart).T, strict=True):
        bets = monitor_table(monitor)
        counts = profiles.count_numbers(monitor, values)
        evidence = counts @ bets.log_e
        if evidence.max() > strongest:
            strongest = float(evidence.max())
            entry = telling_entry(bets, evidence.astype(np.float32))
            told = explain(bets, entry, counts, projections=(projection,))
    assert strongest > 17, "found in 200 rows"
    assert told is not None
    assert told.kind == "correlation"
    assert told.text.startswith(("correlation of flow, power", "correlation of power, flow"))
    assert "noise" not in told.text


def test_a_sparkline_draws_both_sides_to_one_scale() -> None:
    bars = [CellChange(str(i), 0.1, 0.0) for i in range(10)] + [CellChange("new", 0.0, 1.0)]
    before, after = sparkline(bars, after=False), sparkline(bars, after=True)
    assert (len(before), len(after)) == (11, 11)
    assert after == " " * 10 + "█"
    assert set(before[:10]) == {"▁"}
    many = [CellChange(str(i), 1 / 40, 1 / 40) for i in range(40)]
    assert len(sparkline(many, after=True)) == 12
    assert sparkline([], after=True) == ""


def test_an_explanation_from_a_store_of_before_is_read() -> None:
    old = b'{"kind":"stuck","text":"stuck at 3","rows":60,"cells":[]}'
    read = decode(old)
    assert (read.kind, read.bars, read.devices, read.members) == ("stuck", (), (), 0)
    assert decode(encode(read)) == read


def test_kinds_of_moved_values_are_one_family() -> None:
    assert family("mean-up") == family("spread-down") == family("out-of-range")
    assert len({family(kind) for kind in ("mean-up", "missing", "stuck", "correlation")}) == 4


def test_e_values_are_ranked_at_a_false_discovery_rate(rng: np.random.Generator) -> None:
    """e-BH by its definition, and its rate where all streams are quiet and depend on each other."""
    log_e = rng.normal(0, 3, 200)
    q = e_adjusted(log_e)
    for rate in (0.02, 0.2, 0.9):
        descending = np.sort(np.exp(log_e))[::-1]
        passing = [k for k in range(1, 201) if k * descending[k - 1] >= 200 / rate]
        found = max(passing, default=0)
        assert (q <= rate).sum() == found
    common = rng.normal(size=(2000, 1)) + rng.normal(size=(2000, 50))
    e = common * 0.5 - 0.5 * 0.25 * 2  # exp of it has mean 1
    false = np.mean([(e_adjusted(row) <= 0.2).any() for row in e])
    print(f"any false finding: {false}")
    assert false <= 0.2
    assert e_adjusted(np.zeros(0)).shape == (0,)


def test_what_would_be_told_is_found_also_where_nothing_speaks_for_a_change(
    packed: Packed, rng: np.random.Generator
) -> None:
    """A report looks at counts whose evidence is all below 0: an entry is named, none is raised."""
    counts = packed.counts(draw(rng, 20_000))
    table = DriftTable(packed.profile)
    for monitor, at in zip(table.monitors, packed.profile.offsets(), strict=True):
        own = counts[at : at + monitor.monitor.cells]
        evidence = (own @ monitor.log_e).astype(np.float32)
        assert evidence.max() < 0
        assert 0 <= telling_entry(monitor, evidence) < len(monitor.entries)
