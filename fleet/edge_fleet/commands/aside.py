"""``edge-fleet shadow`` and ``edge-fleet accuracy``: what runs beside, and what labels say."""

from __future__ import annotations

from edge_fleet import aside_tables, reports, terminal
from edge_fleet.opening import opened
from edge_fleet.options import DEFAULT_DB, Db, Json


def shadow(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Candidates that run beside the live version: how far they agree, what they cost.

    Agreement has a 95 % interval; differences and latencies are upper bounds of their buckets.

    Example: edge-fleet shadow --db sqlite:///home.db
    """
    with opened(db) as store:
        found = reports.shadow(store)
    if as_json:
        terminal.print_json(found)
    elif found:
        terminal.print_table(*aside_tables.shadow(found))
    else:
        terminal.print_line("no candidate has run in the shadow: see [shadow] in agent.toml")


def accuracy(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """What labels that came later say of each version: accuracy with a 95 % interval, or errors.

    Coverage is the share of answers that got a label.

    Example: edge-fleet accuracy --json
    """
    with opened(db) as store:
        found = reports.accuracy(store)
    if as_json:
        terminal.print_json(found)
    elif found:
        terminal.print_table(*aside_tables.accuracy(found))
    else:
        terminal.print_line("no labels have come: see POST /feedback/<model> of edge-agent")
