"""The asyncio shell of the broker: listening, time, the state file. No rule lives here."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from edge_fleet.broker.config import BrokerConfig
from edge_fleet.broker.engine import Counters, Engine
from edge_fleet.broker.errors import BrokerError
from edge_fleet.broker.files import access_of
from edge_fleet.broker.message import Message
from edge_fleet.broker.persistence import StateFiles
from edge_fleet.broker.reasons import ReasonCode
from edge_fleet.broker.sockets import Socket
from edge_fleet.broker.taps import Tap, TapChain

_log = logging.getLogger(__name__)
_GOODBYE_S = 1.0  # how long a stop waits for clients to take their DISCONNECT


class _LoopClock:
    """Time and timers of the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time

    def later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(delay_s, callback)


class Broker:
    """An MQTT 5 broker on the loopback: `async with Broker(config) as broker: ...`.

    May be started again after a stop, on the same port; what it then knows is what its
    `state_dir` kept. The operations below `url` are for tests, and must be called in its loop.
    """

    def __init__(self, config: BrokerConfig | None = None, taps: Iterable[Tap] = ()) -> None:
        self.config = config or BrokerConfig()
        self.taps = TapChain(taps)
        self._port = self.config.port
        self._server: asyncio.Server | None = None
        self._engine: Engine | None = None
        self._sockets: set[Socket] = set()
        self._state = StateFiles(self.config.state_dir) if self.config.state_dir else None
        self._saving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port: the configured one, or once started the one that was free."""
        return self._port

    @property
    def url(self) -> str:
        """`mqtt://HOST:PORT`."""
        host = self.config.address
        return f"mqtt://[{host}]:{self.port}" if ":" in host else f"mqtt://{host}:{self.port}"

    async def start(self) -> None:
        """Read the state, listen. BrokerError when the port is taken or the state unreadable."""
        if self._server is not None:
            raise BrokerError("the broker is already running")
        engine = Engine(self.config, _LoopClock(), self.taps)
        if self._state is not None:
            self._state.load(engine)
        config = self.config
        access = access_of(config.users, config.allow_anonymous, config.accounts)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Socket(engine, access, self._sockets, self._save_now),
                self.config.address,
                self._port,
                backlog=1024,
            )
        except OSError as error:
            raise BrokerError(
                f"cannot listen on {self.config.address}:{self._port}: {error.strerror};"
                " stop the other broker or choose another port"
            ) from error
        self._port = self._server.sockets[0].getsockname()[1]
        self._engine = engine
        if self._state is not None and self.config.save_interval_s > 0:
            self._saving = loop.create_task(self._save_often())
        _log.info("listening on %s", self.url)

    async def stop(self) -> None:
        """Say goodbye to the clients, save the state, stop listening."""
        if self._server is None:
            return
        engine = self._engine_or_raise()
        self._server.close()
        await self._stop_saving()
        if self._state is not None:
            self._state.save(engine)  # before wills and ends of sessions: clients will come back
        engine.silence()
        for socket in list(self._sockets):
            socket.connection.close(ReasonCode.SERVER_SHUTTING_DOWN, "the broker stops")
        try:
            async with asyncio.timeout(_GOODBYE_S):
                while any(not socket.frozen for socket in self._sockets):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            _log.info("%d clients did not take their DISCONNECT", len(self._sockets))
        await self._leave()

    async def kill(self) -> None:
        """Stop as a power cut does: no goodbye, nothing saved."""
        if self._server is None:
            return
        self._server.close()
        await self._stop_saving()
        await self._leave()

    async def _leave(self) -> None:
        engine = self._engine_or_raise()
        engine.silence()
        self._engine = None
        for socket in list(self._sockets):
            socket.abort()
        self.taps.forget()
        if self._server is not None:
            await self._server.wait_closed()
        while self._sockets:
            await asyncio.sleep(0)
        self._server = None
        _log.info("stopped")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # Operations for tests ------------------------------------------------------------------

    def kick(self, client_id: str) -> bool:
        """Disconnect a client with reason 0x98; False when it is not connected."""
        socket = self._socket(client_id)
        if socket is not None:
            socket.connection.close(ReasonCode.ADMINISTRATIVE_ACTION, "kicked")
        return socket is not None

    def drop(self, client_id: str) -> bool:
        """Cut the connection of a client without a word; False when it is not connected."""
        socket = self._socket(client_id)
        if socket is not None:
            socket.abort()
        return socket is not None

    def drop_all(self) -> int:
        """Cut every connection without a word; how many there were."""
        sockets = list(self._sockets)
        for socket in sockets:
            socket.abort()
        return len(sockets)

    def freeze(self, client_id: str) -> bool:
        """Stop reading from and writing to a client without closing: a half-open connection."""
        socket = self._socket(client_id)
        if socket is not None:
            socket.freeze()
        return socket is not None

    def thaw(self, client_id: str) -> bool:
        """Undo `freeze`; a connection that was given up meanwhile is cut now."""
        frozen = [s for s in self._sockets if s.frozen and s.connection.client_id == client_id]
        for socket in frozen:
            socket.thaw()
        return bool(frozen)

    def erase_retained(self, topic: str) -> bool:
        """Forget a retained message and tell nobody; False when there was none."""
        engine = self._engine_or_raise()
        engine.retained_changed = True
        return engine.retained.erase(topic)

    def retained(self, topic_filter: str = "#") -> dict[str, bytes]:
        """The retained messages whose topics match: topic to payload."""
        engine = self._engine_or_raise()
        found = engine.retained.matching(topic_filter, engine.clock.now())
        return {message.topic: message.payload for message in found}

    def publish(
        self, topic: str, payload: bytes = b"", *, qos: int = 1, retain: bool = False
    ) -> None:
        """A message from nobody: past users and rights, through the taps."""
        engine = self._engine_or_raise()
        engine.publish(Message(topic, payload, qos, retain))

    def connected(self) -> set[str]:
        """The ids of the clients that are connected."""
        engine = self._engine_or_raise()
        return {session.client_id for session in engine.sessions.values() if session.peer}

    def sessions(self) -> dict[str, int]:
        """Every session, connected or not, and how many messages wait in it."""
        engine = self._engine_or_raise()
        return {client_id: len(session.outbox) for client_id, session in engine.sessions.items()}

    def counters(self) -> Counters:
        """What has happened since the start; dropped messages include those of live sessions."""
        engine = self._engine_or_raise()
        counted = engine.counters
        dropped = sum(session.outbox.dropped for session in engine.sessions.values())
        return Counters(**{**vars(counted), "dropped": counted.dropped + dropped})

    # ---------------------------------------------------------------------------------------

    def _socket(self, client_id: str) -> Socket | None:
        """The socket of the client's present connection."""
        session = self._engine_or_raise().sessions.get(client_id)
        peer = session.peer if session else None
        return next((s for s in self._sockets if s.connection is peer), None)

    def _engine_or_raise(self) -> Engine:
        if self._engine is None:
            raise BrokerError("the broker is not running")
        return self._engine

    def _save_now(self) -> None:
        """Before answers leave, when the owner wants every change on disk first."""
        if self._state is not None and self._engine is not None and not self.config.save_interval_s:
            self._state.save(self._engine)

    async def _save_often(self) -> None:
        while True:
            await asyncio.sleep(self.config.save_interval_s)
            if self._state is not None and self._engine is not None:
                await self._state.save_aside(self._engine)

    async def _stop_saving(self) -> None:
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)
            self._saving = None
