"""Logs for a program are one JSON object a line; nothing secret is in any; the end is orderly."""

import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_kit import until

from edge_contract.errors import InputFault
from edge_fleet import logs
from edge_fleet.api.server import Listen, running
from edge_fleet.store.sql import SqlStore

SECRETS = {
    "edgefleet_0123456789ab_" + "A" * 43: "edgefleet_0123456789ab_***",
    "Authorization: Bearer abcdefgh12345": "Authorization: Bearer ***",
    "to mqtts://plant.server:hunter2@broker:8883/x": "to mqtts://plant.server:***@broker:8883/x",
    "postgresql+psycopg://edge:s3cret@db/fleet": "postgresql+psycopg://edge:***@db/fleet",
    "password=hunter2; next": "password=***; next",
}


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("edge_fleet.x").makeRecord(
        "edge_fleet.x", logging.WARNING, "f.py", 1, message, args, None, extra=extra
    )
    made.created = 1_790_000_000.25
    return made


def test_a_record_is_one_line_of_ascii_with_its_fields() -> None:
    line = logs.json_form().format(record("a\n%s ü \x1b[2J\u202e", "b", device="pi-1", rows=3))
    assert line.isascii() and "\n" not in line and "\x1b" not in line
    assert json.loads(line) == {
        "ts": "2026-09-21T14:13:20.250Z",
        "level": "warning",
        "logger": "edge_fleet.x",
        "message": "a\nb ü \x1b[2J\u202e",
        "device": "pi-1",
        "rows": 3,
    }


def test_what_a_client_or_a_device_words_begins_no_line_of_text() -> None:
    forged = "2026-09-21T14:13:20Z WARNING the audit was verified"
    one = record("%s %s %s %.1f ms", "GET", f"/x\n{forged}\u2028{forged}\r\n", 401, 1.0)
    [line] = logs.TextForm().format(one).splitlines()
    assert line.startswith("2026-09-21T14:13:20Z WARNING GET /x") and line.endswith(" 401 1.0 ms")
    try:
        raise ValueError("x")
    except ValueError:
        one.exc_info = sys.exc_info()
    first, *trace = logs.TextForm().format(one).splitlines()
    assert first == line and trace[-1] == "ValueError: x"


@pytest.mark.parametrize(("said", "left"), SECRETS.items())
@pytest.mark.parametrize("form", [logs.json_form(), logs.TextForm()])
def test_no_secret_is_said_in_any_form(said: str, left: str, form: logging.Formatter) -> None:
    one = record("%s", said, url=said)
    try:
        raise ValueError(said)
    except ValueError:
        one.exc_info = sys.exc_info()
    line = form.format(one)
    assert said not in line
    assert left in line


def test_a_form_that_is_none_is_refused() -> None:
    with pytest.raises(InputFault, match="none of text, json"):
        logs.form_of("xml")


# -- requests ------------------------------------------------------------------------------


class Kept(logging.Handler):
    """Keeps what it is told, as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(logs.json_form().format(record)))


@pytest.fixture
def told() -> Iterator[Kept]:
    logger = logging.getLogger("edge_fleet.api")
    kept, level = Kept(), logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(kept)
    logger.setLevel(level)


def test_each_request_has_a_line_and_an_id_and_neither_query_nor_token(
    store: SqlStore, told: Kept
) -> None:
    with running(store, Listen("127.0.0.1", 0)) as url:
        address = url.removeprefix("http://")
        for given, path in (("abc-1", "/health"), ("no good\t", "/api/v1/devices?label=a:geheim")):
            connection = http.client.HTTPConnection(address, timeout=60)
            connection.request(
                "GET", path, headers={"X-Request-Id": given, "Authorization": "Bearer sesam1234"}
            )
            answer = connection.getresponse()
            answer.read()
            back = answer.headers["X-Request-Id"]
            assert (back == given) == (given == "abc-1")
            connection.close()
            until(lambda back=back: any(x["request_id"] == back for x in told.lines), "a line", 30)  # type: ignore[misc]
    first, second = (each for each in told.lines if "method" in each)
    assert (first["method"], first["path"], first["status"]) == ("GET", "/health", 200)
    assert (second["path"], second["status"]) == ("/api/v1/devices", 401)
    assert isinstance(second["duration_ms"], float) and second["client"] == "127.0.0.1"
    assert "geheim" not in str(told.lines) and "sesam" not in str(told.lines)


# -- the commands --------------------------------------------------------------------------


def start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edge_fleet", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def lines_until(process: subprocess.Popen[str], word: str) -> list[dict[str, object]]:
    assert process.stderr is not None
    found = []
    for line in process.stderr:
        found.append(json.loads(line))
        if word in str(found[-1]["message"]):
            return found
    raise AssertionError(f"it ended without {word!r}: {found}")


def serving(tmp_path: Path) -> tuple[subprocess.Popen[str], str]:
    process = start(
        tmp_path, "serve", "--fleet", "plant", "--port", "0", "--http", "127.0.0.1:0",
        "--log-format", "json",
    )  # fmt: skip
    said = lines_until(process, "collecting fleet plant")
    url = next(str(x["message"]).split()[-1] for x in said if "serving http" in str(x["message"]))
    return process, url


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return found


def test_serve_logs_json_only_and_ends_in_order_with_a_stream_open(tmp_path: Path) -> None:
    process, url = serving(tmp_path)
    from edge_fleet.api import tokens
    from edge_fleet.store.sql import open_store

    store = open_store(f"sqlite:///{tmp_path}/edge-fleet.db", create=False)
    token, text = tokens.mint("me", "viewer", 1, None, os.urandom)
    with store.transaction() as tx:
        tx.put_api_token(token)
    store.close()
    asked = urllib.request.Request(
        f"{url}/api/v1/events/stream", headers={"Authorization": f"Bearer {text}"}
    )
    with urllib.request.urlopen(asked, timeout=60) as stream:
        assert stream.readline()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    said = [json.loads(line) for line in err.splitlines()]
    assert said[-1]["message"] == "stopped: everything acknowledged is stored"
    assert out == "" and text not in err


def test_a_second_signal_ends_it_at_once_with_what_it_started(tmp_path: Path) -> None:
    process, _ = serving(tmp_path)
    started = children(process.pid)
    import sqlite3

    # Somebody holds the store: the collector cannot end in order before its patience is over.
    holder = sqlite3.connect(tmp_path / "edge-fleet.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    done = threading.Event()

    def wait() -> None:
        process.wait()
        done.set()

    threading.Thread(target=wait).start()
    process.send_signal(signal.SIGTERM)
    while not done.wait(0.05):
        process.send_signal(signal.SIGTERM)
    holder.execute("ROLLBACK")
    holder.close()
    assert process.returncode == -signal.SIGTERM
    until(lambda: not any(alive(each) for each in started), "what it started is gone", 60)
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
