"""Sites differ: a version that comes to some first is compared with its like, and with enough."""

import math
from collections import Counter

import msgspec
import numpy as np
from fleet_kit import number

from edge_contract import profile
from edge_fleet.rollouts import comparing, gates, matching, otherwise
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts.matching import ALL, STRATUM_MIN, Counts, Stratum
from edge_fleet.rollouts.order import Gate
from edge_fleet.rollouts.otherwise import BLOCK_ROWS
from edge_fleet.rollouts.state import Reports, Rollout
from edge_fleet.rollouts.tallies import Arms, Grounds, Tally

ALPHA = 0.01
STOP = -math.log(ALPHA)


def test_small_sites_are_one_and_others_by_hardware_and_site() -> None:
    traits = {f"a{i}": ("pi4", "lyon") for i in range(STRATUM_MIN)}
    traits |= {f"b{i}": ("pi4", f"shop {i}") for i in range(STRATUM_MIN)}
    traits |= {"c": ("x86", "lyon"), "d": ("jetson", "rome")}
    found = matching.strata(traits)
    assert {found[f"a{i}"] for i in range(STRATUM_MIN)} == {("pi4", "lyon")}
    assert {found[f"b{i}"] for i in range(STRATUM_MIN)} == {("pi4", "")}
    assert found["c"] == found["d"] == ALL


def test_both_sides_have_the_same_shares_and_no_weight_is_above_one(
    rng: np.random.Generator, seed: int
) -> None:
    kinds: list[Stratum] = [("pi4", f"s{i}") for i in range(6)]
    for _ in range(300):
        new, old = (
            Counter(dict(zip(kinds, map(int, rng.integers(0, 9, 6)), strict=True)))
            for _ in range(2)
        )
        mine, theirs = matching.weights(new, old)
        both = {kind for kind in kinds if new[kind] and old[kind]}
        assert set(mine) == set(theirs) == both, seed
        assert all(0 < w <= 1 + 1e-12 for w in [*mine.values(), *theirs.values()]), seed
        if both:
            shares = [
                np.array([of[k] * weights[k] for k in sorted(both)])
                for of, weights in ((new, mine), (old, theirs))
            ]
            assert np.allclose(shares[0] / shares[0].sum(), shares[1] / shares[1].sum()), seed
    assert matching.weights({kinds[0]: 3}, {kinds[0]: 30}) == ({kinds[0]: 1}, {kinds[0]: 1})
    assert matching.weights({kinds[0]: 3}, {kinds[1]: 30}) == ({}, {})


def test_controls_are_of_the_same_site_where_there_are_enough() -> None:
    strata: dict[str, Stratum] = {
        f"{site}{i}": ("pi4", site) for site, many in (("a", 30), ("b", 30), ("c", 4))
        for i in range(many)
    }  # fmt: skip
    new = ["a0", "a1", "a2", "c0"]
    free = set(strata) - set(new)
    chosen = matching.controls(free, new, strata, 12, "2.0/look")
    assert Counter(one[0] for one in chosen) == {"a": 9, "c": 3}, "in the shares of the new"
    more = matching.controls(free, new, strata, 40, "2.0/look")
    assert Counter(one[0] for one in more) == {"a": 27, "c": 3, "b": 10}, "the rest by lot"
    assert set(chosen) < set(more)
    assert chosen == matching.controls(sorted(free), new[::-1], strata, 12, "2.0/look")


def fleet(rng: np.random.Generator, change: float, *, matched: bool) -> Arms:
    """Six sites of 20 devices, whose answers differ by as much as four sigma.

    Time slots brought it to ten devices each of the three sites with the highest ones, so far.
    """
    of = msgspec.structs.replace(number("prediction", rng.normal(size=5000)), source="output")
    means = np.array([2.0, 1.5, 1.0, -1.0, -1.5, -2.0])
    sides: list[dict[str, Tally]] = [{}, {}]
    strata: dict[str, Stratum] = {}
    for site, mean in enumerate(means):
        for i in range(20):
            has = i < 10 and site < 3
            values = rng.normal(mean + rng.normal(0, 0.2) + change * has, 1, BLOCK_ROWS)
            cells = np.asarray(profile.count_numbers(of, values))
            name = f"s{site}-{i}"
            sides[not has][name] = Tally(scores=cells, bundle="new" if has else "old")
            strata[name] = ("pi4", f"s{site}")
    return Arms(
        new=sides[0], others=sides[1], bundle="new", strata=strata if matched else {},
        grounds=dict.fromkeys(("new", "old"), Grounds(of, ())),
    )  # fmt: skip


def test_an_equal_version_is_not_stopped_for_where_it_came_first(
    rng: np.random.Generator, seed: int
) -> None:
    """Over seeds: https://en.wikipedia.org/wiki/Simpson%27s_paradox is what would stop it."""
    stops = {
        (change, matched): sum(
            otherwise.shifted(fleet(rng, change, matched=matched), 0.1).log_e >= STOP
            for _ in range(5)
        )
        for change, matched in ((0.0, True), (0.0, False), (2.0, True))
    }
    assert stops[0.0, True] == 0, seed
    assert stops[0.0, False] >= 2, (seed, "without matching this very fleet stops it")
    assert stops[2.0, True] >= 4, (seed, "a version that is otherwise is found")


def test_who_has_no_like_is_not_judged_by_others(rng: np.random.Generator) -> None:
    made = fleet(rng, 0.0, matched=True)
    apart = {name: ("pi4", "x" if name in made.new else "y") for name in made.strata}
    found = otherwise.shifted(restratified(made, apart), 0.1)
    assert "0 and 0 of them have the hardware and site of one there" in found.cannot
    assert found.log_e == 0


def restratified(made: Arms, strata: dict[str, Stratum]) -> Arms:
    return Arms(
        new=made.new, others=made.others, bundle=made.bundle, grounds=made.grounds, strata=strata
    )


def test_labels_are_compared_at_the_same_sites() -> None:
    """Lyon is wrong three times in ten with either version, Rome once in twenty."""
    lyon, rome = ("pi4", "lyon"), ("pi4", "rome")
    new, old = Counts(), Counts()
    new.add(lyon, 600, 2000)
    new.add(rome, 10, 200)
    old.add(lyon, 300, 1000)
    old.add(rome, 400, 8000)
    alike = matching.alike(new, old)
    assert abs(alike[0][0] / alike[0][1] - alike[1][0] / alike[1][1]) < 1e-9
    order = orders.made(
        fleet="home", model="pump", version="2.0", gates=orders.Gates(quality=Gate(limit=0.02))
    )
    rollout = Rollout(id=1, order=order, started_ms=0, since_ms=0)

    def quality(reports: Reports) -> gates.Finding:
        found = gates.findings(rollout, reports, {}, 0)
        return next(one for one in found if one.gate == "quality")

    assert quality(Reports(labels=2200, alike=alike)).verdict == "holds"
    raw = ((610.0, 2200.0), (700.0, 9000.0))
    assert quality(Reports(labels=2200, alike=raw)).verdict == "fails", "all in one would stop it"
    new.add(lyon, 600, 600)
    assert quality(Reports(labels=2800, alike=matching.alike(new, old))).verdict == "fails"


def test_a_weight_below_one_is_never_more_evidence_than_it_is_worth() -> None:
    """The mean of each bet's worth, exactly: at most 1 while the mean is the one that is bet on."""
    for mean in (0.02, 0.3, 0.7):
        for weight in (0.1, 0.5, 1.0):
            worth = sum(
                chance * math.exp(float(comparing.above(
                    comparing.outcomes([value], [weight]), np.asarray(mean)
                )))
                for value, chance in ((1.0, mean), (0.0, 1 - mean))
            )  # fmt: skip
            assert worth <= 1 + 1e-9, (mean, weight)
