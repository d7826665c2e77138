"""The forms a model could travel in, each judged against the original, and the choice of one.

Guards: the smallest form on the wire wins only within the parity budget and only if it is
smaller than plain float32; an explicit mode that fails is refused, never swapped for another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edge_agent.runtime import Session
from edge_contract import bundle as bundles
from edge_contract.errors import BuildFault
from edge_contract.manifest import MODEL_FILE, File
from edge_pack import graphs, parity
from edge_pack.answers import Answers
from edge_pack.compress.storage import int8_storage
from edge_pack.parity import Budget, Comparison

Mode = Literal["none", "int8-storage"]


@dataclass(frozen=True)
class Candidate:
    """One form of the model, ready to be sealed.

    Attributes:
        mode: as the manifest names it. changed: tensors stored otherwise than in float32.
        file, stored: the bundle's member: its entry and its bytes on the wire.
    """

    mode: Mode
    changed: int
    proto: Any
    raw: bytes
    file: File
    stored: bytes
    session: Session
    answers: Answers
    comparison: Comparison


Ask = Callable[[Session], Answers]


def make(proto: Any, quantize: str, ask: Ask, original: Answers) -> list[Candidate]:
    """The candidates of a mode, plain float32 first where the mode allows it.

    Args:
        ask: a loaded model's answers to the rows that ``original`` answered.

    Raises BuildFault when an explicit mode changes nothing.
    """
    found = []
    if quantize in ("auto", "none"):
        found.append(_candidate("none", 0, proto, ask, original))
    if quantize in ("auto", "int8-storage"):
        try:
            changed, count = int8_storage(proto)
        except BuildFault:
            if quantize != "auto":
                raise
        else:
            found.append(_candidate("int8-storage", count, changed, ask, original))
    return found


def _candidate(mode: Mode, changed: int, proto: Any, ask: Ask, original: Answers) -> Candidate:
    raw = graphs.serialise(proto)
    file, stored = bundles.encode_member(MODEL_FILE, raw)
    session = Session(raw)
    answers = ask(session)
    comparison = parity.compare(original, answers)
    return Candidate(mode, changed, proto, raw, file, stored, session, answers, comparison)


def choose(
    found: Sequence[Candidate], budget: Budget, *, force: bool, given: int, hint: str = ""
) -> Candidate:
    """The smallest candidate within the budget; at a tie the earlier, plainer one.

    Args:
        force: take the first when none is within the budget.
        given: rows of the user's own data, which the refusal names by number.
        hint: what the model's steps suggest to do, for the refusal.

    Raises BuildFault when none is, unless forced.
    """
    fitting = [candidate for candidate in found if candidate.comparison.within(budget)]
    if fitting:
        return min(fitting, key=lambda candidate: len(candidate.stored))
    if force:
        return found[0]
    raise parity.refusal(found[0].comparison, budget, given, hint)
