"""Every engine's figures of one model: bytes, memory, time of one row, and flipped labels."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import numpy as np
from peers import models
from peers.models import Case
from peers.prepare import PREPARE, NothingToDo, Prepared

from edge_contract.errors import EdgeError

ALONE = Path(__file__).parent / "alone.py"


@dataclass(frozen=True)
class Figure:
    """One engine's figures; None where it cannot do the model, and ``why`` says so.

    Attributes:
        fails: it should do the model, and does not; otherwise the model is not its kind.
        rounds_us: median of one row in each round, in the order of the rounds.
    """

    bytes: int | None = None
    rss_bytes: int | None = None
    rounds_us: tuple[float, ...] = ()
    flips: int | None = None
    why: str = ""
    fails: bool = False

    @property
    def latency_us(self) -> float | None:
        """Median over the rounds."""
        return median(self.rounds_us) if self.rounds_us else None


def measure(case: Case, folder: Path, *, quick: bool) -> dict[str, Figure]:
    """Fit, prepare each engine's file, then measure all of them side by side in children."""
    truth = _made(case, folder, quick=quick)
    figures: dict[str, Figure] = {}
    ready: dict[str, Prepared] = {}
    for engine, prepare in PREPARE.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ready[engine] = prepare(folder)
            figures[engine] = Figure(bytes=ready[engine].size)
        except NothingToDo as error:
            figures[engine] = Figure(why=str(error))
        except EdgeError as error:
            figures[engine] = Figure(why=error.what.splitlines()[0][:200], fails=True)
        except Exception as error:  # noqa: BLE001  a competitor may fail in any way
            figures[engine] = Figure(why=_first_line(error), fails=True)
    raced = _race(ready, folder, quick=quick)
    grown = _memory([e for e in ready if e in raced["rounds_us"]], ready, folder, quick=quick)
    for engine in ready:
        if engine in raced["failed"]:
            said = raced["failed"][engine].splitlines()[0][:200]
            figures[engine] = replace(figures[engine], why=said, fails=True)
            continue
        found = _labels(folder / f"{engine}-answers.npz")
        figures[engine] = replace(
            figures[engine],
            rss_bytes=grown[engine],
            rounds_us=tuple(round(value, 2) for value in raced["rounds_us"][engine]),
            flips=int(np.count_nonzero(found != truth)),
        )
    return figures


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    plain = isinstance(error, RuntimeError)
    return lines[0][:200] if plain else f"{type(error).__name__}: {lines[0][:200]}"


def _made(case: Case, folder: Path, *, quick: bool) -> Any:
    """Fit the model on half of the rows and write all files; its labels for the other half."""
    frame, answers = models.rows_of(case.rows, quick=quick)
    half = len(frame) // 2
    seen, known = frame.iloc[:half], answers.iloc[:half]
    unseen = frame.iloc[half:].reset_index(drop=True)
    unseen.to_pickle(folder / "unseen.pkl")
    if case.rows == "images":
        return _made_images(case, folder, (seen, known, unseen))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = case.make().fit(seen, known)
    joblib.dump(model, folder / "model.joblib")
    np.savez(folder / "seen.npz", input=seen.to_numpy(np.float32))
    np.savez(folder / "stock.npz", input=unseen.to_numpy(np.float32))
    seen.assign(answer=known).to_csv(folder / "rows.csv", index=False)
    return np.asarray(model.predict(unseen)).ravel().astype(np.int64)


def _made_images(case: Case, folder: Path, rows: Any) -> Any:
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    seen, known, unseen = models.as_images(rows[0]), rows[1].to_numpy(), models.as_images(rows[2])
    module = models.train(case.make(), seen, known)
    shapes = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(module, (torch.tensor(seen[:2]),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")
    np.savez(folder / "seen.npz", input=seen)
    np.savez(folder / "stock.npz", input=unseen)
    np.savez(folder / "rows.npz", input=seen)
    with torch.inference_mode():
        return module(torch.tensor(unseen)).argmax(1).numpy()


def _race(ready: dict[str, Prepared], folder: Path, *, quick: bool) -> dict[str, Any]:
    """All engines in one child, in turns."""
    asked = {
        engine: {**_request(prepared), "answers": str(folder / f"{engine}-answers.npz")}
        for engine, prepared in ready.items()
    }
    request = {"engines": asked, "rounds": 4 if quick else 12}
    raced: dict[str, Any] = _child("race", request, folder)
    return raced


def _memory(
    engines: list[str], ready: dict[str, Prepared], folder: Path, *, quick: bool
) -> dict[str, int]:
    """Bytes by engine: the median over children of its own."""
    grown: dict[str, list[int]] = {engine: [] for engine in engines}
    for _ in range(1 if quick else 3):
        for engine in engines:
            seen = _child("memory", _request(ready[engine]), folder)
            grown[engine].append(seen["rss_bytes"])
    return {engine: int(median(values)) for engine, values in grown.items()}


def _request(prepared: Prepared) -> dict[str, Any]:
    return {key: value if isinstance(value, int | tuple) else str(value)
            for key, value in asdict(prepared).items()}  # fmt: skip


def _child(mode: str, asked: dict[str, Any], folder: Path) -> Any:
    request = folder / "request.json"
    request.write_text(json.dumps(asked))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-W", "ignore", str(ALONE), mode, str(request)]
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{mode} fails:\n{done.stderr.decode(errors='replace')}")
    return json.loads(done.stdout.splitlines()[-1])


def _labels(path: Path) -> Any:
    """Labels: the output of whole numbers, or else the best of a row of scores."""
    with np.load(path) as file:
        arrays = [file[name] for name in file.files]
    for array in arrays:
        if array.dtype.kind in "iu":
            return array.ravel().astype(np.int64)
    return next(array for array in arrays if array.ndim == 2).argmax(axis=1)


logging.getLogger().setLevel(logging.ERROR)  # the quantizers' advice to preprocess
