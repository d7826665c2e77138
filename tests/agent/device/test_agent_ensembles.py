"""A device with an ensemble: it answers through every door, its models are counted, and swapped."""

from __future__ import annotations

import asyncio
import http.client
import json

import pytest
from free_ports import free_port

from edge_agent import Agent
from edge_contract import messages
from edge_contract.errors import MachineFault

ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}


def ask_http(port: int, path: str, body: object | None = None) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET" if body is None else "POST", path, body and json.dumps(body))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_an_ensemble_answers_through_every_door_and_follows_its_models(world, tiny_bundle) -> None:
    device, port = world.device, free_port()
    device.set(http={"listen": f"127.0.0.1:{port}"})
    with device.path.open("a") as settings:
        settings.write(
            '[ensembles.chain]\nmodels = ["fan", "pump"]\n'
            'feeds = { "fan.temp" = "pump.probability_good" }\n'
        )
    with Agent.open(device.path) as agent:
        with pytest.raises(MachineFault, match="no model 'fan' is installed"):
            agent.predict("chain", ROW)
        assert ask_http(port, "/predict/chain", ROW)[0] == 404
        world.publisher.publish(tiny_bundle("1.0"))
        world.publisher.publish(tiny_bundle("2.0", name="fan", seed=8))
        device.wait_at("1.0")
        device.wait_at("2.0", name="fan")

        first = agent.predict("pump", ROW)
        expected = agent.predict("fan", {**ROW, "temp": first.probabilities["good"]})
        found = agent.predict("chain", ROW)
        good = pytest.approx(expected.probabilities["good"], abs=1e-6)
        assert (found.label, found.probabilities["good"]) == (expected.label, good)
        both = asyncio.run(agent.apredict("chain", [ROW, ROW]))
        assert [each.label for each in both] == [expected.label] * 2
        assert len({each.id for each in (found, *both)}) == 3, "a label can come later for each"
        status, said = ask_http(port, "/predict/chain", ROW)
        assert (status, said["model"], said["version"]) == (200, "chain", "1.0-2.0")
        assert said["predictions"][0]["probabilities"]["good"] == good
        status, said = ask_http(port, "/v2/models/chain")
        assert (status, [each["name"] for each in said["inputs"]]) == (200, list(ROW))
        tensors = [
            {"name": name, "datatype": "FP64", "shape": [1, 1], "data": [value]}
            for name, value in ROW.items()
        ]
        status, said = ask_http(port, "/v2/models/chain/infer", {"inputs": tensors})
        assert (status, said["outputs"][0]["data"]) == (200, [expected.label])
        correlation = world.client.send("pi1", model="chain")
        answer = world.until(lambda: world.client.answers.get(correlation), "an answer")
        assert answer.error is messages.UNSET
        assert answer.predictions[0].probabilities["good"] == good

        status, said = ask_http(port, "/predict/chain", {**ROW, "temp": "hot"})
        assert status == 400
        assert "'temp' is text 'hot'" in json.dumps(said)
        requests = agent.status().requests
        assert set(requests) == {"pump", "fan"}
        assert [requests[name][0] for name in ("pump", "fan")] == [7, 7]

        world.publisher.publish(tiny_bundle("1.1", seed=9))
        device.wait_at("1.1")
        assert ask_http(port, "/predict/chain", ROW)[1]["version"] == "1.1-2.0"
