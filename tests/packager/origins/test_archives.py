"""A model in an archive or a folder: found, or refused for what the archive would do."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_contract.errors import InputFault
from edge_pack import origins
from edge_pack.origins import archives


def _tar(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return path


def test_a_sagemaker_archive_is_opened(load: Any, dumped: Path, tmp_path: Path) -> None:
    archive = _tar(
        tmp_path / "model.tar.gz",
        ("./model.joblib", dumped.read_bytes()),
        ("code/inference.py", b"print('never run')"),
        ("code/requirements.txt", b"scikit-learn"),
    )
    subject, said = load(archive)
    assert subject.model.n_features_in_ == 3
    assert said == ["model.joblib is a pickle: loading it runs code of whoever wrote it"]


def test_a_fetched_archive_needs_trust(load: Any, serve: Any, dumped: Path) -> None:
    address, folder = serve()
    _tar(folder / "model.tar.gz", ("model.joblib", dumped.read_bytes()))
    with pytest.raises(InputFault, match=r"model.tar.gz holds a pickle \(model.joblib\)"):
        load(f"{address}/model.tar.gz")
    assert load(f"{address}/model.tar.gz", trust=True)[0].kind == "joblib"


def test_a_vertex_folder_and_a_zip_are_opened(load: Any, dumped: Path, tmp_path: Path) -> None:
    assert load(dumped.parent)[0].kind == "joblib"
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as packed:
        packed.write(dumped, "deep/model.pkl")
    assert load(tmp_path / "m.zip")[0].kind == "pickle"


def test_several_models_are_listed_and_one_is_named(
    load: Any, dumped: Path, tmp_path: Path
) -> None:
    data = dumped.read_bytes()
    archive = _tar(tmp_path / "two.tar.gz", ("a/one.joblib", data), ("b/two.pkl", data))
    with pytest.raises(InputFault, match=r"holds 2 models: a/one.joblib, b/two.pkl") as fault:
        load(archive)
    assert fault.value.advice == f"Name one: {archive}#a/one.joblib"
    assert load(f"{archive}#b/two.pkl")[0].kind == "pickle"
    with pytest.raises(InputFault, match=r"holds no 'c.pkl'"):
        load(f"{archive}#c.pkl")
    with pytest.raises(InputFault, match=r"holds no '\.\./dumped/model.joblib'"):
        load(f"{archive}#../dumped/model.joblib")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("saved_model.pb", "tf2onnx"),
        ("model.pth", "torch.export"),
        ("model.h5", "model.keras"),
        ("notes.md", "Expected a file"),
    ],
)
def test_a_folder_without_a_model_says_what_to_do(
    name: str, way: str, load: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    (folder / "variables").mkdir(parents=True)
    (folder / name).write_bytes(b"x")
    with pytest.raises(InputFault, match=f"it holds {name}") as fault:
        load(folder)
    assert way in fault.value.advice


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("member", "finding"),
    [
        (("../outside.joblib", b"x"), "outside of its folder"),
        (("/etc/outside.joblib", b"x"), "outside of its folder"),
        (("a/../../outside.joblib", b"x"), "outside of its folder"),
        (("..\\outside.joblib", b"x"), "outside of its folder"),
        (_link("model.joblib", "/etc/passwd"), "is a link"),
        (_link("model.joblib", "other.joblib", tarfile.LNKTYPE), "is a link"),
        (_link("model.joblib", "", tarfile.CHRTYPE), "is no file"),
        (_link("model.joblib", "", tarfile.FIFOTYPE), "is no file"),
    ],
)
def test_a_tar_member_that_is_refused(member: Any, finding: str, tmp_path: Path) -> None:
    out = tmp_path / "inner" / "out"
    out.mkdir(parents=True)
    archive = _tar(tmp_path / "bad.tar.gz", ("fine.txt", b"fine"), member)
    with pytest.raises(InputFault, match=finding):
        archives.unpack(archive, out)
    everything = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}
    assert everything <= {"inner", "inner/out", "inner/out/fine.txt", "bad.tar.gz"}


def test_a_link_does_not_lead_a_later_member_out(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    archive = _tar(tmp_path / "bad.tar.gz", _link("d", str(tmp_path)), ("d/escaped.txt", b"x"))
    with pytest.raises(InputFault, match="is a link"):
        archives.unpack(archive, out)
    assert not (tmp_path / "escaped.txt").exists()


def test_a_member_that_stands_twice(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "twice.tar.gz", ("m.onnx", b"1"), ("./m.onnx", b"2"))
    with pytest.raises(InputFault, match="stands twice"):
        _unpack(archive, tmp_path)


def _unpack(archive: Path, tmp_path: Path, **limits: Any) -> Path:
    out = tmp_path / "out"
    out.mkdir(parents=True, exist_ok=True)
    archives.unpack(archive, out, **limits)
    return out


def test_a_bomb_ends_at_the_limit(tmp_path: Path) -> None:
    tar = _tar(tmp_path / "bomb.tar.gz", ("m.onnx", bytes(20_000_000)))
    assert tar.stat().st_size < 50_000
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("m.onnx", bytes(20_000_000))
    for archive in (tar, tmp_path / "bomb.zip"):
        with pytest.raises(InputFault, match="unpacks to more than 5000000 bytes"):
            _unpack(archive, tmp_path / archive.suffix[1:], size_max=5_000_000)


def test_a_header_that_is_a_bomb_is_not_read(tmp_path: Path) -> None:
    """A PAX header is read whole by tarfile: one that claims 3 GB must not be."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 3_000_000_000
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(10_000)))
    with pytest.raises(InputFault, match="a header claims"):
        _unpack(path, tmp_path)


def test_too_many_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as packed:
        for i in range(archives.MEMBERS_MAX + 1):
            packed.writestr(f"{i}/", b"")
    with pytest.raises(InputFault, match="more than 10000 members"):
        _unpack(tmp_path / "many.zip", tmp_path)


def test_a_zip_member_that_is_a_link(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as packed:
        info = zipfile.ZipInfo("model.joblib")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(InputFault, match="is a link"):
        _unpack(tmp_path / "link.zip", tmp_path)


def test_archives_cut_off_or_garbled_at_random(dumped: Path, tmp_path: Path) -> None:
    seed = 11
    rng = np.random.default_rng(seed)
    tar = _tar(tmp_path / "m.tar.gz", ("model.joblib", dumped.read_bytes()))
    packed = tmp_path / "m.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(dumped, "model.joblib")
    for round_, archive in enumerate([tar, packed] * 40):
        whole = bytearray(archive.read_bytes())
        if round_ % 4 < 2:
            whole = whole[: int(rng.integers(len(whole)))]
        else:
            for _ in range(3):
                whole[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        broken = tmp_path / f"broken{round_}{'.zip' if archive == packed else '.tar.gz'}"
        broken.write_bytes(whole)
        try:
            with origins.resolve(broken, print) as origin:
                assert origin.path.is_file()
        except InputFault:
            continue


def test_content_counts_and_not_the_name(load: Any, dumped: Path, tmp_path: Path) -> None:
    for name, finding in [
        ("model.onnx", "named .onnx but is a pickle; nothing of it was run"),
        ("model.skops", "named .skops but is a pickle"),
        ("model.keras", "named .keras but is a pickle"),
    ]:
        path = tmp_path / name
        path.write_bytes(pickle.dumps({"a": 1}))
        with pytest.raises(InputFault, match=finding):
            load(path)
    with zipfile.ZipFile(tmp_path / "model.joblib", "w") as packed:
        packed.writestr("schema.json", "{}")
    with pytest.raises(InputFault, match=r"named .joblib but is a zip archive"):
        load(tmp_path / "model.joblib")


def test_a_file_without_a_suffix_is_known_by_content(load: Any, model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "sagemaker"
    folder.mkdir()
    (folder / "xgboost-model").write_bytes(pickle.dumps(model))
    (folder / "config.json").write_text('{"learner_of": 1}')
    assert load(folder)[0].kind == "pickle"
    size = struct.pack(">q", 7)
    (folder / "xgboost-model").write_bytes(b"{L" + size + b"learner{}}")
    with origins.resolve(folder, print) as origin:
        assert origin.path.suffix == ".ubj"
