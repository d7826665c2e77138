"""Loads TUF's client without the HTTP library of its default fetcher.

Guards: a process that serves keeps its memory. ``tuf.ngclient`` imports urllib3 for a fetcher that
an agent never makes: its bytes come over MQTT, or from a mirror by ``delivery.http``. What verifies
is untouched; only the class that would fetch is missing, and says so when it is asked for.

Imports nothing but the standard library and ``lean`` at its top.
"""

from __future__ import annotations

from types import ModuleType

from edge_contract import lean

FETCHER = "tuf.ngclient.urllib3_fetcher"


class Urllib3Fetcher:
    """Stands where TUF's default fetcher does."""

    def __init__(self, *_: object, **__: object) -> None:
        raise RuntimeError("this process fetches over MQTT: give the Updater a fetcher")


def load_tuf() -> None:
    """Import ``tuf.ngclient`` with its fetcher out of sight, where nobody else could miss it.

    Whoever imports that fetcher's module afterwards gets TUF's own.
    """
    if not lean.may_hide("tuf.ngclient", "urllib3"):
        return
    stand_in = ModuleType(FETCHER)
    stand_in.__dict__["Urllib3Fetcher"] = Urllib3Fetcher
    with lean.hidden(FETCHER, stand_in):
        import tuf.ngclient  # noqa: F401, PLC0415 - the very point
