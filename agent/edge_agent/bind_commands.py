"""The command ``bind``: parses, calls one function, prints."""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from edge_agent import clock
from edge_agent import config as configs
from edge_agent.bindings import explain
from edge_agent.bindings.settings import Binding
from edge_agent.config import Config
from edge_contract.errors import InputFault

if TYPE_CHECKING:
    from edge_agent.model import Model


def bind(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="The binding; all of the settings' when left out.",
            show_default=False,
        ),
    ] = "",
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Explain the bindings against their models.")
    ] = False,
    attempt: Annotated[
        bool, typer.Option("--try", help="Show live what would be predicted; publish nothing.")
    ] = False,
    new: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Print [[bindings]] for a model: an installed one, or a bundle's file.",
            show_default=False,
        ),
    ] = "",
    bundle: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Use this bundle, where nothing is installed yet.",
            show_default=False,
        ),
    ] = "",
    seconds: Annotated[
        float, typer.Option(help="With --try: end after so many; 0: at Ctrl-C.", min=0)
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
    config: Annotated[
        Path, typer.Option("--config", envvar="EDGE_AGENT_CONFIG", help="Settings, TOML.")
    ] = configs.DEFAULT_PATH,
) -> None:
    """Connect local MQTT topics to a model: write a binding, check it, watch it.

    Bindings stand in the settings as [[bindings]]; a running agent answers by them. --check ends
    with 1 when one does not fit its model, --try --seconds N when nothing could be predicted.

    Examples:

      edge-agent bind --new pump-1.0.edgepack >> agent.toml

      edge-agent bind --check --config agent.toml

      edge-agent bind --try cellar --config agent.toml

      edge-agent bind --try --seconds 60 --json | jq .prediction
    """
    if (check, attempt, bool(new)).count(True) != 1:
        raise InputFault("give one of --check, --try and --new MODEL")
    if new:
        typer.echo(explain.skeleton(_open(new, config).manifest), nl=False)
        return
    settings = configs.load(config, os.environ)
    chosen = _chosen(settings, name)
    models = {each: _open(bundle or each, config) for each in {binding.model for binding in chosen}}
    if check:
        _check(chosen, models, as_json=as_json)
        return
    _try(settings, chosen, models, seconds=seconds, as_json=as_json)


def _chosen(settings: Config, name: str) -> tuple[Binding, ...]:
    known = ", ".join(each.title for each in settings.bindings) or "none"
    chosen = tuple(each for each in settings.bindings if name in ("", each.title))
    if not chosen:
        raise InputFault(
            f"no binding {name!r} in the settings; there are: {known}"
            if name
            else "the settings have no [[bindings]]",
            advice="edge-agent bind --new MODEL prints one to begin with.",
        )
    return chosen


def _open(name: str, config: Path) -> Model:
    from edge_agent.installed import is_bundle, open_installed  # noqa: PLC0415 - needs the runtime
    from edge_agent.model import Model  # noqa: PLC0415

    if is_bundle(name):
        return Model.open(name)
    return open_installed(configs.load(config, os.environ), name)


def _check(chosen: tuple[Binding, ...], models: dict[str, Model], *, as_json: bool) -> None:
    found = {each.title: explain.explain(each, models[each.model].manifest) for each in chosen}
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        for binding in chosen:
            manifest = models[binding.model].manifest
            typer.echo(f"{binding.title}: {manifest.name} {manifest.version}")
            for each in found[binding.title]:
                sign = "!!" if each.wrong else "ok"
                wanted = f" ({each.wanted})" if each.wanted else ""
                typer.echo(f"  {sign} {each.name}{wanted}{each.source and f' <- {each.source}'}")
                for said in each.said:
                    typer.echo(f"       {said}")
    if any(each.wrong for findings in found.values() for each in findings):
        raise typer.Exit(1)


def _try(
    settings: Config,
    chosen: tuple[Binding, ...],
    models: dict[str, Model],
    *,
    seconds: float,
    as_json: bool,
) -> None:
    from edge_agent.bindings.join import Moment  # noqa: PLC0415 - needs numpy
    from edge_agent.bindings.trying import Trial  # noqa: PLC0415

    def moment() -> Moment:
        return Moment(time.monotonic(), time.time() if clock.synchronised() else None)

    trial = Trial(settings, chosen, models, suffix=secrets.token_hex(3), moment=moment)
    if not trial.run(sys.stdout, seconds=seconds, as_json=as_json):
        raise typer.Exit(1)


def add(app: typer.Typer) -> None:
    """Give ``app`` the command."""
    app.command()(bind)
