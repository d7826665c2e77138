"""The decision of a search, so that a build can repeat it to the byte without searching.

Guards: a recipe holds all that the search chose and all that it was allowed; what it was made
with (model, data, library versions) is compared and a difference is said, since then the bytes
may differ too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
from msgspec import Struct

from edge_contract.errors import InputFault
from edge_contract.manifest import Manifest
from edge_contract.ports.disk import read_bounded
from edge_contract.typed import json_decoder
from edge_pack.compress.modes import MODES, Mode, Parameter
from edge_pack.config import BuildConfig

SCHEMA = 1
_MAX_BYTES = 256 * 1024


class Recipe(Struct, frozen=True, kw_only=True):
    """How a model was compressed, and within which budget.

    Attributes:
        mode, parameters: what was chosen, as in the manifest.
        max_flips: share of rows. max_diff, max_metric_drop: None is the default.
        force: the bundle is beyond the budget and was wanted anyway.
        source_sha256, data_sha256, libraries: what it was made with.
    """

    schema: int = SCHEMA
    mode: str
    parameters: dict[str, Parameter]
    runtime: str
    max_flips: float
    max_diff: float | None
    max_metric_drop: float | None
    force: bool
    source_sha256: str
    data_sha256: str
    libraries: dict[str, str]


def path_beside(out: Path) -> Path:
    """Where the recipe of the bundle ``out`` goes."""
    return out.with_name(f"{out.name.removesuffix('.edgepack')}.recipe.json")


def encode(recipe: Recipe) -> bytes:
    """Indented JSON: people keep it beside their code."""
    return msgspec.json.format(msgspec.json.encode(recipe), indent=2) + b"\n"


def load(path: Path) -> Recipe:
    """The recipe in a file. Raises InputFault when it is none that this version can follow."""
    try:
        found = json_decoder(Recipe).decode(read_bounded(path, _MAX_BYTES))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputFault(
            f"{path} is not a recipe: {error}",
            advice="A build writes one as NAME.recipe.json beside its bundle.",
        ) from error
    if found.schema != SCHEMA:
        raise InputFault(f"{path} has schema {found.schema}, this version knows {SCHEMA}")
    if found.mode not in MODES:
        raise InputFault(
            f"{path} asks for the form {found.mode!r}, which this version does not know",
            advice=f"It knows {', '.join(MODES)}.",
        )
    return found


def applied(recipe: Recipe, config: BuildConfig) -> BuildConfig:
    """The configuration with the recipe's form, budget and runtime in place of its own."""
    mode: Mode = recipe.mode  # type: ignore[assignment]  # ``load`` checked it
    return replace(
        config,
        recipe=None,
        quantize=mode,
        parameters=dict(recipe.parameters),
        runtime=recipe.runtime,
        max_flips=recipe.max_flips,
        max_diff=recipe.max_diff,
        max_metric_drop=recipe.max_metric_drop,
        force=config.force or recipe.force,
    )


def of(manifest: Manifest, config: BuildConfig) -> Recipe:
    """The decision that a sealed bundle came from."""
    return Recipe(
        mode=manifest.compression.mode,
        parameters=dict(manifest.compression.parameters),
        runtime=config.runtime,
        max_flips=config.max_flips,
        max_diff=config.max_diff,
        max_metric_drop=config.max_metric_drop,
        force=manifest.parity.forced,
        source_sha256=manifest.provenance.source_sha256,
        data_sha256=manifest.provenance.data_sha256,
        libraries=dict(manifest.provenance.libraries),
    )


def differences(followed: Recipe, made: Recipe) -> str:
    """What is other than when the followed recipe was made, as a sentence, or ""."""
    found = []
    if followed.source_sha256 != made.source_sha256:
        found.append("the model")
    if followed.data_sha256 != made.data_sha256:
        found.append("the data")
    for name in sorted({*followed.libraries, *made.libraries}):
        before, now = (each.libraries.get(name, "none") for each in (followed, made))
        if before != now:
            found.append(f"{name} ({before} then, {now} now)")
    if not found:
        return ""
    return f"other than when the recipe was made, so bytes may differ: {', '.join(found)}"
