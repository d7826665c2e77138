"""The connection says what the broker said: refusals, limits, losses; on both brokers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_contract import broker_url
from edge_contract.errors import InputFault, PeerFault
from edge_contract.ports import certificates
from edge_contract.ports.mqtt import Link, LinkConfig, Message
from edge_fleet.broker import Right, User

TIMEOUT_S = 60


class Inbox:
    """Messages as they arrived, to wait for."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._arrived = threading.Condition()

    def __call__(self, message: Message) -> None:
        with self._arrived:
            self.messages.append(message)
            self._arrived.notify_all()

    def wait(self, count: int) -> list[Message]:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.messages) >= count, TIMEOUT_S), (
                f"{len(self.messages)} of {count} messages came"
            )
            return list(self.messages)


@pytest.fixture
def connect() -> Iterator[Callable[..., Link]]:
    """Makes connected links and closes them at the end."""
    links: list[Link] = []

    def make(url: str, client_id: str, inbox: Inbox | None = None, **config: Any) -> Link:
        config = {"reconnect_min_s": 1, "reconnect_max_s": 1} | config
        link = Link(
            LinkConfig(broker_url.parse(url), client_id=client_id, **config), on_message=inbox
        )
        links.append(link)
        link.start(timeout_s=TIMEOUT_S)
        return link

    yield make
    for link in links:
        link.stop()


def test_a_message_arrives_with_its_properties(any_broker: Any, connect: Any) -> None:
    inbox = Inbox()
    link = connect(any_broker.url, "one", inbox)
    link.subscribe(["a/#"], identifier=7).wait(TIMEOUT_S)
    link.publish("a/b", b"x", response_topic="back", correlation=b"42").wait(TIMEOUT_S)
    (message,) = inbox.wait(1)
    assert (message.topic, message.payload) == ("a/b", b"x")
    assert (message.response_topic, message.correlation) == ("back", b"42")
    assert message.subscriptions == (7,)


def test_a_right_that_is_denied_is_said_and_not_swallowed(
    start_broker: Callable[..., Any], connect: Any
) -> None:
    broker = start_broker(
        users={"me": User(password="pw", rights=(Right("mine/#", read=True, write=True),))}
    )
    url = broker.url.replace("://", "://me:pw@")
    link = connect(url, "one")
    link.publish("mine/x", b"1").wait(TIMEOUT_S)
    with pytest.raises(PeerFault, match="refused a message on theirs/x"):
        link.publish("theirs/x", b"1").wait(TIMEOUT_S)


def test_a_wrong_password_is_said(start_broker: Callable[..., Any], connect: Any) -> None:
    broker = start_broker(users={"me": User(password="pw", rights=())})
    with pytest.raises(PeerFault, match=r"(?i)not authori[sz]ed|bad user"):
        connect(broker.url.replace("://", "://me:wrong@"), "one")


def test_no_broker_is_said_within_the_time_limit() -> None:
    link = Link(LinkConfig(broker_url.parse("mqtt://127.0.0.1:1"), client_id="one"))
    with pytest.raises(PeerFault, match=r"no connection to mqtt://127\.0\.0\.1:1 within 1 s"):
        link.start(timeout_s=1)


def test_what_was_published_while_the_broker_was_away_arrives_when_it_is_back(
    any_broker: Any, connect: Any
) -> None:
    inbox = Inbox()
    lost, back = threading.Event(), threading.Event()
    link = Link(
        LinkConfig(
            broker_url.parse(any_broker.url),
            client_id="one",
            session_expiry_s=300,
            reconnect_min_s=1,
            reconnect_max_s=1,
        ),
        on_message=inbox,
        on_up=lambda kept: back.set() if lost.is_set() else None,
        on_down=lambda reason: lost.set(),
    )
    link.start(timeout_s=TIMEOUT_S)
    link.subscribe(["a"]).wait(TIMEOUT_S)
    any_broker.stop()
    assert lost.wait(TIMEOUT_S)
    assert not link.up
    ticket = link.publish("a", b"while away")
    assert not ticket.done
    any_broker.start()
    assert back.wait(TIMEOUT_S)
    link.subscribe(["a"]).wait(TIMEOUT_S)
    ticket.wait(TIMEOUT_S)
    assert [m.payload for m in inbox.wait(1)] == [b"while away"]
    link.stop()


def test_a_packet_larger_than_asked_for_never_arrives(any_broker: Any, connect: Any) -> None:
    inbox = Inbox()
    small = connect(any_broker.url, "small", inbox, packet_max_bytes=1000)
    small.subscribe(["a"]).wait(TIMEOUT_S)
    large = connect(any_broker.url, "large")
    large.publish("a", bytes(5000)).wait(TIMEOUT_S)
    large.publish("a", b"small enough").wait(TIMEOUT_S)
    assert [m.payload for m in inbox.wait(1)] == [b"small enough"]
    assert small.up


def test_with_manual_acknowledgement_an_unacknowledged_message_comes_again(
    any_broker: Any, connect: Any
) -> None:
    first, second = Inbox(), Inbox()
    keep = {"session_expiry_s": 300, "manual_ack": True}
    link = connect(any_broker.url, "one", first, **keep)
    link.subscribe(["a"]).wait(TIMEOUT_S)
    sender = connect(any_broker.url, "two")
    for payload in (b"kept", b"lost"):
        sender.publish("a", payload).wait(TIMEOUT_S)
    link.acknowledge(first.wait(2)[:1])
    link.stop()
    connect(any_broker.url, "one", second, **keep)
    assert [m.payload for m in second.wait(1)] == [b"lost"]


def test_a_ticket_calls_back_when_the_broker_answered(any_broker: Any, connect: Any) -> None:
    link = connect(any_broker.url, "one")
    called = threading.Event()
    link.publish("a", b"x").then(lambda accepted: called.set() if accepted else None)
    assert called.wait(TIMEOUT_S)


def test_closing_settles_what_is_still_under_way() -> None:
    link = Link(LinkConfig(broker_url.parse("mqtt://127.0.0.1:1"), client_id="one"))
    link.start()
    ticket = link.publish("a", b"x")
    link.stop()
    with pytest.raises(PeerFault, match="closed"):
        ticket.wait(1)


def test_off_line_a_message_of_qos_0_is_lost_and_one_of_qos_1_is_kept() -> None:
    link = Link(LinkConfig(broker_url.parse("mqtt://127.0.0.1:1"), client_id="one"))
    with pytest.raises(PeerFault, match="not currently connected"):
        link.publish("a", b"x", qos=0).wait(0)
    assert not link.publish("a", b"x", qos=1).done


def test_what_the_connection_took_with_it_is_settled(stalling_broker: Any) -> None:
    back = threading.Event()
    link = Link(
        LinkConfig(broker_url.parse(stalling_broker.url), client_id="one", reconnect_max_s=1),
        on_up=lambda _: back.set() if stalling_broker.drop.is_set() else None,
    )
    link.start(timeout_s=TIMEOUT_S)
    kept = link.publish("a", b"x", qos=1)
    tickets = [link.publish("a", bytes(60_000), qos=0) for _ in range(300)]
    assert not tickets[-1].done, "18 MB are more than the sockets hold"
    stalling_broker.drop.set()
    with pytest.raises(PeerFault, match="the connection was lost"):
        tickets[-1].wait(TIMEOUT_S)
    assert all(ticket.done for ticket in tickets)
    assert not kept.done
    assert back.wait(TIMEOUT_S)
    link.publish("a", b"x", qos=0).wait(TIMEOUT_S)
    link.stop()


def test_why_there_is_no_connection_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def end_the_first() -> None:
            server.accept()[0].close()

        ends = threading.Thread(target=end_the_first, daemon=True)
        ends.start()
        for url, cause in (
            ("mqtt://127.0.0.1:1", "Connection refused"),
            (f"mqtt://127.0.0.1:{port}", "one side may expect TLS"),
        ):
            link = Link(LinkConfig(broker_url.parse(url), client_id="one"))
            with pytest.raises(PeerFault, match=f"within 5 s: .*{cause}"):
                link.start(timeout_s=5)
        ends.join(TIMEOUT_S)


def test_a_certificate_that_is_not_trusted_is_said(tmp_path: Path) -> None:
    ca, ca_key, key = tmp_path / "ca.pem", tmp_path / "ca.key", tmp_path / "server.key"
    certificates.make_authority(ca, ca_key, "nobody")
    request = certificates.make_request(key)
    (tmp_path / "server.pem").write_text(
        certificates.issue(ca, ca_key, request, "broker", hosts=("127.0.0.1",))
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem", key)

    def answer(server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the end of the listening socket
            while True:
                connection = server.accept()[0]  # each try is answered, however many there are
                with contextlib.suppress(OSError), connection:
                    context.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        url = broker_url.parse(f"mqtts://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(PeerFault, match="certificate is not trusted"):
            Link(LinkConfig(url, client_id="one")).start(timeout_s=5)


def test_files_that_are_no_use_for_tls_are_named(tmp_path: Path) -> None:
    url = broker_url.parse("mqtts://localhost")
    (tmp_path / "text.pem").write_text("no certificate")
    for config in (
        LinkConfig(url, client_id="one", ca_file=str(tmp_path / "gone.pem")),
        LinkConfig(url, client_id="one", ca_file=str(tmp_path / "text.pem")),
        LinkConfig(url, client_id="one", cert_file=str(tmp_path / "text.pem")),
    ):
        with pytest.raises(InputFault, match=r"cannot use .*(gone|text)\.pem"):
            Link(config)
