"""A real mosquitto as a child process, for those who have one: faster than the embedded broker.

Same small interface as `BrokerThread`: `url`, `port`, `start`, `stop`, `kill`, context manager.
"""

import base64
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_fleet.broker import access
from edge_fleet.broker.access import User
from edge_fleet.broker.errors import BrokerConfigError, BrokerError

_START_S = 10.0
_STOP_S = 10.0
_HASH_ROUNDS = 101  # what mosquitto_passwd 2.0 writes


@dataclass(frozen=True)
class MosquittoConfig:
    """What a mosquitto is told. `port` 0 takes a free one; `directory` None a temporary one.

    `save_on_change` 1 saves at every change, which only tests want; mosquitto's default of 1,800 s
    lost retained messages in our trial, hence 60.
    """

    port: int = 0
    directory: Path | None = None
    users: Mapping[str, User] = field(default_factory=dict)
    allow_anonymous: bool = False  # beside users; without users everyone is welcome
    accounts: Path | None = None  # a folder of mosquitto's files `passwords` and `acl`, for users
    autosave_interval_s: int = 60
    save_on_change: bool = False
    max_queue_bytes: int = 64 * 1024 * 1024  # per session
    max_packet_bytes: int = 4 * 1024 * 1024
    extra: tuple[str, ...] = ()  # more lines for mosquitto.conf

    def __post_init__(self) -> None:
        faults = access.faults(self.users)
        faults += [
            f"users.{name}: {right.pattern!r}: mosquitto knows no %c in the rights of one user"
            for name, user in self.users.items()
            for right in user.rights
            if "%c" in right.pattern
        ]
        if faults:
            raise BrokerConfigError("the broker's configuration is wrong: " + "; ".join(faults))


def find_mosquitto() -> Path | None:
    """The mosquitto on PATH or in /usr/sbin, where Debian puts it; None without one."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


class MosquittoProcess:
    """`with MosquittoProcess() as broker: connect(broker.port)`; loopback only."""

    def __init__(self, config: MosquittoConfig | None = None) -> None:
        self.config = config or MosquittoConfig()
        self.port = self.config.port
        self._process: subprocess.Popen[bytes] | None = None
        self._own: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """`mqtt://127.0.0.1:PORT`."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it accepts. BrokerError without a mosquitto, or when it fails."""
        binary = find_mosquitto()
        if binary is None:
            raise BrokerError("there is no mosquitto on PATH; install it or use the embedded one")
        if self._process is not None:
            raise BrokerError("the broker is already running")
        directory = self._directory()
        self.port = self.port or _free_port()
        _must_be_free(self.port)
        config = directory / "mosquitto.conf"
        config.write_text("\n".join(self._lines(directory)) + "\n")
        with (directory / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (found by find_mosquitto)
                [binary, "-c", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait_until_accepting(directory)

    def stop(self) -> None:
        """Ask it to end; it saves its state."""
        self._end(kill=False)
        if self._own is not None:
            self._own.cleanup()
            self._own = None

    def kill(self) -> None:
        """SIGKILL: what it has not saved is lost. The directory stays for the next `start`."""
        self._end(kill=True)

    def restart(self) -> None:
        """Stop and start again on the same port and directory."""
        self._end(kill=False)
        self.start()

    def reload(self) -> None:
        """SIGHUP: read the accounts again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def watch(self, ended: Callable[[], object]) -> None:
        """Have ``ended`` called, in a thread, when it ends, asked or not."""
        process = self._process
        if process is None:
            raise BrokerError("the broker is not running")

        def wait() -> None:
            process.wait()
            ended()

        threading.Thread(target=wait, name="edge-mosquitto", daemon=True).start()

    def why_ended(self) -> str:
        """How it ended unasked; "" of one that runs, or was stopped."""
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return ""
        log = (self._directory() / "mosquitto.log").read_text(errors="replace")
        return f"mosquitto ended with {code}: {log[-500:].strip()}"

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

    @property
    def _open(self) -> bool:
        """Nobody said who may connect: everybody may."""
        return not self.config.users and self.config.accounts is None

    def _directory(self) -> Path:
        if self.config.directory is not None:
            self.config.directory.mkdir(parents=True, exist_ok=True)
            return self.config.directory
        if self._own is None:
            self._own = tempfile.TemporaryDirectory(prefix="edge-mosquitto-")
        return Path(self._own.name)

    def _lines(self, directory: Path) -> list[str]:
        config = self.config
        lines = [
            f"listener {self.port} 127.0.0.1",
            "persistence true",
            f"persistence_location {directory}/",
            f"autosave_interval {1 if config.save_on_change else config.autosave_interval_s}",
            f"autosave_on_changes {str(config.save_on_change).lower()}",
            "max_queued_messages 0",  # the default of 1,000 loses messages without a word
            f"max_queued_bytes {config.max_queue_bytes}",
            f"max_packet_size {config.max_packet_bytes}",
            f"allow_anonymous {str(config.allow_anonymous or self._open).lower()}",
            *config.extra,
        ]
        if os.getuid() == 0:
            lines.append("user root")  # else it becomes `mosquitto`, who may not write here
        if config.users:
            (directory / "passwords").touch(0o600)
            (directory / "passwords").write_text(_passwords(config.users))
            (directory / "rights").write_text(_rights(config.users))
            lines += [f"password_file {directory}/passwords", f"acl_file {directory}/rights"]
        if config.accounts is not None:
            where = config.accounts.absolute()
            lines += [f"password_file {where}/passwords", f"acl_file {where}/acl"]
        return lines

    def _wait_until_accepting(self, directory: Path) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                self._process = None
                log = (directory / "mosquitto.log").read_text(errors="replace")
                raise BrokerError(f"mosquitto did not start: {log[-500:].strip()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.5).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self._end(kill=True)
        raise BrokerError(f"mosquitto did not accept connections within {_START_S} s")

    def _end(self, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _must_be_free(port: int) -> None:
    """BrokerError when somebody listens there: else that one would be taken for ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise BrokerError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from error
        except OverflowError as error:
            raise BrokerError(f"{port} is no port") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _passwords(users: Mapping[str, User]) -> str:
    """The password file: PBKDF2 with SHA-512, as mosquitto_passwd writes it."""
    lines = []
    for name, user in users.items():
        salt = secrets.token_bytes(12)
        digest = hashlib.pbkdf2_hmac("sha512", user.password.encode(), salt, _HASH_ROUNDS)
        encoded = [base64.b64encode(part).decode() for part in (salt, digest)]
        lines.append(f"{name}:$7${_HASH_ROUNDS}${encoded[0]}${encoded[1]}\n")
    return "".join(lines)


def _rights(users: Mapping[str, User]) -> str:
    """The access control file. `%u` and `%c` in it are the user's and the client's names."""
    lines = []
    for name, user in users.items():
        lines.append(f"user {name}\n")
        for right in user.rights:
            mode = {(True, True): "readwrite", (True, False): "read", (False, True): "write"}.get(
                (right.read, right.write), "deny"
            )
            lines.append(f"topic {mode} {right.pattern.replace('%u', name)}\n")
    return "".join(lines)
