"""``edge-fleet fetch``: learn a bundle from its file, where the broker has it not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_contract import bundle as bundles
from edge_contract.bundle import Bundle
from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_fleet import terminal
from edge_fleet.library import known_of, profile_file
from edge_fleet.opening import opened
from edge_fleet.options import DEFAULT_DB, Db, Json, now_ms
from edge_fleet.store.base import Store


def fetch(
    *,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Bundles, *.edgepack.")],
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Learn bundles from their files: windows of them that wait are then counted.

    A collector gets the profile of a published bundle by itself. This is for one that was brought
    to devices in another way: `edge-fleet status` lists what waits, by digest.

    Examples:

      edge-fleet fetch boiler-1.2.edgepack

      edge-fleet fetch old/*.edgepack --db sqlite:///home.db --json
    """
    known = [_read(file) for file in files]
    with opened(db) as store:
        learnt = [_learn(store, one) for one in known]
    if as_json:
        terminal.print_json(learnt)
        return
    for one in learnt:
        terminal.print_line(
            f"{one['model']} {one['version']} ({str(one['bundle'])[:12]}) is known:"
            f" {one['waiting']} windows wait, a running collector counts them within a minute"
        )


def _read(file: Path) -> Bundle:
    """The bundle in ``file``; what is wrong with it is said of the file, one of many perhaps."""
    data = read_bounded(file, bundles.BUNDLE_MAX_BYTES)
    try:
        return bundles.read(data)
    except InputFault as fault:
        raise InputFault(f"{file}: {fault.what}", advice=fault.advice) from fault


def _learn(store: Store, found: Bundle) -> dict[str, str | int]:
    """Keep the manifest and the profile; how many windows wait for them."""
    profile = profile_file(found.manifest)
    stored = found.stored[profile.name] if profile else b""
    known_of(found.digest, found.manifest, stored)
    with store.transaction() as tx:
        tx.put_blob(found.digest, found.manifest_bytes, now_ms())
        if profile:
            tx.put_blob(profile.sha256, stored, now_ms())
        waiting = tx.waiting(found.digest)
    return {
        "model": found.manifest.name,
        "version": found.manifest.version,
        "bundle": found.digest,
        "waiting": waiting,
    }
