"""Whether this machine can run a bundle, by its manifest alone: asked before the first chunk.

Pure: what the machine offers is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.units import show_bytes
from edge_contract.errors import MachineFault
from edge_contract.manifest import Manifest
from edge_contract.names import version_key


@dataclass(frozen=True)
class Offer:
    """What this machine has.

    Attributes:
        onnxruntime: its version. providers: what it computes on.
        ram_bytes: most that a model may need.
        disk_bytes, free_bytes: size of the disk, and what is free on it for this bundle.
        quota_bytes, quota_free_bytes: what the agent may use of it, and what is left of that; 0: no
            quota.
        held: digests of decoded files that other slots hold: those are copied, not fetched.
    """

    onnxruntime: str
    ram_bytes: int
    disk_bytes: int
    free_bytes: int
    quota_bytes: int = 0
    quota_free_bytes: int = 0
    held: frozenset[str] = frozenset()
    providers: tuple[str, ...] = ("CPUExecutionProvider",)


class Refused(MachineFault):
    """This machine cannot run the bundle; ``lasting`` when waiting will not change that."""

    def __init__(self, what: str, *, advice: str = "", lasting: bool = True) -> None:
        super().__init__(what, advice=advice)
        self.lasting = lasting


def strictest(*limits: float) -> float:
    """The least of the limits that are set; 0: none is."""
    return min((limit for limit in limits if limit > 0), default=0)


def check(manifest: Manifest, offer: Offer) -> None:
    """Return when the bundle can run here. Raises Refused with needed and offered figures.

    The least onnxruntime version stands for IR, opsets and operators: the packager derives it
    from them.
    """
    need = manifest.runtime
    who = f"{manifest.name} {manifest.version}"
    if version_key(offer.onnxruntime) < version_key(need.onnxruntime):
        raise Refused(
            f"{who} needs onnxruntime {need.onnxruntime}, this machine has {offer.onnxruntime}",
            advice="Update onnxruntime, or build the bundle for the older one.",
        )
    if not set(need.providers) & set(offer.providers):
        raise Refused(
            f"{who} computes on {', '.join(need.providers)}, this machine on "
            f"{', '.join(offer.providers)}"
        )
    if need.ram_bytes > offer.ram_bytes:
        raise Refused(
            f"{who} needs {need.ram_bytes} bytes of memory, {offer.ram_bytes} are allowed here",
            advice="Build a smaller one, or raise [update] ram_bytes_max if the machine has more.",
        )
    disk = disk_bytes(manifest, offer.held)
    if disk > offer.disk_bytes:
        raise Refused(f"{who} needs {disk} bytes of disk, the whole disk has {offer.disk_bytes}")
    if disk > offer.free_bytes:
        raise Refused(
            f"{who} needs {disk} bytes of disk, {offer.free_bytes} are free",
            advice="Free some; the agent tries again by itself.",
            lasting=False,
        )
    if offer.quota_bytes and disk > offer.quota_free_bytes:
        free, quota = show_bytes(max(offer.quota_free_bytes, 0)), show_bytes(offer.quota_bytes)
        raise Refused(
            f"disk quota: {who} needs {show_bytes(disk)}, {free} free of {quota}",
            advice="Raise [download] disk_max, or wait until a former version goes.",
            lasting=False,
        )


def disk_bytes(manifest: Manifest, held: frozenset[str]) -> int:
    """The most that a fetch of the bundle takes: chunks, until the slot made of them is whole."""
    files = manifest.files
    fetched = sum(file.size for file in files if file.raw_sha256 not in held)
    return fetched + sum(file.raw_size for file in files)
