"""A Host field names a machine by its address where the standard library takes it for one."""

from __future__ import annotations

import ipaddress
import random

import pytest

from edge_agent.doors.http.callers import _is_address

SEED = 1918


def test_an_address_is_what_the_standard_library_takes_for_one() -> None:
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    taken = 0
    for _ in range(3000):
        parts = [draw.choice(["0", "1", "10", "255", "256", "01", "", "a"]) for _ in range(4)]
        host = ".".join(parts[: draw.choice([3, 4, 4, 4, 4])])
        assert _is_address(host) == (address(host) or host in ("", "localhost")), host
        taken += address(host)
    assert 100 < taken < 2900


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("127.0.0.1:8080", True), ("[::1]:8080", True), ("[::1]", True), ("[fe80::1%25eth0]", True),
        ("[fe80::1%eth0]", True), ("[::g]", False), ("[1.2.3.4]", False), ("localhost:80", True),
        ("1.2.3.4%evil.example", False), ("127.0.0.1.evil.example", False), ("", True),
        ("a.localhost", True), ("127.1", False), ("2130706433", False), ("127.0.0.1\x00", False),
    ],
)  # fmt: skip
def test_odd_hosts(host: str, fits: bool) -> None:
    assert _is_address(host) == fits


def address(host: str) -> bool:
    """By the standard library."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
