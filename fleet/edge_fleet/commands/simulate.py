"""The command ``edge-fleet simulate``: a fleet of devices that are none."""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from math import inf
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from edge_contract import broker_url
from edge_contract import bundle as bundles
from edge_contract.errors import InputFault, MachineFault
from edge_contract.names import check_name
from edge_contract.ports.disk import read_bounded
from edge_contract.topics import DEFAULT_PREFIX
from edge_fleet import terminal
from edge_fleet.options import Json, with_password
from edge_fleet.simulate.crowd import Crowd, Scene, Seen, allow_files
from edge_fleet.simulate.drawing import drift_of
from edge_fleet.stopping import stop_on_signal

SAY_S = 0.5
DEVICES_MAX = 200_000


def simulate(
    *,
    fleet: Annotated[str, typer.Option(help="Which fleet they belong to.")],
    broker: Annotated[
        str, typer.Option(envvar="EDGE_BROKER", help="mqtt://[user:password@]host[:port], mqtts://")
    ],
    bundle: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="What they run, *.edgepack; given again: versions that a rollout may name.",
        ),
    ],
    devices: Annotated[int, typer.Option(min=1, max=DEVICES_MAX, help="How many.")] = 100,
    window_s: Annotated[float, typer.Option(help="A record from each in so many seconds.")] = 300.0,
    rows: Annotated[int, typer.Option(min=1, max=10_000_000, help="Predictions a record.")] = 1000,
    drift: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FEATURE=+1sigma@SHARE",
            help="Move a feature on a share of the devices; may be given again.",
        ),
    ] = None,
    drift_after_s: Annotated[float, typer.Option(help="... from so many seconds on.")] = 0.0,
    install_s: Annotated[float, typer.Option(help="Mean time to install a version.")] = 20.0,
    failing: Annotated[
        float, typer.Option(min=0, max=1, help="Share of devices on which a new version fails.")
    ] = 0.0,
    connects_per_s: Annotated[float, typer.Option(help="How fast they connect.")] = 500.0,
    duration_s: Annotated[float, typer.Option(help="Stop after so long; 0: at a signal.")] = 0.0,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Share them among so many.")] = 1,
    names: Annotated[str, typer.Option(help="What their names begin with.")] = "sim-",
    prefix: Annotated[str, typer.Option(help="What all topics begin with.")] = DEFAULT_PREFIX,
    ca_file: Annotated[str, typer.Option(help="TLS authorities, PEM.")] = "",
    cert_file: Annotated[str, typer.Option(help="TLS client certificate of all, PEM.")] = "",
    key_file: Annotated[str, typer.Option(help="Its key, PEM.")] = "",
    passwords: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Each device has its own account: DIR/DEVICE.password, as `edge-pack"
            " broker-acl` writes them into `secrets`; default: all use the user in --broker.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Repeat a run; default: drawn.")] = None,
    as_json: Json = False,
) -> None:
    """Simulate a fleet: real connections, and real records drawn from a bundle's profile.

    Devices are born, report, send windows, and install what `edge-fleet rollout` wants of them,
    so that a rollout, the dashboard or a broker can be tried at their full number. Nothing is
    verified or run: never give them the credentials of real devices. Ctrl-C ends it in order.

    Examples:

      edge-fleet simulate --fleet try --broker mqtt://127.0.0.1 --bundle boiler-1.0.edgepack

      edge-fleet simulate --fleet try --broker mqtt://127.0.0.1 --devices 10000 --processes 2
      --bundle boiler-1.0.edgepack --bundle boiler-1.1.edgepack --failing 0.02
      --drift temperature=+1sigma@10% --seed 7

      edge-fleet simulate --fleet plant --broker mqtts://broker --ca-file accounts/tls/ca.pem
      --passwords accounts/secrets --names try- --devices 3 --bundle boiler-1.0.edgepack

    A bundle that was never published is unknown to the server: `edge-fleet fetch FILE`.
    """
    check_name(fleet, "fleet")
    check_name(f"{names}0", "device")
    if not all(0 < each < inf for each in (window_s, connects_per_s)):
        raise InputFault("--window-s and --connects-per-s must be above 0 and finite")
    if not all(0 <= each < inf for each in (install_s, duration_s, drift_after_s)):
        raise InputFault("--install-s, --duration-s and --drift-after-s must be at least 0")
    found = tuple(bundles.read(read_bounded(file, bundles.BUNDLE_MAX_BYTES)) for file in bundle)
    if len({one.manifest.name for one in found}) > 1:
        raise InputFault("the bundles are of several models; give versions of one")
    processes = min(processes, devices)
    scene = Scene(
        broker=with_password(broker_url.parse(broker)), fleet=fleet, prefix=prefix, bundles=found,
        devices=devices, window_s=window_s, rows=rows, drifts=tuple(map(drift_of, drift or ())),
        drift_after_s=drift_after_s, seed=secrets.randbits(32) if seed is None else seed,
        connects_per_s=connects_per_s / processes, install_s=install_s, failing=failing,
        duration_s=duration_s, names=names, ca_file=ca_file, cert_file=cert_file,
        key_file=key_file, passwords=passwords,
    )  # fmt: skip
    Crowd(replace(scene, devices=1), [0], boot=0)  # what is wrong with them is said before any work
    allow_files(-(-devices // processes))
    seen = _run(scene, processes, quiet=as_json)
    if as_json:
        terminal.print_json({**asdict(seen), "seed": scene.seed})
        return
    terminal.print_line(
        f"{seen.devices} devices, at most {seen.peak} connected at once, {seen.sent} records sent,"
        f" {seen.acknowledged} acknowledged, {seen.repeated} repeated, {seen.losses} connections"
        f" lost or refused, {seen.installed} versions installed, {seen.failed} failed,"
        f" {seen.seconds:.0f} s, seed {scene.seed}"
    )


def _run(scene: Scene, processes: int, *, quiet: bool) -> Seen:
    """All processes until a signal or the end; what was seen together."""
    context = multiprocessing.get_context("spawn")
    boot = int(time.time())
    latest: list[Seen] = [Seen() for _ in range(processes)]
    pipes: list[Connection] = []
    children = []
    with stop_on_signal() as stop, _shown(quiet) as show:
        for part in range(processes):
            ours, theirs = context.Pipe()
            child = context.Process(
                target=_work, args=(theirs, scene, range(part, scene.devices, processes), boot)
            )
            child.start()
            theirs.close()
            pipes.append(ours)
            children.append(child)
        told = False
        while any(child.is_alive() for child in children):
            if stop.is_set() and not told:
                told = True
                for pipe in pipes:
                    pipe.send("stop")
            for at, pipe in enumerate(pipes):
                latest[at] = _newest(pipe, latest[at])
            show(_sum(latest))
            stop.wait(SAY_S) if not told else time.sleep(SAY_S / 5)
        for at, pipe in enumerate(pipes):
            latest[at] = _newest(pipe, latest[at])
        if any(child.exitcode for child in children):
            raise MachineFault("a process of the simulation ended unasked: see above")
    return _sum(latest)


def _newest(pipe: Connection, before: Seen) -> Seen:
    try:
        while pipe.poll():
            before = pipe.recv()
    except EOFError:
        pass
    return before


def _sum(parts: list[Seen]) -> Seen:
    total = Seen()
    for part in parts:
        total = total.plus(part)
    return total


def _work(pipe: Connection, scene: Scene, numbers: range, boot: int) -> None:
    """One process: its devices, until the parent says stop or is gone."""
    with stop_on_signal():  # a Ctrl-C reaches every process of a terminal; the parent says when
        allow_files(len(numbers))
        crowd = Crowd(scene, numbers, boot=boot)
        said_s = 0.0

        def stopping() -> bool:
            nonlocal said_s
            if time.monotonic() - said_s >= SAY_S:
                said_s = time.monotonic()
                pipe.send(crowd.seen)
            return pipe.poll()

        try:
            asyncio.run(crowd.run(stopping))
            pipe.send(crowd.seen)
        except (BrokenPipeError, EOFError):
            sys.exit(1)


class _shown:  # noqa: N801 (a with statement)
    """A bar that fills as devices connect, then counts what they do."""

    def __init__(self, quiet: bool) -> None:
        self._progress = Progress(
            *Progress.get_default_columns()[:2],
            TextColumn("{task.completed}/{task.total} connected {task.fields[said]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
        )

    def __enter__(self) -> Callable[[Seen], None]:
        self._progress.start()
        return partial(self._show, self._progress.add_task("devices", said="", total=1))

    def _show(self, task: object, seen: Seen) -> None:
        self._progress.update(
            task,  # type: ignore[arg-type]
            completed=seen.connected,
            total=max(seen.devices, 1),
            said=f"{seen.acknowledged} of {seen.sent} records home",
        )

    def __exit__(self, *_raised: object) -> None:
        self._progress.stop()
