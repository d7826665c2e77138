"""``edge-agent predict``: files and lines, by a bundle or by what is installed; no broker."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edge_agent import Model
from edge_agent.cli import app
from edge_agent.doors import lines
from edge_contract import bundle as bundles
from edge_contract import messages
from edge_contract.errors import InputFault

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}
HEADER = "temp,hum,rpm,volt\n"


@pytest.fixture
def pump(tiny_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle's file, in the folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pump.edgepack"
    path.write_bytes(tiny_bundle())
    return path


def run(*words: str, stdin: str | bytes = "", code: int = 0):
    """The command's stdout and stderr; it ended with ``code``."""
    ran = CliRunner().invoke(app, ["predict", *words], input=stdin)
    if isinstance(ran.exception, InputFault):
        assert ran.exception.exit_code == code, ran.exception
        return ran.stdout, str(ran.exception)
    assert ran.exit_code == code, (ran.exception, ran.output)
    return ran.stdout, ran.stderr


def write_rows(path: Path, rows: np.ndarray) -> None:
    with path.open("w") as file:
        file.write(HEADER)
        np.savetxt(file, rows, "%.17g", ",")


# -- files ---------------------------------------------------------------------------------------


def test_every_row_of_a_file_is_answered_in_order(pump: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(3).normal(size=(2345, 4))
    write_rows(tmp_path / "rows.csv", rows)
    out, err = run("pump.edgepack", "rows.csv")
    found = list(csv.DictReader(io.StringIO(out)))
    expected = list(Model.open(pump).predict_many(rows))
    assert [row["label"] for row in found] == [p.label for p in expected]
    assert [float(row["probability_good"]) for row in found] == [
        p.probabilities["good"] for p in expected
    ]
    assert [int(row["line"]) for row in found] == list(range(2, 2347))
    assert "2,345 rows, 0 refused" in err
    out, _ = run("pump.edgepack", "rows.csv", "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert [t["probabilities"] for t in told] == [p.probabilities for p in expected]
    out, _ = run("pump.edgepack", "rows.csv", "--output", "answers.csv")
    assert out == ""
    assert [r["label"] for r in csv.DictReader((tmp_path / "answers.csv").open())] == [
        p.label for p in expected
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_columns_go_by_name_others_are_left_alone(pump: Path, delimiter: str, start: str) -> None:
    text = 'time,volt,"temp",rpm,hum,"a;; b|| c\t\t"\nnow,0,0.5,2,-1,0\n\n"a\nb",0,0.5,2,-1,0\n'
    Path("rows.csv").write_text(start + text.replace(",", delimiter).replace("||", ",,"))
    out, err = run("pump.edgepack", "rows.csv", "--json")
    first, second = (json.loads(line) for line in out.splitlines())
    assert first["label"] == second["label"] == Model.open(pump).predict(ROW).label
    assert (first["line"], second["line"]) == (2, 4), "a quoted line end counts as a line"
    assert "not used: time" in err


BAD = [
    ("x,1,1,1", "feature 'temp' is 'x', expected a number"),
    ("1,2,3", "3 cells, the header has 4"),
    ("1,2,3,4,5", "5 cells, the header has 4"),
    ("inf,1,1,1", "feature 'temp' is infinite"),
    ("1e39,1,1,1", "feature 'temp' is 1e+39, which float32 cannot hold"),
    ("9" * 5000 + ",1,1,1", "feature 'temp' is infinite"),
    ("-" + "0" * 5000 + "9" * 100 + ",1,1,1", "feature 'temp' is -1e+100, which float32"),
    ("1_000,1,1,1", "feature 'temp' is '1_000', expected a number"),
    (",1,1,1", "feature 'temp' is missing"),
    ("1,N/A,1,1", "feature 'hum' is missing"),
    ("1,nan,1,1", "feature 'hum' is missing"),
    ('"x"y,1,1,1', "cannot be read"),
]


def test_a_row_that_does_not_fit_costs_no_other_its_answer(pump: Path) -> None:
    good = "0.5,-1,2,0\n"
    Path("rows.csv").write_text(HEADER + "".join(good + bad + "\n" for bad, _ in BAD) + good)
    out, err = run("pump.edgepack", "rows.csv", code=1)
    found = list(csv.DictReader(io.StringIO(out)))
    assert len(found) == 2 * len(BAD) + 1
    expected = Model.open(pump).predict(ROW)
    for i, row in enumerate(found):
        assert int(row["line"]) == i + 2
        if i % 2:
            assert BAD[i // 2][1] in row["error"]
            assert row["label"] == ""
        else:
            assert (row["label"], row["error"]) == (expected.label, "")
    assert f"{2 * len(BAD) + 1} rows, {len(BAD)} refused" in err
    assert err.count("rows.csv, line") == 5, "the first few are named"


def test_strict_ends_at_the_first_and_writes_nothing(pump: Path, tmp_path: Path) -> None:
    Path("rows.csv").write_text(HEADER + "1,1,1,1\n1,1,x,1\n")
    Path("old.csv").write_text("old")
    _, err = run("pump.edgepack", "rows.csv", "--strict", "--output", "old.csv", code=2)
    assert err.startswith("rows.csv, line 3: feature 'rpm' is 'x', expected a number")
    assert Path("old.csv").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old.csv", "pump.edgepack", "rows.csv"]


def test_missing_values_follow_the_manifest(mixed_bundle, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("site.edgepack").write_bytes(mixed_bundle(missing="allow"))
    Path("rows.csv").write_text(
        "temp,hum,site\n,0,lyon\nNULL,0,paris\n1,,lyon\n1,true,never seen\n1,0,\n1,0,NA\n"
    )
    out, _ = run("site.edgepack", "rows.csv", "--json", code=1)
    told = [json.loads(line) for line in out.splitlines()]
    assert [t.get("error") for t in told] == [
        None, None, "feature 'hum' is missing (NaN, null or empty)", None,
        "feature 'site' is missing (NaN, null or empty)", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no header"),
        ("a,b\n1,2\n", "the header lacks 'temp', 'hum', 'rpm', 'volt'"),
        ("temp,hum,rpm,volt,temp\n", "names 'temp' twice"),
        (HEADER.encode() + b"1,1,1,\xff\n", "not UTF-8"),
        (HEADER.encode() + b"1" * (17 * 1024**2), "over 16777216 characters"),
    ],
)
def test_a_file_that_is_no_table_is_refused(pump: Path, text: str | bytes, said: str) -> None:
    Path("rows.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    assert said in run("pump.edgepack", "rows.csv", code=2)[1]


def test_a_header_alone_has_no_answers(pump: Path) -> None:
    Path("rows.csv").write_text(HEADER)
    out, err = run("pump.edgepack", "rows.csv")
    assert out == "line,label,probability_bad,probability_good,error\n"
    assert "0 rows, 0 refused" in err


def test_rows_come_on_standard_input_and_as_arrays(pump: Path) -> None:
    rows = np.random.default_rng(4).normal(size=(1200, 4))
    write_rows(Path("rows.csv"), rows)
    expected, _ = run("pump.edgepack", "rows.csv", "--json")
    assert run("pump.edgepack", "-", "--json", stdin=Path("rows.csv").read_text())[0] == expected
    np.savez("columns.npz", **dict(zip(ROW, rows.T, strict=True)), other=np.zeros(3))
    np.savez("tensor.npz", X=rows)
    for name in ("columns.npz", "tensor.npz"):
        out, _ = run("pump.edgepack", name, "--json")
        told = [json.loads(line) for line in out.splitlines()]
        wanted = [json.loads(line) for line in expected.splitlines()]
        assert [t["line"] for t in told] == list(range(1, 1201))
        assert [t["probabilities"] for t in told] == [w["probabilities"] for w in wanted]
    rows[7, 1] = np.nan
    np.savez("tensor.npz", X=rows)
    out, _ = run("pump.edgepack", "tensor.npz", "--json", code=1)
    errors = {t["line"]: t["error"] for t in map(json.loads, out.splitlines()) if "error" in t}
    assert list(errors) == [8]


def test_nothing_is_unpickled(pump: Path) -> None:
    np.savez("evil.npz", X=np.array([[object()]], dtype=object))
    assert "evil.npz" in run("pump.edgepack", "evil.npz", code=2)[1]
    Path("broken.npz").write_bytes(b"PK\x03\x04 no more")
    assert "broken.npz" in run("pump.edgepack", "broken.npz", code=2)[1]
    np.savez("other.npz", Y=np.zeros(3))
    assert "has no array" in run("pump.edgepack", "other.npz", code=2)[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no file of rows"),
        (["pump.edgepack"], "no file of rows"),
        (["a", "b", "c"], "too many"),
        (["--lines", "a", "b"], "too many"),
        (["--lines", "--strict"], "leave the others out"),
        (["pump.edgepack", "no.csv"], "cannot read no.csv"),
        (["no.edgepack", "no.csv"], "no.edgepack"),
        (["pump.edgepack", "rows.parquet"], "expected .csv or .npz"),
        (["pump.edgepack", "rows.csv", "--output", "x.txt"], "the suffix says the form"),
        (["--config", "no.toml", "rows.csv"], "no settings at no.toml"),
    ],
)
def test_wrong_use_is_said(pump: Path, words: list[str], said: str) -> None:
    assert said in run(*words, code=2)[1]


# -- what is installed -----------------------------------------------------------------------------


def install(tmp_path: Path, *bundle_bytes: bytes) -> None:
    """What an agent leaves on its disk, and its settings."""
    from edge_agent import state
    from edge_agent.folder import Folder
    from edge_agent.steps import State
    from edge_contract.messages import Release

    folder = Folder(tmp_path / "state")
    for data in bundle_bytes:
        bundle = bundles.read(data)
        place = folder.slot(bundle.digest)
        place.mkdir(parents=True)
        (place / bundles.MANIFEST_MEMBER).write_bytes(bundle.manifest_bytes)
        for file in bundle.manifest.files:
            (place / file.name).write_bytes(bundle.file(file.name))
        name, version = bundle.manifest.name, bundle.manifest.version
        release = Release(version=version, sha256=bundle.digest, path=f"models/{name}/x.json")
        state.save(folder, name, State(active=release))
    (tmp_path / "agent.toml").write_text(
        '[agent]\ndevice = "pi1"\nfleet = "home"\nfolder = "state"\n'
        '[broker]\nurl = "mqtt://localhost"\n'
    )


def test_what_is_installed_answers_by_its_name(pump: Path, regression_bundle, tiny_bundle) -> None:
    install(Path.cwd(), tiny_bundle())
    Path("rows.csv").write_text(HEADER + "0.5,-1,2,0\n")
    expected, _ = run("pump.edgepack", "rows.csv")
    assert run("--config", "agent.toml", "rows.csv")[0] == expected
    assert run("--config", "agent.toml", "pump", "rows.csv")[0] == expected
    _, err = run("--config", "agent.toml", "fan", "rows.csv", code=2)
    assert "no model 'fan' is installed" in err
    assert "there are: pump" in err


def test_of_several_one_is_named_and_a_damaged_one_refused(
    pump: Path, regression_bundle, tiny_bundle
) -> None:
    install(Path.cwd(), tiny_bundle(), regression_bundle())
    Path("rows.csv").write_text(HEADER + "0.5,-1,2,0\n")
    assert "2 models are installed" in run("--config", "agent.toml", "rows.csv", code=2)[1]
    out, _ = run("--config", "agent.toml", "flow", "rows.csv")
    assert out.startswith("line,value,error\n2,1.")
    for damaged in Path("state/slots").glob("*/model.onnx"):
        damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    assert "is damaged" in run("--config", "agent.toml", "pump", "rows.csv", code=2)[1]


@pytest.mark.parametrize(("phase", "answers"), [("trial", True), ("staged", False)])
def test_the_first_version_answers_here_as_soon_as_it_is_on_trial(
    pump: Path, tiny_bundle, phase: str, answers: bool
) -> None:
    from edge_agent import state
    from edge_agent.folder import Folder
    from edge_agent.steps import Phase, State

    install(Path.cwd(), tiny_bundle())
    folder = Folder(Path.cwd() / "state")
    release = state.load(folder, "pump").active
    state.save(folder, "pump", State(candidate=release, wanted=release, phase=Phase(phase)))
    Path("rows.csv").write_text(HEADER + "0.5,-1,2,0\n")
    words = ("--config", "agent.toml", "pump", "rows.csv")
    if answers:
        assert run(*words)[0] == run("pump.edgepack", "rows.csv")[0]
    else:
        assert "no version that answers yet: staged" in run(*words, code=2)[1]


def test_the_advice_about_a_wrong_request_holds_a_tensor_that_is_right() -> None:
    with pytest.raises(InputFault) as refused:
        messages.decode_request(b'{"tensors": {"x": [[1, 2]]}}')
    example = refused.value.advice.rpartition(" or ")[2].removesuffix(".")
    (tensor,) = messages.decode_request(example.encode()).tensors.values()
    assert tensor.shape == (1, 3)
    assert len(tensor.data) == 3


# -- lines -----------------------------------------------------------------------------------------

LINES: list[tuple[bytes, str]] = [
    (json.dumps(ROW).encode(), ""),
    (b'{"rows": [[0.5, -1, 2, 0], {"temp": 0.5, "hum": -1, "rpm": 2, "volt": 0}]}', ""),
    (b'{"tensors": {"X": {"dtype": "float32", "shape": [1, 4], "data": [0.5, -1, 2, 0]}}}', ""),
    (b"", "not a valid request"),
    (b"{", "not a valid request"),
    (b"[" * 100_000, "not a valid request"),
    (b"\xff\xfe", "not a valid request"),
    (b"null", "not a valid request"),
    (b'{"temp": 1}', "are missing"),
    (b'{"temp": "x", "hum": 1, "rpm": 1, "volt": 1}', "expected a number"),
    (b'{"temp": 1e999, "hum": 1, "rpm": 1, "volt": 1}', ""),
    (b'{"temp": NaN, "hum": 1, "rpm": 1, "volt": 1}', "not a valid request"),
    (b'{"pad": "' + b"x" * 3_000_000 + b'"}', "a line of over 1048576 bytes"),
    (json.dumps(ROW).encode() + b"\r", ""),
]


def test_each_line_gets_one_line_back(pump: Path) -> None:
    model = Model.open(pump)
    sent = b"\n".join(line for line, _ in LINES)  # the last without an end
    out = io.BytesIO()
    tally = lines.serve(model, io.BytesIO(sent), out)
    told = [messages.decode(line, messages.Answer) for line in out.getvalue().splitlines()]
    assert len(told) == len(LINES)
    for (line, said), answer in zip(LINES, told, strict=True):
        if b"1e999" in line:
            continue  # whether JSON's reader or the model refuses it, it is refused
        if said:
            assert said in answer.error.what, line[:80]
        else:
            assert answer.error is messages.UNSET, answer
    assert told[0].predictions[0].label == model.predict(ROW).label
    assert len(told[1].predictions) == 2
    assert told[10].error is not messages.UNSET
    assert tally == (4, len(LINES) - 4)


@pytest.fixture
def child(pump: Path):
    """A real ``edge-agent predict --lines``."""
    started = []

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_agent.cli", "predict", "--lines", str(pump)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def test_a_line_is_answered_before_the_next_is_sent(child) -> None:
    process = child()
    for wanted in ("predictions", "error", "predictions"):
        process.stdin.write(json.dumps(ROW if wanted == "predictions" else {}).encode() + b"\n")
        process.stdin.flush()
        assert wanted in json.loads(process.stdout.readline())
    process.stdin.close()
    assert process.wait(120) == 0
    assert process.stderr.read() == b"2 answered, 1 refused\n"


def test_a_reader_that_goes_away_and_ctrl_c_end_it_without_a_traceback(child) -> None:
    process = child()
    process.stdin.write(json.dumps(ROW).encode() + b"\n")
    process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    assert process.stderr.read() == b"interrupted\n"
    process = child()
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write((json.dumps(ROW).encode() + b"\n") * 10)
        process.stdin.flush()
    assert process.wait(120) == 141
    assert process.stderr.read() == b""


def test_a_bar_is_drawn_on_a_terminal_that_shows_no_answers(pump: Path) -> None:
    import os
    import pty

    write_rows(Path("rows.csv"), np.zeros((3000, 4)))
    words = [sys.executable, "-m", "edge_agent.cli", "predict", str(pump), "rows.csv"]
    shown = {}
    for output in (True, False):
        ours, theirs = pty.openpty()
        more = ["--output", "answers.csv"] if output else []
        target = theirs if output else subprocess.DEVNULL
        with subprocess.Popen([*words, *more], stdout=target, stderr=theirs) as process:
            os.close(theirs)
            said = b""
            with contextlib.suppress(OSError):  # the other end is closed
                while part := os.read(ours, 4096):
                    said += part
            assert process.wait(120) == 0
        os.close(ours)
        shown[output] = said
    for said in shown.values():
        assert b"100%" in said
        assert said.endswith(b"3,000 rows, 0 refused\r\n")
    assert not subprocess.run(words, capture_output=True, check=True).stderr.count(b"%")


def test_an_ensemble_of_the_settings_answers_by_what_is_installed(pump: Path, tiny_bundle) -> None:
    from edge_agent import Ensemble

    install(Path.cwd(), tiny_bundle(), tiny_bundle(name="fan", seed=8))
    with Path("agent.toml").open("a") as settings:
        settings.write(
            '[ensembles.chain]\nmodels = ["fan", "pump"]\nfeeds = { "fan.temp" = "pump.score" }\n'
        )
    Path("fan.edgepack").write_bytes(tiny_bundle(name="fan", seed=8))
    Path("rows.csv").write_text(HEADER + "0.5,-1,2,0\n1,1,1,1\n")
    out, _ = run("--config", "agent.toml", "chain", "rows.csv", "--json")
    chain = Ensemble.of(
        {"fan": "fan.edgepack", "pump": "pump.edgepack"}, {"fan.temp": "pump.score"}
    )
    expected = chain.predict([ROW, dict.fromkeys(ROW, 1.0)])
    told = [json.loads(line)["probabilities"] for line in out.splitlines()]
    assert told == [p.probabilities for p in expected]
