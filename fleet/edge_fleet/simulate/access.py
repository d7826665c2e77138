"""How simulated devices get in: over TLS, and each by its own account where they have one."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import paho.mqtt.client as paho

from edge_contract.broker_url import BrokerUrl
from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_contract.ports.mqtt import LinkConfig, tls_context

PASSWORD_MAX_BYTES = 1024


class Door(Protocol):
    """What of a scene is looked at; see ``crowd.Scene``."""

    @property
    def broker(self) -> BrokerUrl: ...
    @property
    def fleet(self) -> str: ...
    @property
    def ca_file(self) -> str: ...
    @property
    def cert_file(self) -> str: ...
    @property
    def key_file(self) -> str: ...
    @property
    def passwords(self) -> Path | None: ...


def tls_of(door: Door) -> ssl.SSLContext | None:
    """One for all devices, each of which would read the authorities anew. Raises InputFault."""
    if not door.broker.tls:
        return None
    config = LinkConfig(door.broker, client_id="", ca_file=door.ca_file)
    return tls_context(replace(config, cert_file=door.cert_file, key_file=door.key_file))


def account(door: Door, device: str) -> tuple[str, str]:
    """User and password of a device. Raises InputFault for a file that is not there."""
    if door.passwords is None:
        return door.broker.user, door.broker.password
    path = door.passwords / f"{device}.password"
    if not path.is_file():
        raise InputFault(
            f"there is no {path}",
            advice=f"Make the account: edge-pack broker-acl DIR --fleet {door.fleet} --device"
            f" {device}; passwords are in DIR/secrets.",
        )
    return device, read_bounded(path, PASSWORD_MAX_BYTES).decode(errors="replace").strip()


def read(client: paho.Client) -> None:
    """What arrived; TLS may hold back more than the socket shows to be readable."""
    client.loop_read()
    while isinstance(connection := client.socket(), ssl.SSLSocket) and connection.pending():
        client.loop_read()
