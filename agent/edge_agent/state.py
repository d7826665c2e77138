"""What the agent remembers: the state of each update and the newest ``desired``.

Guards: what is read back is consistent or not used at all. A state that cannot be read is set
aside, and its model starts afresh: the channel's pointer on disk names what is wanted, and a
slot that is still there is proven again, without a download.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from edge_agent.folder import Folder
from edge_agent.steps import RESTING, SCHEMA, Phase, State
from edge_contract import messages, wire
from edge_contract.errors import InputFault
from edge_contract.messages import MAX_BYTES, Desired
from edge_contract.ports.disk import read_bounded, write_atomic

log = logging.getLogger(__name__)

STATE_MAX_BYTES = 256 * 1024


def encode(state: State) -> bytes:
    """JSON, as it is kept on disk."""
    return wire.encode_json(state)


def decode(data: bytes) -> State:
    """A state that holds together. Raises InputFault, and nothing else."""
    state = wire.decode_json(data, State, size_max=STATE_MAX_BYTES)
    if state.schema != SCHEMA:
        raise InputFault(f"state has schema {state.schema}, this agent knows {SCHEMA}")
    if (state.candidate is None) != (state.phase in RESTING):
        raise InputFault(f"state is {state.phase} with candidate {state.candidate}")
    if state.candidate and state.active and state.candidate.sha256 == state.active.sha256:
        raise InputFault("the state's candidate is what is active already")
    return state


def load(folder: Folder, model: str) -> State:
    """The state of ``model``'s update; a fresh one when there is none that can be read."""
    path = folder.state(model)
    if not path.exists():
        return State()
    try:
        return decode(read_bounded(path, STATE_MAX_BYTES))
    except InputFault as error:
        log.warning("%s: state set aside, starting afresh: %s", model, error.what)
        _set_aside(path)
        return State()


def save(folder: Folder, model: str, state: State) -> None:
    """Have the state on disk when this returns. Raises MachineFault when that cannot be."""
    write_atomic(folder.state(model), encode(state))


def fetching(folder: Folder) -> set[str]:
    """Digests of the releases whose fetch is not finished, by what is on disk."""
    states = [load(folder, model) for model in folder.known_models()]
    return {s.candidate.sha256 for s in states if s.candidate and s.phase is Phase.FETCHING}


def load_desired(folder: Folder) -> Desired | None:
    """The newest ``desired`` that was heard, or None."""
    if not folder.desired.exists():
        return None
    try:
        return messages.decode(read_bounded(folder.desired, MAX_BYTES[Desired]), Desired)
    except InputFault as error:
        log.warning("desired set aside: %s", error.what)
        _set_aside(folder.desired)
        return None


def save_desired(folder: Folder, desired: Desired) -> None:
    """Have ``desired`` on disk when this returns. Raises MachineFault when that cannot be."""
    write_atomic(folder.desired, messages.encode(desired))


def _set_aside(path: Path) -> None:
    """Keep what cannot be read for a person to look at, out of our way."""
    with contextlib.suppress(OSError):
        path.replace(path.with_name(path.name + ".unreadable"))
