"""What the trigger runs: train on newly labelled rows, build against the old bundle, publish.

It reads the evidence on standard input and works in the folder that it is started in. Told twice
under one key, it does its work once. Any exit code but 0 is tried again, then given up: a model
that does not pass its gates goes nowhere.

    [triggers.retrain]
    command = { run = ["python", "retrain.py", "mqtt://broker", "home"] }
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import joblib
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from edge_contract import trigger

BIN = Path(sys.executable).parent
TARGET = "state"
CANARY = "canary"
LEAST = "accuracy>=0.9"


def main(broker: str, fleet: str) -> None:
    """Retrain the model that the evidence names."""
    evidence = trigger.decode(sys.stdin.buffer.read())
    print(f"told to retrain {evidence.model} {evidence.version}: {evidence.alarms[0].what}")
    done = Path(f"{evidence.key[:16]}.done")
    if evidence.dry_run or done.exists():
        print("nothing to do: a dry run, or done before")
        return
    new = next_version(evidence.version)
    rows = pd.read_csv("labelled.csv")
    train, held = train_test_split(rows, test_size=0.5, random_state=1, stratify=rows[TARGET])
    model = RandomForestClassifier(20, max_depth=8, random_state=1)
    model.fit(train.drop(columns=TARGET), train[TARGET])
    joblib.dump(model, f"{evidence.model}-{new}.joblib")
    held.to_csv("held.csv", index=False)
    print(f"trained on {len(train)} rows that were labelled since; {len(held)} kept back")
    out = f"{evidence.model}-{new}.edgepack"
    run(
        "edge-pack", "build", f"{evidence.model}-{new}.joblib", "--data", "held.csv",
        "--target", TARGET, "--name", evidence.model, "--version", new, "--keys", "keys",
        "--baseline", f"{evidence.model}-{evidence.version}.edgepack", "--require", LEAST,
        "--no-measure", "-o", out,
    )  # fmt: skip
    run("edge-pack", "publish", out, "--broker", broker, "--fleet", fleet, "--channel", CANARY,
        "--keys", "keys")  # fmt: skip
    done.touch()
    print(f"{evidence.model} {new} is on its way to the channel {CANARY}")


def next_version(version: str) -> str:
    """2.0 after 1.0."""
    return f"{int(version.split('.', maxsplit=1)[0]) + 1}.0"


def run(*words: str) -> None:
    """One of our commands; what it printed, and the end of everything where it fails."""
    finished = subprocess.run(
        [BIN / words[0], *words[1:]], stdin=subprocess.DEVNULL, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    print(finished.stdout, finished.stderr, sep="", end="")
    if finished.returncode:
        sys.exit(finished.returncode)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
