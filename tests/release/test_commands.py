"""``edge-pack keys`` and ``edge-pack publish`` as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_contract import bundle as bundles
from edge_contract.bundle import Bundle

EDGE_PACK = Path(sys.executable).parent / "edge-pack"
AWAY = "--broker mqtt://localhost:1"
New = Callable[..., Bundle]


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [EDGE_PACK, *map(str, words)], cwd=folder, capture_output=True, text=True, check=False
    )


def test_from_keys_to_a_device_by_commands(
    any_broker: Any, tmp_path: Path, new_bundle: New
) -> None:
    import datetime
    import threading

    from edge_agent.delivery import Delivery, DeliveryConfig
    from edge_contract import broker_url
    from edge_contract.topics import Topics

    done = run(tmp_path, "keys", "init", "keys")
    assert done.returncode == 0, done.stderr
    assert "NOT encrypted" in done.stdout
    status = json.loads(run(tmp_path, "keys", "status", "keys", "--json").stdout)
    assert f"edge-agent enroll --root sha256:{status['fingerprint']}" in done.stdout
    assert [row["role"] for row in status["roles"]] == [
        "root", "targets", "models", "rollout", "snapshot", "timestamp",
    ]  # fmt: skip
    assert "fingerprint" in run(tmp_path, "keys", "status", "keys").stdout

    bundle = new_bundle()
    (tmp_path / "pump.edgepack").write_bytes(bundles.write(bundle.manifest_bytes, bundle.stored))
    words = ("publish", "pump.edgepack", "--broker", any_broker.url, "--keys", "keys")
    done = run(tmp_path, *words, "--fleet", "home", "--json")
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert (first["model"], first["version"], first["sha256"]) == ("pump", "1.0", bundle.digest)
    assert first["bytes"] > 300_000
    done = run(tmp_path, *words, "--fleet", "home")
    assert "pump 1.0 is stable in channel stable of fleet home" in done.stdout
    assert "put 1 messages" in done.stdout

    config = DeliveryConfig(
        folder=tmp_path / "dev",
        broker=broker_url.parse(any_broker.url),
        topics=Topics("home"),
        device="dev",
    )
    device = Delivery(config)
    device.enroll(fingerprint=status["fingerprint"])
    refreshed = device.refresh(now=datetime.datetime.now(datetime.UTC), synchronised=True)
    device.fetch(
        refreshed.pointer.models["pump"].stable,
        name="pump",
        into=tmp_path / "slot",
        accept=lambda manifest: None,
        progress=lambda done, total: None,
        stop=threading.Event(),
    )
    assert (tmp_path / "slot" / "model.onnx").read_bytes() == bundle.file("model.onnx")


@pytest.mark.parametrize(
    "case",
    [
        ("keys init keys", 2, "never overwritten"),
        ("keys init new --profile team", 2, "neither of home, managed"),
        ("keys status nowhere", 2, "no signing repository"),
        (f"publish none.edgepack {AWAY} --keys keys --fleet f", 2, "cannot read"),
        (f"publish bad.edgepack {AWAY} --keys keys --fleet f", 2, "manifest"),
        ("publish good.edgepack --broker http://x --keys keys --fleet f", 2, "scheme"),
        (f"publish good.edgepack {AWAY} --keys keys --fleet a/b", 2, "fleet"),
        (f"publish good.edgepack {AWAY} --keys keys --fleet f", 5, "no connection"),
        (f"publish good.edgepack {AWAY} --keys none --fleet f", 2, "no signing"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_and_an_exit_code(
    keys_dir: Path, new_bundle: New, files: Any, case: tuple[str, int, str]
) -> None:
    words, code, said = case
    folder = keys_dir.parent
    bundle = new_bundle(size_bytes=1000)
    data = bundles.write(bundle.manifest_bytes, bundle.stored)
    (folder / "good.edgepack").write_bytes(data)
    (folder / "bad.edgepack").write_bytes(bytes([data[0] ^ 1]) + data[1:])
    before = files(folder)
    done = run(folder, *words.split())
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    created = {name for name in files(folder) if name not in before}
    assert created <= {"keys/repository/lock"}
