"""Opens two bundles, compares what they say, and asks both models about both golden samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_agent.runtime import Session
from edge_contract import golden as goldens
from edge_contract import profile as profiles
from edge_contract.bundle import Bundle
from edge_contract.errors import EdgeError
from edge_contract.golden import Golden
from edge_contract.manifest import GOLDEN_FILE, MODEL_FILE, PROFILE_FILE, Manifest
from edge_contract.profile import Profile
from edge_pack import reading
from edge_pack.answers import Answers as Said
from edge_pack.answers import of_tensors
from edge_pack.gates import diff, shift
from edge_pack.gates.baseline import translate
from edge_pack.gates.diff import Answers, Difference
from edge_pack.inference import Tensors


def bundles(first: Path, second: Path) -> Difference:
    """What differs from the first bundle to the second. Raises InputFault for a damaged one."""
    a, b = reading.open_bundle(first), reading.open_bundle(second)
    old, new = _profile(a), _profile(b)
    return Difference(
        a=diff.side(a),
        b=diff.side(b),
        breaks=diff.breaks(a.manifest, b.manifest),
        changes=diff.compare(a.manifest, b.manifest),
        profile=shift.between(old, new) if old is not None and new is not None else (),
        answers=_answers(a, b),
    )


def _profile(bundle: Bundle) -> Profile | None:
    if all(file.name != PROFILE_FILE for file in bundle.manifest.files):
        return None
    return profiles.decode(bundle.file(PROFILE_FILE))


def _answers(a: Bundle, b: Bundle) -> Answers:
    """Both models on every golden sample, where both take the same tensors."""
    takes = [{(t.name, t.dtype, t.features) for t in x.manifest.inputs} for x in (a, b)]
    if takes[0] != takes[1]:
        return Answers(reason="the two take different inputs")
    if a.manifest.task != b.manifest.task:
        return Answers(reason="the two are of different tasks")
    try:
        sessions = [Session(bundle.file(MODEL_FILE)) for bundle in (a, b)]
        rows, changed, apart = 0, 0, 0.0
        for golden in _samples(a, b):
            feeds = {array.name: goldens.unpack(array) for array in golden.inputs}
            said = [
                _said(session, feeds, bundle.manifest)
                for session, bundle in zip(sessions, (a, b), strict=True)
            ]
            rows += said[0].rows
            flips, most = _apart(said[0], said[1], a.manifest, b.manifest)
            changed, apart = changed + flips, max(apart, most)
    except EdgeError as error:
        return Answers(reason=error.what)
    return Answers(rows=rows, labels_changed=changed, diff_max=float(f"{apart:.4g}"))


def _samples(a: Bundle, b: Bundle) -> list[Golden]:
    """The golden samples of both; of one where the inputs are the same."""
    found = [goldens.decode(bundle.file(GOLDEN_FILE)) for bundle in (a, b)]
    return found[:1] if found[0].inputs == found[1].inputs else found


def _said(session: Session, feeds: Tensors, manifest: Manifest) -> Said:
    return of_tensors(session.run(feeds), manifest.outputs)


def _apart(a: Said, b: Said, old: Manifest, new: Manifest) -> tuple[int, float]:
    """Labels that changed, and the largest difference of a probability or a value."""
    labels = old.outputs.labels, new.outputs.labels
    flips = 0
    if a.labels is not None and b.labels is not None:
        flips = int(np.count_nonzero(translate(a.labels, *labels) != b.labels))
    for before, after in ((a.scores, b.scores), (a.values, b.values)):
        comparable = before is not None and after is not None and labels[0] == labels[1]
        if comparable and before is not None and after is not None and before.shape == after.shape:
            apart = np.abs(before - after)
            return flips, float(np.nanmax(apart, initial=0.0))
    return flips, 0.0
