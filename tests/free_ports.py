"""Ports that stay free until they are bound.

Whoever asks the kernel for a free port and lets go of it can lose it to any other test that
connects meanwhile: the kernel gives each connection one of the same range. A broker that stops and
starts again on its port could, too. These are below that range, where nobody gets one unasked.
"""

from __future__ import annotations

import random
import socket

FIRST, END = 20_000, 32_768
"""Linux gives away ports from 32768 on by itself (net.ipv4.ip_local_port_range), others later."""

_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has; another one at each call."""
    while True:
        port = random.SystemRandom().randrange(FIRST, END)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
