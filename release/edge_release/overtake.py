"""Publishing again from a key folder that was brought back from an older copy.

Devices never go back to older metadata, and ``sync`` does not put any over newer. Where the newer
copy of the folder is lost, its state is signed anew here under versions above all that the broker
holds. What the lost copy published since is then not named any more: publish it again.

Guards: only metadata that these keys signed is overtaken; a lost copy that changed root or targets
cannot be, its keys are needed.
"""

from __future__ import annotations

from datetime import datetime

from tuf.api.metadata import Snapshot, Timestamp

from edge_contract.errors import InputFault
from edge_contract.ports.retained import Retained
from edge_contract.topics import Topics
from edge_release import metadata, roles
from edge_release.commit import Act, Draft, commit
from edge_release.repository import Repository
from edge_release.shelf import METADATA_MAX_BYTES, State, versioned


def overtake(repository: Repository, topics: Topics, broker: Retained, *, now: datetime) -> int:
    """Sign the state under higher versions than the broker's; returns the timestamp's.

    Raises InputFault when the broker holds nothing newer, or what cannot be overtaken.
    """
    draft = Draft(repository.shelf.read())
    state = draft.state
    there = _there(state, topics, broker)
    held = metadata.verify(
        state.root, roles.TIMESTAMP, there["timestamp.json"], Timestamp, "the broker's timestamp"
    )
    if held.version < state.timestamp.version:
        raise InputFault(
            f"the broker is at metadata version {held.version}, this repository at"
            f" {state.timestamp.version}: there is nothing to overtake",
            advice="Run `edge-pack sync` without --overtake.",
        )
    name = versioned(roles.SNAPSHOT, held.snapshot_meta.version)
    data = broker.get([topics.metadata(name)], size_max=METADATA_MAX_BYTES)
    snapshot = metadata.verify(
        state.root, roles.SNAPSHOT, data.get(topics.metadata(name), b""), Snapshot, f"its {name}"
    )
    if snapshot.meta[f"{roles.TARGETS}.json"].version > state.targets[roles.TARGETS].version:
        raise _changed("targets")
    for role in roles.PATHS:
        meta = snapshot.meta.get(f"{role}.json")
        state.targets[role].version = max(state.targets[role].version, meta.version if meta else 0)
        draft.touched.add(role)
    state.snapshot.version = max(state.snapshot.version, snapshot.version)
    state.timestamp.version = held.version
    about = {"fleet": topics.fleet, "version": str(held.version)}
    commit(repository.desk, draft, Act("overtake", about), now=now)
    return repository.shelf.read().timestamp.version


def _there(state: State, topics: Topics, broker: Retained) -> dict[str, bytes]:
    names = ["timestamp.json", versioned(roles.ROOT, state.root.version + 1)]
    found = broker.get([topics.metadata(name) for name in names], size_max=METADATA_MAX_BYTES)
    there = {name: found.get(topics.metadata(name), b"") for name in names}
    try:
        newer = metadata.parse_role(there[names[1]], roles.ROOT, names[1])
    except InputFault:
        return there
    if metadata.signed_by(state.root, roles.ROOT, newer)[1]:
        raise _changed("root")
    return there


def _changed(role: str) -> InputFault:
    return InputFault(
        f"the lost copy changed its {role}: devices believe keys that are not here",
        advice="Bring back a copy from after that change of keys, or enroll the devices again.",
    )
