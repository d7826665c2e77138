"""Real bundles, small enough to build in a test: trained, converted, profiled, sealed."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.runtime import Session, versions
from edge_contract import bundle as bundles
from edge_contract import golden as goldens
from edge_contract import manifest as manifests
from edge_contract import profile as profiles
from edge_contract.manifest import (
    GOLDEN_FILE,
    MODEL_FILE,
    PROFILE_FILE,
    Compression,
    Feature,
    Manifest,
    Outputs,
    Parity,
    Provenance,
    Runtime,
    Tensor,
)
from edge_contract.profile import Monitor, Profile

sys.path.insert(0, str(Path(__file__).parent))
"""For ``odd_bundles``; in import mode importlib pytest leaves the path alone."""

FEATURES = ("temp", "hum", "rpm", "volt")


def reference_rows(seed: int = 7, rows: int = 400, features: int = 4) -> NDArray[np.float64]:
    """Rows that the tiny models are trained and profiled on: standard normal numbers."""
    return np.random.default_rng(seed).normal(size=(rows, features))


@functools.cache
def tiny_onnx(*, seed: int = 7, features: int = 4) -> bytes:
    """A two-class logistic regression, converted by skl2onnx."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = reference_rows(seed, features=features).astype(np.float32)
    labels = np.where(rows[:, 0] + 0.5 * rows[:, 1] > 0, "bad", "good")
    model = LogisticRegression().fit(rows, labels)
    onnx = to_onnx(model, rows[:1], options={"zipmap": False}, target_opset=17)
    return bytes(onnx.SerializeToString())


@functools.cache
def tiny_regressor(*, seed: int = 7) -> bytes:
    """A linear regression on the same four features."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression

    rows = reference_rows(seed).astype(np.float32)
    model = LinearRegression().fit(rows, 3 * rows[:, 0] - rows[:, 3])
    return bytes(to_onnx(model, rows[:1], target_opset=17).SerializeToString())


@functools.cache
def mixed_onnx(*, impute: bool = True) -> bytes:
    """A pipeline on two numbers and one category, a tensor each, as skl2onnx makes it."""
    import pandas as pd
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(3)
    table = pd.DataFrame({"temp": rng.normal(size=300), "hum": rng.normal(size=300)}).assign(
        site=rng.choice(["lyon", "nantes", "paris"], 300)
    )
    labels = ((table["temp"] > 0) ^ (table["site"] == "paris")).astype(int)
    numbers = [SimpleImputer(), StandardScaler()] if impute else [StandardScaler()]
    pipeline = make_pipeline(
        ColumnTransformer(
            [
                ("n", make_pipeline(*numbers), ["temp", "hum"]),
                ("c", OneHotEncoder(handle_unknown="ignore"), ["site"]),
            ]
        ),
        LogisticRegression(),
    ).fit(table, labels)
    types = [
        ("temp", FloatTensorType([None, 1])),
        ("hum", FloatTensorType([None, 1])),
        ("site", StringTensorType([None, 1])),
    ]
    onnx = to_onnx(pipeline, initial_types=types, options={"zipmap": False}, target_opset=17)
    return bytes(onnx.SerializeToString())


def number_monitor(name: str, values: NDArray[np.float64], source: str = "feature") -> Monitor:
    """Eight quantile bins of ``values``, with the counts of ``values`` in them."""
    edges = tuple(np.unique(np.quantile(values, np.linspace(0, 1, 9))).tolist())
    empty = Monitor(
        name=name, kind="quantile", source=source, edges=edges,
        counts=(0,) * (len(edges) - 1 + len(profiles.NUMBER_SPECIALS)),
        mean=float(values.mean()), std=float(values.std()),
    )  # fmt: skip
    counts = profiles.count_numbers(empty, values)
    return _with_counts(empty, counts)


def score_monitor(labels: NDArray[np.int64], scores: NDArray[np.float64], n: int) -> Monitor:
    """Sixteen score bins for each of ``n`` labels."""
    edges = tuple(np.linspace(0, 1, profiles.SCORE_BINS + 1).tolist())
    empty = Monitor(
        name="prediction", kind="score", source="output", edges=edges, labels=n,
        counts=(0,) * (n * profiles.SCORE_BINS + 1),
    )  # fmt: skip
    return _with_counts(empty, profiles.count_scores(empty, labels, scores))


def _with_counts(monitor: Monitor, counts: NDArray[np.int64]) -> Monitor:
    import msgspec

    return msgspec.structs.replace(monitor, counts=tuple(counts.tolist()))


def seal(
    onnx: bytes,
    *,
    name: str = "pump",
    version: str = "1.0",
    task: str = "classification",
    features: tuple[Feature, ...],
    inputs: tuple[Tensor, ...],
    outputs: Outputs,
    golden_inputs: dict[str, NDArray],
    profile: Profile | None,
    golden_shift: float = 0.0,
) -> bytes:
    """A bundle's bytes, with golden outputs computed here (``golden_shift`` spoils them)."""
    session = Session(onnx)
    answers = session.run(golden_inputs)
    golden = goldens.Golden(
        inputs=tuple(goldens.pack(key, value) for key, value in golden_inputs.items()),
        outputs=tuple(
            goldens.pack(key, value + golden_shift if value.dtype.kind == "f" else value)
            for key, value in answers.items()
        ),
        tolerance={"default": goldens.Tolerance(absolute=2e-5, relative=2e-5)},
    )
    raw = {MODEL_FILE: onnx, GOLDEN_FILE: goldens.encode(golden)}
    if profile is not None:
        raw[PROFILE_FILE] = profiles.encode(profile)
    members = {key: bundles.encode_member(key, value) for key, value in raw.items()}
    manifest = Manifest(
        schema=manifests.SCHEMA,
        name=name,
        version=version,
        task=task,
        features=features,
        inputs=inputs,
        outputs=outputs,
        files=tuple(file for file, _ in members.values()),
        runtime=Runtime(
            ir=8, opsets={"": 17, "ai.onnx.ml": 1}, ops=("LinearClassifier",),
            onnxruntime="1.18", ram_bytes=1_000_000,
        ),
        compression=Compression(mode="none", stock_bytes=len(onnx)),
        parity=Parity(
            rows=400, flips=0, flips_max=0.001, diff_max=0.0, diff_p99=0.0, diff_budget=1e-4
        ),
        provenance=Provenance(
            source_sha256="0" * 64, source_type="sklearn", libraries=versions()
        ),
    )  # fmt: skip
    return bundles.write(
        manifests.encode(manifest), {key: stored for key, (_, stored) in members.items()}
    )


def build_tiny(
    version: str = "1.0",
    *,
    name: str = "pump",
    seed: int = 7,
    threshold: float | None = None,
    golden_shift: float = 0.0,
) -> bytes:
    """A real ``.edgepack``: two classes, four numbers, golden samples and a profile.

    Args:
        seed: another seed trains another model, so that its members differ too.
        golden_shift: added to the golden scores; beyond 2e-5 the self-test fails.
    """
    rows = reference_rows(seed)
    onnx = tiny_onnx(seed=seed)
    scores = Session(onnx).run({"X": rows.astype(np.float32)})["probabilities"][:, 1]
    labels = (scores >= (0.5 if threshold is None else threshold)).astype(np.int64)
    monitors = [number_monitor(key, rows[:, i]) for i, key in enumerate(FEATURES)]
    monitors.append(score_monitor(labels, scores.astype(np.float64), 2))
    return seal(
        onnx,
        name=name,
        version=version,
        features=tuple(Feature(name=key) for key in FEATURES),
        inputs=(Tensor(name="X", dtype="float32", shape=(None, 4), features=FEATURES),),
        outputs=Outputs(
            tensors=("label", "probabilities"), label="label", scores="probabilities",
            labels=("bad", "good"), threshold=threshold,
        ),
        golden_inputs={"X": rows[:16].astype(np.float32)},
        profile=Profile(rows=len(rows), monitors=tuple(monitors)),
        golden_shift=golden_shift,
    )  # fmt: skip


def build_regression(version: str = "1.0") -> bytes:
    """A real regression bundle on the four features."""
    rows = reference_rows()
    onnx = tiny_regressor()
    values = Session(onnx).run({"X": rows.astype(np.float32)})["variable"][:, 0]
    monitors = [number_monitor(key, rows[:, i]) for i, key in enumerate(FEATURES)]
    monitors.append(number_monitor("prediction", values.astype(np.float64), "output"))
    return seal(
        onnx,
        name="flow",
        version=version,
        task="regression",
        features=tuple(Feature(name=key) for key in FEATURES),
        inputs=(Tensor(name="X", dtype="float32", shape=(None, 4), features=FEATURES),),
        outputs=Outputs(tensors=("variable",), value="variable"),
        golden_inputs={"X": rows[:16].astype(np.float32)},
        profile=Profile(rows=len(rows), monitors=tuple(monitors)),
    )


def build_mixed(version: str = "1.0", *, missing: str = "refuse", impute: bool = True) -> bytes:
    """A real bundle on two numbers and a category, a tensor each.

    Args:
        missing: what the manifest allows for ``temp``.
        impute: without it the model answers NaN for a missing number.
    """
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=(200, 2))
    sites = rng.choice(["lyon", "nantes", "paris"], 200).tolist()
    feeds = {
        "temp": numbers[:, :1].astype(np.float32),
        "hum": numbers[:, 1:].astype(np.float32),
        "site": np.array(sites, dtype=object).reshape(-1, 1),
    }
    answers = Session(mixed_onnx(impute=impute)).run(feeds)
    category = Monitor(
        name="site", kind="category", categories=("lyon", "nantes", "paris"), counts=(0,) * 6
    )
    monitors = (
        number_monitor("temp", numbers[:, 0]),
        number_monitor("hum", numbers[:, 1]),
        _with_counts(category, profiles.count_categories(category, sites)),
        score_monitor(
            answers["label"].astype(np.int64), answers["probabilities"][:, 1].astype(np.float64), 2
        ),
    )
    return seal(
        mixed_onnx(impute=impute),
        name="site-model",
        version=version,
        features=(
            Feature(name="temp", missing=missing),
            Feature(name="hum"),
            Feature(name="site", type="category", categories=("lyon", "nantes", "paris")),
        ),
        inputs=(
            Tensor(name="temp", dtype="float32", shape=(None, 1), features=("temp",)),
            Tensor(name="hum", dtype="float32", shape=(None, 1), features=("hum",)),
            Tensor(name="site", dtype="string", shape=(None, 1), features=("site",)),
        ),
        outputs=Outputs(
            tensors=("label", "probabilities"), label="label", scores="probabilities",
            labels=(0, 1),
        ),
        golden_inputs={key: value[:16] for key, value in feeds.items()},
        profile=Profile(rows=200, monitors=monitors),
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_bundle():
    """``build_tiny``: tests cannot import a conftest."""
    return build_tiny


@pytest.fixture(scope="session")
def regression_bundle():
    """``build_regression``."""
    return build_regression


@pytest.fixture(scope="session")
def mixed_bundle():
    """``build_mixed``."""
    return build_mixed


@pytest.fixture(scope="session")
def seal_bundle():
    """``seal``: a bundle around any ONNX file."""
    return seal


@pytest.fixture(scope="session")
def odd_bundle():
    """``odd_bundles.odd_bundle``: one that misbehaves as its name says."""
    import odd_bundles

    def build(kind: str, version: str = "1.0", golden_temp: float | None = None) -> bytes:
        return odd_bundles.odd_bundle(seal, kind, version, golden_temp)

    return build
