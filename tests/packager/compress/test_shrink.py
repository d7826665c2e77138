"""Smaller forests say what they should: the same, nearly the same, or what was averaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)

from edge_contract.errors import BuildFault
from edge_pack.compress import shrink
from edge_pack.trees import read_sklearn
from edge_pack.trees.form import Forest, answers, totals


@pytest.fixture(scope="module")
def rows() -> Any:
    """178 rows of wine."""
    return load_wine(return_X_y=True)


@pytest.fixture(scope="module")
def forest(rows: Any) -> Forest:
    """25 trees whose leaves are shares of three labels."""
    model = RandomForestClassifier(25, random_state=0, min_samples_leaf=3).fit(*rows)
    found = read_sklearn.forest(model)
    assert found is not None
    return found


def _twins(forest: Forest) -> Forest:
    """The same with every last pair of leaves made equal."""
    values = forest.values.copy()
    for node in np.flatnonzero(~forest.leaf):
        yes, no = forest.yes[node], forest.no[node]
        if forest.leaf[yes] and forest.leaf[no]:
            values[yes] = values[no]
    return Forest(**{**vars(forest), "values": values})


def test_merging_changes_no_bit_and_takes_every_pair_out(forest: Forest, rows: Any) -> None:
    twins = _twins(forest)
    found, gone = shrink.merged(twins)
    assert (totals(found, rows[0]) == totals(twins, rows[0])).all()
    assert gone == twins.nodes - found.nodes >= 2 * twins.trees
    with pytest.raises(BuildFault, match="changed nothing"):
        shrink.merged(found)


def test_rounded_leaves_are_few_and_near_and_keep_zero(forest: Forest, rows: Any) -> None:
    found, changed = shrink.rounded(forest)
    assert changed > 0
    values = found.values[found.leaf]
    assert len(np.unique(values)) <= 256 and 0.0 in values
    off = np.abs(answers(found, rows[0]) - answers(forest, rows[0]))
    assert 0 < off.max() <= 0.5 / 254 + 1e-12


def test_a_boosted_regression_is_rounded_within_half_a_step_a_tree(rows: Any) -> None:
    data, target = load_diabetes(return_X_y=True)
    model = GradientBoostingRegressor(n_estimators=30, random_state=0).fit(data, target)
    forest = read_sklearn.gradient_boosting(model)
    assert forest is not None
    found, _ = shrink.rounded(forest)
    leaves = forest.values[forest.leaf]
    step = (max(leaves.max(), 0) - min(leaves.min(), 0)) / 254
    assert np.abs(totals(found, data) - totals(forest, data)).max() <= 30 * step / 2


def test_pruning_averages_what_it_takes_out(forest: Forest, rows: Any) -> None:
    data = rows[0]
    found, gone = shrink.pruned(forest, 1.0, 8)
    assert found.trees == forest.trees and gone == forest.nodes - found.nodes > 0
    inner = found.cover[~found.leaf & ~np.isin(np.arange(found.nodes), found.roots)]
    assert (inner >= 8).all()
    assert np.allclose(found.values[found.leaf].sum(axis=1), 1.0)
    # The mean over what the tree was trained with does not move.
    for tree in (0, 7):
        first, second = (
            _tree_mean(each, tree, found.cover[found.roots[tree]]) for each in (forest, found)
        )
        assert first == pytest.approx(second)
    half, _ = shrink.pruned(forest, 0.5, 0)
    assert half.trees == 12 and half.divisor == 12
    assert np.allclose(answers(half, data).sum(axis=1), 1.0)


def _tree_mean(forest: Forest, tree: int, weight: float) -> Any:
    leaves = np.flatnonzero(forest.leaf & (forest.tree == tree))
    return tuple((forest.cover[leaves] @ forest.values[leaves]) / weight)


def test_rounds_of_several_outputs_go_together(rows: Any) -> None:
    model = HistGradientBoostingClassifier(max_iter=6, random_state=0).fit(*rows)
    forest = read_sklearn.hist_gradient_boosting(model)
    assert forest is not None
    found, _ = shrink.pruned(forest, 0.5, 0)
    assert found.trees == 9 and np.bincount(found.target).tolist() == [3, 3, 3]


def test_what_changes_nothing_says_so(forest: Forest) -> None:
    for call in (lambda: shrink.pruned(forest, 1.0, 0), lambda: shrink.rounded(_flat(forest))):
        with pytest.raises(BuildFault, match="changed nothing"):
            call()
    blind = Forest(**{**vars(forest), "cover": np.zeros(forest.nodes)})
    with pytest.raises(BuildFault, match="how many rows"):
        shrink.pruned(blind, 1.0, 5)


def _flat(forest: Forest) -> Forest:
    return Forest(**{**vars(forest), "values": np.zeros_like(forest.values)})


def test_rounded_levels_span_one_output_not_all(rows: Any) -> None:
    """A pressure around 101325 beside a ratio: levels over both would all be 0 for the ratio."""
    target = np.column_stack([101325 + 500 * rows[1], 0.2 + 0.3 * rows[1]])
    model = RandomForestRegressor(5, random_state=0).fit(rows[0], target)
    forest = read_sklearn.forest(model)
    assert forest is not None
    found, _ = shrink.rounded(forest)
    leaves = forest.values[forest.leaf]
    step = (np.maximum(leaves.max(axis=0), 0) - np.minimum(leaves.min(axis=0), 0)) / 254
    off = np.abs(answers(found, rows[0]) - answers(forest, rows[0]))
    assert (off.max(axis=0) <= step / 2 * (1 + 1e-9)).all()


def test_trees_of_several_outputs_are_rounded_by_output(rows: Any) -> None:
    """Boosting adds to one output a tree: each has levels of its own."""
    model = HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(*rows)
    forest = read_sklearn.hist_gradient_boosting(model)
    assert forest is not None and forest.values.shape[1] == 1
    values = forest.values * np.where(forest.target[forest.tree] == 1, 1e-4, 1.0)[:, None]
    found, _ = shrink.rounded(Forest(**{**vars(forest), "values": values}))
    ours = found.values[found.leaf & (found.target[found.tree] == 1)]
    assert len(np.unique(ours)) > 2
