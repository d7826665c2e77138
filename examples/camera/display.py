"""A display with one digit, as a camera sees it: what stands in for a camera where there is none.

    python examples/camera/display.py OUT     # train a reader of such displays

Needs ``edge-pack[build,images]``. OUT gets ``digits.joblib`` and ``rows.csv``.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE, SMALL = 64, 12
"""Pixels of a frame, and of what the model reads: both square."""


def frames(seed: int, change_every: int = 5) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Frames without end, ``[64, 64, 3]``, and the digit that each shows."""
    rng = np.random.default_rng(seed)
    font = ImageFont.load_default(size=44)
    while True:
        digit = int(rng.integers(10))
        for _ in range(change_every):
            image = Image.new("L", (SIDE, SIDE), int(rng.integers(0, 40)))
            where = (18 + rng.uniform(-4, 4), 4 + rng.uniform(-4, 4))
            ImageDraw.Draw(image).text(where, str(digit), int(rng.integers(170, 256)), font)
            noisy = np.asarray(image, dtype=float) + rng.normal(scale=12, size=(SIDE, SIDE))
            grey = noisy.clip(0, 255).astype(np.uint8)
            yield np.repeat(grey[:, :, np.newaxis], 3, axis=2), digit


def small(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The pixels that the model reads, 0 to 1, row by row: what ``Images`` makes of a frame."""
    grey = Image.fromarray(frame).convert("L")
    fitted = grey.resize((SMALL, SMALL), Image.Resampling.BICUBIC)
    return np.asarray(fitted, dtype=float).ravel() / 255


def train(folder: Path, rows: int = 1500) -> None:
    """Write a trained model, and the rows that it was trained on."""
    import joblib  # noqa: PLC0415 - only for training
    import pandas as pd  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    shown = list(itertools.islice(frames(seed=1, change_every=1), rows))
    names = [f"pixel_{y}_{x}" for y in range(SMALL) for x in range(SMALL)]
    table = pd.DataFrame([small(frame) for frame, _ in shown], columns=names)
    labels = [digit for _, digit in shown]
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(LogisticRegression(max_iter=2000).fit(table, labels), folder / "digits.joblib")
    table.assign(label=labels).to_csv(folder / "rows.csv", index=False)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
