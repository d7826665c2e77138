"""A broker for one desk: mosquitto when there is one, else the embedded broker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from edge_contract.errors import MachineFault
from edge_fleet.broker import (
    BrokerConfig,
    BrokerError,
    BrokerThread,
    MosquittoConfig,
    MosquittoProcess,
    find_mosquitto,
)


@contextlib.contextmanager
def running_broker(
    port: int, folder: Path | None, *, embedded: bool, accounts: Path | None = None
) -> Iterator[tuple[str, str]]:
    """A broker on the loopback for as long as the ``with`` block lasts.

    Args:
        port: 0 takes a free one.
        folder: what it keeps over restarts; None keeps nothing.
        embedded: take the embedded one also where there is a mosquitto.
        accounts: a folder of `edge-pack broker-acl`; without it everyone is welcome.

    Yields its URL and its kind. Raises MachineFault when it does not start.
    """
    kind = "embedded broker" if embedded or find_mosquitto() is None else "mosquitto"
    broker: BrokerThread | MosquittoProcess
    try:
        if kind == "mosquitto":
            broker = MosquittoProcess(
                MosquittoConfig(port=port, directory=folder, accounts=accounts)
            )
        else:
            broker = BrokerThread(BrokerConfig(port=port, state_dir=folder, accounts=accounts))
        broker.start()
    except (BrokerError, OSError) as error:
        raise MachineFault(
            f"no broker on port {port}: {error}",
            advice="Choose another port; 0 takes a free one.",
        ) from error
    try:
        yield broker.url, kind
    finally:
        broker.stop()
