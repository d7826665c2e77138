"""Device profiles: those that come along, and every fault of a user's own at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_contract.errors import InputFault
from edge_pack.gates import devices


@pytest.mark.parametrize("name", devices.names())
def test_each_profile_that_comes_along_holds_and_cites(name: str) -> None:
    device = devices.load(name)
    assert device.name == name and device.ram_mb >= 64 and device.slowdown >= 1 <= device.spread
    text = (Path(devices.__file__).parent / "profiles" / f"{name}.toml").read_text()
    assert text.startswith("# ")


def test_older_boards_are_slower() -> None:
    factors = [devices.load(name).slowdown for name in ("container", "pi5", "pi4", "pi3")]
    assert factors == sorted(factors) and set(devices.names()) == {"container", "pi3", "pi4", "pi5"}


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('arch = "aarch64"\nram_mb = 64\nruntime = ">=1.17"\n')
    device = devices.load(str(path))
    assert (device.name, device.ram_bytes, device.runtime) == ("gateway", 64 * 2**20, ">=1.17")
    assert device.latency_p99_ms is None and device.slowdown == 1


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(
        'arch = ""\nram_mb = -3\nruntime = "new"\nslowdown = true\nspread = 0.5\nfan = 1\n'
    )
    with pytest.raises(InputFault) as error:
        devices.load(str(path))
    for part in ("6 faults", "arch", "ram_mb = -3", "runtime = 'new'", "slowdown", "spread", "fan"):
        assert part in error.value.what
    path.write_text("")
    with pytest.raises(InputFault, match="3 faults: arch is missing"):
        devices.load(str(path))


@pytest.mark.parametrize("text", ["ram_mb = ", "\x00", "ram_mb = inf"])
def test_what_is_no_profile_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    with pytest.raises(InputFault, match=str(path)):
        devices.load(str(path))


def test_an_unknown_name_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="'pi9'") as error:
        devices.load("pi9")
    assert "container, pi3, pi4, pi5" in error.value.advice
    with pytest.raises(InputFault):
        devices.load(str(tmp_path / "absent.toml"))
