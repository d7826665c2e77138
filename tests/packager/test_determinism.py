"""The same inputs give the same bytes: twice, elsewhere, in another process, under another hash."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from edge_pack import reading

_BUILD = """
import sys
from pathlib import Path
from edge_pack import BuildConfig, build
while sys.argv[1:]:
    model, data, out, target = sys.argv[1:5]
    del sys.argv[1:5]
    build(BuildConfig(model=Path(model), data=Path(data), name="m", version="1", out=Path(out),
                      target=target, measure=False))
"""


def _mixed() -> Any:
    return make_pipeline(
        ColumnTransformer(
            [("t", OneHotEncoder(), ["site", "pump"]), ("n", "passthrough", ["vibration"])]
        ),
        RandomForestClassifier(10, random_state=0),
    )


def _stack() -> Any:
    return StackingClassifier(
        [("a", GaussianNB()), ("b", HistGradientBoostingClassifier(max_iter=4))],
        LogisticRegression(max_iter=500),
        cv=3,
    )


_SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("machines", "wine")]


@pytest.mark.parametrize("kind", ["digits", *_SLOW])
def test_same_bytes_twice_elsewhere_and_under_another_hash_seed(
    kind: str, request: Any, digits_mlp: Any, pack: Any, tmp_path: Path
) -> None:
    frame, target = request.getfixturevalue(kind)
    rows, name = frame.join(target), target.name
    made = {"machines": _mixed, "wine": _stack, "digits": lambda: digits_mlp}[kind]()
    model = made if kind == "digits" else made.fit(frame, target)
    first = pack(model, rows, name, name="m", version="1", folder=tmp_path / "a")
    whole = first.config.out.read_bytes()
    again = pack(first.config.model, rows, name, name="m", version="1", folder=tmp_path / "b")
    assert again.config.out.read_bytes() == whole

    out = tmp_path / "elsewhere" / "out.edgepack"
    subprocess.run(
        [sys.executable, "-c", _BUILD, str(first.config.model), str(first.config.data),
         str(out), name],
        check=True, cwd="/",
        env={**os.environ, "PYTHONHASHSEED": "4711", "LC_ALL": "C", "OMP_NUM_THREADS": "3"},
    )  # fmt: skip
    assert out.read_bytes() == whole


@pytest.mark.slow
def test_a_processor_with_other_instructions_gives_the_same_bytes(
    digits: Any, diabetes: Any, digits_mlp: Any, pack: Any, tmp_path: Path
) -> None:
    """SSE4.2 alone, emulated: float32 sums come out otherwise in their last digits there."""
    emulator = shutil.which("qemu-x86_64")
    if emulator is None or platform.machine() != "x86_64":
        pytest.skip("needs qemu-x86_64 (Debian's qemu-user) on x86-64")
    regression = make_pipeline(StandardScaler(), Ridge()).fit(*diabetes)
    words, pairs = [], []
    for kind, model, (frame, target) in (
        ("digits", digits_mlp, digits), ("diabetes", regression, diabetes),
    ):  # fmt: skip
        rows = frame.join(target)
        here = pack(model, rows, target.name, name="m", version="1", folder=tmp_path / kind)
        out = tmp_path / f"{kind}.edgepack"
        words += [here.config.model, here.config.data, out, target.name]
        pairs.append((here.config.out, out))
    subprocess.run(  # both in one process: half the time goes into importing the libraries there
        [emulator, "-cpu", "Nehalem", sys.executable, "-c", _BUILD, *words],
        check=True, cwd="/", env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for here, there in pairs:
        assert there.read_bytes() == here.read_bytes()


def test_a_time_or_path_of_the_build_is_nowhere_in_the_bundle(
    wine: Any, pack: Any, tmp_path: Path
) -> None:
    frame, target = wine
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, target)
    built = pack(model, frame.join(target), "kind", folder=tmp_path / "here-and-nowhere-else")
    bundle = reading.open_bundle(built.config.out)
    everything = bundle.manifest_bytes + b"".join(
        bundle.file(file.name) for file in bundle.manifest.files
    )
    assert b"here-and-nowhere-else" not in everything and str(tmp_path).encode() not in everything


def test_another_row_of_data_gives_another_bundle(wine: Any, pack: Any) -> None:
    frame, target = wine
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, target)
    one = pack(model, frame.join(target), "kind").digest
    assert pack(model, frame.join(target).iloc[1:], "kind").digest != one
