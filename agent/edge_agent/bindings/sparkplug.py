"""Sparkplug B: the metrics in a payload, and the names behind their aliases. Pure.

Field numbers are those of the specification's ``sparkplug_b.proto`` (Eclipse Sparkplug 3.0.0,
section 6.4); the wire format is Protocol Buffers' (encoding.html). A dozen fields are read, so
that a device needs no protobuf library; everything else is skipped.

Guards: only InputFault leaves for hostile bytes; of the aliases a node announces only those of
wanted metrics are kept.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

from edge_contract.errors import InputFault

METRICS_MAX = 10_000
NODES_MAX = 256
ANNOUNCED_MAX = 4096
"""Devices, aliases and types that one node may announce between two births of its own."""
_VARINT_MAX_BYTES = 10
_FIXED = {1: 8, 5: 4}
"""Bytes of the wire types I64 and I32."""
_SIGNED = {1: 8, 2: 16, 3: 32, 4: 64}
"""Bits of the data types Int8, Int16, Int32 and Int64."""
_VALUES = range(10, 20)
"""Fields of which a metric has one: integers, float, double, boolean, text, bytes, and more."""
_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")
_REBIRTH = b"Node Control/Rebirth"
_BOOLEAN = 11


class Metric(NamedTuple):
    """One metric: its value is None where it is null or of a kind that is no feature."""

    name: str
    alias: int | None
    stamp_ms: int | None
    datatype: int
    value: int | float | str | bool | None
    """A number whose type is not told is an ``int``: unsigned, as the field holds it."""
    historical: bool = False


class Address(NamedTuple):
    """What a topic ``spBv1.0/<group>/<kind>/<node>[/<device>]`` says."""

    kind: str
    node: tuple[str, str]
    device: str


def address(topic: str) -> Address | None:
    """The parts of a topic; None: it is none of a node's or device's."""
    match topic.split("/"):
        case ["spBv1.0", group, ("NBIRTH" | "NDATA" | "NDEATH") as kind, node]:
            return Address(kind, (group, node), "")
        case ["spBv1.0", group, ("DBIRTH" | "DDATA" | "DDEATH") as kind, node, device]:
            return Address(kind, (group, node), device)
    return None


def metrics(payload: bytes) -> list[Metric]:
    """The metrics of a payload, a metric without a time of its own with the payload's.

    Raises InputFault for bytes that are no payload.
    """
    stamp_ms: int | None = None
    bodies: list[bytes] = []
    for number, value in fields(payload):
        if number == 1 and isinstance(value, int):
            stamp_ms = value
        elif number == 2 and isinstance(value, bytes):
            bodies.append(value)
            if len(bodies) > METRICS_MAX:
                raise InputFault(f"a Sparkplug payload of more than {METRICS_MAX} metrics")
    return [_metric(body, stamp_ms) for body in bodies]


def _metric(body: bytes, stamp_ms: int | None) -> Metric:
    whole: dict[int, int] = {}
    name = ""
    value: int | float | str | bool | None = None
    for number, raw in fields(body):
        if number in _VALUES:
            value = _value(number, raw)
        elif number == 1 and isinstance(raw, bytes):
            name = _text(raw)
        elif isinstance(raw, int):
            whole[number] = raw
    datatype = whole.get(4, 0)
    if datatype and isinstance(value, int) and not isinstance(value, bool):
        value = signed(value, datatype)  # else it stays one: a birth may have told its type
    return Metric(
        name=name,
        alias=whole.get(2),
        stamp_ms=whole.get(3, stamp_ms),
        datatype=datatype,
        value=None if whole.get(7) else value,
        historical=bool(whole.get(5)),
    )


def _value(number: int, raw: int | bytes) -> int | float | str | bool | None:
    """What a field of ``_VALUES`` holds; None: not what it should, or no feature's value."""
    if isinstance(raw, int):
        return {10: raw, 11: raw, 14: bool(raw)}.get(number)
    if number == 12 and len(raw) == 4:
        return float(_FLOAT.unpack(raw)[0])
    if number == 13 and len(raw) == 8:
        return float(_DOUBLE.unpack(raw)[0])
    return _text(raw) if number == 15 else None


def signed(integer: int, datatype: int) -> float:
    """What an unsigned field holds: two's complement for the signed types."""
    bits = _SIGNED.get(datatype, 0)
    if bits:
        integer &= (1 << bits) - 1
        integer -= (integer >> (bits - 1)) << bits
    return float(integer)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: number, and an integer or the bytes.

    Fixed 32 and 64 bit fields come as their bytes. Raises InputFault when it is cut off.
    """
    at, end = 0, len(data)
    while at < end:
        key = data[at]
        if key < 0x80:
            at += 1
        else:
            key, at = _varint(data, at)
        kind = key & 7
        if kind in (0, 2):
            if at < end and data[at] < 0x80:
                size = data[at]
                at += 1
            else:
                size, at = _varint(data, at)
            if kind == 0:
                yield key >> 3, size
                continue
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise InputFault(f"no Sparkplug payload: a field of wire type {kind}")
        if size > end - at:
            raise InputFault("no Sparkplug payload: it ends within a field")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(_VARINT_MAX_BYTES):
        if at + i >= len(data):
            break
        byte = data[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + i + 1
    raise InputFault("no Sparkplug payload: a number without an end")


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputFault("no Sparkplug payload: a text that is not UTF-8") from error


class Names:
    """Which names stand behind the aliases of each node, and which types, as births told.

    Args:
        wanted: names of metrics that anybody asks for; all others are forgotten.
    """

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = frozenset(wanted)
        self._aliases: dict[tuple[str, str], dict[int, str]] = {}
        self._types: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
        self._born: dict[tuple[str, str], set[str]] = {}

    def read(self, where: Address, payload: bytes) -> tuple[list[Metric], bool]:
        """The wanted metrics by name, and whether a birth is missing to know them all.

        Raises InputFault.
        """
        found = metrics(payload)
        if where.kind == "NBIRTH" or where.node not in self._aliases:
            self._begin(where.node)
        aliases, types = self._aliases[where.node], self._types[where.node]
        if where.kind in ("NBIRTH", "DBIRTH"):
            born = self._born[where.node]
            if max(len(born), len(aliases), len(types)) >= ANNOUNCED_MAX:
                self._begin(where.node)  # births will be missing, and can be asked for
                aliases, types = self._aliases[where.node], self._types[where.node]
                born = self._born[where.node]
            born.add(where.device)
            for metric in found:
                if metric.name in self._wanted:
                    types[where.device, metric.name] = metric.datatype
                    if metric.alias is not None:
                        aliases[metric.alias] = metric.name
        named: list[Metric] = []
        nameless = False
        for metric in found:
            name = metric.name or aliases.get(-1 if metric.alias is None else metric.alias, "")
            nameless = nameless or not metric.name
            if name in self._wanted:
                named.append(_typed(metric, name, types.get((where.device, name), 0)))
        return named, nameless and where.device not in self._born[where.node]

    def _begin(self, node: tuple[str, str]) -> None:
        """A node's birth ends what it, and its devices, had announced before."""
        if node not in self._aliases and len(self._aliases) >= NODES_MAX:
            gone = next(iter(self._aliases))
            del self._aliases[gone], self._types[gone], self._born[gone]
        self._aliases[node], self._types[node], self._born[node] = {}, {}, set()


def _typed(metric: Metric, name: str, datatype: int) -> Metric:
    value = metric.value
    if isinstance(value, int) and not isinstance(value, bool):
        value = signed(value, datatype)
    return metric._replace(name=name, datatype=metric.datatype or datatype, value=value)


def rebirth(now_ms: int) -> bytes:
    """The payload of an NCMD that asks a node for its births: ``Node Control/Rebirth``."""
    body = _field(1, _REBIRTH) + _number(3, now_ms) + _number(4, _BOOLEAN) + _number(14, 1)
    return _number(1, now_ms) + _field(2, body)


def _field(number: int, data: bytes) -> bytes:
    return _encoded(number << 3 | 2) + _encoded(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _encoded(number << 3) + _encoded(value)


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
