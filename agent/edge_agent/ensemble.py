"""Several models that answer as one: outputs of some are inputs of others.

Guards: a request is answered wholly by one version of each model, and never by models that do not
fit each other; each model checks and counts what it gets as if it had been asked by itself.

``Ensemble`` is a ``Model`` to whoever asks it; ``EnsembleSeat`` is a ``Live``, whose members are
swapped beneath it.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from edge_agent import pipeline, tap
from edge_agent.inputs import Batch, Inputs
from edge_agent.live import Live, NoSuchVersion
from edge_agent.model import Model
from edge_agent.outputs import Prediction, listed
from edge_agent.pipeline import Feed, Member, Shape, Spec
from edge_agent.runtime import TensorInfo
from edge_contract.errors import EdgeError, InputFault, MachineFault
from edge_contract.typed import convert

log = logging.getLogger(__name__)

__all__ = ["Ensemble", "EnsembleSeat", "Spec"]

VERSION_MAX_CHARS = 64
_KEPT = 4
"""Ensembles of a seat: of the versions now, and of those that take turns with them."""


class Ensemble(Model):
    """Models that answer as one. Asked as a ``Model`` is; thread-safe.

    Args:
        name: what it is called. members: its models by name; ``close`` closes them.

    Raises InputFault when the models do not fit the spec or each other.
    """

    def __init__(self, name: str, spec: Spec, members: Mapping[str, Model]) -> None:
        missing = [each for each in spec.models if each not in members]
        if missing:
            raise InputFault(f"ensemble {name!r} needs a model {missing[0]!r}")
        self._members = {each: members[each] for each in spec.models}
        try:
            self._plan = pipeline.plan(spec, {n: _member(m) for n, m in self._members.items()})
        except InputFault as error:
            raise InputFault(f"ensemble {name!r}: {error.what}", advice=error.advice) from error
        self._last = self._members[self._plan.order.answer]
        versions = "-".join(members[each].manifest.version for each in self._plan.order.models)
        self.manifest = replace(
            self._last.manifest,
            name=name,
            version=versions[:VERSION_MAX_CHARS],
            features=self._plan.features,
            inputs=self._plan.inputs,
        )
        self.digest = _digest(spec, self._members)
        self.profile = self.golden = self.observer = None
        self._quick = self._quick_row = None
        self.tensors = self._last.tensors
        self._read_inputs = Inputs(self.manifest).read
        self._whole = self._last.manifest.task == "tensors"

    @classmethod
    def of(
        cls,
        models: Mapping[str, Model | str | Path],
        feeds: Mapping[str, str],
        *,
        answer: str = "",
        name: str = "ensemble",
    ) -> Ensemble:
        """An ensemble of bundles' files or open models, by the names that ``feeds`` uses.

        ``Ensemble.of({"load": "load-1.0.edgepack", "pump": pump}, {"pump.load": "load.value"})``

        Raises InputFault.
        """
        opened = {n: m if isinstance(m, Model) else Model.open(m) for n, m in models.items()}
        try:
            spec = convert({"models": list(models), "feeds": dict(feeds), "answer": answer}, Spec)
        except msgspec.ValidationError as error:
            raise InputFault(f"ensemble {name!r}: {error}") from error
        return cls(name, spec, opened)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The output tensors of the model that answers."""
        return self._last.outputs

    def predict(self, rows: Any) -> Any:
        """As ``Model.predict``; a fault names the model in which it came up.

        In an agent the id of an answer is that of the model that answers: labels go to it.
        """
        batch, asked = self._before_last(rows)
        found = listed(_asked(functools.partial(tap.predict, self._last), asked, batch, self._last))
        return found[0] if batch.single or self._whole else found

    def infer(self, rows: object) -> dict[str, NDArray[Any]]:
        """The output tensors of the model that answers."""
        batch, asked = self._before_last(rows)
        tensors: dict[str, NDArray[Any]] = _asked(self._last.infer, asked, batch, self._last)
        return tensors

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """As ``infer``: the models of an ensemble are never asked without a check."""
        return self.infer(feeds)

    def probe(self) -> None:
        """Every model comes back. Raises MachineFault."""
        for member in self._members.values():
            member.probe()

    def interrupt(self) -> None:
        """End the calls that are under way in any of its models."""
        for member in self._members.values():
            member.interrupt()

    def close(self) -> None:
        """Give the models' memory back."""
        for member in self._members.values():
            member.close()

    def _before_last(self, rows: object) -> tuple[Batch, object]:
        """The request, and what the model that answers is asked, after all others were."""
        batch = self._read_inputs(rows)
        order = self._plan.order
        answers: dict[str, list[Prediction]] = {}
        for name in order.models:
            asked = _question(self._members[name], order.feeds[name], batch, answers)
            if name == order.answer:
                break
            member = self._members[name]
            answers[name] = listed(_asked(member.predict, asked, batch, member))
        return batch, asked


class EnsembleSeat(Live):
    """An ensemble of whatever answers under its models' names at the moment of a request."""

    def __init__(self, name: str, spec: Spec, seats: Mapping[str, Live]) -> None:
        super().__init__(name)
        self._spec = spec
        self._seats = seats
        self._made: dict[tuple[str, ...], Ensemble | InputFault] = {}
        self._making = threading.Lock()

    @property
    def model(self) -> Model | None:
        """The ensemble, or None while a model is missing or does not fit the others."""
        seats = [seat for name in self._spec.models if (seat := self._seat(name)) is not None]
        members = {seat.name: seat.model for seat in seats if seat.model is not None}
        if len(members) < len(self._spec.models):
            return None
        made = self._of(members)
        return made if isinstance(made, Ensemble) else None

    @property
    def loaded(self) -> Mapping[str, Model]:
        """The ensemble by its version."""
        model = self.model
        return {model.manifest.version: model} if model is not None else {}

    def loaded_as(self, sha256: str) -> Model | None:
        """The ensemble where that is its digest."""
        model = self.model
        return model if model is not None and model.digest == sha256 else None

    @contextmanager
    def use(self, version: str = "", key: str = "") -> Iterator[Model]:
        """The ensemble, its models kept open until the ``with`` ends; ``key`` as for ``Live.use``.

        Raises MachineFault when a model is not installed or does not fit the others,
        NoSuchVersion.
        """
        with ExitStack() as stack:
            members = {}
            for name in self._spec.models:
                seat = self._seat(name)
                if seat is None:
                    raise MachineFault(f"ensemble {self.name!r}: no model {name!r} is installed")
                members[name] = stack.enter_context(seat.use(key=key))
            made = self._of(members)
            if isinstance(made, InputFault):
                raise MachineFault(made.what, advice=made.advice)
            if version and version != made.manifest.version:
                raise NoSuchVersion(
                    f"ensemble {self.name!r} has no version {version!r}, it is at "
                    f"{made.manifest.version}"
                )
            yield made

    def refit(self, name: str) -> None:
        """Put the models together anew, if all are there, since ``name`` is at another version.

        The log has whether they fit.
        """
        if name in self._spec.models:
            _ = self.model

    def _seat(self, name: str) -> Live | None:
        return self._seats.get(name)

    def _of(self, members: Mapping[str, Model]) -> Ensemble | InputFault:
        """The ensemble of these models; made once, also where versions take turns in a trial."""
        which = tuple(f"{id(model)}:{model.digest}" for model in members.values())
        with self._making:
            if which not in self._made:
                while len(self._made) >= _KEPT:
                    del self._made[next(iter(self._made))]
                self._made[which] = self._make(members)
            return self._made[which]

    def _make(self, members: Mapping[str, Model]) -> Ensemble | InputFault:
        try:
            made = Ensemble(self.name, self._spec, members)
        except InputFault as error:
            log.warning("%s", error.what)
            return error
        log.info("ensemble %s: %s answers", self.name, made.manifest.version)
        return made


class _Columns:
    """Columns by name, as ``Inputs`` reads a table."""

    def __init__(self, columns: dict[str, Any], rows: int) -> None:
        self._columns, self._rows = columns, rows

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]

    def __len__(self) -> int:
        return self._rows


def _question(
    model: Model, feeds: Sequence[Feed], batch: Batch, answers: Mapping[str, list[Prediction]]
) -> object:
    """What one model is asked: a table, or whole tensors."""
    fed = {feed.input: _output(feed, answers[feed.source]) for feed in feeds}
    features = [feature.name for feature in model.manifest.features]
    if features and not any(name not in features for name in fed):
        columns = {n: fed[n] if n in fed else batch.feeds[n][:, 0] for n in features}
        return _Columns(columns, batch.rows)
    return {t.name: fed.get(t.name, batch.feeds.get(t.name)) for t in model.manifest.inputs}


def _output(feed: Feed, found: list[Prediction]) -> NDArray[Any]:
    if found[0].outputs:
        return found[0].outputs[feed.output]
    values: list[Any] = (
        [each.score for each in found]
        if feed.output == "score"
        else [each.flat()[feed.output] for each in found]
    )
    texts = any(isinstance(value, str) for value in values)
    return np.array(values, dtype=object if texts else None)


def _asked(ask: Callable[[Any], Any], rows: object, batch: Batch, model: Model) -> Any:
    """The model's answer. Raises its error, with the model's name."""
    try:
        return ask(rows)
    except EdgeError as error:
        what = error.what.removeprefix("row 0: ") if batch.single else error.what
        raise type(error)(f"{what} (in {model.manifest.name})", advice=error.advice) from error


def _member(model: Model) -> Member:
    return Member(model.manifest, tuple(Shape(t.name, t.dtype, t.shape) for t in model.outputs))


def _digest(spec: Spec, members: Mapping[str, Model]) -> str:
    parts = [msgspec.json.encode(spec), *(f"{n}={m.digest}".encode() for n, m in members.items())]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()
