"""What a running agent with HTTP and MQTT holds in memory, and what it never loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from free_ports import free_port

pytest.importorskip("httptools", reason="the [http] extra is not installed")

PROGRAM = """
import json, sys
sys.argv[1:] = ["run", "--config", sys.argv[1]]
for name in ("azure", "boto3", "cryptography", "dns", "google", "hvac", "pkcs11", "socks"):
    sys.modules[name] = None
from edge_agent import running
try:
    running.main()
finally:
    print(json.dumps(sorted(sys.modules)))
"""
"""The command as it is, where a workshop's libraries are not installed; then what is in memory when
it is told to stop."""

HELD = {
    "edge_agent.agent", "edge_agent.doors.http.door", "httptools", "paho.mqtt.client",
    "tuf.ngclient", "zoneinfo",
}  # fmt: skip
SPARED = {
    "bz2": "shutil's archives", "lzma": "shutil's archives",
    "csv": "importlib.metadata", "zipfile": "importlib.metadata",
    "importlib.metadata": "the version is a constant",
    "difflib": "for a fault in the settings",
    "email": "http.client, and dates over HTTP",
    "http.client": "mirrors, and proxies of urllib", "urllib.request": "paho's proxies",
    "edge_agent.delivery.mirror": "mirrors",
    "securesystemslib._gpg.rsa": "signatures by GnuPG",
    "typer": "the other commands", "urllib3": "TUF's own fetcher",
    "edge_agent.bindings.bridge": "bindings", "edge_agent.ensemble": "ensembles",
}  # fmt: skip
"""Modules, and what they would be there for."""


def test_an_agent_that_rests_holds_what_it_uses(world: Any, tiny_bundle: Any) -> None:
    """After a restart, with a model that answers: the state a device is in for weeks."""
    device = world.device
    device.set(http={"listen": f"127.0.0.1:{free_port()}"})
    world.publisher.publish(tiny_bundle("1.0"))
    device.start()
    device.wait_at("1.0")
    assert device.stop() == 0
    with device.log.open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, device.path],
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        told = device.log.read_text().count("connected to")
        world.until(lambda: device.log.read_text().count("connected to") > told, "the broker")
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=120)
    loaded = set(json.loads(said.splitlines()[-1]))
    assert loaded >= HELD
    assert {name: why for name, why in SPARED.items() if name in loaded} == {}
