"""Which network a model's path names: an ONNX file, a PyTorch factory or program, a Keras file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from edge_contract.errors import InputFault
from edge_pack.frameworks import keras_, onnx_, torch_loading, usercode
from edge_pack.frameworks.meaning import Declared
from edge_pack.origins.origin import Origin
from edge_pack.subject import Subject

SUFFIXES = (".onnx", ".pt2", ".keras")
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

Notice = Callable[[str], None]


def is_factory(model: str) -> bool:
    """Whether a model is named as ``module:factory``, and is no file of that name."""
    return _FACTORY.fullmatch(model) is not None and not Path(model).exists()


def load(origin: Origin, notice: Notice, *, trust: bool, declared: Declared) -> Subject | None:
    """The network that an origin names, None when it names none.

    Args:
        notice: told what runs code.
        trust: agree to code inside a ``.keras`` file, or in a file from elsewhere.
        declared: what its outputs are.

    Raises:
        InputFault: missing, damaged, or in a form that no longer says what it computes.
        MachineFault: the framework is not installed.
    """
    path = origin.path
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return onnx_.load(path, declared)
    if suffix == ".pt2":
        _allow_code(origin, trust, notice)
        return torch_loading.from_program(path, declared)
    if suffix == ".keras":
        return keras_.load(path, declared, trust=trust)
    if suffix in torch_loading.WEIGHTS_ONLY:
        raise torch_loading.refuse_weights(path)
    if is_factory(str(path)):
        return _from_factory(str(path), notice, declared)
    return None


def _from_factory(name: str, notice: Notice, declared: Declared) -> Subject:
    os.environ.setdefault("KERAS_BACKEND", "torch")  # before the user's code imports Keras
    made, source = usercode.call_factory(name, notice)
    if keras_.is_model(made):
        return keras_.of_model(made, name, keras_.digest_of(made, source), declared)
    return torch_loading.of_module(name, made, source, notice, declared)


def _allow_code(origin: Origin, trust: bool, notice: Notice) -> None:
    """Raise InputFault for an exported program that the user neither named nor trusts.

    ``torch.export.load`` unpickles what is no plain tensor (torch 2.13, ``pt2_archive``).
    """
    name = origin.path.name
    if not origin.named_by_user and not trust:
        raise InputFault(
            f"{origin.uri} is an exported program ({name}), which may run code of whoever wrote "
            "it, and it is not from a path of yours",
            advice="If you know who wrote it, pass --trust; .onnx runs no code.",
        )
    notice(f"{name} is an exported program: loading it may run code of whoever wrote it")


def check_undeclared(declared: Declared) -> None:
    """Raise InputFault where ``--task`` was given for a model that states its own."""
    if declared:
        raise InputFault(
            "--task and --labels are for networks; this model says itself what it answers",
            advice="Leave them out.",
        )
