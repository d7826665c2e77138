"""What changed between two bundles, part by part, and whether a device's caller would break. Pure.

A caller breaks when rows that the old bundle took are refused by the new one, or answers that it
read are not there or named otherwise. Another range, another resolution or other categories break
nobody: the agent takes any number, and an unknown category is the model's own business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from edge_contract.bundle import Bundle
from edge_contract.manifest import Feature, Manifest, Metric
from edge_pack.gates.shift import Shift

Value = str | float | int | bool | None


class Line(Struct, frozen=True, kw_only=True):
    """One thing that differs; None on the side that does not have it."""

    what: str
    a: Value
    b: Value


class Answers(Struct, frozen=True, kw_only=True):
    """Both models on the golden samples of both bundles.

    Attributes:
        rows: samples asked. labels_changed: of them, the predicted label.
        diff_max: largest absolute difference of an output that is a number.
        reason: why they were not asked, or "".
    """

    rows: int = 0
    labels_changed: int = 0
    diff_max: float = 0.0
    reason: str = ""


class Side(Struct, frozen=True, kw_only=True):
    """Which bundle."""

    name: str
    version: str
    digest: str


class Difference(Struct, frozen=True, kw_only=True):
    """Everything that differs from bundle ``a`` to bundle ``b``.

    Attributes:
        breaks: why a caller of ``a`` would break with ``b``; empty when none would.
        changes: heading -> its lines; a heading without lines is the same in both.
        profile: features and outputs whose reference distribution moved, most first.
    """

    a: Side
    b: Side
    breaks: tuple[str, ...]
    changes: dict[str, tuple[Line, ...]]
    profile: tuple[Shift, ...]
    answers: Answers


def side(bundle: Bundle) -> Side:
    """The bundle's name, version and digest."""
    manifest = bundle.manifest
    return Side(name=manifest.name, version=manifest.version, digest=bundle.digest)


def compare(a: Manifest, b: Manifest) -> dict[str, tuple[Line, ...]]:
    """The lines under each heading, in a fixed order."""
    parts = {
        "identity": [
            *_fields(a, b, ("name", "version", "task", "licence", "intended_use")),
            *_pairs(_bounds(a), _bounds(b)),
        ],
        "schema": _schema(a, b),
        "outputs": _outputs(a, b),
        "metrics": _metrics(a, b),
        "files": _files(a, b),
        "compression": _pairs(_flat(a.compression), _flat(b.compression)),
        "runtime": _runtime(a, b),
        "parity": _pairs(_flat(a.parity), _flat(b.parity)),
        "gates": _gates(a, b),
        "provenance": _pairs(_flat(a.provenance), _flat(b.provenance)),
    }
    return {heading: tuple(lines) for heading, lines in parts.items()}


def breaks(a: Manifest, b: Manifest) -> tuple[str, ...]:
    """Why callers of ``a`` would break with ``b``, one sentence each."""
    return (*_task_breaks(a, b), *_input_breaks(a, b), *_output_breaks(a, b))


def _task_breaks(a: Manifest, b: Manifest) -> Iterator[str]:
    if a.task != b.task:
        yield f"the task was {a.task} and is {b.task}"


def _input_breaks(a: Manifest, b: Manifest) -> Iterator[str]:
    old, new = ({feature.name: feature for feature in m.features} for m in (a, b))
    for name in sorted(new.keys() - old.keys()):
        yield f"feature {name!r} is new: rows without it are refused"
    for name in sorted(old.keys() - new.keys()):
        yield f"feature {name!r} is gone: rows with it are refused"
    for name in sorted(old.keys() & new.keys()):
        before, after = old[name], new[name]
        if before.type != after.type:
            yield f"feature {name!r} was a {before.type} and is a {after.type}"
        if before.missing == "allow" and after.missing == "refuse":
            yield f"feature {name!r} may no longer be missing"
        if before.unit and after.unit and before.unit != after.unit:
            yield f"feature {name!r} was in {before.unit} and is in {after.unit}"
    if set(old) == set(new) and list(old) != list(new):
        yield "the order of the features changed: rows without names mean something else"
    whole = [{t.name: (t.dtype, t.shape) for t in m.inputs if not t.features} for m in (a, b)]
    if whole[0] != whole[1]:
        yield "the input tensors have other names, types or shapes"


def _output_breaks(a: Manifest, b: Manifest) -> Iterator[str]:
    old, new = a.outputs.labels, b.outputs.labels
    if set(map(repr, old)) != set(map(repr, new)):
        yield f"the labels were {_listed(old)} and are {_listed(new)}"
    if a.outputs.scores and not b.outputs.scores:
        yield "there are no probabilities any more"
    if a.task == b.task == "tensors" and a.outputs.tensors != b.outputs.tensors:
        yield "the output tensors have other names"


def _listed(values: Sequence[object]) -> str:
    shown = ", ".join(repr(value) for value in values[:8])
    return f"{shown} and {len(values) - 8} more" if len(values) > 8 else shown or "none"


def _line(what: str, a: Value, b: Value) -> Iterator[Line]:
    if a != b:
        yield Line(what=what, a=a, b=b)


def _pairs(a: dict[str, Value], b: dict[str, Value]) -> list[Line]:
    """Lines for keys whose values differ, in the order of ``a``, then those new in ``b``."""
    names = dict.fromkeys((*a, *b))
    return [line for name in names for line in _line(name, a.get(name), b.get(name))]


def _flat(struct: Struct) -> dict[str, Value]:
    """A struct's fields as plain values; a mapping's entries under its field's name."""
    found: dict[str, Value] = {}
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, dict):
            found |= {f"{name}.{key}": _plain(each) for key, each in value.items()}
        elif isinstance(value, Struct):
            found |= {f"{name}.{key}": each for key, each in _flat(value).items()}
        else:
            found[name] = _plain(value)
    return found


def _plain(value: object) -> Value:
    if value is None or isinstance(value, str | float | int | bool):
        return value
    if isinstance(value, Sequence):
        return ", ".join(str(_plain(each)) for each in value)
    return str(value)


def _bounds(manifest: Manifest) -> dict[str, Value]:
    """What devices may do to scores."""
    found = _flat(manifest.calibration) if manifest.calibration is not None else {}
    return {f"calibration.{name}": value for name, value in found.items()}


def _fields(a: Manifest, b: Manifest, names: Sequence[str]) -> list[Line]:
    return [line for name in names for line in _line(name, getattr(a, name), getattr(b, name))]


def _schema(a: Manifest, b: Manifest) -> list[Line]:
    old, new = ({feature.name: feature for feature in m.features} for m in (a, b))
    found = []
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            kinds = [feature.type if feature else None for feature in (before, after)]
            found.append(Line(what=name, a=kinds[0], b=kinds[1]))
        else:
            found += _feature(before, after)
    if set(old) == set(new) and list(old) != list(new):
        found.append(Line(what="order of features", a=_listed(list(old)), b=_listed(list(new))))
    return found


def _feature(a: Feature, b: Feature) -> list[Line]:
    found = [
        line
        for name in ("type", "unit", "minimum", "maximum", "resolution", "missing")
        for line in _line(f"{a.name}: {name}", getattr(a, name), getattr(b, name))
    ]
    gone = sorted(set(a.categories) - set(b.categories))
    new = sorted(set(b.categories) - set(a.categories))
    if gone or new:
        found.append(
            Line(
                what=f"{a.name}: categories",
                a=f"without {_listed(new)}" if new else f"{len(a.categories)}",
                b=f"without {_listed(gone)}" if gone else f"{len(b.categories)}",
            )
        )
    return found


def _outputs(a: Manifest, b: Manifest) -> list[Line]:
    found = list(_line("labels", _listed(a.outputs.labels), _listed(b.outputs.labels)))
    for name in ("label", "scores", "value", "threshold"):
        found += _line(name, getattr(a.outputs, name), getattr(b.outputs, name))
    found += _line("tensors", _listed(a.outputs.tensors), _listed(b.outputs.tensors))
    return found


def _metrics(a: Manifest, b: Manifest) -> list[Line]:
    def table(metrics: Sequence[Metric]) -> dict[str, Value]:
        return {
            f"{metric.name}[{metric.slice}]" if metric.slice else metric.name: metric.bundle
            for metric in metrics
        }

    return _pairs(table(a.metrics), table(b.metrics))


def _files(a: Manifest, b: Manifest) -> list[Line]:
    """Bytes on the wire; a file of equal size and other bytes is told by its digest."""
    old, new = ({file.name: file for file in m.files} for m in (a, b))
    found: list[Line] = []
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        sizes = [file.size if file else None for file in (before, after)]
        if sizes[0] != sizes[1]:
            found += _line(f"{name} (bytes)", sizes[0], sizes[1])
        elif before and after and before.raw_sha256 != after.raw_sha256:
            found += _line(f"{name} (sha256)", before.raw_sha256[:12], after.raw_sha256[:12])
    return found


def _runtime(a: Manifest, b: Manifest) -> list[Line]:
    found = _pairs(_flat(a.runtime), _flat(b.runtime))
    return [line for line in found if line.what != "ops"] + [
        Line(what=f"operator {op}", a=there, b=not there)
        for ops, other, there in ((a.runtime.ops, b.runtime.ops, True),
                                  (b.runtime.ops, a.runtime.ops, False))
        for op in sorted(set(ops) - set(other))
    ]  # fmt: skip


def _gates(a: Manifest, b: Manifest) -> list[Line]:
    def table(manifest: Manifest) -> dict[str, Value]:
        return {
            f"{gate.name} {gate.wanted}": "holds" if gate.passed else "FAILED, forced"
            for gate in manifest.gates
        }

    return _pairs(table(a), table(b))
