"""A broker for one desk: mosquitto when there is one, else the embedded broker."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from edge_contract.errors import EdgeError, MachineFault
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
    port: int,
    folder: Path | None,
    *,
    embedded: bool,
    accounts: Path | None = None,
    stop: threading.Event | None = None,
) -> Iterator[tuple[str, str]]:
    """A broker on the loopback for as long as the ``with`` block lasts.

    Args:
        port: 0 takes a free one.
        folder: what it keeps over restarts; None keeps nothing.
        embedded: take the embedded one also where there is a mosquitto.
        accounts: a folder of `edge-pack broker-acl`; without it everyone is welcome.
        stop: set when the broker ends unasked: the ``with`` block is to end then.

    Yields its URL and its kind. Raises MachineFault when it does not start, or ended unasked.
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
        if isinstance(broker, MosquittoProcess) and stop is not None:
            broker.watch(stop.set)
    except (BrokerError, OSError) as error:
        raise MachineFault(
            f"no broker on port {port}: {error}",
            advice="Choose another port; 0 takes a free one.",
        ) from error
    try:
        yield broker.url, kind
    except EdgeError:
        _check_alive(broker)  # the cause of what went wrong, rather than its effect
        raise
    else:
        _check_alive(broker)
    finally:
        broker.stop()


def _check_alive(broker: BrokerThread | MosquittoProcess) -> None:
    """Raise MachineFault when the broker ended unasked."""
    why = broker.why_ended() if isinstance(broker, MosquittoProcess) else ""
    if why:
        raise MachineFault(
            f"the broker {broker.url} is gone: {why}",
            advice="Start it again; what it had saved is still in its --folder.",
        )
