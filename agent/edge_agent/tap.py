"""What happens to an answer beside being counted: it is noted for a label, and shown to a shadow.

Guards: what is not asked for costs nothing (a model without feedback and without a shadow has its
window as its observer, and no tap); nothing here can make a request fail or wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edge_agent.inputs import Batch
from edge_agent.model import Model, Observer
from edge_agent.outputs import Prediction
from edge_agent.predictions import Answers, Noted, bundle_of

if TYPE_CHECKING:
    from edge_agent.calibrating import Calibrating
    from edge_agent.calibration import Curve
    from edge_agent.samples import Sampler, Samples


class Watcher(Protocol):
    """Who sees answered calls; must be quick and never raise."""

    def offer(
        self, batch: Batch, labels: Sequence[int], scores: Sequence[float], latency_ns: int
    ) -> None:
        """One call was answered."""


class Tap:
    """An observer that passes everything on to the window that counts.

    Attributes:
        noted: keeps the answers for labels; None: there is no feedback.
        watcher: sees the answered calls; None: nobody does. May be set at any time.
        sampler: sees the rows, to set some aside; None: no row is looked at again.
        curve: puts the scores of answers in words right; None: they are the model's alone.
    """

    __slots__ = ("curve", "noted", "sampler", "watcher", "window")

    def __init__(
        self, window: Observer, noted: Noted | None = None, watcher: Watcher | None = None
    ) -> None:
        self.window = window
        self.noted = noted
        self.watcher = watcher
        self.sampler: Sampler | None = None
        self.curve: Curve | None = None

    def observe(
        self, batch: Batch, labels: Sequence[int], scores: Sequence[float], latency_ns: int
    ) -> None:
        """As ``Observer.observe``."""
        self.window.observe(batch, labels, scores, latency_ns)
        if self.noted is not None:
            self.noted.note(labels, scores)
        sampler = self.sampler
        if sampler is not None:
            sampler.offer(batch, labels, scores)
        watcher = self.watcher
        if watcher is not None:
            watcher.offer(batch, labels, scores, latency_ns)

    def refused(self, rows: int, code: str = "") -> None:
        """As ``Observer.refused``."""
        self.window.refused(rows, code)

    def failed(self, rows: int, code: str = "") -> None:
        """As ``Observer.failed``."""
        self.window.failed(rows, code)


def tapped(
    model: Model,
    window: Observer,
    answers: Answers | None,
    calibrating: Calibrating | None = None,
    samples: Samples | None = None,
) -> Observer:
    """What a model tells its calls to, given its window; ``answers``: None without feedback."""
    bundle = bundle_of(model.manifest, model.profile, model.digest)
    noted = Noted(answers, bundle) if answers is not None and bundle is not None else None
    sampler = samples.attach(model) if samples is not None else None
    if noted is None and sampler is None:
        return window
    tap = Tap(window, noted)
    tap.sampler = sampler
    if calibrating is not None and noted is not None and bundle is not None:
        calibrating.attach(bundle, model.manifest.calibration, tap)
    return tap


def watch(model: Model, watcher: Watcher | None) -> None:
    """Let ``watcher`` see what ``model`` answers from now on; None: nobody."""
    observer = model.observer
    if isinstance(observer, Tap):
        observer.watcher = watcher
    elif observer is not None and watcher is not None:
        model.observer = Tap(observer, watcher=watcher)


def claim(model: Model) -> str:
    """The id of the first row that ``model`` just answered this thread; "" without feedback."""
    observer = model.observer
    noted = observer.noted if isinstance(observer, Tap) else None
    number = noted.claim() if noted is not None else 0
    return noted.id_of(number) if noted is not None and number else ""


def predict(model: Model, rows: object) -> Prediction | list[Prediction]:
    """As ``Model.predict``, each prediction with its id where the agent gives ids.

    Where labels that came here put scores right, it says that probability beside the model's own.
    """
    found = model.predict(rows)
    observer = model.observer
    if type(observer) is not Tap or observer.noted is None:
        return found
    noted = observer.noted
    number = noted.claim()
    if not number:
        return found
    curve = observer.curve
    if not isinstance(found, list):
        return _with_id(found, noted.id_of(number), curve)
    return [_with_id(each, noted.id_of(at), curve) for at, each in enumerate(found, number)]


def _with_id(found: Prediction, own: str, curve: Curve | None) -> Prediction:
    said = None if curve is None else curve.of(str(found.label), found.probabilities)
    return Prediction(found.label, found.probabilities, found.value, found.outputs, own, said)
