"""A recorder on disk whose models note their answers, and what takes labels for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_agent import Model
from edge_agent.feedback import Feedback
from edge_agent.live import Live
from edge_agent.predictions import Answers, Noted, bundle_of
from edge_agent.tap import Tap
from edge_agent.telemetry import Recorder, Spool
from edge_agent.telemetry.recorder import Instant
from edge_contract import aside
from edge_contract import bundle as bundles
from edge_contract.aside import Labelled
from edge_contract.messages import Label, LabelsTaken

BORN_S = 1_700_000_000
KEEP = 100
HOUR_S = 3600.0


@dataclass
class Desk:
    """One boot of a device's feedback, on a clock that the test moves."""

    folder: Path
    boot: int = 1
    keep: int = KEEP
    at_s: float = 0.0
    seats: dict[str, Live] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spool = Spool(self.folder / "spool")
        self.answers = Answers(
            self.folder / "answers.bin", boot=self.boot, keep=self.keep, keep_s=HOUR_S,
            now_s=lambda: BORN_S + self.at_s,
        )  # fmt: skip
        self.recorder = Recorder(
            self.spool, device="pi1", boot=self.boot, observer=self._observer,
            window_s=10_000,
        )  # fmt: skip
        self.feedback = Feedback(self.answers, self.recorder, self.now, window_s=60)

    def _observer(self, model: Model, window: Any) -> Any:
        bundle = bundle_of(model.manifest, model.profile, model.digest)
        return window if bundle is None else Tap(window, Noted(self.answers, bundle))

    def now(self) -> Instant:
        return Instant(int(1000 * (BORN_S + self.at_s)), self.at_s, True)

    def serve(self, data: bytes) -> Live:
        model = Model.from_bundle(bundles.read(data))
        seat = self.seats.setdefault(model.manifest.name, Live(model.manifest.name))
        self.recorder.swap(seat, model, self.now())
        return seat

    def give(self, model: str, *labels: tuple[str, object]) -> LabelsTaken:
        return self.feedback.give(model, [Label(id=which, label=label) for which, label in labels])

    def records(self) -> list[Labelled]:
        """Of labels, in the order in which they were spooled."""
        found = [data for _, data in self.spool.pending()]
        read = [aside.decode(data) for data in found if aside.is_aside(data)]
        return [each for each in read if isinstance(each, Labelled)]

    def again(self, **changes: Any) -> Desk:
        """The next boot on the same disk; what was not saved is gone, as after a kill."""
        values = {"boot": self.boot + 1, "keep": self.keep, "at_s": self.at_s, **changes}
        return Desk(self.folder, **values)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)
