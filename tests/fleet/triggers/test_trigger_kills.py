"""`edge-fleet serve --triggers`, killed in the middle of deliveries: each still arrives."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleet_kit import FLEET, Packed, until
from trigger_kit import raised

from edge_contract import trigger
from edge_fleet.store.firings import Firing
from edge_fleet.store.sql import SqlStore

TRIGGERS = ("retrain", "tell")
KILLS = 2


def firings(store: SqlStore) -> dict[str, Firing]:
    with store.reading() as tx:
        found = tx.firings()
    assert len(found) == len({each.key for each in found})
    return {each.trigger: each for each in found}


@pytest.mark.slow
@pytest.mark.parametrize("broker_kind", ["embedded"], indirect=True)
def test_whoever_kills_the_server_in_mid_delivery_loses_no_event(
    watched: SqlStore, packed: Packed, db: str, receiver: Any, place: Any, *, tmp_path: Path,
    start_broker: Callable[..., Any],
) -> None:  # fmt: skip
    """SIGKILL while both receivers hold their requests, twice; then one of them says 503 first."""
    broker = start_broker()
    settings = place.folder / "triggers.toml"
    settings.write_text(
        "every_s = 0.2\n"
        + "".join(
            f'[triggers.{name}]\nwebhook = {{ url = "{receiver.url}/{name}",'
            ' secret_file = "hook.secret", timeout_s = 600 }\n'
            for name in TRIGGERS
        )
    )
    number = raised(watched, packed)
    over = threading.Event()
    receiver.hold = lambda _: over.wait(600)
    command = [
        sys.executable, "-m", "edge_fleet", "serve", "--fleet", FLEET, "--broker", broker.url,
        "--db", db, "--triggers", str(settings),
    ]  # fmt: skip
    log = tmp_path / "serve.log"

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(
                command, stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    for turn in range(1, KILLS + 1):
        server = start()
        until(lambda turn=turn: len(receiver.came) == len(TRIGGERS) * turn, "both hold a request")
        assert {f.state for f in firings(watched).values()} == {"waiting"}, log.read_text()
        server.kill()
        server.wait(60)
    receiver.hold = None
    receiver.answers = [(503, {})]
    server = start()
    until(lambda: {f.state for f in firings(watched).values()} == {"done"}, "both are delivered")
    server.terminate()
    assert server.wait(60) == 0, log.read_text()
    over.set()
    kept = firings(watched)
    assert set(kept) == set(TRIGGERS)
    seen = Counter((path.strip("/"), headers["webhook-id"]) for path, headers, _ in receiver.came)
    assert set(seen) == {(name, kept[name].key) for name in TRIGGERS}, "each under one id"
    assert sorted(seen.values()) == [KILLS + 1, KILLS + 2]
    for path, headers, body in receiver.came:
        found = trigger.decode(body)
        assert (found.key, found.trigger) == (headers["webhook-id"], path.strip("/"))
        assert [alarm.id for alarm in found.alarms] == [number]
    assert len({body for path, _, body in receiver.came if path == "/tell"}) == 1, "the same bytes"
