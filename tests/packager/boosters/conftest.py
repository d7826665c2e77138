"""Two tables of raw float64 readings, one with text, and what a bundle's graph answers to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from edge_agent.runtime import Session
from edge_pack import describe, graphs, inference
from edge_pack.answers import Answers
from edge_pack.frameworks import native
from edge_pack.frameworks.boosters import Booster
from edge_pack.intake import read_rows
from edge_pack.subject import Converted
from edge_pack.tables import Table


@dataclass(frozen=True)
class Seen:
    """The original's and the graph's answers to the same rows."""

    original: Answers
    graph: Answers
    converted: Converted

    @property
    def flips(self) -> int:
        if self.original.labels is None:
            return 0
        assert self.graph.labels is not None
        assert (self.original.labels >= 0).all()
        return int((self.original.labels != self.graph.labels).sum())

    @property
    def difference(self) -> float:
        name = "scores" if self.original.scores is not None else "values"
        return float(np.abs(getattr(self.original, name) - getattr(self.graph, name)).max())


def table_of(frame: pd.DataFrame) -> Table:
    columns = {}
    for name in frame.columns:
        cells = frame[name]
        if pd.api.types.is_numeric_dtype(cells.dtype):
            columns[str(name)] = cells.to_numpy(np.float64)
        else:
            text = [None if pd.isna(cell) else str(cell) for cell in cells]
            columns[str(name)] = np.array(text, dtype=object)
    return Table(Path("rows.csv"), "", len(frame), columns, {})


@pytest.fixture(scope="session", name="see")
def _see() -> Callable[..., Seen]:
    """The function below."""
    return see


def see(model: Any, known: pd.DataFrame, unseen: pd.DataFrame) -> Seen:
    """Build from ``known`` rows as ``edge-pack build`` does, then ask both about ``unseen``.

    Of the two versions of ai.onnx.ml that trees are emitted in, what is further off is returned.
    """
    subject = model if isinstance(model, Booster) else native.of_object("joblib", "", model)
    assert subject is not None
    plan = subject.plan(table_of(known), "", "")
    rows = read_rows(plan, table_of(known))
    original = subject.original(plan, rows)
    features = describe.features(plan, rows)
    converted = subject.convert(original, plan, rows, features, ">=1.15")
    fed = replace(plan, tensors=converted.tensors or plan.tensors)
    asked = read_rows(plan, table_of(unseen))
    allowing = tuple(_allowing(feature) for feature in features)
    assert converted.remake is not None
    expected, seen = original.answer(asked), []
    for proto in (converted.proto, converted.remake(converted.forest, 5)):
        session = Session(graphs.serialise(proto))
        answers = inference.answer(session, fed, allowing, asked, converted.outputs)
        seen.append(Seen(expected, answers, converted))
    return max(seen, key=lambda each: (each.flips, each.difference))


def _allowing(feature: Any) -> Any:
    return msgspec.structs.replace(feature, missing="allow")


def _labels(score: Any, many: int) -> Any:
    cuts = np.quantile(score, np.linspace(0, 1, many + 1)[1:-1])
    return pd.Series(np.digitize(score, cuts), name="state")


@pytest.fixture(scope="session")
def plain() -> Callable[[int, int], pd.DataFrame]:
    """``plain(rows, seed)``: six columns around 0, some values missing."""

    def make(rows: int, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame(rng.normal(size=(rows, 6)), columns=list("abcdef"))
        frame.loc[rng.random(rows) < 0.03, "c"] = np.nan
        return frame

    return make


@pytest.fixture(scope="session")
def iot() -> Callable[[int, int], pd.DataFrame]:
    """``iot(rows, seed)``: meter, clock and pressure, which float32 does not hold."""

    def make(rows: int, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        return pd.DataFrame(
            {
                "meter_kwh": np.round(1_700_000 + rng.uniform(0, 40, rows), 2),
                "epoch_s": np.round(1_750_000 + rng.uniform(0, 40, rows), 2),
                "pressure_pa": np.round(101_325 + rng.normal(0, 3, rows), 2),
                "celsius": np.round(rng.normal(20, 5, rows), 1),
            }
        )

    return make


@pytest.fixture(scope="session")
def sites() -> Callable[[int, int], pd.DataFrame]:
    """``sites(rows, seed)``: two text columns, a code in whole numbers, and missing numbers."""

    def make(rows: int, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame(
            {
                "site": rng.choice(["lyon", "turin", "graz", "oslo", "x" * 70, 'a"b\n'], rows),
                "reading": rng.normal(size=rows),
                "pump": rng.choice(["a1", "b2", "c3"], rows),
                "code": rng.choice([3.0, 5.0, 9.0, 12.0, 40.0], rows),
            }
        )
        frame.loc[rng.random(rows) < 0.05, "reading"] = np.nan
        return frame

    return make


@pytest.fixture(scope="session")
def answers_of() -> Callable[[pd.DataFrame, int], pd.Series]:
    """``answers_of(frame, labels)``: an answer that hangs on every column of any table above."""

    def make(frame: pd.DataFrame, many: int) -> pd.Series:
        score = np.zeros(len(frame))
        for number, name in enumerate(frame.columns):
            column = frame[name]
            if not pd.api.types.is_numeric_dtype(column.dtype):
                column = pd.Series(pd.factorize(column, sort=True)[0])
            filled = column.fillna(column.mean()).to_numpy(np.float64)
            spread = (filled - filled.mean()) / filled.std()
            score += spread if number % 2 else np.sin(3 * spread)
        return _labels(score, many)

    return make
