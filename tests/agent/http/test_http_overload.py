"""More than can be done, over HTTP: who waits, who is turned away, and what is always answered."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from edge_agent.live import Live
from edge_agent.overload import Rules

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}
BODY = json.dumps(ROW).encode()
TENSOR = {"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
WAIT_S = 60.0
RESPONSES_OK = 'edge_agent_http_responses_total{status="200"}'


class Held(Live):
    """A seat whose requests wait until they are let go; it counts those that got in."""

    def __init__(self, live: Live) -> None:
        super().__init__(live.name, live.model)
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)
        self.entered = 0

    @contextmanager
    def use(self, *which: str) -> Iterator:
        self.entered += 1
        self.begun.release()
        assert self.go.wait(WAIT_S)
        with super().use(*which) as model:
            yield model


@pytest.fixture
def held(seats) -> Iterator[Held]:
    seats["pump"] = Held(seats["pump"])
    yield seats["pump"]
    seats["pump"].go.set()


def infer(**parameters: object) -> bytes:
    return json.dumps({"inputs": [TENSOR], "parameters": parameters}).encode()


def send(connect, door, body: bytes = BODY, path: str = "/predict/pump", **headers: str):
    """A request whose answer is read later."""
    client = connect(door)
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    client.send("\r\n".join([*lines, "", ""]).encode() + body)
    return client


def metric(client, line: str) -> bool:
    return line in client.ask("GET", "/metrics").body.decode()


def until(ready: Callable[[], bool]) -> None:
    end, pause = time.monotonic() + WAIT_S, threading.Event()
    while not ready():
        assert time.monotonic() < end, "it did not come to that"
        pause.wait(0.005)


@pytest.mark.parametrize(
    "headers", [{"request_timeout": "0.05"}, {"prefer": "respond-async, wait=1"}], ids=str
)
def test_what_is_past_its_deadline_is_not_computed(open_door, connect, held, headers) -> None:
    door = open_door()
    first = send(connect, door)
    assert held.begun.acquire(timeout=WAIT_S)
    late = send(connect, door, **headers)
    patient = send(connect, door, request_timeout="600")
    asker = connect(door)
    until(lambda: metric(asker, "edge_agent_http_waiting 3"))
    late.socket.settimeout(1.5)
    with pytest.raises(TimeoutError):  # longer than it gave
        late.socket.recv(1)
    late.socket.settimeout(WAIT_S)
    held.go.set()
    answer = late.read()
    assert (answer.status, b"time was up" in answer.body) == (504, True)
    assert (first.read().status, patient.read().status) == (200, 200)
    assert held.entered == 2
    assert metric(asker, 'edge_agent_http_turned_away_total{reason="late"} 1')


def test_a_timeout_of_the_schedule_policy_holds_too(open_door, connect, held) -> None:
    """``timeout`` in microseconds, as Triton's clients send it."""
    door = open_door()
    path = "/v2/models/pump/infer"
    first = send(connect, door, infer(timeout=600_000_000), path)
    late = send(connect, door, infer(timeout=1), path)
    asker = connect(door)
    until(lambda: metric(asker, "edge_agent_http_waiting 2"))
    held.go.set()
    assert first.read().status == 200
    assert late.read().status == 504
    refused = send(connect, door, infer(timeout="soon"), path).read()
    assert (refused.status, b"expected microseconds" in refused.body) == (400, True)


@pytest.mark.parametrize("value", ["0", "soon", "-1", "1e3", "0.0"])
def test_a_timeout_that_is_none_is_refused(client, value) -> None:
    answer = client.ask("POST", "/predict/pump", BODY, request_timeout=value)
    assert (answer.status, b"seconds over 0" in answer.body) == (400, True)


def test_a_full_line_turns_the_newest_away_and_says_when_to_come_back(
    open_door, connect, held
) -> None:
    door = open_door(rules=Rules(waiting_max=2))
    first = send(connect, door)
    assert held.begun.acquire(timeout=WAIT_S)
    waiting = [send(connect, door) for _ in range(2)]
    asker = connect(door)
    until(lambda: metric(asker, "edge_agent_http_waiting 3"))
    for _ in range(3):
        answer = send(connect, door).read()
        assert (answer.status, b"overloaded" in answer.body) == (503, True)
        assert int(answer.headers["retry-after"]) >= 1
    held.go.set()
    assert [each.read().status for each in (first, *waiting)] == [200] * 3
    assert metric(asker, 'edge_agent_http_turned_away_total{reason="full"} 3')


def test_a_slow_model_leaves_a_thread_to_the_others(open_door, connect, held) -> None:
    door = open_door(threads=2, rules=Rules(at_once={"pump": 1}))
    slow = [send(connect, door) for _ in range(5)]
    assert held.begun.acquire(timeout=WAIT_S)
    row = json.dumps({"temp": 0.5, "hum": 1.0, "site": "lyon"}).encode()
    assert send(connect, door, row, "/predict/mixed").read().status == 200
    assert held.entered == 1
    held.go.set()
    assert [each.read().status for each in slow] == [200] * 5


def test_what_nobody_waits_for_any_more_is_not_computed(open_door, connect, held) -> None:
    door = open_door()
    first = send(connect, door)
    assert held.begun.acquire(timeout=WAIT_S)
    gone, last = send(connect, door), send(connect, door)
    asker = connect(door)
    until(lambda: metric(asker, "edge_agent_http_waiting 3"))
    # A client that ends its side may still read; one whose process ended resets.
    gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.socket.close()
    until(lambda: door.connections == 3)
    held.go.set()
    assert (first.read().status, last.read().status) == (200, 200)
    assert held.entered == 2


def test_a_request_of_too_many_values_is_refused(open_door, connect) -> None:
    client = connect(open_door(rules=Rules(values_max=8)))
    rows = json.dumps({"rows": [ROW] * 2}).encode()
    assert client.ask("POST", "/predict/pump", rows).status == 200
    rows = json.dumps({"rows": [ROW] * 3}).encode()
    answer = client.ask("POST", "/predict/pump", rows)
    assert (answer.status, b"12 values in one request, 8 are" in answer.body) == (400, True)
    tensor = {**TENSOR, "shape": [3, 4], "data": [0] * 12}
    answer = client.ask("POST", "/v2/models/pump/infer", json.dumps({"inputs": [tensor]}).encode())
    assert (answer.status, b"12 values" in answer.body) == (400, True)
    assert client.ask("POST", "/predict/pump", BODY).status == 200


def test_large_requests_are_bounded_together(open_door, connect) -> None:
    """Four that stop one byte before their end hold what is allowed; the fifth is told so."""
    door = open_door(bodies_max_bytes=400_000)
    head = b"POST /predict/pump HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100001\r\n\r\n"
    held = [connect(door) for _ in range(4)]
    for each in held:
        each.send(head + b" " * 100_000)
    until(lambda: door.held_bytes == 400_000)
    more = connect(door)
    more.send(head + b" " * 100_000)
    answer = more.read()
    assert (answer.status, b"too many large requests" in answer.body) == (503, True)
    assert int(answer.headers["retry-after"]) >= 1
    for each in held:
        each.socket.close()
    until(lambda: door.held_bytes == 0)
    client = connect(door)
    for _ in range(3):
        assert client.ask("POST", "/predict/pump", BODY + b" " * 100_000).status == 200
    packed = gzip.compress(BODY + b" " * 100_000)
    answer = client.ask("POST", "/predict/pump", packed, content_encoding="gzip")
    assert (answer.status, door.held_bytes) == (200, 0)


def test_too_many_connections_hide_neither_health_nor_figures(open_door, connect) -> None:
    door = open_door(connections_max=2, spare=1)
    kept = [connect(door) for _ in range(2)]
    assert all(each.ask("POST", "/predict/pump", BODY).status == 200 for each in kept)
    for path in ("/v2/health/live", "/v2/health/ready", "/metrics"):
        spare = connect(door)
        answer = spare.ask("GET", path)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert spare.closed()
    spare = connect(door)
    answer = spare.ask("POST", "/predict/pump", BODY)
    assert (answer.status, b"too many connections" in answer.body) == (503, True)
    assert spare.closed()
    assert all(each.ask("POST", "/predict/pump", BODY).status == 200 for each in kept)


def test_a_flood_on_every_connection_leaves_probes_their_answer(open_door, connect) -> None:
    """Sixteen clients that never pause, each with requests behind one another; no timing here:
    a probe that is answered at all is answered before its client gives up."""
    door = open_door(connections_max=16)
    stop = threading.Event()
    seen: list[int] = []

    clients = [connect(door) for _ in range(16)]
    until(lambda: door.connections == 16)

    def flood(client) -> None:
        one = b"POST /predict/pump HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
        while not stop.is_set():
            client.send((one % len(BODY) + BODY) * 8)
            seen.extend(client.read().status for _ in range(8))

    threads = [threading.Thread(target=flood, args=(each,)) for each in clients]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            answer = connect(door).ask("GET", "/v2/health/live")
            assert answer.status == 200
        assert connect(door).ask("GET", "/metrics").status == 200
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert seen
    assert set(seen) <= {200, 503}


def test_who_asks_for_much_at_once_and_reads_nothing_keeps_nobody_waiting(
    open_door, connect
) -> None:
    """No timing: without a bound all answers are made before another client gets its own."""
    door, count = open_door(), 2500
    greedy, asker = connect(door), connect(door)
    size = len(asker.ask("GET", "/openapi.json").body)
    assert size * count > 8 * 1024**2  # more than the kernel takes for it
    greedy.send(b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * count)
    answered = [0]

    def stands() -> bool:
        page = asker.ask("GET", "/metrics").body.decode()
        line = next(each for each in page.splitlines() if each.startswith(RESPONSES_OK))
        now, before = float(line.split()[-1]) - len(answered), answered[-1]
        answered.append(now)
        return 0 < now == before

    until(stands)
    assert answered[-1] < count
    assert [len(greedy.read().body) for _ in range(count)] == [size] * count
    assert greedy.ask("GET", "/v2/health/live").status == 200
