"""Each engine's file of one model, as its own tools make it by default, and the rows it reads.

``python prepare.py FOLDER`` is the stock conversion, where nothing of ours is registered.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

COMPUTES = {"MatMul", "Gemm", "Conv"}
CALIBRATION_ROWS = 200


class NothingToDo(Exception):
    """The engine is not for this kind of model."""


@dataclass(frozen=True)
class Prepared:
    """A file, what of it travels, its rows, and who loads it.

    Attributes:
        libraries: loaded before memory is counted.
    """

    path: Path
    size: int
    rows: Path
    loader: str
    libraries: tuple[str, ...]


def original(folder: Path) -> Prepared:
    """The library that trained it, with its own file."""
    path = folder / "model.pt2"
    if path.exists():
        rows = folder / "stock.npz"
        return Prepared(path, path.stat().st_size, rows, "original", ("torch",))
    path = folder / "model.joblib"
    libraries = ("joblib", "pandas", _library(folder))
    return Prepared(path, path.stat().st_size, folder / "unseen.pkl", "original", libraries)


def stock(folder: Path) -> Prepared:
    """What skl2onnx, onnxmltools, CatBoost or torch.onnx exports, without ZipMap."""
    path = folder / "stock.onnx"
    if not path.exists():
        command = [sys.executable, __file__, str(folder)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason"]
            raise RuntimeError(said[-1])
    beside = folder / "stock.onnx.data"
    size = path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)
    return _onnx(path, size, folder / "stock.npz")


def convert(folder: Path) -> None:
    """The stock conversion, in each converter's default form."""
    path = folder / "stock.onnx"
    library = _library(folder)
    if library == "torch":
        _export(folder / "model.pt2", path)
        return
    model = joblib.load(folder / "model.joblib")
    width = len(pd.read_pickle(folder / "unseen.pkl").columns)  # noqa: S301  our own file
    if library == "catboost":
        model.save_model(str(path), format="onnx")
    elif library == "sklearn":
        from skl2onnx import convert_sklearn  # noqa: PLC0415
        from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

        proto = convert_sklearn(model, initial_types=[("input", FloatTensorType([None, width]))])
        path.write_bytes(proto.SerializeToString())
    else:
        import onnxmltools  # noqa: PLC0415
        from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

        if library == "xgboost":  # it takes features only by these names
            model.get_booster().feature_names = [f"f{i}" for i in range(width)]
        call = getattr(onnxmltools, f"convert_{library}")
        proto = call(model, initial_types=[("input", FloatTensorType([None, width]))])
        path.write_bytes(proto.SerializeToString())
    _drop_zipmap(path)


def _export(program: Path, path: Path) -> None:
    import torch  # noqa: PLC0415

    module = torch.export.load(program).module()
    shapes = ({0: torch.export.Dim("rows")},)
    torch.onnx.export(
        module, (torch.zeros(2, 1, 8, 8),), path, input_names=["input"], dynamic_shapes=shapes
    )


def _drop_zipmap(path: Path) -> None:
    """Plain tensors out: dictionaries would cost every engine but ours most of its time."""
    import onnx  # noqa: PLC0415

    proto = onnx.load(path)
    for node in [node for node in proto.graph.node if node.op_type == "ZipMap"]:
        output = next(o for o in proto.graph.output if o.name == node.output[0])
        kind = onnx.helper.make_tensor_value_info(node.input[0], 1, [None, None])
        output.CopyFrom(kind)
        proto.graph.node.remove(node)
    path.write_bytes(proto.SerializeToString())


def ort_dynamic(folder: Path) -> Prepared:
    """``quantize_dynamic`` behind the preprocessing that its documentation asks for."""
    from onnxruntime.quantization import quantize_dynamic  # noqa: PLC0415

    path = folder / "dynamic.onnx"
    # Without the option it fails behind a scaler, whose operator its shape inference leaves out.
    quantize_dynamic(_preprocessed(folder), path, extra_options={"DefaultTensorType": 1})
    return _onnx(path, path.stat().st_size, folder / "stock.npz")


def ort_static(folder: Path) -> Prepared:
    """``quantize_static`` per channel, calibrated on rows that the model learnt from."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static  # noqa: PLC0415

    rows = np.load(folder / "seen.npz")["input"][:CALIBRATION_ROWS]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(np.split(rows, len(rows) // 20))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.left, None)
            return None if batch is None else {"input": batch}

    path = folder / "static.onnx"
    quantize_static(_preprocessed(folder), path, Reader(), per_channel=True)
    return _onnx(path, path.stat().st_size, folder / "stock.npz")


def _preprocessed(folder: Path) -> Path:
    import onnx  # noqa: PLC0415
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    source = stock(folder).path
    if not COMPUTES & {node.op_type for node in onnx.load(source).graph.node}:
        raise NothingToDo("no operator that it quantizes")
    path = folder / "preprocessed.onnx"
    if not path.exists():
        with contextlib.chdir(folder):  # where it fails, it leaves a file
            try:
                quant_pre_process(source, path)
            except Exception:  # noqa: BLE001  it raises this very class; the option is the way out
                quant_pre_process(source, path, skip_symbolic_shape=True)
    return path


def treelite(folder: Path) -> Prepared:
    """Its own binary form."""
    import treelite as library  # noqa: PLC0415

    kind = _library(folder)
    if kind == "torch":
        raise NothingToDo("not a model of trees that it reads")
    model = joblib.load(folder / "model.joblib")
    if kind == "xgboost":
        found = library.frontend.from_xgboost(model.get_booster())
    elif kind == "lightgbm":
        found = library.frontend.from_lightgbm(model.booster_)
    elif type(model).__module__.startswith("sklearn.ensemble"):
        found = library.sklearn.import_model(model)
    else:
        raise NothingToDo("not a model of trees that it reads")
    path = folder / "model.tl"
    found.serialize(str(path))
    rows = folder / "raw.npz"
    np.savez(rows, rows=pd.read_pickle(folder / "unseen.pkl").to_numpy(np.float64))  # noqa: S301
    return Prepared(path, path.stat().st_size, rows, "treelite", ("treelite",))


def ours(folder: Path) -> Prepared:
    """The bundle's model: stored bytes travel, the decoded file is what a device loads."""
    from edge_agent.inputs import Inputs  # noqa: PLC0415
    from edge_contract.manifest import MODEL_FILE  # noqa: PLC0415
    from edge_pack import BuildConfig, build, reading  # noqa: PLC0415

    image = folder / "model.pt2"
    built = build(
        BuildConfig(model=image if image.exists() else folder / "model.joblib",
                    data=folder / ("rows.npz" if image.exists() else "rows.csv"), name="bench",
                    version="1", out=folder / "bench.edgepack", measure=False,
                    target="" if image.exists() else "answer", provenance=False),
        notice=lambda _text: None,
    )  # fmt: skip
    manifest = built.manifest
    path = folder / "ours.onnx"
    path.write_bytes(reading.open_bundle(built.config.out).file(MODEL_FILE))
    unseen = pd.read_pickle(folder / "unseen.pkl")  # noqa: S301  our own file
    if image.exists():
        unseen = {manifest.inputs[0].name: np.load(folder / "stock.npz")["input"]}
    rows = folder / "ours.npz"
    np.savez(rows, **Inputs(manifest).read(unseen).feeds)  # type: ignore[arg-type]
    return _onnx(path, manifest.file(MODEL_FILE).size, rows)


def _library(folder: Path) -> str:
    """The model's library: sklearn, xgboost, lightgbm, catboost or torch."""
    if (folder / "model.pt2").exists():
        return "torch"
    module: str = type(joblib.load(folder / "model.joblib")).__module__
    return module.partition(".")[0]


def _onnx(path: Path, size: int, rows: Path) -> Prepared:
    return Prepared(path, size, rows, "onnx", ("onnxruntime",))


PREPARE: dict[str, Callable[[Path], Prepared]] = {
    "original": original, "stock": stock, "ort dynamic": ort_dynamic, "ort static": ort_static,
    "treelite": treelite, "edge-pack": ours,
}  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    convert(Path(sys.argv[1]))
