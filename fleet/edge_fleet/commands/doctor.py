"""``edge-fleet doctor``: gathers, judges, prints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from edge_contract import broker_url
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.ports.mqtt import Link, LinkConfig
from edge_contract.topics import DEFAULT_PREFIX, Topics
from edge_fleet import terminal
from edge_fleet.collector import CollectorConfig
from edge_fleet.doctor.checks import Finding, examine
from edge_fleet.opening import lacking, opened, reached
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms, with_password

if TYPE_CHECKING:
    from edge_fleet.doctor.facts import Facts
    from edge_fleet.store.sql import SqlStore

_MARKS = {"ok": "ok", "warning": "warning", "broken": "BROKEN"}


def doctor(
    *,
    db: Db = DEFAULT_DB,
    broker: Annotated[
        str,
        typer.Option(
            envvar="EDGE_BROKER",
            help="mqtt://[user:password@]host[:port] or mqtts://...; default: the collector's"
            " last; `none`: do not look.",
        ),
    ] = "",
    fleet: Annotated[str, typer.Option(help="Which fleet; default: the store's.")] = "",
    prefix: Annotated[str, typer.Option(help="What all topics begin with.")] = DEFAULT_PREFIX,
    http: Annotated[
        str, typer.Option(metavar="URL", help="Also look at the HTTP service there.")
    ] = "",
    ca_file: Annotated[str, typer.Option(help="TLS authorities, PEM.")] = "",
    cert_file: Annotated[str, typer.Option(help="TLS client certificate, PEM.")] = "",
    key_file: Annotated[str, typer.Option(help="Its key, PEM.")] = "",
    wait_s: Annotated[float, typer.Option(help="How long an answer may take.")] = 10.0,
    deep: Annotated[bool, typer.Option("--deep", help="Read all of an SQLite file.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="A warning is a failure, too.")] = False,
    as_json: Json = False,
) -> None:
    """What is wrong with broker, rights, store, clocks and dates of expiry, and what to do.

    Ends with 0 when nothing is broken, with 4 otherwise. Changes nothing: its probes go to the
    topics of a device that does not exist.

    Examples:

      edge-fleet doctor

      edge-fleet doctor --broker mqtts://plant.server@broker --ca-file ca.pem --json

      edge-fleet doctor --db postgresql://edge@db/fleet --http https://fleet.example:8443
    """
    if not 0 < wait_s <= 300:
        raise InputFault(f"--wait-s {wait_s:g} is not above 0 and at most 300")
    tls = (ca_file, cert_file, key_file)
    found = _examined(db, (broker, fleet, prefix), tls, http, wait_s, deep=deep)
    broken = [each for each in found if each.state == "broken"]
    warnings = [each for each in found if each.state == "warning"]
    if as_json:
        terminal.print_json({"broken": len(broken), "warnings": len(warnings), "findings": found})
    else:
        _print(found)
        terminal.print_line(f"{len(broken)} broken, {len(warnings)} warnings")
    if broken or (strict and warnings):
        raise typer.Exit(MachineFault.exit_code)


def alive(
    *,
    db: Db = DEFAULT_DB,
    ordinal: Annotated[
        int, typer.Option(min=0, envvar="EDGE_FLEET_ORDINAL", help="Which collector.")
    ] = 0,
    within_s: Annotated[float, typer.Option(help="Its last sign of life is no older.")] = 60.0,
) -> None:
    """Whether a collector lives, for a container's health check: ends with 0, or 1.

    It leaves a sign of life in the store every 10 s, for as long as it gets on with its work.

    Example: edge-fleet alive --ordinal 1 --db postgresql://edge@db/fleet
    """
    if not 0 < within_s < math.inf:
        raise InputFault("--within-s must be above 0 and finite")
    with opened(db) as store:
        beat = store.settings().get(f"collector-{ordinal}", "")
    age_s = (now_ms() - int(beat)) / 1000 if beat.isdigit() else None
    if age_s is None:
        terminal.print_line(f"collector {ordinal} never worked on this store")
    else:
        terminal.print_line(f"collector {ordinal}: last sign of life {age_s:.0f} s ago")
    if age_s is None or age_s > within_s:
        raise typer.Exit(1)


def end_session(
    *,
    ordinal: Annotated[
        int, typer.Option(min=0, help="Which collector: the one that will not come back.")
    ],
    db: Db = DEFAULT_DB,
    broker: Annotated[
        str, typer.Option(envvar="EDGE_BROKER", help="Default: the collector's last.")
    ] = "",
    ca_file: Annotated[str, typer.Option(help="TLS authorities, PEM.")] = "",
    cert_file: Annotated[str, typer.Option(help="TLS client certificate, PEM.")] = "",
    key_file: Annotated[str, typer.Option(help="Its key, PEM.")] = "",
    wait_s: Annotated[float, typer.Option(help="How long the broker may take.")] = 10.0,
) -> None:
    """End the session that a broker keeps for a collector which was taken away.

    It would keep what came for it for 30 days, and hand it records of a shared subscription.
    Refused while that collector works. Records that wait in the session are gone.

    Example: edge-fleet end-session --ordinal 2 --db postgresql://edge@db/fleet
    """
    if not 0 < wait_s <= 300:
        raise InputFault(f"--wait-s {wait_s:g} is not above 0 and at most 300")
    with opened(db) as store:
        settings = store.settings()
        fleet, url = settings.get("fleet", ""), broker or settings.get("broker", "")
        if not fleet or not url:
            raise InputFault(
                "no collector ever worked on this store", advice="Name the broker with --broker."
            )
        config = CollectorConfig(
            with_password(broker_url.parse(url)), fleet, ordinal=ordinal, ca_file=ca_file,
            cert_file=cert_file, key_file=key_file,
        )  # fmt: skip
        with store.lock(ordinal):
            link = Link(config.link(durable=False))
            try:
                link.start(wait_s)
            finally:
                link.stop()
            store.put_settings({f"collector-{ordinal}": "0"})
    terminal.print_line(f"the session of {config.client_id} at {config.broker} is ended")


def _print(found: list[Finding]) -> None:
    for each in found:
        terminal.print_line(f"{_MARKS[each.state]:<8} {each.area:<9} {each.what}")
        for text in filter(None, (each.why, each.advice)):
            terminal.print_line(f"{'':<18} {text}")


def _examined(
    db: str,
    of: tuple[str, str, str],
    tls: tuple[str, str, str],
    http: str,
    wait_s: float,
    *,
    deep: bool,
) -> list[Finding]:
    try:
        from edge_fleet.doctor import asking_store  # noqa: PLC0415 (its library is an extra)
        from edge_fleet.doctor.facts import Facts, StoreFacts  # noqa: PLC0415
        from edge_fleet.store.migrations import VERSION  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise lacking(error) from error
    machine = asking_store.machine([tls[0], tls[1]])
    try:
        with reached(db) as store:
            seen = asking_store.ask(store, now_ms, deep=deep)
            facts = Facts(now_ms(), seen, machine)
            usable = not seen.error and seen.version == VERSION
            facts = _of_fleet(facts, store if usable else None, of, tls, wait_s)
    except EdgeError as error:
        failed = StoreFacts(db.rpartition("@")[2], error=error.what, advice=error.advice)
        facts = Facts(now_ms(), failed, machine)
        facts = _of_fleet(facts, None, of, tls, wait_s)
    if http:
        facts = _with(facts, http=asking_store.http(http, now_ms, wait_s))
    return examine(facts, VERSION)


def _of_fleet(
    facts: Facts,
    store: SqlStore | None,
    of: tuple[str, str, str],
    tls: tuple[str, str, str],
    wait_s: float,
) -> Facts:
    """Also what the store knows of the fleet, and its broker."""
    from edge_fleet.doctor import asking_broker, asking_store  # noqa: PLC0415 (an extra)

    broker, fleet, prefix = of
    wanted: list[str] = []
    if store is not None:
        facts = _with(facts, fleet=asking_store.fleet(store, facts.now_ms))
        settings = store.settings()
        broker, fleet = broker or settings.get("broker", ""), fleet or settings.get("fleet", "")
        wanted = asking_store.wanted(store)
    if not broker or broker == "none":
        return facts
    if not fleet:
        raise InputFault("which fleet is not known", advice="Name it with --fleet.")
    config = LinkConfig(
        with_password(broker_url.parse(broker)),
        f"edge-fleet-{fleet}-doctor",
        reconnect_max_s=1,
        ca_file=tls[0],
        cert_file=tls[1],
        key_file=tls[2],
    )
    found = asking_broker.ask(config, Topics(fleet, prefix), wanted, wait_s=wait_s)
    return _with(facts, broker=found)


def _with(facts: Facts, **changes: object) -> Facts:
    return msgspec.structs.replace(facts, **changes)
