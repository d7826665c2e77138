"""The roles of the signing repository: who signs what, and for how long. Pure.

root signs keys; targets signs delegations only; ``models`` (build machine) signs manifests;
``rollout`` (operator) signs pointers; snapshot and timestamp sign the state of the rest. A
stolen rollout key can only choose among models that the models key signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Literal

Profile = Literal["home", "managed"]
PROFILES: tuple[Profile, ...] = ("home", "managed")

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
MODELS, ROLLOUT = "models", "rollout"
ROLES = (ROOT, TARGETS, MODELS, ROLLOUT, SNAPSHOT, TIMESTAMP)

PATHS: Mapping[str, tuple[str, ...]] = {MODELS: ("models/*/*",), ROLLOUT: ("fleet/*/*",)}
"""What a delegated role may name; both are terminating."""

_YEAR = timedelta(days=365)

LIFETIMES: Mapping[Profile, Mapping[str, timedelta]] = {
    "home": {
        ROOT: 10 * _YEAR,
        TARGETS: 5 * _YEAR,
        MODELS: 5 * _YEAR,
        ROLLOUT: 5 * _YEAR,
        SNAPSHOT: _YEAR,
        TIMESTAMP: timedelta(days=90),
    },
    "managed": {
        ROOT: 2 * _YEAR,
        TARGETS: _YEAR,
        MODELS: _YEAR,
        ROLLOUT: _YEAR,
        SNAPSHOT: timedelta(days=30),
        TIMESTAMP: timedelta(days=7),
    },
}
"""How long a signature holds: at home nobody is on call, so it holds long."""

ROOT_KEYS: Mapping[Profile, tuple[tuple[str, ...], int]] = {
    "home": (("root",), 1),
    "managed": (("root-1", "root-2", "root-3"), 2),
}
"""Names of the root keys and how many of them must sign."""


def key_names(profile: Profile, role: str) -> tuple[str, ...]:
    """The names of a role's keys."""
    return ROOT_KEYS[profile][0] if role == ROOT else (role,)


def threshold(profile: Profile, role: str) -> int:
    """How many of a role's keys must sign."""
    return ROOT_KEYS[profile][1] if role == ROOT else 1
