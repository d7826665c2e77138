"""Two clients for the tests of brokers.

`connect` makes clients on paho, the oracle. `dial` opens a socket for what paho would never send;
its few encoders know nothing of the code under test.
"""

import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

WAIT_S = 60.0


def poll(condition: Callable[[], Any], what: str, wait_s: float = WAIT_S) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + wait_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {wait_s} s: {what}"
        time.sleep(0.005)


def properties(kind: int, **values: Any) -> Properties | None:
    """Properties of paho by their paho names; a list of pairs for several user properties."""
    if not values:
        return None
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client:
    """A paho client that connects at once and can be asked what has come."""

    def __init__(
        self,
        port: int,
        client_id: str = "",
        *,
        clean: bool = True,
        keepalive: int = 60,
        will: tuple[str, bytes] | None = None,
        will_qos: int = 0,
        will_retain: bool = False,
        will_properties: dict[str, Any] | None = None,
        user: tuple[str, str] | None = None,
        manual_ack: bool = False,
        **connect_properties: Any,
    ) -> None:
        self.client_id = client_id
        self.messages: list[mqtt.MQTTMessage] = []
        self.connack: tuple[bool, int, Properties] | None = None
        self.disconnected: int | None = None
        self._answers: dict[int, list[int]] = {}
        self._changed = threading.Condition()
        self.paho = client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=manual_ack,
        )
        if will is not None:
            will_set = properties(PacketTypes.WILLMESSAGE, **(will_properties or {}))
            client.will_set(*will, qos=will_qos, retain=will_retain, properties=will_set)
        if user is not None:
            client.username_pw_set(*user)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_answers
        client.on_unsubscribe = self._on_answers
        client.on_publish = lambda _c, _u, mid, reason, _p: self._answer(mid, [reason.value])
        made = properties(PacketTypes.CONNECT, **connect_properties)
        client.connect("127.0.0.1", port, keepalive, clean_start=clean, properties=made)
        client.loop_start()
        self._wait(lambda: self.connack is not None, "CONNACK")

    @property
    def present(self) -> bool:
        """The session-present flag of CONNACK."""
        assert self.connack is not None
        return self.connack[0]

    @property
    def reason(self) -> int:
        """The reason code of CONNACK."""
        assert self.connack is not None
        return self.connack[1]

    @property
    def payloads(self) -> list[bytes]:
        """What has come so far."""
        return [message.payload for message in self.messages]

    def subscribe(
        self,
        topic: str,
        qos: int = 2,
        *,
        no_local: bool = False,
        as_published: bool = False,
        handling: int = 0,
        **values: Any,
    ) -> int:
        """The reason code of SUBACK."""
        options = SubscribeOptions(qos, no_local, as_published, handling)
        made = properties(PacketTypes.SUBSCRIBE, **values)
        _, mid = self.paho.subscribe(topic, options=options, properties=made)
        assert mid is not None
        return self._reasons(mid, f"SUBACK for {topic}")[0]

    def unsubscribe(self, topic: str) -> int:
        """The reason code of UNSUBACK."""
        _, mid = self.paho.unsubscribe(topic)
        assert mid is not None
        return self._reasons(mid, f"UNSUBACK for {topic}")[0]

    def publish(
        self, topic: str, payload: bytes = b"", qos: int = 1, retain: bool = False, **values: Any
    ) -> int:
        """The reason code of PUBACK or PUBREC; 0 for QoS 0."""
        made = properties(PacketTypes.PUBLISH, **values)
        info = self.paho.publish(topic, payload, qos, retain, made)
        return self._reasons(info.mid, f"acknowledgement of {topic}")[0]

    def expect(self, count: int, wait_s: float = WAIT_S) -> list[mqtt.MQTTMessage]:
        """The first `count` messages, when there are so many."""
        self._wait(lambda: len(self.messages) >= count, f"{count} messages", wait_s)
        return self.messages[:count]

    def settle(self) -> list[bytes]:
        """What has come when everything sent before this call has come."""
        mark = f"settled/{uuid.uuid4().hex}"
        self.subscribe(mark, 0)
        self.publish(mark, b"", 0)
        self._wait(lambda: any(m.topic == mark for m in self.messages), "its own message")
        self.unsubscribe(mark)
        self.messages = [m for m in self.messages if m.topic != mark]
        return self.payloads

    def ack(self, message: mqtt.MQTTMessage) -> None:
        """Acknowledge a message of a client with `manual_ack`."""
        self.paho.ack(message.mid, message.qos)

    def disconnect(self, reason: int = 0, **values: Any) -> None:
        """Say DISCONNECT."""
        code = mqtt.ReasonCode(PacketTypes.DISCONNECT, identifier=reason)
        self.paho.disconnect(code, properties(PacketTypes.DISCONNECT, **values))
        self.paho.loop_stop()

    def vanish(self) -> None:
        """Cut the connection without DISCONNECT."""
        if (sock := self.paho.socket()) is not None:
            sock.shutdown(socket.SHUT_RDWR)
        self.paho.loop_stop()

    def wait_disconnected(self, wait_s: float = WAIT_S) -> int:
        """The reason code with which the broker ended it."""
        self._wait(lambda: self.disconnected is not None, "the end of the connection", wait_s)
        assert self.disconnected is not None
        return self.disconnected

    def _wait(self, condition: Callable[[], bool], what: str, wait_s: float = WAIT_S) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, wait_s), f"not within {wait_s} s: {what}"

    def _reasons(self, mid: int, what: str) -> list[int]:
        self._wait(lambda: mid in self._answers or self.disconnected is not None, what)
        assert mid in self._answers, f"disconnected with {self.disconnected} before {what}"
        return self._answers.pop(mid)

    def _answer(self, mid: int, reasons: list[int]) -> None:
        with self._changed:
            self._answers[mid] = reasons
            self._changed.notify_all()

    def _on_answers(self, _c: Any, _u: Any, mid: int, reasons: Any, _p: Any) -> None:
        self._answer(mid, [reason.value for reason in reasons])

    def _on_connect(self, _c: Any, _u: Any, flags: Any, reason: Any, props: Any) -> None:
        with self._changed:
            self.connack = (flags.session_present, reason.value, props)
            self._changed.notify_all()

    def _on_disconnect(self, _c: Any, _u: Any, _flags: Any, reason: Any, _p: Any) -> None:
        with self._changed:
            self.disconnected = reason.value
            self._changed.notify_all()

    def _on_message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()


def varint(value: int) -> bytes:
    """§1.5.5."""
    out = b""
    while True:
        value, low = divmod(value, 128)
        out += bytes([low | (128 if value else 0)])
        if not value:
            return out


def text(value: str) -> bytes:
    """§1.5.4."""
    return struct.pack(">H", len(value.encode())) + value.encode()


class Raw:
    """A socket that sends what it is told and cuts what comes into packets."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), WAIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self._socket.sendall(data)

    def packet(self, first: int, body: bytes) -> None:
        """A packet with the right length."""
        self.send(bytes([first]) + varint(len(body)) + body)

    def connect(
        self,
        client_id: str = "raw",
        *,
        clean: bool = True,
        keep_alive: int = 0,
        props: bytes = b"",
    ) -> bytes:
        """CONNECT; the body of CONNACK."""
        head = text("MQTT") + bytes([5, 2 if clean else 0]) + struct.pack(">H", keep_alive)
        self.packet(0x10, head + varint(len(props)) + props + text(client_id))
        first, body = self.read()
        assert first == 0x20
        return body

    def publish(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        mid: int = 0,
        dup: bool = False,
        retain: bool = False,
        props: bytes = b"",
    ) -> None:
        """PUBLISH."""
        first = 0x30 | dup << 3 | qos << 1 | retain
        ident = struct.pack(">H", mid) if qos else b""
        self.packet(first, text(topic) + ident + varint(len(props)) + props + payload)

    def subscribe(self, topic: str, options: int = 0, mid: int = 1, props: bytes = b"") -> bytes:
        """SUBSCRIBE; the reason codes of SUBACK."""
        head = struct.pack(">H", mid) + varint(len(props)) + props
        self.packet(0x82, head + text(topic) + bytes([options]))
        first, body = self.read()
        assert first == 0x90, hex(first)
        return body[3:]

    def read(self, wait_s: float = WAIT_S) -> tuple[int, bytes]:
        """The next packet; EOFError when the connection has ended."""
        self._socket.settimeout(wait_s)
        while True:
            length = shift = 0
            for at, byte in enumerate(self._buffer[1:5], 1):
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    end = at + 1 + length
                    if len(self._buffer) >= end:
                        first, body = self._buffer[0], self._buffer[at + 1 : end]
                        self._buffer = self._buffer[end:]
                        return first, body
                    break
            try:
                more = self._socket.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                raise EOFError(self._buffer.hex())
            self._buffer += more

    def read_end(self) -> list[tuple[int, bytes]]:
        """All packets until the broker closes."""
        packets = []
        try:
            while True:
                packets.append(self.read())
        except EOFError:
            return packets

    def ping(self) -> list[tuple[int, bytes]]:
        """What comes before the answer to a PINGREQ."""
        self.send(b"\xc0\x00")
        packets = []
        while (packet := self.read())[0] != 0xD0:
            packets.append(packet)
        return packets

    def close(self) -> None:
        """Cut."""
        self._socket.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Connects paho clients: `connect(broker, "id", ...)`."""
    clients: list[Client] = []

    def make(broker: Any, client_id: str = "", **options: Any) -> Client:
        clients.append(Client(broker.port, client_id, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.paho.disconnect()
        client.paho.loop_stop()


@pytest.fixture
def dial() -> Iterator[Callable[[Any], Raw]]:
    """Opens raw sockets: `dial(broker)`."""
    sockets: list[Raw] = []

    def make(broker: Any) -> Raw:
        sockets.append(Raw(broker.port))
        return sockets[-1]

    yield make
    for sock in sockets:
        sock.close()


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """`poll`, for tests."""
    return poll
