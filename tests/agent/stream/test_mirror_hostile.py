"""Whatever a mirror answers: what was sound is kept, what was not is not, and the next one goes on.

Each answer is given to a download of five chunks, two of which are on disk already, and a shelf
that works comes second: it has to be asked for exactly what the mirror did not give.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from stream_kit import Request, Rogue, Shelf, member, sound_answer, tree_of

from edge_agent.delivery.download import Download
from edge_agent.delivery.mirror import Mirror, Rest
from edge_agent.delivery.pace import UNLIMITED_BYTES, Room
from edge_agent.delivery.source import Stopped
from edge_agent.delivery.store import ChunkStore
from edge_contract.chunks import CHUNK_BYTES, index_of, plan
from edge_contract.errors import PeerFault

Answer = Callable[[Request], None]
Start = Callable[[Answer], Rogue]

FILE, STORED = member(5)
INDEX = index_of(STORED)
PLAN = plan(FILE, INDEX)
FILES = tree_of((FILE, STORED))
ON_DISK = 2
REST = STORED[ON_DISK * CHUNK_BYTES :]
SPAN = (ON_DISK * CHUNK_BYTES, len(STORED) - 1)
WRONG = bytes(len(REST))
TRICKLE_S = 0.02


def partial(request: Request, body: bytes, *, size: int | None = None, span: str = "") -> None:
    """A 206 with any body."""
    start, end = request.range or (0, 0)
    request.head(
        "206 Partial Content",
        f"Content-Range: {span or f'bytes {start}-{end}/{len(STORED)}'}",
        f"Content-Length: {len(REST) if size is None else size}",
    )
    request.send(body)


def status(line: str, *headers: str) -> Answer:
    return lambda request: request.head(line, "Content-Length: 0", *headers)


def trickle(request: Request, data: bytes) -> None:
    """A byte now and then, for ever."""
    while not request.over.wait(TRICKLE_S):
        request.send(data)


def slow_body(request: Request) -> None:
    partial(request, REST[:CHUNK_BYTES])
    trickle(request, b"x")


def slow_header(request: Request) -> None:
    request.send(b"HTTP/1.1 206 Partial Content\r\nX-Slow: ")
    trickle(request, b"x")


def continues(request: Request) -> None:
    while not request.over.is_set():
        request.head("100 Continue")


def endless_headers(request: Request) -> None:
    request.send(b"HTTP/1.1 206 Partial Content\r\n")
    while not request.over.is_set():
        request.send(b"X-More: yes\r\n" * 100)


def endless_line(request: Request) -> None:
    while not request.over.is_set():
        request.send(b"H" * 10_000)


def endless_body(request: Request) -> None:
    """Two sound chunks, then zeros without end or length."""
    start, end = request.range or (0, 0)
    request.head(
        "206 Partial Content", f"Content-Range: bytes {start}-{end}/*", "Connection: close"
    )
    request.send(REST[: 2 * CHUNK_BYTES])
    while not request.over.is_set():
        request.send(bytes(64 * 1024))


def reset_within(request: Request) -> None:
    """One sound chunk is answered whole; the next request dies in the middle of its body."""
    partial(request, REST[: CHUNK_BYTES + 50_000])
    request.reset()


def chunked(request: Request, size: str) -> None:
    start, end = request.range or (0, 0)
    span = f"Content-Range: bytes {start}-{end}/{len(STORED)}"
    request.head("206 Partial Content", span, "Transfer-Encoding: chunked")
    request.send(f"{size}\r\n".encode() + REST + b"\r\n0\r\n\r\n")


def cut_off(request: Request) -> None:
    partial(request, REST[: 2 * CHUNK_BYTES + 17])
    request.close()


def whole(request: Request) -> None:
    request.head("200 OK", f"Content-Length: {len(STORED)}")
    request.send(STORED)


def shifted(request: Request) -> None:
    start, end = request.range or (0, 0)
    partial(request, REST, span=f"bytes {start - 1}-{end - 1}/{len(STORED)}")


# name: (answer, chunks of the three missing ones that it gives, what is logged)
ANSWERS: dict[str, tuple[Answer, int, str]] = {
    "404": (status("404 Not Found"), 0, "does not have it"),
    "403": (status("403 Forbidden"), 0, "status 403"),
    "416": (status("416 Range Not Satisfiable", "Content-Range: bytes */7"), 0, "no such range"),
    "429": (status("429 Too Many Requests", "Retry-After: 7"), 0, "again in 7 s"),
    "503": (status("503 Service Unavailable", "Retry-After: x"), 0, "again in 60 s"),
    "500": (status("500 Oh"), 0, "status 500"),
    "204": (status("204 No Content"), 0, "status 204"),
    "other bytes": (lambda r: partial(r, WRONG), 0, "has other bytes"),
    "other bytes after a sound chunk": (
        lambda r: partial(r, REST[:CHUNK_BYTES] + WRONG[CHUNK_BYTES:]),
        1,
        "has other bytes",
    ),
    "a body cut off": (cut_off, 2, "ends early"),
    "a reset within a body": (reset_within, 1, ""),
    "a reset at once": (lambda r: r.reset(), 0, ""),
    "the connection closed at once": (lambda r: r.close(), 0, ""),
    "too short": (lambda r: partial(r, REST[:-1], size=len(REST) - 1), 0, "expected"),
    "too long": (lambda r: partial(r, REST + b"x", size=len(REST) + 1), 0, "expected"),
    "a length that is none": (lambda r: partial(r, REST, size=-5), 0, "expected"),
    "another range": (shifted, 0, "expected bytes"),
    "no range": (lambda r: partial(r, REST, span="bytes */*"), 0, "expected bytes"),
    "another file's range": (
        lambda r: partial(r, REST, span=f"bytes {SPAN[0]}-{SPAN[1]}/{len(STORED) + 1}"),
        0,
        "a file of",
    ),
    "the whole file for a range": (whole, 0, "whole file"),
    "an encoded body": (
        status("206 Partial Content", "Content-Encoding: gzip"), 0, "encoded as",
    ),
    "chunks that say their size wrong": (lambda r: chunked(r, "zz"), 0, ""),
    "chunks of less": (lambda r: chunked(r, "4"), 0, ""),
    "a body without end": (endless_body, 2, "has other bytes"),
    "headers without end": (endless_headers, 0, "headers"),
    "a line without end": (endless_line, 0, "line"),
    "no HTTP": (lambda r: r.send(b"\x00\x01\x02\n" * 9), 0, ""),
    "a redirection to nowhere": (status("302 Found"), 0, "redirects to no address"),
    "a redirection to a file": (status("302 Found", "Location: file:///a"), 0, "no address"),
    "a redirection to nonsense": (status("301 Moved", "Location: http://[::1"), 0, "no address"),
    "redirections in a circle": (status("308 Moved", "Location: /again"), 0, "more than 5 times"),
}  # fmt: skip
SLOW = {
    "a slow body": (slow_body, 1),
    "a slow header": (slow_header, 0),
    "100 Continue for ever": (continues, 0),
    "silence": (lambda r: r.over.wait(), 0),
}


@contextlib.contextmanager
def closing(download: Download):  # type: ignore[no-untyped-def]
    try:
        yield download
    finally:
        download.close()


def begun(folder: Path, chunks: int = ON_DISK) -> ChunkStore:
    """A store with the list of the chunks, and the first of them."""
    store = ChunkStore(folder)
    store.write(FILE.index, INDEX)
    for chunk in PLAN[:chunks]:
        store.write(chunk.sha256, STORED[chunk.offset : chunk.offset + chunk.size])
    return store


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def run(folder: Path, url: str, *, patience_s: float = 60.0) -> tuple[Shelf, list[int]]:
    """The download with the mirror first; what the shelf gave, and the progress."""
    shelf, seen = Shelf(FILES), [0]
    sources = [Mirror(url, rest=Rest(), patience_s=patience_s), shelf]
    stop = threading.Event()
    with closing(
        Download(begun(folder), sources, progress=lambda n, _: seen.append(n), stop=stop)
    ) as download:
        plans = download.members([FILE])
        assert b"".join(download.read(plans[FILE.name])) == STORED
    return shelf, seen


@pytest.mark.parametrize("name", ANSWERS)
def test_the_next_source_gives_what_the_mirror_did_not(
    name: str, rogue: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer, sound, said = ANSWERS[name]
    server = rogue(answer)
    shelf, seen = run(tmp_path / "chunks", f"{server.url}/models")
    assert server.requests[0] == (f"/models/{FILE.sha256}", SPAN)
    assert [piece.sha256 for piece in shelf.gave] == [
        chunk.sha256 for chunk in PLAN[ON_DISK + sound :]
    ]
    assert names(tmp_path / "chunks") == {FILE.index, *(chunk.sha256 for chunk in PLAN)}
    assert seen[-1] == FILE.size
    assert seen == sorted(seen)
    assert said in caplog.text
    assert "the shelf is asked instead" in caplog.text


@pytest.mark.parametrize("name", SLOW)
def test_a_mirror_that_only_takes_time_is_cut_off(
    name: str, rogue: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer, sound = SLOW[name]
    # Long enough for a loaded machine to get the sound chunk through.
    shelf, _ = run(tmp_path / "chunks", rogue(answer).url, patience_s=1.5)
    assert len(shelf.gave) == 3 - sound
    assert "cut off after 1.5 s" in caplog.text


def test_without_another_source_the_mirrors_fault_is_the_downloads(
    rogue: Start, tmp_path: Path
) -> None:
    mirror = Mirror(rogue(cut_off).url, rest=Rest())
    download = Download(
        begun(tmp_path), [mirror], progress=lambda done, total: None, stop=threading.Event()
    )
    with closing(download), pytest.raises(PeerFault, match="ends early"):
        download.members([FILE])
    assert names(tmp_path) == {FILE.index, *(chunk.sha256 for chunk in PLAN[: ON_DISK + 2])}


def test_what_came_before_the_cut_is_not_asked_for_again(rogue: Start, tmp_path: Path) -> None:
    """Each answer ends after one chunk and a bit; each attempt begins at the next chunk."""

    def one_and_a_bit(request: Request) -> None:
        start, end = request.range or (0, len(STORED) - 1)
        body = STORED[start : end + 1]
        partial(request, body[: CHUNK_BYTES + 3], size=len(body))
        request.close()

    server = rogue(one_and_a_bit)
    store = begun(tmp_path)
    for _ in range(3):
        mirror = Mirror(server.url, rest=Rest())
        with (
            closing(
                Download(store, [mirror], progress=lambda n, t: None, stop=threading.Event())
            ) as download,
            contextlib.suppress(PeerFault),
        ):
            download.members([FILE])
    asked = [span[0] // CHUNK_BYTES for _, span in server.requests if span]
    assert asked == [2, 3, 4]
    assert names(tmp_path) == {FILE.index, *(chunk.sha256 for chunk in PLAN)}


def test_the_whole_file_will_do_where_its_beginning_is_asked_for(
    rogue: Start, tmp_path: Path
) -> None:
    """A server without ranges serves a first download, and then a last chunk is missing."""
    server = rogue(whole)
    store = begun(tmp_path, 0)
    last = PLAN[-1]
    store.write(last.sha256, STORED[last.offset :])
    shelf = Shelf({})
    download = Download(
        store, [Mirror(server.url, rest=Rest()), shelf],
        progress=lambda n, t: None, stop=threading.Event(),
    )  # fmt: skip
    with closing(download):
        download.members([FILE])
    assert server.requests == [(f"/{FILE.sha256}", (0, 4 * CHUNK_BYTES - 1))]
    assert shelf.gave == []


def test_a_mirror_that_asked_for_rest_is_left_alone_until_then(
    rogue: Start, tmp_path: Path
) -> None:
    now = [100.0]
    server = rogue(status("503 Service Unavailable", "Retry-After: 30"))
    rest = Rest(lambda: now[0])
    for clock, requests in ((100.0, 1), (129.0, 1), (131.0, 2)):
        now[0] = clock
        download = Download(
            begun(tmp_path), [Mirror(server.url, rest=rest)],
            progress=lambda n, t: None, stop=threading.Event(),
        )  # fmt: skip
        with closing(download), pytest.raises(PeerFault, match=r"left alone|status 503"):
            download.members([FILE])
        assert len(server.requests) == requests


@pytest.mark.parametrize(
    "said",
    [
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Mon, 01 Jan 2029 00:00:00 +99999999999999",
        "9" * 400,
        "\xb2",
    ],
)
def test_a_time_to_wait_that_is_none_costs_the_next_source_nothing(
    said: str, rogue: Start, tmp_path: Path
) -> None:
    shelf, _ = run(tmp_path, rogue(status("503 Busy", f"Retry-After: {said}")).url)
    assert len(shelf.gave) == len(PLAN) - ON_DISK


@pytest.mark.parametrize("answer", [lambda r: r.over.wait(), slow_body, slow_header])
def test_a_stop_ends_any_wait_for_a_mirror(answer: Answer, rogue: Start, tmp_path: Path) -> None:
    stop, asked = threading.Event(), threading.Event()

    def answering(request: Request) -> None:
        asked.set()
        answer(request)

    mirror = Mirror(rogue(answering).url, rest=Rest())
    shelf = Shelf(FILES)
    threading.Thread(target=lambda: asked.wait(60) and stop.set()).start()
    download = Download(begun(tmp_path), [mirror, shelf], progress=lambda n, t: None, stop=stop)
    with closing(download), pytest.raises(Stopped):
        download.members([FILE])
    assert shelf.gave == []


def test_a_redirection_is_followed_to_another_server(rogue: Start, tmp_path: Path) -> None:
    target = rogue(lambda request: sound_answer(FILES, request))
    gate = rogue(
        lambda r: r.head("307 Moved", "Content-Length: 0", f"Location: {target.url}{r.path}")
    )
    shelf, _ = run(tmp_path, f"{gate.url}/a")
    assert shelf.gave == []
    assert target.requests == [(f"/a/{FILE.sha256}", SPAN)]


def test_a_redirection_to_a_signed_address_keeps_its_signature(
    rogue: Start, tmp_path: Path
) -> None:
    signed = f"/store/{FILE.sha256}?X-Amz-Expires=60&X-Amz-Signature=0%2F1"

    def answer(request: Request) -> None:
        if request.path == signed:
            partial(request, REST)
        elif request.path.startswith("/store/"):
            request.head("403 Forbidden", "Content-Length: 0")
        else:
            request.head("302 Found", "Content-Length: 0", f"Location: {signed}")

    shelf, _ = run(tmp_path, rogue(answer).url)
    assert shelf.gave == []


class Sips:
    """A pace that lets one chunk through at a time, and counts."""

    def __init__(self) -> None:
        self.spent_bytes = 0

    def room(self, want_bytes: int) -> Room:
        return Room(want_bytes)

    def spent(self, size_bytes: int) -> None:
        self.spent_bytes += size_bytes


@pytest.mark.parametrize("manners", ["keep-alive", "close"])
def test_a_pace_that_sips_uses_one_connection_as_far_as_the_server_does(
    manners: str, rogue: Start, tmp_path: Path
) -> None:
    def answer(request: Request) -> None:
        if manners == "keep-alive":
            sound_answer(FILES, request)
            return
        start, end = request.range or (0, 0)
        span = f"Content-Range: bytes {start}-{end}/{len(STORED)}"
        size = f"Content-Length: {end + 1 - start}"
        request.head("206 Partial Content", span, size, "Connection: close")
        request.send(STORED[start : end + 1])
        request.close()

    server, pace = rogue(answer), Sips()
    mirror = Mirror(server.url, rest=Rest(), pace=pace)
    download = Download(
        begun(tmp_path), [mirror], progress=lambda n, t: None, stop=threading.Event(), pace=pace
    )
    with closing(download):
        download.members([FILE])
    assert [span for _, span in server.requests] == [
        (chunk.offset, chunk.offset + chunk.size - 1) for chunk in PLAN[ON_DISK:]
    ]
    assert server.connections == (1 if manners == "keep-alive" else 3)
    assert len(REST) < pace.spent_bytes < len(REST) + 10_000
    assert pace.room(1).size_bytes < UNLIMITED_BYTES


def test_a_connection_that_the_server_ended_while_it_rested_is_made_again(
    rogue: Start, tmp_path: Path
) -> None:
    """As a server does with a connection that a rate cap left idle for a minute."""

    def answer(request: Request) -> None:
        sound_answer(FILES, request)
        request.close()  # unannounced

    server, pace = rogue(answer), Sips()
    download = Download(
        begun(tmp_path), [Mirror(server.url, rest=Rest())],
        progress=lambda n, t: None, stop=threading.Event(), pace=pace,
    )  # fmt: skip
    with closing(download):
        download.members([FILE])
    assert server.connections == 3
