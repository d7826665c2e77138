"""A broker in a thread of its own: for tests, the demo and `edge-fleet serve`."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from edge_fleet.broker.config import BrokerConfig
from edge_fleet.broker.engine import Counters
from edge_fleet.broker.errors import BrokerError
from edge_fleet.broker.server import Broker
from edge_fleet.broker.taps import Tap

_T = TypeVar("_T")
_TIMEOUT_S = 10.0


class BrokerThread:
    """`with BrokerThread() as broker: connect(broker.port)`. Every method may be called anywhere.

    `stop` and `kill`, then `start` again: the same port, and the state that `state_dir` kept.
    """

    def __init__(self, config: BrokerConfig | None = None, taps: Iterable[Tap] = ()) -> None:
        self._broker = Broker(config, taps)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._broker.port

    @property
    def url(self) -> str:
        """`mqtt://HOST:PORT`."""
        return self._broker.url

    @property
    def config(self) -> BrokerConfig:
        """The configuration with the port filled in."""
        return replace(self._broker.config, port=self.port)

    def start(self) -> None:
        """Listen. BrokerError as `Broker.start`."""
        if self._loop is not None:
            raise BrokerError("the broker is already running")
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_run, args=(loop,), name="edge-broker", daemon=True)
        thread.start()
        self._loop, self._thread = loop, thread
        try:
            self._await(self._broker.start())
        except BaseException:
            self._end()
            raise

    def stop(self) -> None:
        """Say goodbye, save, stop; nothing when it is not running."""
        self._finish(self._broker.stop)

    def kill(self) -> None:
        """Stop as a power cut does: no goodbye, nothing saved."""
        self._finish(self._broker.kill)

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # Operations for tests, as in `Broker` --------------------------------------------------

    def add_tap(self, tap: Tap) -> None:
        """Put a tap behind the others."""
        self._call(lambda: self._broker.taps.add(tap))

    def remove_tap(self, tap: Tap) -> None:
        """Take a tap out."""
        self._call(lambda: self._broker.taps.remove(tap))

    def clear_taps(self) -> None:
        """Take all taps out."""
        self._call(self._broker.taps.clear)

    def kick(self, client_id: str) -> bool:
        """Disconnect a client with reason 0x98; False when it is not connected."""
        return self._call(lambda: self._broker.kick(client_id))

    def drop(self, client_id: str) -> bool:
        """Cut the connection of a client without a word."""
        return self._call(lambda: self._broker.drop(client_id))

    def drop_all(self) -> int:
        """Cut every connection without a word; how many there were."""
        return self._call(self._broker.drop_all)

    def freeze(self, client_id: str) -> bool:
        """Make a client's connection half-open."""
        return self._call(lambda: self._broker.freeze(client_id))

    def thaw(self, client_id: str) -> bool:
        """Undo `freeze`."""
        return self._call(lambda: self._broker.thaw(client_id))

    def erase_retained(self, topic: str) -> bool:
        """Forget a retained message and tell nobody."""
        return self._call(lambda: self._broker.erase_retained(topic))

    def retained(self, topic_filter: str = "#") -> dict[str, bytes]:
        """The retained messages whose topics match: topic to payload."""
        return self._call(lambda: self._broker.retained(topic_filter))

    def publish(
        self, topic: str, payload: bytes = b"", *, qos: int = 1, retain: bool = False
    ) -> None:
        """A message from nobody: past users and rights, through the taps."""
        self._call(lambda: self._broker.publish(topic, payload, qos=qos, retain=retain))

    def connected(self) -> set[str]:
        """The ids of the clients that are connected."""
        return self._call(self._broker.connected)

    def sessions(self) -> dict[str, int]:
        """Every session, connected or not, and how many messages wait in it."""
        return self._call(self._broker.sessions)

    def counters(self) -> Counters:
        """What has happened since the start."""
        return self._call(self._broker.counters)

    # ---------------------------------------------------------------------------------------

    def _call(self, function: Callable[[], _T]) -> _T:
        """The function's result, computed in the broker's loop."""

        async def inside() -> _T:
            return function()

        return self._await(inside())

    def _await(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            coroutine.close()
            raise BrokerError("the broker is not running")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(_TIMEOUT_S)

    def _finish(self, how: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._loop is None:
            return
        try:
            self._await(how())
        finally:
            self._end()

    def _end(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_TIMEOUT_S)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
