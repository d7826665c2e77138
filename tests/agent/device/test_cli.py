"""``edge-agent`` as a person types it: exit codes, messages, files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent import enrol
from edge_agent.config import PASSWORD_VARIABLE, load
from edge_contract.errors import InputFault
from edge_fleet.broker import BrokerThread


def edge_agent(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=cwd,
        env={key: value for key, value in os.environ.items() if not key.startswith("EDGE_")},
    )  # fmt: skip


def test_help_shows_every_command_with_an_example() -> None:
    for words in (("--help",), ("run", "--help"), ("enroll", "--help"), ("status", "--help")):
        done = edge_agent(*words)
        assert done.returncode == 0
        if len(words) > 1:
            assert f"edge-agent {words[0]}" in done.stdout
    assert edge_agent("--version").stdout.startswith("edge-agent 0.")


@pytest.mark.parametrize("words", [["run"], ["status"]])
def test_a_missing_or_faulty_settings_file_is_exit_code_2_without_a_traceback(
    words: list[str], tmp_path: Path
) -> None:
    done = edge_agent(*words, "--config", tmp_path / "nowhere.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no settings at" in done.stderr
    path = tmp_path / "agent.toml"
    path.write_text('[agent]\ndevise = "a"\n[broker]\nurl = "tcp://x"\n')
    done = edge_agent(*words, "--config", path)
    assert done.returncode == 2
    assert "has 4 faults" in done.stderr
    assert "did you mean 'device'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_without_enrolment_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        '[agent]\ndevice="a"\nfleet="f"\nfolder="s"\n[broker]\nurl="mqtt://localhost"\n'
    )
    done = edge_agent("run", "--config", path)
    assert done.returncode == 2
    assert "not enrolled" in done.stderr
    assert "edge-agent enroll" in done.stderr


# -- enroll -------------------------------------------------------------------------------------


def test_enroll_by_fingerprint_writes_settings_and_trusts(
    world: Any, tmp_path: Path, tiny_bundle: Callable[..., bytes]
) -> None:
    world.publisher.publish(tiny_bundle())
    url = world.broker.url.replace("mqtt://", "mqtt://me:geheim@")
    words = ["--fleet", "home", "--device", "pi9", "--config", "agent.toml"]
    done = edge_agent(
        "enroll", "--root", world.publisher.fingerprint, "--broker", url, *words, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert world.publisher.fingerprint in done.stdout
    config = load(tmp_path / "agent.toml", {})
    assert config.folder == tmp_path / "edge-agent-pi9"
    assert "geheim" not in (tmp_path / "agent.toml").read_text()
    assert (config.broker_url.user, config.broker_url.password) == ("me", "geheim")
    assert (tmp_path / "agent.password").stat().st_mode & 0o777 == 0o600
    # Again is no change; other options than the file's are refused; another root is refused.
    again = edge_agent("enroll", "--root", world.publisher.fingerprint, "--config", "agent.toml",
                       cwd=tmp_path)  # fmt: skip
    assert again.returncode == 0
    clash = edge_agent("enroll", "--root", world.publisher.fingerprint, *words, cwd=tmp_path)
    assert clash.returncode == 2
    assert "exists and says" in clash.stderr


def test_a_folder_is_where_it_was_typed_and_not_below_the_settings(
    world: Any, tmp_path: Path, tiny_bundle: Callable[..., bytes]
) -> None:
    world.publisher.publish(tiny_bundle())
    (tmp_path / "etc").mkdir()
    done = edge_agent(
        "enroll", "--root", world.publisher.fingerprint, "--broker", world.broker.url,
        "--fleet", "home", "--config", "etc/agent.toml", "--folder", "state", cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert load(tmp_path / "etc" / "agent.toml", {}).folder == tmp_path / "state"
    assert (tmp_path / "state").is_dir()
    assert not (tmp_path / "etc" / "state").exists()


def test_enroll_refuses_another_root_and_what_is_no_root(world: Any, tmp_path: Path) -> None:
    device = world.device
    other = type(world.publisher)(tmp_path / "other", world.broker.url)
    root = tmp_path / "root.json"
    root.write_bytes(other.repository.shelf.read().files["1.root.json"])
    done = edge_agent("enroll", "--root", root, "--config", device.path)
    assert done.returncode == 2
    assert "trusts another root" in done.stderr
    root.write_bytes(b"{}")
    done = edge_agent("enroll", "--root", root, "--config", device.path)
    assert done.returncode == 2
    assert "not a root signed by itself" in done.stderr
    done = edge_agent("enroll", "--root", "sha256:123", "--config", device.path)
    assert done.returncode == 2
    assert "neither a file nor a fingerprint" in done.stderr


def test_enroll_by_a_wrong_fingerprint_is_the_brokers_fault(
    world: Any, tmp_path: Path, tiny_bundle: Callable[..., bytes]
) -> None:
    world.publisher.publish(tiny_bundle())
    done = edge_agent(
        "enroll", "--root", "sha256:" + "0" * 64, "--broker", world.broker.url, "--fleet", "home",
        "--config", tmp_path / "agent.toml",
    )  # fmt: skip
    assert done.returncode == 5
    assert "has fingerprint sha256:" in done.stderr
    assert not (tmp_path / "agent.toml").exists()  # the same command, corrected, is to work
    assert "wrote" not in done.stdout


@pytest.mark.slow
def test_enroll_without_a_broker_says_so(tmp_path: Path) -> None:
    with BrokerThread() as gone:
        url = gone.url
    words = ["--root", "0" * 64, "--broker", url, "--fleet", "home"]
    done = edge_agent("enroll", *words, "--config", tmp_path / "agent.toml")
    assert done.returncode == 5
    assert "no connection" in done.stderr
    missing = edge_agent("enroll", *words[:2], "--config", tmp_path / "other.toml")
    assert missing.returncode == 2
    assert "--broker or --fleet is missing" in missing.stderr


@pytest.mark.parametrize(
    ("host", "name"),
    [("raspberrypi", "raspberrypi"), ("my host.local", "my-host.local"), ("-ü-", "device"),
     ("a" * 80, "a" * 64)],
)  # fmt: skip
def test_a_device_is_named_after_its_host(host: str, name: str) -> None:
    assert enrol.default_device(host) == name


def test_settings_are_written_once_and_hold_any_path(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    folder = 'a "quoted" \\ place'
    values = {"device": "d", "fleet": "f", "broker": "mqtt://h"}
    assert enrol.write_config(path, **values, folder=folder) == [path]
    assert load(path, {PASSWORD_VARIABLE: "x"}).folder == tmp_path / folder
    with pytest.raises(InputFault, match="exists"):
        enrol.write_config(path, **values)
    with pytest.raises(InputFault, match="control character"):
        enrol.write_config(tmp_path / "b.toml", **values, folder="a\nb")
    with pytest.raises(InputFault, match="device 'd e'"):
        enrol.write_config(tmp_path / "b.toml", **{**values, "device": "d e"})


@pytest.mark.parametrize(
    ("broker", "kept", "password"),
    [
        ("mqtts://u:s3cret@h", "mqtts://u@h", "s3cret"),
        ("MQTTS://u:s3cret@h", "MQTTS://u@h", "s3cret"),
        (" mqtt://u:s3cret@h:1884", "mqtt://u@h:1884", "s3cret"),
        ("mqtts://u:half@s3cret@h", "mqtts://u@h", "half@s3cret"),
        ("mqtts://h", "mqtts://h", ""),
    ],
)
def test_no_part_of_a_password_is_in_settings_that_all_may_read(
    tmp_path: Path, broker: str, kept: str, password: str
) -> None:
    path = tmp_path / "agent.toml"
    enrol.write_config(path, device="d", fleet="f", broker=broker)
    assert f'url = "{kept}"' in path.read_text().splitlines()
    assert "s3cret" not in path.read_text()
    assert load(path, {}).password == password


# -- run and status -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_run_logs_transitions_answers_and_ends_in_order(
    number: int, world: Any, tiny_bundle: Callable[..., bytes]
) -> None:
    world.publisher.publish(tiny_bundle("1.0"))
    device = world.device
    before = edge_agent("status", "--config", device.path)
    assert before.returncode == 0
    assert "not running" in before.stdout
    device.start()
    device.wait_at("1.0")
    assert world.client.ask("pi1").version == "1.0"
    world.until(lambda: device.status.models.get("pump"), "the status")
    world.until(lambda: device.status.models["pump"].phase == "committed", "the status")
    done = edge_agent("status", "--json", "--check", "--config", device.path)
    assert done.returncode == 0
    status = json.loads(done.stdout)
    assert (status["running"], status["connected"]) == (True, True)
    assert status["pid"] == device.process.pid
    assert status["models"]["pump"]["active"] == "1.0"
    text = edge_agent("status", "--config", device.path).stdout
    assert "pump: 1.0 (" in text
    device.signal(number)
    assert device.process.wait(120) == 0
    log = device.log.read_text()
    for line in ("pump 1.0: idle -> fetching", "self-testing -> trial", "trial -> committed"):
        assert line in log
    assert "Traceback" not in log
    after = edge_agent("status", "--json", "--config", device.path)
    status = json.loads(after.stdout)
    assert (status.get("running", False), status["models"]["pump"]["active"]) == (False, "1.0")
    assert status.get("spool_records", 0) == 0
    assert edge_agent("status", "--check", "--config", device.path).returncode == 1
    sessions = Path("/proc").glob("[0-9]*/cmdline")
    mine = [p for p in sessions if str(device.path).encode() in _read(p)]
    assert mine == []


def test_a_second_run_in_the_same_folder_is_refused(world: Any) -> None:
    device = world.device
    device.start()
    world.until(lambda: device.status.running, "the first")
    done = edge_agent("run", "--config", device.path)
    assert done.returncode == 4
    assert "another agent is running" in done.stderr
    assert device.stop() == 0


@pytest.mark.slow
def test_status_after_a_kill_reads_the_states(
    world: Any, tiny_bundle: Callable[..., bytes]
) -> None:
    world.publisher.publish(tiny_bundle("1.0"))
    device = world.device
    device.start()
    device.wait_at("1.0")
    device.kill()
    status = json.loads(edge_agent("status", "--json", "--config", device.path).stdout)
    assert status["running"] is False
    assert status["models"]["pump"]["phase"] == "committed"
    assert status["boot"] == device.status.boot
    device.folder.state("pump").write_bytes(b"{")
    done = edge_agent("status", "--config", device.path)
    assert done.returncode == 0
    assert "its state cannot be read" in done.stdout
    assert device.folder.state("pump").read_bytes() == b"{"  # looked at, not touched


def test_run_works_against_any_broker(
    any_broker: Any, tmp_path: Path, world: Any, tiny_bundle: Callable[..., bytes]
) -> None:
    publisher = type(world.publisher)(tmp_path / "any-keys", any_broker.url)
    publisher.publish(tiny_bundle("1.0"))
    device = type(world.device)(tmp_path / "any", "any", any_broker.url)
    done = edge_agent("enroll", "--root", publisher.fingerprint, "--config", device.path)
    assert done.returncode == 0, done.stderr
    device.start()
    try:
        device.wait_at("1.0")
        client = type(world.client)(any_broker.url)
        assert client.ask("any").version == "1.0"
        publisher.publish(tiny_bundle("2.0", seed=8))
        device.wait_at("2.0")
        assert client.ask("any").version == "2.0"
        client.link.stop()
        assert device.stop() == 0
    finally:
        if device.process.poll() is None:
            device.kill()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
