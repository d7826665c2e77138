"""Our monitoring on the arrays that the peers get, by the code that ships.

A model is packaged by ``edge_pack.build`` with the reference and its order in time; a device's
``Window`` counts what the model answers; ``edge_fleet.drift`` bets on the counts. An alarm is
taken as read: its monitor starts anew, so that one that goes on is counted again, as the peers'
are. Beside it stand the findings of the device's own checks (``Quality``): when each begins.
"""

from __future__ import annotations

import io
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from edge_agent import Model
from edge_agent.live import Live
from edge_agent.telemetry.quality import Quality
from edge_agent.telemetry.recorder import Instant, Recorder
from edge_agent.telemetry.spool import Spool
from edge_agent.telemetry.window import Counts, Window
from edge_contract.profile import Profile
from edge_fleet.drift import edetector
from edge_fleet.drift.budget import Budget
from edge_fleet.drift.edetector import DriftTable
from edge_pack import BuildConfig, build

WORDS = np.array(["idle", "run", "ramp", "purge", "hold", "trip", "bypass"], dtype=object)
MONDAY_S = 1_754_265_600
"""A midnight in UTC, in seconds since 1970: where every reference begins."""
Case = dict[str, Any]


class Said(NamedTuple):
    """Each bool ``[devices, windows, monitors]``: drift alarms, and findings that began."""

    alarms: NDArray[np.bool_]
    findings: NDArray[np.bool_]


class Ours:
    """A packaged model and what watches it.

    Args:
        case: ``before`` and ``words`` as in ``monitors.py``; ``step_s`` between rows, 60 where
            there is none.
        ordered: the reference is in order of time; else it is declared to have none.
    """

    def __init__(self, case: Case, folder: Path, *, ordered: bool = True) -> None:
        self.columns = _columns(case)
        made = table(case, case["before"], case["words"])
        bundle = package(made, folder, step_s=float(case.get("step_s", 60)) if ordered else 0)
        self.model = Model.open(bundle)
        assert self.model.profile is not None
        self.profile: Profile = self.model.profile
        self.drift = DriftTable(self.profile)
        self.window = Window(self.model.manifest, self.profile, tally=True)
        self.model.observer = self.window

    def counts(self, rows: pd.DataFrame) -> Counts:
        """What the device counts of one window."""
        self.model.predict(rows)
        return self.window.close()

    def judge(self, case: Case, log_threshold: float) -> Said:
        """What the fleet and what each device by itself says of a stream."""
        devices, windows = case["after"].shape[:2]
        state = self.drift.start(devices)
        checks = [Quality(self.profile) for _ in range(devices)]
        shape = (devices, windows, len(self.profile.monitors))
        alarms, findings = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        for at in range(windows):
            cells = []
            for device, check in enumerate(checks):
                rows = table(case, case["after"][device, at], case["said"][device, at])
                counts = self.counts(rows)
                cells.append(counts.cells)
                assert counts.tallied is not None
                changed = check.close(counts.rows, counts.cells, counts.tallied)
                findings[device, at, [finding.monitor for finding in changed.begun]] = True
                check.begin()
            state = edetector.advance(state, self.drift.log_e(np.stack(cells)))
            alarms[:, at] = self.drift.levels(state) >= log_threshold
            state = self._read(state, alarms[:, at])
        return Said(alarms, findings)

    def _read(self, state: NDArray[np.float32], alarms: NDArray[np.bool_]) -> NDArray[np.float32]:
        state = state.copy()
        for device, monitor in np.argwhere(alarms).tolist():
            start, size = self.drift.starts[monitor], self.drift.sizes[monitor]
            state[device, start : start + size] = edetector.NO_EVIDENCE
        return state

    def watches(self, columns: list[int]) -> list[int]:
        """Monitors of some columns, by place in the case, and those of many columns at once."""
        names = {self.columns[at] for at in columns}
        return [
            at
            for at, monitor in enumerate(self.profile.monitors)
            if monitor.source == "projection"
            or (monitor.source == "feature" and monitor.name in names)
        ]

    def log_threshold(self, devices: int, window_s: float) -> float:
        """Of one false alarm a month over ``devices`` devices; no share is kept for groups."""
        budget = Budget(false_alarms_per_month=1.0, window_s=window_s)
        return budget.log_threshold(devices * len(self.profile.monitors))

    def close(self) -> None:
        """End the model's session."""
        self.model.close()


def _columns(case: Case) -> list[str]:
    numbers = [f"number{i}" for i in range(case["before"].shape[-1])]
    return [*numbers, *(f"word{i}" for i in range(case["words"].shape[-1]))]


def table(case: Case, numbers: Any, words: Any) -> pd.DataFrame:
    """Rows ``[rows, numbers]`` and ``[rows, categories]`` as a caller of the model has them."""
    columns = _columns(case)
    made = {name: numbers[:, at] for at, name in enumerate(columns[: numbers.shape[1]])}
    for at, name in enumerate(columns[numbers.shape[1] :]):
        made[name] = WORDS[words[:, at]]
    return pd.DataFrame(made)


def package(rows: pd.DataFrame, folder: Path, *, step_s: float) -> Path:
    """A small classifier of ``rows`` as a bundle.

    ``rows`` are its reference, ``step_s`` after one another; 0: they have no order.
    """
    first = rows.iloc[:, 0]
    answers = (first.fillna(first.median()) > first.median()).astype(int)
    texts = [name for name in rows if name.startswith("word")]
    numbers = [name for name in rows if name not in texts]
    parts = [(StandardScaler(), numbers)]
    if texts:
        parts.append((OneHotEncoder(handle_unknown="ignore"), texts))
    model = make_pipeline(make_column_transformer(*parts), LogisticRegression(max_iter=300))
    source, data = folder / "watched.joblib", folder / "watched.csv"
    joblib.dump(model.fit(rows, answers), source)
    written = rows.assign(at=MONDAY_S + step_s * np.arange(len(rows))) if step_s else rows
    written.to_csv(data, index=False)
    config = BuildConfig(
        model=source, data=data, name="watched", version="1", out=folder / "watched.edgepack",
        time_column="at" if step_s else "", quantize="none", measure=False, provenance=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build(config, notice=lambda _text: None)
    return config.out


def cost(own: Ours, case: Case, rows: int, folder: Path) -> dict[str, float]:
    """Bytes of a window's record in the spool, and rows counted a CPU second by size of a call.

    What is timed is the window alone, on what the model answered; its closing included.
    """
    calls = _Calls()
    found = {"bytes": float(_record_bytes(own, case, rows, folder))}
    for batch in (1, 32, 1_000):
        own.model.observer = calls
        made = _rows(case, rows)
        calls.seen.clear()
        for at in range(0, min(rows, 200 * batch), batch):
            part = made.iloc[at : at + batch]
            own.model.predict(part.to_dict("records")[0] if batch == 1 else part)
        own.model.observer = own.window
        found[f"rows_per_cpu_s_{batch}"] = _counted_a_second(own.window, calls.seen)
    return found


def raw_bytes(case: Case, rows: int) -> float:
    """Parquet with zstd, float32 and dictionaries: what a monitor of raw rows has to be sent."""
    buffer = io.BytesIO()
    _rows(case, rows).to_parquet(buffer, compression="zstd")
    return float(len(buffer.getvalue()))


def _rows(case: Case, rows: int) -> pd.DataFrame:
    numbers = case["after"].reshape(-1, case["after"].shape[-1])[:rows]
    words = case["said"].reshape(-1, case["said"].shape[-1])[:rows]
    assert len(numbers) == rows, "the case is too short"
    return table(case, numbers, words)


class _Calls:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def observe(self, *call: Any) -> None:
        """Keep one answered call."""
        self.seen.append(call)

    def refused(self, *_call: Any) -> None:
        """Quiet rows are not refused."""

    failed = refused


def _counted_a_second(window: Window, calls: list[tuple[Any, ...]]) -> float:
    rows = sum(call[0].rows for call in calls)
    times = max(1, 20_000 // rows)
    window.close()
    began = time.thread_time()
    for _ in range(times):
        for call in calls:
            window.observe(*call)
    window.close()
    return times * rows / (time.thread_time() - began)


def _record_bytes(own: Ours, case: Case, rows: int, folder: Path) -> int:
    """As the recorder spools it."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        spool = Spool(Path(made))
        recorder = Recorder(spool, device="gateway-0417", boot=12)
        live = Live("watched")
        recorder.swap(live, own.model, Instant(1_790_000_000_000, 0.0, True))
        for at in range(0, rows, 1_000):
            own.model.predict(_rows(case, rows).iloc[at : at + 1_000])
        recorder.flush(Instant(1_790_003_600_000, 3600.0, True))
        ((_, data),) = spool.pending()
        own.model.observer = own.window
    return len(data)
