"""The door answers what it can, says why it cannot, and one client never costs another."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_agent.doors.http import HttpDoor
from edge_agent.doors.http.reader import HEAD_MAX_BYTES
from edge_contract.errors import MachineFault

ROW = {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0}
INFER = {
    "inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [0.5, -1.0, 2.0, 0.0]}]
}


def test_plain_json_by_feature_name(client, seats) -> None:
    answer = client.ask("POST", "/predict/pump", json.dumps(ROW).encode())
    found = json.loads(answer.body)
    right = seats["pump"].predict(ROW)
    assert answer.status == 200
    assert found["predictions"] == [{"label": right.label, "probabilities": right.probabilities}]
    many = client.ask("POST", "/predict/pump", json.dumps({"rows": [ROW] * 3}).encode())
    assert json.loads(many.body)["predictions"] == found["predictions"] * 3


def test_infer_answers_the_model_s_own_tensors(client, seats) -> None:
    answer = client.ask("POST", "/v2/models/pump/infer", json.dumps(INFER | {"id": "a7"}).encode())
    found = json.loads(answer.body)
    right = seats["pump"].model.infer(np.array([[0.5, -1.0, 2.0, 0.0]], dtype=np.float32))
    assert (found["model_name"], found["model_version"], found["id"]) == ("pump", "1.0", "a7")
    assert {o["name"]: o["data"] for o in found["outputs"]} == {
        name: array.ravel().tolist() for name, array in right.items()
    }


def test_columns_by_feature_name_are_taken_too(client, seats) -> None:
    rows = {"temp": [0.5, 1.5], "hum": [0.0, 1.0], "site": ["paris", "lyon"]}
    kinds = {"temp": "FP64", "hum": "FP32", "site": "BYTES"}
    inputs = [
        {"name": name, "shape": [2, 1], "datatype": kinds[name], "data": data}
        for name, data in rows.items()
    ]
    answer = client.ask("POST", "/v2/models/mixed/infer", json.dumps({"inputs": inputs}).encode())
    assert answer.status == 200, answer.body
    outputs = {o["name"]: o["data"] for o in json.loads(answer.body)["outputs"]}
    table = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    label = seats["mixed"].model.manifest.outputs.label
    assert outputs[label] == [prediction.label for prediction in seats["mixed"].predict(table)]


def test_what_the_protocol_says_of_server_and_models(client) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/pump/ready"):
        assert client.ask("GET", path).status == 200
    assert json.loads(client.ask("GET", "/v2").body)["version"] == "1.2.3"
    about = json.loads(client.ask("GET", "/v2/models/pump/versions/1.0").body)
    assert about["versions"] == ["1.0"]
    assert about["inputs"][0]["datatype"] == "FP32" and about["inputs"][0]["shape"] == [-1, 4]
    assert client.ask("GET", "/v2/models/pump/versions/9").status == 404
    head = client.ask("HEAD", "/v2/health/live")
    assert head.status == 200 and not head.body and int(head.headers["content-length"]) > 0


def test_the_description_names_every_feature(client) -> None:
    found = json.loads(client.ask("GET", "/openapi.json").body)
    schema = found["paths"]["/predict/pump"]["post"]["requestBody"]["content"]["application/json"]
    assert set(schema["schema"]["oneOf"][0]["properties"]) == set(ROW)
    page = client.ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html") and b"/predict/pump" in page.body


def test_metrics_are_read_by_prometheus_client(client) -> None:
    client.ask("POST", "/predict/pump", json.dumps(ROW).encode())
    client.ask("POST", "/predict/pump", b"{")
    page = client.ask("GET", "/metrics").body.decode()
    families = {family.name: family for family in text_string_to_metric_families(page)}
    counts = {s.labels["status"]: s.value for s in families["edge_agent_http_responses"].samples}
    assert counts == {"200": 1, "400": 1}
    took = {
        s.labels.get("le", s.name): s.value
        for s in families["edge_agent_http_request_seconds"].samples
    }
    assert took["+Inf"] == 2 == took["edge_agent_http_request_seconds_count"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/predict/pump", b"", 400),
        ("POST", "/predict/pump", b"{", 400),
        ("POST", "/predict/pump", b"\xff", 400),
        ("POST", "/predict/pump", b"[" * 50_000, 400),
        ("POST", "/predict/pump", b'{"temp": NaN}', 400),
        ("POST", "/predict/pump", json.dumps(ROW | {"temp": "warm"}).encode(), 400),
        ("POST", "/predict/pump", json.dumps(ROW | {"more": 1}).encode(), 400),
        ("POST", "/predict/pump", b'{"temp": 1}', 400),
        ("POST", "/predict/none", b"{}", 404),
        ("POST", "/predict/..%2Fpump", b"{}", 404),
        ("GET", "/predict/pump", b"", 405),
        ("DELETE", "/v2/models/pump", b"", 405),
        ("POST", "/v2/models/pump/infer", b"{}", 400),
        ("POST", "/v2/models/none/infer", json.dumps(INFER).encode(), 404),
        ("POST", "/v2/models/pump/versions/2/infer", json.dumps(INFER).encode(), 404),
        ("GET", "/nothing", b"", 404),
        ("GET", "//", b"", 404),
    ],
)
def test_a_faulty_request_gets_a_reason_and_the_next_is_answered(
    method, path, body, status, client
) -> None:
    answer = client.ask(method, path, body)
    assert answer.status == status
    assert json.loads(answer.body)["error"]
    assert client.ask("POST", "/predict/pump", json.dumps(ROW).encode()).status == 200


POST = b"POST /predict/pump HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize(
    "message",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: b\r\n\r\n",
        POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
        POST + b"content-length: -1\r\n\r\n",
        POST + b"content-length: 1e3\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\nx: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\n x: folded\r\n\r\n",
    ],
)
def test_a_message_that_two_could_read_differently_ends_the_connection(
    message, door, connect
) -> None:
    client = connect(door)
    client.send(message + b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
    answer = client.read()
    assert answer.status == 400 and answer.headers["connection"] == "close"
    assert client.closed()
    assert connect(door).ask("GET", "/v2/health/live").status == 200


def test_a_request_may_come_byte_by_byte_and_several_at_once(door, connect) -> None:
    body = json.dumps(ROW).encode()
    message = (
        b"POST /predict/pump HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
        + body
    )
    slow = connect(door)
    for at in range(len(message)):
        slow.send(message[at : at + 1])
    assert slow.read().status == 200
    many = connect(door)
    many.send(message * 30)
    assert {many.read().body for _ in range(30)} == {slow_body(door, connect)}


def slow_body(door, connect) -> bytes:
    return connect(door).ask("POST", "/predict/pump", json.dumps(ROW).encode()).body


def test_chunked_and_compressed_bodies(client) -> None:
    body = json.dumps(ROW).encode()
    client.send(
        b"POST /predict/pump HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%s\r\n" % (1, body[i : i + 1]) for i in range(len(body)))
        + b"0\r\n\r\n"
    )
    assert client.read().status == 200
    for coding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        assert client.ask("POST", "/predict/pump", packed, content_encoding=coding).status == 200


def test_expect_100_continue_is_answered(client) -> None:
    body = json.dumps(ROW).encode()
    client.send(
        b"POST /predict/pump HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    assert client.read().status == 100
    client.send(body)
    assert client.read().status == 200


def test_bounds_hold_before_anything_is_kept(open_door, connect) -> None:
    door = open_door(body_max_bytes=1000)
    told = connect(door)
    told.send(
        b"POST /predict/pump HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10000000000\r\n\r\n"
    )
    assert told.read().status == 413
    grown = connect(door)
    grown.send(b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
    grown.send(b"3e9\r\n" + b"x" * 1001 + b"\r\n")
    assert grown.read().status == 413
    bomb = gzip.compress(b"0" * 10_000_000)
    assert connect(door).ask(
        "POST", "/predict/pump", bomb[:900], content_encoding="gzip"
    ).status in (400, 413)
    assert connect(door).ask("POST", "/predict/pump", b"x", content_encoding="br").status == 415
    head = connect(door)
    head.send(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * (HEAD_MAX_BYTES + 100))
    assert head.read().status == 431


def test_what_follows_a_chunked_body_is_bounded_and_says_nothing(door, open_door, connect) -> None:
    endless = connect(door)
    endless.send(b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
    for at in range(HEAD_MAX_BYTES // 1000 + 2):
        endless.send(b"x%d: %s\r\n" % (at, b"y" * 1000))
    assert endless.read().status == 431
    late = connect(open_door(token="t0ken"))
    late.send(
        b"GET /v2 HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        b"0\r\nauthorization: Bearer t0ken\r\n\r\n"
    )
    assert late.read().status == 401


def test_slow_and_idle_clients_lose_their_connection(open_door, connect) -> None:
    door = open_door(arrive_s=0.3, idle_s=0.6)
    slow, idle = connect(door), connect(door)
    slow.send(b"POST /predict/pump HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\n{")
    assert slow.read().status == 408 and slow.closed()
    assert idle.closed()
    assert connect(door).ask("GET", "/v2/health/live").status == 200


def test_too_many_connections_are_told_so(open_door, connect) -> None:
    door = open_door(connections_max=3, spare=0)
    kept = [connect(door) for _ in range(3)]
    assert all(client.ask("GET", "/v2/health/live").status == 200 for client in kept)
    more = connect(door)
    assert more.read().status == 503 and more.closed()
    kept[0].socket.close()
    while (client := connect(door)).ask("GET", "/v2/health/live").status != 200:
        client.socket.close()


def test_a_token_is_asked_for_but_not_by_probes_nor_on_the_socket(
    open_door, connect, tmp_path: Path
) -> None:
    door = open_door(token="s3cret", socket=tmp_path / "edge.sock")
    body = json.dumps(ROW).encode()
    refused = connect(door).ask("POST", "/predict/pump", body)
    assert refused.status == 401 and refused.headers["www-authenticate"] == "bearer"
    for wrong in ("Bearer s3cre", "Bearer", "Basic s3cret", "Bearer s3cret x"):
        assert connect(door).ask("POST", "/predict/pump", body, authorization=wrong).status == 401
    right = connect(door).ask("POST", "/predict/pump", body, authorization="Bearer s3cret")
    assert right.status == 200
    assert connect(door).ask("GET", "/v2/health/ready").status == 200
    assert oct((tmp_path / "edge.sock").stat().st_mode & 0o777) == "0o660"
    with socket.socket(socket.AF_UNIX) as local:
        local.connect(str(tmp_path / "edge.sock"))
        local.sendall(b"GET /v2/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        said = b""
        while data := local.recv(4096):
            said += data
    assert said.startswith(b"HTTP/1.1 200") and b"pump" in said


def test_a_whole_head_at_once_is_bounded_too(client) -> None:
    assert client.ask("GET", "/v2/health/live", x="y" * HEAD_MAX_BYTES).status == 431


def test_a_name_that_was_made_to_lead_here_is_refused_unless_a_token_is_asked_for(
    open_door, connect
) -> None:
    message = b"GET /v2/models HTTP/1.1\r\nhost: %b\r\n\r\n"
    plain = connect(open_door())
    for host, status in ((b"evil.example:8080", 403), (b"127.0.0.1:8080", 200), (b"[::1]", 200)):
        plain.send(message % host)
        assert plain.read().status == status
    held = connect(open_door(token="t"))
    held.send(message % b"device.example")
    assert held.read().status == 401


def test_a_page_from_elsewhere_is_refused(client) -> None:
    body = json.dumps(ROW).encode()
    assert client.ask("POST", "/predict/pump", body, origin="https://evil.example").status == 403
    assert client.ask("POST", "/predict/pump", body, origin="http://localhost").status == 200


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"origin": "http://["}, b"{}", 403),
        ({"inference_header_content_length": "1" * 5000}, b"{}", 400),
        ({}, b'{"tensors": {"X": {"shape": [0, 3000000000, 3000000000], "data": []}}}', 400),
    ],
)
def test_no_request_looks_like_a_fault_of_the_agents(client, headers, body, status) -> None:
    path = "/predict/pump" if not headers else "/v2/models/pump/infer"
    answer = client.ask("POST", path, body, **headers)
    assert (answer.status, b"internal" in answer.body) == (status, False)


def test_a_place_that_is_taken_is_said(door, open_door, tmp_path: Path) -> None:
    with pytest.raises(MachineFault, match="cannot listen on 127"):
        open_door(port=door.port)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MachineFault, match="no socket"):
        open_door(socket=tmp_path / "file")
    open_door(socket=tmp_path / "s")
    with pytest.raises(MachineFault, match="another process"):
        open_door(socket=tmp_path / "s")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_model_that_is_swapped_or_removed_under_load(door, connect, seats, tiny_bundle) -> None:
    from edge_agent import Model
    from edge_contract import bundle as bundles

    statuses: list[int] = []
    stop = threading.Event()

    def load(client) -> None:
        while not stop.is_set():
            statuses.append(client.ask("POST", "/predict/pump", json.dumps(ROW).encode()).status)

    threads = [threading.Thread(target=load, args=(connect(door),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(10):
        data = tiny_bundle(version=f"1.{turn + 1}")
        seats["pump"].swap(Model.from_bundle(bundles.read(data)))
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    seats["pump"].swap(None)
    gone = connect(door).ask("POST", "/predict/pump", json.dumps(ROW).encode())
    assert gone.status == 404 and b"mixed" in gone.body


def test_what_is_under_way_is_answered_at_a_stop(open_door, connect) -> None:
    door: HttpDoor = open_door()
    client = connect(door)
    assert client.ask("GET", "/v2/health/live").status == 200
    door.stop()
    assert client.closed()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", door.port), timeout=2)
