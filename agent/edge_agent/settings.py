"""The sections of ``agent.toml``, each one frozen struct, and what their types cannot say.

Guards: a setting that could not work is a fault here, at the start, and not when it is needed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from edge_agent import units
from edge_agent.media_rules import Rules
from edge_agent.overload import VALUES_MAX, WAITING_BYTES_MAX, WAITING_MAX
from edge_agent.overload import Rules as QueueRules
from edge_agent.policy import Policy, hours
from edge_agent.sources import HTTP_ABOVE_BYTES, Choice, Kind
from edge_agent.steps import TrialRules
from edge_contract import broker_url
from edge_contract.chunks import CHUNK_BYTES
from edge_contract.errors import InputFault
from edge_contract.messages import Labels, Name
from edge_contract.mirrors import MIRRORS_MAX, check_mirror
from edge_contract.sealed import check_recipient
from edge_contract.topics import DEFAULT_PREFIX, Topics

DEFAULT_FOLDER = "/var/lib/edge-agent"
PORT_MAX = 65535
LOOPBACK = ("127.0.0.1", "::1", "localhost")

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


class Feedback(Struct, frozen=True, kw_only=True):
    """``[feedback]``: labels that come later. ``keep`` 0: answers have no ids.

    Attributes:
        keep: so many answers can still be labelled. hours: and for so long.
    """

    keep: Annotated[int, Meta(ge=0, le=1_000_000)] = 10_000
    hours: Annotated[float, Meta(gt=0, le=8784)] = 72.0


class Calibration(Struct, frozen=True, kw_only=True):
    """``[calibration]``: scores put right by labels that come here, where the publisher allows it.

    Attributes:
        models: which; empty: every one that allows it. min_labels: more than the publisher asks
            for, before anything moves.
    """

    models: Models = ()
    min_labels: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class Sampling(Struct, frozen=True, kw_only=True):
    """``[sampling]``: rows that are set aside, sealed for their owner; without it none is.

    Attributes:
        recipient: public key of who may read them, from ``edge-fleet samples key``.
        models: which; empty: every one that takes features.
        per_day: most rows of a day of UTC, spread over it. bytes_per_day: and most bytes.
        disk_max: most bytes of all that wait; the oldest go first.
        deny: features that are never kept.
        random: this share of the rows. drifted: rows with a value that the reference does not
            have. uncertain: with a score so near the threshold, or up to so much above a half.
    """

    recipient: str
    models: Models = ()
    per_day: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    bytes_per_day: str = "1 MB"
    disk_max: str = "16 MB"
    deny: Annotated[tuple[str, ...], Meta(max_length=1000)] = ()
    random: Annotated[float, Meta(ge=0, le=1)] = 0.001
    drifted: bool = True
    uncertain: Annotated[float, Meta(ge=0, le=0.5)] = 0.05

    @property
    def day_bytes(self) -> int:
        """``bytes_per_day`` in bytes. Raises InputFault for what ``load`` would have refused."""
        return units.read_bytes(self.bytes_per_day)

    @property
    def disk_bytes(self) -> int:
        """``disk_max`` in bytes, as ``day_bytes``."""
        return units.read_bytes(self.disk_max)


class Noise(Struct, frozen=True, kw_only=True):
    """Noise on counts: see ``edge_agent.noise``.

    Attributes:
        epsilon_per_day, delta: what all windows of a day together may tell of a row of each.
    """

    epsilon_per_day: Annotated[float, Meta(gt=0, le=100)]
    delta: Annotated[float, Meta(gt=0, le=0.001)] = 1e-6


class Privacy(Struct, frozen=True, kw_only=True):
    """``[privacy]``: what is done to counts before they leave; without ``noise`` nothing."""

    noise: Noise | None = None


class Shadow(Struct, frozen=True, kw_only=True):
    """``[shadow]``: a version that is tried beside the one that answers.

    Attributes:
        models: of this device, whatever the fleet says; ``version``, ``share`` and ``answers`` are
            for them, as in ``messages.Beside``.
        tolerance: values of a regression agree that differ by no more than so many deviations of
            the live version's reference predictions.
        queue: requests that may wait for it; more are skipped.
    """

    models: Models = ()
    version: Name = "candidate"
    share: Annotated[float, Meta(ge=0, le=1)] = 0.1
    answers: bool = False
    tolerance: Annotated[float, Meta(ge=0, le=1000)] = 0.1
    queue: Annotated[int, Meta(ge=1, le=10_000)] = 64


class Loading(Struct, frozen=True, kw_only=True):
    """``[models.NAME]``: how a model is kept in memory.

    Attributes:
        threads: that work on one request of it.
        keep_former: the version before the one that answers stays loaded: it is asked by its
            version, and comes back at once when the new one fails its trial.
    """

    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    keep_former: bool = False


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


class Overload(Struct, frozen=True, kw_only=True):
    """``[overload]``: what requests are held to, at every door: see ``edge_agent.overload``.

    Attributes:
        waiting_max: requests that wait at one door, of all models together.
        waiting_bytes: most bytes of them, as ``32 MB``.
        values_max: rows times features of one request.
        at_once: requests of a model that one door computes at once, by the model's name.
    """

    waiting_max: Annotated[int, Meta(ge=1, le=100_000)] = WAITING_MAX
    waiting_bytes: str = "32 MiB"
    values_max: Annotated[int, Meta(ge=1, le=2**31)] = VALUES_MAX
    at_once: dict[Name, Annotated[int, Meta(ge=1, le=64)]] = {}

    @property
    def rules(self) -> QueueRules:
        """The same for a queue. Raises InputFault for what ``load`` would have refused."""
        return QueueRules(
            waiting_max=self.waiting_max,
            waiting_bytes_max=units.read_bytes(self.waiting_bytes) or WAITING_BYTES_MAX,
            at_once=self.at_once,
            values_max=self.values_max,
        )


class Watch(Rules, frozen=True, kw_only=True):
    """``[watch]``: files that come into a folder are answered by files; without it none is.

    Attributes:
        folder: handled files go to ``done`` and ``failed`` in it, each with its answer.
        model: the model or ensemble that answers.
        settle_s: a file that did not change for so long is complete. poll_s: looked for this often.
        keep: so many handled files stay, the newest.
        file_max: most bytes of a file, as ``32 MB``.
    """

    folder: str
    model: Name
    settle_s: Annotated[float, Meta(ge=0, le=3600)] = 1.0
    poll_s: Annotated[float, Meta(ge=0.05, le=3600)] = 0.5
    keep: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    file_max: str = "32 MB"

    @property
    def file_max_bytes(self) -> int:
        """``file_max`` in bytes. Raises InputFault for what ``load`` would have refused."""
        return units.read_bytes(self.file_max)


def faults_of(section: Struct | None) -> list[str]:
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
        case Watch():
            said = _said("[watch] file_max", lambda: section.file_max_bytes)
            return [*said, *(f"[watch] {fault}" for fault in section.faults())]
        case Sampling():
            return _check_sampling(section)
        case Overload():
            return _said("[overload] waiting_bytes", lambda: section.rules)
    return _check_order(section)


def _check_order(section: Struct | None) -> list[str]:
    match section:
        case Update() if section.backoff_min_s > section.backoff_max_s:
            return ["[update] backoff_min_s is over backoff_max_s"]
        case TrialRules() if section.seconds > section.deadline_s:
            return ["[trial] seconds is over deadline_s"]
    return []


_NOISE_MONITORS = 10
_NOISE_ROWS_MAX = 20_000


def noise_faults(noise: Noise, telemetry: Telemetry) -> list[str]:
    """Windows so short that noise would drown them: the budget of a day is split among them."""
    from edge_agent.noise import FACTOR_MAX, GROUPS, rho_of  # noqa: PLC0415 - most have no noise

    rho = rho_of(noise.epsilon_per_day, noise.delta) * min(telemetry.window_s / 86_400, 1.0)
    rows = GROUPS * _NOISE_MONITORS / (rho * (FACTOR_MAX - 1))
    if rows <= _NOISE_ROWS_MAX:
        return []
    return [
        f"[privacy] noise: {86_400 / telemetry.window_s:.3g} windows a day share epsilon"
        f" {noise.epsilon_per_day:g}: with {_NOISE_MONITORS} features each would need"
        f" {rows:,.0f} rows for the noise not to drown it. Set [telemetry] window_s = 86400,"
        " or a larger epsilon_per_day"
    ]


def _check_sampling(sampling: Sampling) -> list[str]:
    return [
        *_said("[sampling] recipient", lambda: check_recipient(sampling.recipient)),
        *_said("[sampling] bytes_per_day", lambda: sampling.day_bytes),
        *_said("[sampling] disk_max", lambda: sampling.disk_bytes),
    ]


_DAILY_MIN_BYTES = 2 * CHUNK_BYTES
"""With less, a day's metadata may leave no room for a chunk, day after day."""


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
    if not faults and 0 < download.policy.daily_max < _DAILY_MIN_BYTES:
        faults.append(
            f"[download] daily_max is under {_DAILY_MIN_BYTES} bytes: a chunk of {CHUNK_BYTES} and"
            " as much of metadata, which counts too"
        )
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
