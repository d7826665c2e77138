"""What changed between two bundles: schema, breaks, reference distributions, answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from scipy.spatial.distance import jensenshannon
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from typer.testing import CliRunner

from edge_contract.errors import InputFault
from edge_contract.manifest import Feature, Manifest
from edge_contract.profile import Monitor, Profile, count_categories, count_numbers
from edge_pack import Built, reading
from edge_pack.cli import app
from edge_pack.gates import diff, diffing, shift
from edge_pack.profile_build import quantile_edges


@pytest.fixture(scope="module")
def manifest(machines: Any, tmp_path_factory: Any) -> Manifest:
    return reading.open_bundle(_build(machines, tmp_path_factory.mktemp("one")).config.out).manifest


def _build(machines: Any, folder: Path, **options: Any) -> Built:
    import joblib

    from edge_pack import BuildConfig, build

    frame, target = machines
    rows = options.pop("rows", slice(None))
    model = make_pipeline(
        ColumnTransformer(
            [
                ("n", SimpleImputer(), ["temperature", "vibration"]),
                ("t", OneHotEncoder(handle_unknown="ignore"), ["site", "pump"]),
            ]
        ),
        options.pop("model", LogisticRegression(max_iter=2000)),
    ).fit(frame[rows], target[rows])
    folder.mkdir(exist_ok=True)
    joblib.dump(model, folder / "model.joblib")
    frame[rows].join(target[rows]).to_csv(folder / "rows.csv", index=False)
    return build(
        BuildConfig(
            **{
                "model": folder / "model.joblib", "data": folder / "rows.csv", "target": "state",
                "name": "pump", "version": "1.0", "out": folder / "pump.edgepack",
                "measure": False, **options,
            }
        )
    )  # fmt: skip


def _features(manifest: Manifest, **changes: Any) -> Manifest:
    """The manifest with one feature's fields changed."""
    name = changes.pop("of")
    return replace(
        manifest,
        features=tuple(
            replace(one, **changes) if one.name == name else one for one in manifest.features
        ),
    )


def test_a_bundle_is_the_same_as_itself(manifest: Manifest) -> None:
    assert all(lines == () for lines in diff.compare(manifest, manifest).values())
    assert diff.breaks(manifest, manifest) == ()


def _dropped(manifest: Manifest) -> Manifest:
    return replace(manifest, features=manifest.features[1:])


CASES = {
    "gone": (_dropped, "'site' is gone"),
    "new": (
        lambda m: replace(m, features=(*m.features, Feature(name="rpm"))), "'rpm' is new",
    ),
    "type": (lambda m: _features(m, of="vibration", type="category"), "was a number and is a cat"),
    "missing": (lambda m: _features(m, of="temperature", missing="refuse"), "no longer be missing"),
    "order": (lambda m: replace(m, features=m.features[::-1]), "order of the features"),
    "labels": (
        lambda m: replace(m, outputs=replace(m.outputs, labels=("stops", "runs"))), "labels were",
    ),
    "label's type": (
        lambda m: replace(m, outputs=replace(m.outputs, labels=(0, 1))), "labels were",
    ),
    "scores": (lambda m: replace(m, outputs=replace(m.outputs, scores="")), "no probabilities"),
    "task": (lambda m: replace(m, task="clustering"), "was classification and is clustering"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_breaks_a_caller_is_said(case: str, manifest: Manifest) -> None:
    change, reason = CASES[case]
    changed = change(manifest)
    assert any(reason in text for text in diff.breaks(manifest, changed))
    found = diff.compare(manifest, changed)
    assert found["schema"] or found["outputs"] or found["identity"]


@pytest.mark.parametrize(
    ("changes", "heading", "what"),
    [
        ({"of": "vibration", "maximum": 9.0}, "schema", "vibration: maximum"),
        ({"of": "vibration", "resolution": 0.5}, "schema", "vibration: resolution"),
        ({"of": "site", "categories": ("graz", "rome")}, "schema", "site: categories"),
        ({"of": "vibration", "missing": "allow"}, "schema", "vibration: missing"),
    ],
)
def test_other_values_break_nobody(
    changes: dict[str, Any], heading: str, what: str, manifest: Manifest
) -> None:
    changed = _features(manifest, **changes)
    assert diff.breaks(manifest, changed) == ()
    assert [line.what for line in diff.compare(manifest, changed)[heading]] == [what]


def test_metrics_files_and_provenance_are_compared(manifest: Manifest) -> None:
    metrics = (replace(manifest.metrics[0], bundle=0.5), *manifest.metrics[1:])
    files = (replace(manifest.files[0], size=7), *manifest.files[1:])
    other = replace(
        manifest, metrics=metrics, files=files,
        provenance=replace(manifest.provenance, libraries={"numpy": "9.9"}),
    )  # fmt: skip
    found = diff.compare(manifest, other)
    assert [(line.what, line.b) for line in found["metrics"]] == [("accuracy", 0.5)]
    assert [(line.what, line.b) for line in found["files"]] == [("model.onnx (bytes)", 7)]
    libraries = {line.what: (line.a, line.b) for line in found["provenance"]}
    assert libraries["libraries.numpy"] == (np.__version__, "9.9")
    assert libraries["libraries.onnx"][1] is None


# Reference distributions


def _quantile(values: Any, edges: Any = None) -> Monitor:
    ready = Monitor(
        name="x", kind="quantile", edges=quantile_edges(values) if edges is None else edges,
        counts=(),
    )  # fmt: skip
    return replace(ready, counts=tuple(count_numbers(ready, values).tolist()))


def _between(a: Monitor, b: Monitor) -> tuple[shift.Shift, ...]:
    return shift.between(
        Profile(rows=sum(a.counts), monitors=(a,)), Profile(rows=sum(b.counts), monitors=(b,))
    )


def test_same_bins_give_scipys_divergence_and_the_textbook_index() -> None:
    rng = np.random.default_rng(6)
    before, after = rng.normal(size=3000), rng.normal(0.3, 1.2, 2000)
    a = _quantile(before)
    b = _quantile(after, a.edges)
    (found,) = _between(a, b)
    assert found.same_bins
    assert found.js == pytest.approx(jensenshannon(a.counts, b.counts, base=2) ** 2, rel=1e-3)
    p, q = (np.array(m.counts) + 0.5 for m in (a, b))
    there = np.array(a.counts) + np.array(b.counts) > 0
    p, q = p[there] / p[there].sum(), q[there] / q[there].sum()
    assert found.psi == pytest.approx(float(((p - q) * np.log(p / q)).sum()), rel=1e-3)


def test_other_bins_of_the_same_rows_hardly_differ_and_a_shift_does() -> None:
    rng = np.random.default_rng(6)
    first, second = rng.normal(size=5000), rng.normal(size=5000)
    (same,) = _between(_quantile(first), _quantile(second))
    (moved,) = _between(_quantile(first), _quantile(second + 0.5))
    assert not same.same_bins and same.js < 0.01 and moved.js > 0.03 and moved.psi > 0.2
    (apart,) = _between(_quantile(first), _quantile(second + 100))
    assert apart.js == pytest.approx(1, abs=1e-3)


def _lattice(values: Any) -> Monitor:
    edges = tuple(float(value) for value in np.unique(values))
    ready = Monitor(name="x", kind="lattice", edges=edges, counts=())
    return replace(ready, counts=tuple(count_numbers(ready, np.asarray(values, float)).tolist()))


def test_values_and_bins_meet() -> None:
    a, b = _lattice([0, 1, 1, 2] * 50), _lattice([1, 2, 2, 3] * 50)
    (found,) = _between(a, b)
    assert found.js == pytest.approx(
        jensenshannon([1, 2, 1, 0], [0, 1, 2, 1], base=2) ** 2, rel=1e-3
    )
    binned = _quantile(np.random.default_rng(1).integers(0, 3, 400) + 0.0, (-0.5, 0.5, 1.5, 2.5))
    (mixed,) = _between(binned, _lattice([0, 1, 2] * 100))
    assert mixed.js < 0.01
    (other,) = _between(_lattice([0, 0, 0, 2] * 100), binned)
    assert other.js > 0.1


def _category(values: list[Any], names: tuple[str, ...]) -> Monitor:
    ready = Monitor(name="x", kind="category", categories=names, counts=())
    return replace(ready, counts=tuple(count_categories(ready, values).tolist()))


def test_categories_meet_by_name() -> None:
    a = _category(["u"] * 30 + ["v"] * 70, ("u", "v"))
    b = _category(["v"] * 70 + ["w"] * 30, ("v", "w"))
    (found,) = _between(a, b)
    assert found.js == pytest.approx(0.3, rel=1e-3) and found.kind == "category"
    assert _between(a, a) == ()


def test_a_feature_of_another_kind_is_not_compared() -> None:
    assert _between(_category(["u"], ("u",)), _lattice([1.0])) == ()


# Sealed bundles


@pytest.fixture(scope="module")
def pair(machines: Any, tmp_path_factory: Any) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    first = _build(machines, folder / "a", rows=slice(0, 300))
    second = _build(
        machines, folder / "b", version="1.1", rows=slice(200, 600),
        model=RandomForestClassifier(10, random_state=0),
    )  # fmt: skip
    return first.config.out, second.config.out


def test_two_models_answer_each_others_samples(
    pair: tuple[Path, Path], machines: Any, tmp_path: Path
) -> None:
    found = diffing.bundles(*pair)
    assert found.breaks == () and found.a.version == "1.0" and found.b.version == "1.1"
    assert found.answers.reason == "the two take different inputs"  # a forest has two tensors
    assert {line.what for line in found.changes["files"]} >= {"model.onnx (bytes)"}
    names = [one.name for one in found.profile]
    assert "prediction" in names and all(0 <= one.js <= 1 for one in found.profile)
    again = _build(machines, tmp_path, rows=slice(100, 400))
    asked = diffing.bundles(pair[0], again.config.out).answers
    assert asked.rows == 64 and asked.diff_max > 0 and not asked.reason
    same = diffing.bundles(pair[0], pair[0])
    assert same.answers == diff.Answers(rows=same.answers.rows) and same.profile == ()


def test_the_command_prints_what_differs_and_same_for_the_rest(pair: tuple[Path, Path]) -> None:
    said = CliRunner().invoke(app, ["diff", str(pair[0]), str(pair[1])])
    assert said.exit_code == 0, said.output
    assert "pump 1.0" in said.output and "pump 1.1" in said.output
    assert "outputs: same" in said.output and "can use the second" in said.output
    assert "accuracy" in said.output
    said = CliRunner().invoke(app, ["diff", str(pair[0]), str(pair[0])])
    assert "the same, to the byte" in said.output


def test_the_exit_code_says_whether_a_caller_breaks(
    pair: tuple[Path, Path], machines: Any, tmp_path: Path
) -> None:
    frame, target = machines
    narrow = frame.drop(columns="pump").assign(pump="a1")
    other = _build((narrow, target.map({"fails": "bad", "runs": "good"})), tmp_path / "c")
    arguments = ["diff", str(pair[0]), str(other.config.out), "--exit-code"]
    said = CliRunner().invoke(app, [*arguments, "--json"])
    assert said.exit_code == 1
    found = json.loads(said.output)
    assert any("labels were" in reason for reason in found["breaks"])
    assert CliRunner().invoke(app, arguments[:-1]).exit_code == 0
    assert (
        CliRunner().invoke(app, ["diff", str(pair[0]), str(pair[1]), "--exit-code"]).exit_code == 0
    )


def test_a_damaged_bundle_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.edgepack"
    broken.write_bytes(pair[0].read_bytes()[:-700])
    with pytest.raises(InputFault):
        diffing.bundles(pair[0], broken)


def test_names_that_look_like_markup_are_printed_as_they_are(machines: Any, tmp_path: Path) -> None:
    frame, target = machines
    odd = frame.assign(pump=np.where(frame.pump == "a1", "[red]x[/red]", "[/]"))
    first = _build(machines, tmp_path / "a")
    second = _build((odd, target), tmp_path / "b", slices=("pump",), require=("accuracy>=0.1",))
    said = CliRunner().invoke(app, ["diff", str(first.config.out), str(second.config.out)])
    assert said.exit_code == 0 and "[red]x[/red]" in said.output
    shown = CliRunner().invoke(app, ["inspect", str(second.config.out)])
    assert shown.exit_code == 0 and "pump=[red]x[/red]" in shown.output
