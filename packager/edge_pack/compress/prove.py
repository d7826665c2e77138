"""Runs the golden samples under the oldest ONNX Runtime that the devices may have.

Guards: what is proven is that release's own wheel with nothing of ours around it but numpy, in an
environment of its own that is kept for the next build; a release that this Python cannot install
is refused by name, never replaced by a newer one.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import venv
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_contract import golden as goldens
from edge_contract.errors import BuildFault, InputFault, MachineFault
from edge_contract.golden import Array
from edge_contract.typed import json_decoder
from edge_pack import processes

INSTALL_TIMEOUT_S = 900.0
RUN_TIMEOUT_S = 300.0
_NUMPY_2 = (1, 19)
"""Wheels before this one were built for numpy 1 and fail to load with numpy 2."""
_LISTED = re.compile(r"from versions: ([^)]*)\)")

_CHILD = """
import base64, json, platform, sys
import numpy, onnxruntime
golden = json.load(open(sys.argv[2], encoding="utf-8"))
feeds = {}
for item in golden["inputs"]:
    if item["dtype"] == "string":
        flat = numpy.array(item.get("text", []), dtype=object)
    else:
        kind = numpy.dtype(item["dtype"]).newbyteorder("<")
        flat = numpy.frombuffer(base64.b64decode(item.get("data", "")), dtype=kind)
        flat = flat.astype(item["dtype"])
    feeds[item["name"]] = flat.reshape(item["shape"])
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = 1
if platform.machine() in ("x86_64", "AMD64", "i386", "i686"):
    options.add_session_config_entry("session.x64quantprecision", "1")
session = onnxruntime.InferenceSession(
    sys.argv[1], options, providers=["CPUExecutionProvider"]
)
names = [output.name for output in session.get_outputs()]
found = []
for name, value in zip(names, session.run(names, feeds)):
    value = numpy.asarray(value)
    item = {"name": name, "shape": list(value.shape)}
    if value.dtype.kind in "OUS":
        item.update(dtype="string", text=[str(cell) for cell in value.ravel().tolist()])
    else:
        little = numpy.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"))
        data = base64.b64encode(little.tobytes()).decode()
        item.update(dtype=value.dtype.name, data=data)
    found.append(item)
json.dump({"version": onnxruntime.__version__, "outputs": found}, sys.stdout)
"""
"""Nothing of this package is there: the environment holds that runtime and numpy alone."""


class _Said(msgspec.Struct, frozen=True):
    version: str
    outputs: tuple[Array, ...]


def prove(model: bytes, golden: bytes, floor: str, cache: Path | None = None) -> str:
    """The release under which the model gave the golden outputs, such as ``1.18.0``.

    Args:
        golden: the member ``golden.json``. floor: such as ``>=1.18``.
        cache: where environments are kept; None takes the user's cache directory.

    Raises:
        InputFault: that release has no wheel for this Python.
        BuildFault: that release cannot run the model, or answers otherwise.
        MachineFault: the environment cannot be made, for one without a network.
    """
    release = release_of(floor)
    python = environment(release, cache or cache_folder())
    with tempfile.TemporaryDirectory(prefix="edge-pack-") as folder:
        paths = [Path(folder) / "model.onnx", Path(folder) / "golden.json"]
        for path, data in zip(paths, (model, golden), strict=True):
            path.write_bytes(data)
        done = processes.run(
            [str(python), "-I", "-c", _CHILD, *map(str, paths)],
            f"running the golden samples under onnxruntime {release}",
            RUN_TIMEOUT_S,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        )
    if done.code:
        raise _refused(release, [done.complaint])
    said = json_decoder(_Said).decode(done.out)
    if said.version != release:
        raise MachineFault(
            f"the environment {python.parent.parent} holds onnxruntime {said.version}, not "
            f"{release}",
            advice="Remove that folder and build again.",
        )
    outputs: Mapping[str, NDArray[Any]] = {
        array.name: np.asarray(goldens.unpack(array)) for array in said.outputs
    }
    findings = goldens.compare(goldens.decode(golden), outputs, platform.machine())
    if findings:
        raise _refused(release, list(findings))
    return release


def _refused(release: str, findings: list[str]) -> BuildFault:
    listed = "\n".join(f"  {finding[:300]}" for finding in findings)
    return BuildFault(
        f"the bundle does not hold under onnxruntime {release}:\n{listed}",
        advice="Name a newer --runtime and update the devices, or take another form with "
        "--quantize none.",
    )


def release_of(floor: str) -> str:
    """The oldest release of a floor in full: ``>=1.18`` is 1.18.0."""
    version = floor.strip().removeprefix(">=").strip()
    return version if version.count(".") == 2 else f"{version}.0"


def cache_folder() -> Path:
    """Where environments are kept: below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-pack/runtimes"


def environment(release: str, cache: Path) -> Path:
    """The Python of an environment with that release: a kept one, or made now.

    Raises InputFault or MachineFault when it cannot be made; then nothing is left of it.
    """
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    folder = cache / f"onnxruntime-{release}-{tag}"
    if not _python(folder).exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as made:
                inside = Path(made) / "env"
                venv.create(inside, with_pip=True)
                _install(inside, release)
                with suppress(FileExistsError):  # another build was quicker
                    inside.rename(folder)
        except (OSError, CalledProcessError) as error:
            raise MachineFault(
                f"no environment for onnxruntime {release} could be made in {cache}: {error}",
                advice="Python needs its venv and ensurepip modules (python3-venv on Debian), "
                "and the folder must be writable.",
            ) from error
    return _python(folder)


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _install(folder: Path, release: str) -> None:
    """The runtime with numpy alone: its other dependencies serve tools that are not used."""
    older = tuple(int(part) for part in release.split(".")[:2]) < _NUMPY_2
    done = processes.run(
        [
            str(_python(folder)), "-I", "-m", "pip", "install", "--no-deps", "--no-input",
            "--disable-pip-version-check", "--only-binary", ":all:",
            f"onnxruntime=={release}", "numpy<2" if older else "numpy",
        ],
        f"installing onnxruntime {release}",
        INSTALL_TIMEOUT_S,
    )  # fmt: skip
    if done.code:
        raise _not_installed(release, done.err.decode(errors="replace"))


def _not_installed(release: str, said: str) -> InputFault | MachineFault:
    listed = _LISTED.search(said)
    versions = [] if listed is None else [text.strip() for text in listed[1].split(",")]
    versions = [text for text in versions if re.fullmatch(r"\d+\.\d+(\.\d+)?", text)]
    here = f"Python {platform.python_version()} on {platform.machine()}"
    if versions and release not in versions:
        return InputFault(
            f"onnxruntime {release} has no wheel for {here}, so it cannot be proven here",
            advice=f"The oldest that can is {versions[0]}: pass --runtime '>={versions[0]}', or "
            "build with an older Python.",
        )
    lines = [line for line in said.strip().splitlines() if line.strip()]
    why = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
    return MachineFault(
        f"onnxruntime {release} could not be installed: {why.strip()[:300]}",
        advice="--prove-runtime takes that release from the package index once: check the "
        "network and pip's configuration.",
    )
