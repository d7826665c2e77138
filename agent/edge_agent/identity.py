"""Which machine this is: a fingerprint of its hardware, to tell two devices of one name apart.

Guards: no serial number or address leaves the device, only a short hash of them all.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

FINGERPRINT_CHARS = 16
_SERIALS = (
    "proc/device-tree/serial-number",  # a Raspberry Pi's own, also where its card was copied
    "sys/class/dmi/id/product_uuid",
    "sys/class/dmi/id/product_serial",
    "etc/machine-id",
)


def fingerprint(root: Path = Path("/")) -> str:
    """16 hex digits: the same at each start on the same machine and card, others elsewhere."""
    digest = hashlib.sha256(b"edge-pack machine\n")
    for text in (*_serials(root), *sorted(_addresses(root))):
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()[:FINGERPRINT_CHARS]


def _serials(root: Path) -> Iterator[str]:
    for name in _SERIALS:
        with contextlib.suppress(OSError):
            yield f"{name} {(root / name).read_bytes()[:200].hex()}"


def _addresses(root: Path) -> Iterator[str]:
    """Of network cards that are hardware: bridges and tunnels change theirs."""
    for card in root.glob("sys/class/net/*"):
        if (card / "device").exists():
            with contextlib.suppress(OSError, ValueError):
                yield (card / "address").read_text().strip()
