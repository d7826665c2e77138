"""The agent's state for a person's eyes: the whole of it, and what moves of it, live."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import Never, TextIO

from msgspec.structs import replace

from edge_agent.bindings import counts
from edge_agent.report import AgentStatus, PrivacyReport, failure_lines
from edge_agent.units import show_bytes
from edge_contract import wire
from edge_contract.messages import Calibrated, ModelReport

LOOK_S = 0.5
_BAR = 24
_PLAIN_WIDTH = 1000
_FRESHNESS = {
    "verified": "signed and fresh",
    "unverified": "signed; whether it is fresh is not known (the clock is not synchronised)",
    "expired": "signed and expired",
    "none": "none yet",
}


def lines(found: AgentStatus, zone: tzinfo = UTC) -> list[str]:
    """All there is to say, a line each; times in ``zone``."""
    state = f"running, pid {found.pid}" if found.running else "not running"
    link = "connected" if found.connected else "not connected"
    clock = "synchronised" if found.clock_synchronised else "not synchronised"
    said = [
        f"device      {found.device} of fleet {found.fleet}, channel {found.channel}",
        f"agent       {state}, boot {found.boot}",
        f"broker      {found.broker}: {link}",
        f"metadata    {_FRESHNESS.get(found.freshness, found.freshness)}, desired revision"
        f" {found.revision}, clock {clock}",
        f"waiting     {found.spool_records} telemetry records, {found.events_waiting} events",
    ]
    if found.doubt:
        said.append(f"in doubt    {found.doubt}")
    if found.twin:
        said.append(f"duplicate   {found.twin}")
    if found.privacy is not None:
        said.extend(_privacy(found.privacy))
    if found.strain.signs:
        began = datetime.fromtimestamp(found.strain.since_ms / 1000, zone)
        said.append(f"strained    {'; '.join(found.strain.signs)} (since {began:%H:%M:%S %z})")
    said.extend(f"bad input   {line}" for line in found.quality.get("", ()))
    for name, model in found.models.items():
        said.extend(_model(name, model, found, zone))
    for name, binding in found.bindings.items():
        said.extend(counts.lines(name, binding))
    if found.last_error:
        over = f"; over since {_utc(found.last_error_over_ms)}" if found.last_error_over_ms else ""
        said.append(f"last error  {found.last_error} ({_utc(found.last_error_ms)}{over} UTC)")
    return said


def _privacy(found: PrivacyReport) -> Iterator[str]:
    yield (
        f"noise       epsilon {found.spent:.3g} spent in 24 h, {found.left:.3g} left of"
        f" {found.epsilon_per_day:g} (delta {found.delta:g})"
    )
    for model, (rows, needed) in found.waiting.items():
        yield f"  waits     {model}: {rows} rows, {needed} or more make a window"


def _utc(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_ms / 1000))


def _model(name: str, model: ModelReport, found: AgentStatus, zone: tzinfo) -> Iterator[str]:
    active = f"{model.active} ({model.digest[:12]})" if model.active else "no version"
    phase = "" if model.phase == "committed" else f", {model.phase}"
    yield f"model       {name}: {active} committed{phase}"
    if model.factory:
        yield f"  factory   {model.factory} answers, for want of a better one"
    if model.candidate:
        fetched = f", {_fetched(model)}" if model.phase == "fetching" else ""
        answers = "answers" if found.running else "was"
        trial = f", {answers} on trial" if model.phase == "trial" else ""
        yield f"  candidate {model.candidate}{fetched}{trial}"
    if model.beside:
        yield f"  beside    {model.beside}"
    if model.waits:
        yield f"  waits     {model.waits}{_until(model, zone)}"
    if name in found.requests:
        answered, failed = found.requests[name]
        yield f"  answered  {answered} rows, {failed} failed"
    yield from (f"  bad input {line}" for line in found.quality.get(name, ()))
    if model.calibration is not None:
        yield f"  scores    {_calibrated(model.calibration)}"
    if model.reason:
        yield f"  because   {model.reason}"
    if model.quarantined:
        yield f"  not tried {', '.join(model.quarantined)}"
    if model.failure:
        first, *evidence = failure_lines(model.failure)
        yield f"  failed    {first}"
        yield from (f"            {line}" for line in evidence)


def _calibrated(found: Calibrated) -> str:
    if found.labels < found.needed:
        return f"as the model says: {found.labels} of {found.needed} labels came here"
    return (
        f"put right by {found.labels} labels, by up to {found.shift:.3g}"
        f" ({found.max_shift:g} is allowed)"
    )


def _fetched(model: ModelReport) -> str:
    share = f"{model.progress:.0%} fetched"
    if not model.total_bytes:
        return share
    rate = f", {show_bytes(model.bytes_per_s)}/s" if model.bytes_per_s else ""
    return f"{share}: {show_bytes(model.done_bytes)} of {show_bytes(model.total_bytes)}{rate}"


def _until(model: ModelReport, zone: tzinfo) -> str:
    """The date, too: a slot may open on another one."""
    if not model.until_ms:
        return ""
    return f" ({datetime.fromtimestamp(model.until_ms / 1000, zone):%Y-%m-%d %H:%M %z})"


# -- live ------------------------------------------------------------------------------------


def glance(found: AgentStatus) -> list[str]:
    """What moves, a line a model, and one for the agent where it does not run."""
    said = [] if found.running else [f"{found.device}: no agent runs"]
    if not found.models:
        said.append(f"{found.device}: no model yet")
    for name, model in found.models.items():
        version = model.candidate or model.active or "no version"
        line = f"{name} {version} {model.phase}"
        if model.phase == "fetching":
            full = round(_BAR * model.progress)
            line += f" [{'#' * full}{'.' * (_BAR - full)}] {_fetched(model)}"
        because = model.waits or model.reason
        said.append(f"{line}: {because}" if because else line)
    return said


def follow(
    read: Callable[[], AgentStatus],
    out: TextIO,
    *,
    as_json: bool,
    wait: Callable[[float], object] = time.sleep,
) -> Never:
    """Show the state as it changes, until interrupted.

    A terminal has its lines replaced; anywhere else each line that changed is written again. With
    ``as_json``, one line of JSON a change.
    """
    shown: list[str] = []
    live = out.isatty() and not as_json
    while True:
        found = read()
        if as_json:
            new = [wire.encode_json(replace(found, at_ms=0)).decode()]
            text = wire.encode_json(found).decode() + "\n" if new != shown else ""
        elif live:
            width = shutil.get_terminal_size().columns - 1
            new = [_printable(line)[:width] for line in glance(found)]
            up = f"\x1b[{len(shown)}F" if shown else ""
            text = up + "\x1b[J" + "".join(f"{line}\n" for line in new) if new != shown else ""
        else:
            new = [_printable(line)[:_PLAIN_WIDTH] for line in glance(found)]
            text = "".join(f"{line}\n" for line in new if line not in shown)
        if text:
            out.write(text)
            out.flush()
        shown = new
        wait(LOOK_S)


def _printable(line: str) -> str:
    """What came from elsewhere moves no cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)
