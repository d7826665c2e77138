"""``edge-pack mirror export`` and ``edge-pack mirror set``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from edge_contract.topics import DEFAULT_PREFIX
from edge_pack.broker_options import (
    CaOption,
    ChannelOption,
    FleetOption,
    JsonOption,
    KeysOption,
    LaterOption,
    PassphraseFile,
    PrefixOption,
    bar,
    signed,
    target,
)
from edge_pack.key_printing import print_json
from edge_pack.passphrases import Asking

KEYS = Path("keys")

_EXPORT_HELP = """Write what an HTTP(S) mirror serves: every file that the fleet's channels name.

Any web server that knows ranges will do, and any object store. Serve DIR at an address, and name
that address with `edge-pack mirror set`. The same command again adds what is new.

Examples:

  edge-pack mirror export /srv/www/edge --fleet home

  edge-pack mirror export /srv/www/edge --fleet home --prune --json
"""
_SET_HELP = """Sign the addresses of the mirrors of a channel; without any: there are none.

A device asks them for what its broker has not, and first for bundles over [download]
http_above_bytes. It believes neither: every chunk is compared with what was signed.

Examples:

  edge-pack mirror set https://files.example/edge --fleet home --broker mqtts://me@broker.example

  edge-pack mirror set --fleet home --broker mqtt://localhost
"""


def register(app: typer.Typer) -> None:
    """Add the commands to ``edge-pack``."""
    group = typer.Typer(
        help="HTTP(S) servers that have the bundles' files too.\n\n"
        "Example: edge-pack mirror export /srv/www/edge --fleet home",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("export", help=_EXPORT_HELP)(_export)
    group.command("set", help=_SET_HELP)(_set)
    app.add_typer(group, name="mirror")


def _export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What the web server serves.")],
    *,
    fleet: FleetOption,
    keys: KeysOption = KEYS,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove files that this fleet names no more.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    from edge_release import mirror, overview  # noqa: PLC0415 - `inspect` needs no extra
    from edge_release.repository import Repository  # noqa: PLC0415

    repository = Repository(keys)
    with repository.locked(), bar(f"writing {folder}") as progress:
        overview.check_fleet(repository, fleet)
        done = mirror.export(repository, fleet, folder, prune=prune, progress=progress)
    if as_json:
        print_json(asdict(done))
        return
    sys.stdout.write(
        f"wrote {done.written} files, {done.written_bytes:,} bytes; {done.kept} were there already,"
        f" {done.removed} removed\n"
    )


def _set(
    addresses: Annotated[
        list[str] | None, typer.Argument(metavar="[URL]...", help="Such as https://host/path.")
    ] = None,
    *,
    fleet: FleetOption,
    channel: ChannelOption = "stable",
    keys: KeysOption = KEYS,
    broker: LaterOption = "",
    prefix: PrefixOption = DEFAULT_PREFIX,
    ca: CaOption = "",
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    from edge_release.repository import Repository  # noqa: PLC0415

    chosen = target(broker, fleet, prefix, ca) if broker else None
    repository = Repository(keys, secrets=Asking(passphrase_file))
    named = addresses or []
    changed, _, _ = signed(
        repository,
        chosen,
        f"mirrors of {fleet}",
        lambda: repository.set_mirrors(named, fleet, channel, now=datetime.now(UTC)),
    )
    if as_json:
        found = {"fleet": fleet, "channel": channel, "mirrors": named, "signed": changed}
        print_json({**found, "put": chosen is not None})
        return
    listed = ", ".join(named) or "none"
    later = "" if chosen else "; bring it to devices with `edge-pack sync`"
    sys.stdout.write(f"mirrors of channel {channel} of fleet {fleet}: {listed}{later}\n")
