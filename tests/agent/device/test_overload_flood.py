"""A device under a flood of requests: what keeps it in order goes on."""

import json
import socket
import threading

import pytest
from free_ports import free_port

from edge_agent.steps import RESTING
from edge_contract.broker_url import parse
from edge_contract.ports.mqtt import Link, LinkConfig

ROW = {"temp": 1.0, "hum": 0.2, "rpm": 0.1, "volt": 1.0}
BODY = json.dumps(ROW).encode()
JOIN_S = 60.0


def flood_http(port: int, stop: threading.Event) -> None:
    """Requests behind one another on one connection, without a pause."""
    head = f"POST /predict/pump HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(BODY)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=JOIN_S) as connection:
        while not stop.is_set():
            connection.sendall((head.encode() + BODY) * 8)
            connection.recv(65536)


def flood_mqtt(url: str, topic: str, stop: threading.Event, sent: list[int]) -> None:
    """As many as the broker takes; nobody reads the answers."""
    link = Link(LinkConfig(broker=parse(url), client_id="flood"))
    link.start(60)
    pause = threading.Event()
    while not stop.is_set():
        for _ in range(40):
            link.publish(topic, BODY, qos=0)
        sent[0] += 40
        pause.wait(0.02)
    link.stop()


@pytest.mark.slow
def test_an_update_status_health_and_a_stop_go_on_under_a_flood(world, tiny_bundle) -> None:
    """Thousands of requests a second, over HTTP and MQTT; none of them is to fail."""
    device, port = world.device, free_port()
    device.set(http={"listen": f"127.0.0.1:{port}"}, trial={"requests": 100_000_000, "seconds": 1})
    world.publisher.publish(tiny_bundle("1.0"))
    stop, sent = threading.Event(), [0]
    with device.agent() as agent:
        device.wait_at("1.0")
        topic = f"edge/1/home/d/{device.name}/in/pump"
        threads = [
            *(threading.Thread(target=flood_http, args=(port, stop)) for _ in range(2)),
            threading.Thread(target=flood_mqtt, args=(world.broker.url, topic, stop, sent)),
        ]
        for thread in threads:
            thread.start()
        try:
            world.until(lambda: agent.status().requests["pump"][0] > 500, "a flood")
            world.publisher.publish(tiny_bundle("2.0"))
            device.wait_at("2.0")
            status = agent.status()
            assert status.models["pump"].phase in {phase.value for phase in RESTING}
            assert status.models["pump"].active == "2.0"
            with socket.create_connection(("127.0.0.1", port), timeout=JOIN_S) as probe:
                probe.sendall(b"GET /v2/health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
                assert probe.recv(65536).startswith(b"HTTP/1.1 200")
            assert agent.status().requests["pump"][1] == 0, "none failed"
            world.until(lambda: world.client.events("committed"), "the fleet hears of it")
        finally:
            stop.set()
            for thread in threads:
                thread.join(JOIN_S)
        assert sent[0] > 0
    assert device.status.running is False
