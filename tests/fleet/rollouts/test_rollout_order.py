"""Selections and orders are understood whole or refused with the place of the fault."""

import contextlib
import sys
from pathlib import Path

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given

sys.path.insert(0, str(Path(__file__).parent))

from edge_contract.errors import InputFault
from edge_fleet.rollouts import choosing, files, order, selector

PI = {"site": "lyon", "hw": "pi4", "device": "pi-7", "room": "a b"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", True),
        ("site=lyon and hw=pi4", True),
        ("site=lyon and hw=x86", False),
        ("hw=x86 or site=lyon and device=pi-*", True),
        ("(hw=x86 or site=lyon) and device=pc-*", False),
        ("not (hw=x86)", True),
        ("NOT not site=lyon", True),
        ("site != lyon", False),
        ("floor != 3", True),
        ("floor = *", False),
        ("room = 'a b'", True),
        ('room="a ?" and site=l[x-z]*', True),
    ],
)
def test_a_selection_means_what_it_says(text: str, meant: bool) -> None:
    assert selector.parse(text)(PI) is meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("site", "at character 5: expected '=', '!=', '<', '>' or 'in' after 'site'"),
        ("site=", "at character 6: expected a value of 'site'"),
        ("site=lyon hw=pi4", "at character 11: expected 'and', 'or' or the end, got 'hw=pi4'"),
        ("(site=lyon", "at character 11: expected ')', 'and' or 'or'"),
        ("site=lyon)", "at character 10: expected 'and', 'or' or the end"),
        ("and=1", "at character 1: expected a key"),
        ("site='lyon", "at character 6: expected a key, a value"),
        ("not " * 40 + "a=b", "at most 32 brackets"),
        ("a=b or " * 999 + "a=b", "at most 2000"),
    ],
)
def test_a_wrong_selection_is_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(InputFault) as caught:
        selector.parse(text)
    assert said in str(caught.value)


@given(st.text(alphabet="ab=! ()'\"notrd*[", max_size=40))
def test_nothing_but_the_one_fault_escapes_the_parser(text: str) -> None:
    with contextlib.suppress(InputFault):
        assert selector.parse(text)(PI) in (True, False)


def test_an_order_comes_from_a_file_and_the_command_line_stands_over_it() -> None:
    data = b"""
version = "pump@2.0"
fleet = "home"
waves = "2, 10%, 100%"
bake = "2h"
slot = "22:00-04:30"
policy = "rollback"
[gates]
quality = { limit = 0.05, least = 200, deadline_s = 86400 }
drift = {}
"""
    with pytest.raises(InputFault, match=r"missing required field `limit`.*drift"):
        files.read("pump.toml", data)
    values = files.read("pump.toml", data.replace(b"drift = {}", b"")) | order.given(
        order.texts(bake="15m", per_site=3)
    )
    made = order.made(**values)
    assert (made.model, made.version, made.bake_s, made.per_site) == ("pump", "2.0", 900, 3)
    assert made.waves == (order.Wave(devices=2), order.Wave(share=0.1), order.Wave(share=1.0))
    assert made.slot == order.Slot(22 * 60, 4 * 60 + 30)
    assert made.gates.quality.least == 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('version = "pump"', "names no version"),
        ('version = "pump@candidate"\nfleet = "home"', "needs a version, not 'candidate'"),
        ('wave = "1"', "unknown field `wave`"),
        ('waves = "5%,1%"', "do not rise"),
        ('waves = "0"', "is no wave"),
        ('waves = "101%"', "is no wave"),
        ('bake = "soon"', "is no duration"),
        ('slot = "22:00"', "is no time slot"),
        ('policy = "hope"', "Invalid enum value 'hope'"),
        ("version = ", "Invalid value"),
    ],
)
def test_a_wrong_order_is_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(InputFault) as caught:
        order.made(**files.read("pump.toml", text.encode()))
    assert said in str(caught.value)


YAML = b"""
version: pump@2.0
fleet: home
waves: 2, 10%, 100%
bake: 2h
slot: 22:00-04:30
policy: rollback
then: channel
gates:
  quality: {limit: 0.05, least: 200}
  drift: {limit: null}
"""


def test_an_order_as_yaml_says_what_it_says_as_toml() -> None:
    toml = b"""version = "pump@2.0"
fleet = "home"
waves = "2, 10%, 100%"
bake = "2h"
slot = "22:00-04:30"
policy = "rollback"
then = "channel"
gates = { quality = { limit = 0.05, least = 200 } }
"""
    off = msgspec.structs.replace(order.Gates(), drift=order.Gate(limit=None))
    values = files.read("pump.yml", YAML)
    assert values["gates"].drift == off.drift
    values["gates"] = msgspec.structs.replace(values["gates"], drift=order.Gates().drift)
    assert order.made(**values) == order.made(**files.read("pump.toml", toml))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: [pump", "not valid YAML: expected ',' or ']'"),
        ("version: pump@2.0\nversion: pump@3.0", "'version' stands twice, at line 2, column 1"),
        ("gates: &a {}\nwaves: *a", "an order holds no aliases, at line 2, column 8"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", "an order holds no aliases"),
        ("gates: " + "[" * 9 + "]" * 9, "more than 8 levels within each other"),
        ("gates: " + "{a: " * 3000, "more than 8 levels within each other"),
        ("version: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("gates: {errors: {limit: 7}}", "Expected `float` <= 1.0 - at `$.gates.errors.limit`"),
        ("bake: 90", "Expected `str`, got `int` - at `$.bake`"),
        ("- pump", "Expected `object`, got `array`"),
        ("a: 1\n---\nb: 1", "found another document, at line 2"),
        ("? [a, b]\n: 1", "a key is no plain text, at line 1, column 3"),
        ("bake: 1h\x00", "not valid YAML"),
        ("x" * 70_000, "an order of 70000 bytes"),
    ],
)
def test_a_wrong_yaml_file_is_refused_with_its_name_and_the_place(text: str, said: str) -> None:
    with pytest.raises(InputFault) as caught:
        files.read("night.yaml", text.encode())
    assert str(caught.value).startswith("night.yaml")
    assert said in str(caught.value)


@given(
    st.binary(max_size=60) | st.text(alphabet="a:- []{}&*!|>'\"\n%@", max_size=60).map(str.encode)
)
def test_nothing_but_the_one_fault_escapes_a_file(data: bytes) -> None:
    for name in ("a.yaml", "a.toml"):
        with contextlib.suppress(InputFault):
            files.read(name, data)


def test_waves_count_devices_and_shares_of_those_selected() -> None:
    waves = order.waves("1,5%,25%,100%")
    assert [choosing.size(waves, at, 200) for at in range(4)] == [1, 10, 50, 200]
    assert [choosing.size(waves, at, 3) for at in range(4)] == [1, 1, 1, 3]
    assert choosing.size(order.waves("50,10%"), 1, 100) == 50


def test_the_first_of_a_rollout_stand_for_the_whole() -> None:
    strata = {f"d{i}": "a" if i % 10 < 6 else "b" if i % 10 < 9 else "c" for i in range(100)}
    strata |= {f"one{i}": f"one{i}" for i in range(100)}  # each the only one of its kind
    sums = np.zeros(4)
    rollouts, first = 200, 20
    for rollout in range(rollouts):
        ranked = choosing.represented(str(rollout), strata, strata.__getitem__)
        assert sorted(ranked) == sorted(strata)
        assert ranked == choosing.represented(str(rollout), reversed(strata), strata.__getitem__)
        names = [strata[device] for device in ranked[:first]]
        sums += [names.count("a"), names.count("b"), names.count("c"), sum(map(len, names)) > 0]
        assert abs(names.count("a") - 2 * names.count("b")) <= 4, "60 to 30, each to within one"
    means = sums[:3] / rollouts
    assert np.allclose(means, [6, 3, 1], atol=0.6), means  # lots are hashes: always the same
