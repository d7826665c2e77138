"""The listeners: TCP and a Unix socket in one event loop, in a thread of its own.

Guards: nothing listens beyond the loopback without TLS or a word that says so; a stop answers
what is under way and takes nothing new; a socket file that is in use is never taken away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.doors.http.api import Api, Config, TakeLabels
from edge_agent.doors.http.connections import Connections
from edge_agent.doors.http.exchange import Limits
from edge_agent.doors.http.metrics import Family
from edge_agent.live import Live
from edge_agent.overload import Rules
from edge_contract.errors import MachineFault

log = logging.getLogger(__name__)

SWEEP_S = 0.5
STOP_S = 5.0
SOCKET_MODE = 0o660


@dataclass(frozen=True)
class HttpConfig:
    """Where to listen, and whom to answer.

    Attributes:
        host, port: of the TCP listener; no host: none. Port 0: any free one.
        socket: path of the Unix socket, None for none. Its file's mode says who may ask.
        token: that TCP clients have to bring, "" for none.
        cert_file, key_file: TLS on the TCP listener.
        threads: for models that take long. rules: for what waits for them.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    socket: Path | None = None
    token: str = ""
    cert_file: str = ""
    key_file: str = ""
    threads: int = 1
    limits: Limits = field(default_factory=Limits)
    rules: Rules = field(default_factory=Rules)


class HttpDoor:
    """Answers until ``stop``.

    Args:
        models: the live models by name; looked up anew at each request.
        families: further figures for ``/metrics``. labels: takes labels, see ``Api``.

    Raises MachineFault when a listener cannot be opened.
    """

    def __init__(
        self,
        config: HttpConfig,
        models: Mapping[str, Live],
        *,
        version: str,
        families: Callable[[], list[Family]] = list,
        labels: TakeLabels | None = None,
    ) -> None:
        self.config = config
        about = Config(version, config.token, config.threads, config.rules)
        self._api = Api(about, models, families, labels)
        self._connections = Connections(
            config.limits, self._api.handle, self._api.refusal, self._api.lane_of
        )
        self._loop = _new_loop()
        self._stopping = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self.port = 0
        try:
            self._loop.run_until_complete(self._listen())
        except BaseException:
            self._loop.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="http-door", daemon=True)
        self._thread.start()

    @property
    def connections(self) -> int:
        """That are open now."""
        return len(self._connections.all)

    @property
    def held_bytes(self) -> int:
        """Of requests that arrive, wait, or are being answered."""
        return self._connections.held_bytes

    def stop(self, timeout_s: float = STOP_S) -> None:
        """Answer what is under way, close every connection, end the thread."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout_s)

    # -- the loop ----------------------------------------------------------------------------

    async def _listen(self) -> None:
        config, loop = self.config, asyncio.get_running_loop()
        if config.host:
            made = await self._opened(
                f"{config.host}:{config.port}",
                loop.create_server(
                    lambda: self._connections.make(local=False),
                    config.host,
                    config.port,
                    ssl=_tls(config),
                    reuse_address=True,
                ),
            )
            self.port = made.sockets[0].getsockname()[1]
        if config.socket is not None:
            _check_socket(config.socket)
            make = lambda: self._connections.make(local=True)  # noqa: E731 - a factory
            await self._opened(
                str(config.socket), loop.create_unix_server(make, str(config.socket))
            )
            config.socket.chmod(SOCKET_MODE)

    async def _opened(self, where: str, opening: Any) -> asyncio.Server:
        try:
            server: asyncio.Server = await opening
        except OSError as error:
            for other in self._servers:
                other.close()
            raise MachineFault(
                f"cannot listen on {where}: {os.strerror(error.errno or 0) or error}",
                advice="Name another address in [http] of agent.toml, or end what uses this one.",
            ) from error
        self._servers.append(server)
        log.info("HTTP on %s", where)
        return server

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._until_stopped())
        finally:
            self._loop.close()

    async def _until_stopped(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), SWEEP_S)
            self._connections.sweep(loop.time())
        for server in self._servers:
            server.close()
        self._connections.close()
        deadline = loop.time() + STOP_S / 2
        while self._connections.all and loop.time() < deadline:
            await asyncio.sleep(0.01)
        self._api.close()
        if self.config.socket is not None:
            self.config.socket.unlink(missing_ok=True)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - in the extra, where it exists
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _tls(config: HttpConfig) -> ssl.SSLContext | None:
    if not config.cert_file:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.cert_file, config.key_file or None)
    except OSError as error:  # ssl.SSLError is one
        raise MachineFault(
            f"cannot use the certificate {config.cert_file}: {error.strerror or error}"
        ) from error
    return context


def _check_socket(path: Path) -> None:
    """Remove a socket that nobody listens to; leave alone whatever else is there."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise MachineFault(f"{path} is there and is no socket", advice="Name another path.")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise MachineFault(f"another process listens on {path}")
