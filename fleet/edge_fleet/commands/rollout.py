"""``edge-fleet rollout``: begin a rollout, see how it stands, and have a word in it.

What a person says is kept in the store; `edge-fleet serve` does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_contract import broker_url
from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.topics import DEFAULT_PREFIX, Topics
from edge_fleet import terminal
from edge_fleet.opening import opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms, user, with_password
from edge_fleet.rollouts import facts, gates, publication, standing, words
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts.order import ORDER_MAX_BYTES, Order
from edge_fleet.rollouts.publication import Channels
from edge_fleet.rollouts.state import Rollout
from edge_fleet.rollouts.words import Saying, Word
from edge_fleet.store.base import Store

app = typer.Typer(
    help="A version to some devices, then to more, for as long as nothing speaks against it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Number = Annotated[int, typer.Argument(help="Its number; 0: the newest one.")]
One = Annotated[int, typer.Argument(help="Its number; without one, or 0: all.")]

Broker = Annotated[
    str, typer.Option(envvar="EDGE_BROKER", help="Where to see whether it is published.")
]
Unchecked = Annotated[
    bool, typer.Option("--unchecked", help="Do not look whether it is published.")
]
Prefix = Annotated[str, typer.Option(help="What all topics begin with.")]
CaFile = Annotated[str, typer.Option(help="TLS authorities, PEM.")]


@app.command()
def start(
    version: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="What.")] = "",
    *,
    fleet: Annotated[str, typer.Option(help="Which fleet; default: the database's.")] = "",
    waves: Annotated[str, typer.Option(help="Devices in all, or a share of those selected.")] = "",
    select: Annotated[
        str, typer.Option(help='Labels, hw, device, agent or system: "site=lyon and hw=aarch64".')
    ] = "",
    bake: Annotated[
        str, typer.Option(help="How long each wave is looked at: 90s, 15m, 2h, 1d.")
    ] = "",
    policy: Annotated[
        str, typer.Option(help="When a gate fails: halt, rollback, rollback-all or wait.")
    ] = "",
    per_site: Annotated[
        int, typer.Option(min=0, help="At most so many devices of a site at once; 0: any.")
    ] = 0,
    slot: Annotated[
        str, typer.Option(help="When, by the time of a device's label `zone`: 22:00-04:00.")
    ] = "",
    spread: Annotated[str, typer.Option(help="Each device waits up to so long.")] = "",
    approve: Annotated[
        bool, typer.Option("--approve", help="A person lets each further wave begin.")
    ] = False,
    shadow: Annotated[
        str, typer.Option(help="First beside the live version, unheard: share of requests, 10%.")
    ] = "",
    ab: Annotated[
        str, typer.Option("--ab", help="First answering a share of the requests, 20%.")
    ] = "",
    on: Annotated[str, typer.Option("--on", help="On so many devices; without it 10%.")] = "",
    gate: Annotated[
        list[str] | None,
        typer.Option("--gate", metavar="NAME=LIMIT", help="latency=1.5, drift=off; repeatable."),
    ] = None,
    queue: Annotated[
        bool, typer.Option("--queue", help="Wait for the rollout that holds these devices.")
    ] = False,
    then: Annotated[
        str,
        typer.Option(help="Afterwards: stay at the version, or follow the channel once it has it."),
    ] = "",
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="All of that, and gates: .toml, .yaml."),
    ] = None,
    broker: Broker = "",
    unchecked: Unchecked = False,
    prefix: Prefix = DEFAULT_PREFIX,
    ca_file: CaFile = "",
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Begin a rollout; `edge-fleet serve` carries it out.

    The version has to be signed: `edge-pack publish FILE --candidate`. Options stand over what the
    file says.

    Examples:

      edge-fleet rollout start pump@2.0 --waves 1,5%,25%,100% --bake 2h

      edge-fleet rollout start pump@2.0 --select 'site=lyon and hw=aarch64' --per-site 5 --slot
      22:00-04:00

      edge-fleet rollout start pump@2.0 --shadow 10% --on 5 --gate latency=2 --gate drift=off

      edge-fleet rollout start --file pump-2.yaml --policy rollback

      edge-fleet rollout start pump@2.1 --queue --then channel
    """
    values: dict[str, Any] = {}
    if file is not None:
        from edge_fleet.rollouts import files  # noqa: PLC0415 (its library is an extra)

        values = files.read(file.name, read_bounded(file, ORDER_MAX_BYTES))
    said = {
        "version": version, "fleet": fleet, "waves": waves, "select": select, "bake": bake,
        "slot": slot, "spread": spread, "policy": policy, "per_site": per_site or None,
        "approve": approve or None, "queue": queue or None, "then": then,
        "shadow": shadow, "ab": ab, "on": on,
    }  # fmt: skip
    values |= orders.given(orders.texts(**{k: v for k, v in said.items() if v}))
    values["gates"] = orders.with_limits(values.get("gates", orders.Gates()), gate or ())
    with opened(db) as store:
        owner = store.settings().get("fleet", "")
        order = orders.made(**{"fleet": owner, **values})
        if owner != order.fleet:
            raise InputFault(f"{store} belongs to fleet {owner!r}, not {order.fleet!r}")
        if not unchecked:
            channels = _channels(store, broker, prefix, ca_file)
            order = publication.with_it(order, channels.found(order))
        found = begin(store, order, now_ms())
    _show(found, as_json=as_json)


@app.command()
def status(number: One = 0, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """How rollouts stand: waves, devices, and what each gate says. Without a number: all.

    Exit code 1: the one named (or, of all, the newest) was halted, rolled back or waits.

    Examples:

      edge-fleet rollout status

      edge-fleet rollout status 3 --json
    """
    with opened(db) as store, store.reading() as tx:
        every = facts.everything(tx)
        chosen = [_pick(every, number)] if number else every
        found = [standing.of(one, words.reports_of(tx, one, every), now_ms()) for one in chosen]
    if as_json:
        terminal.print_json(found)
    elif not found:
        terminal.print_line("no rollout yet: see `edge-fleet rollout start --help`")
    for one in [] if as_json else found:
        _print(one)
    if found and found[-1].phase in ("halted", "waiting", "rolling-back", "rolled-back"):
        raise typer.Exit(1)


@app.command()
def pause(number: Number = 0, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Ask no more devices until `resume`; what is under way on devices goes on.

    Example: edge-fleet rollout pause 3
    """
    _say(db, number, as_json, "pause")


@app.command()
def resume(number: Number = 0, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Go on, or let the next wave begin. Gates that fail now are passed over in this wave.

    Example: edge-fleet rollout resume
    """
    _say(db, number, as_json, "resume")


@app.command()
def approve(number: Number = 0, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Let it go on where it waits for a person; `resume` does that too, and ends a pause.

    Example: edge-fleet rollout approve 3
    """
    _say(db, number, as_json, "approve")


@app.command()
def abort(number: Number = 0, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """End it: who has installed the version keeps it, the others are called back.

    Example: edge-fleet rollout abort
    """
    _say(db, number, as_json, "abort")


@app.command()
def rollback(number: Number = 0, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """All its devices go back to what they followed before; also after it finished.

    Example: edge-fleet rollout rollback 3
    """
    _say(db, number, as_json, "rollback")


@app.command()
def release(
    number: Number = 0,
    *,
    broker: Broker = "",
    unchecked: Unchecked = False,
    prefix: Prefix = DEFAULT_PREFIX,
    ca_file: CaFile = "",
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Its devices follow their channel again, instead of the version itself.

    Refused where a channel names another version as stable: devices would leave this one.

    Example: edge-fleet rollout release 3
    """
    with opened(db) as store:
        with store.reading() as tx:
            one = _pick(facts.everything(tx), number)
        promoted = None
        if not unchecked:
            promoted = _channels(store, broker, prefix, ca_file).promoted(one.order)
        by = Saying(user(), now_ms(), promoted=promoted)
        found = words.say(store, one.id, "release", by)
    _show(found, as_json=as_json)


def _channels(store: Store, broker: str, prefix: str, ca_file: str) -> Channels:
    settings = store.settings()
    fleet = settings.get("fleet", "")
    link = LinkConfig(
        broker=with_password(
            broker_url.parse(broker or settings.get("broker", "mqtt://127.0.0.1"))
        ),
        client_id=f"edge-fleet-{fleet}-published", ca_file=ca_file,
    )  # fmt: skip
    return Channels(link, Topics(fleet, prefix))


def begin(store: Store, order: Order, at_ms: int) -> standing.Standing:
    """Keep a new rollout. Raises Refused when it may not begin."""
    with store.transaction() as tx:
        return words.begin(tx, order, user(), at_ms)


def _say(db: str, number: int, as_json: bool, word: Word) -> None:
    with opened(db) as store:
        with store.reading() as tx:
            number = _pick(facts.everything(tx), number).id
        found = words.say(store, number, word, Saying(user(), now_ms()))
    _show(found, as_json=as_json)


def _pick(every: list[Rollout], number: int) -> Rollout:
    found = [one for one in every if number in (0, one.id)]
    if not found:
        known = ", ".join(str(one.id) for one in every) or "none yet"
        raise InputFault(f"there is no rollout {number or ''}".rstrip() + f"; known: {known}")
    return found[-1]


def _show(found: standing.Standing, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(found)
    else:
        _print(found)


def _print(found: standing.Standing) -> None:
    terminal.print_line(
        f"rollout {found.id}: {found.model} {found.version} is {found.phase},"
        f" wave {found.wave} of {found.waves}: {found.reason}"
    )
    devices = _counts(found.devices)
    terminal.print_line(f"devices: {found.selected} selected, of them {devices}")
    if found.unable_said:
        terminal.print_line(f"of them {found.unable_said}")
    if found.phase not in ("queued", "released"):
        terminal.print_table(
            ["wave", "stage", "devices in all", "members"],
            [
                [str(wave.number), wave.stage, str(wave.size), _counts(wave.devices)]
                for wave in found.each
            ],
        )
    if found.gates:
        terminal.print_table(
            ["gate", "says", "why"], [[gate.gate, gate.state, gate.said] for gate in found.gates]
        )


def _counts(devices: Mapping[gates.Standing, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in devices.items()) or "none yet"
