"""The command ``edge-agent``: parses, calls one function, prints."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from edge_agent import (
    bind_commands,
    clock,
    enrolling,
    local,
    predict_commands,
    running,
    sample_commands,
    service,
    service_commands,
    show,
)
from edge_agent import config as configs
from edge_agent.config import Config
from edge_contract import wire
from edge_contract.errors import InputFault
from edge_contract.ports import command

app = typer.Typer(
    help="Run signed models on this device, keep them up to date, and send counts home.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

ConfigPath = Annotated[
    Path,
    typer.Option(
        "--config", envvar=running.CONFIG_VARIABLE, help="Settings, TOML.", show_default=True
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


@app.command()
def run(
    config: ConfigPath = configs.DEFAULT_PATH,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each step.")] = False,
    log_format: Annotated[
        str,
        typer.Option(
            "--log-format",
            metavar="text|json",
            envvar=running.LOG_VARIABLE,
            help="json: one object a line.",
        ),
    ] = "text",
) -> None:
    """Answer, update and report until stopped by SIGTERM or Ctrl-C.

    What is on disk answers at once, broker or not. One line a transition goes to stderr.

    Examples:

      edge-agent run --config agent.toml

      edge-agent run --log-format json
    """
    if log_format not in running.LOG_FORMATS:
        raise InputFault(f"--log-format {log_format[:20]!r} is none of text, json")
    running.run(running.Line(str(config), verbose, log_format))


@app.command()
def enroll(
    *,
    root: Annotated[
        str,
        typer.Option(help="root.json of the publisher, or its fingerprint as sha256:HEX."),
    ] = "",
    token: Annotated[
        str,
        typer.Option(
            metavar="TOKEN",
            help="One-time token of the fleet; '-' asks for it, @FILE reads it. It stands for all"
            " other options.",
        ),
    ] = "",
    config: ConfigPath = configs.DEFAULT_PATH,
    broker: Annotated[
        str, typer.Option(help="Broker, when the settings are to be written: mqtt://HOST[:PORT].")
    ] = "",
    fleet: Annotated[str, typer.Option(help="Fleet, when they are to be written.")] = "",
    device: Annotated[
        str, typer.Option(help="Name of this device; the host's name when left out.")
    ] = "",
    channel: Annotated[str, typer.Option(help="Channel to follow.")] = "stable",
    folder: Annotated[
        str, typer.Option(help="Where the agent keeps its state.", show_default=False)
    ] = "",
    ca: Annotated[str, typer.Option(metavar="FILE", help="Authority of an mqtts broker.")] = "",
    cert: Annotated[
        str, typer.Option(metavar="FILE", help="This device's certificate, for a broker that asks.")
    ] = "",
    key: Annotated[str, typer.Option(metavar="FILE", help="Its private key.")] = "",
    password_file: Annotated[
        str, typer.Option(metavar="FILE", help="Holds the password of the user in --broker.")
    ] = "",
    certificate: Annotated[
        bool,
        typer.Option("--certificate", help="With --token: ask for a certificate, not a password."),
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="How long the fleet may take to answer a token, in seconds.")
    ] = 60.0,
) -> None:
    """Trust a publisher, and become known to a broker: once, before the first run.

    Writes the settings file when there is none. A fingerprint is enough where the broker has the
    metadata: root.json is taken from there and compared. With a token of `edge-fleet tokens
    create` nothing else is needed; the device makes its own password or key, which never leaves.

    Examples:

      edge-agent enroll --token -

      edge-agent enroll --root root.json --broker mqtt://10.0.0.2 --fleet home --device pi1

      edge-agent enroll --root sha256:0f3a... --broker mqtts://pi1@broker.example --fleet home
      --ca ca.pem --password-file pi1.password

      edge-agent enroll --root sha256:0f3a... --broker mqtts://broker.example:8884 --fleet home
      --ca ca.pem --cert pi1.pem --key pi1.key

      edge-agent enroll --root sha256:0f3a... --config agent.toml
    """
    if bool(root) == bool(token):
        raise InputFault("give one of --root and --token")
    if folder:  # a path in the settings is relative to them, one typed here is not
        folder = str(Path(folder).absolute())
    tls = {"ca": ca, "cert": cert, "key": key, "password_file": password_file}
    if not token:
        enrolling.by_root(
            root, config, device=device, fleet=fleet, broker=broker, channel=channel, folder=folder,
            tls={name: str(Path(value).absolute()) if value else "" for name, value in tls.items()},
        )  # fmt: skip
    elif broker or fleet or any(tls.values()):
        raise InputFault("--token says broker, fleet and keys: leave the other options out")
    else:
        enrolling.by_token(
            token, config, device=device, folder=folder, certificate=certificate, timeout_s=timeout
        )
    service.hand_over(_load(config).folder)


@app.command()
def look(config: ConfigPath = configs.DEFAULT_PATH) -> None:
    """Have the running agent look for updates now, not when it next would.

    As its user, or as root. What a download waits for, such as a slot, it still waits for.

    Examples:

      edge-agent look

      edge-agent look --config agent.toml && edge-agent status --follow
    """
    pid = local.look_now(_load(config))
    typer.echo(f"the agent, process {pid}, looks for updates now; see: edge-agent status --follow")


@app.command()
def status(
    config: ConfigPath = configs.DEFAULT_PATH,
    as_json: Json = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 unless the agent runs and is well.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            "-f",
            help="Show what moves, live, until Ctrl-C; with --json a line a change.",
        ),
    ] = False,
) -> None:
    """What this device runs, and how it is; also while no agent runs.

    Examples:

      edge-agent status --config agent.toml

      edge-agent status --follow

      edge-agent status --json | jq .models
    """
    chosen = _load(config)
    if follow:
        if check:
            raise InputFault("--follow never ends, so that --check has nothing to say")
        show.follow(lambda: local.read(chosen), sys.stdout, as_json=as_json)
    found = local.read(chosen)
    if as_json:
        typer.echo(wire.encode_json(found).decode())
    else:
        for line in show.lines(found, clock.zone(os.environ)):
            typer.echo(line)
    if check and not local.healthy(found, time.time()):
        raise typer.Exit(1)


@app.command()
def settings() -> None:
    """Print every setting with its default, as TOML with comments.

    Examples:

      edge-agent settings | less

      edge-agent settings > agent.toml
    """
    typer.echo(service.example().decode(), nl=False)


def _load(path: Path) -> Config:
    return configs.load(path, os.environ)


service_commands.add(app)
predict_commands.add(app)
bind_commands.add(app)
app.add_typer(sample_commands.app, name="samples")
command.finish(app, "edge-agent")


def main() -> None:
    """Entry point."""
    command.run(app)


if __name__ == "__main__":
    main()
