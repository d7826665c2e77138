"""The plan of an ensemble: which model runs after which, and what feeds what. Pure.

Guards: a plan that was made can be carried out: every feed names an output that there is and an
input that takes it, of its type; no model waits for itself; every model serves the answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from edge_contract.errors import InputFault
from edge_contract.manifest import Dtype, Feature, Label, Manifest, Tensor
from edge_contract.messages import Name

MEMBERS_MAX = 32
_PROBABILITY = "probability_"


class Spec(Struct, frozen=True, kw_only=True):
    """An ensemble as a person writes it: ``[ensembles.NAME]`` of agent.toml.

    Attributes:
        models: names of the models that take part, each once, in any order.
        feeds: ``MODEL.INPUT`` -> ``MODEL.OUTPUT``. An input is a feature or a whole tensor; an
            output is ``label``, ``value``, ``score`` (the label's probability),
            ``probability_<label>``, or a tensor of a model whose answers are tensors. Inputs that
            are not fed come with the request, by their names.
        answer: the model whose prediction is the ensemble's; "": the one that feeds no other.
    """

    models: Annotated[tuple[Name, ...], Meta(min_length=2, max_length=MEMBERS_MAX)]
    feeds: Annotated[dict[str, str], Meta(min_length=1, max_length=10_000)]
    answer: str = ""


class Feed(NamedTuple):
    """``model.input`` gets ``source.output``."""

    model: str
    input: str
    source: str
    output: str

    def __str__(self) -> str:
        return f"{self.model}.{self.input} = {self.source}.{self.output}"


class Order(NamedTuple):
    """What a spec says without a look at the models.

    Attributes:
        models: in an order in which each one's feeds come before it.
        feeds: by the model that is fed. answer: the model that answers.
    """

    models: tuple[str, ...]
    feeds: dict[str, tuple[Feed, ...]]
    answer: str


class Shape(NamedTuple):
    """An output tensor: name, type as numpy names it, extents (None: any)."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Member(NamedTuple):
    """What a plan needs to know of a model."""

    manifest: Manifest
    outputs: tuple[Shape, ...]


class Plan(NamedTuple):
    """How an ensemble is carried out.

    Attributes:
        order: of the models, with what feeds each.
        features, inputs: what a request brings: of a table a tensor a feature, or whole tensors.
    """

    order: Order
    features: tuple[Feature, ...]
    inputs: tuple[Tensor, ...]


def order(spec: Spec) -> Order:
    """The order of the models. Raises InputFault for names that are not there, cycles, strays."""
    if len(set(spec.models)) != len(spec.models):
        raise InputFault("models names one twice")
    feeds = [_feed(spec.models, target, source) for target, source in spec.feeds.items()]
    before: dict[str, set[str]] = {name: set() for name in spec.models}
    for feed in feeds:
        before[feed.model].add(feed.source)
    try:
        ordered = tuple(TopologicalSorter(before).static_order())
    except CycleError as error:
        raise InputFault(f"a cycle: {' feeds '.join(error.args[1])}") from error
    ends = [name for name in ordered if not any(feed.source == name for feed in feeds)]
    answer = spec.answer or ends[0]
    if answer not in before:
        raise InputFault(f"answer = {answer!r} is none of {', '.join(spec.models)}")
    stray = [name for name in ends if name != answer]
    if stray:
        raise InputFault(
            f"model {stray[0]!r} feeds no other",
            advice=f"Only the one that answers may: answer = {answer!r}.",
        )
    by_model = {name: tuple(f for f in feeds if f.model == name) for name in ordered}
    return Order(ordered, by_model, answer)


def plan(spec: Spec, members: Mapping[str, Member]) -> Plan:
    """What a request brings, and that everything else is fed. Raises InputFault."""
    found = order(spec)
    features: dict[str, tuple[Feature, Dtype]] = {}
    tensors: dict[str, Tensor] = {}
    for name in found.models:
        manifest = members[name].manifest
        fed = {feed.input for feed in found.feeds[name]}
        for feed in found.feeds[name]:
            _check(feed, manifest, members[feed.source])
        declared = {feature.name: feature for feature in manifest.features}
        for tensor in manifest.inputs:
            if tensor.name in fed and (not tensor.features or tensor.name not in declared):
                continue
            if not tensor.features:
                _take_tensor(tensors, tensor)
            for feature in tensor.features:
                if feature not in fed:
                    _take_feature(features, declared[feature], tensor)
        _check_forms(name, manifest, fed)
    if features and tensors:
        raise InputFault(
            f"a request would hold features ({next(iter(features))!r}) and whole tensors "
            f"({next(iter(tensors))!r})",
            advice="No request holds both: feed one of them by a model.",
        )
    if not features and not tensors:
        raise InputFault("nothing comes with the request")
    columns = (
        Tensor(name=each.name, dtype=dtype, shape=(None, 1), features=(each.name,))
        for each, dtype in features.values()
    )
    return Plan(found, tuple(each for each, _ in features.values()), (*columns, *tensors.values()))


def _feed(models: Collection[str], target: str, source: str) -> Feed:
    return Feed(*_split(models, target), *_split(models, source))


def _split(models: Collection[str], dotted: str) -> tuple[str, str]:
    """Model and the rest; names of models may hold dots, so the longest that fits is meant."""
    fits = [name for name in models if dotted.startswith(f"{name}.")]
    if not fits:
        raise InputFault(
            f"{dotted!r} begins with no model of the ensemble: {', '.join(models)}",
            advice="Write MODEL.NAME.",
        )
    model = max(fits, key=len)
    return model, dotted.removeprefix(f"{model}.")


def _check(feed: Feed, target: Manifest, source: Member) -> None:
    """The two ends of a feed are there and fit."""
    feature = next((f for f in target.features if f.name == feed.input), None)
    if feature is not None:
        kind = _kind(feed, source.manifest)
        if (kind == "text") != (feature.type != "number"):
            raise InputFault(f"{feed}: the output is a {kind}, the feature a {feature.type}")
        return
    tensor = next((t for t in target.inputs if t.name == feed.input), None)
    if tensor is None:
        names = [*(f.name for f in target.features), *(t.name for t in target.inputs)]
        raise InputFault(f"{feed}: {feed.model} has no input {feed.input!r}; {_has(names)}")
    if source.manifest.task != "tensors":
        raise InputFault(f"{feed}: a whole tensor is fed by a model whose answers are tensors")
    given = next((each for each in source.outputs if each.name == feed.output), None)
    if given is None:
        names = [each.name for each in source.outputs]
        raise InputFault(f"{feed}: {feed.source} has no output {feed.output!r}; {_has(names)}")
    fits = len(given.shape) == len(tensor.shape) and all(
        a is None or b is None or a == b for a, b in zip(given.shape, tensor.shape, strict=True)
    )
    if not fits or given.dtype != tensor.dtype:
        raise InputFault(
            f"{feed}: the output is {given.dtype} {_extents(given.shape)}, the input "
            f"{tensor.dtype} {_extents(tensor.shape)}"
        )


def _kind(feed: Feed, manifest: Manifest) -> str:
    """``text`` or ``number``: what the output that a feature is fed with holds."""
    outputs = manifest.outputs
    there = {"label"} if outputs.label or outputs.scores else set()
    if outputs.value:
        there.add("value")
    if outputs.scores:
        there |= {"score", *(f"{_PROBABILITY}{label}" for label in outputs.labels)}
    if feed.output not in there:
        raise InputFault(
            f"{feed}: {feed.source} has no such output; {_has(sorted(there))}",
            advice="Tensors feed whole input tensors, not features." if not there else "",
        )
    return _label_kind(feed, outputs.labels) if feed.output == "label" else "number"


def _label_kind(feed: Feed, labels: Iterable[Label]) -> str:
    kinds = {"text" if isinstance(label, str) else "number" for label in labels}
    if len(kinds) > 1:
        raise InputFault(f"{feed}: some labels are text, some numbers")
    return kinds.pop() if kinds else "number"


def _check_forms(name: str, manifest: Manifest, fed: set[str]) -> None:
    """A model is asked by features or by tensors, not by both."""
    whole = [t for t in manifest.inputs if t.name in fed and not _is_feature(manifest, t.name)]
    missing = [t.name for t in manifest.inputs if t.features and t not in whole]
    if whole and missing:
        raise InputFault(
            f"{name} is fed the tensor {whole[0].name!r}, but not {missing[0]!r}",
            advice="Feed all of its tensors, or its features.",
        )


def _is_feature(manifest: Manifest, name: str) -> bool:
    return any(feature.name == name for feature in manifest.features)


def _take_tensor(tensors: dict[str, Tensor], tensor: Tensor) -> None:
    if tensors.setdefault(tensor.name, tensor) != tensor:
        raise InputFault(f"two models take a tensor {tensor.name!r}, of different forms")


def _take_feature(
    features: dict[str, tuple[Feature, Dtype]], feature: Feature, tensor: Tensor
) -> None:
    dtype = _wide(feature, tensor)
    former, wide = features.setdefault(feature.name, (feature, dtype))
    if former.type != feature.type:
        raise InputFault(
            f"two models take {feature.name!r}, one as {former.type}, one as {feature.type}"
        )
    if feature.missing == "refuse":
        former = feature
    features[feature.name] = (former, wide if wide == dtype else "float64")


def _wide(feature: Feature, tensor: Tensor) -> Dtype:
    """A type that holds what any model may want of a number."""
    if feature.type != "number":
        return "string"
    return "float64" if tensor.dtype.startswith("float") else tensor.dtype


def _has(names: Iterable[str]) -> str:
    return f"it has {', '.join(list(names)[:20]) or 'none of that kind'}"


def _extents(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("any" if extent is None else str(extent) for extent in shape) + "]"
