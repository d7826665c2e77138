"""Models from a real MLflow registry (SQLite), MLmodel folders and a real S3 server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from edge_contract import bundle as bundles
from edge_contract.errors import InputFault, PeerFault
from edge_pack import BuildConfig, build, origins
from edge_pack.origins import mlmodel


@dataclass(frozen=True)
class Registry:
    """A registry with the model ``pump``: version 1 as skops, 2 as a cloudpickle, @champion."""

    uri: str
    run_id: str


@pytest.fixture(scope="session")
def registry(
    tmp_path_factory: pytest.TempPathFactory, model: Any, frame: pd.DataFrame
) -> Iterator[Registry]:
    pytest.importorskip("mlflow")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow
    from mlflow.models import infer_signature

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/registry.db"
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.create_experiment("pumps", artifact_location=(folder / "files").as_uri())
    signature = infer_signature(frame, model.predict(frame))
    pins = ["scikit-learn==1.2.2", "numpy"]
    with mlflow.start_run(experiment_id=experiment) as run:
        for form in ("skops", "cloudpickle"):
            mlflow.sklearn.log_model(
                model, name="model", signature=signature, registered_model_name="pump",
                pip_requirements=pins, serialization_format=form,
            )  # fmt: skip
    mlflow.MlflowClient().set_registered_model_alias("pump", "champion", "1")
    mlflow.set_tracking_uri(None)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    yield Registry(uri, run.info.run_id)
    del os.environ["MLFLOW_TRACKING_URI"]


@pytest.mark.parametrize(
    ("uri", "registered"),
    [
        ("mlflow:models:/pump/1", "pump/1"),
        ("mlflow:models:/pump@champion", "pump/1"),
        ("mlflow:runs:/{run}/model", ""),
    ],
)
def test_a_registered_model_is_fetched(uri: str, registered: str, registry: Registry) -> None:
    uri = uri.format(run=registry.run_id)
    with origins.resolve(uri, print) as origin:
        assert (origin.uri, origin.registered, origin.run_id) == (uri, registered, registry.run_id)
        assert origin.flavour == "sklearn" and not origin.named_by_user
        assert origin.columns == ("a", "b", "c")
        path = origin.path
    assert not path.exists()


def test_a_cloudpickle_from_a_registry_needs_trust(registry: Registry, load: Any) -> None:
    with pytest.raises(InputFault, match=r"mlflow:models:/pump/2 holds a pickle \(model.pkl\)"):
        load("mlflow:models:/pump/2")
    subject, said = load("mlflow:models:/pump/2", trust=True)
    assert subject.model.n_features_in_ == 3
    # The flavour's own version is this one; the requirements' older pin does not overrule it.
    assert not any("saved by" in text for text in said)


def test_latest_is_the_highest_version(registry: Registry) -> None:
    with origins.resolve("mlflow:models:/pump/latest", print) as origin:
        assert origin.registered == "pump/2"


@pytest.mark.parametrize(
    "uri",
    ["mlflow:models:/pump/7", "mlflow:models:/absent/1", "mlflow:models:/pump@nobody",
     "mlflow:models:/pump/newest", "mlflow:experiments:/0"],
)  # fmt: skip
def test_what_a_registry_does_not_have(uri: str, registry: Registry, load: Any) -> None:
    with pytest.raises(InputFault) as fault:
        load(uri)
    assert "mlflow:" in fault.value.what


def test_a_registry_model_builds_and_its_manifest_names_it(
    registry: Registry, frame: pd.DataFrame, tmp_path: Path
) -> None:
    data = tmp_path / "rows.csv"
    frame[["c", "a", "b"]].to_csv(data, index=False)
    out = tmp_path / "pump.edgepack"
    built = build(
        BuildConfig(
            model="mlflow:models:/pump@champion", data=data, name="pump", version="1.0", out=out,
            measure=False,
        )
    )  # fmt: skip
    provenance = bundles.read(out.read_bytes()).manifest.provenance
    assert provenance.source_uri == "mlflow:models:/pump@champion"
    assert (provenance.registered, provenance.run_id) == ("pump/1", registry.run_id)
    assert provenance.source_type == "skops" and built.manifest.parity.flips == 0


def _mlmodel(folder: Path, flavours: str, columns: str = "") -> Path:
    folder.mkdir()
    signature = f"signature:\n  inputs: '{columns}'\n" if columns else ""
    (folder / "MLmodel").write_text(f"flavors:\n{flavours}\nrun_id: abc123\n{signature}")
    return folder


def test_a_local_mlmodel_folder_is_the_users_own(
    model: Any, load: Any, tmp_path: Path, frame: pd.DataFrame
) -> None:
    folder = _mlmodel(
        tmp_path / "m",
        "  sklearn:\n    pickled_model: model.pkl\n    sklearn_version: 0.24.1",
    )
    joblib.dump(model, folder / "model.pkl")
    subject, said = load(folder)
    assert subject.model.n_features_in_ == frame.shape[1]
    assert any("saved by scikit-learn 0.24.1, loaded by" in text for text in said)
    with origins.resolve(folder, print) as origin:
        assert origin.run_id == "abc123" and origin.named_by_user


def test_columns_by_place_come_in_the_signatures_order(tmp_path: Path) -> None:
    """A model without names of its own, and a file whose columns stand in another order."""
    rng = np.random.default_rng(8)
    frame = pd.DataFrame(np.round(rng.normal(size=(80, 2)), 2), columns=["a", "b"])
    model = LogisticRegression().fit(frame.to_numpy(), (frame.a > 3 * frame.b).astype(int))
    names = '[{"type": "double", "name": "a"}, {"type": "double", "name": "b"}]'
    folder = _mlmodel(tmp_path / "m", "  sklearn:\n    pickled_model: model.skops", names)
    skops.io.dump(model, folder / "model.skops")
    data = tmp_path / "rows.csv"
    frame.assign(site="x")[["b", "site", "a"]].to_csv(data, index=False)
    config = BuildConfig(
        model=folder, data=data, name="m", version="1", out=tmp_path / "m.edgepack", measure=False
    )
    assert [feature.name for feature in build(config).manifest.features] == ["a", "b"]
    frame[["b"]].to_csv(data, index=False)
    with pytest.raises(InputFault, match=r"lacks 'a', which the model's MLflow signature names"):
        build(config)


@pytest.mark.parametrize(
    ("flavours", "finding"),
    [
        ("  pytorch:\n    model_data: data", "the flavour pytorch"),
        ("  sklearn:\n    pickled_model: ../x.pkl", "outside of the folder"),
        ("  sklearn:\n    pickled_model: gone.pkl", "lacks 'gone.pkl'"),
        ("  ? [", "not readable YAML"),
        ("", "names no flavour"),
    ],
)
def test_an_mlmodel_folder_that_is_refused(flavours: str, finding: str, tmp_path: Path) -> None:
    folder = _mlmodel(tmp_path / "m", flavours)
    (tmp_path / "x.pkl").write_bytes(b"")
    with pytest.raises(InputFault, match=finding):
        mlmodel.read(folder)


def test_a_flavour_that_runs_no_code_comes_first(tmp_path: Path) -> None:
    folder = _mlmodel(
        tmp_path / "m",
        "  sklearn:\n    pickled_model: model.pkl\n  onnx:\n    data: model.onnx",
    )
    (folder / "model.onnx").write_bytes(b"")
    assert mlmodel.read(folder).flavour == "onnx"


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
def test_a_boosters_own_file_is_known_whatever_mlflow_calls_it(
    library: str, frame: pd.DataFrame, load: Any, tmp_path: Path
) -> None:
    pytest.importorskip(library)
    label = (frame.a > 20).astype(int)
    file = {"xgboost": "model.xgb", "lightgbm": "model.lgb", "catboost": "model.cb"}[library]
    folder = _mlmodel(tmp_path / "m", f"  {library}:\n    data: {file}")
    if library == "xgboost":
        import xgboost

        booster = xgboost.train({}, xgboost.DMatrix(frame, label), 2)
        (folder / file).write_bytes(bytes(booster.save_raw("ubj")))
    elif library == "lightgbm":
        import lightgbm

        data = lightgbm.Dataset(frame, label)
        lightgbm.train({"verbose": -1}, data, 2).save_model(folder / file)
    else:
        import catboost

        catboost.CatBoostClassifier(iterations=2, verbose=0, allow_writing_files=False).fit(
            frame, label
        ).save_model(str(folder / file))
    subject, said = load(folder)
    assert subject.kind.startswith(library) and not any("pickle" in text for text in said)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A real S3-compatible server on loopback, with an empty bucket ``models``."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, server_module.DomainDispatcherApplication(
        server_module.create_backend_app), threaded=True)  # fmt: skip
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="models")
    yield client
    server.shutdown()


def test_a_model_in_s3_is_fetched(s3: Any, dumped: Path, load: Any) -> None:
    s3.upload_file(str(dumped), "models", "pump/3/model.joblib")
    with pytest.raises(InputFault, match="--trust"):
        load("s3://models/pump/3/model.joblib")
    for uri in ("s3://models/pump/3/model.joblib", "s3://models/pump/3"):
        assert load(uri, trust=True)[0].model.n_features_in_ == 3
    with pytest.raises((InputFault, PeerFault), match="s3://models/pump/4") as fault:
        load("s3://models/pump/4/model.joblib")
    assert "hunter2" not in str(fault.value)


_FETCH = """
import sys, tempfile
from edge_contract.ports import command
from edge_pack import origins
tempfile.tempdir = sys.argv[2]
def main():
    def progress(done, total):
        print("fetching", flush=True)
    with origins.resolve(sys.argv[1], print, progress):
        pass
command.run(main)
"""


def test_an_interrupted_fetch_leaves_nothing(tmp_path: Path) -> None:
    """A server that sends a part and then nothing; Ctrl-C while the rest is awaited."""
    import http.server

    done = threading.Event()

    class Stalls(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(3 * 1024**2))
            self.wfile.flush()
            done.wait(60)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stalls)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = tmp_path / "temporary"
    folder.mkdir()
    uri = f"http://127.0.0.1:{server.server_address[1]}/model.onnx"
    child = subprocess.Popen(
        [sys.executable, "-c", _FETCH, uri, str(folder)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        while "fetching" not in child.stdout.readline():
            assert child.poll() is None
        assert list(folder.iterdir())
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
    finally:
        done.set()
        child.kill()
        server.shutdown()
        server.server_close()
    assert child.returncode == 130 and "interrupted" in said and "Traceback" not in said
    assert not list(folder.iterdir())


def test_a_folder_that_was_moved_is_read_from_where_it_is(
    model: Any, load: Any, tmp_path: Path
) -> None:
    folder = _mlmodel(tmp_path / "m", "  sklearn:\n    pickled_model: model.pkl")
    joblib.dump(model, folder / "model.pkl")
    shutil.move(folder, tmp_path / "moved")
    assert load(tmp_path / "moved")[0].kind == "pickle"
