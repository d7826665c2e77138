"""One network connection: its CONNECT, its silence and its end (MQTT 5.0 §3.1, §3.14, §4.13).

Guards: nothing before CONNECT and not too late, keep-alive (§3.1.2.10), one goodbye. A fault of the
peer ends this connection and touches no other. What a connected client says is for `dialogue`.
"""

import logging
import uuid
from typing import Protocol

from edge_fleet.broker import encode
from edge_fleet.broker.access import Access
from edge_fleet.broker.decode import decode
from edge_fleet.broker.dialogue import Dialogue
from edge_fleet.broker.engine import Engine
from edge_fleet.broker.errors import ProtocolError, UnsupportedVersion, violation
from edge_fleet.broker.framing import Framer
from edge_fleet.broker.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
)
from edge_fleet.broker.properties import Properties
from edge_fleet.broker.reasons import ReasonCode
from edge_fleet.broker.session import Timer

_log = logging.getLogger(__name__)
_FAILURE = 0x80  # reason codes from here on say no (§2.4)


class Link(Protocol):
    """The socket under a connection."""

    @property
    def ready(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class Connection:
    """A peer from its first byte to its last."""

    def __init__(self, engine: Engine, access: Access, link: Link, crowded: bool) -> None:
        self.client_id = ""
        self._engine = engine
        self._config = engine.config
        self._access = access
        self._link = link
        self._crowded = crowded  # over the limit of connections: hears so after its CONNECT
        self._framer = Framer(self._config.max_packet_bytes)
        self._dialogue: Dialogue | None = None
        self._max_packet_bytes = 0
        self._open = True
        self._heard_at = engine.clock.now()
        self._silence_s = 0.0
        self._timer: Timer = engine.clock.later(self._config.connect_timeout_s, self._no_connect)

    # What the shell tells ------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Bytes have come."""
        self._heard_at = self._engine.clock.now()
        try:
            for first, body in self._framer.feed(data):
                if not self._open:
                    return
                if self._dialogue is not None:
                    self._dialogue.hear(decode(first, body))
                elif first == 0x10:
                    self._on_connect(decode(first, body))
                else:
                    raise violation("the first packet is no CONNECT")
        except ProtocolError as error:
            self._refuse(error)

    def lost(self) -> None:
        """The network connection is gone."""
        self._detach(with_will=True)

    def room(self) -> None:
        """The socket takes bytes again."""
        if self._dialogue is not None:
            self._engine.flush(self._dialogue.session)

    # What the engine asks (session.Peer) ---------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the socket takes more messages."""
        return self._link.ready

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._link.write(data)

    def close(self, reason: ReasonCode, text: str) -> None:
        """Say why, close, and leave the session (§3.14, §4.13)."""
        if not self._open:
            return
        _log.info("%s is disconnected: %s (0x%02x)", self.client_id or "a peer", text, reason)
        if self._dialogue is not None:
            packet = encode.encode(Disconnect(reason, Properties(reason_string=text)))
            if self._max_packet_bytes and len(packet) > self._max_packet_bytes:
                packet = encode.encode(Disconnect(reason))
            self._link.write(packet)
        self._detach(with_will=True)
        self._link.close()

    # CONNECT -------------------------------------------------------------------------------

    def _on_connect(self, connect: Packet) -> None:
        """§3.1.4."""
        if not isinstance(connect, Connect):
            raise violation("the first packet is no CONNECT")
        given = connect.properties
        if self._crowded:
            raise ProtocolError(ReasonCode.QUOTA_EXCEEDED, "too many connections")
        if given.auth_method is not None:
            raise ProtocolError(
                ReasonCode.BAD_AUTHENTICATION_METHOD, "this broker knows names and passwords only"
            )
        if not self._access.authenticate(connect.username, connect.password):
            raise ProtocolError(ReasonCode.BAD_USER_NAME_OR_PASSWORD, "bad user name or password")
        client_id = connect.client_id or f"auto-{uuid.uuid4().hex}"
        if not self._access.may_be(connect.username, client_id):
            raise ProtocolError(
                ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, f"{client_id} is another's client id"
            )
        rights = self._access.rights(connect.username, client_id)
        if connect.will is not None and rights and not rights.may_write(connect.will.topic):
            raise ProtocolError(
                ReasonCode.NOT_AUTHORIZED, f"no right to write the will {connect.will.topic}"
            )
        session, present = self._engine.attach(connect, client_id, self)
        self.client_id = client_id
        self._dialogue = Dialogue(self._engine, session, rights, self._link.write, self._leave)
        self._max_packet_bytes = given.maximum_packet_size or 0
        keep_alive_s, limited_s = connect.keep_alive, self._config.max_keep_alive_s
        if limited_s and not 0 < keep_alive_s <= limited_s:
            keep_alive_s = limited_s
        self._timer.cancel()
        self._silence_s = keep_alive_s * 1.5
        if keep_alive_s:
            self._timer = self._engine.clock.later(self._silence_s, self._check_alive)
        properties = Properties(
            receive_maximum=self._config.max_inflight,
            maximum_packet_size=self._config.max_packet_bytes,
            topic_alias_maximum=self._config.max_topic_aliases,
            assigned_client_id=None if connect.client_id else client_id,
            server_keep_alive=None if keep_alive_s == connect.keep_alive else keep_alive_s,
        )
        self._link.write(encode.encode(Connack(present, ReasonCode.SUCCESS, properties)))
        _log.info("%s is connected", client_id)
        self._engine.flush(session)

    def _refuse(self, error: ProtocolError) -> None:
        """The peer broke the protocol: say so where there is a way, and close (§4.13.1)."""
        counters = self._engine.counters
        if self._dialogue is not None:
            counters.protocol_errors += 1
            self.close(error.reason, str(error))
            return
        counters.refused += 1
        _log.info("a connection is refused: %s", error)
        if isinstance(error, UnsupportedVersion) and error.level in {3, 4}:
            self._link.write(b"\x20\x02\x00\x01")  # MQTT 3.1.1 §3.2.2.3: unacceptable version
        else:
            self._link.write(encode.encode(Connack(False, error.reason)))
        self._detach(with_will=False)
        self._link.close()

    def _no_connect(self) -> None:
        if self._dialogue is None and self._open:
            self._engine.counters.refused += 1
            _log.info("a peer sent no CONNECT within %s s", self._config.connect_timeout_s)
            self._detach(with_will=False)
            self._link.close()

    def _check_alive(self) -> None:
        """§3.1.2.10: silence of one and a half keep-alive times is the end."""
        if not self._open:
            return
        left_s = self._heard_at + self._silence_s - self._engine.clock.now()
        if left_s <= 0:
            self.close(ReasonCode.KEEP_ALIVE_TIMEOUT, f"silent for {self._silence_s} s")
        else:
            self._timer = self._engine.clock.later(left_s, self._check_alive)

    def _leave(self, with_will: bool) -> None:
        self._detach(with_will)
        self._link.close()

    def _detach(self, with_will: bool) -> None:
        if not self._open:
            return
        self._open = False
        self._timer.cancel()
        if self._dialogue is not None:
            self._engine.detach(self._dialogue.session, self, with_will)
