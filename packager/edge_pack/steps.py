"""Looks into a fitted scikit-learn pipeline: its steps, and which columns they read as text.

Pure: reads attributes of fitted estimators, nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edge_pack.trees.trace import positions

_ENCODERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")
_KEEP_COLUMNS = ("SimpleImputer",)
"""Transformers whose output columns are their input columns, so the next step sees them too."""


def walk(model: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every fitted estimator inside ``model`` with the name of its step, outermost first."""
    yield where or type(model).__name__, model
    prefix = f"{where} > " if where else ""
    if hasattr(model, "best_estimator_"):
        yield from walk(model.best_estimator_, where)
    for name, step in _parts(model):
        if step is not None and not isinstance(step, str):
            yield from walk(step, f"{prefix}{name}")


def _parts(model: Any) -> list[tuple[str, Any]]:
    """The named steps of a pipeline, a column transformer or a feature union."""
    if hasattr(model, "transformers_"):
        return [(name, step) for name, step, _ in model.transformers_]
    return list(getattr(model, "steps", None) or getattr(model, "transformer_list", None) or ())


def reads_names(model: Any) -> bool:
    """Whether a step picks columns by their name, so that each needs a tensor of its own."""
    return any(
        _names_in(picked)
        for _, step in walk(model)
        if hasattr(step, "transformers_")
        for _, _, picked in step.transformers_
    )


def spelled_out(model: Any) -> Any:
    """The model, or a copy whose steps list the columns that they pick from a name to a name."""
    if not any(_named_slices(step) for _, step in walk(model)):
        return model
    copied = copy.deepcopy(model)
    for _, step in walk(copied):
        for i in _named_slices(step):
            name, inner, picked = step.transformers_[i]
            listed = _picked(picked, [str(each) for each in step.feature_names_in_])
            step.transformers_[i] = (name, inner, listed)
    return copied


def _named_slices(step: Any) -> list[int]:
    """Of a ColumnTransformer's parts, those that pick columns from a name to a name."""
    parts = getattr(step, "transformers_", ())
    return [
        i
        for i, (_, _, picked) in enumerate(parts)
        if isinstance(picked, slice) and _names_in(picked)
    ]


def text_columns(model: Any, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The columns among ``names`` that the model treats as text, with the categories it knows."""
    if hasattr(model, "best_estimator_"):
        return text_columns(model.best_estimator_, names)
    if getattr(model, "is_categorical_", None) is not None:  # HistGradientBoosting's own encoder
        return text_columns(model._preprocessor, names)
    if hasattr(model, "transformers_"):
        found: dict[str, tuple[str, ...]] = {}
        for _, step, picked in model.transformers_:
            if not isinstance(step, str):
                _merge(found, text_columns(step, _picked(picked, names)))
        return found
    if hasattr(model, "steps"):
        return _text_in_steps([step for _, step in model.steps], names)
    if hasattr(model, "transformer_list"):
        return _text_in_steps([step for _, step in model.transformer_list], names, all_see=True)
    if type(model).__name__ in _ENCODERS and hasattr(model, "categories_"):
        return {
            name: tuple(str(item) for item in known.tolist() if isinstance(item, str))
            for name, known in zip(names, model.categories_, strict=False)
            if is_text(known)
        }
    if type(model).__name__ == "SimpleImputer":
        filled = zip(names, model.statistics_.tolist(), strict=False)
        return {name: () for name, value in filled if isinstance(value, str)}
    return dict.fromkeys(names, ()) if type(model).__name__ in VECTORIZERS else {}


VECTORIZERS = ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer")


def free_text(model: Any, names: Sequence[str]) -> dict[str, bool]:
    """The columns among ``names`` that vectorizers read; True: in lower case."""
    if hasattr(model, "best_estimator_"):
        return free_text(model.best_estimator_, names)
    if hasattr(model, "transformers_"):
        found: dict[str, bool] = {}
        for _, step, picked in model.transformers_:
            if not isinstance(step, str):
                found.update(free_text(step, _picked(picked, names)))
        return found
    if hasattr(model, "transformer_list"):
        return {
            name: lower
            for _, step in model.transformer_list
            if not isinstance(step, str)
            for name, lower in free_text(step, names).items()
        }
    if hasattr(model, "steps"):
        steps = [step for _, step in model.steps if step is not None and step != "passthrough"]
        return free_text(steps[0], names)
    if type(model).__name__ in VECTORIZERS:
        return dict.fromkeys(names, bool(model.lowercase))
    return {}


def reads_one_text(model: Any) -> bool:
    """Whether the model takes a list of texts, not a table: its first step is a vectorizer."""
    picks = any(hasattr(step, "transformers_") for _, step in walk(_first(model)))
    return not picks and bool(free_text(model, ("text",)))


def _first(model: Any) -> Any:
    while hasattr(model, "best_estimator_") or hasattr(model, "steps"):
        model = model.best_estimator_ if hasattr(model, "best_estimator_") else model.steps[0][1]
    return model


def ignored_columns(model: Any, names: Sequence[str]) -> set[str]:
    """The columns among ``names`` that a first column transformer drops."""
    if hasattr(model, "best_estimator_"):
        return ignored_columns(model.best_estimator_, names)
    if hasattr(model, "steps") and not isinstance(model.steps[0][1], str):
        return ignored_columns(model.steps[0][1], names)
    if not hasattr(model, "transformers_"):
        return set()
    read = [
        name
        for _, step, picked in model.transformers_
        if not (isinstance(step, str) and step == "drop")
        for name in _picked(picked, names)
    ]
    return set(names).difference(read)


def _text_in_steps(
    steps: Sequence[Any], names: Sequence[str], *, all_see: bool = False
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for step in steps:
        if step is None or isinstance(step, str):
            continue
        _merge(found, text_columns(step, names))
        if not all_see and type(step).__name__ not in _KEEP_COLUMNS:
            break
    return found


def _merge(found: dict[str, tuple[str, ...]], more: dict[str, tuple[str, ...]]) -> None:
    """Add the categories that another step knows of the same columns."""
    for name, known in more.items():
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), *known)))


def is_text(known: Any) -> bool:
    """Whether fitted statistics or categories are text."""
    known = np.asarray(known)
    if known.dtype.kind in "US":
        return True
    return known.dtype.kind == "O" and any(isinstance(item, str) for item in known.tolist())


def _picked(picked: Any, names: Sequence[str]) -> list[str]:
    named = _names_in(picked)
    if named and not isinstance(picked, slice):
        return named
    return [names[i] for i in positions(picked, names, len(names))] if len(names) else []


def _names_in(picked: Any) -> list[str]:
    """The names that a choice of columns gives; a slice's are its ends."""
    if isinstance(picked, slice):
        listed: list[Any] = [picked.start, picked.stop]
    else:
        listed = np.atleast_1d(np.asarray(picked, dtype=object)).tolist()
    return [str(name) for name in listed if isinstance(name, str)]


_SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")
_TREES = ("Forest", "Tree", "GradientBoosting", "Bagging")


def float32_hint(model: Any) -> str:
    """What to do where a scaler before trees lets float32 fall on a cut's other side, or ""."""
    names = [(where, type(step).__name__) for where, step in walk(model)]
    scaler = next((where for where, name in names if name in _SCALERS), "")
    trees = next((name for _, name in names if any(part in name for part in _TREES)), "")
    if not (scaler and trees):
        return ""
    return (
        f"A cut of {trees} often lies on a value of the data, and scaled in float32 that value "
        f"falls on its other side; trees need no scaling: train without step {scaler!r}."
    )
