"""One HTTP POST to a server that may do anything.

Guards: every wait has one end, for the whole exchange and not for each ``recv``, so a server that
sends a byte now and then holds nobody; no redirection is followed; of the answer no more is read
than is shown; no password stands in a URL or in a message.

``http.client`` and not urllib3: its socket can be reached from outside to end a wait.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from edge_contract.errors import InputFault, PeerFault

SHOWN_BYTES = 500
_POLL_S = 0.1


@dataclass(frozen=True)
class Answer:
    """An answer's status, its Retry-After header, and how its body begins."""

    status: int
    retry_after: str
    text: str


def post(
    url: str, body: bytes, headers: dict[str, str], *, timeout_s: float, stop: threading.Event,
    ca_file: str = "",
) -> Answer:  # fmt: skip
    """Send ``body`` as JSON.

    Args:
        timeout_s: for everything from the first packet to the end of what is read.
        stop: ends the wait when set.

    Raises:
        InputFault: the URL or the authority cannot be used.
        PeerFault: there is no answer in time.
    """
    parts = checked(url)
    context = _context(ca_file) if parts.scheme == "https" else None
    where = f"{parts.scheme}://{parts.hostname}:{_port(parts)}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {"Content-Type": "application/json", "User-Agent": "edge-fleet", **headers}
    watch = _Watch(time.monotonic() + timeout_s, stop)
    try:
        with watch, _connected(parts, timeout_s, context, watch) as connection:
            connection.request("POST", path, body=body, headers={**sent, "Connection": "close"})
            response = connection.getresponse()
            text = response.read(SHOWN_BYTES).decode(errors="replace")
            return Answer(response.status, response.headers.get("Retry-After", ""), text)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if watch.cut:
            raise PeerFault(f"{where} did not answer within {timeout_s:g} s") from error
        raise PeerFault(f"{where}: {error or type(error).__name__}") from error


def checked(url: str) -> SplitResult:
    """The parts of a URL. Raises InputFault when it is none that may be used."""
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and parts.hostname and _port(parts)
    except ValueError as error:
        raise InputFault(f"{url[:100]!r} is no URL: {error}") from error
    if not named:
        raise InputFault(f"{url[:100]!r} is no http:// or https:// URL")
    if parts.username or parts.password:
        raise InputFault(
            "a URL with a user or a password ends up in logs", advice="Use secret_file."
        )
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise InputFault(f"ca_file {ca_file}: {error}") from error


@contextlib.contextmanager
def _connected(
    parts: SplitResult, timeout_s: float, context: ssl.SSLContext | None, watch: _Watch
) -> Iterator[http.client.HTTPConnection]:
    """Connected by hand, so that the watch has the socket before TLS begins."""
    host = parts.hostname or ""
    with contextlib.ExitStack() as stack:
        raw = socket.create_connection((host, _port(parts)), timeout_s)
        stack.callback(raw.close)
        raw.settimeout(None)  # from here on the watch ends every wait
        watch.over(raw)
        if context is not None:
            raw = context.wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)
            stack.callback(raw.close)
            watch.over(raw)
            raw.do_handshake()
        connection = http.client.HTTPConnection(host, _port(parts))
        connection.auto_open = 0
        connection.sock = raw
        yield connection


class _Watch:
    """Shuts a socket down at a deadline, or when told to stop; a thread of its own."""

    def __init__(self, until_s: float, stop: threading.Event) -> None:
        self._until_s, self._stop = until_s, stop
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.cut = False
        self._thread = threading.Thread(target=self._run, name="edge-post-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def over(self, connection: socket.socket) -> None:
        """Watch this socket from now on."""
        with self._lock:
            self._socket = connection
            if self.cut:
                self._end()

    def _run(self) -> None:
        while not self._over.wait(_POLL_S):
            if self._stop.is_set() or time.monotonic() >= self._until_s:
                with self._lock:
                    self.cut = True
                    self._end()
                return

    def _end(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
