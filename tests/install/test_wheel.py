"""The wheel and the lock: complete, hashed, and all that a device needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

TREE = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PYPROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())
PLATFORMS = [
    (python, processor)
    for python in ("3.11", "3.12", "3.13")
    for processor in ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
]
PACKAGES = {
    "edge_contract": "contract", "edge_release": "release", "edge_pack": "packager",
    "edge_agent": "agent", "edge_fleet": "fleet",
}  # fmt: skip


def pins(name: str) -> dict[str, list[Version]]:
    """What a lock names: a distribution's versions (one a marker)."""
    found: dict[str, list[Version]] = {}
    for line in (TREE / "locks" / name).read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line):
            found.setdefault(match[1].lower(), []).append(Version(match[2]))
    return found


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("device.txt", PYPROJECT["project"]["dependencies"]),
        ("build.txt", PYPROJECT["build-system"]["requires"]),
        (
            "fleet.txt",
            [
                requirement
                for extra in ("fleet", "api", "postgres", "otel")
                for requirement in PYPROJECT["project"]["optional-dependencies"][extra]
                if not requirement.startswith("edge-pack[")
            ],
        ),
    ],
)
def test_the_lock_matches_pyproject(lock: str, wanted: list[str]) -> None:
    found = pins(lock)
    for line in wanted:
        requirement = Requirement(line)
        versions = found.get(requirement.name.lower(), [])
        assert versions, f"{lock} lacks {requirement.name}: make lock"
        assert all(requirement.specifier.contains(each) for each in versions), f"{line}: make lock"


@pytest.mark.parametrize("lock", ["device.txt", "build.txt", "fleet.txt"])
def test_the_lock_names_a_hash_for_everything_and_no_index(lock: str) -> None:
    text = (TREE / "locks" / lock).read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    assert len(entries) >= 5
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    assert "://" not in text
    assert "--index" not in text and "--find-links" not in text


@pytest.mark.slow
@pytest.mark.parametrize(("python", "processor"), PLATFORMS)
def test_the_lock_has_wheels_for(python: str, processor: str, tmp_path: Path) -> None:
    """uv resolves as for that machine, from the lock alone; nothing is downloaded but metadata."""
    done = subprocess.run(
        [
            BIN / "uv", "pip", "install", "--dry-run", "--require-hashes", "--only-binary", ":all:",
            "--python-version", python, "--python-platform", processor, "--target", tmp_path,
            "-r", TREE / "locks" / "device.txt",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "onnxruntime==" in done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, made from an sdist, which is made from the tree."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [BIN / "uv", "build", "--quiet", "--out-dir", folder, TREE],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        f"{package}/{path.relative_to(TREE / folder / package)}"
        for package, folder in PACKAGES.items()
        for path in (TREE / folder / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == wanted | {"edge_agent/agent.example.toml"}
    assert {"edge_agent/edge-agent.service", "edge_agent/py.typed"} <= names
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    assert {"locks/device.txt", "Dockerfile.edge", "agent/agent.example.toml", "LICENSE"} <= inside


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
def test_a_device_installs_the_lock_and_the_wheel_and_needs_no_more(
    dist: Path, tmp_path: Path
) -> None:
    (wheel,) = dist.glob("*.whl")
    place = tmp_path / "device"
    venv.create(place, with_pip=False)
    uv = [BIN / "uv", "pip"]
    python = ["--python", place / "bin/python"]
    for words in (
        ["install", *python, "--require-hashes", "--only-binary", ":all:", "-r",
         TREE / "locks/device.txt"],
        ["install", *python, "--no-deps", "--no-index", wheel],
        ["check", *python],
    ):  # fmt: skip
        done = subprocess.run([*uv, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for words in (["--version"], ["run", "--help"]):
        done = subprocess.run(
            [place / "bin/edge-agent", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    root = tmp_path / "root"
    root.mkdir()
    done = subprocess.run(
        [place / "bin/edge-agent", "install-service", "--prefix", root],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    unit = (root / "etc/systemd/system/edge-agent.service").read_text()
    assert f"ExecStart={place}/bin/edge-agent run" in unit
    example = (root / "etc/edge-agent/agent.example.toml").read_text()
    assert example == zipfile.ZipFile(wheel).read("edge_agent/agent.example.toml").decode()
