"""Messages a second through the embedded broker, beside a mosquitto in the same run.

    python benchmarks/broker.py [--quick] [--json FILE]

One publisher, one subscriber, 600-byte payloads, each in a process of its own with prepared bytes,
so that the broker is what is measured. The ratio says more than the figure: other work on the
machine slows both.
"""

import argparse
import json
import multiprocessing
import socket
import struct
import threading
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

from edge_fleet.broker import BrokerThread, MosquittoConfig, MosquittoProcess, find_mosquitto

PAYLOAD_BYTES = 600  # a telemetry window
TOPIC = b"t/00/device"
WINDOW = 500
GOALS = {"qos1_msgs_per_s": 30_000.0, "qos0_msgs_per_s": 50_000.0, "rss_mb": 40.0}

_SPAWN = multiprocessing.get_context("spawn")


def main() -> None:
    """Measure, print, and write the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="10,000 messages instead of 100,000")
    parser.add_argument("--json", type=Path, help="write {'goals': {name: [figure, goal, met]}}")
    arguments = parser.parse_args()
    figures = measure(10_000 if arguments.quick else 100_000)
    goals = {
        name: [round(figures[name], 1), goal, _met(name, figures[name])]
        for name, goal in GOALS.items()
    }
    for name, (figure, goal, met) in goals.items():
        print(f"{name:18} {figure:>10,.1f}   goal {goal:>10,.1f}   {'met' if met else 'MISSED'}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"goals": goals}, indent=2) + "\n")


def measure(count: int) -> dict[str, float]:
    """Messages a second with QoS 1 and 0, and the broker's memory in MB."""
    ports: Queue[int] = _SPAWN.Queue()
    server = _SPAWN.Process(target=_serve, args=(ports,), daemon=True)
    server.start()
    port = ports.get(timeout=30)
    try:
        figures = {f"qos{qos}_msgs_per_s": _rate(port, count, qos) for qos in (1, 0)}
        status = Path(f"/proc/{server.pid}/status").read_text()
        figures["rss_mb"] = int(status.split("VmRSS:")[1].split()[0]) / 1024
    finally:
        server.terminate()
    if find_mosquitto() is None:
        print("no mosquitto here: no ratio")
        return figures
    config = MosquittoConfig(extra=(f"max_inflight_messages {WINDOW}",))
    with MosquittoProcess(config) as mosquitto:
        for qos in (1, 0):
            theirs = _rate(mosquitto.port, count, qos)
            ours = figures[f"qos{qos}_msgs_per_s"]
            print(f"QoS {qos}: {ours:,.0f}/s, mosquitto {theirs:,.0f}/s, ratio {ours / theirs:.2f}")
    return figures


def _met(name: str, figure: float) -> bool:
    return figure <= GOALS[name] if name == "rss_mb" else figure >= GOALS[name]


def _serve(ports: "Queue[int]") -> None:
    """An embedded broker in this process, until it is terminated."""
    broker = BrokerThread()
    broker.start()
    ports.put(broker.port)
    threading.Event().wait()


def _rate(port: int, count: int, qos: int) -> float:
    """Messages a second from the first publish to the last delivery."""
    ready = _SPAWN.Event()
    subscriber = _SPAWN.Process(target=_subscribe, args=(port, count, qos, ready), daemon=True)
    subscriber.start()
    if not ready.wait(30):
        raise TimeoutError("the subscriber did not start")
    began = time.monotonic()
    _publish(port, count, qos)
    subscriber.join(300)
    if subscriber.exitcode != 0:
        raise TimeoutError("not every message arrived")
    return count / (time.monotonic() - began)


def _frame(qos: int) -> tuple[bytes, bytes]:
    """What stands before and after the packet identifier of a PUBLISH."""
    rest = 2 + len(TOPIC) + (2 if qos else 0) + 1 + PAYLOAD_BYTES
    head = bytes([0x30 | qos << 1, rest & 127 | 128, rest >> 7])
    return head + struct.pack(">H", len(TOPIC)) + TOPIC, b"\0" + bytes(PAYLOAD_BYTES)


def _connect(port: int, client_id: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = b"\0\4MQTT\5\2\0\0\0" + struct.pack(">H", len(client_id)) + client_id
    client.sendall(bytes([0x10, len(body)]) + body)
    client.recv(1000)  # CONNACK
    return client


def _publish(port: int, count: int, qos: int) -> None:
    client = _connect(port, b"pub")
    head, tail = _frame(qos)
    sent = answered_bytes = 0
    while sent < count or (qos and answered_bytes < count * 4):
        room = WINDOW - (sent - answered_bytes // 4) if qos else WINDOW
        batch = range(sent, min(sent + room, count))
        ids = (struct.pack(">H", number % 65_535 + 1) if qos else b"" for number in batch)
        client.sendall(b"".join(head + packet_id + tail for packet_id in ids))
        sent += len(batch)
        if qos:
            answered_bytes += len(client.recv(1 << 16))  # a PUBACK of success is four bytes
    client.close()


def _subscribe(port: int, count: int, qos: int, ready: Event) -> None:
    client = _connect(port, b"sub")
    filter_and_options = struct.pack(">H", len(TOPIC)) + TOPIC + bytes([qos])
    client.sendall(bytes([0x82, 3 + len(filter_and_options)]) + b"\0\1\0" + filter_and_options)
    client.recv(1000)  # SUBACK
    ready.set()
    head, tail = _frame(qos)
    size, at = len(head) + (2 if qos else 0) + len(tail), len(head)
    held = b""
    while count:
        more = client.recv(1 << 18)
        if not more:
            raise ConnectionError("the broker closed the connection")
        held += more
        whole = len(held) // size
        if qos and whole:
            ids = (held[n * size + at : n * size + at + 2] for n in range(whole))
            client.sendall(b"".join(b"\x40\x02" + packet_id for packet_id in ids))
        held = held[whole * size :]
        count -= whole
    client.close()


if __name__ == "__main__":
    main()
