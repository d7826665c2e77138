"""``edge-fleet tokens``: make, list and revoke one-time tokens for new devices."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from edge_contract import durations
from edge_contract.access import registry
from edge_contract.errors import InputFault
from edge_contract.names import check_sha256
from edge_contract.ports.accounts import Accounts
from edge_fleet import terminal
from edge_fleet.commands.audit import AuditDb, noted
from edge_fleet.enrolment import TokenOrder, create_token, reload_broker

RELOAD_VARIABLE = "EDGE_FLEET_RELOAD"
EXPIRES_MAX_S = 365 * 86400

_Folder = Annotated[
    Path,
    typer.Option(
        "--accounts", metavar="DIR", envvar="EDGE_FLEET_ACCOUNTS",
        help="The folder of `edge-pack broker-acl`.",
    ),
]  # fmt: skip
_Reload = Annotated[
    str,
    typer.Option(
        envvar=RELOAD_VARIABLE,
        help="Command that makes the broker read its accounts again, as `pkill -HUP mosquitto`."
        " The embedded broker needs none.",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]

_HELP = """One-time tokens, each of which lets one device in.

Examples:

  edge-fleet tokens create pi7 --accounts accounts --broker mqtts://broker.example
  --root sha256:0f3a...

  edge-fleet tokens list --accounts accounts
"""

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def create(
    device: Annotated[
        str, typer.Argument(help="Name of the device; '-' lets it choose a free one.")
    ],
    *,
    accounts: _Folder,
    broker: Annotated[
        str, typer.Option(envvar="EDGE_BROKER", help="As the device reaches it: mqtts://HOST.")
    ],
    root: Annotated[
        str, typer.Option(help="The publisher's fingerprint, from `edge-pack keys status`.")
    ],
    fleet: Annotated[str, typer.Option(help="Which one, where the broker has several.")] = "",
    channel: Annotated[str, typer.Option(help="Channel to follow.")] = "stable",
    expires: Annotated[str, typer.Option(help="How long it is good: 30m, 24h, 7d.")] = "24h",
    mtls_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where the broker wants certificates; 0: nowhere.")
    ] = 0,
    public_ca: Annotated[
        bool, typer.Option("--public-ca", help="The broker's certificate is of a public authority.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow a broker without TLS: anyone may listen.")
    ] = False,
    reload: _Reload = "",
    db: AuditDb = "",
    as_json: _Json = False,
) -> None:
    """Print a token: whoever has it can enrol one device, once, until it expires.

    On the device: edge-agent enroll --token -    (and paste it there)

    Example:

      edge-fleet tokens create pi7 --accounts accounts --broker mqtts://broker.example
      --root sha256:0f3a... --reload "pkill -HUP mosquitto"
    """
    folder = Accounts(accounts)
    order = TokenOrder(
        fleet=fleet or _only_fleet(folder),
        device="" if device == "-" else device,
        channel=channel,
        broker=broker,
        root=check_sha256(root.removeprefix("sha256:").lower(), "--root"),
        expires_s=lifetime_s(expires),
        mtls_port=mtls_port,
        public_ca=public_ca,
        insecure=insecure,
    )
    token, text = create_token(folder, order)
    reload_broker(reload)
    if as_json:
        typer.echo(json.dumps({"id": token.id, "token": text, "expires": _when(token.expires_s)}))
    else:
        typer.echo(text)
        typer.echo(
            f"token {token.id} for {token.device or 'a device of any name'}, good once until"
            f" {_when(token.expires_s)}",
            err=True,
        )
    # Last: the token is shown this once, whatever the store says.
    noted(db, "enrolment.create", f"token {token.id}", f"device {token.device or 'of any name'}")


@app.command("list")
def list_tokens(*, accounts: _Folder, as_json: _Json = False) -> None:
    """Every token: whose it is, whether it was used and by which machine.

    Example: edge-fleet tokens list --accounts accounts
    """
    folder = Accounts(accounts)
    now_s = folder.now_s()
    rows = [
        {
            "id": token.id,
            "device": token.device or token.used_by,
            "fleet": token.fleet,
            "state": token.state(now_s),
            "expires": _when(token.expires_s),
            "used": _when(token.used_s) if token.used_s else "",
            "machine": token.machine,
        }
        for token in sorted(folder.read().tokens.values(), key=lambda each: each.created_s)
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    columns = ["id", "device", "fleet", "state", "expires", "used", "machine"]
    terminal.print_table(
        ["token", *columns[1:]], [[row[column] or "-" for column in columns] for row in rows]
    )


@app.command()
def revoke(
    tokens: Annotated[list[str], typer.Argument(metavar="ID", help="From `tokens list`.")],
    *,
    accounts: _Folder,
    reload: _Reload = "",
    db: AuditDb = "",
) -> None:
    """Make tokens void that were not used yet.

    Example: edge-fleet tokens revoke 5f0c2a --accounts accounts --reload "pkill -HUP mosquitto"
    """
    with Accounts(accounts).changing() as box:
        for token in tokens:
            box.now = registry.revoke(box.now, token)
    reload_broker(reload)
    for token in tokens:
        noted(db, "enrolment.revoke", f"token {token}")
    terminal.print_line(f"revoked {', '.join(tokens)}")


def lifetime_s(text: str) -> int:
    """Seconds that a token lives: a minute to a year. Raises InputFault."""
    value = int(durations.seconds(text, "--expires"))
    if not 60 <= value <= EXPIRES_MAX_S:
        raise InputFault(f"--expires {text[:20]!r}: expected 1m to 365d, such as 30m, 24h or 7d")
    return value


def _only_fleet(accounts: Accounts) -> str:
    fleets = sorted({each.fleet for each in accounts.read().accounts.values()})
    if len(fleets) != 1:
        raise InputFault(f"the broker has fleets {', '.join(fleets)}", advice="Name one: --fleet.")
    return fleets[0]


def _when(seconds_1970: int) -> str:
    return datetime.fromtimestamp(seconds_1970, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
