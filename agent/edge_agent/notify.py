"""How the service manager is told: sd_notify(3), in as much as an agent needs.

Guards: a service manager that is not there, or does not listen, is in nobody's way.

The protocol is datagrams of NAME=value lines to the socket in ``NOTIFY_SOCKET``, whose name begins
with '/' or, for one in the abstract namespace, with '@'.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)

SOCKET_VARIABLE = "NOTIFY_SOCKET"
VARIABLES = (SOCKET_VARIABLE, "WATCHDOG_USEC", "WATCHDOG_PID")
"""Ours alone: a child process has nothing to say to the service manager."""
STATUS_MAX_CHARS = 500
_SEND_TIMEOUT_S = 1.0


class Notifier:
    """Says to the service manager how it is; a lost datagram is nobody's fault.

    Args:
        address: ``/path`` or ``@abstract``; "" when no service manager listens.
        watchdog_s: it wants to hear ``alive`` this often; 0: it does not ask.
    """

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self.watchdog_s = watchdog_s if address else 0.0
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> Notifier:
        """As systemd sets it: sd_notify(3), sd_watchdog_enabled(3). Nonsense counts as nothing."""
        address = environment.get(SOCKET_VARIABLE, "")
        if address[:1] not in ("/", "@") or len(address) < 2:
            if address:
                log.warning("%s = %r is no address known here", SOCKET_VARIABLE, address)
            return cls()
        wanted = 0.0
        if environment.get("WATCHDOG_PID", str(pid)) == str(pid):
            with contextlib.suppress(ValueError):
                wanted = max(int(environment.get("WATCHDOG_USEC", "0")) / 1e6, 0.0)
        return cls(address, wanted)

    def ready(self) -> bool:
        """What is on disk answers."""
        return self._send("READY=1")

    def alive(self) -> bool:
        """Loop and models answer."""
        return self._send("WATCHDOG=1")

    def stopping(self) -> bool:
        """The agent ends in order."""
        return self._send("STOPPING=1")

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self._send("STATUS=" + " ".join(text.split())[:STATUS_MAX_CHARS])

    def _send(self, line: str) -> bool:
        """Whether it was taken."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
                door.settimeout(_SEND_TIMEOUT_S)
                door.sendto(line.encode(), self._address)
        except (OSError, ValueError) as error:
            log.debug("the service manager did not hear %s: %s", line, error)
            return False
        return True
