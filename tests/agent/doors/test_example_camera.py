"""``examples/camera`` runs as its first lines say, with and without an agent in between."""

from __future__ import annotations

import itertools
import re
import runpy
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent import Model
from edge_agent.doors.http import HttpDoor
from edge_agent.doors.http.door import HttpConfig
from edge_agent.live import Live

CAMERA = Path(__file__).parents[3] / "examples" / "camera"


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def film(path: Path, shown: Iterable[tuple[np.ndarray, int]]) -> None:
    """What the display shows, 10 pictures a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for frame, _ in shown:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


@pytest.mark.slow
def test_the_camera_reads_the_display(tmp_path: Path) -> None:
    run(sys.executable, CAMERA / "display.py", "out", cwd=tmp_path)
    run(
        Path(sys.executable).parent / "edge-pack", "build", "out/digits.joblib",
        "--data", "out/rows.csv", "--target", "label", "--name", "digits", "--version", "1.0",
        "-o", "digits.edgepack", cwd=tmp_path,
    )  # fmt: skip
    words = [sys.executable, CAMERA / "camera.py", "digits.edgepack", "--size", "12x12"]
    said = run(*words, "--frames", 60, "--fps", 50, cwd=tmp_path)
    read = {int(n): int(digit) for n, digit in re.findall(r"frame (\d+): (\d)", said)}
    frames = runpy.run_path(str(CAMERA / "display.py"))["frames"]
    shown = [digit for _, digit in itertools.islice(frames(seed=5), 60)]
    right = sum(shown[number - 1] == digit for number, digit in read.items())
    assert right > len(read) / 2, (read, shown)
    assert re.search(r"\d+ of 60 frames read", said)
    film(tmp_path / "shown.avi", itertools.islice(frames(seed=5), 20))
    said = run(*words, "--source", "shown.avi", "--frames", 20, cwd=tmp_path)
    assert int(re.search(r"(\d+) of 20 frames read", said)[1]) > 10, "a film goes at its own pace"
    for wrong in (["--source", "nothing.avi"], ["--size", "twelve"], ["--size", "99x12"]):
        faulty = subprocess.run(
            [*map(str, words), *wrong], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert faulty.returncode
        assert "Traceback" not in faulty.stderr
    seat = Live("digits", Model.open(tmp_path / "digits.edgepack"))
    door = HttpDoor(HttpConfig(host="127.0.0.1", port=0), {"digits": seat}, version="0")
    try:
        url = f"http://127.0.0.1:{door.port}/predict/digits"
        said = run(*words, "--frames", 10, "--fps", 50, "--url", url, cwd=tmp_path)
    finally:
        door.stop()
    assert int(re.search(r"(\d+) of 10 frames read", said)[1]) >= 1
    assert re.search(r"frame \d+: \d", said)
