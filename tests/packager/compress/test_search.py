"""A whole build's search: what it tries, what it takes, what it writes down and repeats."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier

from edge_contract.errors import BuildFault, InputFault, MachineFault
from edge_pack import BuildConfig, golden_build, graphs, measure, reading
from edge_pack.answers import Answers
from edge_pack.compress import bench, candidates, recipe
from edge_pack.compress.entry import Entry, confirm, keep
from edge_pack.compress.modes import MODES
from edge_pack.compress.pareto import Timing
from edge_pack.config import MAX_METRIC_DROP
from edge_pack.measure import Latency, Measured
from edge_pack.parity import Budget, Comparison

WIDE = {"max_flips": 0.05, "max_diff": 0.3}


@pytest.fixture(scope="module")
def forest(digits: Any) -> Any:
    """16 trees over 64 pixels."""
    return RandomForestClassifier(16, random_state=0).fit(*digits)


def test_a_search_tries_measures_and_takes_the_smallest(
    digits_mlp: Any, digits: Any, pack: Any
) -> None:
    frame, target = digits
    built = pack(digits_mlp, frame.join(target), "digit", measure=True, max_flips=0.02)
    measured = msgspec.json.decode(
        measure.path_beside(built.config.out).read_bytes(), type=Measured
    )
    assert measured.schema == 2 and measured.search == built.search is not None
    found = {each.mode: each for each in built.search.candidates}
    assert set(found) == {mode for mode in MODES if not mode.startswith("trees")}
    taken = [each for each in found.values() if each.verdict == "chosen"]
    assert [each.mode for each in taken] == [built.manifest.compression.mode]
    assert taken[0].size_bytes == built.manifest.files[0].size < found["none"].size_bytes
    for each in (found["none"], *taken):
        assert [figure.batch for figure in each.latency] == [1, 256]
        assert each.load_ms is not None and each.rss_bytes is not None and each.rows > 400
        assert each.metric == "accuracy" and each.metric_drop <= MAX_METRIC_DROP
    assert found["none"].against == {1: 1.0, 256: 1.0} and min(built.search.noise.values()) >= 0.03
    assert all(each.flips or each.diff_max for each in found.values() if each.mode != "none")
    over = [each for each in found.values() if each.verdict == "over budget"]
    assert over and not any(each.latency for each in over)
    smaller = [each for each in found.values() if each.size_bytes < taken[0].size_bytes]
    assert all(each.verdict in ("over budget", "slower", "no faster") for each in smaller)


def test_what_seems_slower_is_timed_again() -> None:
    plain, *_ = entries = [Entry("none"), Entry("fp16-storage"), Entry("int8-storage")]
    assert keep(entries, _benched(100, 140, 150)) and not plain.verdict
    assert [entry.verdict for entry in entries[1:]] == ["slower", "slower"]
    confirm(entries, _benched(100, 101, 150))
    assert [entry.verdict for entry in entries[1:]] == ["", "slower"]
    assert entries[1].against == {1: 1.0} and entries[2].against == {1: 1.5}


def _benched(*microseconds: float) -> bench.Benched:
    """Forms that took so long at batch 1 in every round, float32 first."""
    timings = tuple(Timing({1: [took] * 5}) for took in microseconds)
    alone = tuple(bench.Alone(load_ms=1.0, rss_bytes=0) for _ in microseconds)
    latency = tuple((Latency(batch=1, p50_us=t, p99_us=t, calls=5),) for t in microseconds)
    return bench.Benched(timings, timings[0], alone, latency)


@pytest.mark.parametrize(
    ("quantize", "options"),
    [
        ("auto", {"max_flips": 0.02}),
        ("int8-static", {**WIDE, "max_metric_drop": 0.02}),
        ("int4-storage", {"force": True}),
    ],
)
def test_a_recipe_repeats_the_bytes(
    quantize: str, options: Any, request: Any, pack: Any, tmp_path: Path
) -> None:
    digits_mlp = request.getfixturevalue("digits_mlp")
    frame, target = request.getfixturevalue("digits")
    rows = frame.join(target)
    first = pack(digits_mlp, rows, "digit", quantize=quantize, folder=tmp_path / "a", **options)
    path = recipe.path_beside(first.config.out)
    again = pack(first.config.model, rows, "digit", recipe=path, folder=tmp_path / "b")
    assert again.config.out.read_bytes() == first.config.out.read_bytes()
    assert again.search is None and set(again.sizes) == {first.manifest.compression.mode}
    assert recipe.path_beside(again.config.out).read_bytes() == path.read_bytes()
    assert first.manifest.parity.forced is bool(options.get("force"))
    if quantize == "auto":
        assert first.manifest.files[0].size < 0.5 * first.sizes["none"]


def test_pruned_trees_are_offered_for_a_metric_and_repeated(
    forest: Any, digits: Any, pack: Any, tmp_path: Path
) -> None:
    frame, target = digits
    rows = frame.join(target)
    plain = pack(forest, rows, "digit", folder=tmp_path / "a", **WIDE)
    assert "trees-pruned" not in plain.sizes
    built = pack(
        forest, rows, "digit", folder=tmp_path / "b", max_metric_drop=0.1, max_flips=0.2,
        max_diff=0.7,
    )  # fmt: skip
    assert built.manifest.compression.mode == "trees-pruned"
    assert built.manifest.compression.parameters["share"] < 1
    assert built.manifest.files[0].size < plain.manifest.files[0].size
    path = recipe.path_beside(built.config.out)
    again = pack(built.config.model, rows, "digit", recipe=path, folder=tmp_path / "c")
    assert again.config.out.read_bytes() == built.config.out.read_bytes()


def test_trees_stay_exact_unless_it_is_said_what_they_may_cost(diabetes: Any, pack: Any) -> None:
    frame, target = diabetes
    model = GradientBoostingRegressor(max_depth=5, random_state=0).fit(frame, target)
    rows = frame.join(target)
    exact = pack(model, rows, "progression", max_diff=0.05)
    found = {each.mode: each for each in exact.search.candidates}
    assert exact.manifest.compression.mode == "none"
    assert found["trees-leaf8"].verdict == "not asked for"
    assert found["trees-leaf8"].size_bytes < 0.9 * found["none"].size_bytes
    for options in ({"max_metric_drop": 0.001}, {"quantize": "trees-leaf8"}):
        built = pack(model, rows, "progression", max_diff=0.05, **options)
        assert built.manifest.compression.mode == "trees-leaf8"
        assert built.manifest.compression.parameters == {"levels": 255}
        assert 0 < built.manifest.parity.diff_max <= 0.05


def test_trees_of_version_5_are_offered_where_every_device_runs_them(
    diabetes: Any, pack: Any, tmp_path: Path
) -> None:
    frame, target = diabetes
    model = GradientBoostingRegressor(max_depth=5, random_state=0).fit(frame, target)
    rows = frame.join(target)
    older = pack(model, rows, "progression")
    assert "trees-v5" not in older.sizes
    with pytest.raises(
        BuildFault, match=r"need ONNX Runtime 1\.21, devices may have 1\.18"
    ) as said:
        pack(model, rows, "progression", quantize="trees-v5")
    assert "--runtime '>=1.21'" in str(said.value)
    by_size = pack(model, rows, "progression", runtime=">=1.21", optimize="size", measure=True)
    (found,) = [each for each in by_size.search.candidates if each.mode == "trees-v5"]
    assert found.verdict == "no smaller" and not found.latency and found.flips == 0
    assert found.diff_max <= 1e-6 * float(target.max())
    lighter = pack(model, rows, "progression", runtime=">=1.21", optimize="memory", measure=True)
    (found,) = [each for each in lighter.search.candidates if each.mode == "trees-v5"]
    assert found.verdict in ("chosen", "slower", "dominated", "possible") and found.latency
    built = pack(
        model, rows, "progression", runtime=">=1.21", quantize="trees-v5", folder=tmp_path / "a"
    )
    manifest = built.manifest
    assert manifest.runtime.onnxruntime == "1.21" and manifest.compression.parameters == {"ml": 5}
    assert reading.verify(built.config.out, keys=None, root=None).steps
    path = recipe.path_beside(built.config.out)
    again = pack(built.config.model, rows, "progression", recipe=path, folder=tmp_path / "b")
    assert again.config.out.read_bytes() == built.config.out.read_bytes()


def test_trees_of_version_5_are_not_offered_for_leaves_of_several_labels(
    forest: Any, digits: Any, pack: Any
) -> None:
    frame, target = digits
    rows = frame.join(target)
    assert "trees-v5" not in pack(forest, rows, "digit", runtime=">=1.21").sizes
    built = pack(forest, rows, "digit", runtime=">=1.21", quantize="trees-v5")
    assert built.manifest.parity.flips == 0 and built.manifest.parity.diff_max < 1e-6


def test_a_model_with_nothing_to_gain_stays_as_it_is_and_is_not_timed(wine: Any, pack: Any) -> None:
    frame, target = wine
    model = RandomForestClassifier(3, max_depth=2, random_state=0).fit(frame, target)
    built = pack(model, frame.join(target), "kind", measure=True)
    assert built.manifest.compression.mode == "none" and built.search.noise == {}
    found = {each.mode: each.verdict for each in built.search.candidates}
    assert found.pop("none") == "chosen"
    few = {"changed nothing", "no smaller", "hardly smaller", "not asked for"}
    assert set(found.values()) <= few
    plain, *others = built.search.candidates
    assert all(
        (each.size_bytes < plain.size_bytes) == (each.verdict == "hardly smaller")
        for each in others
        if each.verdict in ("no smaller", "hardly smaller")
    )


def test_an_explicit_form_beyond_the_budget_is_refused_or_forced(
    digits_mlp: Any, digits: Any, pack: Any
) -> None:
    frame, target = digits
    rows = frame.join(target)
    with pytest.raises(BuildFault, match="labels changed"):
        pack(digits_mlp, rows, "digit", quantize="int8-static")
    built = pack(digits_mlp, rows, "digit", quantize="int8-static", force=True)
    manifest = built.manifest
    assert manifest.parity.forced and manifest.compression.mode == "int8-static"
    assert manifest.compression.parameters == {"bits": 8, "calibration": "minmax"}
    assert reading.verify(built.config.out, keys=None, root=None).steps


def test_golden_samples_of_a_model_with_steps_allow_a_step() -> None:
    def steps(feeds: Any) -> Any:
        return {"y": np.rint(feeds["x"] * 4) / 4, "label": np.array([1])}

    at_an_edge = {"x": np.array([0.125, 1.0], dtype=np.float32), "text": np.array(["a"])}
    assert golden_build.slack(steps, at_an_edge) == 0.25
    assert golden_build.slack(steps, {"x": np.array([1.0], dtype=np.float32)}) == 0.0
    golden = golden_build.build({}, {"y": np.array([1.0])}, 0.25)
    wider = golden.tolerance["default"].absolute
    assert wider == pytest.approx(0.25 + golden_build.TOLERANCE.absolute)


def test_trees_have_no_layer_to_quantize(forest: Any, digits: Any, pack: Any) -> None:
    frame, target = digits
    for mode, said in (("int8-dynamic", "nothing"), ("int8-static", "nothing|failed")):
        with pytest.raises(BuildFault, match=said):
            pack(forest, frame.join(target), "digit", quantize=mode)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimize": "speed"}, "--optimize 'speed' is unknown"),
        ({"optimize": "latency", "measure": False}, "needs measurements"),
        ({"batch": 0}, "--batch 0"),
        ({"max_metric_drop": 0.1}, "needs the true answers"),
        ({"max_metric_drop": 2.0, "target": "y"}, "--max-metric-drop 2"),
        ({"recipe": Path("r.json"), "quantize": "none"}, "pass one of them"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputFault, match=said):
        BuildConfig(
            model=tmp_path / "m", data=tmp_path / "d", name="m", version="1",
            out=tmp_path / "o", **options,
        )  # fmt: skip


def test_a_recipe_that_cannot_be_followed_is_refused(
    digits_mlp: Any, digits: Any, pack: Any, tmp_path: Path
) -> None:
    frame, target = digits
    rows = frame.join(target)
    first = pack(digits_mlp, rows, "digit", quantize="int8-storage", **WIDE)
    made = json.loads(recipe.path_beside(first.config.out).read_bytes())
    cases = [
        ({**made, "mode": "int2"}, "does not know"),
        ({**made, "schema": 9}, "schema 9"),
        ({**made, "max_flips": "all"}, "not a recipe"),
        ({**made, "max_flips": 7}, "--max-flips 7"),
        ([], "not a recipe"),
    ]
    for content, said in cases:
        path = tmp_path / "bad.json"
        path.write_text(json.dumps(content))
        with pytest.raises(InputFault, match=said):
            pack(digits_mlp, rows, "digit", recipe=path)
    path.write_bytes(b"\xff{")
    with pytest.raises(InputFault, match="not a recipe"):
        pack(digits_mlp, rows, "digit", recipe=path)
    path.write_text(json.dumps({**made, "libraries": {**made["libraries"], "onnx": "1.0"}}))
    built = pack(digits_mlp, rows.iloc[1:], "digit", recipe=path)
    (notice,) = [text for text in built.notices if "recipe" in text]
    assert "the data" in notice and "onnx (1.0 then," in notice and "the model" not in notice


def test_a_metric_budget_is_a_budget_of_its_own() -> None:
    truth = np.array([0, 1, 1, 0, 1.0])
    before = Answers(np.array([0, 1, 1, 0, 0]))
    worse = candidates.leading("classification", before, Answers(np.array([1, 1, 1, 0, 0])), truth)
    assert worse is not None and worse.name == "accuracy" and worse.drop == pytest.approx(0.2)
    values = candidates.leading(
        "regression",
        Answers(values=truth[:, None]),
        Answers(values=np.full((5, 1), truth.mean())),
        truth,
    )
    assert values is not None and values.name == "r2" and values.drop == pytest.approx(1.0)
    assert candidates.leading("tensors", before, before, truth) is not None
    assert candidates.leading("regression", before, Answers(), truth) is None
    same = Comparison(rows=5, flips=0, diff_max=0.0, diff_p99=0.0, worst=())
    cost = candidates.Cost(answers=before, comparison=same, metric=worse)
    assert cost.within(Budget(1, 1), None) and cost.within(Budget(1, 1), 0.21)
    assert not cost.within(Budget(1, 1), 0.19)


def test_the_child_times_every_model_in_turn(make: Any, feed: Any) -> None:
    models = [graphs.serialise(make("matmul")), graphs.serialise(make("gemm"))]
    feeds = {1: feed("gemm", 1), 7: feed("gemm", 7)}
    found = bench.run(models, feeds)
    assert len(found.timings) == len(found.alone) == len(found.latency) == 2
    for timing in (*found.timings, found.again):
        assert {batch: len(rounds) for batch, rounds in timing.rounds.items()} == {
            1: bench.ROUNDS, 7: bench.ROUNDS,
        }  # fmt: skip
    for each in found.alone:
        assert each is not None and each.load_ms > 0
    with pytest.raises(MachineFault, match="measuring the candidates failed"):
        bench.run([b"no model"], feeds)


_INTERRUPTED = """
import sys
from pathlib import Path
from edge_pack import BuildConfig, build
def progress(stage):
    print(stage, flush=True)
build(BuildConfig(model=Path(sys.argv[1]), data=Path(sys.argv[2]), name="m", version="1",
                  out=Path(sys.argv[3]), target="digit", max_flips=0.02, batch=60000), progress)
"""


@pytest.mark.slow
def test_an_interrupted_measurement_leaves_no_process_and_no_file(
    digits_mlp: Any, digits: Any, pack: Any, tmp_path: Path
) -> None:
    frame, target = digits
    first = pack(digits_mlp, frame.join(target), "digit", quantize="none")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    out = tmp_path / "nothing.edgepack"
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, first.config.model, first.config.data, out],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().endswith(": timing"):
            break
    while not _children(scratch):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(timeout=60) != 0
    while _children(scratch):  # killed, and gone as soon as the system has taken it down
        pass
    assert not list(scratch.iterdir()) and not out.exists()


def _children(scratch: Path) -> list[str]:
    """Processes whose arguments name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(str(scratch).encode()) for word in words):
            found.append(path.parent.name)
    return found
