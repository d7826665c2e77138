"""An agent with an HTTP door: from the first version on, with and without the extra."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from pathlib import Path

import pytest
from free_ports import free_port

from edge_contract.errors import InputFault, MachineFault

ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}


def ask(
    port: int, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_device_answers_over_http_once_a_version_is_there(world, tiny_bundle) -> None:
    device, port = world.device, free_port()
    token = device.path.parent / "http.token"
    token.write_text("t0ken\n")
    device.set(http={"listen": f"127.0.0.1:{port}", "token_file": "http.token"})
    key = {"authorization": "Bearer t0ken"}
    with device.agent() as agent:
        assert ask(port, "GET", "/v2/health/live")[0] == 200
        assert ask(port, "GET", "/v2/health/ready")[0] == 503
        assert ask(port, "POST", "/predict/pump", ROW, **key)[0] == 404
        world.publisher.publish(tiny_bundle("1.0"))
        device.wait_at("1.0")
        assert ask(port, "GET", "/v2/health/ready")[0] == 200
        assert ask(port, "POST", "/predict/pump", ROW)[0] == 401
        status, said = ask(port, "POST", "/predict/pump", ROW, **key)
        assert status == 200
        assert json.loads(said)["predictions"][0]["label"] == agent.predict("pump", ROW).label
        answered = agent.status().requests["pump"][0]
        assert answered == 2, "requests over HTTP are counted as all others"
    with pytest.raises(OSError, match="refused"):
        ask(port, "GET", "/v2/health/live")


def test_what_is_in_the_way_is_said_at_the_start(world, tmp_path: Path) -> None:
    device = world.device
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        device.set(http={"listen": f"127.0.0.1:{taken.getsockname()[1]}"})
        with pytest.raises(MachineFault, match="cannot listen"), device.agent():
            pass
    (device.path.parent / "http.token").write_text("two words")
    device.set(http={"listen": "127.0.0.1:0", "token_file": "http.token"})
    with pytest.raises(InputFault, match="one word"), device.agent():
        pass


def test_without_the_extra_the_advice_names_it(world, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("edge_agent.doors.http.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "edge_agent.doors.http", raising=False)
    monkeypatch.setitem(sys.modules, "httptools", None)
    world.device.set(http={})
    with pytest.raises(MachineFault, match="httptools") as said, world.device.agent():
        pass
    assert "edge-pack[http]" in said.value.advice
