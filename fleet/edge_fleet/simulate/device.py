"""One device that is none: what it says when. Pure.

Guards: it answers as an agent does: a ``desired`` of an older revision changes nothing, a version
that failed is quarantined and not tried again, and what it runs is what its records name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edge_contract import messages, telemetry
from edge_contract.errors import InputFault

AGENT = "simulated"
SITES = ("lyon", "graz", "turin", "porto", "gent", "lund", "brno", "cork")
MACHINES = ("pi3", "pi4", "pi5", "x86")
"""Labels: a site and a hardware, the same for a number at each start."""


@dataclass(frozen=True)
class Version:
    """A bundle as devices name it."""

    model: str
    version: str
    digest: str


@dataclass
class Device:
    """One device.

    Attributes:
        number: from 0; name, labels and the moment within a window follow from it.
        active: what it runs. waiting: what it installs until ``due_s``.
        doomed: versions that fail on it.
    """

    number: int
    name: str
    boot: int
    active: Version
    stable: Version
    revision: int = 0
    seq: int = 0
    waiting: Version | None = None
    due_s: float = 0.0
    failed: tuple[messages.Failure, ...] = ()
    doomed: frozenset[str] = frozenset()
    word: str = "stable"
    labels: dict[str, str] = field(default_factory=dict)

    def status(self, online: bool) -> bytes:
        """Birth, or last will."""
        status = messages.Status(
            online=online, boot=self.boot, agent=AGENT, run=f"{self.boot}-{self.number}",
            machine=f"simulated-{self.number}",
        )  # fmt: skip
        return messages.encode(status)

    def reported(self, at_ms: int) -> bytes:
        """What it runs and how it is."""
        phase: Literal["committed", "self-testing"] = (
            "self-testing" if self.waiting else "committed"
        )
        model = messages.ModelReport(
            phase=phase,
            active=self.active.version,
            digest=self.active.digest,
            candidate=self.waiting.version if self.waiting else "",
            quarantined=tuple(one.version for one in self.failed),
            failure=self.failed[-1] if self.failed else None,
        )
        hardware = messages.Hardware(
            machine=f"simulated {self.labels['hw']}", cpus=4, ram_bytes=2**30, system="Linux",
            python="3.11", onnxruntime="1.20",
        )  # fmt: skip
        return messages.encode(
            messages.Reported(
                boot=self.boot, at_ms=at_ms, agent=AGENT, hardware=hardware,
                revision=self.revision, freshness="verified", labels=self.labels,
                models={self.active.model: model},
            )
        )  # fmt: skip

    def told(
        self, payload: bytes, versions: Sequence[Version], now_s: float, delay_s: float
    ) -> bool:
        """Hear what the fleet wants; whether there is something new to report."""
        try:
            desired = messages.decode(payload, messages.Desired)
        except InputFault:
            return False
        if desired.revision <= self.revision:
            return False
        self.revision = desired.revision
        self.word = desired.models.get(self.active.model, "stable")
        wanted = self._named(self.word, versions)
        quarantined = {one.digest for one in self.failed}
        if wanted is None or wanted.digest in quarantined or wanted == self.active:
            self.waiting = None
        else:
            self.waiting, self.due_s = wanted, now_s + delay_s
        return True

    def _named(self, word: str, versions: Sequence[Version]) -> Version | None:
        if word == "stable":
            return self.stable
        if word == "candidate":
            return versions[-1]
        return next((one for one in versions if word == one.version), None)

    def install(self, now_s: float) -> bool:
        """Finish an installation that is due; whether there is something new to report."""
        if self.waiting is None or now_s < self.due_s:
            return False
        wanted, self.waiting = self.waiting, None
        if wanted.digest in self.doomed:
            failure = messages.Failure(
                version=wanted.version, digest=wanted.digest, reason="simulated: self-test failed"
            )
            self.failed = (*self.failed, failure)
        else:
            self.active = wanted
        return True

    def record(
        self, counts: bytes, rows: int, latency: bytes, now_ms: int, window_ms: int
    ) -> bytes:
        """The window that ends now; counts in coding 2."""
        self.seq += 1
        return telemetry.encode(
            telemetry.Record(
                schema=telemetry.SCHEMA,
                device=self.name,
                boot=self.boot,
                seq=self.seq,
                model=self.active.model,
                version=self.active.version,
                bundle=bytes.fromhex(self.active.digest),
                start_ms=now_ms - window_ms,
                end_ms=now_ms,
                synchronised=True,
                rows=rows,
                refused=0,
                failed=0,
                coding=telemetry.CODING_RESIDUALS,
                counts=counts,
                latency=latency,
            )
        )


def made(
    numbers: Sequence[int], *, prefix: str, boot: int, stable: Version,
    versions: Sequence[Version], failing: float, seed: int,
) -> list[Device]:  # fmt: skip
    """Devices by number; each fails each later version with probability ``failing``."""
    found = []
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        doomed = frozenset(
            one.digest for one in versions if one != stable and rng.random() < failing
        )
        labels = {"site": SITES[number % len(SITES)], "hw": str(rng.choice(MACHINES))}
        name = f"{prefix}{number:06}"
        found.append(Device(number, name, boot, stable, stable, doomed=doomed, labels=labels))
    return found


def latencies(rows: int, rng: np.random.Generator) -> bytes:
    """Latency buckets of so many rows, around half a millisecond."""
    shares = np.exp(-0.5 * ((np.arange(telemetry.LATENCY_BUCKETS) - 18) / 2.0) ** 2)
    return telemetry.pack_counts(rng.multinomial(rows, shares / shares.sum()))
