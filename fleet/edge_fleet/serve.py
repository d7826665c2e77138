"""The long-running commands: the collector and the broker, until a signal stops them.

Guards: SIGTERM and SIGINT end them in order (the batch at hand is kept and acknowledged, the
broker saves its state), a second one at once, and no child outlives them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from edge_contract import broker_url
from edge_contract.broker_url import BrokerUrl
from edge_contract.errors import InputFault
from edge_contract.ports.accounts import Accounts
from edge_contract.ports.disk import read_bounded
from edge_contract.topics import Topics
from edge_fleet import tracing
from edge_fleet.brokers import running_broker
from edge_fleet.collector import Collector, CollectorConfig
from edge_fleet.compaction import Retention, keep_compact
from edge_fleet.enrolment import Enroller
from edge_fleet.leader import leading
from edge_fleet.logs import announce
from edge_fleet.naming import Naming, watching
from edge_fleet.options import now_ms
from edge_fleet.rollouts.publication import Channels
from edge_fleet.rollouts.runner import RolloutRun
from edge_fleet.rollouts.runner import running as rolling_out
from edge_fleet.stopping import stop_on_signal
from edge_fleet.store.base import Store
from edge_fleet.triggers.delivery import Place
from edge_fleet.triggers.runner import running
from edge_fleet.triggers.settings import Settings

if TYPE_CHECKING:
    from edge_fleet.api.server import Listen

AUTO = "auto"
Role = Literal["all", "collector", "leader"]


def role_of(text: str) -> Role:
    """What ``--role`` says. Raises InputFault."""
    for role in get_args(Role):
        if text == role:
            return role  # type: ignore[no-any-return]
    raise InputFault(f"--role {text!r} is none of {', '.join(get_args(Role))}")


def serve(
    config: CollectorConfig,
    store: Store,
    *,
    own_broker: tuple[int, Path | None] | None,
    accounts: Path | None = None,
    reload: str = "",
    triggers: tuple[Settings, Path] | None = None,
    retention: Retention | None = None,
    http: Listen | None = None,
    role: Role = "all",
) -> None:
    """Collect until a signal comes.

    Args:
        own_broker: port and folder of a broker to run beside it, whose address then stands in
            ``config``'s place.
        accounts: a folder of `edge-pack broker-acl`: devices that hold a token are let in.
        reload: command that makes the broker read its accounts again.
        triggers: what to set off, and the folder that its paths begin in.
        retention: how long what is kept; None merges nothing.
        http: where to serve the store over HTTP; None: nowhere.
        role: what this process does where several share the work: ``collector`` only collects,
            ``leader`` only counts, plans and delivers; ``all`` does both.
    """
    with stop_on_signal() as stop, contextlib.ExitStack() as stack:
        stack.enter_context(tracing.exporting(config.fleet))
        if own_broker is not None:
            port, folder = own_broker
            url, kind = stack.enter_context(
                running_broker(
                    port, folder, embedded=accounts is not None, accounts=accounts, stop=stop
                )
            )
            config = replace(config, broker=_own_account(url, config.fleet, accounts))
            announce(f"broker {url} ({kind})")

        def started() -> None:
            part = "" if config.part is None else f", {config.part}, as number {config.ordinal}"
            announce(f"collecting fleet {config.fleet} from {config.broker}{part} into {store}")

        collector = Collector(config, store)
        if accounts is not None:
            enroller = Enroller(
                config.link("-enroll", durable=False),
                Topics(config.fleet, config.prefix),
                Accounts(accounts),
                reload=reload,
                on_fault=collector.note,
            )
            enroller.start()
            stack.callback(enroller.stop)
        leads = role != "collector"
        if config.part is not None and leads:
            stack.enter_context(leading(config, store, stop))
        if triggers is not None:
            rules, folder = triggers
            topics = Topics(config.fleet, config.prefix)
            link = config.link("-triggers", durable=False)
            store.claim(config.fleet)
            keep_ms = None if retention is None else retention.events_ms
            place = Place(folder, link, topics, now_ms, threading.Event(), keep_ms)
            stack.enter_context(running(rules, store, place, announce))
        if leads:
            stack.enter_context(_planning(config, store, stop))
            naming = Naming(store, Topics(config.fleet, config.prefix), now_ms)
            link = config.link("-named", durable=False)
            stack.enter_context(watching(naming, link, stop))
        if retention is not None and leads:
            stack.enter_context(_compacting(store, retention, stop))
        if http is not None:
            look = config.link("-published", durable=False)
            channels = Channels(look, Topics(config.fleet, config.prefix))
            announce(f"serving {stack.enter_context(_http(store, http, channels))}")
        if role == "leader":
            store.claim(config.fleet)
            announce(f"leading fleet {config.fleet}, as soon as nobody else does, on {store}")
            stop.wait()
        else:
            collector.run(stop, started)
    announce("stopped: everything acknowledged is stored")


def _planning(
    config: CollectorConfig, store: Store, stop: threading.Event
) -> contextlib.AbstractContextManager[None]:
    topics = Topics(config.fleet, config.prefix)
    channels = Channels(config.link("-stable", durable=False), topics)
    run = RolloutRun(store, topics, now_ms, channels.promoted)
    return rolling_out(run, store, config.link("-rollouts", durable=False), stop)


def _http(
    store: Store, listen: Listen, channels: Channels
) -> contextlib.AbstractContextManager[str]:
    from edge_fleet.api.server import running as serving_http  # noqa: PLC0415 (an extra)

    return serving_http(store, listen, channels)


@contextlib.contextmanager
def _compacting(store: Store, retention: Retention, stop: threading.Event) -> Iterator[None]:
    """Beside the collector, in a thread; over within one transaction of ``stop``."""
    thread = threading.Thread(
        target=keep_compact, args=(store, retention, stop), kwargs={"clock_ms": now_ms}
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _own_account(url: str, fleet: str, accounts: Path | None) -> BrokerUrl:
    """The address of a broker that runs here, with this server's account where it has one."""
    found = broker_url.parse(url)
    if accounts is None:
        return found
    user = f"{fleet}.server"
    secret = Accounts(accounts).secret(f"{user}.password")
    password = read_bounded(secret, 1024).decode().strip()
    return replace(found, user=user, password=password)


def run_broker(
    port: int, folder: Path | None, *, embedded: bool, accounts: Path | None = None
) -> None:
    """Run a broker until a signal comes."""
    with (
        stop_on_signal() as stop,
        running_broker(port, folder, embedded=embedded, accounts=accounts, stop=stop) as found,
    ):
        url, kind = found
        announce(f"broker {url} ({kind})")
        stop.wait()
