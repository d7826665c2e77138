"""A head that comes again byte for byte means what it meant, and never more."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import socket

import numpy as np
import pytest

from edge_agent import Model
from edge_agent.doors import oip, oip_rows
from edge_agent.doors.http.api import Api
from edge_agent.doors.http.connections import Connections
from edge_agent.doors.http.exchange import Lane, Limits, Request, Response
from edge_agent.doors.http.heads import HEAD_KEPT_MAX_BYTES, HEADS_MAX
from edge_agent.doors.http.reader import Reader
from edge_agent.live import Live
from edge_agent.telemetry.window import Window
from edge_contract import bundle as bundles

ROWS = [
    {"temp": 0.5, "hum": -1.0, "rpm": 2.0, "volt": 0.0},
    {"temp": 1.5, "hum": -2.0, "rpm": 0.0, "volt": 3.0},
]
BODIES = [json.dumps(row).encode() for row in ROWS]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path of every request that went through the parser."""
    paths: list[str] = []
    real = Reader.on_url

    def on_url(self: Reader, url: bytes) -> None:
        paths.append(url.decode())
        real(self, url)

    monkeypatch.setattr(Reader, "on_url", on_url)
    return paths


def quick(client, path: str = "/predict/pump") -> None:
    """Until requests are answered in the loop: the first one of a model never is."""
    for _ in range(3):
        assert client.ask("POST", path, BODIES[0]).status == 200


def test_a_head_that_comes_again_is_not_parsed_again(parsed, client, seats) -> None:
    quick(client)
    before = len(parsed)
    found = [json.loads(client.ask("POST", "/predict/pump", body).body) for body in BODIES * 3]
    assert len(parsed) == before
    right = [seats["pump"].predict(row) for row in ROWS * 3]
    assert [answer["predictions"][0]["label"] for answer in found] == [p.label for p in right]
    faulty = BODIES[0].replace(b"0.5", b"NaN")
    assert client.ask("POST", "/predict/pump", faulty).status == 400
    assert len(parsed) == before
    client.ask("POST", "/predict/pump", BODIES[0] + b" ")
    assert len(parsed) == before + 1


def test_what_comes_in_pieces_or_in_a_row_is_parsed(parsed, client) -> None:
    quick(client)
    head = (
        f"POST /predict/pump HTTP/1.1\r\nhost: localhost\r\n"
        f"content-length: {len(BODIES[0])}\r\n\r\n"
    ).encode()
    before = len(parsed)
    client.send(head + BODIES[0])
    assert client.read().status == 200 and len(parsed) == before
    client.send((head + BODIES[0]) * 3)
    assert [client.read().status for _ in range(3)] == [200] * 3
    client.send(head + BODIES[0][:5])
    client.send(BODIES[0][5:])
    assert client.read().status == 200
    client.send(head + BODIES[0])
    assert client.read().status == 200


def test_who_may_not_ask_finds_no_lane(open_door, connect, tmp_path) -> None:
    door = open_door(token="s3cret", socket=tmp_path / "edge.sock")
    with_token = connect(door)
    for _ in range(4):
        ask = with_token.ask("POST", "/predict/pump", BODIES[0], authorization="Bearer s3cret")
        assert ask.status == 200
    for wrong in ("Bearer s3creT", "Bearer", ""):
        assert (
            connect(door).ask("POST", "/predict/pump", BODIES[0], authorization=wrong).status == 401
        )
    # Through the socket no token is needed; the same bytes over TCP need one all the same.
    local = connect(door)
    local.socket.close()
    local.socket = socket.socket(socket.AF_UNIX)
    local.socket.connect(str(tmp_path / "edge.sock"))
    for _ in range(4):
        assert local.ask("POST", "/predict/pump", BODIES[0]).status == 200
    assert connect(door).ask("POST", "/predict/pump", BODIES[0]).status == 401


def test_a_page_from_elsewhere_finds_no_lane(client) -> None:
    quick(client)
    for _ in range(2):
        answer = client.ask("POST", "/predict/pump", BODIES[0], origin="http://evil.example")
        assert answer.status == 403


def test_the_version_that_answers_now_answers(parsed, client, seats, tiny_bundle) -> None:
    quick(client)
    seats["pump"].swap(Model.from_bundle(bundles.read(tiny_bundle(version="2.0"))))
    answers = [json.loads(client.ask("POST", "/predict/pump", BODIES[0]).body) for _ in range(3)]
    assert {answer["version"] for answer in answers} == {"2.0"}
    seats["pump"].swap(None)
    assert client.ask("POST", "/predict/pump", BODIES[0]).status == 404


def test_a_compressed_body_has_no_lane(parsed, client) -> None:
    packed = gzip.compress(BODIES[0])
    for _ in range(4):
        answer = client.ask("POST", "/predict/pump", packed, content_encoding="gzip")
        assert answer.status == 200
    assert len(parsed) == 4


def test_lanes_are_bounded_in_number_and_size() -> None:
    opened: list[Request] = []

    def lane_of(request: Request) -> Lane:
        opened.append(request)
        return lambda body: Response(200, body)

    class Transport:
        def write(self, data: bytes) -> None:
            pass

        def close(self) -> None:
            pass

    async def ask(count: int, more: str = "") -> int:
        server = Connections(
            Limits(), lambda _: Response(200), lambda status, _: Response(status), lane_of
        )
        connection = server.make(local=False)
        connection.connection_made(Transport())
        for number in range(count):
            head = f"POST /{number} HTTP/1.1\r\nhost: a\r\n{more}content-length: 1\r\n\r\n"
            connection.data_received(head.encode() + b"x")
        return max(len(known) for known in server._heads.values())

    assert asyncio.run(ask(HEADS_MAX + 5)) <= HEADS_MAX
    assert opened
    assert asyncio.run(ask(3, f"x-long: {'y' * HEAD_KEPT_MAX_BYTES}\r\n")) == 0
    assert asyncio.run(ask(3, "expect: 100-continue\r\n")) == 0
    assert asyncio.run(ask(3, "connection: close\r\n")) == 0


def infer(row: list[float], **more: object) -> bytes:
    """A request for one row, as the Open Inference Protocol has it."""
    tensor = {"name": "X", "shape": [1, 4], "datatype": "FP32", "data": row}
    return json.dumps({"inputs": [tensor], **more}).encode()


def test_one_row_in_a_lane_is_answered_and_counted_as_any_other(monkeypatch, client, seats) -> None:
    model = seats["pump"].model
    general: list[str] = []
    real = Api._timed

    def timed(api: Api, seat: Live, *rest: object) -> Response:
        general.append(seat.name)
        return real(api, seat, *rest)

    monkeypatch.setattr(Api, "_timed", timed)
    seed = 20261121
    rng = random.Random(seed)
    rows = [[round(rng.gauss(0, 3), 3) for _ in range(4)] for _ in range(20)] + [[0.0] * 4]
    path = "/v2/models/pump/infer"
    for _ in range(20):
        client.ask("POST", path, infer(rows[0]))  # the model is known as a quick one
    model.observer = Window(model.manifest, model.profile)
    for row in rows:
        for own in ({}, {"id": "a-7"}):
            right = client.ask("POST", path, infer(row, parameters={}, **own))
            client.ask("POST", path, infer(row, **own))  # opens the lane, where there is none
            before = len(general)
            found = client.ask("POST", path, infer(row, **own))
            assert (found.status, found.body) == (200, right.body), (seed, row)
            assert len(general) == before, "it went another way"
    assert model.observer.rows == 6 * len(rows)


def test_what_a_row_lane_does_not_know_is_answered_in_the_same_words(client) -> None:
    path, statuses = "/v2/models/pump/infer", []
    for _ in range(4):
        client.ask("POST", path, infer([0.0] * 4))
    for body in (
        infer([0.0] * 3),
        infer([0.0, 1.0, None, 2.0]),
        infer([0.0, 1.0, 1e300, 2.0]),
        infer([0.0] * 4).replace(b"FP32", b"FP64"),
        infer([0.0] * 4).replace(b'"X"', b'"Y"'),
        infer([0.0] * 4)[:-1] + b"\xff",
    ):
        first, second = (client.ask("POST", path, body) for _ in range(2))
        other = client.ask("POST", path, body, edge_key="another head")
        statuses.append(first.status)
        assert first.status == second.status == other.status
        assert first.body == second.body == other.body
    assert statuses.count(400) >= 4 and 500 not in statuses, statuses


def test_the_quick_writer_writes_what_the_general_one_does(seats) -> None:
    manifest = seats["pump"].model.manifest
    names = ("label", "probabilities", "seen", "words", "real")
    writer = oip_rows.RowWriter(manifest, names)
    seed = 8
    rng = np.random.default_rng(seed)
    for _ in range(50):
        found = [
            rng.integers(-(2**62), 2**62, 1),
            rng.random((1, 3), dtype=np.float32) * 10.0 ** float(rng.integers(-30, 30)),
            rng.random((1, 2)) > 0.5,
            np.array([['ü"\n', "b"]], dtype=object),
            rng.normal(size=(1, 2, 2)),
        ]
        right, _ = oip.encode(manifest, oip.Infer({}), dict(zip(names, found, strict=True)))
        assert writer(found) == right, seed
        named, _ = oip.encode(
            manifest, oip.Infer({}, id='"7"'), dict(zip(names, found, strict=True))
        )
        assert oip_rows.with_id(right, '"7"') == named
    assert writer([*found[:4], np.array([[[1.0, np.nan], [0, 0]]])]) is None
    assert writer([*found[:4], np.array([[[1.0, np.inf], [-np.inf, 0]]])]) is None
    assert writer([*found[:4], np.zeros((1, 4))]) is None
