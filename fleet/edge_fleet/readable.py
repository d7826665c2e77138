"""A telemetry record with names instead of places, and as CBOR (RFC 8949) for others to read.

Guards: nothing is lost: ``record_of`` makes the same record of it again; what a profile does not
fit is shown as it came, and never read against another one. Pure.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import cbor2
import msgspec
import numpy as np

from edge_contract import moments, telemetry
from edge_contract.errors import InputFault
from edge_contract.moments import Moments
from edge_contract.profile import Profile
from edge_contract.residuals import Residuals
from edge_contract.telemetry import Record, Resources
from edge_contract.typed import convert
from edge_fleet import disclosure

Readable = dict[str, Any]
_CODED = ("counts", "moments", "latency", "bundle")


def readable(record: Record, reference: Residuals | None) -> Readable:
    """The record by names, of maps, lists, text, bytes and numbers.

    Args:
        reference: of the record's bundle; None: it is not known, and counts and moments stay bytes.

    ``counts`` and ``moments`` are by monitor's name (an output's and a feature's of one name by
    ``source:name``), ``errors`` by reason, ``quality`` pairs of code and monitor.

    Raises InputFault when the record does not fit its profile.
    """
    found: Readable = {
        name: getattr(record, name) for name in record.__struct_fields__ if name not in _CODED
    }
    found["bundle"] = record.bundle.hex()
    found["latency"] = telemetry.latency_of(record).tolist()
    found["errors"] = telemetry.errors_of(record)
    found["resources"] = msgspec.structs.asdict(record.resources) if record.resources else None
    found["quality"] = [list(each) for each in record.quality]
    if reference is None:
        return found | {"counts": record.counts, "moments": record.moments}
    profile = reference.profile
    names = monitor_names(profile)
    counts = telemetry.counts_of(record, reference)
    parts = np.split(counts, profile.offsets()[1:]) if names else []
    found["counts"] = {name: part.tolist() for name, part in zip(names, parts, strict=True)}
    found["moments"] = {
        names[at]: msgspec.structs.asdict(seen)
        for at, seen in zip(
            moments.numbers(profile), moments.read(profile, counts, record.moments), strict=True
        )
        if seen is not None
    }
    if record.coding == telemetry.CODING_NOISY:
        found["noise"] = telemetry.noise_of(record)
    telemetry.quality_of(record, profile)
    found["quality"] = [
        [code, names[monitor - 1] if monitor else ""] for code, monitor in record.quality
    ]
    return found


def merged(found: Readable, profile: Profile, k: int) -> Readable:
    """A record of ``k`` rows or more that says no figure of fewer: for others to read.

    Counts are spread over merged cells (``disclosure.safe_counts``), moments and findings are left
    out, refused and failed rows told where they are ``k`` or more, by reason likewise; 0 stands for
    none and for fewer.
    """
    told: Readable = {}
    for name, monitor in zip(monitor_names(profile), profile.monitors, strict=True):
        counts = np.array(found["counts"][name], dtype=np.int64)
        told[name] = disclosure.safe_counts(monitor, counts, k).tolist()
    few = {name: found[name] if found[name] >= k else 0 for name in ("refused", "failed")}
    errors = {why: count for why, count in found["errors"].items() if count >= k}
    return found | few | {"counts": told, "errors": errors, "moments": {}, "quality": []}


def record_of(found: Mapping[str, Any], reference: Residuals | None) -> Record:
    """The record that ``readable`` made this of, with the same reference.

    Raises InputFault when it is none.
    """
    try:
        values = dict(found)
        values["bundle"] = bytes.fromhex(values["bundle"])
        values["latency"] = telemetry.pack_counts(values["latency"])
        codes = {name: place for place, name in enumerate(telemetry.ERROR_CODES)}
        errors = [0] * (1 + max((_code(name, codes) for name in values["errors"]), default=-1))
        for name, count in values["errors"].items():
            errors[_code(name, codes)] = count
        values["errors"] = errors
        noise = values.pop("noise", 1.0)
        if reference is not None:
            values |= _coded(values, reference, noise)
        if values["resources"] is not None:
            values["resources"] = Resources(**values["resources"])
        fields = [values[name] for name in Record.__struct_fields__]
        return telemetry.decode(msgspec.msgpack.encode(fields))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputFault(f"not a record in readable form: {error!r}") from error


def _code(name: str, codes: Mapping[str, int]) -> int:
    return codes[name] if name in codes else int(name.removeprefix("code "))


def _coded(values: Readable, reference: Residuals, noise: float) -> Readable:
    profile = reference.profile
    names = monitor_names(profile)
    counts = np.array([c for name in names for c in values["counts"][name]], dtype=np.int64)
    match values["coding"]:
        case telemetry.CODING_RESIDUALS:
            written = reference.write(counts, values["rows"])
        case telemetry.CODING_NOISY:
            written = telemetry.pack_noisy(counts, noise)
        case _:
            written = telemetry.pack_counts(counts)
    seen = [
        Moments(**values["moments"][names[at]]) if names[at] in values["moments"] else None
        for at in moments.numbers(profile)
    ]
    places = {name: place for place, name in enumerate(names, 1)} | {"": 0}
    return {
        "counts": written,
        "moments": moments.write(profile, counts, seen) if values["moments"] else b"",
        "quality": [[code, places[name]] for code, name in values["quality"]],
    }


def monitor_names(profile: Profile) -> list[str]:
    """Of each monitor; with its source where two have one name."""
    often = Counter(monitor.name for monitor in profile.monitors)
    return [
        monitor.name if often[monitor.name] == 1 else f"{monitor.source}:{monitor.name}"
        for monitor in profile.monitors
    ]


def to_cbor(found: Readable) -> bytes:
    """One map in core deterministic encoding (RFC 8949, section 4.2.1)."""
    data: bytes = cbor2.dumps(found, canonical=True)
    return data


def from_cbor(data: bytes) -> Iterator[Readable]:
    """The maps of a CBOR sequence (RFC 8742). Raises InputFault for what is none."""
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        try:
            yield convert(cbor2.load(stream), Readable)
        except (cbor2.CBORDecodeError, msgspec.ValidationError, EOFError) as error:
            raise InputFault(f"not a CBOR sequence of records: {error}") from error
