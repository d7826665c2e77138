"""The settings of triggers: a TOML file, read once, every fault in it named. Pure.

every_s = 30
k = 10

[triggers.retrain]
models = ["pump"]
when = { alarms = 1, levels = ["fleet"], loss = 0.03, rows = 5000, cooldown_s = 86400 }
command = { run = ["/opt/retrain.sh"], timeout_s = 7200 }
"""

from __future__ import annotations

import tomllib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from edge_contract.errors import EdgeError, InputFault
from edge_contract.names import check_name
from edge_contract.typed import convert
from edge_fleet import disclosure

SETTINGS_MAX_BYTES = 1024 * 1024
TRIGGERS_MAX = 32
COOLDOWN_S = 86400.0

Level = Literal["device", "cohort", "fleet"]
Method = Literal["labels", "score"]
Require = Literal["all", "any"]
Seconds = Annotated[float, Meta(gt=0, le=30 * 86400)]
Pause = Annotated[float, Meta(ge=0, le=366 * 86400)]
Rows = Annotated[int, Meta(ge=0, le=1_000_000)]
Patterns = tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...]


class When(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The conditions.

    Attributes:
        alarms: open alarms that no earlier firing named, at least; 0: alarms are no condition.
        levels, kinds, features: only such alarms, by ``fnmatch`` pattern; none: any.
        loss: accuracy lost since the build, at least, at the near end of the estimate's interval.
        growth: of a model of values: share by which its mean absolute error grew since the build,
            at least, at the near end of the estimate's interval; 0.2: a fifth.
        loss_by: which estimates may say so.
        require: ``all``: alarms and what was lost; ``any``: one of them.
        rows: answered since this trigger last fired for the version, at least.
        cooldown_s: after it fired for the model; a day, of alerts 0: Alertmanager groups them.
        during_rollout: also while devices of the model change versions; alerts do by default.
    """

    alarms: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    levels: tuple[Level, ...] = ()
    kinds: Patterns = ()
    features: Patterns = ()
    loss: Annotated[float, Meta(gt=0, lt=1)] | None = None
    growth: Annotated[float, Meta(gt=0, le=1000)] | None = None
    loss_by: tuple[Method, ...] = ("labels", "score")
    require: Require = "all"
    rows: Annotated[int, Meta(ge=0)] = 0
    cooldown_s: Pause | None = None
    during_rollout: bool | None = None

    @property
    def measured(self) -> bool:
        """Figures of quality are a condition."""
        return self.loss is not None or self.growth is not None


class Webhook(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A signed HTTP POST; the secret from a file or a variable, never from here."""

    url: str
    secret_file: str = ""
    secret_variable: str = ""
    ca_file: str = ""
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 15.0
    attempts: Annotated[int, Meta(ge=1, le=1000)] = 24


class Command(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A command: its words, no shell; the evidence on its standard input."""

    run: Annotated[tuple[str, ...], Meta(min_length=1, max_length=200)]
    folder: str = ""
    timeout_s: Seconds = 3600.0
    attempts: Annotated[int, Meta(ge=1, le=1000)] = 3


class Mqtt(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message of QoS 1; ``broker``: another than the fleet's; ``topic``: else the fleet's."""

    topic: Annotated[str, Meta(max_length=500)] = ""
    broker: str = ""
    retain: bool = False
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 15.0
    attempts: Annotated[int, Meta(ge=1, le=1000)] = 24


class Alertmanager(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prometheus Alertmanager's API of version 2, at its root ``url``.

    Attributes:
        resend_s: alerts that are not told again end; so they are, until their alarms are resolved.
        labels: set on each alert.
    """

    url: str
    labels: dict[str, str] = {}
    resend_s: Annotated[float, Meta(ge=1, le=86400)] = 60.0
    secret_file: str = ""
    secret_variable: str = ""
    ca_file: str = ""
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 15.0
    attempts: Annotated[int, Meta(ge=1, le=1000)] = 24


Action = Webhook | Command | Mqtt | Alertmanager


class Trigger(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One trigger.

    Attributes:
        models, versions, fleets: ``fnmatch`` patterns; none: any.
        k: no figure of the evidence is of fewer rows (``disclosure``); 0: as it was counted. Where
            a trigger says none, the file's.
    """

    when: When = When()
    models: Patterns = ()
    versions: Patterns = ()
    fleets: Patterns = ()
    k: Rows = disclosure.K
    dry_run: bool = False
    webhook: Webhook | None = None
    command: Command | None = None
    mqtt: Mqtt | None = None
    alertmanager: Alertmanager | None = None

    @property
    def action(self) -> Action:
        """What it does; ``read`` sees to it that there is one."""
        return self.actions[0]

    @property
    def actions(self) -> tuple[Action, ...]:
        """What the file names."""
        every = (self.webhook, self.command, self.mqtt, self.alertmanager)
        return tuple(action for action in every if action is not None)

    @property
    def kind(self) -> str:
        """The action's name."""
        return type(self.action).__name__.lower()


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All triggers by name.

    ``every_s``: how often the conditions are looked at. ``k``: of triggers that say none.
    """

    triggers: dict[str, Trigger]
    every_s: Annotated[float, Meta(ge=0.05, le=86400)] = 30.0
    k: Rows = disclosure.K


def read(data: bytes) -> Settings:
    """The settings in a TOML file's bytes. Raises InputFault with every fault that was found."""
    if len(data) > SETTINGS_MAX_BYTES:
        raise InputFault(f"{len(data)} bytes of triggers, over the limit of {SETTINGS_MAX_BYTES}")
    try:
        found = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputFault(f"the triggers are no TOML: {error}") from error
    tables = found.get("triggers", {})
    if not isinstance(tables, dict) or not 1 <= len(tables) <= TRIGGERS_MAX:
        raise InputFault(
            f"the file has no [triggers.NAME], or more than {TRIGGERS_MAX}",
            advice="See `edge-fleet triggers --help` for an example.",
        )
    rest = {key: value for key, value in found.items() if key != "triggers"}
    try:
        settings: Settings = convert({**rest, "triggers": {}}, Settings)
    except msgspec.ValidationError as error:
        raise InputFault(f"triggers: {error}") from error
    faults = []
    triggers = {}
    for name, table in tables.items():
        try:
            triggers[check_name(name, "trigger")] = _trigger(table, settings.k)
        except (EdgeError, msgspec.ValidationError) as error:
            faults.append(f"triggers.{name}: {getattr(error, 'what', error)}")
    if faults:
        raise InputFault("; ".join(faults))
    return msgspec.structs.replace(settings, triggers=triggers)


def _trigger(table: object, k: int) -> Trigger:
    given = {"k": k, **table} if isinstance(table, dict) else table
    trigger: Trigger = convert(given, Trigger, strict=False)
    if len(trigger.actions) != 1:
        raise InputFault(
            f"has {len(trigger.actions)} actions, expected one of webhook, command, mqtt,"
            " alertmanager"
        )
    when = trigger.when
    if not when.alarms and not when.measured:
        raise InputFault("when: without alarms, loss and growth there is no condition")
    if when.measured and not when.loss_by:
        raise InputFault("when: loss or growth without loss_by")
    action = trigger.action
    if isinstance(action, Alertmanager) and not when.alarms:
        raise InputFault("when: an alert lasts as long as its alarms, so it needs alarms")
    if isinstance(action, Webhook | Alertmanager):
        if not action.url.startswith(("http://", "https://")):
            raise InputFault(f"url {action.url[:100]!r} begins with neither http:// nor https://")
        if action.secret_file and action.secret_variable:
            raise InputFault("secret_file and secret_variable: only one of them")
    if isinstance(action, Webhook) and not (action.secret_file or action.secret_variable):
        raise InputFault(
            "the webhook has no secret_file or secret_variable: its receiver could not know us"
        )
    if isinstance(action, Mqtt) and any(char in action.topic for char in "+#\0"):
        raise InputFault(f"topic {action.topic!r} is a filter, or none")
    return msgspec.structs.replace(trigger, when=_filled(when, action))


def _filled(when: When, action: Action) -> When:
    """With what the kind of action makes of conditions that were left out."""
    alert = isinstance(action, Alertmanager)
    pause_s = (0.0 if alert else COOLDOWN_S) if when.cooldown_s is None else when.cooldown_s
    during = alert if when.during_rollout is None else when.during_rollout
    return msgspec.structs.replace(when, cooldown_s=pause_s, during_rollout=during)
