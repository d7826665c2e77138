"""The long-running commands: the collector and the broker, until a signal stops them.

Guards: SIGTERM and SIGINT end them in order (the batch at hand is kept and acknowledged, the
broker saves its state), and no child outlives them.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_contract import broker_url
from edge_fleet.brokers import running_broker
from edge_fleet.collector import Collector, CollectorConfig
from edge_fleet.store.base import Store
from edge_fleet.terminal import clean, print_line

AUTO = "auto"


class _CleanFormatter(logging.Formatter):
    """UTC times, and nothing from a device that a terminal would obey."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(clean(line) for line in super().format(record).splitlines())


def log_to_stderr(*, verbose: bool) -> None:
    """Set up logging for a command."""
    handler = logging.StreamHandler()
    handler.setFormatter(_CleanFormatter("%(asctime)sZ %(levelname)s %(message)s", "%FT%T"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


@contextlib.contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, within the ``with`` block."""
    stop = threading.Event()
    former = {}

    def ask(_number: int, _frame: Any) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        former[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def serve(
    config: CollectorConfig, store: Store, *, own_broker: tuple[int, Path | None] | None
) -> None:
    """Collect until a signal comes.

    ``own_broker``: port and folder of a broker to run beside it, whose address then stands in
    ``config``'s place.
    """
    with stop_on_signal() as stop, contextlib.ExitStack() as stack:
        if own_broker is not None:
            port, folder = own_broker
            url, kind = stack.enter_context(running_broker(port, folder, embedded=False))
            config = replace(config, broker=broker_url.parse(url))
            print_line(f"broker {url} ({kind})")

        def started() -> None:
            print_line(f"collecting fleet {config.fleet} from {config.broker} into {store}")

        Collector(config, store).run(stop, started)
    print_line("stopped: everything acknowledged is stored")


def run_broker(
    port: int, folder: Path | None, *, embedded: bool, accounts: Path | None = None
) -> None:
    """Run a broker until a signal comes."""
    with (
        stop_on_signal() as stop,
        running_broker(port, folder, embedded=embedded, accounts=accounts) as (url, kind),
    ):
        print_line(f"broker {url} ({kind})")
        stop.wait()
