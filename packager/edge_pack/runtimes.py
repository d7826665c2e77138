"""Which ONNX Runtime can load what: intermediate representation and operator sets by release.

Pure. The table was measured by loading models; see also onnxruntime's docs, "Compatibility".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_contract.errors import BuildFault, InputFault


@dataclass(frozen=True)
class Limits:
    """What one release of ONNX Runtime takes at most."""

    release: tuple[int, int]
    ir: int
    onnx: int
    ml: int


TABLE = (
    Limits((1, 15), 9, 19, 3),
    Limits((1, 17), 9, 20, 4),
    Limits((1, 18), 10, 21, 5),
    Limits((1, 21), 10, 22, 5),
    Limits((1, 23), 11, 23, 5),
    Limits((1, 24), 13, 25, 5),
    Limits((1, 31), 13, 26, 5),
)
"""A release between two rows has the limits of the older row."""

ML_DOMAINS = ("ai.onnx.ml",)
V5_ML = 5
_V5_TREES = ("ai.onnx.ml:TreeEnsemble", (1, 21))
"""Release 1.18 accepts ai.onnx.ml 5 but runs its TreeEnsemble only from 1.21 on."""

TARGET_ONNX = 17
TARGET_ML = 3
"""What scikit-learn models convert to: everything they need, and every release in the table."""

_FLOOR = re.compile(r"(?:>=\s*)?(\d+)\.(\d+)(?:\.\d+)?")


def limits_of(floor: str) -> Limits:
    """The limits of the oldest release in ``floor``, such as ``>=1.18``.

    Raises InputFault when it is no such text or older than the table.
    """
    match = _FLOOR.fullmatch(floor.strip())
    if match is None:
        raise InputFault(f"--runtime {floor!r} is not understood", advice="Write it as '>=1.18'.")
    release = (int(match[1]), int(match[2]))
    fitting = [row for row in TABLE if row.release <= release]
    if not fitting:
        raise InputFault(
            f"--runtime {floor!r} is older than {_text(TABLE[0].release)}, the oldest known here"
        )
    return fitting[-1]


def oldest(ir: int, opsets: dict[str, int], ops: tuple[str, ...]) -> str:
    """The oldest release that can load a model, such as ``1.15``.

    Raises BuildFault when none in the table can.
    """
    ml = max((opsets[domain] for domain in ML_DOMAINS if domain in opsets), default=1)
    for row in TABLE:
        if row.ir >= ir and row.onnx >= opsets.get("", 1) and row.ml >= ml:
            release = max(row.release, _V5_TREES[1]) if _V5_TREES[0] in ops else row.release
            return _text(release)
    raise BuildFault(
        f"the model needs IR {ir} and opsets {opsets}, newer than any ONNX Runtime known here",
        advice="Export it with an older opset.",
    )


def check_floor(floor: str, ir: int, opsets: dict[str, int], ops: tuple[str, ...]) -> str:
    """The oldest release that can load a model, if ``floor`` is at least that.

    Raises BuildFault when a device at the floor could not load it.
    """
    limits = limits_of(floor)
    needed = oldest(ir, opsets, ops)
    wanted = tuple(int(part) for part in needed.split("."))
    if wanted > limits.release and wanted > _release(floor):
        raise BuildFault(
            f"the model needs ONNX Runtime {needed} (IR {ir}, opsets {opsets}), devices may have "
            f"{_text(_release(floor))}",
            advice=f"Export it with ai.onnx {limits.onnx} or less, or pass --runtime '>={needed}'.",
        )
    return needed


def has_v5_trees(floor: str) -> bool:
    """Whether every release in ``floor`` runs the TreeEnsemble of ai.onnx.ml 5."""
    limits_of(floor)
    return _release(floor) >= _V5_TREES[1]


def check_v5_trees(floor: str) -> int:
    """The version of ai.onnx.ml that has TreeEnsemble.

    Raises BuildFault when a device at the floor could not run it.
    """
    if not has_v5_trees(floor):
        needed = _text(_V5_TREES[1])
        raise BuildFault(
            f"trees of ai.onnx.ml {V5_ML} need ONNX Runtime {needed}, devices may have "
            f"{_text(_release(floor))}",
            advice=f"Pass --runtime '>={needed}', or take another form with --quantize.",
        )
    return V5_ML


def _release(floor: str) -> tuple[int, int]:
    match = _FLOOR.fullmatch(floor.strip())
    assert match is not None
    return int(match[1]), int(match[2])


def _text(release: tuple[int, int]) -> str:
    return f"{release[0]}.{release[1]}"
