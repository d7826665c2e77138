"""Native files: told apart by content, answered as their library answers, refused when damaged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_contract.errors import BuildFault, EdgeError, InputFault, MachineFault
from edge_pack import sources
from edge_pack.extras import need
from edge_pack.frameworks import native, tried
from edge_pack.tables import read
from edge_pack.trees import read_catboost, read_lightgbm, read_xgboost

Make = Callable[[int, int], pd.DataFrame]


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory, plain: Make, answers_of: Any
) -> dict[str, Path]:
    """One small model a kind of file."""
    folder = tmp_path_factory.mktemp("files")
    frame = plain(400, 1)
    answers = answers_of(frame, 2)
    xgb = xgboost.XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1).fit(frame, answers)
    lgb = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(frame, answers)
    cat = catboost.CatBoostClassifier(
        iterations=5, depth=3, verbose=0, allow_writing_files=False, thread_count=1
    ).fit(frame, answers)
    xgb.save_model(folder / "xgb.json")
    xgb.save_model(folder / "xgb.ubj")
    xgb.get_booster().set_attr(scikit_learn=None)
    xgb.get_booster().save_model(folder / "bare.ubj")
    lgb.booster_.save_model(folder / "lgb.txt")
    cat.save_model(folder / "cat.cbm")
    cat.save_model(folder / "cat.json", format="json")
    return {path.name: path for path in folder.iterdir()}


NAMES = ["xgb.json", "xgb.ubj", "bare.ubj", "lgb.txt", "cat.cbm", "cat.json"]
KINDS = {
    "xgb.json": "xgboost-json", "xgb.ubj": "xgboost-ubj", "bare.ubj": "xgboost-ubj",
    "lgb.txt": "lightgbm-text", "cat.cbm": "catboost-cbm", "cat.json": "catboost-json",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_known_by_what_it_holds(
    name: str, files: dict[str, Path], plain: Make, see: Any
) -> None:
    subject = native.load(files[name])
    assert subject is not None
    assert subject.kind == KINDS[name]
    assert subject.model.labels == (0, 1)
    seen = see(subject, plain(400, 1), plain(3000, 2))
    assert seen.flips == 0
    assert seen.difference < 3e-7


def test_an_estimator_s_file_answers_up_to_its_best_iteration(
    tmp_path: Path, plain: Make, answers_of: Any, see: Any
) -> None:
    frame, other = plain(500, 3), plain(500, 4)
    model = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=3, n_jobs=1)
    answers = np.random.default_rng(0).permutation(answers_of(other, 2))
    model.fit(frame, answers_of(frame, 2), eval_set=[(other, answers)], verbose=False)
    assert model.best_iteration < 50
    model.save_model(tmp_path / "m.ubj")
    seen = see(native.load(tmp_path / "m.ubj"), frame, other)
    assert seen.converted.forest.trees == model.best_iteration + 1
    assert np.abs(seen.graph.scores - model.predict_proba(other)).max() < 3e-7


def test_text_labels_and_a_moved_threshold(plain: Make, answers_of: Any, see: Any) -> None:
    frame, unseen = plain(500, 5), plain(3000, 6)
    names = np.array(["runs", "fails"])[answers_of(frame, 2)]
    model = catboost.CatBoostClassifier(iterations=10, verbose=0, allow_writing_files=False)
    model.fit(frame, names).set_probability_threshold(0.3)
    seen = see(model, frame, unseen)
    assert seen.flips == 0
    assert seen.converted.outputs.labels == ("fails", "runs")
    moved = (seen.original.scores[:, 1] > 0.5) != (seen.original.labels == 1)
    assert moved.any(), "the threshold of 0.3 changed no label here"


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_anywhere_is_refused(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    data = files[name].read_bytes()
    binary = not name.endswith((".json", ".txt"))
    for length in [len(data) - 20] if binary else range(10, len(data) - 10, len(data) // 15):
        cut = tmp_path / name
        cut.write_bytes(data[:length])
        with pytest.raises(InputFault) as caught:
            native.load(cut)
        assert str(cut) in str(caught.value)
        assert caught.value.advice


def test_what_ends_lightgbm_s_process_is_a_message_in_ours(
    files: dict[str, Path], tmp_path: Path
) -> None:
    text = files["lgb.txt"].read_text()
    at = text.index("leaf_value=") + len("leaf_value=")
    broken = tmp_path / "broken.txt"
    broken.write_text(text[:at] + "x" + text[at + 1 :])
    code = "import sys, lightgbm; lightgbm.Booster(model_str=open(sys.argv[1]).read())"
    alone = subprocess.run(
        [sys.executable, "-c", code, str(broken)], capture_output=True, check=False
    )
    assert alone.returncode < 0, "the library now survives it: is tried.py still needed?"
    with pytest.raises(InputFault, match=r"ends?.*the process"):
        native.load(broken)


def test_a_library_that_asks_for_memory_without_end_is_stopped(tmp_path: Path) -> None:
    assert tried.MEMORY_MAX_BYTES <= 2**35
    broken = tmp_path / "huge.ubj"
    broken.write_bytes(b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner[$d#L" + b"\x00\x00\x7f" * 3)
    with pytest.raises(InputFault):
        native.load(broken)


def test_files_of_others_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, data in {
        "notes.txt": b"hello", "list.json": b"[1, 2]", "other.json": b'{"a": 1}',
        "broken.json": b'{"learner":', "zeros.cbm": bytes(100), "deep.json": b"[" * 100_000,
    }.items():  # fmt: skip
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputFault) as caught:
            native.load(path)
        assert name in str(caught.value)
    out, err = capfd.readouterr()
    assert out == err == "", "nothing of a library's log reaches the terminal"


def test_the_wrong_number_of_columns_is_counted(files: dict[str, Path], plain: Make) -> None:
    subject = native.load(files["cat.cbm"])
    assert subject is not None
    path = files["cat.cbm"].parent / "rows.csv"
    plain(5, 0)[["a", "b"]].to_csv(path, index=False)
    with pytest.raises(InputFault, match="lacks 'c', 'd', 'e', 'f'"):
        subject.plan(read(path), "", "")
    model = xgboost.train({}, xgboost.DMatrix(np.eye(3), label=[0, 1, 0]), 2)
    bare = native.of_object("joblib", "", model)
    assert bare is not None
    with pytest.raises(InputFault, match=r"takes 3 columns, .* has 2"):
        bare.plan(read(path), "", "")


def test_a_missing_library_names_its_extra() -> None:
    for module in ("xgboost", "lightgbm", "catboost"):
        with pytest.raises(MachineFault) as caught:
            need(f"{module}.no_such_part", "a test")
        assert f"edge-pack[{module}]" in caught.value.advice


def test_unfitted_estimators_are_said_to_be(tmp_path: Path) -> None:
    for model in (
        xgboost.XGBClassifier(), lightgbm.LGBMClassifier(), catboost.CatBoostClassifier(),
    ):  # fmt: skip
        path = tmp_path / "m.joblib"
        joblib.dump(model, path)
        with pytest.raises(InputFault, match=r"not fitted|not a scikit-learn estimator"):
            sources.load(path, lambda _text: None)


def _refused(make: Callable[[], Any], see: Any, frame: pd.DataFrame) -> EdgeError:
    with pytest.raises(EdgeError) as caught:
        see(make(), frame, frame)
    assert isinstance(caught.value, BuildFault | InputFault)
    assert caught.value.advice
    return caught.value


def test_what_has_no_exact_form_is_refused_with_a_way_out(
    plain: Make, answers_of: Any, see: Any
) -> None:
    frame = plain(300, 7)
    answers = answers_of(frame, 2)
    filled = frame.fillna(0)
    both = np.c_[frame.a, frame.b]
    cases: dict[str, Callable[[], Any]] = {
        "gblinear": lambda: xgboost.XGBClassifier(booster="gblinear", n_estimators=2).fit(
            filled, answers
        ),
        "several values in each leaf": lambda: xgboost.XGBRegressor(
            n_estimators=2, multi_strategy="multi_output_tree"
        ).fit(frame, both),
        "binary:hinge": lambda: xgboost.XGBClassifier(objective="binary:hinge", n_estimators=2).fit(
            frame, answers
        ),
        "linear_tree": lambda: lightgbm.LGBMRegressor(
            linear_tree=True, n_estimators=2, verbose=-1
        ).fit(filled, filled.a),
        "classifier by its class": lambda: xgboost.XGBClassifier(
            objective="binary:logitraw", n_estimators=2
        ).fit(frame, answers),
        "MultiLogloss": lambda: catboost.CatBoostClassifier(
            loss_function="MultiLogloss", iterations=2, verbose=0, allow_writing_files=False
        ).fit(frame, np.c_[answers, 1 - answers]),
    }
    said = {}
    for words, make in cases.items():
        try:
            said[words] = str(see(make(), frame, frame))
        except EdgeError as error:
            assert isinstance(error, BuildFault | InputFault)
            assert error.advice
            said[words] = error.what
    assert [words for words, text in said.items() if words not in text] == [], said


def test_catboost_needs_the_text_of_every_category(sites: Make, answers_of: Any, see: Any) -> None:
    frame = sites(800, 8)
    answers = (frame.site == "graz") ^ (frame.pump == "a1")
    for options in ({"one_hot_max_size": 10}, {"one_hot_max_size": 2, "max_ctr_complexity": 1}):
        model = catboost.CatBoostClassifier(
            iterations=20, verbose=0, allow_writing_files=False, cat_features=["site", "pump"],
            **options,
        ).fit(frame, answers)  # fmt: skip
        some = frame[frame.site != "graz"].reset_index(drop=True)
        fault = _refused(lambda model=model: model, see, some)
        assert "'site'" in str(fault) and "training data" in fault.advice


def _combining(frame: pd.DataFrame) -> Any:
    """A model that joins two columns of text, and answers to the number, into one category."""
    answers = (frame.site.str.len() + 2 * frame.pump.str[1].astype(int)) % 3 > 1
    return catboost.CatBoostClassifier(
        iterations=30, verbose=0, allow_writing_files=False, cat_features=["site", "pump"],
        max_ctr_complexity=2, one_hot_max_size=1, thread_count=1,
    ).fit(frame, answers ^ (frame.reading > 1))  # fmt: skip


def test_catboost_combinations_of_too_many_categories_are_refused(sites: Make, see: Any) -> None:
    frame = sites(1000, 11)
    model = _combining(frame)
    many = frame.copy()
    many.loc[:399, "site"] = [f"site {i}" for i in range(400)]
    many.loc[600:, "pump"] = [f"pump {i}" for i in range(400)]
    fault = _refused(lambda: model, see, many)
    assert "'site' with 'pump'" in str(fault)
    assert str(read_catboost.MOST_CELLS) in fault.what
    assert "max_ctr_complexity=1" in fault.advice


def test_a_model_that_combines_columns_becomes_a_bundle(sites: Make, pack: Any) -> None:
    """The search shrinks such a forest, too, and golden samples hold for it."""
    frame = sites(1000, 12)
    built = pack(_combining(frame), frame)
    assert built.manifest.parity.flips == 0
    assert built.manifest.parity.diff_max < 3e-6


def test_catboost_text_columns_are_refused(see: Any) -> None:
    frame = pd.DataFrame({"words": ["pump is hot", "all fine", "pump fine", "is hot"] * 30})
    model = catboost.CatBoostClassifier(
        iterations=3, verbose=0, allow_writing_files=False, text_features=["words"]
    ).fit(frame, [1, 0, 0, 1] * 30)
    assert "words" in str(_refused(lambda: model, see, frame))


def test_xgboost_categories_that_are_not_ascii_are_refused(see: Any) -> None:
    """XGBoost 3.2 cuts their UTF-8 by counts of characters, so the model's names are wrong."""
    kind = pd.CategoricalDtype(["a", "são", "turin"])
    frame = pd.DataFrame({"site": pd.Series(["a", "são", "turin", "a"] * 50, dtype=kind)})
    model = xgboost.XGBClassifier(n_estimators=3, enable_categorical=True, n_jobs=1)
    model.fit(frame, [0, 1, 0, 0] * 50)
    assert "'site'" in str(_refused(lambda: model, see, frame))


def test_documents_of_others_are_no_models() -> None:
    for text in ("", "{}", "[]", "tree\n", "tree\nTree=0\n", '{"learner": 3}'):
        for call in (
            lambda text=text: read_xgboost.document(text.encode()),
            lambda text=text: read_catboost.document(text.encode()),
            lambda text=text: read_lightgbm.document(text),
        ):
            with pytest.raises(BuildFault):
                call()


@pytest.mark.parametrize(
    "model",
    [
        xgboost.XGBClassifier(n_estimators=20, n_jobs=1),
        lightgbm.LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1),
        catboost.CatBoostClassifier(
            iterations=20, verbose=0, allow_writing_files=False, thread_count=1
        ),
    ],
    ids=["xgb", "lgb", "cat"],
)
def test_a_scaler_before_a_booster_folds_into_its_cuts(
    model: Any, iot: Make, answers_of: Any, pack: Any
) -> None:
    frame = iot(3000, 9)
    fitted = make_pipeline(StandardScaler(), model).fit(iot(1500, 10), answers_of(iot(1500, 10), 2))
    built = pack(fitted, frame, quantize="none")
    assert built.manifest.parity.flips == 0
    assert built.manifest.parity.diff_max < 3e-6
