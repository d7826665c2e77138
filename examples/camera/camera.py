"""A camera that is read by a bundle: the newest frame, whenever the model is ready for one.

    python examples/camera/display.py out
    edge-pack build out/digits.joblib --data out/rows.csv --target label \
        --name digits --version 1.0 -o digits.edgepack
    python examples/camera/camera.py digits.edgepack --size 12x12 --frames 100

Without ``--source`` it looks at a display that it draws itself. A source is the number of a camera,
a file, a URL (``rtsp://...``), or a GStreamer pipeline that ends in ``appsink``, all by OpenCV
(``pip install opencv-python-headless``; GStreamer needs a build with it, as Debian's
``python3-opencv``):

    camera.py digits.edgepack --source 0
    camera.py digits.edgepack --source "libcamerasrc ! videoconvert ! appsink drop=true"

With ``--url http://127.0.0.1:8080/predict/digits`` a running agent is asked instead, which counts,
watches for drift and swaps versions; the bundle then only says what the model takes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent import Model
from edge_agent.doors.media import Images
from edge_agent.media_rules import Rules
from edge_contract.errors import EdgeError

Frame = NDArray[np.uint8]


class Newest:
    """The newest frame of a source; those that nobody was ready for are dropped, not queued."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames = frames
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._ended = False
        self.seen = 0
        threading.Thread(target=self._grab, daemon=True).start()

    def _grab(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    self._frame, self.seen = frame, self.seen + 1
                    self._changed.notify()
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def __iter__(self) -> Iterator[tuple[int, Frame]]:
        """Each frame with its number in the source, from 1."""
        while True:
            with self._changed:
                while self._frame is None and not self._ended:
                    self._changed.wait()
                frame, self._frame, number = self._frame, None, self.seen
            if frame is None:
                return
            yield number, frame


def drawn(count: int, per_second: float) -> Iterator[Frame]:
    """So many frames of a display that is drawn here."""
    sys.path.insert(0, str(Path(__file__).parent))
    import display  # noqa: PLC0415 - beside this file

    for frame, _ in itertools.islice(display.frames(seed=5), count):
        yield frame
        time.sleep(1 / per_second)


def captured(source: str, count: int) -> Iterator[Frame]:
    """So many frames that OpenCV takes from ``source``; a film at its own pace.

    Exits here, not in the thread that takes the frames, when there is nothing to take.
    """
    try:
        import cv2  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        sys.exit("--source needs OpenCV: pip install opencv-python-headless")
    pipeline = "appsink" in source
    where: int | str = int(source) if source.isdigit() else source
    capture = cv2.VideoCapture(where, cv2.CAP_GSTREAMER if pipeline else cv2.CAP_ANY)
    if not capture.isOpened():
        sys.exit(f"{source} cannot be opened")
    pause_s = 0.0
    if Path(source).is_file():
        pause_s = 1 / max(capture.get(cv2.CAP_PROP_FPS), 1.0)

    def frames() -> Iterator[Frame]:
        for _ in range(count):
            there, frame = capture.read()
            if not there:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            time.sleep(pause_s)

    return frames()


def asked(url: str) -> Callable[[Any], tuple[Any, float]]:
    """Label and score, by an agent over HTTP."""

    def ask(rows: Any) -> tuple[Any, float]:
        tensors = isinstance(rows, dict)
        body = (
            {"tensors": {n: _tensor(t) for n, t in rows.items()}} if tensors else {"rows": [rows]}
        )
        request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            found = json.load(answer)["predictions"][0]
        return found["label"], found["probabilities"][str(found["label"])]

    return ask


def _tensor(array: NDArray[Any]) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": array.shape, "data": array.ravel().tolist()}


def answered(model: Model) -> Callable[[Any], tuple[Any, float]]:
    """Label and score, by the bundle in this process."""

    def ask(rows: Any) -> tuple[Any, float]:
        found = model.predict(rows)
        first = found[0] if isinstance(found, list) else found
        return first.label, first.score or 0.0

    return ask


def sides(said: str) -> tuple[int, ...]:
    """``12x12`` as two numbers; for argparse."""
    width, height = said.split("x")
    return int(width), int(height)


def main() -> None:
    """Read what the camera shows, and say it when it changes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--source", default="", help="camera, file, URL or GStreamer pipeline")
    parser.add_argument("--frames", type=int, default=10**9)
    parser.add_argument("--fps", type=float, default=25.0, help="of the display that is drawn")
    parser.add_argument(
        "--size", type=sides, default=(), help="WxH, where the model leaves it open"
    )
    parser.add_argument("--url", default="", help="of an agent's /predict/<model>")
    chosen = parser.parse_args()
    with Model.open(chosen.bundle) as model:
        images = Images(model.manifest, Rules(size=chosen.size))
        ask = asked(chosen.url) if chosen.url else answered(model)
        frames = (
            captured(chosen.source, chosen.frames)
            if chosen.source
            else drawn(chosen.frames, chosen.fps)
        )
        newest = Newest(frames)
        shown, count, busy_s = None, 0, 0.0
        for number, frame in newest:
            begin = time.perf_counter()
            label, score = ask(images.rows(frame))
            busy_s += time.perf_counter() - begin
            count += 1
            if label != shown:
                print(f"frame {number}: {label} ({score:.2f})", flush=True)
                shown = label
    each_ms = 1000 * busy_s / max(count, 1)
    print(f"{count} of {newest.seen} frames read, {each_ms:.1f} ms each")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except EdgeError as error:
        sys.exit(f"{error.what}\n{error.advice}".rstrip())
    except OSError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
