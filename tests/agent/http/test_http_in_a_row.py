"""Many requests of one connection at once: no faster than it takes its answers, nor than others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import pytest

pytest.importorskip("httptools", reason="the [http] extra is not installed")

from edge_agent.doors.http.connection import PART_BYTES, PIPELINE_MAX, TURN_MAX, Connection
from edge_agent.doors.http.connections import Connections
from edge_agent.doors.http.exchange import Limits, Request, Response

POST = b"POST /%d HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody"
LANE = b"POST /lane HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n"
GARBAGE = b"NONSENSE\r\n\r\n"


class Wire:
    """What a connection writes to, full after ``room`` answers; strict: nothing after its end."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.left = room
        self.connection: Connection
        self.statuses: list[int] = []
        self.last = b""
        self.reading = True
        self.full = False
        self.closed = False

    def write(self, data: bytes) -> None:
        """One answer."""
        assert not self.closed
        self.statuses.append(int(data.split()[1]))
        self.last = data
        self.left -= 1
        if self.left == 0:
            self.full = True
            self.connection.pause_writing()

    def take(self) -> None:
        """The client takes what is there."""
        self.full, self.left = False, self.room
        self.connection.resume_writing()

    def pause_reading(self) -> None:
        """No more of it."""
        self.reading = False

    def resume_reading(self) -> None:
        """Go on."""
        assert not self.closed
        self.reading = True

    def close(self) -> None:
        """The end."""
        self.closed = True


class World:
    """A server, and in which order what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.slow: dict[str, asyncio.Future[Response]] = {}
        self.server = Connections(Limits(), self.handle, lambda s, _: Response(s), self.lane_of)

    def open(self, room: int = 1_000_000) -> Wire:
        """A client that takes ``room`` answers, then no more until ``take``."""
        wire = Wire(room)
        wire.connection = self.server.make(local=False)
        wire.connection.connection_made(wire)  # type: ignore[arg-type]
        return wire

    def handle(self, request: Request) -> Response | Awaitable[Response]:
        """Answers with the path."""
        self.asked.append(request.path)
        if request.path in self.slow:
            return self.slow[request.path]
        return Response(200, request.path.encode())

    def lane_of(self, request: Request) -> Callable[[bytes], bytes] | None:
        """One path has a lane."""
        if request.path != "/lane":
            return None
        return lambda _: self.asked.append("by lane") or b"{}"


def run(story: Callable[[World], Coroutine[None, None, None]]) -> None:
    async def within() -> None:
        await story(World())

    asyncio.run(within())


async def turns(count: int = 3) -> None:
    """So many of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


def posts(count: int) -> bytes:
    return b"".join(POST % at for at in range(count))


def paths(count: int) -> list[str]:
    return [f"/{at}" for at in range(count)]


def test_who_takes_no_answers_is_given_no_more_and_all_of_them_in_the_end() -> None:
    async def story(world: World) -> None:
        wire = world.open(room=5)
        wire.connection.data_received(posts(3000))
        await turns(100)
        assert (world.asked, wire.reading) == (paths(5), False)
        # What was read but is not answered is a part of it.
        assert 0 < world.server.held_bytes <= 2 * PART_BYTES
        while wire.full:
            wire.take()
            await turns()
        assert world.asked == paths(3000)
        assert (world.server.held_bytes, wire.reading, wire.closed) == (0, True, False)

    run(story)


def test_others_have_their_turn_between_the_answers_of_one() -> None:
    async def story(world: World) -> None:
        one, other = world.open(), world.open()
        one.connection.data_received(posts(1000))
        assert len(world.asked) == TURN_MAX
        other.connection.data_received(POST % 7777)
        assert world.asked[-1] == "/7777"
        await turns(1000 // TURN_MAX + 2)
        assert world.asked[:TURN_MAX] + world.asked[TURN_MAX + 1 :] == paths(1000)
        assert (len(one.statuses), one.reading) == (1000, True)

    run(story)


@pytest.mark.parametrize("room", [1, 3, 1_000_000])
@pytest.mark.parametrize("count", [1, PIPELINE_MAX, PIPELINE_MAX + 2, 500])
def test_what_cannot_be_read_is_said_behind_the_answers_and_ends_it(room, count) -> None:
    async def story(world: World) -> None:
        wire = world.open(room=room)
        wire.connection.data_received(posts(count) + GARBAGE + POST % 9999)
        for _ in range(count + 3):
            if wire.full:
                wire.take()
            await turns()
        assert wire.statuses == [200] * count + [400]
        assert world.asked == paths(count)
        assert wire.closed and b"connection: close" in wire.last

    run(story)


def test_a_lane_does_not_overtake_what_waits() -> None:
    async def story(world: World) -> None:
        wire = world.open(room=2)
        wire.connection.data_received(LANE + b"body")
        wire.connection.data_received(posts(2))
        assert wire.full
        wire.connection.data_received(LANE + b"body")  # was on its way
        wire.connection.data_received(LANE + b"more")
        assert world.asked == ["/lane", "/0"]
        for _ in range(3):
            wire.take()
            await turns()
        assert world.asked == ["/lane", "/0", "/1", "/lane", "/lane"]
        wire.connection.data_received(LANE + b"last")
        assert world.asked[5:] == ["by lane"]

    run(story)


def test_a_slow_answer_goes_first_and_what_cannot_be_read_is_said_behind_it() -> None:
    async def story(world: World) -> None:
        slow = world.slow["/0"] = asyncio.get_running_loop().create_future()
        wire = world.open()
        wire.connection.data_received(posts(2) + GARBAGE)
        await turns()
        assert (world.asked, wire.statuses) == (["/0"], [])
        slow.set_result(Response(202))
        await turns()
        assert (wire.statuses, wire.closed) == ([202, 200, 400], True)

    run(story)


@pytest.mark.parametrize("end", ["client", "door"])
def test_what_waits_at_the_end_is_answered_and_the_last_answer_says_so(end) -> None:
    async def story(world: World) -> None:
        wire = world.open(room=2)
        wire.connection.data_received(posts(6))
        if end == "door":
            world.server.close()
        else:
            assert wire.connection.eof_received() is True
        assert not wire.closed
        for _ in range(2):
            assert b"connection: close" not in wire.last
            wire.take()
            await turns()
        assert wire.statuses == [200] * 6
        assert wire.closed and b"connection: close" in wire.last

    run(story)


def test_who_is_gone_is_not_answered_any_more() -> None:
    async def story(world: World) -> None:
        wire = world.open()
        wire.connection.data_received(posts(1000))
        wire.connection.connection_lost(None)
        await turns()
        assert (len(world.asked), world.server.held_bytes) == (TURN_MAX, 0)

    run(story)


def test_a_large_body_among_small_requests_is_read_in_few_parts() -> None:
    async def story(world: World) -> None:
        wire = world.open()
        size = 200_000
        large = b"POST /large HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size
        data = posts(3) + large + b"x" * size + posts(3)
        for at in range(0, len(data), 70_001):
            wire.connection.data_received(data[at : at + 70_001])
        await turns()
        assert world.asked == [*paths(3), "/large", *paths(3)]
        assert (wire.statuses, world.server.held_bytes) == ([200] * 7, 0)

    run(story)
