"""A workstation user's models: tables, rows one by one, typed answers, no broker, no agent."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from edge_agent import Model, Prediction
from edge_contract import bundle as bundles
from edge_contract.errors import InputFault

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}
NAMES = tuple(ROW)


@pytest.fixture
def pump(tiny_bundle) -> Model:
    return Model.from_bundle(bundles.read(tiny_bundle()))


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(21).normal(size=(2500, 4))


class Polars:
    """What of a polars data frame is asked for: ``columns``, ``[name]``, ``slice``, no ``iloc``."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self._columns = columns

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name]

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def slice(self, start: int, length: int) -> Polars:
        return Polars({k: v[start : start + length] for k, v in self._columns.items()})


def tables(rows: np.ndarray) -> list[object]:
    columns = {name: rows[:, i] for i, name in reversed(list(enumerate(NAMES)))}
    return [pd.DataFrame(columns), pa.table(columns), Polars(columns)]


def test_a_table_of_any_library_answers_as_its_rows(pump: Model, rows: np.ndarray) -> None:
    expected = pump.predict(rows[:50])
    for table in tables(rows[:50]):
        assert pump.predict(table) == expected, type(table)
    assert pump.predict(pd.DataFrame(rows[:1], columns=NAMES)) == expected[:1]


def test_one_row_of_a_data_frame_is_one_row(pump: Model, rows: np.ndarray) -> None:
    table = pd.DataFrame(rows[:3], columns=NAMES)
    found = pump.predict(table.iloc[2])
    assert isinstance(found, Prediction)
    assert found == pump.predict(rows[2])
    with pytest.raises(InputFault, match="feature 'volt' is missing"):
        pump.predict(table.iloc[2].drop("volt"))


def test_any_number_of_rows_come_in_blocks(pump: Model, rows: np.ndarray) -> None:
    many = np.tile(rows, (5, 1))
    with pytest.raises(InputFault, match="12500 rows, expected 1 to 10000") as caught:
        pump.predict(many)
    assert "predict_many" in caught.value.advice
    expected = pump.predict(rows) * 5
    assert list(pump.predict_many(many)) == expected
    for table in tables(many):
        assert list(pump.predict_many(table)) == expected, type(table)
    one_by_one = (dict(zip(NAMES, row, strict=True)) for row in many.tolist())
    assert list(pump.predict_many(one_by_one)) == expected
    assert list(pump.predict_many([])) == []


def test_rows_are_taken_as_they_are_needed(pump: Model, rows: np.ndarray) -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield ROW

    answers = pump.predict_many(endless())
    assert next(answers) == pump.predict(ROW)
    assert taken == 1000


def test_a_row_that_does_not_fit_is_named_by_its_place_in_the_whole(
    pump: Model, rows: np.ndarray
) -> None:
    rows[1777, 2] = np.inf
    answers = pump.predict_many(rows)
    answered = []
    with pytest.raises(InputFault, match=r"^row 1777: feature 'rpm' is infinite"):
        answered.extend(answers)
    assert answered == pump.predict(rows[:1000])


@pytest.mark.parametrize("rows", ["text", b"bytes", ROW, 3, None])
def test_what_holds_no_rows_is_refused(pump: Model, rows: object) -> None:
    with pytest.raises(InputFault, match="does not hold rows"):
        list(pump.predict_many(rows))


def test_no_row_is_refused_without_the_advice_to_send_fewer(pump: Model) -> None:
    with pytest.raises(InputFault, match=r"^0 rows, expected 1 to 10000$"):
        pump.predict([])


def test_a_refused_row_counts_as_one_in_each_form(pump: Model) -> None:
    from edge_agent.inputs import row_count

    values = list(ROW.values())
    for one in (ROW, values, np.array(values), pd.Series(ROW), "no row", None):
        assert row_count(one) == 1, one
    for two in ([ROW, ROW], [values, values], np.array([values] * 2), pd.DataFrame([ROW] * 2)):
        assert row_count(two) == 2, two


def test_a_missing_value_of_a_table_is_named_by_row_and_feature(mixed_bundle) -> None:
    site = Model.from_bundle(bundles.read(mixed_bundle(missing="allow")))
    table = pd.DataFrame({"temp": [1.0, None], "hum": [0.0, 1.0], "site": ["lyon", "paris"]})
    assert len(site.predict(table)) == 2, "temp may be missing"
    for missing in (None, pd.NA, float("nan")):
        gap = table.assign(hum=pd.Series([0.0, missing], dtype=object))
        with pytest.raises(InputFault, match="row 1: feature 'hum' is missing"):
            site.predict(gap)
    with pytest.raises(InputFault, match="row 0: feature 'site' is a int, expected text"):
        site.predict(table.assign(site=[1, 2]))
    arrow = pa.table({"site": ["paris", "lyon"], "temp": [None, 1.0], "hum": [0, 1]})
    assert len(site.predict(arrow)) == 2
    assert site.predict(table.assign(site=table["site"].astype("category"))) == site.predict(table)


def test_answers_become_a_table_again(pump: Model, regression_bundle, rows: np.ndarray) -> None:
    found = pump.predict(rows[:4])
    table = pd.DataFrame(p.flat() for p in found)
    assert list(table.columns) == ["label", "probability_bad", "probability_good"]
    assert table["label"].tolist() == [p.label for p in found]
    assert table["probability_good"].tolist() == [p.probabilities["good"] for p in found]
    flow = Model.from_bundle(bundles.read(regression_bundle()))
    assert set(flow.predict(ROW).flat()) == {"value"}
    assert flow.predict(ROW).score is None
    assert found[0].score == max(found[0].probabilities.values())


def test_an_answer_and_a_model_say_what_they_are(pump: Model, regression_bundle) -> None:
    flow = Model.from_bundle(bundles.read(regression_bundle()))
    assert repr(flow.predict(ROW)).startswith("Prediction(value=1.")
    assert "outputs" not in repr(pump.predict(ROW))
    assert repr(pump).startswith("<Model pump 1.0: classification of 4 features, ")
    shown = pump._repr_html_()
    for word in ("pump 1.0", "temp", "number", "bad, good", pump.digest[:12]):
        assert word in shown
    assert eval(repr(pump.predict(ROW)), {"Prediction": Prediction}) == pump.predict(ROW)


def test_a_manifests_text_cannot_write_into_a_notebook(seal_bundle, tiny_bundle) -> None:
    import msgspec

    from edge_agent import card
    from edge_contract.manifest import Feature

    manifest = bundles.read(tiny_bundle()).manifest
    evil = Feature(name="<script>alert(1)</script>", unit="<b>")
    shown = card.html(msgspec.structs.replace(manifest, features=(evil,)), "0" * 64)
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_a_with_statement_gives_the_memory_back(pump: Model) -> None:
    from edge_contract.errors import MachineFault

    with pump as model:
        assert model.predict(ROW).label
    with pytest.raises(MachineFault, match="closed"):
        pump.predict(ROW)


def test_async_answers_do_not_hold_up_the_loop(pump: Model, rows: np.ndarray) -> None:
    async def ask() -> list[Prediction]:
        return list(await asyncio.gather(*(pump.apredict(row) for row in rows[:20])))

    assert asyncio.run(ask()) == [pump.predict(row) for row in rows[:20]]


@pytest.mark.slow  # mypy reads numpy's types
def test_the_types_of_answers_are_those_of_the_question(tmp_path: Path) -> None:
    user = tmp_path / "user.py"
    user.write_text(
        "from typing import assert_type\n"
        "from edge_agent import Model, Prediction\n"
        "async def ask(m: Model) -> None:\n"
        "    assert_type(m.predict({'a': 1.0, 'b': 'x', 'c': None}), Prediction)\n"
        "    assert_type(m.predict([1.0, 2]), Prediction)\n"
        "    assert_type(m.predict([{'a': 1.0}]), list[Prediction])\n"
        "    assert_type(m.predict([[1.0, 2], [2.0, 3]]), list[Prediction])\n"
        "    assert_type(await m.apredict({'a': 1.0}), Prediction)\n"
        "    assert_type(m.predict(object()), Prediction | list[Prediction])\n"
        "    print(m.predict({'a': 1.0}).label)\n"
        "    print(m.predict([[1.0]]).label)\n"
    )
    root = Path(__file__).parents[3]
    mypy = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(root / "pyproject.toml"),
         str(user)],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [line for line in mypy.stdout.splitlines() if "error:" in line]
    assert len(said) == 1, mypy.stdout + mypy.stderr
    assert 'user.py:11: error: "list[Prediction]" has no attribute "label"' in said[0]


def test_a_model_needs_neither_pandas_nor_a_broker(tiny_bundle, tmp_path: Path) -> None:
    path = tmp_path / "pump.edgepack"
    path.write_bytes(tiny_bundle())
    script = (
        "import sys\n"
        "from edge_agent import Model\n"
        f"print(Model.open({str(path)!r}).predict({ROW!r}).label)\n"
        "heavy = ('pandas', 'pyarrow', 'PIL', 'paho', 'tuf', 'cryptography', 'typer')\n"
        "sys.exit(', '.join(name for name in heavy if name in sys.modules) or 0)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.strip() in ("bad", "good")
