"""Whom an order means, who of them can run the version, and who comes next. Pure.

Guards: a device that cannot run the version is never asked, and so never counted as one that
failed; a device belongs to one rollout of a model.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from edge_contract.names import version_key
from edge_fleet.rollouts import choosing, selector
from edge_fleet.rollouts.order import Order
from edge_fleet.rollouts.state import ACTIVE, Reports, Rollout, Seen

LIVE_S = 900.0
"""A device that was heard of within this time may be chosen; telemetry comes every 300 s."""
NAMED_MAX = 5


def selected(order: Order, reports: Reports) -> list[str]:
    """The devices that the order means, by name."""
    meant = selector.parse(order.select)
    return sorted(device for device, seen in reports.devices.items() if meant(seen.traits))


def unable(order: Order, seen: Seen) -> str:
    """Why a device cannot run the version, by what it said of itself; "" where it can."""
    needs = order.needs
    known = needs.onnxruntime and seen.onnxruntime
    if known and version_key(seen.onnxruntime) < version_key(needs.onnxruntime):
        return f"needs onnxruntime {needs.onnxruntime}, has {seen.onnxruntime}"
    if seen.ram_bytes and needs.ram_bytes > seen.ram_bytes:
        return f"needs {needs.ram_bytes} bytes of memory, has {seen.ram_bytes}"
    if seen.disk_bytes and needs.disk_bytes > seen.disk_bytes:
        return f"needs {needs.disk_bytes} bytes of disk, has {seen.disk_bytes}"
    return ""


def unable_named(order: Order, reports: Reports, meant: Iterable[str]) -> str:
    """Those of ``meant`` that cannot run the version, the first of them with the reason."""
    why = {device: unable(order, reports.devices[device]) for device in meant}
    lacking = [f"{device} {said}" for device, said in why.items() if said]
    if not lacking:
        return ""
    more = f" and {len(lacking) - NAMED_MAX} more" if len(lacking) > NAMED_MAX else ""
    return f"{len(lacking)} cannot run it: {', '.join(lacking[:NAMED_MAX])}{more}"


def able(order: Order, reports: Reports) -> list[str]:
    """Of those that the order means, the ones that can run the version."""
    devices = reports.devices
    return [device for device in selected(order, reports) if not unable(order, devices[device])]


def candidates(
    number: int, order: Order, reports: Reports, now_ms: int, members: Container[str] = ()
) -> list[str]:
    """Devices that may join rollout ``number`` now, in the order in which they would.

    Only those heard of lately: one that is off line cannot stand for others.
    """
    free = [
        device
        for device in able(order, reports)
        if device not in members
        and device not in reports.taken
        and now_ms - reports.devices[device].heard_ms <= 1000 * LIVE_S
    ]
    traits = {device: reports.devices[device].traits for device in free}
    return choosing.represented(
        str(number),
        free,
        lambda device: (traits[device].get("hw"), traits[device].get(order.site, "")),
    )


def held(order: Order, before: Iterable[Rollout], reports: Reports) -> dict[str, int]:
    """Devices that the order means and an earlier rollout of the model holds or waits for.

    Each with the number of that rollout. ``before``: those that come before this order.
    """
    meant = set(selected(order, reports))
    found: dict[str, int] = {}
    for other in before:
        if other.order.model == order.model and (other.phase in ACTIVE or other.phase == "queued"):
            for device in meant.intersection({*other.members, *selected(other.order, reports)}):
                found.setdefault(device, other.id)
    return found


def held_said(order: Order, found: Mapping[str, int], meant: int) -> str:
    """What ``held`` found, of so many selected devices, in words."""
    numbers = ", ".join(map(str, sorted(set(found.values()))))
    return (
        f"another rollout of {order.model} holds {len(found)} of the {meant} selected devices, such"
        f" as {min(found)}: number {numbers}"
    )
