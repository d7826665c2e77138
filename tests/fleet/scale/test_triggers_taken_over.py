"""The server that delivers triggers is killed: the one that stood by delivers in its place."""

import sys
from pathlib import Path

import pytest
from fleet_kit import Packed, until

sys.path.insert(0, str(Path(__file__).parent))  # `serve_kit` is beside the tests
sys.path.insert(0, str(Path(__file__).parents[1] / "triggers"))  # and there is `trigger_kit`

from serve_kit import Server
from trigger_kit import learn, raised

from edge_fleet.broker import BrokerThread
from edge_fleet.store.sql import SqlStore, open_store

TRIGGERS = """
every_s = 0.2
[triggers.tell]
when = { cooldown_s = 0 }
command = { run = ["tee", "--append", "told"] }
"""


@pytest.mark.slow
def test_the_one_that_stands_by_delivers_when_the_first_is_killed(
    any_db: str, tmp_path: Path, packed: Packed
) -> None:
    store = open_store(any_db, create=True)
    learn(store, packed)
    rules = tmp_path / "triggers.toml"
    rules.write_text(TRIGGERS)
    with BrokerThread() as broker:

        def serve(ordinal: int) -> Server:
            return Server(
                tmp_path / f"{ordinal}.log",
                ("--broker", broker.url, "--db", any_db, "--shared", "--ordinal", str(ordinal),
                 "--triggers", rules),
            )  # fmt: skip

        first = serve(0)
        first.says("delivering triggers")
        second = serve(1)
        second.says("standing by")
        second.says("collecting fleet")
        raised(store, packed)
        until(lambda: firings(store) == ["done"], "the first delivers")
        first.kill()
        raised(store, packed, feature="level", monitor=1)
        second.says("delivering triggers")
        until(lambda: firings(store) == ["done", "done"], "the second delivers")
        assert (tmp_path / "told").read_text().count('"key"') == 2
        again = serve(0)
        again.says("standing by")
        again.stop()
        second.stop()
    store.close()


def firings(store: SqlStore) -> list[str]:
    """What became of each."""
    with store.reading() as tx:
        return [one.state for one in tx.firings("tell")]
