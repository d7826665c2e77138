"""``edge-pack broker-acl``: accounts, rights and settings for a broker of one's own."""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from edge_contract.access import mosquitto, passwords, registry
from edge_contract.access.registry import Account, AccountRole, Registry
from edge_contract.errors import InputFault, MachineFault
from edge_contract.names import check_name
from edge_contract.ports import certificates
from edge_contract.ports.accounts import Accounts
from edge_contract.ports.disk import read_bounded, write_atomic
from edge_contract.topics import DEFAULT_PREFIX, Topics

PLAIN_PORT, TLS_PORT, MTLS_PORT = 1883, 8883, 8884
LOOPBACK = "127.0.0.1"
WARN_BEFORE = timedelta(days=365)
CONF_MAX_BYTES = 64 * 1024
_BEGUN = ("lock", "secrets", "tls")
"""What a command that was cut off before the first account may have left."""

_HELP = """Make or change the accounts of a broker in FOLDER: who may read and write what.

Writes mosquitto's password_file, acl_file and a ready edge.conf. The publisher, the fleet server
and each device get an account of their own; a device writes only its own topics. New passwords go
into FOLDER/secrets, one file each, for their owner's eyes only: carry them to where they are used,
then delete them; the broker keeps hashes.

After a change tell mosquitto: kill -HUP. The embedded broker looks by itself:
edge-fleet broker --accounts FOLDER.

Examples:

  edge-pack broker-acl broker --fleet home --device pi1 --device pi2

  edge-pack broker-acl broker --fleet plant --tls broker.example --device gw1 --certificates

  edge-pack broker-acl broker --remove pi2

  edge-pack broker-acl broker --renew-certificates
"""

_Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of accounts.")]


def register(app: typer.Typer) -> None:
    """Add the command to ``edge-pack``."""
    app.command("broker-acl", help=_HELP)(_broker_acl)


def _broker_acl(
    folder: _Folder,
    *,
    fleet: Annotated[str, typer.Option(help="Whose accounts are to be made.")] = "",
    device: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A device. May be repeated.")
    ] = None,
    client: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Who asks the devices' models. May be repeated."),
    ] = None,
    tls: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="Name or address of the broker: makes an authority and a server certificate."
            " May be repeated.",
        ),
    ] = None,
    with_certificates: Annotated[
        bool, typer.Option("--certificates", help="A client certificate for each new account.")
    ] = False,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="An account to take away.")
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="New passwords also for accounts that there are.")
    ] = False,
    renew_certificates: Annotated[
        bool,
        typer.Option(
            "--renew-certificates",
            help="The authority's and the server's anew, for ten years: same keys and names, so"
            " that devices with the former ca.pem connect until that one ends.",
        ),
    ] = False,
    plain: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Listen without TLS here [127.0.0.1 without --tls]."),
    ] = "",
    owner: Annotated[
        str,
        typer.Option(metavar="USER", help="Who the broker runs as: may read its files then."),
    ] = "",
    prefix: Annotated[str, typer.Option(help="What every topic begins with.")] = DEFAULT_PREFIX,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    accounts = Accounts(folder.absolute())
    _must_be_ours(accounts)
    if plain:
        _check_address(plain)
    if (device or client) and not fleet:
        raise InputFault("--device and --client need --fleet")
    if not fleet and not remove and not accounts.exists:
        raise InputFault(f"{folder} holds no accounts", advice="Name a --fleet to make some.")
    if tls:
        _make_server(accounts, tuple(tls))
    if renew_certificates:
        _renew_certificates(accounts)
    if with_certificates and not accounts.ca_key.exists():
        raise InputFault(
            "--certificates needs an authority", advice="Make one: --tls NAME-OF-THE-BROKER."
        )
    wanted = _wanted(fleet, device or [], client or [], prefix) if fleet else []
    now, made = _change(accounts, wanted, remove or [], prefix=prefix, renew=renew)
    for name in made if with_certificates else ():
        _make_client(accounts, name)
    write_atomic(accounts.folder / "edge.conf", _conf(accounts, plain).encode())
    if owner:
        _give(accounts, owner)
    _print(accounts, now, made, as_json=as_json)
    _warn(accounts, datetime.now(UTC))
    if os.geteuid() == 0 and accounts.passwords.stat().st_uid == 0:
        sys.stderr.write(
            "only root can read the hashes; a mosquitto that runs as a user of its own needs"
            " --owner mosquitto\n"
        )


def _must_be_ours(accounts: Accounts) -> None:
    """No passwords among other things, least of all among the keys that sign."""
    if not accounts.exists and accounts.folder.is_dir():
        other = sorted(
            p.name for p in accounts.folder.iterdir() if p.name not in _BEGUN and p.name[0] != "."
        )
        if other:
            raise InputFault(
                f"{accounts.folder} holds no accounts but other things, such as {other[0]}",
                advice="Name a new folder, or the one of the accounts.",
            )


def _check_address(plain: str) -> None:
    try:
        ipaddress.ip_address(plain)
    except ValueError as error:
        raise InputFault(
            f"--plain {plain!r} is no address", advice="Such as 127.0.0.1 or 0.0.0.0, without port."
        ) from error


def _change(
    accounts: Accounts, wanted: list[Account], remove: list[str], *, prefix: str, renew: bool
) -> tuple[Registry, list[str]]:
    """Keep the accounts that are wanted; what there is now, and the names of new ones."""
    made: dict[str, str] = {}
    with accounts.changing(create=bool(wanted)) as box:
        if wanted:
            box.now = _with_prefix(box.now, prefix)
        for name in remove:
            box.now = registry.without_account(box.now, name)
        for account in wanted:
            known = box.now.accounts.get(account.name)
            if known is not None and not renew:
                kept = replace(account, password=known.password)
            else:
                made[account.name], kept = _with_password(account)
            box.now = registry.with_account(box.now, kept)
        # Before the hashes are kept: a password that nobody has would lock its owner out.
        for name, password in made.items():
            secret = accounts.secret(f"{name}.password")
            write_atomic(secret, password.encode() + b"\n", mode=0o600)
    return box.now, sorted(made)


def _wanted(fleet: str, devices: list[str], clients: list[str], prefix: str) -> list[Account]:
    Topics(fleet, prefix)
    named: list[tuple[str, AccountRole]] = [
        (f"{fleet}.publisher", "publisher"),
        (f"{fleet}.server", "fleet"),
        *((check_name(name, "device"), "device") for name in devices),
        *((check_name(name, "client"), "client") for name in clients),
    ]
    return [Account(name=name, role=role, fleet=fleet) for name, role in named]


def _with_prefix(known: Registry, prefix: str) -> Registry:
    if known.accounts and known.prefix != prefix:
        raise InputFault(
            f"the accounts here are for prefix {known.prefix!r}, not {prefix!r}",
            advice="Use one folder and one broker for each prefix.",
        )
    return replace(known, prefix=prefix)


def _with_password(account: Account) -> tuple[str, Account]:
    password = secrets.token_urlsafe(passwords.PASSWORD_BYTES)
    salt = secrets.token_bytes(passwords.SALT_BYTES)
    return password, replace(account, password=passwords.hashed(password, salt))


def _make_server(accounts: Accounts, hosts: tuple[str, ...]) -> None:
    tls = accounts.folder / "tls"
    if not accounts.ca_key.exists():
        certificates.make_authority(accounts.ca, accounts.ca_key, "edge-pack-broker")
    csr = certificates.make_request(tls / "server.key")
    issued = certificates.issue(accounts.ca, accounts.ca_key, csr, "broker", hosts=hosts)
    write_atomic(tls / "server.pem", issued.encode())


def _renew_certificates(accounts: Accounts) -> None:
    server = accounts.folder / "tls" / "server.pem"
    if not (accounts.ca_key.exists() and server.exists()):
        raise InputFault(
            f"{accounts.folder} holds no authority and server certificate to renew",
            advice="Make them: --tls NAME-OF-THE-BROKER.",
        )
    names = certificates.hosts(server)
    certificates.renew_authority(accounts.ca, accounts.ca_key)
    _make_server(accounts, names)


def _warn(accounts: Accounts, now: datetime) -> None:
    """Say on stderr what ends within the year: heard late, no device connects any more."""
    for what, path in (("ca.pem", accounts.ca), ("server.pem", accounts.folder / "tls/server.pem")):
        if path.exists() and (end := certificates.ends(path)) < now + WARN_BEFORE:
            sys.stderr.write(
                f"tls/{what} ends on {end:%Y-%m-%d}: --renew-certificates, then bring tls/ca.pem to"
                " the devices\n"
            )


def _make_client(accounts: Accounts, name: str) -> None:
    csr = certificates.make_request(accounts.secret(f"{name}.key"))
    issued = certificates.issue(accounts.ca, accounts.ca_key, csr, name)
    write_atomic(accounts.secret(f"{name}.pem"), issued.encode())


def _give(accounts: Accounts, owner: str) -> None:
    """Let the broker's user read what it must: the hashes and its own key."""
    key = accounts.folder / "tls" / "server.key"
    try:
        for path in (accounts.passwords, accounts.acl, *([key] if key.exists() else [])):
            shutil.chown(path, owner)
    except (LookupError, PermissionError) as error:
        raise MachineFault(
            f"cannot give {accounts.folder} to user {owner!r}: {error}",
            advice="Name a user that exists, and run this as root.",
        ) from error


def _conf(accounts: Accounts, plain: str) -> str:
    tls = (accounts.folder / "tls" / "server.pem").exists()
    plain = plain or _plain_before(accounts, tls=tls)
    return mosquitto.conf(
        mosquitto.Listeners(
            folder=str(accounts.folder),
            tls_port=TLS_PORT if tls else 0,
            mtls_port=MTLS_PORT if tls else 0,
            plain=plain or ("" if tls else LOOPBACK),
            plain_port=PLAIN_PORT,
        )
    )


def _plain_before(accounts: Accounts, *, tls: bool) -> str:
    """The address that an earlier --plain named: a new device must not shut the others out."""
    begin = f"listener {PLAIN_PORT} "
    conf = accounts.folder / "edge.conf"
    lines = read_bounded(conf, CONF_MAX_BYTES).decode().splitlines() if conf.exists() else []
    known = next((line[len(begin) :] for line in lines if line.startswith(begin)), "")
    return "" if tls and known == LOOPBACK else known


def _print(accounts: Accounts, now: Registry, made: list[str], *, as_json: bool) -> None:
    listed: dict[str, Any] = {
        each.name: {"role": each.role, "fleet": each.fleet} for each in now.accounts.values()
    }
    if as_json:
        sys.stdout.write(
            json.dumps({"folder": str(accounts.folder), "accounts": listed, "new": made}) + "\n"
        )
        return
    for name, each in sorted(listed.items()):
        new = "  new: secrets/" + name + ".password" if name in made else ""
        sys.stdout.write(f"{name:<24} {each['role']:<10} {each['fleet']}{new}\n")
    sys.stdout.write(
        f"mosquitto: include {accounts.folder}/edge.conf beside its persistence_location,"
        " and kill -HUP it after each change\n"
    )
