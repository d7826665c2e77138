"""A fault in an order names the part that is wrong, so that a form can show it there."""

import pytest

from edge_contract.errors import InputFault
from edge_fleet.api import problems, rollouts
from edge_fleet.rollouts import files
from edge_fleet.rollouts import order as orders
from edge_fleet.rollouts.order import File, Gates, Wrong


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"version": "pump"}', "version"),
        ('{"waves": "1,x"}', "waves"),
        ('{"slot": "22:00"}', "slot"),
        ('{"bake": "soon"}', "bake"),
        ('{"spread": "soon"}', "spread"),
        ('{"shadow": "5"}', "shadow"),
        ('{"ab": "x%"}', "ab"),
        ('{"ab": "5%", "on": "some"}', "on"),
        ('{"select": "site="}', "select"),
        ('{"gate": ["latency=0.5"]}', "gate.latency"),
        ('{"gate": ["drift=much"]}', "gate.drift"),
        ('{"per_site": -1}', "per_site"),
        ('{"gates": {"drift": {"limit": 7}}}', "gates.drift.limit"),
    ],
)
def test_the_part_that_is_wrong_is_named(body: str, field: str) -> None:
    with pytest.raises(Wrong) as caught:
        said = rollouts.asked(body.encode())
        gates = orders.with_limits(said.gates, said.gate)
        values = {"fleet": "home", "model": "pump", "version": "2.0", **orders.given(said)}
        orders.made(**values, gates=gates)
    assert caught.value.field == field
    told = problems.of_error(caught.value)
    assert (told.status, told.field) == (400, field)


def test_what_is_no_fault_of_one_part_names_none() -> None:
    with pytest.raises(InputFault) as caught:
        orders.given(File(shadow="10%", ab="10%"))
    assert problems.of_error(caught.value).field == ""


def test_limits_over_those_of_gates_leave_the_rest_as_it_was() -> None:
    text = b"version: pump@2.0\ngates: {installed: {limit: 0.5, deadline_s: 60}}\n"
    text += b'gate: [installed=80%, "drift=off", latency=2]\n'
    gates = files.read("order.yaml", text)["gates"]
    assert (gates.installed.limit, gates.installed.deadline_s) == (0.8, 60.0)
    assert orders.limits(gates) == {
        **orders.limits(Gates()), "installed": 0.8, "drift": None, "latency": 2.0,
    }  # fmt: skip


def test_a_gate_with_another_limit_keeps_its_own_deadline_and_sample() -> None:
    text = "gates:\n" + "".join(
        f"  {name}: {{limit: 0.5}}\n"
        for name in orders.limits(orders.Gates())
        if "latency" not in name
    )
    found = files.read("order.yaml", text.encode())["gates"]
    for name in orders.limits(orders.Gates()):
        made, usual = getattr(found, name), getattr(orders.Gates(), name)
        assert (made.deadline_s, made.least) == (usual.deadline_s, usual.least), name
    assert (found.installed.deadline_s, found.silent.deadline_s) == (3600.0, 1800.0)
    assert found.agreement.least == 200
