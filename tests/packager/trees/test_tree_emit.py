"""What is emitted says what the form says, of any forest; the same forest gives the same bytes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.runtime import Session
from edge_contract.errors import BuildFault
from edge_pack import graphs, runtimes
from edge_pack.intake import Column
from edge_pack.trees import form, merge
from edge_pack.trees.columns import derive
from edge_pack.trees.emit import emit
from edge_pack.trees.form import LEAF, LEQ, LT, MEMBER, Codes, Forest

COLUMNS = (Column("a"), Column("b"), Column("kind", text=True), Column("code"))
KNOWN = ("x", "y", "z")
NUMBERS = (1.0, 2.5, -4.0)
CODES = (Codes(2, KNOWN, text=True), Codes(3, NUMBERS))


def grow(rng: np.random.Generator, trees: int, outputs: int, wide: bool) -> dict[str, Any]:
    """Random trees of up to 15 nodes over two numbers and two coded columns."""
    nodes: list[list[Any]] = []
    roots = []
    sets = [tuple(np.flatnonzero(rng.random(5) < 0.5).tolist()) for _ in range(6)]

    def node(depth: int) -> int:
        at = len(nodes)
        nodes.append([-1, LEAF, 0.0, at, at, False, -1])
        if depth < 3 and rng.random() < 0.8:
            column = int(rng.integers(0, 4))
            test = MEMBER if column > 1 else int(rng.choice([LEQ, LT]))
            cut = 0.0 if column > 1 else float(rng.integers(-3, 4))
            member = int(rng.integers(0, len(sets))) if column > 1 else -1
            yes, no = node(depth + 1), node(depth + 1)
            missing = bool(rng.random() < 0.5) and column < 2
            nodes[at] = [column, test, cut, yes, no, missing, member]
        return at

    for _ in range(trees):
        roots.append(len(nodes))
        node(0)
    table = list(zip(*nodes, strict=True))
    asked = {column for column, test in zip(table[0], table[1], strict=True) if test == MEMBER}
    return {
        "width": 4,
        "roots": np.array(roots),
        "column": np.array(table[0]),
        "test": np.array(table[1]),
        "cut": np.array(table[2]),
        "yes": np.array(table[3]),
        "no": np.array(table[4]),
        "missing_yes": np.array(table[5]),
        "member": np.array(table[6]),
        "values": rng.integers(-8, 9, (len(nodes), outputs if wide else 1)) / 4,
        "target": np.zeros(trees, np.int64) if wide else np.arange(trees) % outputs,
        "outputs": outputs,
        "base": rng.integers(-4, 5, outputs) / 8,
        "cover": np.zeros(len(nodes)),
        "sets": tuple(sets),
        "codes": tuple(codes for codes in CODES if codes.column in asked),
    }


def rows(rng: np.random.Generator, n: int) -> tuple[dict[str, Any], np.ndarray]:
    """Feeds by tensor, and the same rows coded for the form."""
    numbers = rng.integers(-4, 5, (n, 2)).astype(float)
    numbers[rng.random((n, 2)) < 0.1] = np.nan
    kind = rng.choice([*KNOWN, "never seen", ""], n).astype(object)
    code = rng.choice([*NUMBERS, 7.0, np.nan], n)
    coded = np.column_stack([numbers, CODES[0].encode(kind), CODES[1].encode(code)])
    return {"input": np.column_stack([numbers, code]), "text": kind.reshape(-1, 1)}, coded


def said(forest: Forest, feeds: dict[str, Any], ml: int = 3) -> dict[str, Any]:
    return Session(graphs.serialise(emit(forest, COLUMNS, ml=ml).proto)).run(feeds)


both = pytest.mark.parametrize("ml", [3, 5])


@both
@settings(max_examples=40)
@given(st.integers(0, 2**32), st.data())
def test_any_forest(ml: int, seed: int, data: Any) -> None:
    rng = np.random.default_rng(seed)
    trees, outputs = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 4))
    wide = data.draw(st.booleans())
    labels: tuple[Any, ...] = ()
    link = data.draw(st.sampled_from(["identity", "sigmoid", "softmax", "exp", "log1p_exp",
                                      "signed_square"]))  # fmt: skip
    if data.draw(st.booleans()):
        names = [("a", "b", "c", "d"), (0, 1, 2, 3), (7, 3, 5, 1)][seed % 3]
        labels = names[: 2 if outputs == 1 else outputs]
        link = "sigmoid" if outputs == 1 else data.draw(st.sampled_from(["softmax", "sigmoid"]))
    forest = Forest(
        **grow(rng, trees, outputs, wide),
        labels=labels,
        link=link,
        probabilities=bool(labels),
        divisor=float(data.draw(st.sampled_from([1, trees]))),
        threshold=data.draw(st.sampled_from([form.ABOVE_ZERO, 0.0, 0.75])),
    )
    feeds, coded = rows(rng, 40)
    found, expected = said(forest, feeds, ml), form.answers(forest, coded)
    name = "probabilities" if labels else "value"
    np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
    if labels:
        wanted = np.array(labels, dtype=object)[form.winners(forest, coded)]
        sure = np.ones(len(coded), dtype=bool)
        if outputs > 1 and forest.divisor not in (1.0, 2.0, 4.0):  # thirds tie by rounding only
            best = np.sort(form.totals(forest, coded), axis=1)
            sure = best[:, -1] - best[:, -2] > 1e-6
        assert (found["label"] == wanted)[sure].all()


def averaged(shares: np.ndarray, labels: tuple[Any, ...]) -> Forest:
    """A forest of leaves only: each tree says its shares, whatever the row."""
    trees = len(shares)
    index = np.arange(trees)
    return Forest(
        width=4, roots=index, column=np.full(trees, -1), test=np.zeros(trees, np.int64),
        cut=np.zeros(trees), yes=index, no=index, missing_yes=np.zeros(trees, bool),
        values=shares, target=np.zeros(trees, np.int64), outputs=shares.shape[1],
        base=np.zeros(shares.shape[1]), member=np.full(trees, -1), cover=np.zeros(trees),
        divisor=float(trees), labels=labels, probabilities=True,
    )  # fmt: skip


@both
@pytest.mark.parametrize("labels", [("a", "b"), (3, 1), (True, False), ("a", "b", "c"), (9,)])
def test_a_tie_of_votes_is_the_first_label(labels: tuple[Any, ...], ml: int) -> None:
    """Twenty trees, ten for each of two: in float32 shares of 0.05 the sums would differ."""
    shares = np.zeros((20, len(labels)))
    shares[np.arange(20), np.tile([0, 1], 10) % len(labels)] = 1.0
    found = said(averaged(shares[::-1], labels), rows(np.random.default_rng(0), 3)[0], ml)
    assert found["label"].tolist() == [labels[0]] * 3
    assert found["probabilities"][0, 0] == (0.5 if len(labels) > 1 else 1.0)


def test_labels_of_no_one_kind_are_refused() -> None:
    with pytest.raises(BuildFault, match="neither all text nor whole numbers"):
        emit(averaged(np.eye(3), ("a", 1, 2)), COLUMNS)
    with pytest.raises(BuildFault, match="whole numbers"):
        emit(averaged(np.eye(2), (0.5, 1.5)), COLUMNS)


@pytest.mark.parametrize(("ml", "oldest"), [(3, "1.15"), (5, "1.21")])
def test_the_same_forest_gives_the_same_bytes_and_runs_on_old_runtimes(
    ml: int, oldest: str
) -> None:
    grown = grow(np.random.default_rng(4), 5, 3, True)
    protos = [
        emit(Forest(**grown, labels=("a", "b", "c"), probabilities=True), COLUMNS, ml=ml).proto
        for _ in range(2)
    ]
    assert graphs.serialise(protos[0]) == graphs.serialise(protos[1])
    needed = runtimes.oldest(
        protos[0].ir_version, graphs.opsets(protos[0]), graphs.operators(protos[0])
    )
    assert needed == oldest


def test_nested_sets_share_a_column_and_others_do_not() -> None:
    grown = grow(np.random.default_rng(4), 9, 1, True)
    nested = Forest(
        **{**grown, "sets": ((), (0,), (0, 1), (0, 1, 2), (0, 1, 2, 4), (0, 1, 2, 3, 4))}
    )
    apart = Forest(**{**grown, "sets": ((0,), (1,), (2,), (3,), (4,), (0,))})
    assert all(table.ranks.shape[1] == 1 for table in derive(nested, (0, 1, 3), (2,)).tables)
    assert max(table.ranks.shape[1] for table in derive(apart, (0, 1, 3), (2,)).tables) > 2


def test_text_is_never_compared_with_a_number() -> None:
    grown = grow(np.random.default_rng(4), 3, 1, True)
    with pytest.raises(BuildFault, match="text is compared with a number"):
        emit(Forest(**grown), (Column("a", text=True), *COLUMNS[1:]))


def test_a_column_that_the_model_drops_is_in_no_tensor() -> None:
    forest = averaged(np.eye(2), (0, 1))
    tensors = emit(forest, COLUMNS, {"b"}).tensors
    assert [tensor.features for tensor in tensors] == [("a", "code"), ("kind",)]


@both
def test_a_deep_chain_and_ten_thousand_columns(ml: int) -> None:
    """Node i asks column i; the row's first value above its cut ends the chain."""
    depth = 5_000
    inner = np.arange(depth)
    column = np.full(2 * depth + 1, -1)
    column[0 : 2 * depth : 2] = inner * 2
    index = np.arange(2 * depth + 1)
    asks = column >= 0
    forest = Forest(
        width=10_000, roots=np.array([0]), column=column, test=np.where(asks, LEQ, LEAF),
        cut=np.where(asks, 0.5, 0.0), yes=np.where(asks, index + 2, index),
        no=np.where(asks, index + 1, index), missing_yes=np.zeros(len(index), bool),
        values=index.reshape(-1, 1).astype(float), target=np.zeros(1, np.int64), outputs=1,
        base=np.zeros(1), member=np.full(len(index), -1), cover=np.zeros(len(index)),
    )  # fmt: skip
    columns = tuple(Column(str(i)) for i in range(10_000))
    feed = np.zeros((3, 10_000))
    feed[1, 8_000] = 1.0
    found = Session(graphs.serialise(emit(forest, columns, ml=ml).proto)).run({"input": feed})
    assert found["value"][:, 0].tolist() == [2 * depth, 8_001, 2 * depth]


@both
def test_many_nodes_are_emitted_in_seconds(ml: int) -> None:
    """No loop over nodes: 300,000 of them."""
    one = grow(np.random.default_rng(8), 1, 1, True)
    copies = 300_000 // len(one["column"])
    size = len(one["column"])
    shift = np.repeat(np.arange(copies) * size, size)
    many = {
        name: np.tile(one[name], copies)
        for name in ("column", "test", "cut", "missing_yes", "member", "cover")
    }
    forest = replace(
        Forest(**one),
        **many,
        roots=np.arange(copies) * size,
        yes=np.tile(one["yes"], copies) + shift,
        no=np.tile(one["no"], copies) + shift,
        values=np.tile(one["values"], (copies, 1)),
        target=np.zeros(copies, np.int64),
    )
    began = time.process_time()
    proto = emit(forest, COLUMNS, ml=ml).proto
    assert time.process_time() - began < 20
    assert proto.ByteSize() > 5_000_000


def _roots(proto: Any) -> list[tuple[int, int, int, int]]:
    """Of each tree's root: numbers of what follows, and whether that is a leaf."""
    node = next(node for node in proto.graph.node if node.op_type == "TreeEnsemble")
    of = {attribute.name: attribute.ints for attribute in node.attribute}
    fields = ("nodes_truenodeids", "nodes_falsenodeids", "nodes_trueleafs", "nodes_falseleafs")
    return [tuple(of[name][root] for name in fields) for root in of["tree_roots"]]  # type: ignore[misc]


def test_no_root_has_a_leaf_and_a_node_of_one_number() -> None:
    """ONNX Runtime 1.21 takes such a root for a leaf: it answered 10 where 20 and 30 were right."""
    chain = {
        "column": [0, -1, 1, -1, -1], "test": [LEQ, LEAF, LEQ, LEAF, LEAF],
        "cut": [0.5, 0, 0.5, 0, 0], "yes": [1, 1, 3, 3, 4], "no": [2, 1, 4, 3, 4],
    }  # fmt: skip
    two = {name: np.concatenate([values, values]) for name, values in chain.items()}
    shift = np.repeat([0, 5], 5)
    forest = Forest(
        **{**two, "yes": two["yes"] + shift, "no": two["no"] + shift},
        width=4, roots=np.array([0, 5]), missing_yes=np.zeros(10, bool), outputs=1,
        values=np.array([0, 20, 0, 10, 30] * 2, float)[:, None], target=np.zeros(2, np.int64),
        base=np.zeros(1), member=np.full(10, -1), cover=np.zeros(10),
    )  # fmt: skip
    proto = emit(forest, COLUMNS, ml=5).proto
    assert all(yes != no for yes, no, *leaves in _roots(proto) if leaves[0] != leaves[1])
    feeds = {"input": np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0.0]])}
    feeds["text"] = np.array([["x"]] * 3, dtype=object)
    assert said(forest, feeds, 5)["value"][:, 0].tolist() == [40, 20, 60]


def test_a_tree_of_one_leaf_asks_for_two_equal_ones() -> None:
    """ONNX Runtime up to 1.24 reads another leaf where both sides of a root are one."""
    proto = emit(averaged(np.array([[1.0], [2.0], [4.0]]), ()), COLUMNS, ml=5).proto
    assert all(yes != no and a and b for yes, no, a, b in _roots(proto))


def test_a_tree_of_several_outputs_is_told_apart_without_what_one_never_asks() -> None:
    """Of 3 outputs, one tree: the copies hold what makes a difference to their own alone."""
    forest = Forest(**grow(np.random.default_rng(4), 4, 3, True))
    apart = merge.one_output_a_tree(forest)
    assert apart.trees == 12 and apart.values.shape[1] == 1 and apart.nodes <= 3 * forest.nodes
    _, coded = rows(np.random.default_rng(1), 60)
    assert (form.totals(apart, coded) == form.totals(forest, coded)).all()
    votes = replace(forest, values=(forest.values > 1).astype(float))
    assert merge.one_output_a_tree(votes).nodes < 3 * forest.nodes
