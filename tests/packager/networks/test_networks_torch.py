"""PyTorch modules and exported programs: exact after export, or refused with the user's line."""

from __future__ import annotations

import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from edge_agent.model import Model
from edge_contract.errors import BuildFault, InputFault, MachineFault
from edge_contract.manifest import MODEL_FILE, PROFILE_FILE
from edge_pack import reading, sources
from edge_pack.extras import need
from edge_pack.origins import Origin

torch = pytest.importorskip("torch")

NETS = """
import torch
from torch import nn


def fixed(make):
    def call():
        torch.manual_seed(3)
        return make()
    return call


class Dense(nn.Module):
    def __init__(self, out=3, end=None):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, out))
        self.end = end or nn.Identity()

    def forward(self, readings):
        return self.end(self.layers(readings))


class Random(Dense):
    def forward(self, x):
        return self.layers(nn.functional.dropout(x, 0.5))


class Remembers(Dense):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1, 6))

    def forward(self, x):
        found = self.layers(x + self.seen)
        self.seen.add_(x.mean(0, keepdim=True))
        return found


class Image(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, image):
        seen = torch.relu(self.norm(self.conv(image))).mean((2, 3))
        return self.head(seen).softmax(-1)


class Steps(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.cells = kind(5, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, series):
        return self.head(self.cells(series)[0][:, -1])


class Stream(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.GRU(5, 8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x, state):
        steps, state = self.cells(x, state)
        return {"y": self.head(steps), "state": state}


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, ids, weight):
        seen = self.block(self.words(ids)) * weight[:, None, None]
        return self.head(seen.mean(1)), seen


class Decides(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x


class Branches(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, (x,))


class Svd(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x.reshape(-1, 2, 2))[0]


class Pair(nn.Module):
    def forward(self, x):
        return x.reshape(1, 12) * 2


dense = fixed(lambda: Dense().eval())
soft = fixed(lambda: Dense(end=nn.Softmax(-1)).eval())
one = fixed(lambda: Dense(1).eval())
double = fixed(lambda: Dense().double().eval())
shown = fixed(lambda: (Dense().eval(), torch.randn(4, 6)))
image = fixed(lambda: Image().eval())
lstm = fixed(lambda: Steps().eval())
stream = fixed(lambda: Stream().eval())
tokens = fixed(lambda: (Tokens().eval(), {"ids": torch.arange(40).reshape(4, 10),
                                          "weight": torch.rand(4)}))
training = fixed(lambda: nn.Sequential(nn.Linear(6, 2), nn.Dropout(0.9)))
partly = fixed(lambda: nn.Sequential(nn.Linear(6, 2), nn.Dropout(0.9)).eval())
random = fixed(lambda: Random().eval())
remembers = fixed(lambda: Remembers().eval())
decides = fixed(lambda: Decides().eval())
branches = fixed(lambda: Branches().eval())
svd = fixed(lambda: Svd().eval())
pair = fixed(lambda: Pair().eval())
half = fixed(lambda: Dense().bfloat16().eval())


def awake():
    made = partly()
    made[1].train()
    return made


def fails():
    raise ValueError("no weights here")


def leaves():
    raise SystemExit(0)


def other():
    return {"state": 1}


def short():
    return Dense().eval(), (torch.zeros(1, 6), torch.zeros(1))


number = 7
"""


@pytest.fixture(scope="session")
def nets(tmp_path_factory: Any) -> Any:
    """The module of networks, importable; ``nets(name)`` is a MODEL."""
    folder = tmp_path_factory.mktemp("nets")
    module = f"nets_{uuid.uuid4().hex}"
    (folder / f"{module}.py").write_text(NETS)
    sys.path.insert(0, str(folder))
    yield lambda name: Path(f"{module}:{name}")
    sys.path.remove(str(folder))


def _rows(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def _table(path: Path, rows: int = 120) -> Path:
    frame = pd.DataFrame(_rows(rows, 6), columns=[f"sensor_{i}" for i in range(6)])
    frame["kind"] = np.array(["ok", "worn", "broken"])[np.arange(rows) % 3]
    frame.to_csv(path / "rows.csv", index=False)
    return path / "rows.csv"


def test_a_table_model_with_declared_labels(nets: Any, ship: Any, tmp_path: Path) -> None:
    built = ship(
        nets("dense"), _table(tmp_path), target="kind", task="classification",
        labels=("ok", "worn", "broken"), quantize="none",
    )  # fmt: skip
    manifest = built.manifest
    assert (manifest.task, manifest.parity.flips) == ("classification", 0)
    assert [feature.name for feature in manifest.features] == [f"sensor_{i}" for i in range(6)]
    assert manifest.inputs[0].name == "readings"
    assert PROFILE_FILE in [file.name for file in manifest.files]
    assert {metric.name for metric in manifest.metrics} >= {"accuracy"}
    assert (manifest.runtime.opsets[""], manifest.runtime.ir) == (18, 8)
    raw = reading.open_bundle(built.config.out).file(MODEL_FILE)
    assert b"nets_" not in raw and b".py" not in raw and b"pytorch" not in raw
    module = sources.load(nets("dense"), str).call  # type: ignore[attr-defined]
    row = _rows(120, 6)[7]
    with torch.no_grad():
        wanted = module(torch.tensor(row[None], dtype=torch.float32)).softmax(-1)[0].tolist()
    found = Model.open(built.config.out).predict([row.tolist()])[0]
    assert list(found.probabilities.values()) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.slow
def test_logits_stay_tensors_and_one_column_a_value(nets: Any, ship: Any, tmp_path: Path) -> None:
    data = _table(tmp_path)
    pd.read_csv(data).drop(columns="kind").to_csv(data, index=False)
    assert ship(nets("dense"), data).manifest.task == "tensors"
    assert ship(nets("one"), data).manifest.task == "regression"
    assert ship(nets("soft"), data).manifest.task == "classification"


def test_double_weights_are_fed_in_double(nets: Any, ship: Any) -> None:
    built = ship(nets("double"), {"readings": _rows(20, 6)}, quantize="none")
    assert built.manifest.inputs[0].dtype == "float64"
    assert built.manifest.parity.diff_max < 1e-5


@pytest.mark.slow
def test_images_series_and_tokens(nets: Any, ship: Any) -> None:
    built = ship(nets("image"), {"image": _rows(9, 3, 8, 8)}, quantize="none")
    assert built.manifest.task == "classification"
    assert built.manifest.inputs[0].shape == (None, 3, 8, 8)
    assert (built.manifest.parity.rows, built.manifest.parity.flips) == (9, 0)
    built = ship(nets("lstm"), {"series": _rows(9, 7, 5)})
    assert (built.manifest.task, built.manifest.inputs[0].shape) == ("regression", (None, 7, 5))
    ids = np.random.default_rng(0).integers(0, 50, (9, 12))
    built = ship(nets("tokens"), {"ids": ids, "weight": _rows(9)})
    assert [tensor.dtype for tensor in built.manifest.inputs] == ["int64", "float32"]
    assert [tensor.shape for tensor in built.manifest.inputs] == [(None, 12), (None,)]
    found = Model.open(built.config.out).predict({"ids": ids[:2], "weight": np.ones(2)})
    assert [array.shape for array in found.outputs.values()] == [(2, 2), (2, 12, 16)]


@pytest.mark.slow
def test_a_state_that_is_handed_back(nets: Any, ship: Any) -> None:
    for count in (1, 2):  # with two rows the state's layers look like rows
        built = ship(
            nets("stream"), {"x": _rows(count, 3, 5), "state": np.zeros((2, count, 8))}
        )  # fmt: skip
        assert built.manifest.outputs.tensors == ("y", "state_out")
        device = Model.open(built.config.out)
        state, seen = np.zeros((2, count, 8)), []
        for _ in range(3):
            found = device.predict({"x": np.ones((count, 3, 5)), "state": state})
            state = found.outputs["state_out"]
            seen.append(round(float(state.sum()), 4))
        assert len(set(seen)) == 3


@pytest.mark.slow
def test_examples_stand_in_for_data(nets: Any, ship: Any) -> None:
    built = ship(nets("shown"))
    assert built.manifest.parity.synthetic and built.manifest.parity.rows == 64
    built = ship(nets("tokens"))
    assert built.manifest.parity.synthetic
    drawn = sources.load(nets("tokens"), str).draw().tensors  # type: ignore[attr-defined]
    assert drawn["ids"].min() >= 0 and drawn["ids"].max() < 40  # as the example showed
    with pytest.raises(InputFault, match="does not say what its inputs look like"):
        ship(nets("dense"))


def test_what_runs_and_what_is_switched_off_is_said(nets: Any) -> None:
    said: list[str] = []
    subject = sources.load(nets("training"), said.append)
    assert any("is code: building runs it" in text for text in said)
    assert any("training mode: switched to eval()" in text for text in said)
    assert not subject.call.training  # type: ignore[attr-defined]
    awake = sources.load(nets("awake"), said.append)
    assert not any(part.training for part in awake.call.modules())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["random", "remembers"])
def test_a_model_that_answers_otherwise_when_asked_again_is_refused(
    name: str, nets: Any, ship: Any
) -> None:
    with pytest.raises(InputFault, match="differently when it is asked twice") as caught:
        ship(nets(name), {"x": np.random.default_rng(0).normal(size=(20, 6))})
    assert "dropout" in caught.value.advice


def test_a_branch_by_cond_becomes_an_if(nets: Any, ship: Any) -> None:
    built = ship(nets("branches"), {"x": np.ones((1, 4))})
    assert "If" in built.manifest.runtime.ops
    device = Model.open(built.config.out)
    assert device.predict({"x": np.full((1, 4), 3.0)}).outputs["output"].tolist() == [[6.0] * 4]
    assert device.predict({"x": np.full((1, 4), -3.0)}).outputs["output"].tolist() == [[-4.0] * 4]


def test_a_forward_for_one_sample_runs_sample_by_sample(nets: Any, ship: Any) -> None:
    built = ship(nets("pair"), {"x": _rows(5, 3, 4)})
    assert built.manifest.inputs[0].shape == (1, 3, 4)
    assert built.manifest.parity.rows == 5


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("decides", (4, 3), r"decision by the values of a tensor, at .*nets_\w+\.py:\d+: if x.sum"),
        ("svd", (4, 4), r"operator aten\._linalg_svd has no conversion to ONNX"),
    ],
)
def test_what_does_not_export_is_named(
    nets: Any, ship: Any, name: str, rows: Any, said: str
) -> None:
    with pytest.raises(BuildFault, match=said) as caught:
        ship(nets(name), {"x": _rows(*rows)})
    assert caught.value.advice


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", r"fails fails: ValueError: no weights here \(.*nets_.*\.py:\d+\)"),
        ("leaves", "leaves fails: SystemExit"),
        ("other", "returns a dict, not a torch.nn.Module"),
        ("number", "has no function 'number'"),
        ("absent", "has no function 'absent'"),
        ("short", "returns 2 example inputs .* forward\\(\\) takes 'readings'"),
    ],
)
def test_a_factory_that_makes_no_module(nets: Any, name: str, said: str) -> None:
    pattern = said.replace("fails fails", r":fails fails").replace("leaves fails", ":leaves fails")
    with pytest.raises(InputFault, match=pattern):
        sources.load(nets(name), str)


def test_a_module_that_is_not_there_or_broken(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputFault, match="there is no Python module 'no_such_nets'") as caught:
        sources.load(Path("no_such_nets:make"), str)
    assert "PYTHONPATH" in caught.value.advice
    broken = {"needs_more": "import no_such_library", "breaks": "1 / 0", "bad": "def ("}
    for name, text in broken.items():
        (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(InputFault, match="needs 'no_such_library', which is not installed"):
        sources.load(Path("needs_more:make"), str)
    with pytest.raises(InputFault, match=r"cannot be imported: ZeroDivisionError: .*breaks\.py:1"):
        sources.load(Path("breaks:make"), str)
    with pytest.raises(InputFault, match="cannot be imported: SyntaxError"):
        sources.load(Path("bad:make"), str)
    assert str(tmp_path) not in sys.path


def test_data_that_does_not_fit(nets: Any, ship: Any, tmp_path: Path) -> None:
    with pytest.raises(InputFault, match=r"forward\(\) fails on readings \[1, 7\].*RuntimeError"):
        ship(nets("dense"), {"readings": _rows(4, 7)})
    with pytest.raises(InputFault, match=r"lacks an array for 'readings', which forward\(\) takes"):
        ship(nets("dense"), {"other": _rows(4, 6)})
    with pytest.raises(InputFault, match=r"takes 2 inputs \('x', 'state'\); a table's columns"):
        ship(nets("stream"), _table(tmp_path))
    with pytest.raises(InputFault, match=r"of type bfloat16") as caught:
        ship(nets("half"), {"readings": _rows(4, 6)})
    assert "float()" in caught.value.advice


# -- exported programs -----------------------------------------------------------------------


@pytest.fixture(scope="session")
def program(nets: Any, tmp_path_factory: Any) -> Callable[..., Path]:
    """``program(name, inputs, **export)``: a .pt2 file."""
    folder = tmp_path_factory.mktemp("programs")

    def make(name: str, inputs: tuple[Any, ...], **options: Any) -> Path:
        module = sources.load(nets(name), str).call  # type: ignore[attr-defined]
        path = folder / f"{name}.pt2"
        torch.export.save(torch.export.export(module, inputs, **options), path)
        return path

    return make


@pytest.mark.slow
def test_an_exported_program_with_and_without_data(program: Any, ship: Any, tmp_path: Any) -> None:
    rows = torch.export.Dim("rows")
    path = program("soft", (torch.randn(2, 6),), dynamic_shapes=({0: rows},))
    built = ship(path)
    assert built.manifest.provenance.source_type == "pt2"
    assert built.manifest.parity.synthetic and built.manifest.parity.rows == 64
    assert built.manifest.task == "classification"
    data = _table(tmp_path)
    pd.read_csv(data).drop(columns="kind").to_csv(data, index=False)
    built = ship(path, data)
    assert built.manifest.features and built.manifest.parity.flips == 0
    fixed = ship(program("lstm", (torch.randn(1, 7, 5),)), {"series": _rows(6, 7, 5)})
    assert fixed.manifest.inputs[0].shape == (1, 7, 5)
    assert fixed.manifest.parity.rows == 6


def test_a_damaged_program_is_refused(program: Any, tmp_path: Path) -> None:
    data = program("one", (torch.randn(2, 6),)).read_bytes()
    path = tmp_path / "cut.pt2"
    for damaged in (data[: len(data) // 2], b"", b"no zip at all", data[:-300]):
        path.write_bytes(damaged)
        with pytest.raises(InputFault, match="no exported program that torch"):
            sources.load(path, str)


def test_a_program_from_elsewhere_needs_trust(program: Any) -> None:
    path = program("one", (torch.randn(2, 6),))
    fetched = Origin(path, uri="s3://models/one.pt2", named_by_user=False)
    with pytest.raises(InputFault, match="may run code of whoever wrote it") as caught:
        sources.load(fetched, str)
    assert "--trust" in caught.value.advice
    said: list[str] = []
    assert sources.load(fetched, said.append, trust=True).kind == "pt2"
    assert any("may run code" in text for text in said)


def test_weights_and_torchscript_are_refused_with_the_way_out(tmp_path: Path, nets: Any) -> None:
    module = torch.nn.Linear(2, 2)
    weights = tmp_path / "model.pt"
    torch.save(module.state_dict(), weights)
    with pytest.raises(InputFault, match="weights without the model") as caught:
        sources.load(weights, str)
    assert "my_model:make" in caught.value.advice and ".pt2" in caught.value.advice
    script = tmp_path / "script.pt"
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("script/code/__torch__.py", "")
    with pytest.raises(InputFault, match="is TorchScript"):
        sources.load(script, str)
    with pytest.raises(InputFault, match="there is no such file"):
        sources.load(tmp_path / "absent.pt", str)


def test_a_missing_framework_names_its_extra() -> None:
    for module, extra in (("torch.no_such_part", "torch"), ("keras.no_such_part", "keras")):
        with pytest.raises(MachineFault) as caught:
            need(module, "packaging a network")
        assert f"edge-pack[{extra}]" in caught.value.advice


DETERMINISTIC = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from edge_pack import BuildConfig, build
built = build(BuildConfig(model=Path(sys.argv[2]), name="n", version="1", provenance=False,
    out=Path(sys.argv[3]), measure=False, quantize="none"), notice=lambda _text: None)
print(built.digest)
"""


@pytest.mark.slow
def test_the_same_bytes_under_another_hash_seed(nets: Any, tmp_path: Path) -> None:
    module = str(nets("tokens"))
    folder = next(p for p in sys.path if (Path(p) / f"{module.partition(':')[0]}.py").exists())
    found = set()
    for seed, threads in (("1", "1"), ("77", "2")):
        done = subprocess.run(
            [sys.executable, "-c", DETERMINISTIC, folder, module, str(tmp_path / f"{seed}.ep")],
            capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        found.add(done.stdout.strip())
    assert len(found) == 1
