"""``edge-pack publish``, ``promote``, ``floor``, ``sync``, ``gc``, ``status`` and ``audit``."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_contract import bundle as bundles
from edge_contract.errors import InputFault, PeerFault
from edge_contract.names import check_name
from edge_contract.ports.disk import read_bounded
from edge_contract.topics import DEFAULT_PREFIX
from edge_pack import key_commands, release_printing
from edge_pack.broker_options import (
    BrokerOption,
    CaOption,
    ChannelOption,
    FleetOption,
    JsonOption,
    KeysOption,
    LaterOption,
    NewFleetOption,
    PassphraseFile,
    PrefixOption,
    Target,
    bar,
    connected,
    put,
    signed,
    target,
)
from edge_pack.passphrases import Asking

if TYPE_CHECKING:
    from edge_release.repository import Published, Repository

KEYS = Path("keys")
_Release = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="Such as pump@1.2.")]

_PUBLISH_HELP = """Sign BUNDLE and put it on a broker, for the devices of a fleet to pull.

The same command again is harmless: it puts back what the broker lost. The broker's password may
be given in the environment as EDGE_PACK_PASSWORD.

Examples:

  edge-pack publish pump.edgepack --broker mqtt://localhost --fleet home

  edge-pack publish pump-2.edgepack --broker mqtts://me@broker.example --fleet home --candidate

  edge-pack publish pump.edgepack --broker mqtt://localhost --fleet plant --new-fleet
"""
_PROMOTE_HELP = """Make a version that was published before the stable one of a channel.

Also the way back: an older version, down to the floor.

Examples:

  edge-pack promote pump@2.0 --fleet home --broker mqtt://localhost

  edge-pack promote pump@1.9 --fleet home --channel beta --broker mqtts://me@broker.example
"""
_FLOOR_HELP = """Let no device run a version older than NAME@VERSION; a floor only rises.

Example: edge-pack floor set pump@1.5 --fleet home --broker mqtt://localhost
"""
_SYNC_HELP = """Put on a broker what it lost of what is published, and nothing else.

Signs snapshot and timestamp anew when they are past half their life and their keys are here.

A broker that holds a newer state, signed by another copy of the keys, is not touched. Is that copy
lost, and this one from a backup: --overtake signs this state under versions above the broker's.

A fleet that keys of another root published is not touched either, by no command: its devices would
refuse these. --replace puts this publisher in the other's place all the same.

Examples:

  edge-pack sync --fleet home --broker mqtt://localhost

  edge-pack sync --fleet home --broker mqtt://localhost --overtake
"""
_GC_HELP = """Remove what no version that a device may run needs, from the broker and from the disk.

A channel keeps its stable version, its candidate and --keep former ones; older ones can be named no
more, and may be published again.

Examples:

  edge-pack gc --fleet home --broker mqtt://localhost --dry-run

  edge-pack gc --fleet home --broker mqtt://localhost --keep 2
"""
_STATUS_HELP = """Show what is published on each fleet and channel.

With --broker and --fleet: also whether that broker holds all of it; exit code 1 when it does not.

Examples:

  edge-pack status --keys keys

  edge-pack status --fleet home --broker mqtt://localhost --json
"""
_AUDIT_HELP = """Show who published, promoted, rotated what, and when.

--verify: exit code 1 when an entry was altered, removed, moved or cut off.

Examples:

  edge-pack audit --keys keys

  edge-pack audit --keys keys --verify --json
"""


def register(app: typer.Typer) -> None:
    """Add the commands to ``edge-pack``."""
    key_commands.register(app)
    app.command("publish", help=_PUBLISH_HELP)(_publish)
    app.command("promote", help=_PROMOTE_HELP)(_promote)
    floor = typer.Typer(
        help="The oldest version that devices may run.\n\n"
        "Example: edge-pack floor set pump@1.5 --fleet home",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    floor.command("set", help=_FLOOR_HELP)(_floor)
    floor.callback()(lambda: None)  # `floor set`, although it is the only one
    app.add_typer(floor, name="floor")
    app.command("sync", help=_SYNC_HELP)(_sync)
    app.command("gc", help=_GC_HELP)(_gc)
    app.command("status", help=_STATUS_HELP)(_status)
    app.command("audit", help=_AUDIT_HELP)(_audit)


def _publish(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="An .edgepack file.")],
    *,
    broker: BrokerOption,
    fleet: FleetOption,
    new_fleet: NewFleetOption = False,
    channel: ChannelOption = "stable",
    keys: KeysOption = KEYS,
    candidate: Annotated[
        bool, typer.Option("--candidate", help="Only a rollout may choose it.")
    ] = False,
    prefix: PrefixOption = DEFAULT_PREFIX,
    ca: CaOption = "",
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    from edge_release import overview  # noqa: PLC0415 - `inspect` needs no extra

    chosen = target(broker, fleet, prefix, ca)
    opened = bundles.read(read_bounded(bundle, bundles.BUNDLE_MAX_BYTES))
    repository = _open(keys, passphrase_file)

    def change() -> Published:
        overview.check_fleet(repository, fleet, new=new_fleet)
        return repository.publish(
            opened, fleet=fleet, channel=channel, candidate=candidate, now=_now()
        )

    published, synced, seconds = signed(
        repository,
        chosen,
        f"publishing {opened.manifest.name} {opened.manifest.version}",
        change,
    )
    role = "candidate" if candidate else "stable"
    release_printing.show_published(published, synced, seconds, role, as_json=as_json)


def _promote(
    release: _Release,
    *,
    fleet: FleetOption,
    new_fleet: NewFleetOption = False,
    channel: ChannelOption = "stable",
    keys: KeysOption = KEYS,
    broker: LaterOption = "",
    prefix: PrefixOption = DEFAULT_PREFIX,
    ca: CaOption = "",
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    from edge_release import overview  # noqa: PLC0415 - `inspect` needs no extra
    from edge_release.pointers import Place  # noqa: PLC0415

    model, version = _split(release)
    chosen = target(broker, fleet, prefix, ca) if broker else None
    repository = _open(keys, passphrase_file)
    place = Place(fleet, channel, model)

    def change() -> Published:
        overview.check_fleet(repository, fleet, new=new_fleet)
        return repository.promote(version, place, now=_now())

    published, synced, seconds = signed(
        repository,
        chosen,
        f"promoting {release}",
        change,
    )
    release_printing.show_published(published, synced, seconds, "stable", as_json=as_json)


def _floor(
    release: _Release,
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
    from edge_release.pointers import Place  # noqa: PLC0415

    model, version = _split(release)
    chosen = target(broker, fleet, prefix, ca) if broker else None
    repository = _open(keys, passphrase_file)
    place = Place(fleet, channel, model)
    published, synced, seconds = signed(
        repository,
        chosen,
        f"floor {release}",
        lambda: repository.set_floor(version, place, now=_now()),
    )
    release_printing.show_published(
        published, synced, seconds, "stable", floor=version, as_json=as_json
    )


def _sync(
    *,
    fleet: FleetOption,
    broker: BrokerOption,
    overtake: Annotated[
        bool, typer.Option("--overtake", help="The newer copy of the keys is lost.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="The broker's other publisher is gone for good.")
    ] = False,
    keys: KeysOption = KEYS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    ca: CaOption = "",
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    from edge_release import overtake as overtaking  # noqa: PLC0415
    from edge_release import overview  # noqa: PLC0415

    chosen = target(broker, fleet, prefix, ca)
    repository = _open(keys, passphrase_file)
    started = time.monotonic()
    with repository.locked(), connected(repository, chosen, replace=replace) as link:
        assert link is not None
        overview.check_fleet(repository, fleet)
        if overtake:
            overtaking.overtake(repository, chosen.topics, link, now=_now())
        renewed = repository.renew(now=_now())
        synced = put(repository, chosen, link, f"syncing fleet {fleet}")
    assert synced is not None
    release_printing.show_synced(renewed, synced, time.monotonic() - started, as_json=as_json)


def _gc(
    *,
    fleet: FleetOption,
    broker: Annotated[
        str, typer.Option(help="Such as mqtts://me@host. Needed, but for --dry-run.")
    ] = "",
    keep: Annotated[int, typer.Option(min=0, help="Former versions that stay.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    keys: KeysOption = KEYS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    ca: CaOption = "",
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    from edge_release import garbage, overview  # noqa: PLC0415

    if not broker and not dry_run:
        raise InputFault("gc removes from a broker: name it with --broker, or pass --dry-run")
    chosen = target(broker or "mqtt://localhost", fleet, prefix, ca)
    repository = _open(keys, passphrase_file)
    with repository.locked():
        overview.check_fleet(repository, fleet)
        dropped = garbage.forgettable(repository, fleet, keep)
        if dry_run:
            found = garbage.find(repository, chosen.topics, keep=keep)
            release_printing.show_garbage(found, dropped, dry_run=True, as_json=as_json)
            return
        with connected(repository, chosen) as link:
            assert link is not None
            repository.trim(keep, [fleet], now=_now())
            put(repository, chosen, link, f"syncing fleet {fleet}")
            found = garbage.find(repository, chosen.topics)
            with bar("removing from the broker", in_bytes=False) as progress:
                garbage.clear(link, found, progress=progress)
        garbage.remove(found)
    release_printing.show_garbage(found, dropped, dry_run=False, as_json=as_json)


def _status(
    *,
    keys: KeysOption = KEYS,
    fleet: Annotated[str, typer.Option(help="Only this fleet.")] = "",
    broker: Annotated[str, typer.Option(help="See whether it holds all of the fleet.")] = "",
    prefix: PrefixOption = DEFAULT_PREFIX,
    ca: CaOption = "",
    as_json: JsonOption = False,
) -> None:
    from edge_release import overview  # noqa: PLC0415

    if broker and not fleet:
        raise InputFault("--broker needs --fleet: each fleet may have a broker of its own")
    repository = _open(keys, None)
    if fleet:
        overview.check_fleet(repository, fleet)
    lines = [line for line in overview.lines(repository) if fleet in ("", line.fleet)]
    held = None
    if broker:
        held = _compared(repository, target(broker, fleet, prefix, ca))
    release_printing.show_overview(lines, held, as_json=as_json)
    if held is not None and not held.in_sync:
        raise typer.Exit(1)


def _compared(repository: Repository, chosen: Target) -> release_printing.Held:
    from edge_release.publication import check_publisher, compare  # noqa: PLC0415

    with connected(repository, chosen, replace=True) as link, bar("comparing") as progress:
        assert link is not None
        try:
            check_publisher(repository, chosen.topics, link, look_only=True)
            missing = compare(repository, chosen.topics, link, progress=progress)
        except (InputFault, PeerFault) as fault:
            return release_printing.Held(False, fault.what)
    if not missing.put_messages:
        return release_printing.Held(True)
    return release_printing.Held(
        False,
        f"{missing.put_messages} messages, {missing.put_bytes:,} bytes are missing or different",
        missing.put_messages,
        missing.put_bytes,
    )


def _audit(
    *,
    keys: KeysOption = KEYS,
    verify: Annotated[
        bool, typer.Option("--verify", help="Exit code 1 when the log was altered.")
    ] = False,
    last: Annotated[int, typer.Option(min=1, help="Show that many of the newest.")] = 50,
    as_json: JsonOption = False,
) -> None:
    from edge_release import audit  # noqa: PLC0415

    shelf = _open(keys, None).shelf
    state = shelf.read()
    checked = audit.check(shelf.log(), shelf.head(state.timestamp))
    release_printing.show_audit(checked, last, verify=verify, as_json=as_json)
    if verify and checked.faults:
        raise typer.Exit(1)


def _open(keys: Path, passphrase_file: Path | None) -> Repository:
    from edge_release.repository import Repository  # noqa: PLC0415

    return Repository(keys, secrets=Asking(passphrase_file))


def _split(release: str) -> tuple[str, str]:
    model, sign, version = release.partition("@")
    if not sign:
        raise InputFault(f"{release!r} is not NAME@VERSION", advice="Such as pump@1.2.")
    return check_name(model, "model"), check_name(version, "version")


def _now() -> datetime:
    return datetime.now(UTC)
