"""Endless data: huge and slow answers, answers that stop, redirects, compression bombs.

Over HTTP by a server that does it, over MQTT by a broker that holds or says too much.
"""

from __future__ import annotations

import gzip
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attack_kit import Client, Repo, Site
from tuf.api.exceptions import DownloadError, SlowRetrievalError

from edge_agent.delivery.fetcher import MqttFetcher
from edge_agent.tuf_client import HttpFetcher
from edge_contract import broker_url
from edge_contract.broker_url import BrokerUrl
from edge_contract.errors import PeerFault
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_contract.ports.retained import SENTINEL, Retained
from edge_contract.topics import SENTINEL_FILE, Topics
from edge_fleet.broker import BrokerThread

LIMIT = 5_000_000
"""More than any file of metadata may have."""


@pytest.fixture
def lying(site: Site) -> Iterator[Site]:
    """The server; what a test makes it answer ends with the test."""
    honest = site.answer
    yield site
    site.answer = honest


@pytest.mark.parametrize("role", ["2.root", "timestamp", "1.snapshot", "1.targets"])
@pytest.mark.parametrize("way", ["http"], indirect=True)
def test_an_answer_without_end_is_cut_at_the_limit(
    client: Client, repo: Repo, lying: Site, role: str
) -> None:
    sent = 0

    def endless(handler: Any, data: bytes | None) -> bool:
        nonlocal sent
        if not handler.path.endswith(f"/{role}.json"):
            return False
        handler.send_response(200)
        handler.end_headers()
        try:
            while sent < 20 * LIMIT:
                handler.wfile.write(b" " * 65536)
                sent += 65536
        except OSError:
            pass
        return True

    lying.answer = endless
    assert client._ours("refresh") == 1
    # What lies in socket buffers was sent too.
    assert sent < 3 * LIMIT, "the client hung up soon after the limit"
    assert role.rpartition(".")[2] not in {"timestamp", "snapshot", "targets"} & set(
        client.versions()
    )


def test_a_trickle_is_given_up_after_its_time(lying: Site, repo: Repo) -> None:
    """One byte an answer to each look at the clock: no silence ever, and no end."""
    lying.repos["trickle"] = repo
    done = threading.Event()

    def trickle(handler: Any, data: bytes | None) -> bool:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not done.is_set():
                handler.wfile.write(b"x")
        except OSError:
            pass
        return True

    lying.answer = trickle
    ticks = iter(range(10**6))
    fetcher = HttpFetcher(f"{lying.url}/trickle/m", "", file_max_s=5, clock=lambda: next(ticks))
    try:
        with pytest.raises(SlowRetrievalError):
            fetcher.download_bytes("m/timestamp.json", 10**9)
    finally:
        done.set()
    assert next(ticks) < 20


ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "a redirect to itself": (302, {"Location": "timestamp.json"}, b""),
    "a redirect elsewhere": (301, {"Location": "http://127.0.0.1:1/"}, b""),
    "a server error": (500, {}, b"oops"),
    "no content": (204, {}, b""),
    "a part": (206, {"Content-Range": "bytes 0-1/9"}, b"{}"),
    "a length that is a lie": (200, {"Content-Length": "999"}, b"{}"),
    "a length that is none": (200, {"Content-Length": "many"}, b"{}"),
    "compressed": (200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(50_000_000))),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("way", ["http"], indirect=True)
def test_an_answer_that_is_none_is_an_error_and_no_bomb(
    client: Client, lying: Site, answer: str
) -> None:
    status, headers, body = ANSWERS[answer]

    def odd(handler: Any, data: bytes | None) -> bool:
        if not handler.path.endswith("timestamp.json"):
            return False
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
        return True

    lying.answer = odd
    tracemalloc.start()
    try:
        assert client._ours("refresh") == 1
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert client.versions() == {"root": 1}


@pytest.mark.parametrize("way", ["http"], indirect=True)
def test_a_server_that_hangs_up_is_an_error(client: Client, lying: Site) -> None:
    def hang_up(handler: Any, data: bytes | None) -> bool:
        handler.connection.close()
        return True

    lying.answer = hang_up
    assert client._ours("refresh") == 1
    assert client.versions() == {"root": 1}


# -- over MQTT --------------------------------------------------------------------------------


class Reader:
    """A fetcher on a broker with one retained file, as a device has it."""

    def __init__(self, broker: BrokerUrl, stop: threading.Event | None = None) -> None:
        self.topics = Topics("f", prefix="e")
        self.retained = Retained(
            LinkConfig(broker=broker, client_id="reader"),
            sentinel=self.topics.metadata(SENTINEL_FILE),
            silence_s=0.2,
        )
        self.publisher = Link(LinkConfig(broker=broker, client_id="publisher"))
        self.publisher.start(60)
        self.put(self.topics.metadata(SENTINEL_FILE), SENTINEL)
        self.stop = stop or threading.Event()
        self.retained.start(60)
        self.fetcher = MqttFetcher(lambda: self.retained, self.topics, self.meanwhile)

    def put(self, topic: str, data: bytes) -> None:
        self.publisher.publish(topic, data, retain=True).wait(60)

    def meanwhile(self) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt

    def close(self) -> None:
        self.retained.stop()
        self.publisher.stop()


@pytest.fixture
def new_reader() -> Iterator[Callable[..., tuple[Reader, BrokerThread]]]:
    made: list[tuple[Reader, BrokerThread]] = []

    def make(stop: threading.Event | None = None) -> tuple[Reader, BrokerThread]:
        broker = BrokerThread()
        broker.start()
        made.append((Reader(broker_url.parse(broker.url), stop), broker))
        return made[-1]

    yield make
    for reader, broker in made:
        reader.close()
        broker.stop()


@pytest.mark.parametrize("size", [1001, 16_385, 600_000])
def test_a_retained_message_over_the_limit_is_cut_and_refused(
    new_reader: Callable[..., tuple[Reader, BrokerThread]], size: int
) -> None:
    reader, _broker = new_reader()
    reader.put(reader.topics.metadata("timestamp.json"), b" " * size)
    with pytest.raises(DownloadError, match="more than 1000 bytes"):
        reader.fetcher.download_bytes("m/timestamp.json", 1000)


def test_a_retained_message_over_the_packet_limit_never_reaches_memory(
    new_reader: Callable[..., tuple[Reader, BrokerThread]],
) -> None:
    """CONNECT says how large a packet may be; a broker that keeps to it does not send this one."""
    reader, _broker = new_reader()
    reader.put(reader.topics.metadata("timestamp.json"), bytes(1_040_000))
    with pytest.raises(DownloadError):
        reader.fetcher.download_bytes("m/timestamp.json", 16_384)


@pytest.mark.parametrize(
    "url",
    [
        "m/#", "m/+.json", "m/../desired", "m/a b.json", "m/" + "9" * 200 + ".json", "m/\0", "m/",
        "t/fleet/home/#", "t/+/x", "t/\ud800", "t/" + "a" * 600, "t/a\nb", "t/", "x/y", "",
    ],
)  # fmt: skip
def test_a_name_that_metadata_brought_never_becomes_a_wildcard(
    new_reader: Callable[..., tuple[Reader, BrokerThread]], url: str
) -> None:
    reader, _broker = new_reader()
    with pytest.raises(DownloadError, match="no topic can have"):
        reader.fetcher.download_bytes(url, 1000)


def test_a_silent_broker_is_given_up_after_its_time(
    new_reader: Callable[..., tuple[Reader, BrokerThread]],
) -> None:
    reader, broker = new_reader()
    broker.freeze("reader")
    with pytest.raises(PeerFault, match="did not answer"):
        reader.fetcher.download_bytes("m/timestamp.json", 1000)


def test_a_question_to_a_silent_broker_is_called_off_at_once(
    new_reader: Callable[..., tuple[Reader, BrokerThread]],
) -> None:
    stop = threading.Event()
    reader, broker = new_reader(stop)
    broker.freeze("reader")
    reader.retained._silence_s = 3600.0
    asked = threading.Event()
    ended = threading.Event()

    def ask() -> None:
        asked.set()
        with pytest.raises(KeyboardInterrupt):
            reader.fetcher.download_bytes("m/timestamp.json", 1000)
        ended.set()

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(60)
    stop.set()
    assert ended.wait(60), "it would have waited for hours"
    thread.join()
