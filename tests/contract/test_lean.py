"""A process that serves loads libraries without what they only look into, and finds it later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LOADED = "import sys; from edge_agent import Model; print('typing_extensions' in sys.modules)"
AFTER = "; import typing_extensions; print(typing_extensions.TypeVar is not None)"


def printed(code: str) -> list[str]:
    """What a new Python prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_a_model_needs_no_typing_extensions() -> None:
    assert printed(LOADED + AFTER) == ["False", "True"]


def test_what_was_imported_before_is_left_alone() -> None:
    assert printed(f"import typing_extensions; {LOADED}") == ["True"]


def test_other_threads_never_miss_it() -> None:
    code = (
        "import threading; held = threading.Event();"
        " other = threading.Thread(target=held.wait); other.start();"
        f" {LOADED}; held.set()"
    )
    assert printed(code) == ["True"]


def test_types_are_read_as_before() -> None:
    code = """
from edge_contract import lean
lean.load_msgspec()
from typing import NotRequired, Optional, TypedDict
import msgspec
class Row(TypedDict):
    one: int
    two: NotRequired[Optional[str]]
print(msgspec.json.decode(b'{"one":1}', type=Row)["one"])
try:
    msgspec.json.decode(b'{"two":null}', type=Row)
except msgspec.ValidationError as error:
    print("one" in str(error))
"""
    assert printed(code) == ["1", "True"]


PAHO = "import sys; from edge_contract import lean; lean.load_paho(); "


def test_the_mqtt_client_comes_without_http_and_mail() -> None:
    found = "print(*(each in sys.modules for each in ('paho.mqtt.client', 'http.client', 'email')))"
    assert printed(PAHO + found) == ["True", "False", "False"]


def test_whoever_asks_later_gets_urllib_itself() -> None:
    asked = "import urllib.request; print(urllib.request.getproxies() is not None)"
    assert printed(PAHO + asked) == ["True"]


def test_a_proxy_by_pysocks_is_still_looked_up(tmp_path: Path) -> None:
    (tmp_path / "socks.py").write_text("HTTP, SOCKS4, SOCKS5 = 3, 1, 2\n")
    asked = (
        "import os; os.environ['mqtt_proxy'] = 'socks://10.0.0.9:1080';"
        " import paho.mqtt.client as client;"
        " made = client.Client(client.CallbackAPIVersion.VERSION2, transport='tcp');"
        " made._host = 'broker.example'; print(made._get_proxy()['proxy_addr'])"
    )
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
    assert printed(path + PAHO + asked) == ["10.0.0.9"]


ZONES = (
    "import os, sys; os.environ.pop('TZ', None); os.environ.pop('PYTHONTZPATH', None); {}"
    " from edge_contract import lean; lean.load_zoneinfo();"
    " import zoneinfo;"
    " print(any(name.startswith('_sysconfigdata') for name in sys.modules),"
    " 'PYTHONTZPATH' in os.environ);"
    " import sysconfig;"
    " print(os.pathsep.join(zoneinfo.TZPATH) == sysconfig.get_config_var('TZPATH'))"
)


def test_zones_are_found_where_this_python_looks_for_them() -> None:
    assert printed(ZONES.format("")) == ["False", "False", "True"]


@pytest.mark.parametrize("name", ["TZ", "PYTHONTZPATH"])
def test_who_names_a_zone_or_a_path_gets_the_whole_of_it(name: str) -> None:
    found = printed(ZONES.format(f"os.environ[{name!r}] = '/usr/share/zoneinfo';"))
    if name == "TZ":
        assert found == ["True", "False", "True"]
    else:
        assert found[1] == "True", "the path that was given stays in the environment"


LATE = """
import sys
from edge_contract import lean
with lean.put_off("shutil", "graphlib"):
    import tempfile
    import shutil as held
    print("bz2" in sys.modules)
    if {within}:
        print(held.which("sh") is not None, "bz2" in sys.modules)
print("shutil" in sys.modules)
import shutil
print(shutil is not held, held.rmtree is shutil.rmtree, held.Error is shutil.Error)
"""


def test_what_is_put_off_is_loaded_by_whoever_takes_from_it_first() -> None:
    assert printed(LATE.format(within=False)) == ["False", "False", "True", "True", "True"]
    assert printed(LATE.format(within=True))[:4] == ["False", "True", "True", "True"]


def test_what_is_there_already_is_not_put_off() -> None:
    code = (
        "import shutil, sys; from edge_contract import lean\n"
        "with lean.put_off('shutil'):\n    import shutil as again; print(again is shutil)\n"
        "print(sys.modules['shutil'] is shutil)"
    )
    assert printed(code) == ["True", "True"]


def test_nothing_is_put_off_beside_other_threads() -> None:
    code = (
        "import threading; from edge_contract import lean; held = threading.Event();"
        " other = threading.Thread(target=held.wait); other.start()\n"
        "with lean.put_off('shutil'):\n    import shutil; print('rmtree' in vars(shutil))\n"
        "held.set()"
    )
    assert printed(code) == ["True"]
