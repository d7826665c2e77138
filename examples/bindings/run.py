"""Bindings from nothing: trains a small model, starts a broker and sensors, shows the answers.

Uses ordinary commands only (``edge-pack build``, ``edge-agent bind``); leaves its files in
``bindings-run/`` and no process behind. ``edge-agent bind --try`` needs no signed delivery: it
answers by the bundle's file and publishes nothing. On a device with the bundle installed,
``edge-agent run`` with the same settings answers, and Home Assistant shows the sensors.

Example: python examples/bindings/run.py --seconds 60
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge_fleet.broker import BrokerConfig, BrokerThread

HERE = Path(__file__).parent
FOLDER = Path("bindings-run")
BIN = Path(sys.executable).parent
PORT = 18830


def train(folder: Path) -> None:
    """A model of healthy and worn pumps on the same four features, and the rows it was shown."""
    rng = np.random.default_rng(1)
    worn = rng.random(2000) < 0.5
    wear = np.where(worn, rng.uniform(0.4, 1.0, 2000), rng.uniform(0.0, 0.2, 2000))
    rows = pd.DataFrame(
        {
            "temp": 20 + 10 * wear + rng.normal(0, 0.3, 2000),
            "power": 100 + 40 * wear + rng.normal(0, 2, 2000),
            "drift": rng.normal(0, 0.2, 2000),
            "hum_50hz": (0.02 + wear) ** 2 / 2 + rng.normal(0, 0.002, 2000),
        }
    )
    labels = np.where(worn, "worn", "healthy")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    joblib.dump(model, folder / "pump.joblib")
    rows.assign(state=labels).to_csv(folder / "pump.csv", index=False)


def show(*words: str) -> None:
    """Run a command and show it. Raises CalledProcessError when it fails."""
    print(f"$ {' '.join(words)}", flush=True)
    subprocess.run([str(BIN / words[0]), *words[1:]], cwd=FOLDER, check=True)


def main() -> None:
    """All of it, for so many seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    train(FOLDER)
    shutil.copy(HERE / "agent.toml", FOLDER)
    show(
        "edge-pack", "build", "pump.joblib", "--data", "pump.csv", "--target", "state",
        "--name", "pump", "--version", "1.0", "-o", "pump-1.0.edgepack",
    )  # fmt: skip
    bundle = ("--config", "agent.toml", "--bundle", "./pump-1.0.edgepack")
    show("edge-agent", "bind", "--check", *bundle)
    with BrokerThread(BrokerConfig(port=PORT)) as broker:
        sensors = subprocess.Popen(
            [sys.executable, str(HERE / "sensors.py"), "--broker", broker.url]
        )
        try:
            show("edge-agent", "bind", "--try", "--seconds", str(seconds), *bundle)
        finally:
            sensors.terminate()
            sensors.wait()


if __name__ == "__main__":
    main()
