"""Runs in a process of its own: what a model takes in memory, and how fast it answers one row.

    python alone.py race|memory REQUEST.json

Nothing but NumPy and the engine's own library is loaded. All ONNX engines are loaded alike, from
an ``.onnx`` file with the options that the agent sets, and timed on ready tensors.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROUND_S = 0.04
Loaded = tuple[Callable[[], Any], Callable[[], Any]]
"""Answers the first row; answers all rows, as a dict of arrays or an array of labels."""


def load_onnx(asked: dict[str, Any]) -> Loaded:
    """A session over the file, and its feeds."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(
        asked["path"], options, providers=["CPUExecutionProvider"]
    )
    with np.load(asked["rows"]) as file:
        every = {name: file[name] for name in file.files}
    if len(every) == 1:  # CatBoost names its input itself
        every = {session.get_inputs()[0].name: next(iter(every.values()))}
    names = [output.name for output in session.get_outputs()]
    first = {name: value[:1] for name, value in every.items()}
    run = session._sess.run  # the agent calls it so, too
    return lambda: run(names, first, None), lambda: dict(
        zip(names, run(names, every, None), strict=True)
    )


def load_treelite(asked: dict[str, Any]) -> Loaded:
    """Its interpreter, on a matrix of its own type."""
    import treelite  # noqa: PLC0415

    model = treelite.Model.deserialize(asked["path"])
    kind = np.float64 if "64" in str(model.input_type) else np.float32
    feed = np.load(asked["rows"])["rows"].astype(kind)

    def labels() -> Any:
        found = np.asarray(treelite.gtil.predict(model, feed, nthread=1)).reshape(len(feed), -1)
        return found.argmax(axis=1) if found.shape[1] > 1 else found[:, 0] > 0.5

    return lambda: treelite.gtil.predict(model, feed[:1], nthread=1), labels


def load_original(asked: dict[str, Any]) -> Loaded:
    """The library that trained it."""
    if asked["path"].endswith(".pt2"):
        import torch  # noqa: PLC0415

        module = torch.export.load(asked["path"]).module()
        images = torch.from_numpy(np.load(asked["rows"])["input"])
        torch.set_grad_enabled(False)
        torch.set_num_threads(1)
        first = images[:1].clone()
        return lambda: module(first), lambda: module(images).argmax(1).numpy()
    import joblib  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    model, rows = joblib.load(asked["path"]), pd.read_pickle(asked["rows"])  # noqa: S301  ours
    one = rows.iloc[:1]
    return lambda: model.predict_proba(one), lambda: np.asarray(model.predict(rows)).ravel()


_LOADERS = {"onnx": load_onnx, "treelite": load_treelite, "original": load_original}


def memory(asked: dict[str, Any]) -> dict[str, Any]:
    """Growth of resident memory by loading and one answer, after trimming as the agent does."""
    for library in asked["libraries"]:
        importlib.import_module(library)
    before = _resident()
    one, _ = _LOADERS[asked["loader"]](asked)
    one()
    ctypes.CDLL(None).malloc_trim(0)
    return {"rss_bytes": _resident() - before}


def race(asked: dict[str, Any]) -> dict[str, Any]:
    """Median microseconds of one row by engine and round; engines take turns, both ways round."""
    engines: dict[str, Callable[[], Any]] = {}
    failed: dict[str, str] = {}
    for name, engine in asked["engines"].items():
        try:
            one, every = _LOADERS[engine["loader"]](engine)
            one()
            found = every()
        except Exception as error:  # noqa: BLE001  a competitor may fail in any way
            failed[name] = f"{type(error).__name__}: {error}"
            continue
        engines[name] = one
        arrays = found if isinstance(found, dict) else {"label": np.asarray(found, np.int64)}
        np.savez(engine["answers"], **arrays)
    rounds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(asked["rounds"]):
        for name in list(engines) if turn % 2 else reversed(list(engines)):
            rounds[name].append(_timed(engines[name]))
    return {"rounds_us": rounds, "failed": failed}


def _timed(one: Callable[[], Any]) -> float:
    times: list[float] = []
    end = time.perf_counter() + ROUND_S
    while len(times) < 5 or time.perf_counter() < end:
        began = time.perf_counter_ns()
        one()
        times.append(time.perf_counter_ns() - began)
    return median(times) / 1000


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    mode = {"race": race, "memory": memory}[sys.argv[1]]
    print(json.dumps(mode(json.loads(Path(sys.argv[2]).read_text()))))
