"""One HTTP(S) connection to a server that may do anything. GET of byte ranges, and nothing else.

Guards: every wait has an end, by a watch beside the socket: a server that sends a byte now and
then is cut off as one that sends nothing; no more is read than was asked for; a redirection leads
to no other protocol and from TLS never back; headers are bounded by ``http.client``.

``http.client`` and not urllib3, since its time-outs are for one ``recv`` each: a header or a body
that trickles has no end under them, and the socket cannot be reached from outside to end it.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from edge_contract.errors import EdgeError, PeerFault

CONNECT_TIMEOUT_S = 10.0
PATIENCE_S = 120.0
"""An answer's headers, and each chunk of its body, come within this time: 1 KB/s."""
REDIRECTIONS_MAX = 5
_POLL_S = 0.25
_REDIRECTIONS = {301, 302, 303, 307, 308}
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "edge-agent"}


@dataclass(frozen=True)
class Answer:
    """An answer's status and headers; the body is read with ``Connection.read``."""

    status: int
    headers: http.client.HTTPMessage
    url: str


class Connection:
    """Keeps one connection to one server, until ``end``.

    Args:
        check_stop: asked four times a second while waiting; what it raises ends the wait.
        ca_file: authority of an https server; the system's when "".
        patience_s: for headers, and for each ``read``.
    """

    def __init__(
        self,
        check_stop: Callable[[], None],
        *,
        ca_file: str = "",
        patience_s: float = PATIENCE_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._ca_file = ca_file
        self._connect_timeout_s = connect_timeout_s
        self._watch = _Watch(check_stop, patience_s)
        self._origin: tuple[str, str] = ("", "")
        self._http: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None

    def get(self, url: str, start: int, size: int, file_size: int) -> Answer:
        """Ask for bytes ``start`` to ``start + size`` of a file of ``file_size`` bytes.

        Raises PeerFault when there is no answer, or a redirection that is not followed.
        """
        headers = dict(_HEADERS)
        if size != file_size:
            headers["Range"] = f"bytes={start}-{start + size - 1}"
        for _ in range(REDIRECTIONS_MAX + 1):
            response = self._ask(url, headers)
            if response.status not in _REDIRECTIONS:
                return Answer(response.status, response.headers, url)
            url = _redirected(url, response.headers.get("Location", ""))
            self.close()
        raise PeerFault(f"{_origin(url)} redirects more than {REDIRECTIONS_MAX} times")

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes of the body, fewer where it ends. Raises PeerFault."""
        assert self._response is not None
        with self._watch.waiting(), _faults(self._origin):
            return self._response.read(size)

    def done(self) -> None:
        """The body is read as far as it is wanted: the connection is kept if that was all."""
        if self._response is not None and not self._response.isclosed():
            self.close()

    def end(self) -> None:
        """End the connection, and the watch over it."""
        self.close()
        self._watch.end()

    def close(self) -> None:
        """End the connection; the next ``get`` makes another."""
        if self._http is not None:
            self._http.close()
        self._http = self._response = None

    # -- shell -----------------------------------------------------------------------------

    def _ask(self, url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        reused = self._http is not None and self._origin == (parts.scheme, parts.netloc)
        try:
            return self._send(parts, headers)
        except PeerFault:
            if not reused:
                raise
        return self._send(parts, headers)  # a server may end a connection that rests

    def _send(self, parts: SplitResult, headers: dict[str, str]) -> http.client.HTTPResponse:
        origin = (parts.scheme, parts.netloc)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            with self._watch.waiting(), _faults(origin):
                # A server that said `Connection: close` has been taken at its word.
                if self._http is None or self._http.sock is None or self._origin != origin:
                    self.close()
                    self._http, self._origin = self._connect(parts), origin
                self._http.request("GET", path, headers=headers)
                self._response = self._http.getresponse()
                return self._response
        except BaseException:
            self.close()
            raise

    def _connect(self, parts: SplitResult) -> http.client.HTTPConnection:
        """Connected by hand, so that the watch has the socket before TLS begins."""
        host, tls = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        where = f"{parts.scheme}://{parts.netloc}"
        connection = socket.create_connection((host, port), self._connect_timeout_s)
        try:
            connection.settimeout(None)  # from here on the watch ends every wait
            self._watch.over(connection, where)
            if tls:
                context = ssl.create_default_context(cafile=self._ca_file or None)
                connection = context.wrap_socket(
                    connection, server_hostname=host, do_handshake_on_connect=False
                )
                self._watch.over(connection, where)
                connection.do_handshake()
        except BaseException:
            connection.close()
            raise
        made = http.client.HTTPConnection(host, port)
        made.auto_open = 0  # it would know nothing of TLS
        made.sock = connection
        return made


class _Watch:
    """Shuts a socket down when a wait takes too long or is called off.

    A thread of its own: what blocks in ``recv`` cannot look at the clock.
    """

    def __init__(self, check_stop: Callable[[], None], patience_s: float) -> None:
        self._check_stop = check_stop
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._until: float | None = None
        self._late = False
        self.where = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edge-http-watch", daemon=True)
        self._thread.start()

    def over(self, connection: socket.socket, where: str) -> None:
        """Watch this socket from now on; ``where`` it leads to, for messages."""
        with self._lock:
            self._socket, self.where = connection, where

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a wait. Raises PeerFault when it took too long, and what ``check_stop`` does."""
        self._check_stop()
        with self._lock:
            self._until, self._late = time.monotonic() + self._patience_s, False
        fault: PeerFault | None = None
        try:
            yield
        except PeerFault as error:
            fault = error
        finally:
            with self._lock:
                self._until = None
        self._check_stop()
        if self._late:
            raise PeerFault(
                f"{self.where}: cut off after {self._patience_s:g} s",
                advice="The server or the link to it is too slow.",
            ) from fault
        if fault is not None:
            raise fault

    def end(self) -> None:
        """Watch no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_POLL_S):
            with self._lock:
                if self._until is None or self._socket is None:
                    continue
                self._late = self._late or time.monotonic() > self._until
                if self._late or self._stopped():
                    with contextlib.suppress(OSError):
                        # Below TLS, which is not made to be closed by another thread.
                        socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _stopped(self) -> bool:
        try:
            self._check_stop()
        except EdgeError:  # the waiting thread gets to see it
            return True
        return False


@contextlib.contextmanager
def _faults(origin: tuple[str, str]) -> Iterator[None]:
    """What goes wrong between here and the server, as a PeerFault."""
    where = "://".join(origin)
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PeerFault(f"{where}: {said}") from error


def _redirected(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not location or not sound:
        raise PeerFault(f"{_origin(url)} redirects to no address: {location[:80]!r}")
    if url.startswith("https:") and parts.scheme != "https":
        raise PeerFault(f"{_origin(url)} redirects from TLS to {_origin(target)}, without it")
    return target


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
