"""Builds of the machines' table with its own folder each, and what such a build says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from edge_pack import BuildConfig, Built, build

Make = Callable[..., Built]


def pipeline(last: Any = None) -> Any:
    """A pipeline for the machines' table, not yet fitted."""
    columns = ColumnTransformer(
        [
            ("n", SimpleImputer(), ["temperature", "vibration"]),
            ("t", OneHotEncoder(handle_unknown="ignore"), ["site", "pump"]),
        ]
    )
    return make_pipeline(columns, last or LogisticRegression(max_iter=2000))


@pytest.fixture
def make(machines: Any, tmp_path: Path) -> Make:
    """``make(fit=rows, frame=..., folder=..., **options)``: fit on some rows, build on all."""
    whole, labels = machines

    def call(**options: Any) -> Built:
        folder = tmp_path / options.pop("folder", "build")
        folder.mkdir(exist_ok=True)
        fit = options.pop("fit", slice(None))
        frame: pd.DataFrame = options.pop("frame", whole)
        target: pd.Series = options.pop("truth", labels)
        joblib.dump(pipeline().fit(whole[fit], labels[fit]), folder / "model.joblib")
        frame.join(target).to_csv(folder / "rows.csv", index=False)
        given = {
            "model": folder / "model.joblib", "data": folder / "rows.csv", "name": "pump",
            "version": "1.0", "out": folder / "pump.edgepack", "target": "state",
            "measure": False, "quantize": "none",
        }  # fmt: skip
        told: list[str] = options.pop("told", [])
        return build(BuildConfig(**{**given, **options}), notice=told.append)

    return call
