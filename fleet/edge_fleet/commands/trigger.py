"""``edge-fleet triggers``: what fires when, whether it gets there, and what it did."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from edge_contract import broker_url, trigger
from edge_contract.errors import InputFault, PeerFault
from edge_contract.ports.disk import read_bounded
from edge_contract.ports.mqtt import LinkConfig
from edge_contract.topics import DEFAULT_PREFIX, Topics
from edge_fleet import terminal
from edge_fleet.opening import opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms, with_password
from edge_fleet.reports import instant
from edge_fleet.store.firings import Firing
from edge_fleet.triggers import delivery, facts, posting, signing
from edge_fleet.triggers import settings as trigger_settings
from edge_fleet.triggers.settings import Alertmanager, Command, Mqtt, Settings, Trigger, Webhook

SHOWN_MAX = 50
BRIEF_CHARS = 60
_EXAMPLE = """Tell whoever retrains that a model has left its data behind: by a signed webhook, a
command, an MQTT message or Prometheus Alertmanager, with the evidence.

triggers.toml, for `edge-fleet serve --triggers triggers.toml`:

\b
  [triggers.retrain]
  models = ["pump"]
  when = { alarms = 1, levels = ["fleet"], rows = 5000, cooldown_s = 86400 }
  command = { run = ["/opt/retrain.sh"], timeout_s = 7200 }

\b
  [triggers.tell]
  when = { alarms = 0, loss = 0.03 }
  webhook = { url = "https://ci.example/hook", secret_file = "hook.secret" }

\b
  [triggers.page]
  alertmanager = { url = "http://localhost:9093" }
"""
File = Annotated[
    Path, typer.Option("--triggers", envvar="EDGE_FLEET_TRIGGERS", help="The settings, TOML.")
]

app = typer.Typer(help=_EXAMPLE, no_args_is_help=True, rich_markup_mode=None)


def read(file: Path) -> Settings:
    """The settings in ``file``, whose secrets and folders are there. Raises InputFault."""
    settings = trigger_settings.read(read_bounded(file, trigger_settings.SETTINGS_MAX_BYTES))
    faults = []
    for name, rule in settings.triggers.items():
        try:
            _check(rule, file.parent)
        except InputFault as error:
            faults.append(f"triggers.{name}: {error.what}")
    if faults:
        raise InputFault("; ".join(faults))
    return settings


def _check(rule: Trigger, folder: Path) -> None:
    match rule.action:
        case Webhook() as action:
            posting.checked(action.url)
            signing.secret_of(delivery.secret_text(action, folder))
        case Alertmanager() as action:
            posting.checked(action.url)
            delivery.secret_text(action, folder)
        case Mqtt() as action:
            if action.broker:
                broker_url.parse(action.broker)
        case Command() as action:
            if not (folder / action.folder).is_dir():
                raise InputFault(f"folder {folder / action.folder} is not there")


@app.command()
def check(file: File, as_json: Json = False) -> None:
    """Read the settings and their secrets, and say what was understood.

    Example: edge-fleet triggers check --triggers triggers.toml
    """
    settings = read(file)
    if as_json:
        terminal.print_json(settings)
        return
    terminal.print_table(
        ["trigger", "action", "models", "when"],
        [
            [name, _action(rule), ", ".join(rule.models) or "any", _when(rule)]
            for name, rule in settings.triggers.items()
        ],
    )


@app.command("list")
def list_(file: File, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Each trigger and each version that it is about: does it fire now, and if not, why.

    Nothing is sent or kept.

    Example: edge-fleet triggers list --triggers triggers.toml
    """
    found = _decide(file, db)
    if as_json:
        terminal.print_json(
            [
                {
                    "trigger": case.name, "model": case.version.model,
                    "version": case.version.version, "fires": case.verdict.fires,
                    "said": case.verdict.said, "alarms": case.verdict.alarms,
                }
                for case in found
            ]
        )  # fmt: skip
        return
    if not found:
        terminal.print_line("no version has an open alarm, or none that these triggers are about")
        return
    terminal.print_table(
        ["trigger", "model", "fires", "because"],
        [
            [c.name, f"{c.version.model} {c.version.version}",
             "yes" if c.verdict.fires else "no", "; ".join(c.verdict.said)]
            for c in found
        ],
    )  # fmt: skip


@app.command("dry-run")
def dry_run(file: File, db: Db = DEFAULT_DB) -> None:
    """Print the evidence of each trigger that would fire now, one JSON record a line.

    Nothing is sent or kept. Exit code 1: none would fire.

    Example: edge-fleet triggers dry-run --triggers triggers.toml | jq .why
    """
    fired = [case.firing for case in _decide(file, db) if case.firing is not None]
    for firing in fired:
        terminal.print_line(firing.evidence.decode())
    if not fired:
        raise typer.Exit(1)


@app.command()
def test(
    name: Annotated[str, typer.Argument(help="Which trigger.")],
    file: File,
    fleet: Annotated[str, typer.Option(help="Which fleet the message is said to be of.")] = "test",
    broker: Annotated[
        str, typer.Option(envvar="EDGE_BROKER", help="The fleet's, for MQTT without its own.")
    ] = "mqtt://127.0.0.1",
    prefix: Annotated[str, typer.Option(help="What all topics begin with.")] = DEFAULT_PREFIX,
) -> None:
    """Deliver a made-up firing once, marked as a dry run, and say what came of it.

    Exit code 5: it was not taken.

    Example: edge-fleet triggers test retrain --triggers triggers.toml
    """
    settings = read(file)
    rule = settings.triggers.get(name)
    if rule is None:
        raise InputFault(
            f"there is no trigger {name!r}, there are {', '.join(sorted(settings.triggers))}"
        )
    at_ms = now_ms()
    link = LinkConfig(with_password(broker_url.parse(broker)), client_id="")
    place = delivery.Place(file.parent, link, Topics(fleet, prefix), now_ms, threading.Event())
    told = delivery.deliver(rule, _made_up(name, fleet, at_ms), (), place)
    if not told.done:
        raise PeerFault(f"not delivered: {told.detail}")
    terminal.print_line(f"delivered: {told.detail}")


def _made_up(name: str, fleet: str, at_ms: int) -> Firing:
    key = facts.key_of(fleet, name, "0" * 64, 0, at_ms)
    alarm = trigger.AlarmFound(
        id=0, level="fleet", device="(a test)", feature="none", source="feature", kind="test",
        what="a test of this trigger", since=instant(at_ms) or "", opened=instant(at_ms) or "",
        evidence=0.0, threshold=0.0, rows=0,
    )  # fmt: skip
    evidence = trigger.Evidence(
        key=key, trigger=name, fleet=fleet, at=instant(at_ms) or "", dry_run=True, model="none",
        version="0", bundle="0" * 64, why=("a test of this trigger",), alarms=(alarm,),
    )  # fmt: skip
    return Firing(
        key=key, trigger=name, number=0, model="none", version="0", bundle="0" * 64, alarms=(),
        rows=0, at_ms=at_ms, state="waiting", evidence=trigger.encode(evidence),
    )  # fmt: skip


@app.command()
def history(
    db: Db = DEFAULT_DB,
    name: Annotated[str, typer.Option("--trigger", help="Only this one.")] = "",
    as_json: Json = False,
) -> None:
    """What triggers set off, newest first, and what came of it (UTC).

    Example: edge-fleet triggers history --json
    """
    with opened(db) as store, store.reading() as tx:
        found = tx.firings(name, SHOWN_MAX)
    if as_json:
        terminal.print_json([_said(firing) for firing in found])
        return
    if not found:
        terminal.print_line("no trigger has fired")
        return
    terminal.print_table(
        ["trigger", "no", "model", "at (UTC)", "state", "attempts", "came to"],
        [
            [f.trigger, f.number, f"{f.model} {f.version}", instant(f.at_ms), f.state, f.attempts,
             _brief(f.detail)]
            for f in found
        ],
    )  # fmt: skip


def _brief(detail: str) -> str:
    """How a delivery's account begins and ends; --json has all of it."""
    lines = [line.strip() for line in detail.splitlines() if line.strip()]
    first = lines[0][:BRIEF_CHARS] if lines else ""
    return f"{first} … {lines[-1][:BRIEF_CHARS]}" if len(lines) > 1 else first


def _said(firing: Firing) -> dict[str, Any]:
    values = dataclasses.asdict(firing)
    times = {name: instant(values.pop(f"{name}_ms")) for name in ("at", "next", "done")}
    evidence = msgspec.json.decode(values.pop("evidence"))  # noqa: TID251 - of no type
    return {**values, **times, "evidence": evidence}


def _decide(file: Path, db: str) -> list[facts.Case]:
    settings = read(file)
    with opened(db) as store:
        fleet = store.settings().get("fleet", "")
        return [
            case
            for name, rule in settings.triggers.items()
            for case in facts.cases(store, name, rule, fleet, now_ms())
        ]


def _action(rule: Trigger) -> str:
    match rule.action:
        case Webhook(url=url) | Alertmanager(url=url):
            return f"{rule.kind} {url}"
        case Command(run=words):
            return f"command {' '.join(words)}"
        case Mqtt(topic=topic):
            return f"mqtt {topic or '(the fleet’s topic)'}"


def _when(rule: Trigger) -> str:
    when = rule.when
    parts = []
    if when.alarms:
        of = [*when.levels, *when.kinds, *when.features]
        parts.append(f"{when.alarms} alarms" + (f" of {', '.join(of)}" if of else ""))
    if when.loss is not None:
        parts.append(f"accuracy lost {when.loss:g} by {' or '.join(when.loss_by)}")
    if when.growth is not None:
        parts.append(f"error grown {when.growth:.0%} by {' or '.join(when.loss_by)}")
    said = [f" {'and' if when.require == 'all' else 'or'} ".join(parts)]
    said += [f"{when.rows} new rows"] if when.rows else []
    said += [f"not within {when.cooldown_s:g} s"] if when.cooldown_s else []
    said += [] if when.during_rollout else ["not in a rollout"]
    return "; ".join([*said, "dry run"] if rule.dry_run else said)
