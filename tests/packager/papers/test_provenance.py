"""Where a bundle came from: found where it can be, never guessed, the same in every folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
import typer
import yaml
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_contract.manifest import Provenance
from edge_pack import BuildConfig
from edge_pack.cli import app
from edge_pack.frameworks.onnx_ import Graph
from edge_pack.frameworks.sklearn_ import Estimator
from edge_pack.origins import Origin
from edge_pack.papers import dvc, libraries, provenance
from edge_pack.papers import git as gits
from edge_pack.papers.command import LEFT_OUT, command_of

Git = Callable[..., str]


@pytest.fixture
def repository(tmp_path: Path, git: Git) -> Path:
    """A repository with one commit that holds a file, and a model that it does not track."""
    folder = tmp_path / "repository"
    (folder / "models").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "train.py").write_text("one\n")
    git(folder, "add", "train.py")
    git(folder, "commit", "-q", "-m", "first")
    (folder / "models" / "model.bin").write_bytes(b"weights")
    return folder


def _find(model: Path, data: Path | None = None) -> provenance.Found:
    said: list[str] = []
    found = provenance.find(Origin(model, named=model), data, said.append)
    assert not said
    return found


def test_the_commit_is_that_of_the_models_folder(repository: Path, git: Git) -> None:
    head = git(repository, "rev-parse", "HEAD")
    found = _find(repository / "models" / "model.bin")
    assert (found.commit, found.dirty) == (head, False)
    (repository / "train.py").write_text("two\n")
    assert _find(repository / "models" / "model.bin").dirty


def test_the_datas_folder_comes_second_and_the_current_one_never(
    repository: Path, git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "model.bin"
    outside.write_bytes(b"weights")
    monkeypatch.chdir(repository)
    assert _find(outside).commit == ""
    assert _find(outside, repository / "train.py").commit == git(repository, "rev-parse", "HEAD")


def test_the_callers_git_variables_do_not_redirect_the_question(
    repository: Path, tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    found = gits.commit_of(repository)
    monkeypatch.undo()
    assert found is not None and found.digest == git(repository, "rev-parse", "HEAD")


def test_odd_repositories_and_no_git_at_all_are_no_commit(
    repository: Path, tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    broken = tmp_path / "broken"
    (broken / ".git").mkdir(parents=True)
    (broken / ".git" / "HEAD").write_text("ref: nowhere\n")
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / ".git").write_text("gitdir: /does/not/exist\n")
    for folder in (empty, broken, torn, tmp_path):
        assert gits.commit_of(folder) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gits.commit_of(repository) is None


def test_asking_runs_no_hook_and_no_monitor_of_the_repository(
    repository: Path, git: Git, tmp_path: Path
) -> None:
    trap = tmp_path / "ran"
    script = tmp_path / "monitor"
    script.write_text(f"#!/bin/sh\ntouch {trap}\n")
    script.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(script))
    assert gits.commit_of(repository) is not None
    assert not trap.exists()


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_dvc_entries_are_recorded_where_they_fit_the_file(tmp_path: Path) -> None:
    model, data = tmp_path / "models" / "m.joblib", tmp_path / "rows.csv"
    model.parent.mkdir()
    model.write_bytes(b"model")
    data.write_bytes(b"a\n1\n")
    stages = {"train": {"cmd": "python train.py", "outs": [
        {"path": "models/m.joblib", "hash": "md5", "md5": _md5(model), "size": 5}]}}  # fmt: skip
    lock = tmp_path / "dvc.lock"
    lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    entry = {"outs": [{"path": "rows.csv", "hash": "md5", "md5": _md5(data)}]}
    (tmp_path / "rows.csv.dvc").write_text(yaml.safe_dump(entry))
    ours, theirs = _find(model, data).tracked
    assert (ours.role, ours.md5, ours.record, ours.stage) == (
        "model", _md5(model), "dvc.lock", "train",
    )  # fmt: skip
    assert ours.record_sha256 == hashlib.sha256(lock.read_bytes()).hexdigest()
    assert (theirs.role, theirs.record, theirs.stage) == ("data", "rows.csv.dvc", "")

    model.write_bytes(b"other")
    said: list[str] = []
    assert dvc.tracked("model", model, said.append) is None
    assert "dvc.lock names another content of m.joblib" in said[0]


@pytest.mark.parametrize(
    "text",
    ["", "[1, 2", "a: &a [*a]", "stages: 3", "stages: {train: {outs: 3}}", "outs: {path: m}",
     "!!python/object/apply:os.system ['true']", "x" * (1024**2 + 1), "stages: {t: {outs: [3]}}",
     "[" * 5000],
)  # fmt: skip
def test_a_record_that_nobody_can_read_is_no_record(tmp_path: Path, text: str) -> None:
    model = tmp_path / "m"
    model.write_bytes(b"model")
    (tmp_path / "dvc.lock").write_text(text)
    (tmp_path / "m.dvc").write_text(text)
    assert _find(model).tracked == ()


def test_the_run_is_read_from_the_mlmodel_beside_the_model(tmp_path: Path) -> None:
    model = tmp_path / "model.pkl"
    model.write_bytes(b"model")
    (tmp_path / "MLmodel").write_text("flavors: {}\nrun_id: 0a1b2c\nmodel_id: m-1\n")
    assert _find(model).run_id == "0a1b2c"
    (tmp_path / "MLmodel").write_text("run_id: null\n")
    assert _find(model).run_id == ""
    (tmp_path / "MLmodel").write_bytes(b"\xff\xfe")
    assert _find(model).run_id == ""


def test_versions_are_those_of_the_models_own_libraries() -> None:
    voting = VotingClassifier([("a", make_pipeline(StandardScaler(), LogisticRegression()))])
    assert "sklearn" in libraries.packages_of(Estimator("joblib", "", voting))
    found = libraries.versions_for(Estimator("joblib", "", LogisticRegression()))
    assert {"scikit-learn", "numpy", "edge-pack"} <= set(found) and "torch" not in found
    assert list(found) == sorted(found)
    import onnx

    plain = libraries.versions_for(Graph("", onnx.ModelProto()))
    assert "scikit-learn" not in plain and plain["onnx"] == onnx.__version__


def test_a_booster_inside_a_pipeline_is_named_too() -> None:
    xgboost = pytest.importorskip("xgboost")
    inner = make_pipeline(StandardScaler(), xgboost.XGBClassifier())
    found = libraries.packages_of(Estimator("joblib", "", VotingClassifier([("x", inner)])))
    assert {"sklearn", "xgboost"} <= found


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "catboost"])
def test_a_native_booster_names_its_library(kind: str, tmp_path: Path) -> None:
    pytest.importorskip(kind)
    from edge_pack import sources

    rng = np.random.default_rng(4)
    rows, truth = rng.normal(size=(40, 2)), rng.integers(0, 2, 40)
    path = tmp_path / {"xgboost": "m.json", "lightgbm": "m.txt", "catboost": "m.cbm"}[kind]
    if kind == "xgboost":
        import xgboost

        xgboost.XGBClassifier(n_estimators=2, max_depth=2).fit(rows, truth).save_model(path)
    elif kind == "lightgbm":
        import lightgbm

        train = lightgbm.Dataset(rows, truth)
        lightgbm.train({"verbose": -1}, train, num_boost_round=2).save_model(str(path))
    else:
        import catboost

        model = catboost.CatBoostClassifier(
            iterations=2, depth=2, verbose=False, allow_writing_files=False
        )
        model.fit(rows, truth).save_model(str(path))
    found = libraries.versions_for(sources.load(path, lambda _text: None))
    named = {"xgboost": {"xgboost", "xgboost-cpu"}}.get(kind, {kind})
    assert len(named & set(found)) == 1
    assert not {"xgboost", "xgboost-cpu", "lightgbm", "catboost"} & set(found) - named


def _config(folder: Path, **options: Any) -> BuildConfig:
    given = {
        "model": folder / "m.joblib", "data": folder / "rows.csv", "name": "m", "version": "1",
        "out": folder / "m.edgepack",
    }  # fmt: skip
    return BuildConfig(**{**given, **options})


def test_the_command_holds_no_folder_and_no_secret(tmp_path: Path) -> None:
    here = command_of(_config(tmp_path / "here"))
    assert here == command_of(_config(tmp_path / "there", keys=tmp_path, measure=False))
    assert here[:2] == ("build", "m.joblib") and str(tmp_path) not in " ".join(here)
    local = command_of(_config(tmp_path, model=f"{tmp_path.as_uri()}/a.tar.gz#m.onnx"))
    assert local[:2] == ("build", "a.tar.gz#m.onnx")
    said = " ".join(
        command_of(_config(tmp_path, model="https://me:secret@host/m.onnx?sig=token", target="y"))
    )
    assert "https://host/m.onnx" in said and "--target y" in said
    assert "secret" not in said and "token" not in said


def test_the_recorded_command_is_one_that_the_command_line_takes(tmp_path: Path) -> None:
    options = {
        "target": "y", "time_column": "t", "max_flips": 0.01, "max_diff": 0.2, "runtime": ">=1.20",
        "force": True, "trust": True, "commit": "abc", "run_id": "r", "strict_data": True,
        "require": ("accuracy>=0.5", "r2>=0"), "slices": ("a", "b"),
        "task": "classification", "labels": ("x", "y"), "device": "pi4",
    }  # fmt: skip
    words = list(command_of(_config(tmp_path, **options)))
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    parsed = group.commands[
        "build"
    ].make_context(  # type: ignore[attr-defined]
        "build", [*words[1:], "-o", "m.edgepack"]
    )
    values = parsed.params
    assert (values["target"], values["time_column"], values["commit"]) == ("y", "t", "abc")
    assert values["force"] and values["trust"] and values["strict_data"]
    assert values["labels"] == "x,y"
    assert [list(values[n]) for n in ("require", "slices")] == [
        list(options["require"]), list(options["slices"]),
    ]  # fmt: skip


def test_every_field_of_a_build_is_in_the_command_or_left_out_for_a_reason() -> None:
    from dataclasses import fields

    group = typer.main.get_command(app)
    options = {
        word
        for parameter in group.commands["build"].params  # type: ignore[attr-defined]
        for word in parameter.opts
    }
    for field in fields(BuildConfig):
        if field.name not in LEFT_OUT:
            name = {"slices": "slice"}.get(field.name, field.name).replace("_", "-")
            assert f"--{name}" in options, field.name


def _small(make: Any, folder: Path, **options: Any) -> Any:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"a": np.round(rng.normal(size=60), 2)})
    truth = (frame.a > 0).astype(int).rename("y")
    folder.mkdir(parents=True, exist_ok=True)
    model = LogisticRegression().fit(frame, truth)
    return make(model, frame.join(truth), "y", folder=folder, measure=False, **options)


def test_a_build_in_a_repository_says_its_commit_unless_told_not_to(
    make: Any, repository: Path, git: Git, tmp_path: Path
) -> None:
    head = git(repository, "rev-parse", "HEAD")
    one = _small(make, repository / "models")
    source: Provenance = one.bundle.manifest.provenance
    assert (source.commit, source.dirty) == (head, False)
    assert source.command[:2] == ("build", "model.joblib") and source.python
    named = _small(make, repository / "models", commit="v1.2").bundle.manifest.provenance
    assert (named.commit, named.dirty) == ("v1.2", False)
    quiet = _small(make, repository / "models", provenance=False).bundle.manifest.provenance
    assert (quiet.commit, quiet.command, quiet.tracked) == ("", (), ())

    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(repository), str(copy))
    assert _small(make, copy / "elsewhere").bundle.manifest_bytes == one.bundle.manifest_bytes
