"""What a person orders: which version, to whom, in which waves, and what has to hold. Pure.

Guards: an order is read once and whole; each fault in it is named. It never changes while its
rollout runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from edge_contract import durations
from edge_contract.errors import InputFault
from edge_contract.messages import Name
from edge_contract.names import check_name
from edge_contract.typed import convert
from edge_fleet.rollouts import selector

ORDER_MAX_BYTES = 64 * 1024
WAVES_MAX = 32
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")

Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=366 * 86400)]
Deadline = Annotated[float, Meta(gt=0, le=366 * 86400)]
Sample = Annotated[int, Meta(ge=0, le=2**53)]
Policy = Literal["halt", "rollback", "rollback-all", "wait"]
"""Call back what is under way and end; take the wave, or all of it, back; ask a person."""
Then = Literal["stay", "channel"]


class Gate(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One condition of a wave.

    Attributes:
        limit: see ``Gates``; a gate that is not looked at has None.
        least: the smallest sample that says anything; with fewer the wave waits.
        deadline_s: after it a sample that is still too small is a failure.
    """

    limit: Share | None
    least: Sample = 0
    deadline_s: Deadline = 86400.0


class Soon(Gate, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A ``Gate`` of what shows within the hour."""

    deadline_s: Deadline = 3600.0


class Silent(Gate, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A ``Gate`` of who is not heard of."""

    deadline_s: Deadline = 1800.0


class Shadowed(Gate, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A ``Gate`` of shares of a candidate's answers."""

    least: Sample = 200


class Ratio(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A ``Gate`` whose limit is a ratio, new to old, of 1 or more."""

    limit: Annotated[float, Meta(ge=1, le=1000)] | None
    least: Sample = 0
    deadline_s: Deadline = 86400.0


class Gates(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What has to hold in each wave.

    Attributes:
        installed: this share of the wave's devices at least; a device has ``deadline_s`` for it
            from when it was asked, then it counts as one that failed.
        failures: at most this share of the asked devices refuses the version (self-test, trial).
        silent: at most this share of them is not heard of for ``deadline_s``.
        errors: share of rows that the version fails on; sequential test at ``alpha``.
        drift: at most this share of the devices that run it has open drift alarms of it.
        quality: the error rate on labels may be this much above the former versions', at the same
            time where there are labels of both; sequential test at ``alpha``; sample: labels.
        latency: calls may take this many times as long as with the former version, and 1 % of them
            longer than the bundle's own budget; sequential test at ``alpha``; sample: windows.
        memory: at most this share of the devices takes over 1.5 times the memory that it took
            before, or more than the bundle's own budget above that; sample: devices.
        scores: the share of a label, or of scores above a place, may be changed by this much
            against devices on other versions; sequential test at ``alpha``; sample: devices.
        estimate: the error rate that scores promise may be this much above that of devices on other
            versions; sequential test at ``alpha``; sample: devices.
        agreement, shadow_failures: of a candidate in the shadow: at most this share of its answers
            differs from the live version's, or is missing; goes on once that is shown at ``alpha``,
            fails once the contrary is, or at the deadline; sample: rows.
        shadow_scores: at most this share of its scores is 0.125 or more from the live version's
            (values: standard deviations); sequential test at ``alpha``; sample: scores.
        shadow_latency: it may take this many times as long on the same calls, in a thread of the
            lowest priority; sequential test at ``alpha``; sample: windows.
        alpha: the probability that a gate with a sequential test stops a version that keeps its
            limit, over the whole rollout, however often one looks; of each such gate.
    """

    installed: Soon = Soon(limit=0.9)
    failures: Gate = Gate(limit=0.02)
    silent: Silent = Silent(limit=0.05)
    errors: Gate = Gate(limit=0.01)
    drift: Gate = Gate(limit=0.1)
    quality: Gate = Gate(limit=0.02)
    latency: Ratio = Ratio(limit=1.5)
    memory: Gate = Gate(limit=0.1)
    scores: Gate = Gate(limit=0.2)
    estimate: Gate = Gate(limit=0.05)
    agreement: Shadowed = Shadowed(limit=0.05)
    shadow_failures: Shadowed = Shadowed(limit=0.02)
    shadow_scores: Gate = Gate(limit=0.1)
    shadow_latency: Ratio = Ratio(limit=3.0)
    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.01


class Slot(Struct, frozen=True):
    """When devices may be asked, minutes of the day in their own zone; may pass midnight."""

    start: Annotated[int, Meta(ge=0, lt=1440)]
    end: Annotated[int, Meta(ge=0, lt=1440)]


class Wave(Struct, frozen=True):
    """So many devices in all, or such a share of those selected; one of the two is 0."""

    devices: Annotated[int, Meta(ge=0, le=10**9)] = 0
    share: Share = 0.0


class Trying(Struct, frozen=True, kw_only=True):
    """The candidate runs beside the live version before the first wave.

    Attributes:
        share: of the requests. answers: it answers these (A/B); else it runs unheard (shadow).
        on: so many devices.
    """

    share: Annotated[float, Meta(gt=0, le=1)]
    answers: bool = False
    on: Wave = Wave(share=0.1)


class Needs(Struct, frozen=True, omit_defaults=True):
    """The least that a device must have to run the version, as its manifest says; 0, "": any."""

    onnxruntime: str = ""
    ram_bytes: Sample = 0
    disk_bytes: Sample = 0


class Order(Struct, frozen=True, kw_only=True):
    """See the module's docstring.

    Attributes:
        select: see ``selector``. digest: of the bundle, where it is known: SHA-256 in hex.
        bake_s: a wave that is installed is looked at for so long before the next one.
        per_site: at most so many devices of one site under way at once; 0: any.
        site: the label that names a device's site. zone: the label with its IANA time zone.
        spread_s: each device waits, by its own lot, up to so long.
        approve: a person has to say go before each wave after the first.
        queue: where another rollout holds devices that it means, it waits for the end of that.
        then: after the last wave devices ``stay`` at the version, or follow the ``channel`` again
            once that names it as its stable version.
        needs: of the version, where its manifest could be read.
        trial: what the candidate has to show before the first wave; None: nothing.
    """

    fleet: Name
    model: Name
    version: Name
    waves: Annotated[tuple[Wave, ...], Meta(min_length=1, max_length=WAVES_MAX)]
    select: str = ""
    digest: str = ""
    bake_s: Seconds = 0.0
    gates: Gates = Gates()
    policy: Policy = "halt"
    per_site: Sample = 0
    site: Name = "site"
    zone: Name = "zone"
    slot: Slot | None = None
    spread_s: Seconds = 0.0
    approve: bool = False
    trial: Trying | None = None
    queue: bool = False
    then: Then = "stay"
    needs: Needs = Needs()


class File(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order as a file has it; durations and waves as on the command line.

    ``shadow``, ``ab``: the share of requests, 10%, that the candidate is shown, or answers, before
    the first wave. ``on``: on so many devices, 5 or 10%. ``gate``: limits over those of ``gates``,
    each as ``latency=1.5`` or ``drift=off``.
    """

    version: str = ""
    fleet: str = ""
    waves: str = ""
    select: str = ""
    digest: str = ""
    bake: str = ""
    slot: str = ""
    spread: str = ""
    policy: Policy | None = None
    per_site: Sample | None = None
    site: str = ""
    zone: str = ""
    approve: bool | None = None
    queue: bool | None = None
    then: Then | None = None
    shadow: str = ""
    ab: str = ""
    on: str = ""
    gates: Gates = Gates()
    gate: Annotated[tuple[str, ...], Meta(max_length=32)] = ()


class Wrong(InputFault):
    """A part of an order is wrong; ``field`` is its name in ``File``, or ``gate.`` and a gate's."""

    def __init__(self, field: str, fault: InputFault) -> None:
        super().__init__(fault.what, advice=fault.advice)
        self.field = field


@contextmanager
def _of(field: str) -> Iterator[None]:
    try:
        yield
    except InputFault as fault:
        raise Wrong(field, fault) from fault


class Refused(InputFault):
    """An order, or a word, that is sound in itself and does not go with what is there."""


def seconds(text: str) -> float:
    """A duration in seconds; a number alone is seconds. Raises InputFault."""
    return durations.seconds(f"{text}s" if text.strip().isdecimal() else text)


def waves(text: str) -> tuple[Wave, ...]:
    """``1,5%,25%,100%``: devices in all, or a share of those selected. Raises InputFault."""
    found = tuple(_wave(part.strip()) for part in text.split(","))
    for kind in ("devices", "share"):
        sizes = [getattr(wave, kind) for wave in found if getattr(wave, kind)]
        if any(later <= former for former, later in pairwise(sizes)):
            raise InputFault(f"the waves {text[:80]!r} do not rise", advice=_WAVES)
    return found


_WAVES = "Write for example 1,5%,25%,100%: each wave with those before it."


def _wave(part: str) -> Wave:
    try:
        if part.endswith("%"):
            share = float(part[:-1]) / 100
            if 0 < share <= 1:
                return Wave(share=share)
        elif 0 < int(part) <= 10**9:
            return Wave(devices=int(part))
    except ValueError:
        pass
    raise InputFault(f"{part[:40]!r} is no wave", advice=_WAVES)


def slot(text: str) -> Slot:
    """``22:00-04:30``. Raises InputFault."""
    match [_CLOCK.fullmatch(part.strip()) for part in text.split("-")]:
        case [re.Match() as start, re.Match() as end] if start[0] != end[0]:
            return Slot(int(start[1]) * 60 + int(start[2]), int(end[1]) * 60 + int(end[2]))
    raise InputFault(f"{text[:80]!r} is no time slot", advice="Write for example 22:00-04:30.")


def name_and_version(text: str) -> tuple[str, str]:
    """``pump@2.0``. Raises InputFault."""
    name, at, version = text.partition("@")
    if not at:
        raise InputFault(f"{text[:80]!r} names no version", advice="Write for example pump@2.0.")
    return check_name(name, "model"), check_name(version, "version")


def texts(**said: object) -> File:
    """What a command line says, as a file would. Raises InputFault."""
    try:
        found: File = convert(said, File)
    except msgspec.ValidationError as error:
        raise InputFault(f"the order is not valid: {error}") from error
    return found


def given(found: File) -> dict[str, Any]:
    """Texts as values; what the file leaves out is left out."""
    values: dict[str, Any] = {
        name: value
        for name in (
            "fleet",
            "select",
            "digest",
            "policy",
            "per_site",
            "site",
            "zone",
            "approve",
            "queue",
            "then",
        )
        if (value := getattr(found, name)) not in ("", None)
    }
    if found.version:
        with _of("version"):
            values["model"], values["version"] = name_and_version(found.version)
    readers: dict[str, Callable[[str], object]] = {"waves": waves, "slot": slot}
    for name, read in {**readers, "bake": seconds, "spread": seconds}.items():
        if said := getattr(found, name):
            with _of(name):
                values[name if name in readers else f"{name}_s"] = read(said)
    if found.shadow or found.ab or found.on:
        values["trial"] = _trying(found)
    return values


def _trying(found: File) -> Trying:
    if bool(found.shadow) == bool(found.ab):
        raise InputFault(
            "a candidate runs in the shadow or answers a share of the requests, one of the two",
            advice="Write shadow = 10%, or ab = 20%; on = 5 or on = 10% says on how many devices.",
        )
    with _of("shadow" if found.shadow else "ab"):
        part = _wave((found.shadow or found.ab).strip())
        if not part.share:
            what = f"{(found.shadow or found.ab)[:40]!r} is no share"
            raise InputFault(what, advice="Write 10%.")
    with _of("on"):
        on = _wave(found.on.strip()) if found.on else Wave(share=0.1)
    return Trying(share=part.share, answers=bool(found.ab), on=on)


def with_limits(gates: Gates, said: Sequence[str]) -> Gates:
    """``latency=1.5``, ``errors=2%``, ``drift=off``: gates with other limits. Raises InputFault."""
    values: dict[str, Any] = {}
    for text in said:
        name, equals, limit = text.partition("=")
        gate = getattr(gates, name.strip(), None) if name.isidentifier() else None
        if not equals or not isinstance(gate, Gate | Ratio):
            known = ", ".join(f for f in gates.__struct_fields__ if f != "alpha")
            raise InputFault(
                f"{text[:80]!r} names no gate and limit",
                advice=f"Write for example latency=1.5 or drift=off; gates: {known}.",
            )
        try:
            number = None if limit.strip() == "off" else _limit(limit.strip())
            values[name.strip()] = convert(
                {**msgspec.to_builtins(gate), "limit": number}, type(gate)
            )
        except (ValueError, msgspec.ValidationError) as error:
            expected = (
                "1 or more" if isinstance(gate, Ratio) else "a share from 0 to 1, or 0% to 100%"
            )
            fault = InputFault(f"gate {text[:80]!r}: expected {expected}, or off")
            raise Wrong(f"gate.{name.strip()}", fault) from error
    return msgspec.structs.replace(gates, **values)


def limits(gates: Gates) -> dict[str, float | None]:
    """Of each gate."""
    each = {name: getattr(gates, name) for name in gates.__struct_fields__}
    return {name: one.limit for name, one in each.items() if isinstance(one, Gate | Ratio)}


def _limit(text: str) -> float:
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def made(**values: Any) -> Order:
    """An order that is checked whole. Raises InputFault."""
    for name in ("model", "version", "fleet"):
        if name not in values:
            raise InputFault(f"the order names no {name}")
    values.setdefault("waves", waves("1,5%,25%,100%"))
    try:
        order: Order = convert(msgspec.to_builtins(values), Order)
    except msgspec.ValidationError as error:
        raise InputFault(f"the order is not valid: {error}") from error
    with _of("select"):
        selector.parse(order.select)
    if order.version in ("stable", "candidate"):
        raise InputFault(
            f"a rollout needs a version, not {order.version!r}",
            advice="Name the version itself: what the word stands for may change meanwhile.",
        )
    return order
