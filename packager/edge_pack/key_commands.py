"""``edge-pack keys``: parse, call one function, print."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_contract.topics import DEFAULT_PREFIX
from edge_pack import key_printing
from edge_pack.broker_options import (
    CaOption,
    JsonOption,
    KeysOption,
    LaterOption,
    PassphraseFile,
    PrefixOption,
    connected,
    put,
    target,
)
from edge_pack.passphrases import Asking

if TYPE_CHECKING:
    from securesystemslib.signer import Key

    from edge_release.keyring import Outcome
    from edge_release.repository import Repository

KEYS = Path("keys")
_Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of keys.")]
_MadeFolder = Annotated[
    Path, typer.Argument(metavar="DIR", envvar="EDGE_PACK_KEYS", help="The folder of keys.")
]
_Role = Annotated[
    str, typer.Argument(metavar="ROLE", help="root, targets, models, rollout, snapshot, timestamp.")
]
_Threshold = Annotated[
    int | None, typer.Option(help="How many of the role's keys must sign from then on.")
]

_HELP = """Make, replace and look at signing keys.

Examples:

  edge-pack keys init keys

  edge-pack keys status keys

  edge-pack keys rotate timestamp
"""
_INIT_HELP = """Make signing keys and an empty repository in DIR.

Prints the root's fingerprint, which devices are enrolled with. With --passphrase, --passphrase-file
or EDGE_PACK_PASSPHRASE the private keys are encrypted.

Examples:

  edge-pack keys init keys

  edge-pack keys init keys --profile managed --passphrase
"""
_STATUS_HELP = """Show each role's version, expiry and keys, and what has to be signed.

Exit code 1 when a signature has expired or is past half its life, or a change of keys waits for
signatures.

Examples:

  edge-pack keys status keys

  edge-pack keys status keys --json
"""
_ROTATE_HELP = """Replace the keys of ROLE by new ones, because they are old, lost or stolen.

Devices follow by themselves: a new root is signed by enough of the old root keys and of the new
ones. Keys of ROLE that are here are replaced; --key names one of several. Where signatures are
missing, the change waits for `edge-pack keys sign`. Then `edge-pack sync` brings it to devices.

Examples:

  edge-pack keys rotate timestamp

  edge-pack keys rotate root --key root-2
"""
_ADD_HELP = """Let one more key sign for ROLE, and say how many must.

KEY is a .pub file of a colleague; --new makes one here; --uri takes one from a hardware token or a
key service (hsm:, awskms:, gcpkms:, azurekms:, hv:, by securesystemslib's signers).

Examples:

  edge-pack keys add root anna.pub --threshold 2

  edge-pack keys add models --new models-ci

  edge-pack keys add root --uri "hsm:2?label=YubiKey+PIV" --new root-token --devices-have-fast
"""
_REMOVE_HELP = """Let a key sign for ROLE no more; KEY is its name or id in `edge-pack keys status`.

Examples:

  edge-pack keys remove root root-3

  edge-pack keys remove root root-3 --threshold 1
"""
_SIGN_HELP = """Sign the change of keys that waits, with the keys that are here.

Carry repository/pending.json to who has another key, have it signed there by the same command in a
copy of the folder (the folder `repository` and that person's keys are enough), and take it over
with --take. With enough signatures the change is made, where the online keys are.

Examples:

  edge-pack keys sign

  edge-pack keys sign --take /media/usb/pending.json

  edge-pack keys sign --discard
"""
_RENEW_HELP = """Sign anew what is past half its life and whose key is here: for cron.

Exit code 1 when something is due whose key is not here. Root and targets only with --offline: their
keys are kept away from machines that sign every day.

Examples:

  edge-pack keys renew --keys /srv/keys --fleet plant --broker mqtts://me@broker.example

  edge-pack keys renew --offline
"""


def register(app: typer.Typer) -> None:
    """Add the commands to ``edge-pack``."""
    group = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None)
    group.command("init", help=_INIT_HELP)(_init)
    group.command("status", help=_STATUS_HELP)(_status)
    group.command("rotate", help=_ROTATE_HELP)(_rotate)
    group.command("add", help=_ADD_HELP)(_add)
    group.command("remove", help=_REMOVE_HELP)(_remove)
    group.command("sign", help=_SIGN_HELP)(_sign)
    group.command("renew", help=_RENEW_HELP)(_renew)
    app.add_typer(group, name="keys")


def _init(
    folder: _Folder,
    *,
    profile: Annotated[
        str,
        typer.Option(help="home: signatures hold long; managed: short, two of three root keys."),
    ] = "home",
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Ask for a passphrase that encrypts the keys.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    from edge_release import create  # noqa: PLC0415 - needs an extra; `inspect` does not
    from edge_release.roles import PROFILES, ROOT, key_names  # noqa: PLC0415

    chosen = next((each for each in PROFILES if each == profile), None)
    if chosen is None:
        raise InputFault(f"profile {profile!r} is neither of {', '.join(PROFILES)}")
    secret = Asking(passphrase_file).for_new(ask=passphrase)
    fingerprint = create(folder, chosen, now=_now(), passphrase=secret)
    roots = [f"{name}.pem" for name in key_names(chosen, ROOT)]
    key_printing.show_made(
        folder, fingerprint, chosen, roots, encrypted=bool(secret), as_json=as_json
    )


def _status(folder: _MadeFolder = KEYS, *, as_json: JsonOption = False) -> None:
    from edge_release import fingerprint, keyring  # noqa: PLC0415
    from edge_release.repository import Repository  # noqa: PLC0415

    now = _now()
    repository = Repository(folder)
    standing = keyring.status(repository, now=now)
    root = fingerprint(repository.shelf.first_root())
    unused = keyring.unused(repository)
    key_printing.show_standing(standing, root, repository.profile, unused, now, as_json=as_json)
    if standing.lines or any(row.renew for row in standing.roles):
        raise typer.Exit(1)


def _rotate(
    role: _Role,
    *,
    key: Annotated[str, typer.Option(help="Name or id of the one key to replace.")] = "",
    keys: KeysOption = KEYS,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    from edge_release import keyring  # noqa: PLC0415

    asking = Asking(passphrase_file)
    repository = _open(keys, asking)
    with repository.locked():
        secret = _for_new(repository, asking)
        outcome = keyring.rotate(repository, role, name=key, passphrase=secret, now=_now())
    key_printing.show_outcome(outcome, repository, as_json=as_json)


def _add(
    role: _Role,
    key: Annotated[Path | None, typer.Argument(metavar="KEY", help="A .pub file.")] = None,
    *,
    new: Annotated[str, typer.Option(metavar="NAME", help="Make a key of that name here.")] = "",
    uri: Annotated[str, typer.Option(help="A key in a token or key service.")] = "",
    threshold: _Threshold = None,
    devices_have_fast: Annotated[
        bool,
        typer.Option(
            "--devices-have-fast",
            help="Every device has edge-pack[fast], and so checks other keys than Ed25519.",
        ),
    ] = False,
    keys: KeysOption = KEYS,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    from edge_release import ceremony, keyring  # noqa: PLC0415

    ceremony.check_role(role)
    asking = Asking(passphrase_file)
    repository = _open(keys, asking)
    with repository.locked():
        keyring.check_nothing_waits(repository)
        added = _added(repository, role, asking, key=key, new=new, uri=uri)
        about = {"role": role, "added": " ".join(each.keyid for each in added)}
        if threshold is not None:
            about["threshold"] = str(threshold)
        outcome = keyring.change(
            repository, role, "add", about, add=added, threshold=threshold,
            allow_extra=devices_have_fast, now=_now(),
        )  # fmt: skip
    key_printing.show_outcome(outcome, repository, as_json=as_json)


def _added(
    repository: Repository, role: str, asking: Asking, *, key: Path | None, new: str, uri: str
) -> list[Key]:
    """The key that these options name; none where only the threshold changes."""
    from edge_release import ring  # noqa: PLC0415
    from edge_release.keys import KEY_MAX_BYTES  # noqa: PLC0415

    if key is not None and (new or uri):
        raise InputFault("KEY, --new and --uri are ways to name one key: pass one")
    if key is not None:
        found, place = ring.public_of(read_bounded(key, KEY_MAX_BYTES), str(key))
        known = repository.ring.entries().get(found.keyid)
        return [known.key if known else repository.ring.add(key.stem, found, place).key]
    if uri:
        found, place = ring.from_uri(uri, asking)
        known = repository.ring.entries().get(found.keyid)
        name = new or repository.ring.fresh_name(role)
        return [known.key if known else repository.ring.add(name, found, place).key]
    if new:
        return [repository.ring.generate(new, _for_new(repository, asking)).key]
    return []


def _remove(
    role: _Role,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its name or id.")],
    *,
    threshold: _Threshold = None,
    keys: KeysOption = KEYS,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    from edge_release import keyring  # noqa: PLC0415

    repository = _open(keys, Asking(passphrase_file))
    with repository.locked():
        keyid = keyring.find(repository, role, key)
        about = {"role": role, "removed": keyid}
        if threshold is not None:
            about["threshold"] = str(threshold)
        outcome = keyring.change(
            repository, role, "remove", about, drop=[keyid], threshold=threshold, now=_now()
        )
    key_printing.show_outcome(outcome, repository, as_json=as_json)


def _sign(
    *,
    take: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Another copy of pending.json, signed elsewhere."),
    ] = None,
    discard: Annotated[bool, typer.Option("--discard", help="Drop the change instead.")] = False,
    keys: KeysOption = KEYS,
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    from edge_release import keyring  # noqa: PLC0415

    repository = _open(keys, Asking(passphrase_file))
    with repository.locked():
        if discard:
            key_printing.show_discarded(there=keyring.discard(repository), as_json=as_json)
            return
        outcome: Outcome = keyring.sign(repository, take=take, now=_now())
    key_printing.show_outcome(outcome, repository, as_json=as_json)


def _renew(
    *,
    keys: KeysOption = KEYS,
    offline: Annotated[
        bool, typer.Option("--offline", help="Root and targets too, where they are due.")
    ] = False,
    fleet: Annotated[
        list[str] | None, typer.Option(help="Bring it to this fleet; may be repeated.")
    ] = None,
    broker: LaterOption = "",
    prefix: PrefixOption = DEFAULT_PREFIX,
    ca: CaOption = "",
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    from edge_release import keyring, overview  # noqa: PLC0415
    from edge_release.roles import ROOT, TARGETS  # noqa: PLC0415

    if bool(broker) != bool(fleet):
        raise InputFault("--broker and --fleet go together: whom the renewal is brought to")
    targets = [target(broker, each, prefix, ca) for each in fleet or ()]
    repository = _open(keys, Asking(passphrase_file))
    with repository.locked():
        for name in fleet or ():
            overview.check_fleet(repository, name)
        rows = keyring.status(repository, now=_now()).roles
        due = [row for row in rows if row.renew and row.role in (ROOT, TARGETS)]
        outcome = None
        if offline and due:
            outcome = keyring.renew(repository, [row.role for row in due], now=_now())
            due = [] if outcome.done else due
        renewed = repository.renew(now=_now())
        for each in targets:
            with connected(repository, each) as link:
                put(repository, each, link, f"syncing fleet {each.topics.fleet}")
    late = (*(row.role for row in due), *renewed.due)
    key_printing.show_renewed(renewed, outcome, late, as_json=as_json)
    if late:
        raise typer.Exit(1)


def _for_new(repository: Repository, asking: Asking) -> str:
    """The passphrase for a key made beside others: asked for where they have one."""
    return asking.for_new(ask=repository.ring.encrypts)


def _open(keys: Path, asking: Asking) -> Repository:
    from edge_release.repository import Repository  # noqa: PLC0415

    return Repository(keys, secrets=asking)


def _now() -> datetime:
    return datetime.now(UTC)
