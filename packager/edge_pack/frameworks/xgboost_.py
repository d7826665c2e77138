"""XGBoost: native JSON and UBJ files, ``Booster`` and the classes of its scikit-learn interface.

Guards: a file that a scikit-learn class wrote is asked as that class (its best iteration, its
classes), any other as ``Booster.predict`` answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edge_contract.errors import BuildFault
from edge_contract.manifest import Label, Task
from edge_pack.extras import need
from edge_pack.frameworks.boosters import Said, fault_of, frame
from edge_pack.intake import Rows
from edge_pack.trees import read_xgboost
from edge_pack.trees.form import Forest

PURPOSE = "packaging a model of XGBoost"


@dataclass(frozen=True)
class XGBoost:
    """A ``Booster``, or an estimator of the scikit-learn interface around one.

    Attributes:
        booster: the library's own. estimator: the estimator, or None.
    """

    booster: Any
    estimator: Any = None

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The model's own JSON."""
        return read_xgboost.document(bytes(self.booster.save_raw("json")))

    @cached_property
    def shape(self) -> Forest:
        """The trees, which also say what the model answers."""
        rounds = None
        if self.estimator is not None:
            missing = self.estimator.missing
            if missing is not None and not np.isnan(missing):
                raise BuildFault(
                    f"the XGBoost model takes {missing:g} for missing",
                    advice="Train with missing=nan and leave missing values empty.",
                )
            best = getattr(self.estimator, "best_iteration", None)
            rounds = None if best is None else int(best) + 1
        classes = getattr(self.estimator, "classes_", None)
        labels = () if classes is None else tuple(np.asarray(classes).tolist())
        forest = read_xgboost.read(self.document, labels, rounds)
        if labels and not forest.labels:
            raise BuildFault(
                "the XGBoost model is a classifier by its class and not by its objective "
                f"({self.document['learner']['objective']['name']})",
                advice="Train it with binary:logistic or multi:softprob.",
            )
        return forest

    @property
    def names(self) -> tuple[str, ...]:
        """As its training had them."""
        return tuple(self.booster.feature_names or ())

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.booster.num_features())

    @cached_property
    def categories(self) -> Mapping[int, tuple[Any, ...]]:
        """The categories that a data frame had in training, by column."""
        return read_xgboost.stored_categories(self.document["learner"])

    @property
    def texts(self) -> Mapping[int, tuple[str, ...]]:
        """Those of text."""
        return {i: known for i, known in self.categories.items() if isinstance(known[0], str)}

    @property
    def task(self) -> Task:
        """By its objective."""
        if self.labels:
            return "classification"
        return "tensors" if self.shape.outputs > 1 else "regression"

    @property
    def labels(self) -> tuple[Label, ...]:
        """The estimator's classes, else 0, 1, ..."""
        if self.estimator is not None and not hasattr(self.estimator, "classes_"):
            return ()
        return self.shape.labels

    @property
    def probabilities(self) -> bool:
        """All but native ``multi:softmax``, which answers labels alone."""
        return bool(self.labels) and not self._bare_softmax

    @property
    def _bare_softmax(self) -> bool:
        objective = self.document["learner"]["objective"]["name"]
        return self.estimator is None and objective == "multi:softmax"

    @property
    def refusals(self) -> tuple[type[Exception], ...]:
        """XGBoostError is a ValueError."""
        return (ValueError, TypeError)

    def ready(self, rows: Rows) -> Callable[[], Said]:
        """Rows as DMatrix for a Booster, as a frame or an array for an estimator."""
        given = self._given(rows)
        model = self.estimator
        if model is not None:
            if not self.labels:
                return lambda: (np.asarray(model.predict(given)), None)
            return lambda: (np.asarray(model.predict(given)), model.predict_proba(given))
        xgboost = need("xgboost", PURPOSE)
        names, types = self.booster.feature_names, self.booster.feature_types
        if self.categories:
            matrix = xgboost.DMatrix(given, enable_categorical=True)
        else:
            matrix = xgboost.DMatrix(given, feature_names=names, feature_types=types)

        def call() -> Said:
            said = self.booster.predict(matrix)
            if not self.labels:
                return said, None
            if self._bare_softmax:
                return said.astype(np.int64), None
            if said.ndim == 1:
                return (said > np.float32(0.5)).astype(np.int64), said
            return said.argmax(axis=1), said

        return call

    def _given(self, rows: Rows) -> Any:
        named = getattr(self.estimator, "feature_names_in_", None) is not None
        if self.categories or named:
            return frame(rows, self.names or list(rows.columns), self.categories)
        return rows.matrix()

    def forest(self, rows: Rows) -> Forest:
        """Its trees, up to the best iteration where the estimator answers so."""
        return self.shape


def load(path: Any, data: bytes) -> XGBoost:
    """The model in the bytes of a ``.json`` or ``.ubj`` file.

    Raises InputFault when XGBoost cannot read it, BuildFault when it holds no trees.
    """
    xgboost = need("xgboost", PURPOSE)
    try:
        with xgboost.config_context(verbosity=0):
            booster = xgboost.Booster()
            booster.load_model(bytearray(data))
            kind = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type", "")
            names = {"classifier": "XGBClassifier", "regressor": "XGBRegressor",
                     "ranker": "XGBRanker"}  # fmt: skip
            if kind not in names:
                return XGBoost(booster)
            estimator = getattr(xgboost, names[kind])()
            estimator.load_model(bytearray(data))
    except (ValueError, TypeError, KeyError, UnicodeError) as error:
        raise fault_of(path, "XGBoost", error) from error
    return XGBoost(estimator.get_booster(), estimator)


def of_object(found: Any) -> XGBoost | None:
    """The model in an unpickled object, None when it is not a fitted one of XGBoost's."""
    if type(found).__name__ == "Booster":
        return XGBoost(found)
    try:
        return XGBoost(found.get_booster(), found)
    except (AttributeError, ValueError):  # its NotFittedError is both
        return None


def reader(model: Any) -> Forest:
    """The forest of an estimator, for one that stands in a pipeline."""
    return XGBoost(model.get_booster(), model).shape
