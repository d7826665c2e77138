"""docs/formats/record.md says enough: a reader written from the page alone reads what we write.

Nothing of ``edge_contract`` is used by ``Stranger``; MessagePack is read by a general library.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_contract import moments, telemetry
from edge_contract import profile as profiles
from edge_contract.profile import Monitor, Profile
from edge_contract.residuals import Residuals

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "record.md"
FIELDS = re.findall(r"^\| \d+ \| (\w+) \|", PAGE.read_text(), re.MULTILINE)

GOLDEN_PROFILE = {
    "rows": 6,
    "monitors": [
        {"name": "a", "kind": "quantile", "edges": [0.0, 1.0, 2.0],
         "counts": [3, 3, 0, 0, 0, 0, 0], "mean": 1.0, "std": 0.5},
        {"name": "b", "kind": "category", "categories": ["x"], "counts": [6, 0, 0, 0]},
    ],
}  # fmt: skip


class Bits:
    def __init__(self, data: bytes) -> None:
        self.bits = [byte >> (7 - i) & 1 for byte in data for i in range(8)]
        self.at = 0

    def zeros(self) -> int:
        begin = self.at
        while not self.bits[self.at]:
            self.at += 1
        self.at += 1
        return self.at - 1 - begin

    def number(self, width: int) -> int:
        value = 0
        for _ in range(width):
            value = 2 * value + self.bits[self.at]
            self.at += 1
        return value

    def done(self) -> None:
        rest = self.bits[self.at :]
        assert len(rest) < 8
        assert not any(rest)


def signed(z: int) -> int:
    return z // 2 if z % 2 == 0 else -(z + 1) // 2


class Stranger:
    """Reads a record by the page. ``profile``: the JSON of profile.json."""

    def __init__(self, data: bytes, profile: dict[str, Any]) -> None:
        values = msgspec.msgpack.decode(data)
        defaults = {"dropped": 0, "errors": [], "moments": b"", "quality": [], "resources": None}
        self.fields = defaults | dict(zip(FIELDS, values, strict=False))
        self.profile = profile
        read = self.leb128 if self.fields["coding"] == 1 else self.residuals
        self.counts = read(self.fields["counts"])
        self.latency = self.leb128(self.fields["latency"])

    def leb128(self, data: bytes) -> list[int]:
        integers, value, shift = [], 0, 0
        for byte in data:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                integers.append(value)
                value = shift = 0
        counts: list[int] = []
        stream = iter(integers)
        for each in stream:
            counts += [each] if each else [0] * (next(stream) + 1)
        return counts

    def residuals(self, data: bytes) -> list[int]:
        n, total = self.fields["rows"], max(self.profile["rows"], 1)
        bits = Bits(data)
        spreads = [bits.zeros() for _ in self.profile["monitors"]]
        cells: list[tuple[int, int, int, int]] = []
        for at, monitor in enumerate(self.profile["monitors"]):
            reference = monitor["counts"]
            skipped = reference.index(max(reference))
            for cell, c in enumerate(reference):
                if cell == skipped:
                    continue
                p = c / total
                e = round(n * p)
                s2 = n * p * (1 - p) * (1 + n / total)
                k0 = 0
                if s2:  # floor(log2(x) / 2) by exact comparison
                    x = Fraction(1.2 * s2)
                    while Fraction(4) ** (k0 + 1) <= x:
                        k0 += 1
                cells.append((at, cell, e, min(k0 + spreads[at], n.bit_length() + 1, 52)))
        quotients = [bits.zeros() for _ in cells]
        counts = [[0] * len(monitor["counts"]) for monitor in self.profile["monitors"]]
        for (at, cell, e, k), quotient in zip(cells, quotients, strict=True):
            counts[at][cell] = e + signed((quotient << k) + bits.number(k))
        bits.done()
        for at, monitor in enumerate(self.profile["monitors"]):
            reference = monitor["counts"]
            counts[at][reference.index(max(reference))] = n - sum(counts[at])
        return [count for each in counts for count in each]

    def moments(self) -> list[tuple[float, float, int] | None]:
        bits = Bits(self.fields["moments"])
        k_a, k_b, runs = bits.number(5), bits.number(5), bits.number(1)

        def value(k: int) -> int:
            begin = bits.at
            if not any(bits.bits[begin : begin + 24]):
                bits.at += 24
                return signed(bits.number(42))
            return signed((bits.zeros() << k) + bits.number(k))

        found: list[tuple[float, float, int] | None] = []
        at = 0
        for monitor in self.profile["monitors"]:
            size = len(monitor["counts"])
            cells, at = self.counts[at : at + size], at + size
            feature_or_output = monitor.get("source", "feature") in ("feature", "output")
            if monitor["kind"] not in ("quantile", "lattice") or not feature_or_output:
                continue
            f = sum(cells[:-2])
            if not f:
                found.append(None)
                continue
            mean, std = monitor.get("mean", 0.0), monitor.get("std", 0.0)
            s = std or 1.0
            a, b, r = value(k_a), value(k_b), bits.zeros() if runs else 0
            found.append((mean + a * s / math.sqrt(f), max(std + b * s / math.sqrt(2 * f), 0), r))
        bits.done()
        return found


def test_the_page_lists_the_fields_in_their_order() -> None:
    assert tuple(FIELDS) == telemetry.Record.__struct_fields__


def test_the_golden_record_of_the_page() -> None:
    blocks = re.findall(r"^    ([0-9a-f ]+)$", PAGE.read_text(), re.MULTILINE)
    data = bytes.fromhex("".join(blocks))
    stranger = Stranger(data, GOLDEN_PROFILE)
    assert stranger.counts == [3, 2, 0, 0, 0, 0, 0, 4, 0, 0, 1]
    assert stranger.latency == [0] * 10 + [5] + [0] * 37
    assert stranger.moments() == [(pytest.approx(1 + 2 * 0.5 / math.sqrt(5)), 0.5, 1)]
    assert stranger.fields["quality"] == [[5, 1]]
    assert stranger.fields["errors"] == [0, 1]
    assert stranger.fields["resources"] == [37, 4, 96, 51, 20_000, 0]
    record = telemetry.decode(data)
    profile = profiles.decode(msgspec.json.encode({"schema": 1, **GOLDEN_PROFILE}))
    assert telemetry.counts_of(record, Residuals(profile)).tolist() == stranger.counts
    assert telemetry.encode(record) == data


@pytest.mark.parametrize("seed", range(6))
def test_a_stranger_reads_what_we_write(seed: int) -> None:
    rng = np.random.default_rng(seed)
    profile = drawn_profile(rng)
    for rows in (0, 1, 37, 4_000, 2**31):
        record, vector = drawn_record(profile, rows, rng)
        stranger = Stranger(telemetry.encode(record), msgspec.to_builtins(profile))
        assert stranger.counts == vector.tolist()
        if record.moments:
            ours = telemetry.moments_of(record, Residuals(profile))
            for theirs, own in zip(stranger.moments(), ours, strict=True):
                assert (theirs is None) == (own is None)
                if theirs is not None and own is not None:
                    assert theirs[:2] == pytest.approx((own.mean, own.std))
                    assert 2 ** theirs[2] == own.run
        assert stranger.fields["device"] == "pi-1"
        assert stranger.fields["rows"] == rows


def drawn_profile(rng: np.random.Generator) -> Profile:
    """Three numbers, a category and a score, with reference counts of any shape."""
    total = int(rng.integers(1, 5_000))

    def counts(cells: int) -> tuple[int, ...]:
        return tuple(rng.multinomial(total, rng.dirichlet(np.full(cells, 0.3))).tolist())

    return Profile(
        rows=total,
        monitors=(
            Monitor(name="a", kind="quantile", edges=tuple(map(float, range(9))),
                    counts=counts(13), mean=4.0, std=1.5),
            Monitor(name="b", kind="lattice", edges=(0.0, 1.0, 2.0), counts=counts(8), mean=0.1),
            Monitor(name="c", kind="quantile", edges=(0.0, 1.0), counts=counts(6), std=0.01),
            Monitor(name="d", kind="category", categories=("x", "y"), counts=counts(5)),
            Monitor(name="prediction", kind="score", source="output", edges=(0.0, 0.5, 1.0),
                    labels=2, counts=counts(5)),
        ),
    )  # fmt: skip


def drawn_record(
    profile: Profile, rows: int, rng: np.random.Generator
) -> tuple[telemetry.Record, np.ndarray]:
    """A window of counts near the reference in some monitors, and far from it in others."""
    parts = [
        rng.multinomial(rows, rng.dirichlet(np.full(m.cells, 0.3)) if rng.random() < 0.5
                        else np.array(m.counts) / profile.rows)
        for m in profile.monitors
    ]  # fmt: skip
    vector = np.concatenate(parts)
    seen = [
        moments.Moments(float(rng.normal(0, 10.0**e)), float(10.0**e), int(rng.integers(1, 9_999)))
        if count else None
        for count, e in zip(moments.finite(profile, vector), rng.integers(-3, 9, 3), strict=True)
    ]  # fmt: skip
    record = telemetry.Record(
        schema=1, device="pi-1", boot=1, seq=2, model="m", version="1", bundle=bytes(32),
        start_ms=0, end_ms=1, synchronised=True, rows=rows, refused=0, failed=0, coding=2,
        counts=Residuals(profile).write(vector, rows), latency=telemetry.pack_counts([0] * 48),
        moments=moments.write(profile, vector, seen),
    )  # fmt: skip
    return record, vector
