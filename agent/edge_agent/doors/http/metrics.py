"""What Prometheus reads: counts of this process in its text form. Pure.

Source: Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = 20
"""Latencies by powers of two from 2^-15 s (31 us) on."""


class Sample(NamedTuple):
    """One figure with its labels."""

    value: float
    labels: Mapping[str, str] = {}


class Family(NamedTuple):
    """Figures of one name."""

    name: str
    kind: str
    help: str
    samples: Sequence[Sample]


class Latencies:
    """A histogram whose buckets are powers of two. One thread writes."""

    def __init__(self) -> None:
        self._counts = [0] * (BUCKETS + 1)
        self._sum_ns = 0

    def add(self, ns: int) -> None:
        """Count one."""
        at = (ns >> 15).bit_length()
        self._counts[at if at < BUCKETS else BUCKETS] += 1
        self._sum_ns += ns

    def family(self, name: str, help_: str) -> Iterable[str]:
        """The histogram's lines."""
        yield from _head(name, "histogram", help_)
        total = 0
        for at, count in enumerate(self._counts):
            total += count
            bound = "+Inf" if at == BUCKETS else repr((1 << (15 + at)) / 1e9)
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum_ns / 1e9!r}"
        yield f"{name}_count {total}"


def render(families: Iterable[Family], *blocks: Iterable[str]) -> bytes:
    """The page."""
    lines: list[str] = []
    for family in families:
        lines += _head(family.name, family.kind, family.help)
        for sample in family.samples:
            labels = ",".join(f'{key}="{_escaped(text)}"' for key, text in sample.labels.items())
            value = int(sample.value) if float(sample.value).is_integer() else repr(sample.value)
            lines.append(
                f"{family.name}{{{labels}}} {value}" if labels else f"{family.name} {value}"
            )
    for block in blocks:
        lines += block
    return ("\n".join(lines) + "\n").encode()


def _head(name: str, kind: str, help_: str) -> tuple[str, str]:
    return f"# HELP {name} {help_}", f"# TYPE {name} {kind}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
