"""The configuration of a broker: one frozen struct, all its faults reported at once."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_fleet.broker import access
from edge_fleet.broker.access import User
from edge_fleet.broker.errors import BrokerConfigError

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class BrokerConfig:
    """What a broker of ours is told; the limits are per broker unless they say otherwise.

    `port` 0 takes a free one. Without `state_dir` a restart forgets everything.
    """

    host: str = "127.0.0.1"
    port: int = 0
    users: Mapping[str, User] = field(default_factory=dict)
    allow_anonymous: bool = False  # beside users; without users everyone is welcome
    accounts: Path | None = None  # a folder of mosquitto's files `passwords` and `acl`, for users
    state_dir: Path | None = None
    save_interval_s: float = 5.0  # what a power cut may cost at most; 0: written at every change
    max_packet_bytes: int = 4 * MIB  # told to clients in CONNACK
    max_queue_bytes: int = 64 * MIB  # per session
    max_retained_bytes: int = 1024 * MIB
    max_connections: int = 1_000
    max_sessions: int = 10_000
    max_subscriptions: int = 1_000  # per session
    max_inflight: int = 1_000  # per session and direction: the widest Receive Maximum
    max_topic_aliases: int = 32  # per connection
    max_keep_alive_s: int = 0  # 0: clients choose
    connect_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        faults = [*self._address_faults(), *access.faults(self.users), *self._limit_faults()]
        if faults:
            raise BrokerConfigError("the broker's configuration is wrong: " + "; ".join(faults))

    @property
    def address(self) -> str:
        """The host as an IP address."""
        return "127.0.0.1" if self.host == "localhost" else self.host

    def _address_faults(self) -> list[str]:
        faults = []
        if not 0 <= self.port <= 65_535:
            faults.append(f"port is {self.port}, 0 to 65535 expected")
        try:
            loopback = ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            faults.append(
                f"host is {self.host!r}: this broker has no TLS and serves the loopback only;"
                " for other machines install mosquitto or another MQTT 5 broker"
            )
        if self.accounts is not None and (self.users or self.allow_anonymous):
            faults.append("users and accounts are two ways to say who may connect")
        return faults

    def _limit_faults(self) -> list[str]:
        bounds = {
            "max_packet_bytes": (128, 268_435_460),  # the largest packet of §2.1.4
            "max_queue_bytes": (1, None),
            "max_retained_bytes": (0, None),
            "max_connections": (1, None),
            "max_sessions": (1, None),
            "max_subscriptions": (1, None),
            "max_inflight": (1, 65_535),
            "max_topic_aliases": (0, 65_535),
            "max_keep_alive_s": (0, 65_535),
            "connect_timeout_s": (0.001, None),
            "save_interval_s": (0, None),
        }
        faults = []
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                expected = f"at least {low}" if high is None else f"{low} to {high}"
                faults.append(f"{name} is {value}, {expected} expected")
        return faults
