"""An equal model that converts: search objects and frozen models unwrapped, options set aside.

Guards: nothing here changes a prediction; the model as given is never touched, only a copy.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from edge_pack.estimators.emit import PURPOSE
from edge_pack.extras import need
from edge_pack.steps import is_text, walk


def simplified(model: Any) -> Any:
    """A copy without wrappers and options that stop the converter and change no prediction."""
    copied = _decided(_unwrapped(copy.deepcopy(model)))
    for _, step in walk(copied):
        if type(step).__name__ == "VotingClassifier":
            step.flatten_transform = False  # shapes `transform` only
        _missing_text(step)
    return copied


def _unwrapped(model: Any) -> Any:
    """The estimator inside a search or a frozen model, wherever in a pipeline it stands."""
    if hasattr(model, "best_estimator_"):
        return _unwrapped(model.best_estimator_)
    if type(model).__name__ == "FrozenEstimator":
        return _unwrapped(model.estimator)
    if hasattr(model, "steps"):
        model.steps = [(name, _inner(step)) for name, step in model.steps]
    if hasattr(model, "transformer_list"):
        model.transformer_list = [(name, _inner(step)) for name, step in model.transformer_list]
    if hasattr(model, "transformers_"):
        model.transformers_ = [
            (name, _inner(step), picked) for name, step, picked in model.transformers_
        ]
    return model


def _decided(model: Any) -> Any:
    """Two-class LDA at the end as the logistic regression that it is.

    skl2onnx takes a softmax of [-d, d] for the probabilities, which is a sigmoid of 2 d.
    """
    if hasattr(model, "steps"):
        name, last = model.steps[-1]
        model.steps = [*model.steps[:-1], (name, _decided(last))]
        return model
    if type(model).__name__ != "LinearDiscriminantAnalysis" or len(model.classes_) != 2:
        return model
    logistic = need("sklearn.linear_model", PURPOSE).LogisticRegression()
    for field in ("coef_", "intercept_", "classes_", "n_features_in_"):
        setattr(logistic, field, getattr(model, field))
    return logistic


def _inner(step: Any) -> Any:
    return step if step is None or isinstance(step, str) else _unwrapped(step)


def _missing_text(step: Any) -> None:
    """Tell a fitted copy that missing text arrives as "": an ONNX string is never NaN."""
    imputes = type(step).__name__ == "SimpleImputer" and is_text(step.statistics_)
    if imputes and not isinstance(step.missing_values, str):  # "?" and its like stay what they are
        step.missing_values = ""
    for number, known in enumerate(getattr(step, "categories_", ())):
        if is_text(known):
            plain = [item if isinstance(item, str) else "" for item in known.tolist()]
            step.categories_[number] = np.array(plain, dtype=object)
