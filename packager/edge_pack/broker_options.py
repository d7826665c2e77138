"""The options of every command that talks to a broker as the publisher."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from edge_contract import broker_url
from edge_contract.broker_url import BrokerUrl
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.topics import DEFAULT_PREFIX, Topics

if TYPE_CHECKING:
    from edge_contract.ports.retained import Retained
    from edge_release.publication import Synced
    from edge_release.repository import Repository

T = TypeVar("T")

PASSWORD_VARIABLE = "EDGE_PACK_PASSWORD"  # noqa: S105 - the name of a variable

KeysOption = Annotated[
    Path, typer.Option("--keys", metavar="DIR", help="The folder of keys.", envvar="EDGE_PACK_KEYS")
]
BrokerOption = Annotated[str, typer.Option(help="Such as mqtt://localhost or mqtts://me@host.")]
LaterOption = Annotated[
    str,
    typer.Option(help="Such as mqtts://me@host. Without it: sign only, `edge-pack sync` later."),
]
PrefixOption = Annotated[str, typer.Option(help="What every topic begins with.")]
CaOption = Annotated[str, typer.Option(metavar="FILE", help="Authority of an mqtts broker.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Holds the keys' passphrase. Else EDGE_PACK_PASSPHRASE, or you are asked.",
    ),
]
FleetOption = Annotated[str, typer.Option(help="Whose devices it is for.")]
ChannelOption = Annotated[str, typer.Option(help="Which of the fleet's channels.")]
NewFleetOption = Annotated[
    bool, typer.Option("--new-fleet", help="Nothing was published for this fleet before.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@dataclass(frozen=True)
class Target:
    """A fleet on a broker."""

    topics: Topics
    link: LinkConfig


def target(broker: str, fleet: str, prefix: str = DEFAULT_PREFIX, ca: str = "") -> Target:
    """The fleet on the broker of these options. Raises InputFault when one is wrong."""
    return Target(
        Topics(fleet, prefix),
        LinkConfig(
            broker=_with_password(broker_url.parse(broker)),
            client_id=f"edge-pack-{secrets.token_hex(4)}",
            ca_file=ca,
        ),
    )


@contextmanager
def connected(
    repository: Repository, chosen: Target | None, *, replace: bool = False
) -> Iterator[Retained | None]:
    """A connection, made before anything is signed; None where no broker was named.

    Raises InputFault when the broker holds this fleet of another publisher, unless ``replace``.
    """
    from edge_release import publication  # noqa: PLC0415 - `inspect` needs no extra

    if chosen is None:
        yield None
        return
    with publication.connect(chosen.link, chosen.topics) as broker:
        if not replace:
            publication.check_publisher(repository, chosen.topics, broker)
        yield broker


def put(
    repository: Repository, chosen: Target | None, broker: Retained | None, title: str
) -> Synced | None:
    """Bring the repository's state to the broker, with a bar; None where there is no broker."""
    from edge_release.publication import sync  # noqa: PLC0415

    if chosen is None or broker is None:
        return None
    with bar(title) as progress:
        return sync(repository, chosen.topics, broker, progress=progress)


def signed(
    repository: Repository, chosen: Target | None, title: str, change: Callable[[], T]
) -> tuple[T, Synced | None, float]:
    """Sign a change and put it on the broker, if one is named; and the seconds that took."""
    started = time.monotonic()
    with repository.locked(), connected(repository, chosen) as link:
        made = change()
        synced = put(repository, chosen, link, title)
    return made, synced, time.monotonic() - started


@contextmanager
def bar(title: str, *, in_bytes: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, on a terminal only."""
    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn()]
    if in_bytes:
        columns += [DownloadColumn(), TransferSpeedColumn()]
    else:
        columns += [TextColumn("{task.completed}/{task.total}")]
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _with_password(url: BrokerUrl) -> BrokerUrl:
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password or url.password:
        return url
    return BrokerUrl(url.host, url.port, url.tls, url.user, password)
