"""The commands ``install-service`` and ``uninstall-service``: parse, call, run systemctl, print."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_agent import config as configs
from edge_agent import service as services
from edge_agent.service import Service
from edge_agent.settings import DEFAULT_FOLDER
from edge_contract.errors import InputFault, MachineFault

BOOTED = Path("/run/systemd/system")
"""There when systemd is the init: sd_booted(3)."""
_ROOT = Path("/")

ConfigPath = Annotated[
    Path, typer.Option("--config", help="Settings, as the service will see them.")
]
Prefix = Annotated[
    Path, typer.Option(help="Root of the file system to install into, such as an image's.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done; do nothing.")]


def install_service(
    *,
    user: Annotated[
        str, typer.Option(help="Run as this user, who exists.", show_default=False)
    ] = "",
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Run as a user that systemd makes up: the default.")
    ] = False,
    config: ConfigPath = configs.DEFAULT_PATH,
    program: Annotated[
        str,
        typer.Option(help="edge-agent, as the service will see it; this one when left out."),
    ] = "",
    prefix: Prefix = _ROOT,
    now: Annotated[bool, typer.Option("--now", help="Enable and start it too.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Run edge-agent at every start of this machine, locked up, as a systemd service.

    Writes the unit, and agent.example.toml beside the settings. May be repeated: after a change
    of paths, or to get the unit of a newer release.

    Examples:

      sudo /opt/edge-pack/bin/edge-agent install-service --now

      edge-agent install-service --prefix build/root --program /opt/edge-pack/bin/edge-agent
    """
    here = prefix.absolute() == _ROOT
    if user and dynamic:
        raise InputFault("--user and --dynamic exclude each other")
    if now and not here:
        raise InputFault("--now starts what is installed on this machine, not below --prefix")
    if here:
        _check_machine(user, dry_run=dry_run)
    if now and not config.exists():
        raise InputFault(f"no settings at {config}", advice="Run `edge-agent enroll` first.")
    service = Service(
        program=program or _this_program(check=here),
        config=str(config),
        folder=_folder(config, prefix),
        user=user,
    )
    done = services.install(service, prefix, dry_run=dry_run)
    verb = "would write" if dry_run else "wrote"
    for path in done.wrote:
        typer.echo(f"{verb} {path}")
    if not done.wrote:
        typer.echo("unchanged: everything is as this would write it")
    if dry_run:
        typer.echo(f"\n{done.text}", nl=False)
        return
    if here:
        _systemctl("daemon-reload")
    if now:
        _systemctl("enable", "--now", services.NAME)
        typer.echo(f"started: journalctl -u {services.NAME} -f")
        return
    _say_next(prefix, config)


def uninstall_service(
    *,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove settings, keys, models and telemetry too.")
    ] = False,
    config: ConfigPath = configs.DEFAULT_PATH,
    prefix: Prefix = _ROOT,
) -> None:
    """Stop the service and take away what install-service wrote.

    With --purge nothing of edge-agent is left but its programs: `rm -r /opt/edge-pack`.

    Example: sudo edge-agent uninstall-service --purge
    """
    here = prefix.absolute() == _ROOT
    if here:
        _check_machine("", dry_run=False)
        if (Path(services.UNITS) / services.NAME).exists():
            _systemctl("disable", "--now", services.NAME)
    gone = services.uninstall(prefix, config=str(config), purge=purge)
    for path in gone:
        typer.echo(f"removed {path}")
    if not gone:
        typer.echo("nothing to remove")
    if here:
        _systemctl("daemon-reload")


def _check_machine(user: str, *, dry_run: bool) -> None:
    """Raise what keeps this machine from running the service."""
    if user:
        try:
            pwd.getpwnam(user)
        except KeyError as error:
            raise InputFault(
                f"no user {user!r} on this machine",
                advice=f"useradd --system --no-create-home {user}, or leave --user out.",
            ) from error
    if dry_run:
        return
    if not BOOTED.is_dir():
        raise MachineFault(
            "this machine was not started by systemd",
            advice="Have its init run `edge-agent run --config FILE`, or, in a container, use "
            "Dockerfile.edge; --prefix installs into another file system.",
        )
    if os.geteuid() != 0:
        raise MachineFault(
            f"only root may write {services.UNITS}", advice="sudo edge-agent install-service ..."
        )


def _this_program(*, check: bool) -> str:
    """Where this ``edge-agent`` lies. Raises InputFault where the service could not see it."""
    found = Path(sys.argv[0]).absolute()
    if found.name != "edge-agent" or not os.access(found, os.X_OK):
        found = Path(sys.executable).with_name("edge-agent")
    for place in (found, Path(sys.base_prefix)) if check else ():
        services.check_seen("edge-agent", str(place))
    return str(found)


def _folder(config: Path, prefix: Path) -> str:
    """The state folder that the settings name, if there are any yet."""
    place = prefix / str(config).lstrip("/")
    if not place.exists():
        return DEFAULT_FOLDER
    return str(configs.load(place, os.environ).agent.folder)


def _systemctl(*words: str) -> None:
    """Raise MachineFault with what it said when it fails."""
    program = shutil.which("systemctl")
    if program is None:
        raise MachineFault("systemctl is not on PATH")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise MachineFault(f"systemctl {' '.join(words)}: {said}")


def _say_next(prefix: Path, config: Path) -> None:
    root = "" if prefix.absolute() == _ROOT else f"--root={prefix.absolute()} "
    if not (prefix / str(config).lstrip("/")).exists():
        typer.echo("next: edge-agent enroll --root sha256:FINGERPRINT --broker URL --fleet NAME")
    typer.echo(f"next: systemctl {root}enable {'' if root else '--now '}{services.NAME}")


def add(app: typer.Typer) -> None:
    """Put both commands into ``edge-agent``."""
    app.command()(install_service)
    app.command()(uninstall_service)
