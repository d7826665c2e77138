"""A fleet that does not exist: devices that install, fail, go silent, come back and lie."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from edge_fleet.rollouts import plan, state
from edge_fleet.rollouts.order import Order
from edge_fleet.rollouts.state import Reports, Rollout, Seen, Want

MINUTE_MS = 60_000
DAY_MS = 86_400_000
BEGAN_MS = 1_700_000_000_000


class World:
    """Devices with a will of their own; ``bad`` refuse the version, ``dead`` say nothing."""

    def __init__(self, devices: dict[str, dict[str, str]], model: str = "pump") -> None:
        self.model = model
        self.now_ms = BEGAN_MS
        self.words = dict.fromkeys(devices, "stable")
        self.seen = {
            name: Seen(traits={"device": name, **traits}, heard_ms=BEGAN_MS, active="1.0",
                       phase="committed")
            for name, traits in devices.items()
        }  # fmt: skip
        self.bad: set[str] = set()
        self.dead: set[str] = set()
        self.asked: list[Want] = []
        self.facts: dict[str, int] = {}

    def reports(self, **more: object) -> Reports:
        devices = {d: replace(s, word=self.words[d]) for d, s in self.seen.items()}
        return Reports(devices=devices, **{**self.facts, **more})

    def do(self, effects: tuple[Want, ...]) -> None:
        for want in effects:
            self.words[want.device] = want.word
            self.asked.append(want)

    def live(self, minutes: int = 1) -> None:
        """Time passes; whoever lives does what it was asked."""
        self.now_ms += minutes * MINUTE_MS
        for name, seen in self.seen.items():
            if name in self.dead:
                continue
            word = self.words[name]
            version = "1.0" if word == "stable" else word
            refused = version != "1.0" and name in self.bad
            self.seen[name] = replace(
                seen, heard_ms=self.now_ms, active=seen.active if refused else version,
                refused=refused,
            )  # fmt: skip

    def run(self, rollout: Rollout, rounds: int, until: frozenset[str] = frozenset()) -> Rollout:
        """Rounds of a minute; each state is kept and read back, as after a restart."""
        for _ in range(rounds):
            rollout, effects = plan.step(rollout, self.reports(), self.now_ms)
            rollout = state.decode(state.encode(rollout))
            self.do(effects)
            if rollout.phase in until:
                break
            self.live()
        return rollout

    def holders(self, version: str = "2.0") -> set[str]:
        return {d for d, word in self.words.items() if word == version}


def plant(rng: np.random.Generator, count: int = 200) -> World:
    """``count`` devices at three sites on two kinds of hardware."""
    return World({
        f"d{i:04d}": {
            "site": str(rng.choice(["lyon", "turin", "graz"], p=[0.6, 0.3, 0.1])),
            "hw": str(rng.choice(["pi4", "x86"])),
        }
        for i in range(count)
    })  # fmt: skip


def began(world: World, order: Order) -> Rollout:
    return plan.start(1, order, world.reports(), world.now_ms)
