"""Reads CatBoost's JSON document into a ``Forest``.

Guards: CatBoost compares ``value > border`` in float32; a category is known to the model by a hash
alone, so every hash that a split can tell apart needs its text from the data, or the model is
refused: a device that did not know a category would answer wrongly without a word.

Statistics of categories combined across columns hang on a code of all of them together; those
that also hang on answers to other questions of the tree are asked for after these.

Pure: the hashes are asked of the library by the caller.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault, InputFault
from edge_contract.manifest import Label
from edge_pack.trees.assemble import Sets, Tree, assemble
from edge_pack.trees.form import LEQ, MEMBER, Codes, Forest, Link

_LINKS: dict[str, tuple[Link, str]] = {
    "Logloss": ("sigmoid", "binary"),
    "CrossEntropy": ("sigmoid", "binary"),
    "Focal": ("sigmoid", "binary"),
    "MultiClass": ("softmax", "classes"),
    "MultiClassOneVsAll": ("sigmoid", "classes"),
    "Poisson": ("exp", "value"),
    "Tweedie": ("exp", "value"),
    **dict.fromkeys(
        ("RMSE", "MAE", "MAPE", "Quantile", "LogLinQuantile", "Huber", "Expectile", "Lq", "LogCosh",
         "MultiRMSE", "YetiRank", "YetiRankPairwise", "PairLogit", "PairLogitPairwise",
         "QueryRMSE", "QuerySoftMax", "StochasticRank", "LambdaMart"),
        ("identity", "value"),
    ),
}  # fmt: skip
"""Loss -> link, and what the totals mean, as ``predict`` of CatBoost 1.2 answers by default."""

_MULTIPLIER = 0x4906BA494954CB65
_WORD = 2**64 - 1
"""How hashes of a projection are joined: ``calc_hash`` in every model it exports as code."""
_EMPTY = str(_WORD)
MOST_CELLS = 100_000
"""The largest table of a combination of columns; a device holds one to a few bytes for each."""
_WAY_OUT = (
    "Train with max_ctr_complexity=1, or with a one_hot_max_size above the number of categories."
)


@dataclass(frozen=True)
class Texts:
    """The texts of the data, and CatBoost's hash of each (signed, 32 bits).

    Attributes:
        columns: by column of the table, texts without doubles, sorted, without "".
        hashes: of each of them, and of "".
    """

    columns: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    hashes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Asks:
    """One binary question: ``value > border`` where ``member`` is 0, else a set of codes.

    ``member``: a bit for each code that answers with 1.
    """

    column: int
    border: float = 0.0
    member: int = 0
    missing_one: bool = False
    coded: bool = False


@dataclass(frozen=True)
class _If:
    """The question that follows another one's answer: a statistic may hang on answers, too."""

    asks: _Asks
    zero: _Question
    one: _Question


_Question = _Asks | _If
_Node = tuple[tuple[float, ...], float] | tuple[_Asks, Any, Any]
"""A leaf (values, weight), or a question with what follows 0 and what follows 1."""


def document(raw: bytes) -> Mapping[str, Any]:
    """The parsed JSON. Raises BuildFault when it is not CatBoost's or reads text or vectors."""
    try:
        found = json.loads(raw)
        info = found["features_info"]
        found["scale_and_bias"], found["model_info"]
        if "oblivious_trees" not in found and "trees" not in found:
            raise KeyError("trees")
    except (ValueError, KeyError, TypeError) as error:
        raise BuildFault(
            "the model is not one of CatBoost's JSON documents",
            advice="Save it with save_model(path, format='json') of CatBoost 1.2.",
        ) from error
    for kind, named in (("text_features", "text"), ("embedding_features", "embedding")):
        if info.get(kind):
            names = [str(item.get("feature_id") or item.get("flat_feature_index"))
                     for item in info[kind]]  # fmt: skip
            raise BuildFault(
                f"the CatBoost model computes features from the {named} column(s) "
                f"{', '.join(names)}",
                advice="Turn such columns into numbers before the model, and train on those.",
            )
    return found  # type: ignore[no-any-return]


def loss(found: Mapping[str, Any]) -> str:
    """The name of the loss that the model was trained with."""
    params = found["model_info"].get("params", {})
    if isinstance(params, str):
        params = json.loads(params)
    return str(params.get("loss_function", {}).get("type", "RMSE"))


def meaning(found: Mapping[str, Any]) -> tuple[Link, str]:
    """Link, and what the totals mean: binary, classes or value."""
    name = loss(found)
    if name not in _LINKS:
        raise BuildFault(
            f"CatBoost's loss {name!r} cannot be packaged",
            advice="Train with one of: " + ", ".join(sorted(_LINKS)) + ".",
        )
    return _LINKS[name]


def labels(found: Mapping[str, Any]) -> tuple[Label, ...]:
    """The labels of a classifier, else (); whole numbers trained as float are integers."""
    if meaning(found)[1] == "value":
        return ()
    params = found["model_info"].get("class_params") or {}
    names = tuple(
        int(name) if isinstance(name, float) and name.is_integer() else name
        for name in params.get("class_names", ())
    )
    return names or tuple(range(max(len(found["scale_and_bias"][1]), 2)))


def read(found: Mapping[str, Any], texts: Texts) -> Forest:
    """The forest of a document.

    Raises:
        BuildFault: it cannot be packaged. InputFault: the data lacks texts of some categories.
    """
    link, means = meaning(found)
    scale, biases = found["scale_and_bias"]
    outputs = len(biases)
    questions = _Questions(found["features_info"], found.get("ctr_data") or {}, texts)
    sets = Sets()
    grown = [_grow(tree, questions, outputs) for tree in found.get("oblivious_trees", ())]
    grown += [_nested(tree, questions, _Left()) for tree in found.get("trees", ())]
    trees = [_flat(node, float(scale), questions, sets) for node in grown]
    questions.check_complete()
    asked = {int(c) for tree in trees for c in tree.column[(tree.test == MEMBER) & (tree.yes >= 0)]}
    return assemble(
        trees,
        width=questions.width,
        outputs=outputs,
        base=np.array(biases, dtype=np.float64),
        sets=sets.all,
        codes=tuple(questions.codes[column] for column in sorted(asked)),
        link=link,
        labels=labels(found),
        probabilities=means != "value",
        compares="float32",
    )


def _width(info: Mapping[str, Any]) -> int:
    features = [*info.get("float_features", ()), *info.get("categorical_features", ())]
    return 1 + max(int(feature["flat_feature_index"]) for feature in features)


class _Questions:
    """What the splits of one model ask, by their number in the document."""

    def __init__(self, info: Mapping[str, Any], tables: Mapping[str, Any], texts: Texts) -> None:
        self.floats = info.get("float_features", ())
        self.categorical = info.get("categorical_features", ())
        self.tables, self.texts = tables, texts
        self.columns = [int(item["flat_feature_index"]) for item in self.categorical]
        self.codes = {
            column: Codes(column, texts.columns.get(column, ()), text=True)
            for column in self.columns
        }
        self._cells = {
            column: [*codes.known, None, ""] for column, codes in self.codes.items()
        }  # by code; None: a text that nobody knows
        self.width = _width(info)
        self._combined: dict[tuple[int, ...], int] = {}
        first = sum(len(item.get("borders", ())) for item in self.floats)
        first += sum(len(item.get("values", ())) for item in self.categorical)
        self.ctrs: list[tuple[int, Mapping[str, Any]]] = []
        for ctr in info.get("ctrs", ()):
            self.ctrs.append((first, ctr))
            first += len(ctr["borders"])
        self._keys: dict[int, list[int]] = {}
        self._values: dict[int, NDArray[np.float32]] = {}
        self._members: dict[tuple[int, float], list[int]] = {}
        self._unnamed: dict[int, set[int]] = {}
        self._sets: dict[tuple[int, int], int] = {}
        self._all: list[int] = []

    def of(self, split: Mapping[str, Any]) -> _Question:
        """The question of a split."""
        kind = split["split_type"]
        if kind == "FloatFeature":
            return self._float(split)
        if kind == "OneHotFeature":
            return self._one_hot(split)
        if kind == "OnlineCtr":
            return self._ctr(split)
        raise BuildFault(
            f"a split of the CatBoost model is of kind {kind!r}",
            advice="Train on columns of numbers and categories alone.",
        )

    def _float(self, split: Mapping[str, Any]) -> _Asks:
        feature = self.floats[split["float_feature_index"]]
        ones = feature["nan_value_treatment"] == "AsTrue"
        column = int(feature["flat_feature_index"])
        return _Asks(column, float(np.float32(split["border"])), missing_one=ones)

    def _one_hot(self, split: Mapping[str, Any]) -> _Asks:
        column = self.columns[split["cat_feature_index"]]
        value = int(split["value"])
        cells = self._cells[column]
        ones = [i for i, cell in enumerate(cells)
                if cell is not None and self.texts.hashes[cell] == value]  # fmt: skip
        if not ones:
            self._unnamed.setdefault(column, set()).add(value)
        return _Asks(column, member=_bits(ones), coded=True)

    def _ctr(self, split: Mapping[str, Any]) -> _Question:
        number = int(split["split_index"])
        place = max(i for i, (first, _) in enumerate(self.ctrs) if first <= number)
        ctr = self.ctrs[place][1]
        column = self._ctr_column(ctr)
        if place not in self._values:
            self._values[place] = self._ctr_values(ctr, column)
        border = float(np.float32(split["border"]))
        if (place, border) not in self._members:
            self._members[place, border] = [_as_int(row > border) for row in self._values[place]]
        questions: list[_Question] = [
            _Asks(column, member=member, coded=True) for member in self._members[place, border]
        ]
        for element in reversed(_elements(ctr, category=False)):
            floats = element["combination_element"] == "float_feature"
            asks = self._float(element) if floats else self._one_hot(element)
            pairs = zip(questions[::2], questions[1::2], strict=True)
            questions = [_If(asks, zero, one) for zero, one in pairs]
        return questions[0]

    def _ctr_column(self, ctr: Mapping[str, Any]) -> int:
        """The column that a statistic hangs on: one of the table, or one more for several."""
        elements = _elements(ctr, category=True)
        parts = tuple(int(self.columns[element["cat_feature_index"]]) for element in elements)
        if len(parts) == 1:
            return parts[0]
        if parts not in self._combined:
            codes = Codes(self.width, (), text=True, parts=tuple(self.codes[at] for at in parts))
            if codes.size > MOST_CELLS:
                names = " with ".join(self._name(element) for element in elements)
                raise BuildFault(
                    f"the CatBoost model combines columns into one category: {names}, of which "
                    f"the data shows {codes.size} combinations; at most {MOST_CELLS} are packaged",
                    advice=_WAY_OUT,
                )
            self._combined[parts] = self.width
            self.codes[self.width] = codes
            self.width += 1
        return self._combined[parts]

    def _name(self, element: Mapping[str, Any]) -> str:
        if "float_feature_index" in element:
            feature = self.floats[element["float_feature_index"]]
        else:
            feature = self.categorical[element["cat_feature_index"]]
        return repr(str(feature["feature_id"] or feature["flat_feature_index"]))

    def _ctr_values(self, ctr: Mapping[str, Any], column: int) -> NDArray[np.float32]:
        """The statistic as float32, as the library computes it.

        A row for each answer to the questions it hangs on, the last one's changing fastest; a
        column for each code.
        """
        table = self.tables[ctr["identifier"]]
        counts, keys = _counts(table), [self._keys_of(column)]
        for _ in _elements(ctr, category=False):
            keys = [[key if key < 0 else _joined(key, bit) for key in row]
                    for row in keys for bit in (0, 1)]  # fmt: skip
        values = np.full((len(keys), len(keys[0])), _statistic(ctr, table, None), np.float32)
        for row, known in zip(values, keys, strict=True):
            for code, key in enumerate(known):
                if key in counts:
                    row[code] = _statistic(ctr, table, counts[key])
        left = set(counts).difference(*keys)
        if left:
            self._unnamed.setdefault(column, set()).update(left)
        return values

    def _keys_of(self, column: int) -> list[int]:
        """What the model's tables call each code of a column; -1: it is in none."""
        if column not in self._keys:
            codes = self.codes[column]
            keys = [0]
            for part in codes.parts or (codes,):
                hashes = [None if cell is None else self.texts.hashes[cell]
                          for cell in self._cells[part.column]]  # fmt: skip
                keys = [-1 if key < 0 or value is None else _joined(key, value)
                        for key in keys for value in hashes]  # fmt: skip
            self._keys[column] = keys
        return self._keys[column]

    def _numbers(self, size: int) -> list[int]:
        if len(self._all) < size:
            self._all = list(range(size))
        return self._all[:size]

    def set_of(self, ask: _Asks, sets: Sets) -> int:
        """The number of the set of codes that answer a question with 1."""
        size = self.codes[ask.column].size
        if (size, ask.member) not in self._sets:
            ones = np.frombuffer(ask.member.to_bytes(-(-size // 8), "little"), dtype=np.uint8)
            inside = np.unpackbits(ones, count=size, bitorder="little")
            # Numbers from one list, so that large sets share them.
            codes = list(compress(self._numbers(size), inside.tolist()))
            self._sets[size, ask.member] = sets.number(codes)
        return self._sets[size, ask.member]

    def check_complete(self) -> None:
        """Raise InputFault when the data does not show the text of every category."""
        for column, left in sorted(self._unnamed.items()):
            parts = self.codes[column].parts or (self.codes[column],)
            features = [self.categorical[self.columns.index(part.column)] for part in parts]
            names = " with ".join(
                repr(str(feature["feature_id"] or feature["flat_feature_index"]))
                for feature in features
            )
            raise InputFault(
                f"the model knows {len(left)} categories of column {names} that the data does "
                "not show; CatBoost keeps only their hashes, so a device could not know them",
                advice="Give --data rows in which every category stands at least once, such as "
                "the training data.",
            )


def _elements(ctr: Mapping[str, Any], *, category: bool) -> list[Mapping[str, Any]]:
    """What a statistic hangs on: categories, or questions to other columns.

    The hash joins the categories first, then the answers, each in the document's order.
    """
    return [
        element for element in ctr["elements"]
        if (element["combination_element"] == "cat_feature_value") == category
    ]  # fmt: skip


def _bits(ones: Sequence[int]) -> int:
    return sum(1 << code for code in ones)


def _as_int(inside: NDArray[np.bool_]) -> int:
    """A bit for each code that is inside."""
    return int.from_bytes(np.packbits(inside, bitorder="little").tobytes(), "little")


def _joined(so_far: int, value: int) -> int:
    return (_MULTIPLIER * ((so_far + _MULTIPLIER * (value & _WORD)) & _WORD)) & _WORD


def _counts(table: Mapping[str, Any]) -> dict[int, list[Any]]:
    """What training counted, by the hash of the category."""
    flat, stride = table["hash_map"], int(table["hash_stride"])
    return {
        int(flat[i]): flat[i + 1 : i + stride]
        for i in range(0, len(flat), stride)
        if str(flat[i]) != _EMPTY
    }


def _statistic(ctr: Mapping[str, Any], table: Mapping[str, Any], counted: Any) -> np.float32:
    """CatBoost's smoothed share, in float32 (``TModelCtr::Calc``); of nothing for None."""
    good, total = _shares(ctr, table, counted) if counted is not None else (0, 0)
    share = (np.float32(good) + np.float32(ctr["prior_numerator"])) / (
        np.float32(total) + np.float32(ctr["prior_denomerator"])
    )
    return np.float32((share + np.float32(ctr["shift"])) * np.float32(ctr["scale"]))


def _shares(
    ctr: Mapping[str, Any], table: Mapping[str, Any], counted: Sequence[Any]
) -> tuple[float, float]:
    kind, border = ctr["ctr_type"], int(ctr["target_border_idx"])
    if kind in ("BinarizedTargetMeanValue", "FloatTargetMeanValue"):
        return float(counted[0]), float(counted[1])
    if kind in ("Counter", "FeatureFreq"):
        return float(counted[0]), float(table["counter_denominator"])
    if kind == "Buckets":
        return float(counted[border]), float(sum(counted))
    return float(sum(counted[border + 1 :])), float(sum(counted))


@dataclass(frozen=True)
class _Left:
    """What the questions so far leave open: an interval by column, and codes by column."""

    low: Mapping[int, float] = field(default_factory=dict)
    high: Mapping[int, float] = field(default_factory=dict)
    codes: Mapping[int, int] = field(default_factory=dict)

    def forced(self, asks: _Asks, codes: int) -> int | None:
        """The only answer that is left, or None."""
        if asks.coded:
            open_ = self.codes.get(asks.column, codes)
            return 1 if not open_ & ~asks.member else 0 if not open_ & asks.member else None
        if asks.border <= self.low.get(asks.column, -np.inf):
            return 1
        return 0 if asks.border >= self.high.get(asks.column, np.inf) else None

    def after(self, asks: _Asks, answer: int, codes: int) -> _Left:
        """What is open after an answer that was not forced."""
        at = asks.column
        if asks.coded:
            open_ = self.codes.get(at, codes) & (asks.member if answer else ~asks.member)
            return _Left(self.low, self.high, {**self.codes, at: open_})
        if answer:
            return _Left({**self.low, at: asks.border}, self.high, self.codes)
        return _Left(self.low, {**self.high, at: asks.border}, self.codes)


def _grow(tree: Mapping[str, Any], questions: _Questions, outputs: int) -> _Node:
    """An oblivious tree without questions whose answer follows from those before."""
    asks = [questions.of(split) for split in tree["splits"] or ()]
    values = np.array(tree["leaf_values"], dtype=np.float64).reshape(-1, outputs).tolist()
    weights = tree.get("leaf_weights") or [0.0] * len(values)

    def grow(level: int, leaf: int, left: _Left) -> _Node:
        if level < 0:
            return tuple(values[leaf]), float(weights[leaf])
        return _posed(
            asks[level],
            questions,
            left,
            lambda bit, rest: grow(level - 1, leaf | bit << level, rest),
        )

    return grow(len(asks) - 1, 0, _Left())


def _posed(
    question: _Question, questions: _Questions, left: _Left, then: Callable[[int, _Left], _Node]
) -> _Node:
    """A question with what follows its answers, or that alone whose answer is the only one left.

    A leaf that is reached in two ways keeps its weight in both.
    """
    ask = question.asks if isinstance(question, _If) else question
    everything = (1 << questions.codes[ask.column].size) - 1 if ask.coded else 0

    def answered(bit: int, rest: _Left) -> _Node:
        if isinstance(question, _If):
            return _posed(question.one if bit else question.zero, questions, rest, then)
        return then(bit, rest)

    forced = left.forced(ask, everything)
    if forced is not None:
        return answered(forced, left)
    zero, one = (answered(bit, left.after(ask, bit, everything)) for bit in (0, 1))
    return _joined_leaves(ask, zero, one)


def _joined_leaves(ask: _Asks, zero: _Node, one: _Node) -> _Node:
    """A question, or its answer where both are the same leaf."""
    if len(zero) == 2 and len(one) == 2 and zero[0] == one[0]:
        return zero[0], zero[1] + one[1]
    return ask, zero, one


def _nested(tree: Mapping[str, Any], questions: _Questions, left: _Left) -> _Node:
    """A tree of another grow_policy than the symmetric one."""
    if "split" not in tree:
        value = tree["value"]
        values = value if isinstance(value, list) else [value]
        return tuple(float(v) for v in values), float(tree.get("weight", 0.0))
    sides = (tree["left"], tree["right"])
    return _posed(
        questions.of(tree["split"]), questions, left,
        lambda bit, rest: _nested(sides[bit], questions, rest),
    )  # fmt: skip


def _flat(root: _Node, scale: float, questions: _Questions, sets: Sets) -> Tree:
    rows: list[tuple[Any, ...]] = []

    def lay(node: _Node) -> int:
        at = len(rows)
        rows.append(())
        if len(node) == 2:
            values, weight = node
            rows[at] = (-1, LEQ, 0.0, -1, -1, -1, False, [v * scale for v in values], weight)
            return at
        ask, zero, one = node
        if ask.coded:
            number = questions.set_of(ask, sets)
            yes, no = lay(one), lay(zero)
            test, cut, missing = MEMBER, 0.0, False
        else:
            yes, no = lay(zero), lay(one)
            number, test, cut, missing = -1, LEQ, ask.border, not ask.missing_one
        rows[at] = (ask.column, test, cut, number, yes, no, missing, None, 0.0)
        return at

    lay(root)
    width = max(len(row[7]) for row in rows if row[7] is not None)
    columns = list(zip(*rows, strict=True))
    cover = np.array(columns[8])
    for at in reversed(range(len(rows))):
        if rows[at][4] >= 0:
            cover[at] = cover[rows[at][4]] + cover[rows[at][5]]
    ints = [np.array(columns[i], dtype=np.int64) for i in (0, 1, 3, 4, 5)]
    return Tree(
        column=ints[0], test=ints[1], cut=np.array(columns[2], dtype=np.float64), member=ints[2],
        yes=ints[3], no=ints[4], missing_yes=np.array(columns[6], dtype=bool),
        values=np.array([row or [0.0] * width for row in columns[7]], dtype=np.float64),
        cover=cover,
    )  # fmt: skip
