"""A fitted model of trees against what is emitted for it, through the agent's own inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import threadpoolctl

from edge_agent.runtime import Session
from edge_pack import convert, describe, inference, originals, parity
from edge_pack.intake import Column, Intake, Rows
from edge_pack.parity import Comparison
from edge_pack.steps import text_columns

Exact = Callable[..., Comparison]


def rows_of(frame: pd.DataFrame, texts: Any) -> Rows:
    """The frame as a build reads it: float64, or text with None where it is missing."""
    columns: dict[str, Any] = {}
    for name in frame:
        values = frame[name]
        if name in texts:
            columns[name] = np.array(
                [item if isinstance(item, str) else None for item in values], dtype=object
            )
        else:
            columns[name] = values.to_numpy(dtype=np.float64)
    return Rows(len(frame), columns, {})


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """OpenMP's threads wait for each other by spinning: on a busy machine that is all they do."""
    with threadpoolctl.threadpool_limits(1):
        yield


@pytest.fixture
def exact() -> Exact:
    """``exact(model, train, unseen)``: what the emitted model says to rows it was not made with.

    Asserts that the model was emitted as trees, none of it by a stock converter. Of the two
    versions of ai.onnx.ml that trees are emitted in, what is further from the model is returned.
    """

    def call(model: Any, train: pd.DataFrame, unseen: pd.DataFrame) -> Comparison:
        names = list(train)
        texts = text_columns(model, names)
        columns = tuple(Column(name, name in texts, texts.get(name, ())) for name in names)
        given, rows = rows_of(train, texts), rows_of(unseen, texts)
        original = originals.of_estimator(model, given, text=bool(texts))
        planned = Intake(columns, ())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = convert.from_estimator(original, planned, given, (), ">=1.15")
        assert converted.forest is not None and converted.tensors is not None
        takes = Intake(columns, converted.tensors)
        features = describe.features(takes, _with_missing(rows))
        assert converted.remake is not None
        expected = original.answer(rows)
        found = []
        for proto in (converted.proto, converted.remake(converted.forest, 5)):
            session = Session(proto.SerializeToString())
            said = inference.answer(session, takes, features, rows, converted.outputs)
            found.append(parity.compare(expected, said))
        return max(found, key=lambda each: (each.flips, each.diff_max))

    return call


def _with_missing(rows: Rows) -> Rows:
    """The rows and one where everything is missing, so that every feature allows it."""
    columns = {
        name: np.append(values, [None if values.dtype.kind == "O" else np.nan])
        for name, values in rows.columns.items()
    }
    return Rows(rows.count + 1, columns, {})
