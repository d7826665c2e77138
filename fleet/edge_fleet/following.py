"""What a device is to follow, beside what it says that it does. Pure.

Guards: the difference is told by the device's own last report, and what that does not say is not
guessed. A version that no channel of the fleet names is told as such: the report is no proof of
anything, and nothing rests on it but what a person is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct

from edge_contract import messages
from edge_contract.errors import InputFault
from edge_contract.messages import Desired, ModelReport, Reported
from edge_contract.names import version_key
from edge_fleet.store.rollouts import Wish
from edge_fleet.store.states import NamedRelease

Follows = Literal["in-step", "behind", "refusing", "unknown"]
"""It does what is wanted; not yet; it will not; it never said, or in a way not known here."""
STATES: tuple[Follows, ...] = ("in-step", "behind", "refusing", "unknown")
WORDS = ("stable", "candidate")
"""What a wish may name in place of a version: the device's channel says which one that is."""
RESTS = ("committed", "idle")


class Followed(Struct, frozen=True):
    """One model. ``wanted``: a version, or a word of ``WORDS``; ``said``: why it is not so."""

    wanted: str
    follows: Follows
    said: str = ""


class Following(Struct, frozen=True):
    """One device.

    Attributes:
        follows: the worst of ``models``, and of whether the newest wish was heard.
        wanted_revision, revision: of the wish, 0 for none; that the device says it heard.
    """

    follows: Follows
    said: str
    wanted_revision: int
    revision: int
    models: dict[str, Followed]


class Named:
    """The releases that channels of the fleet ever named."""

    def __init__(self, releases: Iterable[NamedRelease]) -> None:
        self._digests: dict[tuple[str, str], set[str]] = {}
        for each in releases:
            self._digests.setdefault((each.model, each.version), set()).add(each.digest)

    def signed(self, model: str, report: ModelReport) -> bool | None:
        """Whether what answers there is named; None: no channel was seen, or nothing answers.

        A factory's bundle that no channel names is not known either: the agent asks the
        publisher's root for it.
        """
        if not self._digests or not report.active:
            return None
        known = self._digests.get((model, report.active), set())
        if known and report.digest in (*known, ""):
            return True
        return None if report.factory and report.factory == report.active else False


def of(wish: Wish | None, told: Reported | None) -> Following:
    """How the device stands to its wish; without one it is to follow its channel."""
    desired = _desired(wish)
    if told is None:
        return Following("unknown", "it never reported", desired.revision, 0, {})
    models = {
        name: _followed(desired.models.get(name, "stable"), told.models.get(name))
        for name in sorted({*desired.models, *told.models})
    }
    worst, said = _worst(models)
    if told.revision < desired.revision and worst != "refusing":
        worst = "behind"
        said = f"it has heard revision {told.revision} of {desired.revision}"
    elif wish is not None and told.revision > desired.revision:
        worst = "behind" if worst == "in-step" else worst
        said = f"it follows revision {told.revision}, which is not ours: ours is {desired.revision}"
    return Following(worst, said, desired.revision, told.revision, models)


def _desired(wish: Wish | None) -> Desired:
    try:
        return messages.decode(wish.desired, Desired) if wish else Desired(revision=0)
    except InputFault:  # kept by a newer edge-fleet
        return Desired(revision=wish.revision if wish else 0)


def _worst(models: Mapping[str, Followed]) -> tuple[Follows, str]:
    for follows in ("refusing", "behind", "unknown"):
        for name, each in models.items():
            if each.follows == follows:
                return each.follows, f"{name}: {each.said}"
    return "in-step", ""


def _followed(word: str, report: ModelReport | None) -> Followed:
    if report is None:
        named = word not in WORDS
        return Followed(word, "behind" if named else "unknown", "it does not say that it has it")
    refused = _refused(word, report)
    if refused:
        return Followed(word, "refusing", refused)
    if report.phase not in RESTS:
        return Followed(word, "behind", _under_way(report))
    if word in (*WORDS, report.active):
        return Followed(word, "in-step")
    return Followed(word, "behind", f"it runs {report.active or 'nothing'}, {word} is wanted")


def _refused(word: str, report: ModelReport) -> str:
    """Why it does not take what is wanted; "" where it does, or that is not known.

    Where the channel says which version it is: the one that it failed on last, if that is newer
    than what runs there.
    """
    failure = report.failure
    if word in WORDS:
        newer = failure and version_key(failure.version) > version_key(report.active)
        return f"{failure.version} failed: {failure.reason}" if failure and newer else ""
    if word in (report.active, report.candidate):
        return ""
    if failure and failure.version == word:
        return f"{word} failed: {failure.reason}"
    return f"{word} is in quarantine there" if word in report.quarantined else ""


def _under_way(report: ModelReport) -> str:
    share = f" {100 * report.progress:.0f} %" if report.phase == "fetching" else ""
    waits = f", waits: {report.waits}" if report.waits else ""
    return f"{report.phase}{share} {report.candidate}".rstrip() + waits
