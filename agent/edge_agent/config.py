"""``agent.toml``: read once, every fault in it reported at once, passed on as one frozen struct.

The only setting taken from the environment is the broker's password, ``EDGE_AGENT_PASSWORD``:
secrets do not belong into a file that is copied from device to device.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from edge_agent import pipeline
from edge_agent.bindings import answers
from edge_agent.bindings import settings as binding_settings
from edge_agent.bindings.settings import BINDINGS_MAX, Binding
from edge_agent.pipeline import Spec
from edge_agent.settings import (
    Broker,
    Calibration,
    Download,
    Feedback,
    Http,
    Identity,
    Loading,
    Overload,
    Privacy,
    Sampling,
    Shadow,
    Telemetry,
    Update,
    Watch,
    faults_of,
    noise_faults,
)
from edge_agent.steps import Rules, TrialRules
from edge_contract import broker_url
from edge_contract.broker_url import BrokerUrl
from edge_contract.errors import InputFault
from edge_contract.messages import Name
from edge_contract.ports.disk import read_bounded
from edge_contract.topics import Topics
from edge_contract.typed import convert

CONFIG_MAX_BYTES = 256 * 1024
PASSWORD_MAX_BYTES = 4096
PASSWORD_VARIABLE = "EDGE_AGENT_PASSWORD"  # noqa: S105 - the name of a variable
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
DEFAULT_PATH = Path("/etc/edge-agent/agent.toml")


class Config(Struct, frozen=True, kw_only=True):
    """All settings of one agent; see each section."""

    agent: Identity
    broker: Broker
    telemetry: Telemetry = Telemetry()
    trial: TrialRules = TrialRules()
    update: Update = Update()
    download: Download = Download()
    http: Http | None = None
    watch: Watch | None = None
    feedback: Feedback = Feedback()
    shadow: Shadow = Shadow()
    privacy: Privacy = Privacy()
    calibration: Calibration | None = None
    sampling: Sampling | None = None
    overload: Overload = Overload()
    brokers: dict[str, Broker] = {}
    bindings: tuple[Binding, ...] = ()
    ensembles: dict[str, Spec] = {}
    models: dict[str, Loading] = {}
    password: str = field(default="", name="-")
    passwords: dict[str, str] = field(default={}, name="--")
    """Of ``brokers``, by name."""

    @property
    def folder(self) -> Path:
        """Where the agent keeps its state."""
        return Path(self.agent.folder)

    @property
    def topics(self) -> Topics:
        """The topics of this device's fleet."""
        return Topics(self.agent.fleet, self.agent.prefix)

    @property
    def broker_url(self) -> BrokerUrl:
        """The broker with the password in place."""
        url = broker_url.parse(self.broker.url)
        return dataclasses.replace(url, password=self.password) if self.password else url

    def loading(self, model: str) -> Loading:
        """How the model is kept in memory."""
        return self.models.get(model, Loading())

    @property
    def rules(self) -> Rules:
        """What the update machine decides by."""
        return Rules(
            attempts_max=self.update.attempts_max,
            backoff_min_s=self.update.backoff_min_s,
            backoff_max_s=self.update.backoff_max_s,
            trial=self.trial,
        )

    def __repr__(self) -> str:
        return f"Config(device={self.agent.device!r}, fleet={self.agent.fleet!r})"


_SECTIONS: dict[str, type[Struct]] = {
    "agent": Identity,
    "broker": Broker,
    "telemetry": Telemetry,
    "trial": TrialRules,
    "update": Update,
    "download": Download,
    "http": Http,
    "watch": Watch,
    "feedback": Feedback,
    "shadow": Shadow,
    "privacy": Privacy,
    "calibration": Calibration,
    "sampling": Sampling,
    "overload": Overload,
}
_REQUIRED = ("agent", "broker")
_PATHS: dict[type, tuple[str, ...]] = {
    Identity: ("folder",),
    Broker: ("ca", "cert", "key", "password_file"),
    Http: ("socket", "token_file", "cert", "key"),
    Download: ("ca",),
    Watch: ("folder",),
    Update: ("factory",),
}

_NAME_RULE = "expected 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"

S = TypeVar("S", bound=Struct)


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """The settings in ``path``; paths in it are relative to its folder.

    Raises InputFault that lists every fault in it.
    """
    if not path.exists():
        raise InputFault(
            f"no settings at {path}",
            advice="Name them with --config FILE, or have `edge-agent enroll` write them.",
        )
    config, faults = parse(read_bounded(path, CONFIG_MAX_BYTES), path.absolute().parent)
    password = environment.get(PASSWORD_VARIABLE, "")
    if config:
        config = replace(config, broker=_handed_over(config.broker, path, environment))
    if config and config.broker.password_file and not password:
        password = _password(config.broker, "broker", faults)
    passwords = {
        name: _password(broker, f"brokers.{name}", faults)
        for name, broker in (config.brokers if config else {}).items()
        if broker.password_file
    }
    if config is None or faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        plural = "faults" if len(faults) > 1 else "fault"
        raise InputFault(
            f"{path} has {len(faults)} {plural}:{listed}",
            advice="`edge-agent settings` prints every setting with its default.",
        )
    return replace(config, password=password, passwords=passwords)


def _password(broker: Broker, section: str, faults: list[str]) -> str:
    try:
        raw = read_bounded(Path(broker.password_file), PASSWORD_MAX_BYTES)
        return raw.decode().rstrip("\r\n")
    except (InputFault, UnicodeDecodeError) as error:
        faults.append(f"[{section}] password_file: {error}")
        return ""


def _handed_over(broker: Broker, settings: Path, environment: Mapping[str, str]) -> Broker:
    """Keys beside the settings that only root can read, where systemd handed them to a service.

    ``LoadCredential=settings:FOLDER`` makes ``settings_NAME`` of each file (systemd.exec(5)).
    """
    credentials = environment.get(CREDENTIALS_VARIABLE, "")
    handed = {}
    for name in _PATHS[Broker] if credentials else ():
        path = Path(getattr(broker, name))
        copy = Path(credentials, f"settings_{path.name}")
        beside = path.parent == settings.absolute().parent
        if beside and not os.access(path, os.R_OK) and copy.is_file():
            handed[name] = str(copy)
    return replace(broker, **handed)


def parse(data: bytes, base: Path) -> tuple[Config | None, list[str]]:
    """The settings in a TOML document, or None, and every fault found.

    Relative paths in it are below ``base``.
    """
    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        return None, [f"not TOML: {error}"]
    faults = _unknown(document, (*_SECTIONS, "brokers", "bindings", "ensembles", "models"), "")
    values: dict[str, Any] = {}
    for name, kind in _SECTIONS.items():
        if name in document or name in _REQUIRED:
            section = _section(document.get(name, {}), kind, name, faults)
            values[name] = section = _absolute(section, base)
            faults.extend(faults_of(section))
    values["brokers"] = _brokers(document.get("brokers", {}), base, faults)
    values["bindings"] = _bindings(document.get("bindings", []), values["brokers"], faults)
    values["ensembles"] = _ensembles(document.get("ensembles", {}), faults)
    values["models"] = _models(document.get("models", {}), faults)
    if faults:
        return None, faults
    config = Config(**values)
    faults = _check_together(config)
    return (None, faults) if faults else (config, [])


def _brokers(tables: object, base: Path, faults: list[str]) -> dict[str, Broker]:
    """``[brokers.NAME]``: local brokers, each written as ``[broker]``."""
    found: dict[str, Broker] = {}
    for name, table in _value(tables, dict[Name, Any], "[brokers]", faults, {}).items():
        section = _absolute(_section(table, Broker, f"brokers.{name}", faults), base)
        said = [each.replace("[broker]", f"[brokers.{name}]", 1) for each in faults_of(section)]
        faults.extend(said)
        if isinstance(section, Broker):
            found[name] = section
    return found


def _bindings(
    tables: object, brokers: Mapping[str, Broker], faults: list[str]
) -> tuple[Binding, ...]:
    """``[[bindings]]``."""
    listed = _value(tables, list[Any], "[[bindings]]", faults, [])
    if len(listed) > BINDINGS_MAX:
        faults.append(f"[[bindings]]: {len(listed)} of them, over the limit of {BINDINGS_MAX}")
    found = []
    for i, table in enumerate(listed[:BINDINGS_MAX]):
        name = table.get("name") or table.get("model") if isinstance(table, dict) else None
        found.append(_section(table, Binding, f"bindings {name or i + 1}", faults))
    sound = tuple(each for each in found if each is not None)
    faults.extend(binding_settings.faults_of(sound, brokers))
    return sound


def _ensembles(tables: object, faults: list[str]) -> dict[str, Spec]:
    """``[ensembles.NAME]``: models that answer as one, what is fed to whom."""
    found: dict[str, Spec] = {}
    for name, table in _value(tables, dict[Name, Any], "[ensembles]", faults, {}).items():
        spec = _section(table, Spec, f"ensembles.{name}", faults)
        if spec is None:
            continue
        try:
            pipeline.order(spec)
        except InputFault as error:
            faults.append(f"[ensembles.{name}] {error.what}")
        found[name] = spec
    members = {model for spec in found.values() for model in spec.models}
    faults.extend(f"[ensembles.{name}]: a model has this name" for name in members & set(found))
    return found


def _models(tables: object, faults: list[str]) -> dict[str, Loading]:
    """``[models.NAME]``: how each is kept in memory."""
    named = _value(tables, dict[Name, Any], "[models]", faults, {})
    found = {
        name: _section(each, Loading, f"models.{name}", faults) for name, each in named.items()
    }
    return {name: each for name, each in found.items() if each is not None}


def _section(table: object, kind: type[S], name: str, faults: list[str]) -> S | None:
    if not isinstance(table, dict):
        faults.append(f"[{name}]: expected a table, got {type(table).__name__}")
        return None
    fields = msgspec.structs.fields(kind)
    faults.extend(_unknown(table, tuple(f.name for f in fields), f"[{name}] "))
    values: dict[str, Any] = {}
    sound = True
    for each in fields:
        if each.name in table:
            before = len(faults)
            value = _value(table[each.name], each.type, f"[{name}] {each.name}", faults)
            if len(faults) == before:
                values[each.name] = value
            else:  # its default, for the other settings of the section to be checked too
                sound = sound and not each.required
        elif each.required:
            faults.append(f"[{name}] {each.name} is missing")
            sound = False
    return kind(**values) if sound else None


def _absolute(section: Struct | None, base: Path) -> Struct | None:
    names = _PATHS.get(type(section), ())
    paths = {name: getattr(section, name) for name in names}
    return (
        replace(section, **{n: str(base / p) for n, p in paths.items() if p}) if section else None
    )


def _value(value: object, kind: Any, where: str, faults: list[str], otherwise: Any = None) -> Any:
    try:
        return convert(value, kind)
    except msgspec.ValidationError as error:
        said, _, at = str(error).partition(" - at ")
        if "matching regex" in said:
            said = _NAME_RULE
        faults.append(f"{where} = {value!r}: {said}{f' (at {at})' if at else ''}")
        return otherwise


def _unknown(table: Mapping[str, object], known: tuple[str, ...], prefix: str) -> list[str]:
    faults = []
    for key in table:
        if key not in known:
            import difflib  # noqa: PLC0415 - a fault is rare, and a process that serves is long

            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            faults.append(f"{prefix}unknown setting {key!r}{hint}")
    return faults


def _check_together(config: Config) -> list[str]:
    """What no section can say alone."""
    faults = answers.faults_of(config.bindings, config.topics, config.agent.device)
    if faults:
        return faults
    if config.privacy.noise is not None:
        faults = noise_faults(config.privacy.noise, config.telemetry)
        if faults:
            return faults
    spool = config.telemetry.spool_bytes
    if 0 < config.download.disk_max_bytes <= spool:
        return [
            f"[download] disk_max = {config.download.disk_max!r} leaves nothing beside"
            f" [telemetry] spool_bytes = {spool}, which is kept free for telemetry"
        ]
    return []
