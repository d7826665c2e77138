"""The HTTP service on a socket: uvicorn in a thread, or as a command of its own.

Guards: without TLS it listens on the loopback only, unless told that something in front of it
encrypts. It ends within ``GRACE_S``, streams too.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from edge_contract.errors import InputFault, MachineFault
from edge_fleet.api.app import application
from edge_fleet.api.service import Service
from edge_fleet.options import now_ms
from edge_fleet.rollouts.publication import Channels
from edge_fleet.store.base import Store

GRACE_S = 5
CONNECTIONS_MAX = 1000
_BACKLOG = 256


@dataclass(frozen=True)
class Listen:
    """Where and how. ``port`` 0: a free one. ``insecure``: no TLS though not on the loopback."""

    host: str
    port: int
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False
    per_minute: float = 1200.0


def parse(text: str) -> tuple[str, int]:
    """``HOST:PORT``, ``[::1]:PORT``. Raises InputFault."""
    host, colon, port = text.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else -1
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and 0 <= number < 65536):
        raise InputFault(f"{text[:80]!r} is not HOST:PORT", advice="As 127.0.0.1:8090.")
    return host, number


@contextlib.contextmanager
def running(store: Store, listen: Listen, channels: Channels | None = None) -> Iterator[str]:
    """Serve within the ``with`` block, in a thread; the URL. Raises InputFault, MachineFault."""
    service = Service(
        store=store,
        clock_ms=now_ms,
        clock_s=time.monotonic,
        per_minute=listen.per_minute,
        tls=listen.cert_file is not None,
        channels=channels,
    )
    _check(listen)
    sock = _bound(listen)
    with sock:
        server = uvicorn.Server(_config(service, listen))
        thread = threading.Thread(target=server.run, args=([sock],), name="http")
        thread.start()
        try:
            scheme = "https" if service.tls else "http"
            host = f"[{listen.host}]" if ":" in listen.host else listen.host
            yield f"{scheme}://{host}:{sock.getsockname()[1]}"
        finally:
            service.stopping.set()
            server.should_exit = True
            thread.join()


def _config(service: Service, listen: Listen) -> uvicorn.Config:
    return uvicorn.Config(
        application(service),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whoever asks would choose the address that is limited
        lifespan="off",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=listen.cert_file,
        ssl_keyfile=listen.key_file,
    )


def _check(listen: Listen) -> None:
    if (listen.cert_file is None) != (listen.key_file is None):
        raise InputFault("a certificate and its key belong together")
    if listen.cert_file is None and not listen.insecure and not _loopback(listen.host):
        raise InputFault(
            f"{listen.host} can be reached from elsewhere, and tokens would travel in the clear",
            advice="Give a certificate and its key, or --http-insecure behind a proxy with TLS.",
        )
    if listen.cert_file is not None:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(listen.cert_file, listen.key_file)
        except OSError as error:  # SSLError is one
            raise InputFault(f"{listen.cert_file} or its key cannot be used: {error}") from error


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bound(listen: Listen) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        raise MachineFault(
            f"cannot listen on {listen.host}:{listen.port}: {error.strerror or error}"
        ) from error
    return sock
