"""Requests of several connections that are here at once are answered one after the other."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from collections.abc import Callable

import pytest

pytest.importorskip("httptools", reason="the [http] extra is not installed")

from edge_agent.doors.http import connection as connection_module
from edge_agent.doors.http import connections as connections_module
from edge_agent.doors.http.connection import Connection
from edge_agent.doors.http.connections import Connections
from edge_agent.doors.http.exchange import Limits, Request, Response

HEAD = b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n"


class Wire:
    """What a connection writes to; strict: nothing after its end."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False
        self.broken = False

    def write(self, data: bytes) -> None:
        """One answer."""
        if self.broken:
            raise RuntimeError("the wire is broken")
        assert not self.closed
        self.written.append(data.partition(b"\r\n\r\n")[2])

    def close(self) -> None:
        """The end."""
        self.closed = True

    abort = pause_reading = resume_reading = close


class World:
    """A server, its connections, and in which order what was asked."""

    def __init__(self, connections: int) -> None:
        self.asked: list[bytes] = []
        self.refused: set[bytes] = set()
        self.faulty: set[bytes] = set()
        self.server = Connections(
            Limits(), self.handle, lambda s, _: Response(s), lambda _: self.lane
        )
        self.wires = [Wire() for _ in range(connections)]
        self.connections: list[Connection] = []
        for wire in self.wires:
            self.connections.append(self.server.make(local=False))
            self.connections[-1].connection_made(wire)  # type: ignore[arg-type]

    def handle(self, request: Request) -> Response:
        """What the lane does not answer."""
        return Response(200, b"handled " + request.body)

    def lane(self, body: bytes) -> bytes | None:
        """Answers at once."""
        self.asked.append(body)
        if body in self.faulty:
            raise ValueError("a lane that fails")
        return None if body in self.refused else b"lane " + body

    def learn(self) -> None:
        """The head opens a lane, for all."""
        self.connections[0].data_received(HEAD + b"x")
        self.wires[0].written.clear()


def run(monkeypatch: pytest.MonkeyPatch, story: Callable[[World], None]) -> World:
    """The story in a loop in which any two requests come close, then one turn of the loop."""
    monkeypatch.setattr(connection_module, "CROWD_S", math.inf)

    async def within() -> World:
        world = World(4)
        world.learn()
        story(world)
        await asyncio.sleep(0)
        return world

    return asyncio.run(within())


def test_what_is_here_at_once_is_read_first_and_each_gets_its_answer(monkeypatch) -> None:
    def story(world: World) -> None:
        world.refused = {b"3"}
        for at, connection in enumerate(world.connections):
            connection.data_received(HEAD + b"%d" % at)
        assert not any(wire.written for wire in world.wires[1:])

    world = run(monkeypatch, story)
    assert [wire.written for wire in world.wires] == [
        [b"lane 0"], [b"lane 1"], [b"lane 2"], [b"handled 3"]
    ]  # fmt: skip
    assert world.asked == [b"0", b"1", b"2", b"3"]


def test_answers_keep_the_order_of_their_connection(monkeypatch) -> None:
    def story(world: World) -> None:
        first, second = world.connections[1:3]
        second.data_received(HEAD + b"a")
        first.data_received(HEAD + b"b")
        first.data_received(HEAD + b"c")
        first.data_received(b"GET /d HTTP/1.1\r\nhost: a\r\n\r\n")
        second.data_received(HEAD + b"e" + HEAD + b"f")

    world = run(monkeypatch, story)
    assert world.wires[1].written == [b"lane b", b"lane c", b"handled "]
    assert world.wires[2].written == [b"lane a", b"handled e", b"handled f"]


def test_the_end_of_a_client_and_of_the_door_find_nothing_open(monkeypatch) -> None:
    def story(world: World) -> None:
        for connection in world.connections:
            connection.data_received(HEAD + b"y")
        world.connections[1].connection_lost(None)
        assert world.connections[2].eof_received() is False
        assert world.wires[2].written == [b"lane y"]
        world.connections[0].data_received(HEAD + b"x")
        world.connections[3].data_received(HEAD + b"z")
        world.server.sweep(math.inf)  # whoever waits for an answer is not idle
        assert not world.wires[3].closed
        world.server.close()

    world = run(monkeypatch, story)
    assert world.wires[1].written == []
    assert world.wires[0].written == [b"lane y", b"lane x"]
    assert world.wires[3].written == [b"lane y", b"lane z"]
    assert all(world.wires[at].closed for at in (0, 2, 3))


@pytest.mark.parametrize("held_s", [connections_module.HELD_S, -1.0])
def test_what_goes_wrong_for_one_connection_ends_that_one_alone(monkeypatch, held_s) -> None:
    monkeypatch.setattr(connections_module, "HELD_S", held_s)

    def story(world: World) -> None:
        world.faulty, world.wires[2].broken = {b"1"}, True
        for at, connection in enumerate(world.connections):
            connection.data_received(HEAD + b"%d" % at)

    world = run(monkeypatch, story)
    assert [wire.written for wire in world.wires] == [[b"lane 0"], [], [], [b"lane 3"]]
    assert [wire.closed for wire in world.wires] == [False, True, True, False]
    world.connections[1].data_received(HEAD + b"9")  # what was on its way is not looked at
    assert world.asked == [b"0", b"1", b"2", b"3"]


def test_many_clients_at_once_get_what_one_gets(door, client, seats) -> None:
    path = b"/v2/models/pump/infer"
    bodies = [
        b'{"inputs":[{"name":"X","shape":[1,4],"datatype":"FP32","data":[0.%d,-0.%d,0.1,0]}]}'
        % (i, 9 - i)
        for i in range(10)
    ]
    right = [client.ask("POST", path.decode(), body).body for body in bodies]
    assert len(set(right)) > 1
    wrong: list[bytes] = []

    def ask(shift: int) -> None:
        with socket.create_connection(("127.0.0.1", door.port), timeout=60) as wire:
            stream = wire.makefile("rb")
            for turn in range(60):
                at = (turn * 3 + shift) % len(bodies)
                body = bodies[at]
                wire.sendall(
                    b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b"
                    % (path, len(body), body)
                )
                size = 0
                while (line := stream.readline()) not in (b"\r\n", b""):
                    if line.startswith(b"content-length:"):
                        size = int(line.split()[1])
                if (found := stream.read(size)) != right[at]:
                    wrong.append(found)

    threads = [threading.Thread(target=ask, args=(shift,)) for shift in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
