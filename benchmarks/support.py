"""Which scikit-learn estimators can be packaged: every one of them, built and compared.

    python benchmarks/support.py [--write] [NAME ...]

Each estimator that scikit-learn lists is fitted on a small table and built. It must come out within
the parity budget, or be refused by name with a way out; anything else is a fault of ours.
``--write`` writes ``docs/support.md``; names restrict the run to some.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
import pandas as pd
from sklearn.base import clone, is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils import all_estimators

from edge_contract.errors import EdgeError
from edge_pack import BuildConfig, build

PAGE = Path(__file__).parent.parent / "docs" / "support.md"
ROWS = 300

Verdict = Literal["exact", "close", "refused", "no model", "FAULT"]


@dataclass(frozen=True)
class Outcome:
    """What became of one estimator.

    Attributes:
        role: classifier, regressor, clusterer, outlier detector, step, or "" when it is none.
        verdict: ``exact``: no label flipped and no difference over 1e-4; ``close``: within the
            budget; ``refused``: with a message and advice; ``no model``: it neither predicts nor
            prepares rows that were not fitted; ``FAULT``: anything else.
        detail: the greatest difference, or the refusal.
    """

    name: str
    role: str
    verdict: Verdict
    detail: str = ""
    advice: str = ""


def table(kind: str) -> tuple[pd.DataFrame, pd.Series]:
    """Rows of a kind, and their answers; all values positive, on a grid of 0.01."""
    rng = np.random.default_rng(11)
    frame = pd.DataFrame(
        np.round(rng.gamma(4.0, 1.5, (ROWS, 5)), 2),
        columns=["flow", "heat", "load", "noise", "age"],
    )
    value = frame.flow - 0.5 * frame.heat + 0.2 * frame.load * frame.noise
    value += rng.normal(0, 0.3, ROWS)
    match kind:
        case "labels":
            answers = pd.cut(value, [-np.inf, 4, 9, np.inf], labels=["low", "mid", "high"])
            return frame, answers.astype(str).astype(object).rename("answer")
        case "two labels":
            return frame, pd.Series((value > 6).astype(int), name="answer")
        case "positive values":
            return frame, pd.Series(np.round(np.abs(value) + 0.1, 3), name="answer")
        case "counts":
            frame = np.floor(frame)
            return frame, pd.Series((frame.flow > frame.heat).astype(int), name="answer")
        case "one column":
            return frame[["flow"]], pd.Series(np.round(np.abs(value) + 0.1, 3), name="answer")
        case "text column":
            words = np.array(["pump leaks", "noise in valve 3", "all well", "valve leaks badly"])
            text = pd.DataFrame({"note": words[rng.integers(0, len(words), ROWS)]})
            return text, text.note.str.contains("leaks").astype(int).rename("answer")
        case "categories":
            text = pd.DataFrame({"site": rng.choice(["graz", "lyon"], ROWS),
                                 "pump": rng.choice(["a", "b", "c"], ROWS)})  # fmt: skip
            return text, ((text.site == "graz") & (text.pump != "b")).astype(int).rename("answer")
    raise ValueError(kind)


Case = tuple[Any, str]
"""An unfitted model and the kind of table that it is fitted on."""


def _last(step: Any, kind: str = "labels") -> Case:
    return make_pipeline(step, LogisticRegression(max_iter=300)), kind


def special(cls: Any) -> Case | None:
    """The case of an estimator that needs arguments, another table, or a partner."""
    simple = LogisticRegression(max_iter=300)
    tree = RandomForestClassifier(8, max_depth=4, random_state=0)
    line = LinearRegression()
    forest = RandomForestRegressor(8, max_depth=4, random_state=0)
    cases: Mapping[str, Callable[[], Case]] = {
        "StackingClassifier": lambda: (cls([("a", simple), ("b", tree)]), "labels"),
        "VotingClassifier": lambda: (cls([("a", simple), ("b", tree)], voting="soft"), "labels"),
        "StackingRegressor": lambda: (cls([("a", line), ("b", forest)]), "positive values"),
        "VotingRegressor": lambda: (cls([("a", line), ("b", forest)]), "positive values"),
        "GridSearchCV": lambda: (cls(simple, {"C": [0.1, 1.0]}, cv=3), "labels"),
        "RandomizedSearchCV": lambda: (
            cls(simple, {"C": [0.1, 1.0]}, n_iter=2, cv=3, random_state=0),
            "labels",
        ),
        "FrozenEstimator": lambda: (cls(simple.fit(*table("labels"))), "labels"),
        "Pipeline": lambda: (cls([("only", simple)]), "labels"),
        "TransformedTargetRegressor": lambda: (
            cls(line, func=np.log1p, inverse_func=np.expm1),
            "positive values",
        ),
        "IsotonicRegression": lambda: (cls(out_of_bounds="clip"), "one column"),
        "CategoricalNB": lambda: (cls(min_categories=40), "counts"),
        "BernoulliNB": lambda: (cls(binarize=5.0), "labels"),
        "TunedThresholdClassifierCV": lambda: (cls(simple, cv=3), "two labels"),
        "FixedThresholdClassifier": lambda: (cls(simple, threshold=0.3), "two labels"),
        "LocalOutlierFactor": lambda: (cls(novelty=True), "labels"),
        "RadiusNeighborsClassifier": lambda: (
            cls(radius=4.0, outlier_label="most_frequent"),
            "labels",
        ),
        "RadiusNeighborsRegressor": lambda: (cls(radius=60.0), "positive values"),
        "ColumnTransformer": lambda: _last(
            cls([("sites", OneHotEncoder(), ["site"])], remainder=OneHotEncoder()), "categories"
        ),
        "FeatureUnion": lambda: _last(cls([("a", _made("StandardScaler")), ("b", _made("PCA"))])),
        "CountVectorizer": lambda: _last(_on_note(cls()), "text column"),
        "TfidfVectorizer": lambda: _last(_on_note(cls()), "text column"),
        "HashingVectorizer": lambda: _last(_on_note(cls(n_features=64)), "text column"),
        "OneHotEncoder": lambda: _last(cls(), "categories"),
        "OrdinalEncoder": lambda: _last(cls(), "categories"),
        "TargetEncoder": lambda: _last(cls(random_state=0), "categories"),
        "SequentialFeatureSelector": lambda: _last(cls(simple, n_features_to_select=2, cv=2)),
        "SparseCoder": lambda: _last(cls(np.eye(5))),
        "MissingIndicator": lambda: _last(cls(features="all")),
        "FunctionTransformer": lambda: _last(cls(np.log1p)),
        "TfidfTransformer": lambda: _last(cls(), "counts"),
        "RFE": lambda: _last(cls(simple, n_features_to_select=3)),
        "RFECV": lambda: _last(cls(simple, cv=2)),
        "SelectFromModel": lambda: _last(cls(simple)),
        "SelectKBest": lambda: _last(cls(k=3)),
        "QuantileTransformer": lambda: _last(cls(n_quantiles=50)),
    }  # fmt: skip
    made = cases.get(cls.__name__)
    return made() if made is not None else None


def _on_note(vectorizer: Any) -> Any:
    compose = __import__("sklearn.compose", fromlist=["ColumnTransformer"])
    return compose.ColumnTransformer([("note", vectorizer, "note")])


@functools.cache
def _classes() -> dict[str, Any]:
    """Every estimator by name; scikit-learn walks through all of its modules to list them."""
    return dict(all_estimators())


def _made(name: str) -> Any:
    """An estimator by name, small and with a fixed seed."""
    cls = _classes()[name]
    inner = LinearRegression() if "Regress" in name else LogisticRegression(max_iter=300)
    made = None
    for arguments in ((), (inner,)):
        try:
            made = cls(*arguments)
            break
        except TypeError:
            continue
    if made is None:
        raise TypeError(f"{name} needs arguments that this survey does not know")
    known = made.get_params(deep=False)
    small = {"random_state": 0, "n_estimators": 8, "max_iter": 300, "n_components": 2,
             "n_clusters": 3, "cv": 3}  # fmt: skip
    kept = {
        key: value
        for key, value in small.items()
        if key in known and not (key == "cv" and name == "HDBSCAN")
    }
    return made.set_params(**kept)


def case(name: str) -> tuple[Case, str]:
    """The unfitted model around an estimator, its table's kind, and the role it plays."""
    cls = _classes()[name]
    found = special(cls)
    if found is not None:
        model, kind = found
        alone = type(model).__name__ == name
        return (model, kind), _role(model) if alone else "step"
    made = _made(name)
    role = _role(made)
    if role == "step":
        return _last(made), role
    kinds = {"classifier": "labels", "regressor": "positive values"}
    return (made, kinds.get(role, "labels")), role


def _role(model: Any) -> str:
    if is_classifier(model):
        return "classifier"
    if is_regressor(model):
        return "regressor"
    if is_outlier_detector(model):
        return "outlier detector"
    if is_clusterer(model) and hasattr(model, "predict"):
        return "clusterer"
    if hasattr(model, "transform"):
        return "step"
    return "clusterer" if hasattr(model, "predict") else ""


def outcome(name: str, folder: Path) -> Outcome:
    """Fit, build, and say what became of it."""
    role = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (model, kind), role = case(name)
            if not role:
                return Outcome(name, role, "no model", "it cannot answer rows it was not fitted on")
            frame, answers = table(kind)
            fitted = clone(model) if name != "FrozenEstimator" else model
            fitted = _fit(fitted, name, frame, answers)
    except (ValueError, TypeError, AttributeError) as error:
        said = str(error).strip().splitlines()[0]
        return Outcome(name, role, "no model", f"it does not fit a table of columns: {said[:90]}")
    return _build(Outcome(name, role, "FAULT"), fitted, frame, folder)


def _fit(model: Any, name: str, frame: pd.DataFrame, answers: pd.Series) -> Any:
    if name in ("MultiOutputClassifier", "ClassifierChain"):
        both = np.column_stack([answers == answers.iloc[0], frame.iloc[:, 0] > 5]).astype(int)
        return model.fit(frame, both)
    if name.startswith("MultiTask") or name in ("MultiOutputRegressor", "RegressorChain", "CCA",
                                                "PLSCanonical"):  # fmt: skip
        return model.fit(frame, np.column_stack([answers, frame.iloc[:, 0] * 2 + answers**0.5]))
    return model.fit(frame, answers)


def _build(asked: Outcome, model: Any, frame: pd.DataFrame, folder: Path) -> Outcome:
    name, role = asked.name, asked.role
    source, rows = folder / f"{name}.joblib", folder / f"{name}.csv"
    joblib.dump(model, source)
    frame.to_csv(rows, index=False)
    config = BuildConfig(
        model=source, data=rows, name="survey", version="1", out=folder / f"{name}.edgepack",
        quantize="none", measure=False, provenance=False,
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parity = build(config, notice=lambda _text: None).manifest.parity
    except EdgeError as error:
        plain = " ".join(error.what.split())
        if "run time" in plain or "cannot load" in plain or not error.advice:
            return Outcome(name, role, "FAULT", f"not refused by name: {plain}")
        return Outcome(name, role, "refused", plain, error.advice)
    except Exception as error:  # noqa: BLE001  the survey's very question
        said = (str(error).strip().splitlines() or [""])[0]
        return Outcome(name, role, "FAULT", f"{type(error).__name__}: {said[:200]}")
    exact = parity.flips == 0 and parity.diff_max <= 1e-4
    detail = f"{parity.flips} flips, {parity.diff_max:.1g}"
    return Outcome(name, role, "exact" if exact else "close", detail)


def survey(names: list[str]) -> list[Outcome]:
    """The outcome of each estimator, by name."""
    with tempfile.TemporaryDirectory() as folder:
        return [outcome(name, Path(folder)) for name in names]


_VERDICTS = {
    "exact": "yes", "close": "yes, within the budget", "refused": "refused",
    "no model": "not a model of table rows", "FAULT": "FAULT",
}  # fmt: skip


def page(found: list[Outcome]) -> str:
    """The outcomes as a Markdown page."""
    counts = Counter(item.verdict for item in found)
    rows = [
        f"| {item.name} | {item.role or '-'} | {_VERDICTS[item.verdict]} | {_note(item)} |"
        for item in found
    ]
    return "\n".join([
        "# Which scikit-learn models can be packaged",
        "",
        f"Written by `python benchmarks/support.py --write` for scikit-learn "
        f"{version('scikit-learn')}: every estimator that it lists, fitted on a small table and "
        "built. A refusal comes with the step's name and a way out; `edge-pack doctor MODEL` "
        "tells before a build.",
        "",
        f"{len(found)} estimators: {counts['exact'] + counts['close']} are packaged without a "
        f"changed label, {counts['refused']} are refused by name, {counts['no model']} cannot "
        "answer new rows of a table at all.",
        "",
        "| estimator | as | packaged | if not |",
        "|---|---|---|---|",
        *rows,
        "",
    ])  # fmt: skip


def _note(item: Outcome) -> str:
    if item.verdict == "refused":
        what = item.detail.partition("cannot be packaged: ")[2] or item.detail
        return f"{what}. {item.advice}".replace("|", "/")
    return "" if item.verdict in ("exact", "close") else item.detail.replace("|", "/")


def main() -> None:
    """Print the outcomes; write the page where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("names", nargs="*", help="only these estimators")
    options = parser.parse_args()
    found = []
    for name in options.names or _classes():
        found += survey([name])
        print(f"{found[-1].verdict:9} {name:30} {found[-1].role:18} {found[-1].detail[:150]}")
        sys.stdout.flush()
    if options.write:
        PAGE.write_text(page(found), encoding="utf-8")
    print(dict(Counter(item.verdict for item in found)), f"scikit-learn {version('scikit-learn')}")


if __name__ == "__main__":
    main()
