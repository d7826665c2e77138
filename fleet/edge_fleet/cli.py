"""The command ``edge-fleet``: parses, calls one function, prints.

Guards: a machine without the extra ``fleet`` is told which one to install, before anything else
happens.
"""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Annotated

import typer

from edge_contract import broker_url
from edge_contract.errors import InputFault
from edge_contract.names import check_name
from edge_contract.ports import command
from edge_contract.ports.accounts import Accounts
from edge_contract.topics import DEFAULT_PREFIX
from edge_fleet import (
    logs,
    reports,
    terminal,
    views,
)
from edge_fleet import serve as serving
from edge_fleet.collector import CollectorConfig
from edge_fleet.commands import (
    api,
    aside,
    audit,
    backup,
    compact,
    device,
    doctor,
    drift,
    export,
    fetch,
    label,
    quality,
    record,
    report,
    rollout,
    sample,
    simulate,
    token,
    trigger,
)
from edge_fleet.drift.budget import Budget
from edge_fleet.opening import opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms, with_password
from edge_fleet.sharing import SHARED, Part, shard_of

app = typer.Typer(
    help="Collect what a fleet of edge agents reports, and see drift with a promised rate of"
    " false alarms.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command()
def serve(
    *,
    fleet: Annotated[str, typer.Option(help="Which fleet to collect.")],
    broker: Annotated[
        str,
        typer.Option(
            envvar="EDGE_BROKER",
            help="mqtt://[user:password@]host[:port], mqtts://..., or `auto`: start one here"
            " (mosquitto where there is one, else the embedded broker).",
        ),
    ] = "auto",
    db: Db = DEFAULT_DB,
    false_alarms_per_month: Annotated[
        float,
        typer.Option(help="At most so many false drift alarms in 30 days, over the whole fleet."),
    ] = 1.0,
    cohort_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL",
            help="Watch devices with one value of this label together; may be given again.",
        ),
    ] = None,
    window_s: Annotated[
        float, typer.Option(help="Length of the agents' telemetry windows, in seconds.")
    ] = 300.0,
    port: Annotated[
        int, typer.Option(help="Port of the broker that `--broker auto` starts; 0: a free one.")
    ] = broker_url.PORT,
    folder: Annotated[
        Path | None, typer.Option(help="Where that broker keeps its state; default: nowhere.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="What all topics begin with.")] = DEFAULT_PREFIX,
    ordinal: Annotated[
        int,
        typer.Option(
            min=0,
            max=9999,
            envvar="EDGE_FLEET_ORDINAL",
            help="Number of this collector; its MQTT session carries it.",
        ),
    ] = 0,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared",
            help="One of several collectors: take what the broker hands this one of a shared"
            " subscription. Give each another --ordinal, and the same at each start.",
        ),
    ] = False,
    shard: Annotated[
        str,
        typer.Option(
            metavar="K/N",
            help="One of several collectors: the K-th of N fixed parts of the devices, for a"
            " broker without shared subscriptions.",
        ),
    ] = "",
    role: Annotated[
        str,
        typer.Option(
            help="With --shared or --shard: `collector` only collects, `leader` only counts, plans"
            " and delivers when nobody else does, `all` does both."
        ),
    ] = "all",
    ca_file: Annotated[str, typer.Option(help="TLS authorities, PEM.")] = "",
    cert_file: Annotated[str, typer.Option(help="TLS client certificate, PEM.")] = "",
    key_file: Annotated[str, typer.Option(help="Its key, PEM.")] = "",
    accounts: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="EDGE_FLEET_ACCOUNTS",
            help="Accounts of `edge-pack broker-acl`: let devices in that hold a token.",
        ),
    ] = None,
    reload: Annotated[
        str,
        typer.Option(
            envvar=token.RELOAD_VARIABLE,
            help="Command that makes the broker read its accounts again.",
        ),
    ] = "",
    triggers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="EDGE_FLEET_TRIGGERS",
            help="What to set off when a model has drifted: see `edge-fleet triggers`.",
        ),
    ] = None,
    keep_raw: compact.KeepRaw = compact.RAW_DEFAULT,
    keep_hours: compact.KeepHours = compact.HOURS_DEFAULT,
    keep_events: compact.KeepEvents = compact.EVENTS_DEFAULT,
    keep_asides: compact.KeepAsides = compact.ASIDES_DEFAULT,
    http: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Serve the store over HTTP too; see `api`."),
    ] = "",
    http_cert: api.Cert = None,
    http_key: api.CertKey = None,
    http_insecure: api.Insecure = False,
    http_rate: api.PerMinute = api.RATE,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each step.")] = False,
    log_format: logs.LogFormat = "text",
) -> None:
    """Collect telemetry into a database and watch for drift, until stopped.

    Examples:

      edge-fleet serve --fleet home

      edge-fleet serve --fleet home --broker mqtt://10.0.0.2 --db sqlite:///home.db

      edge-fleet serve --fleet plant --cohort-by site --cohort-by line

      edge-fleet serve --fleet plant --broker mqtts://plant.server@broker --window-s 3600
      --accounts accounts --reload "pkill -HUP mosquitto"

      edge-fleet serve --fleet plant --broker mqtt://broker --shared --ordinal 1
      --db postgresql://edge@db/plant

    The broker's password may be given in the environment as EDGE_FLEET_PASSWORD.
    """
    if accounts is not None:
        Accounts(accounts).read()
    check_name(fleet, "fleet")
    retention = compact.retention_of(keep_raw, keep_hours, keep_events, keep_asides)
    if not (0 < false_alarms_per_month < inf and 0 < window_s < inf):
        raise InputFault("--false-alarms-per-month and --window-s must be above 0 and finite")
    auto = broker == serving.AUTO
    config = CollectorConfig(
        broker=with_password(broker_url.parse("mqtt://127.0.0.1" if auto else broker)),
        fleet=fleet,
        prefix=prefix,
        ordinal=ordinal,
        part=_part_of(shared, shard, role),
        budget=Budget(false_alarms_per_month, window_s),
        cohort_by=tuple(check_name(label, "label") for label in cohort_by or ()),
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
    )
    where = (
        api.listen(http, http_cert, http_key, insecure=http_insecure, rate=http_rate)
        if http
        else None
    )
    logs.log_to_stderr(verbose=verbose, form=log_format)
    rules = None if triggers is None else trigger.read(triggers)
    with opened(db, create=True) as store:
        store.put_settings(
            {"keep_raw": keep_raw, "keep_hours": keep_hours, "keep_events": keep_events,
             "keep_asides": keep_asides}
        )  # fmt: skip
        serving.serve(
            config,
            store,
            own_broker=(port, folder) if auto else None,
            accounts=accounts,
            reload=reload,
            retention=retention,
            triggers=None if rules is None or triggers is None else (rules, triggers.parent),
            http=where,
            role=serving.role_of(role),
        )


def _part_of(shared: bool, shard: str, role: str) -> Part | None:
    """What of the fleet's messages is collected; None: all of them, by this process alone."""
    if shared and shard:
        raise InputFault("--shared and --shard are two ways to do the same: give one of them")
    if not (shared or shard) and serving.role_of(role) != "all":
        raise InputFault(f"--role {role} is for several processes: give --shared or --shard too")
    return shard_of(shard) if shard else SHARED if shared else None


@app.command()
def broker(
    port: Annotated[int, typer.Option(help="Port on the loopback; 0: a free one.")] = (
        broker_url.PORT
    ),
    folder: Annotated[
        Path | None, typer.Option(help="Where it keeps retained messages and sessions.")
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="The embedded broker, also where mosquitto is.")
    ] = False,
    accounts: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Accounts of `edge-pack broker-acl`: who may do what. Takes the embedded broker,"
            " which sees changes by itself.",
        ),
    ] = None,
    log_format: logs.LogFormat = "text",
) -> None:
    """Run an MQTT 5 broker for this machine only, until stopped.

    Examples:

      edge-fleet broker

      edge-fleet broker --port 0 --folder broker-state --embedded

      edge-fleet broker --folder broker-state --accounts accounts
    """
    if accounts is not None:
        Accounts(accounts).read()
    logs.log_to_stderr(verbose=False, form=log_format)
    embedded = embedded or accounts is not None  # mosquitto would have to be told of each token
    serving.run_broker(port, folder, embedded=embedded, accounts=accounts)


@app.command()
def status(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """The fleet at a glance: devices, windows, alarms, and what needs attention.

    Example: edge-fleet status --db sqlite:///home.db
    """
    with opened(db) as store:
        found = reports.status(store, now_ms())
    if as_json:
        terminal.print_json(found)
        return
    _print_status(found)


app.command()(device.devices)
app.command()(device.device)
app.command()(audit.audit)
app.command()(drift.drift)
app.command()(drift.resolve)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(compact.compact)
app.command()(doctor.doctor)
app.command()(doctor.alive)
app.command()(doctor.end_session)
app.command()(fetch.fetch)
app.command()(report.report)
app.command()(quality.quality)
app.command()(api.api)
app.add_typer(api.app, name="api-tokens")
app.command()(aside.accuracy)
app.command()(aside.shadow)
app.add_typer(export.app, name="export")
app.command()(record.events)
app.add_typer(label.app, name="labels")
app.add_typer(record.app, name="records")
app.add_typer(rollout.app, name="rollout")
app.add_typer(sample.app, name="samples")
app.add_typer(token.app, name="tokens")
app.command()(simulate.simulate)
app.add_typer(trigger.app, name="triggers")


def _print_status(found: views.Status) -> None:
    collector = "running" if found.collecting else "not running"
    lag = "-" if found.lag_s is None else f"{found.lag_s:.1f} s"
    waiting = f", {found.pending_windows} of unknown profile" if found.pending_windows else ""
    refused = f", {found.refused_windows} refused" if found.refused_windows else ""
    lines = [
        ("fleet", f"{found.fleet} (collector {collector})"),
        (
            "devices",
            f"{found.devices}: {found.online} online, {found.silent} silent,"
            f" {found.offline} offline",
        ),
        ("windows", f"{found.windows}{waiting}{refused}"),
        ("rows", f"{found.rows}"),
        ("last heard", f"{found.last_heard or 'never'}, lag {lag}"),
        ("open alarms", f"{found.open_alarms}"),
        (
            "promise",
            f"at most {found.false_alarms_per_month:g} false alarms in 30 days over"
            f" {found.streams} streams: alarm at evidence {found.threshold:.2f}",
        ),
        ("faults", f"{found.faults}"),
    ]
    for name, text in lines:
        terminal.print_line(f"{name:<12} {text}")
    for unknown in found.unknown_profiles:
        terminal.print_line(
            f"unknown      bundle {unknown.bundle[:12]} ({unknown.model} {unknown.version}):"
            f" {unknown.windows} windows of {unknown.devices} devices wait for its profile:"
            " publish it, or `edge-fleet fetch FILE`"
        )
    for fault in found.recent_faults:
        terminal.print_line(
            f"fault        {fault.device or '(nobody known)'}: {fault.kind} x {fault.count},"
            f" last {fault.last}: {fault.detail}"
        )
    for note in found.notes:
        terminal.print_line(f"note         {note}")


command.finish(app, "edge-fleet")


def main() -> None:
    """Entry point."""
    command.run(app)
