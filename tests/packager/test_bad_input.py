"""Bad input of every kind: a clear message, the right exit code, and nothing written."""

from __future__ import annotations

import pickle
import resource
import signal
import sys
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pandas as pd
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_contract import bundle as bundles
from edge_contract.errors import InputFault, MachineFault
from edge_pack import BuildConfig, build, reading, sources, tables
from edge_pack.config import share
from edge_release import create


@pytest.fixture
def logistic(wine: Any) -> Any:
    frame, target = wine
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, target)


def test_a_csv_without_a_needed_column(logistic: Any, wine: Any, pack: Any) -> None:
    frame, target = wine
    with pytest.raises(InputFault, match="lacks 'alcohol', which the model was trained on"):
        pack(logistic, frame.join(target).drop(columns="alcohol"), "kind")


def test_a_csv_with_text_in_a_number(logistic: Any, wine: Any, pack: Any) -> None:
    frame, target = wine
    spoilt = frame.astype({"hue": object}).join(target)
    spoilt.loc[17, "hue"] = "broken"
    with pytest.raises(InputFault, match="column 'hue', row 18: 'broken' is not a number"):
        pack(logistic, spoilt, "kind")


def test_a_csv_with_nan_for_a_model_that_refuses_it(logistic: Any, wine: Any, pack: Any) -> None:
    frame, target = wine
    holes = frame.join(target)
    holes.loc[[3, 9], "hue"] = np.nan
    with pytest.raises(InputFault, match="'hue' in 2 rows, first row 4") as fault:
        pack(logistic, holes, "kind")
    assert "SimpleImputer" in fault.value.advice


def test_a_csv_with_an_infinite_value(logistic: Any, wine: Any, pack: Any) -> None:
    frame, target = wine
    frame = frame.join(target)
    frame.loc[2, "hue"] = np.inf
    with pytest.raises(InputFault, match="column 'hue', row 3: inf is infinite"):
        pack(logistic, frame, "kind")


def test_a_target_that_is_not_there_or_holds_no_label(logistic: Any, wine: Any, pack: Any) -> None:
    frame, target = wine
    with pytest.raises(InputFault, match="no column 'price'"):
        pack(logistic, frame.join(target), "price")
    with pytest.raises(InputFault, match="'kind' holds none of the model's labels"):
        pack(logistic, frame.assign(kind="red"), "kind")


def test_a_target_that_is_a_feature(logistic: Any, wine: Any, pack: Any) -> None:
    frame, target = wine
    with pytest.raises(InputFault, match="target 'hue' is among the features"):
        pack(logistic, frame.join(target), "hue")


def test_a_forgotten_target_is_asked_for(wine: Any, pack: Any) -> None:
    frame, target = wine
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame.to_numpy(), target)
    with pytest.raises(InputFault, match=r"takes 13 columns, .* has 14") as fault:
        pack(model, frame.join(target))
    assert "--target" in fault.value.advice


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows"),
        ("a,a\n1,2\n", "'a' stands twice"),
        ("a,\n1,2\n", "column 2 has no name"),
        ("a,b\n1,2\n3\n", "row 2 has 1 cells, the header has 2"),
        ('a,b\n1,"2\n', "not readable CSV"),
    ],
)
def test_a_csv_that_is_none(text: str, finding: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(InputFault, match=finding):
        tables.read(path)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"T (C, K, F)";b\n1;2\n', ["T (C, K, F)", "b"]),
        ('"x; y; z",b\n1,2\n', ["x; y; z", "b"]),
        ('a,"says ""x; y; z;"""\n1,2\n', ["a", 'says "x; y; z;"']),
        ('"two\nlines; or; three",b\n1,2\n', ["two\nlines; or; three", "b"]),
        ('5" pipe;3" pipe\n1;2\n', ['5" pipe', '3" pipe']),
    ],
)
def test_a_delimiter_inside_a_quoted_name_is_none(
    text: str, names: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    table = tables.read(path)
    assert list(table.columns) == names
    assert [table.numbers(name).tolist() for name in names] == [[1.0], [2.0]]


def test_bytes_of_text_in_npz_are_that_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    cells = np.array([[text.encode()] for text in ("red", "grün")])
    np.savez(path, X=cells, columns=np.array(["größe".encode()]), y=np.array([b"a", b"b"]))
    table = tables.read(path)
    assert table.columns["größe"].tolist() == ["red", "grün"]
    assert table.columns["y"].tolist() == ["a", "b"]
    for arrays in ({"X": np.array([[b"\xff"]])},
                   {"X": np.eye(1), "columns": np.array([b"\xff"])}):  # fmt: skip
        np.savez(path, **arrays)
        with pytest.raises(InputFault, match="not UTF-8"):
            tables.read(path)


def test_bytes_that_are_no_table(tmp_path: Path) -> None:
    for name, data, finding in [
        ("a.csv", b"a,b\n\xff\xfe,1\n", "not UTF-8"),
        ("a.parquet", b"PAR1 nothing", "not a readable Parquet"),
        ("a.npz", b"PK nothing", "not a readable NPZ"),
        ("a.xlsx", b"PK", "none of the kinds"),
    ]:
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputFault, match=finding):
            tables.read(path)
    with pytest.raises(InputFault, match="cannot read"):
        tables.read(tmp_path / "absent.csv")
    np.savez(tmp_path / "objects.npz", X=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputFault, match="not a readable NPZ"):
        tables.read(tmp_path / "objects.npz")


def test_a_pickle_that_is_cut_off_at_any_length(logistic: Any, tmp_path: Path) -> None:
    whole = pickle.dumps(logistic)
    path = tmp_path / "model.pkl"
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputFault, match=r"cannot be loaded|holds a"):
            sources.load(path, lambda _text: None)


def test_a_pickle_of_a_module_that_is_not_here(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cnot_installed_anywhere\nModel\n.")
    said: list[str] = []
    with pytest.raises(InputFault, match="No module named 'not_installed_anywhere'") as fault:
        sources.load(path, said.append)
    assert "Install the package" in fault.value.advice
    assert said == ["model.pkl is a pickle: loading it runs code of whoever wrote it"]


class _Exits:
    """What loads by ending the program, and claims that all went well."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return sys.exit, (0,)


def test_a_pickle_that_exits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(_Exits()))
    with pytest.raises(InputFault, match="cannot be loaded: SystemExit"):
        sources.load(path, lambda _text: None)


def test_a_pickle_of_another_library_version_says_both(logistic: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    here = sklearn.__version__.encode()
    path.write_bytes(pickle.dumps(logistic).replace(here, b"1" + here[1:].replace(b".", b"0", 1)))
    blob = pickle.dumps(logistic)
    assert here in blob
    other = b"0" * (len(here) - 3) + b".24"[-3:]
    path.write_bytes(blob.replace(here, other[: len(here)]))
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sources.load(path, said.append)
    assert any(sklearn.__version__ in text and other.decode() in text for text in said)


@pytest.mark.parametrize(
    ("thing", "finding"),
    [
        ({"model": 1, "scaler": 2}, "a dict with keys model, scaler"),
        ([1, 2], "a list, not an estimator"),
        (LogisticRegression(), "not fitted"),
    ],
)
def test_a_pickle_of_something_else(thing: Any, finding: str, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(thing, path)
    with pytest.raises(InputFault, match=finding):
        sources.load(path, lambda _text: None)


def test_skops_shows_its_untrusted_types_and_needs_trust(
    digits_mlp: Any, digits: Any, pack: Any, tmp_path: Path
) -> None:
    import skops.io

    path = tmp_path / "model.skops"
    skops.io.dump(digits_mlp, path)
    frame, target = digits
    with pytest.raises(InputFault, match="AdamOptimizer") as fault:
        pack(path, frame.join(target), "digit")
    assert "--trust" in fault.value.advice
    built = pack(path, frame.join(target), "digit", trust=True)
    assert any("AdamOptimizer" in notice for notice in built.notices)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputFault, match="not a readable"):
        pack(path, frame.join(target), "digit")


def test_an_onnx_file_that_is_cut_off_or_garbled(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "g", [info("x", 1, ["n", 2])], [info("y", 1, ["n", 2])])
    whole = onnx.helper.make_model(graph).SerializeToString()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputFault, match="not a valid ONNX model"):
            sources.load(path, lambda _text: None)
    path.write_bytes(bytes(range(256)))
    with pytest.raises(InputFault, match="not a valid ONNX model"):
        sources.load(path, lambda _text: None)


def test_a_suffix_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="none of the kinds of model file"):
        sources.load(tmp_path / "model.h5", lambda _text: None)
    with pytest.raises(InputFault, match="cannot read"):
        sources.load(tmp_path / "model.pkl", lambda _text: None)


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    config = {
        "model": tmp_path / "m.pkl", "data": tmp_path / "d.csv", "name": "m", "version": "1",
        "out": tmp_path / "o.edgepack",
    }  # fmt: skip
    for change, finding in [
        ({"name": "a/b"}, "bundle name"),
        ({"version": ""}, "bundle version"),
        ({"quantize": "int3"}, "--quantize 'int3' is unknown"),
        ({"max_flips": 2.0}, "--max-flips"),
        ({"max_diff": -1.0}, "--max-diff"),
        ({"max_diff": float("nan")}, "--max-diff"),
        ({"target": "t", "time_column": "t"}, "same column"),
        ({"out": tmp_path}, "is a directory"),
    ]:
        with pytest.raises(InputFault, match=finding):
            BuildConfig(**{**config, **change})  # type: ignore[arg-type]


def test_shares_are_written_in_percent_or_plain() -> None:
    assert share("0.1%", "--max-flips") == pytest.approx(0.001)
    assert share("0.001", "--max-flips") == 0.001
    for text in ("much", "200%", "-1%", "nan", ""):
        with pytest.raises(InputFault, match="not a share"):
            share(text, "--max-flips")


@pytest.mark.parametrize("runtime", ["new", ">=0.9", "==1.18"])
def test_a_runtime_that_is_none(runtime: str, logistic: Any, wine: Any, pack: Any) -> None:
    frame, target = wine
    with pytest.raises(InputFault, match="--runtime"):
        pack(logistic, frame.join(target), "kind", runtime=runtime)


def test_a_signed_bundle_altered_by_one_byte_is_refused(
    logistic: Any, wine: Any, pack: Any, tmp_path: Path
) -> None:
    frame, target = wine
    keys = tmp_path / "keys"
    create(keys, "home", now=datetime.now(UTC))
    out = pack(logistic, frame.join(target), "kind", keys=keys).config.out
    assert "valid" in reading.verify(out, keys=keys).signature
    whole = out.read_bytes()
    opened = bundles.read(whole)
    # The envelope carries a copy of public metadata that the named keys make superfluous.
    envelope = whole.index(opened.signature)
    seed = 5
    rng = np.random.default_rng(seed)
    for position in [0, 600, len(whole) - 1, *rng.integers(0, len(whole), 60).tolist()]:
        if envelope <= position < envelope + len(opened.signature):
            continue
        altered = bytearray(whole)
        altered[position] ^= 1 << int(rng.integers(8))
        out.write_bytes(altered)
        with pytest.raises(InputFault):
            reading.verify(out, keys=keys)
            pytest.fail(f"byte {position} altered, seed {seed}")
    out.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputFault, match="cut off"):
        reading.verify(out, keys=keys)


def test_a_bundle_signed_by_another_key_or_by_none_is_refused(
    logistic: Any, wine: Any, pack: Any, tmp_path: Path
) -> None:
    frame, target = wine
    for name in ("ours", "theirs"):
        create(tmp_path / name, "home", now=datetime.now(UTC))
    out = pack(logistic, frame.join(target), "kind", keys=tmp_path / "theirs").config.out
    with pytest.raises(InputFault):
        reading.verify(out, keys=tmp_path / "ours")
    assert "not checked" in reading.verify(out).signature
    pack(logistic, frame.join(target), "kind")
    with pytest.raises(InputFault):
        reading.verify(out, keys=tmp_path / "ours")


def test_members_of_an_unsigned_bundle_cannot_be_altered(
    logistic: Any, wine: Any, pack: Any
) -> None:
    frame, target = wine
    out = pack(logistic, frame.join(target), "kind").config.out
    whole = out.read_bytes()
    members = len(bundles.read(whole).manifest_bytes) + 1024
    for position in range(members, len(whole), len(whole) // 97):
        altered = bytearray(whole)
        altered[position] ^= 0x10
        out.write_bytes(altered)
        with pytest.raises(InputFault):
            reading.verify(out)


def test_predict_names_what_a_row_lacks(
    logistic: Any, wine: Any, pack: Any, tmp_path: Path
) -> None:
    frame, target = wine
    out = pack(logistic, frame.join(target), "kind").config.out
    rows = tmp_path / "new.csv"
    frame.drop(columns="hue").to_csv(rows, index=False)
    with pytest.raises(InputFault, match="lacks the column 'hue'"):
        list(reading.predict(out, rows))
    spoilt = frame.copy()
    spoilt.loc[41, "hue"] = np.nan
    spoilt.to_csv(rows, index=False)
    with pytest.raises(InputFault, match="column 'hue', row 42: the value is missing"):
        list(reading.predict(out, rows))
    pd.DataFrame({name: ["x"] for name in frame.columns}).to_csv(rows, index=False)
    with pytest.raises(InputFault, match="column 'alcohol', row 1: 'x' is not a number"):
        list(reading.predict(out, rows))


def test_an_interrupted_build_leaves_the_old_bundle(logistic: Any, wine: Any, pack: Any) -> None:
    frame, target = wine
    config = pack(logistic, frame.join(target), "kind").config
    before = config.out.read_bytes()

    for stop in ("convert", "compress and check parity", "seal"):

        def progress(stage: str, stop: str = stop) -> None:
            if stage == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build(config, progress)
        assert config.out.read_bytes() == before
        assert not list(config.out.parent.glob(".*"))


def test_a_full_disk_is_said_and_leaves_nothing(logistic: Any, wine: Any, pack: Any) -> None:
    frame, target = wine
    config = pack(logistic, frame.join(target), "kind").config
    out = config.out.with_name("limited.edgepack")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(MachineFault, match=r"cannot write .*: File too large"):
            build(replace(config, out=out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not out.exists() and not list(out.parent.glob(".limited*"))


def test_papers_that_cannot_be_written_leave_a_whole_bundle(
    logistic: Any, wine: Any, pack: Any, tmp_path: Path
) -> None:
    frame, target = wine
    (tmp_path / "model.card.md").mkdir()
    with pytest.raises(MachineFault, match=r"is sealed and whole, but .*model\.card\.md"):
        pack(logistic, frame.join(target), "kind")
    assert reading.verify(tmp_path / "model.edgepack").bundle.manifest.name == "model"
    assert (tmp_path / "model.recipe.json").is_file()


def test_rows_without_an_answer_are_told(logistic: Any, wine: Any, pack: Any) -> None:
    frame, target = wine
    some = target.where(target.index >= 7)
    built = pack(logistic, frame.join(some), "kind")
    assert any("'kind' is missing in 7 rows" in notice for notice in built.notices)
