"""An agent holds TUF's client, and not the HTTP library of a fetcher that it never makes."""

from __future__ import annotations

import subprocess
import sys

LOAD = "import sys; from edge_agent import lean_tuf; lean_tuf.load_tuf(); "
CLIENT = "from edge_agent.delivery import roots, trust; "


def printed(code: str) -> list[str]:
    """What a new Python prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_what_verifies_is_there_and_its_own_fetcher_is_not() -> None:
    # A workshop's environment has signers that bring urllib3 themselves; a device has none.
    asked = (
        "print('tuf.ngclient.urllib3_fetcher' in sys.modules,"
        " issubclass(roots.DurableUpdater, roots.Updater))"
    )
    assert printed(LOAD + CLIENT + asked) == ["False", "True"]
    assert printed("import sys; " + CLIENT + asked)[0] == "True", "TUF does without it by itself"


def test_an_updater_without_a_fetcher_is_refused() -> None:
    code = """
import tempfile
from tuf.ngclient import Updater
try:
    Updater(tempfile.mkdtemp(), "https://localhost/", bootstrap=None)
except RuntimeError as error:
    print("fetcher" in str(error))
"""
    assert printed(LOAD.rstrip("; ") + code) == ["True"]


def test_whoever_asks_later_gets_the_real_one() -> None:
    code = "from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher as found; "
    assert printed(LOAD + code + "print(found.__module__, 'urllib3' in sys.modules)") == [
        "tuf.ngclient.urllib3_fetcher", "True",
    ]  # fmt: skip


def test_what_was_imported_before_is_left_alone() -> None:
    asked = "import tuf.ngclient as n; print(n.Urllib3Fetcher.__module__)"
    assert printed("import tuf.ngclient; " + LOAD + asked) == ["tuf.ngclient.urllib3_fetcher"]


def test_other_threads_never_miss_it() -> None:
    code = (
        "import threading; held = threading.Event();"
        " other = threading.Thread(target=held.wait); other.start();"
        f" {LOAD} print('tuf.ngclient' in sys.modules); held.set()"
    )
    assert printed(code) == ["False"]


def test_an_agent_without_bindings_and_ensembles_holds_none_of_them() -> None:
    code = "import sys; import edge_agent.agent; print('edge_agent.doors.every' in sys.modules, "
    kinds = ("bindings.build", "bindings.bridge", "bindings.sparkplug", "ensemble", "doors.watch")
    found = printed(code + f"*(('edge_agent.' + each) in sys.modules for each in {kinds}))")
    assert found == ["True", *["False"] * len(kinds)]
