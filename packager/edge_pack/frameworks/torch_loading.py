"""Loads PyTorch models: what a factory made, or an exported program; refuses weights alone.

Guards: a file of weights is refused with the way out, because it does not say what is computed
with them; the digest of a factory's model covers its source and every weight.
"""

from __future__ import annotations

import hashlib
import inspect
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_contract.errors import InputFault
from edge_contract.ports.disk import read_bounded
from edge_pack.extras import need
from edge_pack.frameworks import torch_export
from edge_pack.frameworks.drawn import Spec
from edge_pack.frameworks.meaning import Declared
from edge_pack.frameworks.onnx_ import MODEL_MAX_BYTES
from edge_pack.frameworks.torch_ import PURPOSE, Arrays, TorchModel
from edge_pack.intake import listed

WEIGHTS_ONLY = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".torchscript")
"""Weights, checkpoints and TorchScript: refused with the way out."""
_WAY_OUT = (
    "Write a module with a function that builds the model, loads these weights and returns it: "
    "edge-pack build my_model:make ... ; or export it: torch.export.save(torch.export.export("
    "model, inputs), 'model.pt2')."
)


def of_module(name: str, made: Any, source: bytes, notice: Any, declared: Declared) -> TorchModel:
    """What the factory ``name`` made: a module, or a module and its example inputs.

    Args:
        source: the code that the factory stands in. notice: told of what is changed.

    Raises InputFault when it is something else.
    """
    torch = need("torch", PURPOSE)
    examples: Any = ()
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], torch.nn.Module):
        made, examples = made
    if not isinstance(made, torch.nn.Module):
        raise InputFault(
            f"{name} returns a {type(made).__name__}, not a torch.nn.Module",
            advice="Return the module, or a pair of the module and its example inputs.",
        )
    if any(part.training for part in made.modules()):
        notice(f"{name} returns a module, or a part of one, in training mode: switched to eval()")
        made.eval()
    made = made.cpu()
    names = _arguments(name, made)
    digest = hashlib.sha256(source)
    for key, value in sorted(made.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    shown = _examples(torch, names, examples)
    return TorchModel("torch", digest.hexdigest(), made, made, names, (), shown, declared)


def _arguments(name: str, module: Any) -> tuple[str, ...]:
    """The arguments that ``forward`` must be given; those with a default keep it."""
    kinds = inspect.Parameter
    found = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD):
            continue
        if parameter.kind is kinds.KEYWORD_ONLY and parameter.default is kinds.empty:
            raise InputFault(
                f"{name}: forward() takes {parameter.name!r} by keyword only",
                advice="Let the factory return a module whose forward() takes tensors by position.",
            )
        if parameter.default is kinds.empty:
            found.append(parameter.name)
    if not found:
        raise InputFault(
            f"{name}: forward() names no argument",
            advice="Write forward(self, x, ...) with a name for each input tensor.",
        )
    return tuple(found)


def _examples(torch: Any, names: Sequence[str], examples: Any) -> Arrays:
    if isinstance(examples, torch.Tensor):
        examples = (examples,)
    given = dict(examples) if isinstance(examples, Mapping) else dict(zip(names, examples))  # noqa: B905
    count = len(examples)
    if count and (count != len(names) or set(given) != set(names)):
        raise InputFault(
            f"the factory returns {count} example inputs ({listed(list(map(str, given)))}), "
            f"forward() takes {listed(list(names))}",
            advice="Return one for each argument, in order or by name.",
        )
    for name, value in given.items():
        if not isinstance(value, torch.Tensor):
            raise InputFault(f"example input {name!r} is a {type(value).__name__}, not a tensor")
    return {name: given[name].detach().cpu().numpy() for name in names if name in given}


def from_program(path: Path, declared: Declared) -> TorchModel:
    """The exported program in a ``.pt2`` file. Raises InputFault when it is damaged."""
    torch = need("torch", PURPOSE)
    digest = hashlib.sha256(read_bounded(path, MODEL_MAX_BYTES)).hexdigest()
    try:
        with torch_export.quiet():
            program = torch.export.load(str(path))
            module = program.module()
    except Exception as error:
        said = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise InputFault(
            f"{path} is no exported program that torch {torch.__version__} reads: {said[:300]}",
            advice="Write it with torch.export.save(torch.export.export(model, inputs), path).",
        ) from error
    values = {
        node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"
    }
    names = tuple(name for name in program.graph_signature.user_inputs if name in values)
    specs = tuple(_spec(torch, path, name, values[name]) for name in names)
    positional, keyword = program.call_spec.in_spec.children()
    if positional.num_leaves != len(positional.children()) or keyword.num_leaves:
        raise InputFault(
            f"{path} takes nested or keyword inputs",
            advice="Export a module whose forward() takes tensors by position.",
        )
    return TorchModel("pt2", digest, module, program, names, specs, {}, declared)


def _spec(torch: Any, path: Path, name: str, value: Any) -> Spec:
    if not isinstance(value, torch.Tensor):
        raise InputFault(
            f"{path}: input {name!r} is a {type(value).__name__}, not a tensor",
            advice="Export the model with tensors as inputs.",
        )
    extents = tuple(extent if isinstance(extent, int) else str(extent) for extent in value.shape)
    return Spec(name, str(value.dtype).removeprefix("torch."), extents)


def refuse_weights(path: Path) -> InputFault:
    """Why a file of weights or TorchScript is no model to package, and what to do."""
    what = "holds weights without the model that they belong to"
    if not path.is_file():
        return InputFault(f"cannot read {path}: there is no such file")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any("/code/" in name for name in archive.namelist()):
                what = "is TorchScript, which PyTorch no longer develops and cannot export to ONNX"
    return InputFault(f"{path} {what}", advice=_WAY_OUT)
