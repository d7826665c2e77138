"""``agent.toml``: read once, every fault in it reported at once, passed on as one frozen struct.

The only setting taken from the environment is the broker's password, ``EDGE_AGENT_PASSWORD``:
secrets do not belong into a file that is copied from device to device.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import replace

from edge_agent import units
from edge_agent.policy import Policy, hours
from edge_agent.sources import HTTP_ABOVE_BYTES, Choice, Kind
from edge_agent.steps import Rules, TrialRules
from edge_contract import broker_url
from edge_contract.broker_url import BrokerUrl
from edge_contract.chunks import CHUNK_BYTES
from edge_contract.errors import InputFault
from edge_contract.messages import Labels, Name
from edge_contract.mirrors import MIRRORS_MAX, check_mirror
from edge_contract.ports.disk import read_bounded
from edge_contract.topics import DEFAULT_PREFIX, Topics

CONFIG_MAX_BYTES = 256 * 1024
PASSWORD_MAX_BYTES = 4096
PASSWORD_VARIABLE = "EDGE_AGENT_PASSWORD"  # noqa: S105 - the name of a variable
PORT_MAX = 65535
LOOPBACK = ("127.0.0.1", "::1", "localhost")
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
DEFAULT_PATH = Path("/etc/edge-agent/agent.toml")
DEFAULT_FOLDER = "/var/lib/edge-agent"

Bytes = Annotated[int, Meta(ge=64 * 1024, le=2**40)]
Seconds = Annotated[float, Meta(gt=0, le=10**7)]
Models = Annotated[tuple[Name, ...], Meta(max_length=256)]


class Identity(Struct, frozen=True, kw_only=True):
    """``[agent]``: who this device is, what it follows, and where it keeps its state.

    ``models`` empty: all of the channel's. ``profile``: what expired metadata means: ``home`` uses
    it and says so, ``managed`` installs nothing until the publisher signed anew.
    """

    device: Name
    fleet: Name
    channel: Name = "stable"
    folder: str = DEFAULT_FOLDER
    models: Models = ()
    labels: Labels = {}
    profile: Literal["home", "managed"] = "home"
    prefix: str = DEFAULT_PREFIX


class Broker(Struct, frozen=True, kw_only=True):
    """``[broker]``: where it is. TLS with ``mqtts://``; ``ca`` "" trusts the system's.

    ``password_file`` holds the password, with nothing else in it but a line end. A connection that
    was silent for one and a half times ``keepalive_s`` is given up, by either side.
    """

    url: str
    ca: str = ""
    cert: str = ""
    key: str = ""
    password_file: str = ""
    keepalive_s: Annotated[int, Meta(ge=5, le=3600)] = 30


class Telemetry(Struct, frozen=True, kw_only=True):
    """``[telemetry]``: a window ends after this many seconds or rows, whichever is first."""

    window_s: Seconds = 300.0
    window_rows: Annotated[int, Meta(ge=1, le=10**9)] = 100_000
    spool_bytes: Bytes = 16 * 1024**2


class Update(Struct, frozen=True, kw_only=True):
    """``[update]``: how updates are fetched and tested.

    Attributes:
        poll_s: look for new metadata this often, though nothing rang the doorbell.
        report_s: publish ``reported`` this often, though nothing changed.
        attempts_max: of a self-test or trial that is cut off.
        backoff_min_s, backoff_max_s: wait after a failed fetch.
        self_test_timeout_s: a test that takes longer has failed.
        self_test_runs: latency is measured over this many single-row runs.
        ram_bytes_max: most memory that a bundle may say it needs; 0: what the machine has.
        latency_max_ms: most that the 99th percentile of a golden run may take; 0: any.
        factory: bundle, or folder of bundles, that answers when nothing else does; "": the
            system's, ``/usr/share/edge-agent/factory``.
        stall_s: a request that is under way for longer is ended, and has failed.
    """

    poll_s: Seconds = 3600.0
    report_s: Seconds = 900.0
    attempts_max: Annotated[int, Meta(ge=1, le=100)] = 3
    backoff_min_s: Annotated[float, Meta(gt=0, le=3600)] = 2.0
    backoff_max_s: Annotated[float, Meta(gt=0, le=86400)] = 300.0
    self_test_timeout_s: Annotated[float, Meta(gt=0, le=86400)] = 120.0
    self_test_runs: Annotated[int, Meta(ge=1, le=100_000)] = 50
    ram_bytes_max: Annotated[int, Meta(ge=0, le=2**50)] = 0
    latency_max_ms: Annotated[float, Meta(ge=0, le=10**6)] = 0.0
    factory: str = ""
    stall_s: Annotated[float, Meta(gt=0, le=86400)] = 30.0


class Download(Struct, frozen=True, kw_only=True):
    """``[download]``: what the network and the disk may be used for; "" and empty: no limit.

    Attributes:
        rate_max: bytes a second, as ``512 kB/s``.
        daily_max: bytes a day of the device's zone, as ``50 MB``: all that the download
            connection brings. Only bundles wait for it; metadata is counted, and never held back.
        slot: hours of the local day in which bundles are fetched, each as ``01:00-05:00``.
        start_delay_max_s: a start is put off by a random part of this.
        disk_max: most that slots, chunks and spooled telemetry take together;
            ``[telemetry] spool_bytes`` of it are kept free for telemetry.
        sources: where chunks may come from, first the one to ask first.
        mirrors: of this device, beside those that the publisher signed.
        http_above_bytes: larger bundles ask the mirrors first, whatever the order.
        ca: authority of https mirrors; "" trusts the system's.
    """

    rate_max: str = ""
    daily_max: str = ""
    slot: Annotated[tuple[str, ...], Meta(max_length=24)] = ()
    start_delay_max_s: Annotated[float, Meta(ge=0, le=86400)] = 0.0
    disk_max: str = ""
    sources: Annotated[tuple[Kind, ...], Meta(min_length=1, max_length=2)] = ("mqtt", "http")
    mirrors: Annotated[tuple[str, ...], Meta(max_length=MIRRORS_MAX)] = ()
    http_above_bytes: Annotated[int, Meta(ge=0, le=2**50)] = HTTP_ABOVE_BYTES
    ca: str = ""

    @property
    def choice(self) -> Choice:
        """Which sources a download asks. Raises InputFault for what ``load`` would have refused."""
        mirrors = tuple(check_mirror(each) for each in self.mirrors)
        return Choice(self.sources, mirrors, self.http_above_bytes)

    @property
    def policy(self) -> Policy:
        """What downloads are held to. Raises InputFault for what ``load`` would have refused."""
        return Policy(
            rate_max=units.read_bytes(self.rate_max, per="/s"),
            daily_max=units.read_bytes(self.daily_max),
            slot=tuple(hours(each) for each in self.slot),
            start_delay_max_s=self.start_delay_max_s,
        )

    @property
    def disk_max_bytes(self) -> int:
        """``disk_max`` in bytes; 0 for none."""
        return units.read_bytes(self.disk_max)


class Http(Struct, frozen=True, kw_only=True):
    """``[http]``: inference over HTTP; without the section there is none.

    Attributes:
        listen: ``host:port`` of the TCP listener, "" for none.
        socket: path of a Unix socket, "" for none; its file's mode says who may ask.
        token_file: holds the bearer token that TCP clients have to bring, "" for none.
        cert, key: TLS on the TCP listener, PEM.
        threads: for models that take longer than a millisecond.
        body_max: most bytes of a request, as ``8 MB``.
    """

    listen: str = "127.0.0.1:8080"
    socket: str = ""
    token_file: str = ""
    cert: str = ""
    key: str = ""
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    body_max: str = "8 MB"

    @property
    def address(self) -> tuple[str, int]:
        """Host, "" for none, and port. Raises InputFault for what ``load`` would have refused."""
        host, _, port = self.listen.rpartition(":")
        if not self.listen:
            return "", 0
        if not host or not (port.isascii() and port.isdigit()) or int(port) > PORT_MAX:
            raise InputFault(f"{self.listen!r}, expected host:port such as 127.0.0.1:8080")
        return host.removeprefix("[").removesuffix("]"), int(port)


class Config(Struct, frozen=True, kw_only=True):
    """All settings of one agent; see each section."""

    agent: Identity
    broker: Broker
    telemetry: Telemetry = Telemetry()
    trial: TrialRules = TrialRules()
    update: Update = Update()
    download: Download = Download()
    http: Http | None = None
    password: str = field(default="", name="-")

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
}
_REQUIRED = ("agent", "broker")
_PATHS: dict[type, tuple[str, ...]] = {
    Identity: ("folder",),
    Broker: ("ca", "cert", "key", "password_file"),
    Http: ("socket", "token_file", "cert", "key"),
    Download: ("ca",),
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
        try:
            raw = read_bounded(Path(config.broker.password_file), PASSWORD_MAX_BYTES)
            password = raw.decode().rstrip("\r\n")
        except (InputFault, UnicodeDecodeError) as error:
            faults.append(f"[broker] password_file: {error}")
    if config is None or faults:
        listed = "".join(f"\n  - {fault}" for fault in faults)
        plural = "faults" if len(faults) > 1 else "fault"
        raise InputFault(
            f"{path} has {len(faults)} {plural}:{listed}",
            advice="agent.example.toml shows every setting with its default.",
        )
    return replace(config, password=password)


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
    faults = _unknown(document, tuple(_SECTIONS), "")
    values: dict[str, Any] = {}
    for name, kind in _SECTIONS.items():
        if name in document or name in _REQUIRED:
            section = _section(document.get(name, {}), kind, name, faults)
            values[name] = section = _absolute(section, base)
            faults.extend(_check(section))
    if faults:
        return None, faults
    config = Config(**values)
    faults = _check_together(config)
    return (None, faults) if faults else (config, [])


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


def _value(value: object, kind: Any, where: str, faults: list[str]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said, _, at = str(error).partition(" - at ")
        if "matching regex" in said:
            said = _NAME_RULE
        faults.append(f"{where} = {value!r}: {said}{f' (at {at})' if at else ''}")
        return None


def _unknown(table: Mapping[str, object], known: tuple[str, ...], prefix: str) -> list[str]:
    faults = []
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            faults.append(f"{prefix}unknown setting {key!r}{hint}")
    return faults


def _check(section: Struct | None) -> list[str]:
    """What the types of a section's values cannot say."""
    match section:
        case Identity():
            faults = _said("[agent] prefix", lambda: Topics(section.fleet, section.prefix))
            if len(set(section.models)) != len(section.models):
                faults.append("[agent] models names a model twice")
            return faults
        case Broker():
            return _check_broker(section)
        case Download():
            return _check_download(section)
        case Http():
            return _check_http(section)
        case Update() if section.backoff_min_s > section.backoff_max_s:
            return ["[update] backoff_min_s is over backoff_max_s"]
        case TrialRules() if section.seconds > section.deadline_s:
            return ["[trial] seconds is over deadline_s"]
    return []


def _check_together(config: Config) -> list[str]:
    """What no section can say alone."""
    spool = config.telemetry.spool_bytes
    if 0 < config.download.disk_max_bytes <= spool:
        return [
            f"[download] disk_max = {config.download.disk_max!r} leaves nothing beside"
            f" [telemetry] spool_bytes = {spool}, which is kept free for telemetry"
        ]
    return []


def _check_download(download: Download) -> list[str]:
    faults = [
        *_said("[download] rate_max", lambda: units.read_bytes(download.rate_max, per="/s")),
        *_said("[download] daily_max", lambda: units.read_bytes(download.daily_max)),
        *_said("[download] disk_max", lambda: units.read_bytes(download.disk_max)),
    ]
    if len(set(download.sources)) != len(download.sources):
        faults.append("[download] sources names one twice")
    if download.ca and not Path(download.ca).is_file():
        faults.append(f"[download] ca: no such file: {download.ca}")
    for each in download.mirrors:
        faults.extend(_said("[download] mirrors", functools.partial(check_mirror, each)))
    for each in download.slot:
        faults.extend(_said("[download] slot", functools.partial(hours, each)))
    if not faults and 0 < download.policy.daily_max < CHUNK_BYTES:
        faults.append(f"[download] daily_max is under one chunk of {CHUNK_BYTES} bytes")
    return faults


def _check_http(http: Http) -> list[str]:
    faults = [
        *_said("[http] listen", lambda: http.address),
        *_said("[http] body_max", lambda: units.read_bytes(http.body_max)),
    ]
    if not http.listen and not http.socket:
        faults.append("[http] neither listen nor socket")
    if http.key and not http.cert:
        faults.append("[http] key without cert")
    if not faults and http.listen and http.address[0] not in LOOPBACK and not http.token_file:
        faults.append(
            f"[http] listen = {http.listen!r} is heard by other machines: name a token_file"
        )
    return faults


def _check_broker(broker: Broker) -> list[str]:
    faults = _said("[broker] url", lambda: broker_url.parse(broker.url))
    if broker.key and not broker.cert:
        faults.append("[broker] key without cert")
    if (broker.ca or broker.cert) and not broker.url.startswith("mqtts:"):
        faults.append("[broker] ca or cert without TLS: write the url as mqtts://")
    faults.extend(
        f"[broker] {name}: no such file: {path}"
        for name, path in (("ca", broker.ca), ("cert", broker.cert), ("key", broker.key))
        if path and not Path(path).is_file()
    )
    return faults


def _said(where: str, check: Callable[[], object]) -> list[str]:
    try:
        check()
    except InputFault as error:
        return [f"{where}: {error.what}"]
    return []
