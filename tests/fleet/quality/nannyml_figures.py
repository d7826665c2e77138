"""Writes ``nannyml.json``: what NannyML estimates of windows, beside their score histograms.

NannyML holds pandas and others at releases of its own, so it runs in an environment of its own:

    python -m venv /tmp/nannyml && /tmp/nannyml/bin/pip install nannyml==0.13.1 statsmodels
    /tmp/nannyml/bin/python tests/fleet/quality/nannyml_figures.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import nannyml
import numpy as np
import pandas as pd

FILE = Path(__file__).with_name("nannyml.json")
REFERENCE, WINDOW = 20_000, 10_000
BINARY = ["accuracy", "precision", "recall", "f1", "roc_auc"]


def binary(rng, rows, shift, spread, sure):
    """A logistic truth; with ``sure`` above 1 the model is overconfident."""
    x = rng.normal(shift, spread, rows)
    true = (rng.random(rows) < 1 / (1 + np.exp(-1.5 * x + 0.5))).astype(int)
    score = 1 / (1 + np.exp(-1.5 * sure * x + 0.5))
    return pd.DataFrame({"score": score, "predicted": (score >= 0.5).astype(int), "true": true})


def several(rng, rows, shift):
    """Three labels; scores by softmax, a little overconfident."""
    x = rng.normal(0, 1.2, (rows, 3)) + np.array([shift, 0, 0])
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    true = (rng.random(rows)[:, None] > np.cumsum(p, axis=1)).sum(axis=1).clip(0, 2)
    s = np.exp(1.3 * x)
    s /= s.sum(axis=1, keepdims=True)
    frame = pd.DataFrame({f"score{i}": s[:, i] for i in range(3)})
    return frame.assign(predicted=s.argmax(axis=1), true=true, score=s.max(axis=1))


def counted(frame, labels, bins):
    counts = np.zeros((labels, labels, bins), dtype=int)
    at = np.minimum((frame.score * bins).astype(int), bins - 1)  # even bins
    np.add.at(counts, (frame.true, frame.predicted, at), 1)
    return counts


def estimated(kind, columns, reference, window):
    metrics = BINARY if kind == "classification_binary" else BINARY[:4]
    cbpe = nannyml.CBPE(
        y_pred_proba=columns,
        y_pred="predicted",
        y_true="true",
        problem_type=kind,
        metrics=metrics,
        chunk_size=WINDOW,
    )
    cbpe.fit(reference)
    frame = cbpe.estimate(window.drop(columns="true")).filter(period="analysis").to_df()
    return {name: float(frame[name]["value"].iloc[-1]) for name in metrics}


def case(name, labels, bins, columns, *frames):
    kind = "binary" if labels == 2 else "multiclass"
    reference, window = named = frames
    if labels > 2:  # NannyML wants the labels that its columns are named by
        words = {i: f"class{i}" for i in range(labels)}
        named = [f.assign(true=f.true.map(words), predicted=f.predicted.map(words)) for f in named]
    return {
        "name": name,
        "labels": labels,
        "bins": bins,
        "reference": counted(reference, labels, bins).tolist(),
        "window": counted(window, labels, bins).sum(axis=0).tolist(),
        "nannyml": estimated(f"classification_{kind}", columns, *named),
        "true_accuracy": float((window.true == window.predicted).mean()),
    }


def main():
    rng = np.random.default_rng(6)
    three = several(rng, REFERENCE, 0.0)
    each = {f"class{i}": f"score{i}" for i in range(3)}
    cases = []
    for kind, sure in (("calibrated", 1.0), ("overconfident", 1.5)):
        reference = binary(rng, REFERENCE, 0.0, 1.0, sure)
        for name, shift, spread in (("quiet", 0, 1), ("shifted", 0.7, 1), ("narrow", -0.3, 0.5)):
            window = binary(rng, WINDOW, shift, spread, sure)
            for bins in (16, 32):
                title = f"{kind}, {name}, {bins} bins"
                cases.append(case(title, 2, bins, "score", reference, window))
    for name, shift in (("quiet", 0.0), ("shifted", 1.0)):
        cases.append(case(f"three, {name}", 3, 16, each, three, several(rng, WINDOW, shift)))
    found = {"nannyml": version("nannyml"), "cases": cases}
    FILE.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
