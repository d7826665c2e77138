"""What the tests of installing share: bundles in two forms, a publisher, tools that may lack."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from edge_contract import broker_url
from edge_contract import bundle as bundles
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.topics import Topics
from edge_release import create
from edge_release.publication import connect, sync
from edge_release.repository import Repository

FLEET, CHANNEL = "home", "stable"
TREE = Path(__file__).parents[2]
DEADLINE_S = 120.0


@dataclass(frozen=True)
class Kit:
    """What tests cannot import from a conftest."""

    fleet: str
    channel: str
    tree: Path
    wait_for: Callable[..., Any]
    want: Callable[..., None]
    publish: Callable[..., str]


def wait_for(ready: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until ``ready`` gives something true; fail at the deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if found := ready():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {deadline_s:g} s")


def want(*programs: str, package: str, root: bool = True) -> None:
    """Skip, with the reason, where this machine cannot run the test."""
    if root and os.geteuid() != 0:
        pytest.skip("needs root")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if missing := [name for name in programs if not shutil.which(name, path=path)]:
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install {package}")


def publish(folder: Path, url: str, *files: Path) -> str:
    """A new publisher in ``folder``, these bundles on the broker; the root's fingerprint."""
    now = datetime.datetime.now(datetime.UTC)
    fingerprint = create(folder, "home", now=now)
    repository = Repository(folder)
    with repository.locked():
        for path in files:
            bundle = bundles.read(path.read_bytes())
            repository.publish(bundle, fleet=FLEET, channel=CHANNEL, now=now)
    topics = Topics(FLEET)
    link = LinkConfig(broker=broker_url.parse(url), client_id="publisher")
    with connect(link, topics) as retained:
        sync(repository, topics, retained)
    return fingerprint


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit(FLEET, CHANNEL, TREE, wait_for, want, publish)


@pytest.fixture(scope="session")
def digit_bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network in float32 and in int8, as ``edge-pack build`` makes them."""
    folder = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    rows = digits.data / 16
    model = MLPClassifier((32,), max_iter=30, random_state=0).fit(rows, digits.target)
    joblib.dump(model, folder / "digits.joblib")
    names = [f"pixel_{i}" for i in range(rows.shape[1])]
    table = pd.DataFrame(rows, columns=names).assign(digit=digits.target)
    table.to_csv(folder / "rows.csv", index=False)
    found = {}
    for form, name in (("none", "digits"), ("int8-static", "digits-int8")):
        found[name] = folder / f"{name}.edgepack"
        subprocess.run(
            [
                sys.executable, "-m", "edge_pack", "build", folder / "digits.joblib",
                "--data", folder / "rows.csv", "--target", "digit", "--name", name,
                "--version", "1.0", "--quantize", form, "--max-flips", "5%", "--max-diff", "1",
                "--no-measure", "--no-provenance", "-o", found[name],
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
    return found
