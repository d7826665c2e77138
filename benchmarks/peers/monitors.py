"""Runs in a peer's own environment: which windows it raises an alarm on, and what that costs.

    python monitors.py judge|cost REQUEST.json

A case is a file of arrays: ``before`` float32 [rows, numbers], ``words`` int8 [rows, categories],
``after`` [devices, windows, rows, numbers], ``said`` [devices, windows, rows, categories]. A peer
answers ``[devices, windows, monitors]``: numbers first, then categories, then one for many columns
at once where it has that. ``look``, where it is there, names the columns that are wanted: who looks
at them one by one may leave the others out. Every peer is asked by its own documented defaults, and
by one tuning that its documentation leads to: the level that "one false alarm a fleet-month" asks
of each test.
Nothing of ours is loaded.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

WORDS = np.array(["idle", "run", "ramp", "purge", "hold", "trip", "bypass"], dtype=object)
REFERENCE_OF_RIVER = 2_000
"""Rows that river's detectors, which keep no reference, see before the first window."""
os.environ.setdefault("NML_DISABLE_USAGE_LOGGING", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("WHYLOGS_NO_ANALYTICS", "True")

Arrays = dict[str, Any]
Flags = dict[str, Any]


def names(case: Arrays) -> tuple[list[str], list[str]]:
    """Columns of numbers and of categories."""
    numbers = [f"number{i}" for i in range(case["before"].shape[-1])]
    return numbers, [f"word{i}" for i in range(case["words"].shape[-1])]


def frame(case: Arrays, numbers: Any, words: Any) -> Any:
    """Rows as a data frame: ``[rows, numbers]``, ``[rows, categories]``."""
    import pandas as pd  # noqa: PLC0415

    columns, categories = names(case)
    made = pd.DataFrame(numbers, columns=columns)
    for at, name in enumerate(categories):
        made[name] = WORDS[words[:, at]]
    return made


def windows(case: Arrays) -> Iterator[tuple[int, int, Any]]:
    """Each window of each device as a data frame."""
    for device, hours in enumerate(case["after"]):
        for hour, rows in enumerate(hours):
            yield device, hour, frame(case, rows, case["said"][device, hour])


def wanted(case: Arrays) -> list[tuple[int, str]]:
    """Columns to look at, by place and name."""
    columns, categories = names(case)
    every = list(enumerate([*columns, *categories]))
    return [every[at] for at in case["look"].tolist()] if "look" in case else every


def blank(case: Arrays, more: int = 0) -> Any:
    """No alarm anywhere."""
    devices, hours = case["after"].shape[:2]
    monitors = case["before"].shape[-1] + case["words"].shape[-1] + more
    return np.zeros((devices, hours, monitors), dtype=bool)


class Evidently:
    """The rule of DataDriftPreset a column, and Kolmogorov-Smirnov and chi-squared at a level.

    The tests are called as its report calls them, without the report; ``check`` compares the two.
    """

    package = "evidently"

    def judge(self, case: Arrays, alpha: float) -> Flags:
        """As the module says."""
        from evidently.legacy.calculations.stattests import (  # noqa: PLC0415
            chi_stat_test,
            get_stattest,
            ks_stat_test,
        )

        _, categories = names(case)
        before = frame(case, case["before"], case["words"])
        found = {"default": blank(case), "tuned": blank(case)}
        tests: dict[str, Any] = {}
        for device, hour, now in windows(case):
            for at, name in wanted(case):
                kind = "cat" if name in categories else "num"
                if name not in tests:  # its choice is by rows and distinct values of both together
                    tests[name] = get_stattest(before[name], now[name], kind, None)
                test = tests[name]
                plain = test(before[name], now[name], kind, None)
                found["default"][device, hour, at] = plain.drifted
                exact = chi_stat_test if kind == "cat" else ks_stat_test
                strict = exact(before[name], now[name], kind, alpha)
                found["tuned"][device, hour, at] = strict.drifted
        return found

    def check(self, case: Arrays) -> int:
        """Columns of the first window on which the report says otherwise than ``judge``."""
        first = case | {"after": case["after"][:1, :1], "said": case["said"][:1, :1]}
        flags = self.judge(first, 0.05)["default"][0, 0]
        count = int(self._report(first)["metrics"][0]["value"]["count"])
        return abs(count - int(flags.sum()))

    def _report(self, case: Arrays) -> dict[str, Any]:
        from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415
        from evidently.presets import DataDriftPreset  # noqa: PLC0415

        columns, categories = names(case)
        kinds = DataDefinition(numerical_columns=columns, categorical_columns=categories)
        before = frame(case, case["before"], case["words"])
        now = frame(case, case["after"][0, 0], case["said"][0, 0])
        reference = Dataset.from_pandas(before, data_definition=kinds)
        current = Dataset.from_pandas(now, data_definition=kinds)
        made: dict[str, Any] = Report([DataDriftPreset()]).run(current, reference).dict()
        return made

    def cost(self, case: Arrays, rows: int) -> dict[str, float]:
        """One report on ``rows`` rows."""
        numbers = np.resize(case["after"], (1, 1, rows, case["before"].shape[-1]))
        words = np.resize(case["said"], (1, 1, rows, case["words"].shape[-1]))
        seconds = _seconds(lambda: self._report(case | {"after": numbers, "said": words}), 1)
        return {"rows_per_cpu_s": rows / seconds}


class NannyML:
    """Univariate Jensen-Shannon a column, and reconstruction by PCA over all numbers.

    Thresholds are its own, three standard deviations over chunks of the reference; tuned, as many
    as the level asks of a normal variable.
    """

    package = "nannyml"

    def judge(self, case: Arrays, alpha: float) -> Flags:
        """As the module says."""
        deviations = NormalDist().inv_cdf(1 - alpha)
        return {"default": self._flags(case, 3), "tuned": self._flags(case, deviations)}

    def _flags(self, case: Arrays, deviations: float) -> Any:
        devices, hours, rows = case["after"].shape[:3]
        columns, categories = names(case)
        univariate, together = self._fitted(case, rows, deviations)
        flat = frame(
            case,
            case["after"].reshape(devices * hours * rows, -1),
            case["said"].reshape(devices * hours * rows, -1),
        )
        found = blank(case, 1)
        alerts = univariate.calculate(flat).filter(period="analysis").to_df()
        for at, name in enumerate([*columns, *categories]):
            flags = alerts[name, "jensen_shannon", "alert"].to_numpy(bool)
            found[:, :, at] = flags.reshape(devices, hours)
        if together is not None:
            alerts = together.calculate(flat).filter(period="analysis").to_df()
            flags = alerts["reconstruction_error", "alert"].to_numpy(bool)
            found[:, :, -1] = flags.reshape(devices, hours)
        return found

    def _fitted(self, case: Arrays, rows: int, deviations: float) -> tuple[Any, Any]:
        import nannyml  # noqa: PLC0415
        from nannyml.thresholds import StandardDeviationThreshold  # noqa: PLC0415

        columns, categories = names(case)
        upper = StandardDeviationThreshold(
            std_lower_multiplier=None, std_upper_multiplier=deviations
        )
        both = StandardDeviationThreshold(
            std_lower_multiplier=deviations, std_upper_multiplier=deviations
        )
        univariate = nannyml.UnivariateDriftCalculator(
            column_names=[*columns, *categories],
            treat_as_categorical=categories or None,
            chunk_size=rows,
            thresholds={"jensen_shannon": upper},
        )
        before = frame(case, case["before"], case["words"])
        univariate.fit(before)
        if len(columns) < 2:
            return univariate, None
        together = nannyml.DataReconstructionDriftCalculator(
            column_names=columns, chunk_size=rows, threshold=both
        )
        together.fit(before)
        return univariate, together

    def cost(self, case: Arrays, rows: int) -> dict[str, float]:
        """One chunk of ``rows`` rows by a fitted calculator."""
        univariate, together = self._fitted(case, rows, 3)
        numbers = np.resize(case["after"], (rows, case["before"].shape[-1]))
        words = np.resize(case["said"], (rows, case["words"].shape[-1]))
        now = frame(case, numbers, words)
        seconds = _seconds(lambda: (univariate.calculate(now), together.calculate(now)), 3)
        return {"rows_per_cpu_s": rows / seconds}


class River:
    """One detector a column, row by row; words go in as their place in the list.

    Page-Hinkley has no level to tune: ten times its threshold stands in. KSWIN takes half a
    millisecond a value: it gets the first device alone, and is not tuned.
    """

    package = "river"

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def _made(self, alpha: float | None) -> Any:
        from river import drift  # noqa: PLC0415

        match self._kind:
            case "ADWIN":
                return drift.ADWIN() if alpha is None else drift.ADWIN(delta=alpha)
            case "KSWIN":
                return drift.KSWIN(seed=1) if alpha is None else drift.KSWIN(alpha=alpha, seed=1)
        return drift.PageHinkley() if alpha is None else drift.PageHinkley(threshold=500.0)

    def judge(self, case: Arrays, alpha: float) -> Flags:
        """As the module says."""
        found = {"default": self._flags(case, None)}
        if self._kind != "KSWIN":
            found["tuned"] = self._flags(case, alpha)
        return found

    def _flags(self, case: Arrays, alpha: float | None) -> Any:
        if self._kind == "KSWIN":  # half a millisecond a value: of the first device alone
            case = case | {"after": case["after"][:1], "said": case["said"][:1]}
        found = blank(case)
        before = np.concatenate([case["before"], case["words"]], axis=-1)
        after = np.concatenate([case["after"], case["said"]], axis=-1).astype(np.float64)
        for device in range(found.shape[0]):
            for at, _ in wanted(case):
                detector = self._made(alpha)
                for value in before[-REFERENCE_OF_RIVER:, at].astype(np.float64).tolist():
                    detector.update(value)
                for hour, values in enumerate(after[device, :, :, at].tolist()):
                    for value in values:
                        detector.update(value)
                        if detector.drift_detected:
                            found[device, hour, at] = True
        return found

    def cost(self, case: Arrays, rows: int) -> dict[str, float]:
        """``rows`` rows into one detector a column."""
        rows = min(rows, 200) if self._kind == "KSWIN" else rows
        after = np.concatenate([case["after"], case["said"]], axis=-1)
        values = np.resize(after, (rows, after.shape[-1])).astype(np.float64).tolist()
        detectors = [self._made(None) for _ in values[0]]
        for row in np.resize(after, (200, after.shape[-1])).astype(np.float64).tolist():
            for detector, value in zip(detectors, row, strict=True):
                detector.update(value)

        def run() -> None:
            for row in values:
                for detector, value in zip(detectors, row, strict=True):
                    detector.update(value)

        return {"rows_per_cpu_s": rows / _seconds(run, 1)}


class Whylogs:
    """Profiles of whylogs by its drift scores: p < .05 is "drift"."""

    package = "whylogs"

    def judge(self, case: Arrays, alpha: float) -> Flags:
        """As the module says."""
        import whylogs  # noqa: PLC0415
        from whylogs.viz.drift.column_drift_algorithms import (  # noqa: PLC0415
            calculate_drift_scores,
        )

        before = whylogs.log(frame(case, case["before"], case["words"])).view()
        found = {"default": blank(case), "tuned": blank(case)}
        for device, hour, now in windows(case):
            view = whylogs.log(now).view()
            scores = calculate_drift_scores(view, before, with_thresholds=True)
            for at, name in wanted(case):
                score = scores.get(name) or {}
                drifted = score.get("drift_category") == "DRIFT"
                found["default"][device, hour, at] = drifted
                found["tuned"][device, hour, at] = score.get("pvalue", 1.0) <= alpha
        return found

    def cost(self, case: Arrays, rows: int) -> dict[str, float]:
        """Bytes of a profile of ``rows`` rows; rows tracked one by one, by 32 and by 1,000."""
        import whylogs  # noqa: PLC0415

        numbers = np.resize(case["after"], (rows, case["before"].shape[-1]))
        words = np.resize(case["said"], (rows, case["words"].shape[-1]))
        now = frame(case, numbers, words)
        found = {"bytes": float(len(whylogs.log(now).view().serialize()))}
        profile = whylogs.core.DatasetProfile()
        profile.track(now)
        single = now.head(100).to_dict("records")

        def by_one() -> None:
            for row in single:
                profile.track(row)

        found["rows_per_cpu_s_1"] = len(single) / _seconds(by_one, 3)
        for batch in (32, 1_000):
            part = now.head(batch)
            times = 10 if batch < 100 else 3
            seconds = _seconds(lambda part=part: profile.track(part), times)  # type: ignore[misc]
            found[f"rows_per_cpu_s_{batch}"] = len(part) / seconds
        found["rows_per_cpu_s"] = found["rows_per_cpu_s_1000"]
        return found


def tool(name: str) -> Any:
    """A peer by its name in a table."""
    made = {"Evidently": Evidently, "NannyML": NannyML, "whylogs": Whylogs}
    return made[name]() if name in made else River(name.removeprefix("river "))


def _seconds(call: Any, times: int) -> float:
    """Processor seconds of a call, the mean of ``times``."""
    began = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - began) / times


def main() -> None:
    """Answer on standard output, in JSON; alarms go to a file beside each case."""
    warnings.simplefilter("ignore")
    mode, asked = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    peer = tool(asked["tool"])
    answer: dict[str, Any] = {"version": version(peer.package), "numpy": np.__version__}
    if mode == "judge":
        answer["cases"] = {}
        for name, path in asked["cases"].items():
            with np.load(path) as file:
                case = dict(file)
            try:
                found = peer.judge(case, asked["alpha"])
            except Exception as error:  # noqa: BLE001  a peer may fail in any way
                answer["cases"][name] = {"failed": f"{type(error).__name__}: {error}"}
                continue
            out = f"{path}.{asked['tool'].replace(' ', '-')}.npz"
            np.savez(out, **found)
            answer["cases"][name] = {"flags": out}
    else:
        with np.load(asked["case"]) as file:
            case = dict(file)
        answer["cost"] = {str(rows): peer.cost(case, rows) for rows in asked["rows"]}
        if hasattr(peer, "check"):
            answer["differs_from_report"] = peer.check(case)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
