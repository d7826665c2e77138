"""The checks of one model's input, in the words that a person and the fleet hear. Pure.

Guards: however many features are ill at once, one event a kind of fault says so; it names features,
kinds of fault and shares, never a value of a row (an error value of a fixed list is the sensor's).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from edge_agent.steps import Tell
from edge_agent.telemetry.conditions import CODE, Finding
from edge_agent.telemetry.quality import Changed, Quality
from edge_agent.telemetry.window import Counts
from edge_contract.profile import Profile
from edge_contract.telemetry import FINDINGS_MAX, QUALITY_CODES

FAULT = "quality-fault"
RESTORED = "quality-restored"
NAMED_MAX = 10
SAID_MAX = 8
"""Lines of a model in ``edge-agent status``."""


class Inspection:
    """Looks at a model's counts, and says what began and what ended.

    Args:
        version: what answers; "" in events that are not about one.
    """

    def __init__(self, version: str, profile: Profile) -> None:
        self._version = version
        self._profile = profile
        self._quality = Quality(profile)
        self._looked = (0, 0)

    def look(self, counts: Counts) -> list[Tell]:
        """By the counts of a period so far."""
        if counts.tallied is None or self._looked == (counts.rows, counts.refused):
            return []
        self._looked = counts.rows, counts.refused
        return self._told(
            self._quality.look(
                counts.rows, counts.cells, counts.tallied,
                refused=counts.refused, errors=counts.errors,
            )
        )  # fmt: skip

    def close(self, counts: Counts) -> tuple[list[Tell], tuple[tuple[int, int], ...]]:
        """By the counts of a whole period; with them the findings of its record."""
        if counts.tallied is None:
            return [], ()
        changed = self._quality.close(
            counts.rows, counts.cells, counts.tallied,
            refused=counts.refused, errors=counts.errors,
        )  # fmt: skip
        seen = tuple((code, monitor + 1) for code, monitor in self._quality.seen[:FINDINGS_MAX])
        self._quality.begin()
        self._looked = (0, 0)
        return self._told(changed), seen

    def end(self) -> list[Tell]:
        """It answers no more: what held until now is told to be over."""
        ended = self._quality.end()
        return [
            Tell(RESTORED, self._version, f"{line}; {self._version} answers no more")
            for line in self._lines(ended)
        ]

    @property
    def said(self) -> tuple[str, ...]:
        """What is wrong now, a line a kind of fault."""
        return tuple(self._lines(self._quality.open))[:SAID_MAX]

    def _told(self, changed: Changed) -> list[Tell]:
        told = [Tell(FAULT, self._version, line) for line in self._lines(changed.begun)]
        bare = [each._replace(said="") for each in changed.ended]
        return told + [Tell(RESTORED, self._version, line) for line in self._lines(bare)]

    def _lines(self, findings: Sequence[Finding]) -> list[str]:
        by_code = sorted(findings, key=lambda each: each.code)
        return [self._line(code, list(some)) for code, some in groupby(by_code, lambda f: f.code)]

    def _line(self, code: int, findings: Sequence[Finding]) -> str:
        if code == CODE["refused"]:
            return ": ".join(filter(None, [QUALITY_CODES[code], findings[0].said]))
        named = [self._named(each) for each in findings[:NAMED_MAX]]
        more = f" and {len(findings) - NAMED_MAX} more" if len(findings) > NAMED_MAX else ""
        return f"{QUALITY_CODES[code]}: {', '.join(named)}{more}"

    def _named(self, finding: Finding) -> str:
        name = self._profile.monitors[finding.monitor].name[:80]
        return f"{name} ({finding.said})" if finding.said else name
