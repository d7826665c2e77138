"""What a person sees: tables, JSON, exit codes, and nothing a device could do to a terminal."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleet_kit import FLEET, Packed, draw, record
from typer.testing import CliRunner, Result

from edge_contract import manifest as manifests
from edge_contract import messages, telemetry
from edge_contract.ports.accounts import Accounts
from edge_fleet import brokers, terminal
from edge_fleet.broker import find_mosquitto
from edge_fleet.cli import app
from edge_fleet.collector import now_ms
from edge_fleet.drift.budget import Budget
from edge_fleet.evidence import Evidence
from edge_fleet.library import Library
from edge_fleet.store.base import Fault, ReportSeen, StatusSeen
from edge_fleet.store.sql import SqlStore, open_store
from edge_fleet.windows import window_of

EVIL = "\x1b]0;owned\x07\x1b[31mred\u202etxt\x9b2J"


def run(*words: str, db: str) -> Result:
    return CliRunner().invoke(app, [*words, "--db", db], catch_exceptions=True)


def edge_fleet(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from edge_fleet.cli import main; main()", *words],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [("-1", 2), ("9999", 1), ("10000", 2)])
def test_an_ordinal_is_one_that_every_store_can_hold(db: str, number: str, code: int) -> None:
    """And none of those that stand for other locks. ``--window-s`` ends what gets further."""
    tried = run("serve", "--fleet", FLEET, "--ordinal", number, "--window-s", "0", db=db)
    assert tried.exit_code == code, tried.output


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command that runs until it is stopped; none outlives a test."""
    running: list[subprocess.Popen[str]] = []

    def begin(*words: str, **options: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", "from edge_fleet.cli import main; main()", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.terminate()
        process.wait(120)


@pytest.fixture
def filled(store: SqlStore, packed: Packed, rng: np.random.Generator) -> SqlStore:
    """Two devices; pi-2 drifts; everything a device may word is hostile."""
    now = now_ms()
    hardware = messages.Hardware(
        machine=EVIL, cpus=4, ram_bytes=1, system=EVIL, python=EVIL, onnxruntime=EVIL
    )
    report = messages.Reported(
        boot=1, at_ms=now, agent=EVIL, hardware=hardware, labels={"site": EVIL},
        models={"boiler": messages.ModelReport(phase="committed", active=f"1.0{EVIL}")},
    )  # fmt: skip
    store.claim(FLEET)
    store.put_settings({"collector-0": str(now), "window_s": "60", "false_alarms_per_month": "1"})
    with store.transaction() as tx:
        tx.put_blob(packed.digest, packed.manifest_bytes, now)
        [entry] = [
            f for f in manifests.decode(packed.manifest_bytes).files if f.name == "profile.json"
        ]
        tx.put_blob(entry.sha256, packed.stored, now)
        windows = []
        for device in ("pi-1", "pi-2"):
            tx.status(StatusSeen(device, True, 1, EVIL, now, retained=False))
            for seq in range(6):
                rows = draw(rng, 60)
                if device == "pi-2":
                    rows.temperature += 3.0
                start_ms = now - (6 - seq) * 60_000
                one = record(packed, packed.counts(rows), device=device, seq=seq, start_ms=start_ms)
                windows.append(window_of(telemetry.encode(one), now))
        tx.report(ReportSeen("pi-1", messages.encode(report), now, retained=False))
        tx.add_faults([Fault("pi-1", "bad-counts", EVIL, now)])
        Evidence(Library(), Budget(1, 60)).count(tx, tx.add_windows(windows), now)
    return store


def test_status_tells_what_needs_attention(filled: SqlStore, db: str) -> None:
    result = run("status", db=db)
    assert result.exit_code == 0, result.output
    assert "fleet        test (collector running)" in result.output
    assert "devices      2: 2 online, 0 silent, 0 offline" in result.output
    assert "windows      12" in result.output
    assert "rows         720" in result.output
    assert "pi-1: bad-counts x 1" in result.output
    found = json.loads(run("status", "--json", db=db).output)
    assert (found["devices"], found["windows"], found["streams"]) == (2, 12, 8 + 4), (
        "four of the fleet"
    )
    assert found["threshold"] == pytest.approx(np.log10(8 * 43_200 / 0.75))
    assert found["open_alarms"] >= 1
    assert found["recent_faults"][0]["device"] == "pi-1"


def test_devices_lists_each_with_its_model(filled: SqlStore, db: str) -> None:
    lines = run("devices", db=db).output.splitlines()
    assert lines[0].split() == [
        "device", "state", "model", "phase", "rows", "alarms", "last", "seen", "(UTC)",
    ]  # fmt: skip
    assert lines[1].startswith("pi-1")
    assert "committed" in lines[1]
    assert lines[2].split()[:4] == ["pi-2", "online", "boiler", "1.0"]
    found = json.loads(run("devices", "--json", db=db).output)
    assert [(d["device"], d["state"], d["rows"]) for d in found] == [
        ("pi-1", "online", 360),
        ("pi-2", "online", 360),
    ]
    assert found[1]["models"][0]["open_alarms"] >= 1
    assert found[1]["last_seen"].endswith("Z")


def test_drift_names_device_and_feature(filled: SqlStore, db: str) -> None:
    result = run("drift", db=db)
    assert "pi-2" in result.output
    assert "temperature" in result.output
    assert "pi-1" not in result.output
    found = json.loads(run("drift", "--json", db=db).output)
    [alarm] = found["alarms"]
    assert (alarm["device"], alarm["feature"], alarm["kind"]) == ("pi-2", "temperature", "mean-up")
    assert alarm["evidence"] >= alarm["threshold"]
    assert alarm["cells"][0].keys() == {"cell", "before", "after"}
    everything = run("drift", "--all", db=db).output
    assert everything.count("pi-1") == 4


def test_resolve_closes_an_alarm(filled: SqlStore, db: str) -> None:
    [alarm] = json.loads(run("drift", "--json", db=db).output)["alarms"]
    done = run("resolve", str(alarm["id"]), "--comment", "new sensor", db=db)
    assert done.output == f"closed {alarm['id']}\n"
    assert run("drift", db=db).output.startswith("no drift alarms")
    [closed] = json.loads(run("drift", "--all", "--json", db=db).output)["alarms"]
    assert closed["comment"] == "new sensor"
    assert closed["resolved"]


def test_nothing_a_device_says_reaches_the_terminal_raw(filled: SqlStore, db: str) -> None:
    for words in (["status"], ["devices"], ["drift"], ["drift", "--all"]):
        for form in ([], ["--json"]):
            output = run(*words, *form, db=db).output
            assert not set(output) & set("\x1b\x07\x9b\u202e"), words
            if not form:
                assert output.replace("\n", "") == terminal.clean(output.replace("\n", ""))


def test_rich_markup_from_a_device_stays_text(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(["a"], [["[bold]x[/bold] [link=http://evil]y"]])
    assert "[bold]x[/bold] [link=http://evil]y" in capsys.readouterr().out


def test_without_a_database_it_says_what_to_do(tmp_path: Path) -> None:
    result = edge_fleet("status", EDGE_FLEET_DB=f"sqlite:///{tmp_path}/none.db")
    assert result.returncode == 2
    assert "there is no database" in result.stderr
    assert "edge-fleet serve" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "none.db").exists()


def test_without_the_extra_it_names_it(tmp_path: Path) -> None:
    """SQLAlchemy made unimportable, as on a machine that has only the base install."""
    (tmp_path / "sqlalchemy.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'sqlalchemy'\", name='sqlalchemy')\n"
    )
    result = edge_fleet("status", PYTHONPATH=str(tmp_path))
    assert result.returncode == 4
    assert "pip install 'edge-pack[fleet]'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["serve"], 2, "--fleet"),
        (["serve", "--fleet", "a b", "--broker", "mqtt://127.0.0.1"], 2, "not a valid name"),
        (["serve", "--fleet", "f", "--broker", "http://x"], 2, "scheme 'http'"),
        (["serve", "--fleet", "f", "--broker", "mqtt://h", "--window-s", "0"], 2, "above 0"),
        (["serve", "--fleet", "f", "--broker", "mqtt://h", "--window-s", "inf"], 2, "finite"),
        (["resolve"], 2, "alarms"),
        (["broker", "--port", "99999", "--embedded"], 4, "port"),
    ],
)
def test_a_users_mistake_is_one_line_and_an_exit_code(
    words: list[str], code: int, says: str, tmp_path: Path
) -> None:
    result = edge_fleet(*words, EDGE_FLEET_DB=f"sqlite:///{tmp_path}/x.db")
    assert result.returncode == code, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("kind", ["auto", "embedded"])
def test_the_broker_command_serves_until_it_is_told_to_stop(
    kind: str, tmp_path: Path, start: Start
) -> None:
    words = ["broker", "--port", "0", "--folder", str(tmp_path)]
    words += ["--embedded"] if kind == "embedded" else []
    process = start(*words)
    assert process.stdout is not None
    line = process.stdout.readline()
    expected = "embedded" if kind == "embedded" or find_mosquitto() is None else "mosquitto"
    assert line.startswith("broker mqtt://127.0.0.1:")
    assert expected in line
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


def test_a_broker_with_accounts_is_the_one_that_sees_new_ones_by_itself(
    tmp_path: Path, start: Start
) -> None:
    accounts = Accounts(tmp_path)
    with accounts.changing(create=True):
        pass
    process = start("broker", "--port", "0", "--accounts", str(tmp_path))
    assert process.stdout is not None
    assert "(embedded broker)" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


@pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto on PATH or in /usr/sbin")
@pytest.mark.parametrize("command", ["broker", "serve"])
def test_a_mosquitto_that_dies_is_noticed_and_said(
    tmp_path: Path, start: Start, command: str
) -> None:
    words = [command, "--port", "0", "--folder", str(tmp_path)]
    if command == "serve":
        words += ["--fleet", "f", "--db", f"sqlite:///{tmp_path}/f.db"]
    process = start(*words, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert "(mosquitto)" in process.stdout.readline()
    if command == "serve":
        assert "collecting" in process.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (child,) = children
    os.kill(int(child), signal.SIGKILL)
    assert process.wait(120) == 4
    said = process.stderr.read()
    assert "is gone: mosquitto ended with -9" in said
    assert "Traceback" not in said


def test_serve_starts_a_broker_of_its_own(tmp_path: Path, start: Start) -> None:
    db = f"sqlite:///{tmp_path}/f.db"
    process = start(
        "serve", "--fleet", "f", "--broker", "auto", "--port", "0", "--db", db, "--keep-raw", "3d"
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("broker mqtt://127.0.0.1:")
    assert process.stdout.readline().startswith("collecting fleet f from mqtt://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0
    assert process.stdout.read() == "stopped: everything acknowledged is stored\n"
    store = open_store(db, create=False)
    assert (store.settings()["keep_raw"], store.settings()["keep_hours"]) == ("3d", "90d")
    store.close()


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with brokers.running_broker(0, None, embedded=True) as (url, _):
        port = url.rpartition(":")[2]
        result = edge_fleet("broker", "--port", port, "--embedded")
    assert result.returncode == 4
    assert f"no broker on port {port}" in result.stderr
    assert "Choose another port" in result.stderr
