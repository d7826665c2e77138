"""Which network a model's path names: an ONNX file, a PyTorch factory or program, a Keras file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from edge_contract.errors import InputFault
from edge_pack.frameworks import onnx_
from edge_pack.frameworks.meaning import Declared
from edge_pack.subject import Subject

SUFFIXES = (".onnx",)
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

Notice = Callable[[str], None]


def is_factory(model: str) -> bool:
    """Whether a model is named as ``module:factory``, and is no file of that name."""
    return _FACTORY.fullmatch(model) is not None and not Path(model).exists()


def load(path: Path, notice: Notice, *, trust: bool, declared: Declared) -> Subject | None:
    """The network that ``path`` names, None when it names none.

    Args:
        notice: told what runs code. trust: agree to code inside a ``.keras`` file.
        declared: what its outputs are.

    Raises:
        InputFault: missing, damaged, or in a form that no longer says what it computes.
        MachineFault: the framework is not installed.
    """
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return onnx_.load(path, declared)
    return None


def check_undeclared(declared: Declared) -> None:
    """Raise InputFault where ``--task`` was given for a model that states its own."""
    if declared:
        raise InputFault(
            "--task and --labels are for networks; this model says itself what it answers",
            advice="Leave them out.",
        )
