"""The page of what can be packaged is what builds do."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import sklearn
from sklearn.utils import all_estimators

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def support() -> Any:
    spec = importlib.util.spec_from_file_location("support", ROOT / "benchmarks" / "support.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["support"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written(support: Any) -> dict[str, str]:
    """Each estimator's verdict on the page."""
    text = support.PAGE.read_text(encoding="utf-8")
    if f"for scikit-learn {sklearn.__version__}:" not in text:
        pytest.skip("the page is of another scikit-learn")
    return dict(re.findall(r"^\| (\w+) \| [^|]+ \| ([^|]+) \|", text, re.MULTILINE))


def test_the_page_names_every_estimator_and_no_fault(written: dict[str, str]) -> None:
    written.pop("estimator", None)
    assert set(written) == {name for name, _ in all_estimators()}
    assert "FAULT" not in written.values()


SAMPLE = ("PowerTransformer", "TunedThresholdClassifierCV", "EllipticEnvelope", "KNNImputer",
          "TransformedTargetRegressor", "DBSCAN", "TfidfVectorizer")  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_the_page_is_current(
    name: str, support: Any, written: dict[str, str], tmp_path: Path
) -> None:
    found = support.outcome(name, tmp_path)
    assert support._VERDICTS[found.verdict] == written[name], found.detail


@pytest.mark.slow
def test_the_whole_page_is_current(support: Any, written: dict[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = support.survey([name for name, _ in all_estimators()])
    assert {item.name: support._VERDICTS[item.verdict] for item in found} == {
        name: verdict for name, verdict in written.items() if name != "estimator"
    }
