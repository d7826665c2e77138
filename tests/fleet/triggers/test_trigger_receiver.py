"""The example receiver believes what we sign, once, and nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from trigger_kit import SECRET
from typer.testing import CliRunner

from edge_fleet.cli import app
from edge_fleet.triggers import signing

RECEIVER = Path(__file__).parents[3] / "examples" / "retrain" / "receiver.py"


def test_it_believes_a_test_of_a_trigger_and_refuses_a_stranger(tmp_path: Path) -> None:
    (tmp_path / "hook.secret").write_text(SECRET)
    words = [sys.executable, str(RECEIVER), str(tmp_path / "hook.secret"), "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().split()[-1]
            file = tmp_path / "triggers.toml"
            file.write_text(
                f'[triggers.tell]\nwebhook = {{ url = "{url}", secret_file = "hook.secret" }}\n'
            )
            told = CliRunner().invoke(app, ["triggers", "test", "tell", "--triggers", str(file)])
            assert "delivered: HTTP 204" in told.output, told
            assert server.stdout.readline().startswith("retrain none 0: ")
            try:
                urllib.request.urlopen(url, data=b"{}", timeout=60)
            except urllib.error.HTTPError as error:
                assert error.code == 401
            else:
                raise AssertionError("a stranger was believed")
        finally:
            server.kill()


def test_each_part_of_a_request_is_signed() -> None:
    spec = importlib.util.spec_from_file_location("receiver_example", RECEIVER)
    assert spec and spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    now_s = 1_700_000_000
    headers = signing.headers(signing.secret_of(SECRET), "key", now_s, b"body")
    assert example.refusal(headers, b"body", SECRET, now_s + 299) == ""
    assert "signature" in example.refusal(headers, b"bodY", SECRET, now_s)
    assert "signature" in example.refusal({**headers, "webhook-id": "x"}, b"body", SECRET, now_s)
    assert "signature" in example.refusal(headers, b"body", "whsec_" + "A" * 32, now_s)
    assert "time" in example.refusal(headers, b"body", SECRET, now_s + 301)
    later = {**headers, "webhook-timestamp": str(now_s + 1)}
    assert "signature" in example.refusal(later, b"body", SECRET, now_s)
    assert "time" in example.refusal({}, b"", SECRET, now_s)
