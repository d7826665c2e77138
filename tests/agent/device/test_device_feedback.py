"""Labels reach a device by Python, HTTP and MQTT, and what they count reaches the broker."""

from __future__ import annotations

import http.client
import json
import signal
from typing import Any

from free_ports import free_port

from edge_agent import Agent
from edge_contract import aside
from edge_contract.aside import Labelled
from edge_contract.topics import Topics

ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
TOPICS = Topics("home")


def post(port: int, path: str, body: object) -> tuple[int, dict[str, Any], dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    return answer.status, said, {k.lower(): v for k, v in answer.getheaders()}


def labelled(world: Any) -> list[Labelled]:
    """What came home of labels, each record once."""
    found = {}
    for message in list(world.client.heard):
        if "/t/" in message.topic and aside.is_aside(message.payload):
            record = aside.decode(message.payload)
            found[record.boot, record.seq] = record
    return [each for each in found.values() if isinstance(each, Labelled)]


def test_labels_by_every_way_become_one_count_each(world, tiny_bundle) -> None:
    device, port = world.device, free_port()
    device.set(http={"listen": f"127.0.0.1:{port}"})
    tensor = {"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 0.2, 0.1, 1.0]}
    with device.agent() as agent:
        world.publisher.publish(tiny_bundle("1.0"))
        device.wait_at("1.0")
        mine = agent.predict("pump", ROW)
        by_mqtt = world.client.ask("pi1").predictions[0]
        by_http = post(port, "/predict/pump", ROW)[1]["predictions"][0]
        _, oip, headers = post(port, "/v2/models/pump/infer", {"inputs": [tensor]})
        _, named, _ = post(port, "/v2/models/pump/infer", {"inputs": [tensor], "id": "q1"})
        assert oip["id"] == headers["edge-prediction-id"]
        assert named["id"] == "q1", "an id that a client chose comes back as the protocol has it"
        ids = [mine.id, by_mqtt.id, by_http["id"], oip["id"]]
        assert len(set(ids)) == 4

        assert agent.feedback(mine.id, "bad").counted == 1
        status, said, _ = post(port, "/feedback/pump", [
            {"id": by_http["id"], "label": "bad"}, {"id": oip["id"], "label": "good"},
            {"id": mine.id, "label": "good"},
        ])  # fmt: skip
        assert (status, said["counted"], said["contradicted"]) == (200, 2, 1)
        heard = [{"id": by_mqtt.id, "label": "bad"}, {"id": by_http["id"], "label": "bad"}]
        world.client.link.publish(TOPICS.labels("pi1", "pump"), json.dumps(heard).encode())

        def home() -> bool:
            return sum(int(aside.counts_of(r).sum()) for r in labelled(world)) == 4

        world.until(home, "four labels at home")
        world.until(lambda: sum(r.repeated for r in labelled(world)) == 1, "one came again")
        assert {r.version for r in labelled(world)} == {"1.0"}


def test_labels_that_make_no_sense_are_answered_and_disturb_nothing(world, tiny_bundle) -> None:
    device, port = world.device, free_port()
    device.set(http={"listen": f"127.0.0.1:{port}"})
    with device.agent():
        world.publisher.publish(tiny_bundle("1.0"))
        device.wait_at("1.0")
        for body in ({}, [], {"id": "1-1"}, {"id": 7, "label": "bad"}, "bad", None):
            status, said, _ = post(port, "/feedback/pump", body)
            assert status == 400, body
            assert "not valid labels" in said["error"] or "0 labels" in said["error"]
        assert post(port, "/feedback/other", {"id": "1-1", "label": "bad"})[0] == 404
        many = [{"id": f"1-{n}", "label": "bad"} for n in range(1, 10_001)]
        status, said, _ = post(port, "/feedback/pump", many)
        assert (status, said["counted"]) == (200, 0)
        assert post(port, "/feedback/pump", [*many, many[0]])[0] == 400
        for payload in (b"", b"\xff" * 100, b"[" * 10_000):
            world.client.link.publish(TOPICS.labels("pi1", "pump"), payload)
        assert world.client.ask("pi1").predictions[0].label == "bad"


def test_labels_that_come_while_the_agent_stops_are_counted_once(world, tiny_bundle) -> None:
    """What the broker heard as taken is on disk; what it did not comes at the next start."""
    device = world.device
    with device.agent() as agent:
        world.publisher.publish(tiny_bundle("1.0"))
        device.wait_at("1.0")
        ids = [agent.predict("pump", ROW).id for _ in range(60)]
    device.start()
    world.until(lambda: world.client.ask("pi1"), "the agent is there")
    for i, which in enumerate(ids):
        label = json.dumps({"id": which, "label": "bad"}).encode()
        world.client.link.publish(TOPICS.labels("pi1", "pump"), label)
        if i == 20:
            device.signal(signal.SIGTERM)
    assert device.process.wait(120) == 0

    def counted() -> int:
        return sum(int(aside.counts_of(r).sum()) for r in labelled(world))

    device.start()
    assert world.client.ask("pi1")  # or SIGTERM finds one that does not listen to it yet
    world.until(lambda: counted() == len(ids), "each label counted")
    assert sum(r.repeated + r.contradicted + r.unknown for r in labelled(world)) == 0
    assert device.stop() == 0


def test_a_label_may_name_the_ensemble_that_answered(world, tiny_bundle) -> None:
    device, port = world.device, free_port()
    device.set(http={"listen": f"127.0.0.1:{port}"})
    with device.path.open("a") as settings:
        settings.write(
            '[ensembles.chain]\nmodels = ["fan", "pump"]\n'
            'feeds = { "fan.temp" = "pump.probability_good" }\n'
        )
    with Agent.open(device.path) as agent:
        world.publisher.publish(tiny_bundle("1.0"))
        world.publisher.publish(tiny_bundle("2.0", name="fan", seed=8))
        device.wait_at("1.0")
        device.wait_at("2.0", name="fan")
        answer = agent.predict("chain", ROW)
        labels = [{"id": answer.id, "label": answer.label}]
        assert post(port, "/feedback/pump", labels)[1]["unknown"] == 1, "not its answer"
        status, said, _ = post(port, "/feedback/chain", labels)
        assert (status, said["counted"]) == (200, 1)
        assert post(port, "/feedback/fan", labels)[1]["repeated"] == 1


def test_without_feedback_answers_have_no_ids_and_labels_are_refused(world, tiny_bundle) -> None:
    device, port = world.device, free_port()
    device.set(http={"listen": f"127.0.0.1:{port}"}, feedback={"keep": 0})
    with device.agent() as agent:
        world.publisher.publish(tiny_bundle("1.0"))
        device.wait_at("1.0")
        assert agent.predict("pump", ROW).id is None
        assert "id" not in post(port, "/predict/pump", ROW)[1]["predictions"][0]
        status, said, _ = post(port, "/feedback/pump", {"id": "1-1", "label": "bad"})
        assert (status, "takes no labels" in said["error"]) == (404, True)
    assert not (device.folder.path / "answers.bin").exists()
