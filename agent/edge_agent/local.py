"""The agent as its disk shows it, whether it runs or not: reading only, changing nothing.

One thing may be asked of one that runs: to look for updates, by a signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent import state
from edge_agent.config import Config
from edge_agent.folder import Folder, holder, last_boot, running
from edge_agent.report import STATUS_MAX_BYTES, AgentStatus, model_reports
from edge_agent.state import STATE_MAX_BYTES
from edge_agent.steps import State
from edge_contract import wire
from edge_contract.errors import InputFault, MachineFault
from edge_contract.ports.disk import read_bounded

LOOK_SIGNAL = signal.SIGUSR1
STALE_S = 60.0
"""A running agent says how it is every 10 s; one that is silent for longer is stuck."""


def read(config: Config, now_s: Callable[[], float] = time.time) -> AgentStatus:
    """What a running agent last said; of one that does not run, what its updates' states say.

    So too of one that runs and cannot say how it is, such as where the disk is full: that of an
    earlier process, or of long ago by the file's own date, is not taken for it.
    """
    folder = Folder(config.folder)
    said, written_s = _said(folder.status), _written_s(folder.status)
    runs, pid = running(folder), holder(folder)
    own = said is not None and said.running and pid in (0, said.pid)
    if runs and said and own and abs(now_s() - written_s) < STALE_S:
        return said
    identity = config.agent
    states = {model: _state(folder.state(model)) for model in folder.known_models()}
    base = said or AgentStatus(
        device=identity.device, fleet=identity.fleet, channel=identity.channel, running=False
    )
    return msgspec.structs.replace(
        base,
        device=identity.device,
        fleet=identity.fleet,
        channel=identity.channel,
        broker=str(config.broker_url),
        running=runs,
        pid=pid if runs else 0,
        doubt=_doubt(written_s if own else 0.0) if runs else "",
        connected=False,
        boot=last_boot(folder),
        requests={},
        bindings={},
        models=model_reports(states, {}, {}, {}, {}),
        spool_records=sum(1 for _ in folder.spool.glob("*.rec")),
        events_waiting=sum(1 for _ in folder.outbox.glob("*.json")),
    )


def _written_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _doubt(written_s: float) -> str:
    when = "since it started"
    if written_s:
        when = time.strftime("since %Y-%m-%d %H:%M:%S UTC", time.gmtime(written_s))
    return f"the agent has not written how it is {when}: a full disk, or it is stuck"


def look_now(config: Config) -> int:
    """Have the running agent look for updates; returns its process.

    Raises MachineFault when none runs, or it is not ours to ask.
    """
    folder = Folder(config.folder)
    pid = holder(folder)
    if not pid:
        raise MachineFault(
            f"no agent is seen to run in {folder.path}",
            advice="Start it: `edge-agent run`, or look where it runs, such as in its container.",
        )
    if not _listens(pid):
        raise MachineFault(
            f"process {pid}, which holds the folder, is no `edge-agent run`",
            advice="A program that runs an Agent of its own asks by its method look().",
        )
    try:
        os.kill(pid, LOOK_SIGNAL)
    except OSError as error:
        raise MachineFault(
            f"cannot ask the agent, process {pid}: {error.strerror}",
            advice="Ask as the user that it runs as, or as root.",
        ) from error
    return pid


def _listens(pid: int) -> bool:
    """Whether the signal is caught there, rather than deadly: proc_pid_status(5), SigCgt."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        (caught,) = (line.split()[1] for line in lines if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (LOOK_SIGNAL - 1) & 1)
    except (OSError, ValueError):
        return False


def healthy(status: AgentStatus, now_s: float) -> bool:
    """Whether the agent runs and its loop turns."""
    return status.running and now_s - status.at_ms / 1000 < STALE_S


def _said(path: Path) -> AgentStatus | None:
    with contextlib.suppress(InputFault):
        data = read_bounded(path, STATUS_MAX_BYTES)
        return wire.decode_json(data, AgentStatus, size_max=STATUS_MAX_BYTES)
    return None


def _state(path: Path) -> State:
    try:
        return state.decode(read_bounded(path, STATE_MAX_BYTES))
    except InputFault as error:
        return State(reason=f"its state cannot be read: {error.what}"[:1000])
