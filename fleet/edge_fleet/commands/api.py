"""``edge-fleet api`` and ``edge-fleet api-tokens``: the HTTP service, and who may use it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_contract import broker_url
from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.topics import DEFAULT_PREFIX, Topics
from edge_fleet import logs, terminal, tracing
from edge_fleet.commands.audit import did
from edge_fleet.commands.token import lifetime_s
from edge_fleet.opening import opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms, with_password
from edge_fleet.rollouts.publication import Channels
from edge_fleet.stopping import stop_on_signal

if TYPE_CHECKING:
    from edge_fleet.api.server import Listen
    from edge_fleet.store.base import Store

ADDRESS = "127.0.0.1:8090"

Cert = Annotated[
    Path | None,
    typer.Option("--http-cert", metavar="FILE", help="TLS certificate chain of HTTP, PEM."),
]
CertKey = Annotated[
    Path | None, typer.Option("--http-key", metavar="FILE", help="Its private key, PEM.")
]
Insecure = Annotated[
    bool,
    typer.Option("--http-insecure", help="No TLS off the loopback: a proxy in front has it."),
]
PerMinute = Annotated[
    float,
    typer.Option("--http-rate", help="Requests a minute of one token, and of one address."),
]
RATE = 1200.0

_HELP = """Tokens of the HTTP service: who may read (viewer), answer alarms (operator), see and
revoke tokens (admin).

Examples:

  edge-fleet api-tokens create grafana --role viewer

  edge-fleet api-tokens list
"""

app = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None)


def listen(
    address: str, cert: Path | None, key: Path | None, *, insecure: bool, rate: float
) -> Listen:
    """Where to serve. Raises InputFault, and MachineFault without the extra ``api``."""
    try:
        from edge_fleet.api import server  # noqa: PLC0415 (its libraries are an extra)
    except ModuleNotFoundError as error:
        raise MachineFault(
            f"the HTTP service needs a package that is not installed here: {error.name}",
            advice="Install it: pip install 'edge-pack[api]'",
        ) from error
    if not 1 <= rate <= 1_000_000:
        raise InputFault(f"--http-rate {rate:g} is not from 1 to 1000000")
    host, port = server.parse(address)
    return server.Listen(host, port, cert, key, insecure, rate)


def api(
    db: Db = DEFAULT_DB,
    *,
    address: Annotated[
        str, typer.Option("--http", metavar="HOST:PORT", help="Where to listen.")
    ] = ADDRESS,
    cert: Cert = None,
    key: CertKey = None,
    insecure: Insecure = False,
    rate: PerMinute = RATE,
    broker: Annotated[
        str,
        typer.Option(
            envvar="EDGE_BROKER",
            help="Where to see whether a rollout's version is published; without it only orders"
            ' with "unchecked": true begin.',
        ),
    ] = "",
    prefix: Annotated[str, typer.Option(help="What all topics begin with.")] = DEFAULT_PREFIX,
    ca_file: Annotated[str, typer.Option(help="TLS authorities of the broker, PEM.")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each step.")] = False,
    log_format: logs.LogFormat = "text",
) -> None:
    """Serve the fleet's store over HTTP, until stopped; `serve --http` does it beside a collector.

    Described at /openapi.json; every other path but /health needs a token of
    `edge-fleet api-tokens create`.

    Examples:

      edge-fleet api --db postgresql://fleet@db/fleet

      edge-fleet api --http 0.0.0.0:8443 --http-cert chain.pem --http-key key.pem

      edge-fleet api --broker mqtts://plant.server@broker --ca-file ca.pem
    """
    where = listen(address, cert, key, insecure=insecure, rate=rate)
    from edge_fleet.api import server  # noqa: PLC0415

    logs.log_to_stderr(verbose=verbose, form=log_format)
    with (
        opened(db) as store,
        stop_on_signal() as stop,
        tracing.exporting(store.settings().get("fleet", "")),
        server.running(store, where, _looking(store, broker, prefix, ca_file)) as url,
    ):
        logs.announce(f"serving {store} at {url}")
        stop.wait()


def _looking(store: Store, broker: str, prefix: str, ca_file: str) -> Channels | None:
    if not broker:
        return None
    fleet = store.settings().get("fleet", "")
    link = LinkConfig(
        with_password(broker_url.parse(broker)), f"edge-fleet-{fleet}-api", ca_file=ca_file
    )
    return Channels(link, Topics(fleet, prefix))


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is; stands beside what they decide.")],
    *,
    role: Annotated[str, typer.Option(help="viewer, operator or admin.")] = "viewer",
    expires: Annotated[str, typer.Option(help="How long it is good: 24h, 90d.")] = "90d",
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Print a new token: this once, only its SHA-256 is kept.

    Example: edge-fleet api-tokens create nightshift --role operator --expires 30d
    """
    from edge_fleet.api import tokens  # noqa: PLC0415 (its library is an extra)

    now = now_ms()
    with opened(db) as store:
        until = now + lifetime_s(expires) * 1000
        token, text = tokens.mint(name, role, now, until, os.urandom)
        with store.transaction() as tx:
            if not tx.put_api_token(token):
                raise MachineFault(f"a token {token.id} is there already", advice="Try again.")
            did(tx, "token.create", f"token {token.id}", f"{name}, {role}, good for {expires}")
    if as_json:
        terminal.print_json({"id": token.id, "name": name, "role": role, "token": text})
        return
    terminal.print_line(text)
    typer.echo(f"token {token.id} of {name}, {role}, good for {expires}", err=True)


@app.command("list")
def list_tokens(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Every token: whose it is, its role, whether it is good (UTC).

    Example: edge-fleet api-tokens list --json
    """
    from edge_fleet.api import resources  # noqa: PLC0415 (its library is an extra)

    with opened(db) as store, store.reading() as tx:
        found = [resources.token_view(each, now_ms()) for each in tx.api_tokens()]
    if as_json:
        terminal.print_json(found)
        return
    terminal.print_table(
        ["token", "name", "role", "state", "created", "expires"],
        [[x.id, x.name, x.role, x.state, x.created or "-", x.expires or "-"] for x in found],
    )


@app.command()
def revoke(
    tokens: Annotated[list[str], typer.Argument(metavar="ID", help="From `api-tokens list`.")],
    db: Db = DEFAULT_DB,
) -> None:
    """Make tokens void, at once; open streams end within seconds.

    Example: edge-fleet api-tokens revoke 5f0c2a9b1d3e
    """
    with opened(db) as store, store.transaction() as tx:
        for token in tokens:
            if not tx.revoke_api_token(token, now_ms()):
                raise InputFault(
                    f"there is no valid token {token[:40]!r}",
                    advice="`edge-fleet api-tokens list` names them; none was revoked.",
                )
            did(tx, "token.revoke", f"token {token}")
    terminal.print_line(f"revoked {', '.join(tokens)}")
