"""What a candidate would take on a device: memory and latency, as far as this machine can tell.

Guards: the estimate from the graph is the same everywhere and may stand in the manifest; what a
child process measured here goes beside the bundle alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from edge_contract.manifest import Gate
from edge_pack import inference
from edge_pack.asking import Asked
from edge_pack.compress import bench
from edge_pack.gates.devices import MB, Device
from edge_pack.measure import CandidateFigures, OnDevice


class Form(Protocol):
    """The bytes of the model that is about to be sealed."""

    @property
    def raw(self) -> bytes: ...


def estimated(device: Device, ram_bytes: int) -> OnDevice:
    """The figures without a measurement. ``ram_bytes``: ``memory.estimate`` of the graph."""
    return OnDevice(
        name=device.name,
        ram_mb=device.ram_mb,
        latency_p99_ms=device.latency_p99_ms,
        slowdown=device.slowdown,
        spread=device.spread,
        estimated_mb=round(ram_bytes / MB, 3),
    )


def measured(
    device: Device, ram_bytes: int, asked: Asked, form: Form, seen: CandidateFigures | None
) -> OnDevice:
    """The figures with what a child process took here.

    Args:
        seen: of the search, where it timed the candidate; else it is measured now.

    Raises MachineFault when the child fails.
    """
    found = estimated(device, ram_bytes)
    rss, latencies = (seen.rss_bytes, seen.latency) if seen is not None else (None, ())
    if not latencies:
        rows = asked.data
        if asked.intake.batch != "whole":
            rows = rows.take(np.array([0]))
        feeds = inference.feeds_of(asked.intake, asked.features, rows)
        benched = bench.run([form.raw], {1: feeds})
        alone = benched.alone[0]
        rss, latencies = (alone.rss_bytes if alone else None), benched.latency[0]
    p99_ms = min(latencies, key=lambda latency: latency.batch).p99_us / 1000
    return OnDevice(
        name=found.name,
        ram_mb=found.ram_mb,
        latency_p99_ms=found.latency_p99_ms,
        slowdown=found.slowdown,
        spread=found.spread,
        estimated_mb=found.estimated_mb,
        measured_mb=None if rss is None else round(rss / MB, 3),
        here_p99_ms=p99_ms,
        there_p99_ms=p99_ms * device.slowdown,
    )


def gates(found: OnDevice) -> Iterator[tuple[Gate, str, str]]:
    """Each gate with its figure in words and a way out."""
    less = "Fewer or shallower trees, or narrower layers, take less memory."
    on = f"on {found.name}"
    got = f"{found.estimated_mb:.1f} MB (estimated)"
    yield (
        Gate(
            name="memory",
            wanted=f"<={found.ram_mb:g} MB {on}",
            got=got,
            passed=found.estimated_mb <= found.ram_mb,
        ),
        got,
        less,
    )
    if found.measured_mb is not None:
        passed = found.measured_mb <= found.ram_mb
        gate = Gate(name="memory measured", wanted=f"<={found.ram_mb:g} MB {on}", passed=passed)
        yield gate, f"{found.measured_mb:.1f} MB (resident here)", less
    if found.latency_p99_ms is not None and found.there_p99_ms is not None:
        there = found.there_p99_ms
        gate = Gate(
            name="latency p99",
            wanted=f"<={found.latency_p99_ms:g} ms {on}",
            passed=there <= found.latency_p99_ms,
        )
        got = (
            f"about {there:.3g} ms ({there / found.spread:.3g} to {there * found.spread:.3g}): "
            f"{found.here_p99_ms:.3g} ms here, {found.slowdown:g} times slower there"
        )
        yield gate, got, "Measure on the device itself, or pass --optimize latency."
