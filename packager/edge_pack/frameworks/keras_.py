"""Keras 3: a ``.keras`` file, or a Keras model that a factory makes.

Guards: the original is asked through ``predict`` alone; a Lambda layer's code is loaded only with
``--trust``; a model that keeps a state between calls is refused, because no answer of it can be
compared. Keras runs on PyTorch unless ``KERAS_BACKEND`` says otherwise.

Keras's exporter traces open axes with the length 1 and unrolls recurrent layers over them, so
that another length answers wrongly without a word (measured: Keras 3.15, LSTM over ``None``
steps). Every axis but the rows is therefore fixed to the data's extent in the bundle.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault, InputFault
from edge_contract.manifest import Feature, Tensor
from edge_contract.ports.disk import read_bounded
from edge_pack import graphs
from edge_pack.extras import need
from edge_pack.frameworks import drawn, meaning, networks, torch_export
from edge_pack.frameworks.drawn import Spec
from edge_pack.frameworks.meaning import UNDECLARED, Declared
from edge_pack.frameworks.networks import NetworkOriginal
from edge_pack.frameworks.onnx_ import MODEL_MAX_BYTES, tidied
from edge_pack.frameworks.usercode import blame
from edge_pack.intake import Intake, Rows, held_out, whole_tensors
from edge_pack.subject import Converted, Original
from edge_pack.tables import Table

_PURPOSE = "packaging a Keras model"
_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


def library() -> Any:
    """Keras, on PyTorch where nothing else was configured. Raises MachineFault without it."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    need("h5py", _PURPOSE)
    if os.environ["KERAS_BACKEND"] == "torch":
        need("torch", _PURPOSE)
    with torch_export.quiet():
        return need("keras", _PURPOSE)


@dataclass(frozen=True)
class KerasModel:
    """A functional or sequential model."""

    sha256: str
    model: Any
    declared: Declared = UNDECLARED
    kind: ClassVar[str] = "keras"
    hint: ClassVar[str] = ""

    @cached_property
    def specs(self) -> tuple[Spec, ...]:
        """Its inputs. Raises InputFault for one that a device cannot be handed."""
        bounds = [
            int(layer.input_dim) for layer in _layers(self.model) if _kind(layer) == "Embedding"
        ]
        found = []
        for tensor in self.model.inputs:
            if tensor.dtype not in _DTYPES:
                raise InputFault(
                    f"input {tensor.name!r} is of type {tensor.dtype}, which Keras does not export",
                    advice="Turn text into numbers before the model.",
                )
            extents = tuple(
                extent if extent is not None else ("rows" if axis == 0 else f"{tensor.name}.{axis}")
                for axis, extent in enumerate(tensor.shape)
            )
            found.append(Spec(tensor.name, tensor.dtype, extents, min(bounds, default=None)))
        return tuple(found)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order: those of the layers that make them."""
        names = getattr(self.model, "output_names", None) or [self.model.layers[-1].name]
        inputs = {spec.name for spec in self.specs}
        plain = [f"{name}_out" if name in inputs else name for name in names]
        return tuple(
            f"{name}_{i}" if plain.count(name) > 1 else name for i, name in enumerate(plain)
        )

    def draw(self) -> Table:
        """Inputs by the model's own shapes and types."""
        return drawn.from_specs(self.specs, self.run)

    def plan(self, table: Table, target: str, time_column: str) -> Intake:
        """Its inputs, filled from the table's columns or passed whole; rows are open alone."""
        available = held_out(table, target, time_column, ())
        tensors = tuple(
            Tensor(
                name=spec.name,
                dtype=spec.dtype,  # type: ignore[arg-type]  # checked in ``specs``
                shape=tuple(e if isinstance(e, int) else None for e in spec.extents),
            )
            for spec in self.specs
        )
        named = all(
            t.name in table.tensors and table.tensors[t.name].ndim == len(t.shape) for t in tensors
        )
        if table.columns and not (named and len(tensors) > 1):
            return networks.columns_of(tensors, table, available)
        whole_tensors(tensors, table)  # says what does not fit
        fixed = tuple(
            Tensor(name=t.name, dtype=t.dtype, shape=(t.shape[0], *table.tensors[t.name].shape[1:]))
            for t in tensors
        )
        takes = whole_tensors(fixed, table)
        return networks.with_row_axis(takes, table.tensors, self.run)

    def original(self, intake: Intake, rows: Rows) -> NetworkOriginal:
        """The model's own ``predict``."""
        sample = networks.sample_of(intake, rows, self.run)
        exported = self._export(intake)
        by_row = intake.batch != "whole"
        found = meaning.of_outputs(exported, sample, self.declared, (), by_row=by_row)
        return NetworkOriginal(self.run, intake, found, exported)

    def convert(
        self,
        original: Original,
        intake: Intake,
        rows: Rows,
        features: Sequence[Feature],
        floor: str,
    ) -> Converted:
        """The exported graph, tidied, with operators that the oldest runtime has."""
        assert isinstance(original, NetworkOriginal)
        sample = networks.sample_of(intake, rows, original.run)
        return tidied(original.exported, original, sample, floor)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What ``predict`` answers. Raises InputFault where it fails."""
        keras = library()
        given = [feeds[spec.name] for spec in self.specs]
        count = max(len(array) if array.ndim else 1 for array in given)
        try:
            with _one_thread():
                found = self.model.predict(
                    _packed(keras, self.model, given), batch_size=count, verbose=0
                )
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
            raise InputFault(
                f"predict() fails on {shapes}: {blame(error)}",
                advice="Give rows as the model was trained on, with the shapes that it takes.",
            ) from error
        arrays = [np.asarray(part) for part in keras.tree.flatten(found)]
        return dict(zip(self.outputs, arrays, strict=True))

    def _export(self, intake: Intake) -> Any:
        keras, onnx = library(), need("onnx", _PURPOSE)
        need("onnxscript", _PURPOSE)
        shapes = {tensor.name: tensor.shape for tensor in intake.tensors}
        specs = [
            keras.InputSpec(shape=shapes[spec.name], dtype=spec.dtype, name=spec.name)
            for spec in self.specs
        ]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            try:
                with torch_export.quiet(), contextlib.redirect_stderr(io.StringIO()):
                    self.model.export(
                        str(path),
                        format="onnx",
                        verbose=False,
                        opset_version=torch_export.OPSET,
                        input_signature=[_packed(keras, self.model, specs)],
                    )
            except Exception as error:
                said = str(error).strip().splitlines()
                raise BuildFault(
                    f"Keras {keras.__version__} could not export the model to ONNX: "
                    f"{type(error).__name__}: {said[0][:300] if said else 'no reason given'}",
                    advice="Replace the layer that it names, or export the model another way and "
                    "build from the .onnx file.",
                ) from error
            proto = onnx.load(path)
        found = [value.name for value in proto.graph.output]
        if len(found) != len(self.outputs):
            raise BuildFault(
                f"the exported model has {len(found)} outputs, the model {len(self.outputs)}"
            )
        for old, new in zip(found, self.outputs, strict=True):
            graphs.rename_output(proto, old, new)
        torch_export.plain_symbols(proto, intake.batch == "rows")
        return proto


def _packed(keras: Any, model: Any, flat: list[Any]) -> Any:
    """Inputs in the structure that the model takes: one, a list, or a dict."""
    structure = getattr(model, "input", None)
    if structure is None or (len(flat) == 1 and not isinstance(structure, list | tuple | dict)):
        return flat[0] if len(flat) == 1 else flat
    return keras.tree.pack_sequence_as(structure, flat)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    if os.environ.get("KERAS_BACKEND") != "torch":
        yield
        return
    torch = need("torch", _PURPOSE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _layers(model: Any) -> list[Any]:
    """All layers, those of models inside it included."""
    return list(model._flatten_layers(include_self=False, recursive=True))


def _kind(layer: Any) -> str:
    return type(layer).__name__


# -- loading ---------------------------------------------------------------------------------

_UNKNOWN = re.compile(r"Could not locate (?:class|function) '([^']+)'")


def load(path: Path, declared: Declared, *, trust: bool) -> KerasModel:
    """The model in a ``.keras`` file.

    Raises InputFault when it is damaged, needs code of the user's, or holds a Lambda layer that
    nobody agreed to.
    """
    data = read_bounded(path, MODEL_MAX_BYTES)
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise InputFault(
            f"{path} is no .keras file",
            advice="Save the model with Keras 3: model.save('model.keras'). A .h5 file or a "
            "folder of an older Keras is loaded there first.",
        )
    keras = library()
    try:
        with torch_export.quiet():
            model = keras.saving.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:
        raise _refusal(keras, path, error) from error
    return of_model(model, str(path), hashlib.sha256(data).hexdigest(), declared)


def _refusal(keras: Any, path: Path, error: Exception) -> InputFault:
    text = str(error)
    if "Lambda" in text and "deserialization" in text:
        return InputFault(
            f"{path} holds a Lambda layer, which is Python code in the file",
            advice="If you know who wrote it, pass --trust; better, use a layer class.",
        )
    unknown = _UNKNOWN.search(text)
    if unknown:
        return InputFault(
            f"{path} needs {unknown[1]!r}, which is defined outside it",
            advice="Write a module with a function that defines it, loads the model and returns "
            "it, and build from that: edge-pack build my_model:make ...",
        )
    said = next((line for line in text.splitlines() if line.strip()), "no reason given")
    return InputFault(
        f"Keras {keras.__version__} cannot load {path}: {type(error).__name__}: {said[:300]}",
        advice="The file is damaged or of another Keras: save the model again with Keras 3.",
    )


def is_model(made: Any) -> bool:
    """Whether an object is a Keras model; imports nothing."""
    return any(
        kind.__name__ == "Model" and kind.__module__.startswith("keras.")
        for kind in type(made).__mro__
    )


def of_model(model: Any, name: str, sha256: str, declared: Declared) -> KerasModel:
    """A loaded model as a subject. Raises InputFault for one that cannot be packaged."""
    if not getattr(model, "inputs", None):
        raise InputFault(
            f"{name} is a {type(model).__name__} that does not say what its inputs look like",
            advice="Wrap it: keras.Model(x, model(x)) with x = keras.Input(shape), and save that.",
        )
    stateful = [layer.name for layer in _layers(model) if getattr(layer, "stateful", False)]
    if stateful:
        raise InputFault(
            f"{name} keeps a state between calls in {', '.join(stateful[:5])}",
            advice="Build it with stateful=False, or make the state an input and an output.",
        )
    return KerasModel(sha256, model, declared)


def digest_of(model: Any, source: bytes) -> str:
    """SHA-256 over a factory's source and the weights of the model that it made."""
    digest = hashlib.sha256(source)
    for number, weight in enumerate(model.get_weights()):
        digest.update(f"{number} {weight.dtype} {weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()
