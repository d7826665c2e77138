"""A dozen models by the stock converter, the runtime's quantizer, treelite, the library, and us.

    python benchmarks/packager.py [--quick] [--json FILE] [--markdown]

Bytes are what travels. Memory is the growth of resident memory by loading and one answer, in a
process of its own for every engine. Latency is the median of one row, in the engine's own form
(float32 feeds for ONNX, a float64 row for the libraries). Flips are labels that differ from the
original's on raw float64 rows that no engine saw before; a regression counts rows that differ by
a thousandth of the answers' deviation. All ratios are of one run on one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler

from edge_contract.errors import EdgeError

ENGINES = ("original", "stock", "ort int8", "treelite", "edge-pack")
CALLS_S = 0.4


@dataclass(frozen=True)
class Case:
    """A model to fit, its rows to learn from, and unseen raw rows."""

    name: str
    model: Any
    rows: str
    goal: float
    """Our bytes as a share of the stock converter's."""


@dataclass(frozen=True)
class Figure:
    """One engine's figures, None where it cannot do the model; ``why`` then says so."""

    bytes: int | None = None
    rss_bytes: int | None = None
    latency_us: float | None = None
    flips: int | None = None
    why: str = ""


def cases(*, quick: bool) -> list[Case]:
    """Linear, neural and tree models, on plain rows and on meter readings."""
    trees, width, rounds = (20, 48, 20) if quick else (60, 160, 100)
    found = [
        Case("logistic, scaled, meters", _scaled(LogisticRegression()), "meters", 3.0),
        Case("power transform, meters", _scaled(LogisticRegression(), PowerTransformer()),
             "meters", 3.0),
        Case("network 110 kB", _network(width), "digits", 0.5),
        Case("random forest", RandomForestClassifier(trees, random_state=0), "plain", 0.15),
        Case("random forest, scaled, meters",
             _scaled(RandomForestClassifier(trees, random_state=0)), "meters", 0.3),
        Case("extra trees", ExtraTreesClassifier(trees, random_state=0), "plain", 0.15),
        Case("gradient boosting",
             GradientBoostingClassifier(n_estimators=rounds, random_state=0), "plain", 0.3),
        Case("hist gradient boosting",
             HistGradientBoostingClassifier(max_iter=rounds, random_state=0), "plain", 0.3),
        Case("hist gradient boosting, categorical",
             HistGradientBoostingClassifier(max_iter=rounds, categorical_features=[0],
                                            random_state=0), "plain", 0.4),
    ]  # fmt: skip
    if not quick:
        found.insert(3, Case("network 4.5 MB", _network(900, 900), "digits", 0.35))
    return found + _boosters(rounds)


def _scaled(model: Any, step: Any = None) -> Any:
    return make_pipeline(step or StandardScaler(), model)


def _network(*widths: int) -> Any:
    return _scaled(MLPClassifier(widths, max_iter=20, random_state=0))


def _boosters(rounds: int) -> list[Case]:
    """The libraries that are installed."""
    found = []
    try:
        from xgboost import XGBClassifier  # noqa: PLC0415  an optional library

        made = XGBClassifier(n_estimators=rounds, max_depth=6, n_jobs=1)
        found.append(Case("XGBoost", made, "plain", 0.3))
    except ImportError:
        pass
    try:
        from lightgbm import LGBMClassifier  # noqa: PLC0415

        made = LGBMClassifier(n_estimators=rounds, n_jobs=1, verbose=-1)
        found.append(Case("LightGBM", made, "plain", 0.3))
    except ImportError:
        pass
    try:
        from catboost import CatBoostClassifier  # noqa: PLC0415

        made = CatBoostClassifier(iterations=rounds, depth=6, verbose=False, thread_count=1,
                                  allow_writing_files=False)  # fmt: skip
        found.append(Case("CatBoost", made, "plain", 0.4))
    except ImportError:
        pass
    return found


def rows_of(kind: str, *, quick: bool) -> tuple[pd.DataFrame, pd.Series]:
    """Rows and labels of a kind: digits, plain measurements, or meter readings."""
    if kind == "digits":
        table = load_digits(as_frame=True)
        return table.data, table.target.rename("answer")
    rng = np.random.default_rng(17)
    count = 1500 if quick else 6000
    if kind == "meters":
        frame = pd.DataFrame({
            "meter_kwh": np.round(1_700_000 + rng.uniform(0, 40, count), 2),
            "epoch_s": np.round(1_750_000 + rng.uniform(0, 40, count), 2),
            "pressure_pa": np.round(101_325 + rng.normal(0, 3, count), 2),
        })  # fmt: skip
        odd = (np.floor(frame.meter_kwh / 4) + np.floor(frame.epoch_s / 7)) % 2
        return frame, odd.astype(int).rename("answer")
    frame = pd.DataFrame(np.round(rng.gamma(3, 2, (count, 10)), 2)).add_prefix("x")
    frame["x0"] = rng.integers(0, 12, count)
    value = frame.x1 - frame.x2 + (frame.x0 % 3) * 2 + 0.2 * frame.x3 * frame.x4
    value += rng.normal(0, 1, count)
    return frame, (value > value.median()).astype(int).rename("answer")


def measure(case: Case, folder: Path, *, quick: bool) -> dict[str, Figure]:
    """Every engine's figures of one case."""
    frame, answers = rows_of(case.rows, quick=quick)
    half = len(frame) // 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = case.model.fit(frame.iloc[:half], answers.iloc[:half])
    unseen = frame.iloc[half:].reset_index(drop=True)
    unseen.to_pickle(folder / "unseen.pkl")
    joblib.dump(model, folder / "model.joblib")
    frame.iloc[:half].assign(answer=answers.iloc[:half]).to_csv(folder / "rows.csv", index=False)
    truth = np.asarray(model.predict(unseen)).ravel().astype(np.int64)
    return {engine: _one(engine, folder, truth) for engine in ENGINES}


def _one(engine: str, folder: Path, truth: Any) -> Figure:
    """Prepare an engine's file in this process, measure it in a child."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path, size = _PREPARE[engine](folder)
    except EdgeError as error:
        return Figure(why=error.what.splitlines()[0][:80])
    except Exception as error:  # noqa: BLE001  a competitor may fail in any way
        return Figure(why=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:60]}")
    command = [sys.executable, __file__, "--child", engine, str(path), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason"]
        return Figure(bytes=size, why=said[-1][:80])
    seen = json.loads(done.stdout.splitlines()[-1])
    flips = int(np.count_nonzero(np.load(folder / f"{engine}.npy") != truth))
    return Figure(size, seen["rss_bytes"], seen["latency_us"], flips)


def _prepare_original(folder: Path) -> tuple[Path, int]:
    path = folder / "model.joblib"
    return path, path.stat().st_size


def _prepare_stock(folder: Path) -> tuple[Path, int]:
    """skl2onnx's default, or onnxmltools' for what skl2onnx does not know."""
    path = folder / "stock.onnx"
    if not path.exists():
        command = [sys.executable, __file__, "--convert", str(folder)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason"]
            raise RuntimeError(said[-1])
    return path, path.stat().st_size


def convert(folder: Path) -> None:
    """The stock conversion; in a process where nothing of ours is registered."""
    model = joblib.load(folder / "model.joblib")
    width = len(pd.read_pickle(folder / "unseen.pkl").columns)  # noqa: S301  our own file
    kind = type(model).__module__.partition(".")[0]
    if kind == "catboost":
        model.save_model(str(folder / "stock.onnx"), format="onnx")
        return
    if kind == "sklearn":
        from skl2onnx import convert_sklearn  # noqa: PLC0415
        from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

        final = model.steps[-1][1] if hasattr(model, "steps") else model
        options = {id(final): {"zipmap": False}}
        types = [("input", FloatTensorType([None, width]))]
        proto = convert_sklearn(model, initial_types=types, options=options)
    else:
        import onnxmltools  # noqa: PLC0415
        from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

        if kind == "xgboost":
            model.get_booster().feature_names = [f"f{i}" for i in range(width)]
        call = getattr(onnxmltools, f"convert_{kind}")
        proto = call(model, initial_types=[("input", FloatTensorType([None, width]))])
    (folder / "stock.onnx").write_bytes(proto.SerializeToString())


def _prepare_int8(folder: Path) -> tuple[Path, int]:
    import onnx  # noqa: PLC0415
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    stock, _ = _prepare_stock(folder)
    before = {node.op_type for node in onnx.load(stock).graph.node}
    if not before & {"MatMul", "Gemm", "Conv"}:
        raise RuntimeError("nothing that it quantizes")
    path = folder / "int8.onnx"
    quantize_dynamic(stock, path, weight_type=QuantType.QInt8)
    return path, path.stat().st_size


def _prepare_treelite(folder: Path) -> tuple[Path, int]:
    import treelite  # noqa: PLC0415

    model = joblib.load(folder / "model.joblib")
    kind = type(model).__module__.partition(".")[0]
    if kind == "xgboost":
        found = treelite.frontend.from_xgboost(model.get_booster())
    elif kind == "lightgbm":
        found = treelite.frontend.from_lightgbm(model.booster_)
    elif kind == "sklearn" and not hasattr(model, "steps"):
        found = treelite.sklearn.import_model(model)
    else:
        raise RuntimeError("not a model of trees alone")
    path = folder / "model.tl"
    found.serialize(str(path))
    return path, path.stat().st_size


def _prepare_ours(folder: Path) -> tuple[Path, int]:
    from edge_pack import BuildConfig, build  # noqa: PLC0415

    path = folder / "model.edgepack"
    built = build(
        BuildConfig(model=folder / "model.joblib", data=folder / "rows.csv", name="bench",
                    version="1", out=path, target="answer", measure=False, provenance=False),
        notice=lambda _text: None,
    )  # fmt: skip
    return path, built.manifest.files[0].size


_PREPARE: dict[str, Callable[[Path], tuple[Path, int]]] = {
    "original": _prepare_original, "stock": _prepare_stock, "ort int8": _prepare_int8,
    "treelite": _prepare_treelite, "edge-pack": _prepare_ours,
}  # fmt: skip


def child(engine: str, path: Path, folder: Path) -> None:
    """Load, answer, time; print the figures as JSON."""
    rows = pd.read_pickle(folder / "unseen.pkl")  # noqa: S301  our own file
    before = _resident_after_imports(engine)
    one, answer = _LOADERS[engine](path, rows)
    one()
    after = _resident()
    times, end = [], time.perf_counter() + CALLS_S
    while len(times) < 5 or time.perf_counter() < end:
        began = time.perf_counter_ns()
        one()
        times.append(time.perf_counter_ns() - began)
    np.save(folder / f"{engine}.npy", answer())
    print(json.dumps({"rss_bytes": after - before, "latency_us": median(times) / 1000}))


def _resident_after_imports(engine: str) -> int:
    """Resident memory once the engine's library is loaded, so that the model alone counts."""
    if engine in ("stock", "ort int8", "edge-pack"):
        import edge_agent.runtime  # noqa: F401, PLC0415
    if engine == "treelite":
        import treelite  # noqa: F401, PLC0415
    return _resident()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


_Loaded = tuple[Callable[[], Any], Callable[[], Any]]


def _load_original(path: Path, rows: pd.DataFrame) -> _Loaded:
    model = joblib.load(path)
    first = rows.iloc[:1]
    return lambda: model.predict_proba(
        first
    ), lambda: np.asarray(model.predict(rows)).ravel().astype(np.int64)


def _load_onnx(path: Path, rows: pd.DataFrame) -> _Loaded:
    from onnxruntime import InferenceSession  # noqa: PLC0415

    from edge_agent.runtime import Session  # noqa: PLC0415

    assert Session
    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    feed = rows.to_numpy(dtype=np.float32)
    return lambda: session.run(
        None, {name: feed[:1]}
    ), lambda: np.asarray(session.run(None, {name: feed})[0]).ravel().astype(np.int64)


def _load_treelite(path: Path, rows: pd.DataFrame) -> _Loaded:
    import treelite  # noqa: PLC0415

    model = treelite.Model.deserialize(str(path))
    kind = np.float64 if "64" in str(model.input_type) else np.float32
    feed = rows.to_numpy(dtype=kind)

    def labels() -> Any:
        found = np.asarray(treelite.gtil.predict(model, feed, nthread=1)).reshape(len(feed), -1)
        wide = found.shape[1] > 1
        return (found.argmax(axis=1) if wide else found[:, 0] > 0.5).astype(np.int64)

    return lambda: treelite.gtil.predict(model, feed[:1], nthread=1), labels


def _load_ours(path: Path, rows: pd.DataFrame) -> _Loaded:
    from edge_agent import Model  # noqa: PLC0415

    model = Model.open(path)
    first = rows.iloc[0].to_dict()
    return lambda: model.predict(first), lambda: np.array(
        [int(found.label) for found in model.predict(rows)], dtype=np.int64
    )


_LOADERS: dict[str, Callable[[Path, pd.DataFrame], _Loaded]] = {
    "original": _load_original, "stock": _load_onnx, "ort int8": _load_onnx,
    "treelite": _load_treelite, "edge-pack": _load_ours,
}  # fmt: skip


def markdown(found: dict[str, dict[str, Figure]]) -> str:
    """The README's table: bytes, memory, microseconds a row, and flips by engine."""
    lines = ["| model | " + " | ".join(ENGINES) + " |", "|---" * (len(ENGINES) + 1) + "|"]
    for name, figures in found.items():
        lines.append(f"| {name} | " + " | ".join(_cell(figures[e]) for e in ENGINES) + " |")
    return "\n".join(lines)


def _cell(figure: Figure) -> str:
    if figure.flips is None or figure.bytes is None or figure.latency_us is None:
        return "-"
    memory = (figure.rss_bytes or 0) / 1e6
    return (f"{figure.bytes / 1000:,.1f} kB · {memory:.1f} MB · {figure.latency_us:,.0f} µs · "
            f"{figure.flips} flips")  # fmt: skip


def goals(chosen: list[Case], found: dict[str, dict[str, Figure]]) -> dict[str, list[Any]]:
    """Flips of ours on unseen rows, and our bytes against the stock converter's."""
    out: dict[str, list[Any]] = {}
    for case in chosen:
        ours, stock = found[case.name]["edge-pack"], found[case.name]["stock"]
        out[f"{case.name} flips"] = [ours.flips, 0, ours.flips == 0]
        if ours.bytes and stock.bytes:
            share = round(ours.bytes / stock.bytes, 4)
            out[f"{case.name} bytes"] = [share, case.goal, share <= case.goal]
    return out


def main() -> None:
    """Measure all, print the table, write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small models")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print the README's table")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--convert", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]), Path(options.child[2]))
        return
    if options.convert:
        convert(options.convert)
        return
    chosen = cases(quick=options.quick)
    found: dict[str, dict[str, Figure]] = {}
    for case in chosen:
        with tempfile.TemporaryDirectory() as folder:
            found[case.name] = measure(case, Path(folder), quick=options.quick)
        if not options.markdown:
            for engine, figure in found[case.name].items():
                print(f"{case.name:36} {engine:10} {_cell(figure)} {figure.why}")
    met = goals(chosen, found)
    if options.markdown:
        print(markdown(found))
    else:
        for name, (figure, goal, done) in met.items():
            print(f"{'met ' if done else 'MISSED'} {name}: {figure} (goal: at most {goal})")
    if options.json:
        figures = {n: {e: vars(f) for e, f in by.items()} for n, by in found.items()}
        options.json.write_text(json.dumps({"figures": figures, "goals": met}, indent=2) + "\n")


if __name__ == "__main__":
    main()
