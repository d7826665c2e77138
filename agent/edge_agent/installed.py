"""The models that are installed on this device, opened by a process that is not the agent.

Guards: reading only, whether or not an agent runs; a slot is compared byte by byte with its digest
before it is loaded. What is answered here is counted nowhere: counts belong to the agent.
"""

from __future__ import annotations

from edge_agent import slot, state
from edge_agent.config import Config
from edge_agent.folder import Folder
from edge_agent.model import Model
from edge_agent.state import STATE_MAX_BYTES
from edge_agent.steps import Phase
from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded

BUNDLE_SUFFIX = ".edgepack"


def is_bundle(name: str) -> bool:
    """Whether a person who wrote ``name`` meant a bundle's file, and no installed model."""
    return name.endswith(BUNDLE_SUFFIX) or "/" in name


def open_installed(config: Config, name: str = "") -> Model:
    """The version of the model ``name`` that the agent would answer with; "": of the only one.

    That is the proven one; before there is one, the first while it is on trial.

    Raises InputFault when there is none, or it cannot be read.
    """
    folder = Folder(config.folder)
    known = folder.known_models()
    if not name and len(known) == 1:
        name = known[0]
    if name not in known:
        what = f"no model {name!r} is installed" if name else f"{len(known)} models are installed"
        listed = ", ".join(known) or "none"
        raise InputFault(
            f"{what} in {folder.path}; there are: {listed}",
            advice="Name one of them, or the file of a bundle (NAME.edgepack).",
        )
    found = state.decode(read_bounded(folder.state(name), STATE_MAX_BYTES))
    release = found.active or (found.candidate if found.phase is Phase.TRIAL else None)
    if release is None:
        raise InputFault(
            f"model {name!r} has no version that answers yet: {found.phase}",
            advice="See edge-agent status.",
        )
    place = folder.slot(release.sha256)
    slot.verify(place, release.sha256)
    return Model.from_slot(place)
