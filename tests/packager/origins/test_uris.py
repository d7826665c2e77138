"""A model from a URI: fetched, bounded, distrusted, and written down without its secrets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import fsspec
import joblib
import pytest
import skops.io

from edge_contract.errors import InputFault, MachineFault, PeerFault
from edge_pack import origins
from edge_pack.origins import archives, fetching, uris


def test_a_pickle_from_a_web_server_needs_trust(load: Any, serve: Any, model: Any) -> None:
    address, folder = serve()
    joblib.dump(model, folder / "model.joblib")
    with pytest.raises(InputFault, match="runs code of whoever wrote it") as fault:
        load(f"{address}/model.joblib")
    assert "--trust" in fault.value.advice
    subject, said = load(f"{address}/model.joblib", trust=True)
    assert subject.kind == "joblib" and subject.model.n_features_in_ == 3
    assert any("trusted because of --trust" in text for text in said)
    assert any("http://" in text and "alter" in text for text in said)


def test_a_skops_file_from_a_web_server_needs_none(load: Any, serve: Any, model: Any) -> None:
    address, folder = serve()
    skops.io.dump(model, folder / "model.skops")
    assert load(f"{address}/model.skops")[0].kind == "skops"


def test_a_refused_pickle_is_not_run(load: Any, serve: Any, tmp_path: Path) -> None:
    address, folder = serve()
    joblib.dump(_Touches(tmp_path / "touched"), folder / "model.pkl")
    with pytest.raises(InputFault, match="--trust"):
        load(f"{address}/model.pkl")
    assert not (tmp_path / "touched").exists()


class _Touches:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self._path,)


def test_nothing_is_left_of_what_was_fetched(serve: Any, dumped: Path, temporary: Path) -> None:
    address, folder = serve()
    (folder / "model.joblib").write_bytes(dumped.read_bytes())
    with origins.resolve(f"{address}/model.joblib", print) as origin:
        assert origin.path.read_bytes() == dumped.read_bytes()
        assert list(temporary.iterdir())
        assert not origin.named_by_user
    assert not list(temporary.iterdir())


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_an_absent_file_and_an_absent_server(serve: Any, load: Any, temporary: Path) -> None:
    address, _ = serve()
    with pytest.raises(InputFault, match=r"there is nothing at .*/absent.onnx"):
        load(f"{address}/absent.onnx")
    with pytest.raises(PeerFault, match=r"cannot fetch http://127.0.0.1:1/m.onnx"):
        load("http://127.0.0.1:1/m.onnx")
    assert not list(temporary.iterdir())


def test_a_folder_of_a_store_is_fetched_whole(load: Any, dumped: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/pump/1/model.joblib", dumped.read_bytes())
    store.pipe("/bucket/pump/1/notes.txt", b"trained in spring")
    subject, _ = load("memory://bucket/pump/1", trust=True)
    assert subject.model.n_features_in_ == 3
    with pytest.raises(InputFault, match="nothing at memory://bucket/pump/2"):
        load("memory://bucket/pump/2", trust=True)


def test_a_fetch_is_bounded_and_tells_its_progress(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/large.onnx", bytes(3_000_000))
    seen: list[tuple[int, int | None]] = []
    path = fetching.fetch("memory://large.onnx", tmp_path, lambda *at: seen.append(at))
    assert path.stat().st_size == 3_000_000
    assert seen[-1] == (3_000_000, 3_000_000) and len(seen) >= 3
    with pytest.raises(InputFault, match="over the limit of 2999999 bytes"):
        fetching.fetch("memory://large.onnx", tmp_path, lambda *_at: None, size_max=2_999_999)


def test_a_size_that_the_server_does_not_say_is_counted(serve: Any, tmp_path: Path) -> None:
    """HTTP/1.0 without a length: only counting while reading bounds it."""
    import http.server
    import threading

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(64):
                    self.wfile.write(bytes(1024**2))
            except OSError:
                pass

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(InputFault, match="over the limit of 5000000 bytes"):
            uri = f"http://127.0.0.1:{server.server_address[1]}/m.onnx"
            fetching.fetch(uri, tmp_path, lambda *_at: None, size_max=5_000_000)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("uri", "written"),
    [
        ("https://user:secret@host/m.onnx?X-Sig=abc#part", "https://host/m.onnx#part"),
        ("https://token@host:8443/m.onnx", "https://host:8443/m.onnx"),
        ("s3://key:secret@bucket/a/b.onnx?versionId=7", "s3://bucket/a/b.onnx"),
        ("abfs://models@account.dfs.core.windows.net/m.onnx?sig=x",
         "abfs://models@account.dfs.core.windows.net/m.onnx"),
        ("mlflow:models:/pump@champion", "mlflow:models:/pump@champion"),
    ],
)  # fmt: skip
def test_what_is_written_down_holds_no_secret(uri: str, written: str) -> None:
    assert uris.recorded(uri) == written
    said = uris.without_secrets(f"403, url='{uri}'", uri)
    assert "secret" not in said and "abc" not in said and "token" not in said


def test_a_failure_tells_no_secret(load: Any) -> None:
    with pytest.raises(PeerFault) as fault:
        load("http://user:hunter2@127.0.0.1:1/m.onnx?sig=hunter3")
    assert "hunter" not in str(fault.value)


@pytest.mark.parametrize("uri", ["ftp://host/m.onnx", "simplecache::s3://b/m.onnx", "hf://a/b"])
def test_a_scheme_that_nothing_reads(uri: str, load: Any) -> None:
    with pytest.raises(InputFault, match="no place this reads a model from") as fault:
        load(uri)
    assert "s3://" in fault.value.advice and "mlflow:models:/" in fault.value.advice


def test_a_missing_driver_is_named(load: Any) -> None:
    for uri, driver in [("gs://bucket/m.onnx", "gcsfs"), ("az://box/m.onnx", "adlfs")]:
        if driver in sys.modules:
            continue
        with pytest.raises(MachineFault, match=f"needs {driver}") as fault:
            load(uri)
        assert fault.value.advice == f"Install it with: pip install {driver}"


def test_a_file_uri_is_the_users_own_path(load: Any, dumped: Path) -> None:
    subject, said = load(dumped.as_uri())
    assert subject.kind == "joblib"
    assert said == ["model.joblib is a pickle: loading it runs code of whoever wrote it"]


def test_a_path_with_a_hash_in_its_name_is_a_path(load: Any, dumped: Path) -> None:
    odd = dumped.with_name("model#2.joblib")
    odd.write_bytes(dumped.read_bytes())
    assert load(str(odd))[0].kind == "joblib"


def test_an_archive_is_known_by_its_name() -> None:
    assert archives.is_archive(Path("a/model.tar.gz")) and archives.is_archive(Path("M.ZIP"))
    assert not archives.is_archive(Path("model.gz"))
