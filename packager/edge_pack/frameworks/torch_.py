"""PyTorch: an ``nn.Module`` that a factory makes, and ``.pt2`` exported programs.

Guards: the user's code runs only from where the user points, with a notice; weights alone are
refused, because they do not say what is computed with them; an exporter's pages of advice become
one line with the user's own file and line in it. The original runs on one thread, so that its
sums, and the parity figures in the manifest, do not depend on the machine's cores.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.manifest import Feature, Tensor
from edge_pack.extras import need
from edge_pack.frameworks import drawn, meaning, networks, torch_export
from edge_pack.frameworks.drawn import Spec
from edge_pack.frameworks.meaning import UNDECLARED, Declared
from edge_pack.frameworks.networks import NetworkOriginal
from edge_pack.frameworks.onnx_ import tidied
from edge_pack.frameworks.usercode import blame
from edge_pack.intake import Column, Intake, Rows, held_out, listed, whole_tensors
from edge_pack.subject import Converted, Original
from edge_pack.tables import Table

PURPOSE = "packaging a PyTorch model"
_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TorchModel:
    """A module or an exported program.

    Attributes:
        kind: ``torch`` or ``pt2``. call: the module; takes tensors by ``names`` in order.
        program: what the exporter takes: the module, or the ExportedProgram.
        specs: inputs as an exported program states them; () for a module.
        examples: what a factory returned beside the module.
    """

    kind: str
    sha256: str
    call: Any
    program: Any
    names: tuple[str, ...]
    specs: tuple[Spec, ...]
    examples: Mapping[str, NDArray[Any]]
    declared: Declared = UNDECLARED

    @property
    def hint(self) -> str:
        """Nothing that is known of networks in general."""
        return ""

    @cached_property
    def float_dtype(self) -> str:
        """The type that numbers are fed in: that of the module's weights."""
        for weight in self.call.parameters():
            if weight.dtype.is_floating_point:
                return str(weight.dtype).removeprefix("torch.")
        return "float32"

    def draw(self) -> Table:
        """Inputs of the program's shapes, or like the factory's examples."""
        if self.specs:
            return drawn.from_specs(self.specs, self.run)
        if not self.examples:
            raise InputFault(
                "--data is missing, and a PyTorch module does not say what its inputs look like",
                advice="Give rows: --data rows.csv or samples.npz. Or let the factory return "
                "(module, example_inputs).",
            )
        tensors = {
            name: networks.cast(self._typed(name, array), array)
            for name, array in self.examples.items()
        }
        rows = drawn.ROWS if self._planned(tensors).batch == "rows" else 0
        return drawn.table(drawn.like(tensors, rows))

    def plan(self, table: Table, target: str, time_column: str) -> Intake:
        """Its inputs by the names that ``forward`` gives them, or the table's columns as one."""
        available = held_out(table, target, time_column, ())
        named = all(name in table.tensors for name in self.names)
        if table.columns and not (named and len(self.names) > 1):
            return self._of_columns(table, available)
        if not named:
            lacking = [name for name in self.names if name not in table.tensors]
            raise InputFault(
                f"{table.path} lacks an array for {listed(lacking)}, which forward() takes",
                advice=f"It has {listed(table.tensors)}; name the arrays like the arguments.",
            )
        if self.specs:
            tensors = tuple(_tensor(spec) for spec in self.specs)
            takes = whole_tensors(tensors, table)
            return networks.with_row_axis(takes, table.tensors, self.run)
        return self._planned({name: table.tensors[name] for name in self.names})

    def _of_columns(self, table: Table, available: list[str]) -> Intake:
        if len(self.names) != 1:
            raise InputFault(
                f"forward() takes {len(self.names)} inputs ({listed(self.names)}); a table's "
                "columns fill one",
                advice="Give an .npz file with one array for each of them.",
            )
        if self.specs:
            return networks.columns_of((_tensor(self.specs[0]),), table, available)
        (name,) = self.names
        dtype = self.float_dtype
        if name in self.examples:
            dtype = self._typed(name, self.examples[name]).dtype
        tensor = Tensor(
            name=name,
            dtype=_known(dtype, name),
            shape=(None, len(available)),
            features=tuple(available),
        )
        return Intake(tuple(Column(column) for column in available), (tensor,))

    def _typed(self, name: str, array: NDArray[Any]) -> Tensor:
        """The tensor of an array: floats in the weights' type unless an example says otherwise."""
        dtype = array.dtype.name
        if name in self.examples:
            dtype = self.examples[name].dtype.name
        elif array.dtype.kind == "f":
            dtype = self.float_dtype
        return Tensor(name=name, dtype=_known(dtype, name), shape=array.shape)

    def _planned(self, arrays: Mapping[str, NDArray[Any]]) -> Intake:
        """By trial: rows where the first axes agree, or one sample a run, or all as they are."""
        fixed = tuple(self._typed(name, array) for name, array in arrays.items())
        whole = Intake((), fixed, "whole")
        lengths = {len(array) if array.ndim else 0 for array in arrays.values()}
        if len(lengths) != 1 or lengths == {0}:
            return whole
        rows = Intake((), tuple(_with_first(t, None) for t in fixed), "rows")
        try:
            found = networks.with_row_axis(rows, arrays, self.run)
        except InputFault:
            for count, takes in ((1, _single(fixed)), (None, whole)):
                some = {t.name: networks.cast(t, arrays[t.name][:count]) for t in fixed}
                with contextlib.suppress(InputFault):
                    self.run(some)
                    return takes
            raise
        return found if found.batch == "rows" else whole

    def original(self, intake: Intake, rows: Rows) -> NetworkOriginal:
        """The module itself; its exported graph's end shows what the outputs are."""
        sample = networks.sample_of(intake, rows, self.run)
        exported = self._export(intake, rows, tuple(sample))
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

    def _export(self, intake: Intake, rows: Rows, outputs: tuple[str, ...]) -> Any:
        few = rows
        if intake.batch != "whole":
            count = 1 if intake.batch == "single" else 2
            few = rows.take(np.arange(count) % rows.count)
        return torch_export.export(
            self.program,
            networks.feeds(intake, few),
            outputs,
            by_row=intake.batch == "rows",
            stated=bool(self.specs),
        )

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """What the module answers. Raises InputFault with the user's line where it fails."""
        torch = need("torch", PURPOSE)
        tensors = [torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in self.names]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                found = self.call(*tensors)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(feeds[name].shape)}" for name in self.names)
            raise InputFault(
                f"forward() fails on {shapes}: {blame(error)}",
                advice="Give rows as the model was trained on, with the shapes that it takes.",
            ) from error
        finally:
            torch.set_num_threads(threads)
        return _outputs(torch, found, self.names)


def _single(fixed: Sequence[Tensor]) -> Intake:
    return Intake((), tuple(_with_first(tensor, 1) for tensor in fixed), "single")


def _with_first(tensor: Tensor, extent: int | None) -> Tensor:
    return Tensor(name=tensor.name, dtype=tensor.dtype, shape=(extent, *tensor.shape[1:]))


def _known(dtype: str, name: str) -> Any:
    if dtype not in _DTYPES:
        raise InputFault(
            f"input {name!r} is of type {dtype}, which a device cannot be handed",
            advice="Let the factory return the module in float32: module.float().",
        )
    return dtype


def _tensor(spec: Spec) -> Tensor:
    shape = tuple(extent if isinstance(extent, int) else None for extent in spec.extents)
    return Tensor(name=spec.name, dtype=_known(spec.dtype, spec.name), shape=shape)


def _outputs(torch: Any, found: Any, inputs: Sequence[str]) -> Arrays:
    """The module's outputs by name: a dict's keys, or output, output_0, output_1, ..."""
    made: Arrays = {}
    for name, value in _leaves(found, ""):
        if not isinstance(value, torch.Tensor):
            raise InputFault(
                f"forward() returns a {type(value).__name__} at {name or 'its top'}, not a tensor",
                advice="Return a tensor, or a tuple or dict of tensors.",
            )
        plain = value.detach()
        if plain.dtype == torch.bfloat16:
            plain = plain.float()
        made[_named(name, inputs)] = plain.numpy()
    return made


def _leaves(value: Any, where: str) -> list[tuple[str, Any]]:
    """Tensors of nested tuples and dicts with names made of their path."""
    if isinstance(value, Mapping):
        parts = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, tuple | list):
        names = getattr(value, "_fields", [str(i) for i in range(len(value))])
        parts = list(zip(names, value, strict=True))
    else:
        return [(where, value)]
    return [
        leaf
        for key, item in parts
        if item is not None
        for leaf in _leaves(item, f"{where}_{key}" if where else key)
    ]


def _named(where: str, inputs: Sequence[str]) -> str:
    name = where or "output"
    if name[0].isdecimal():
        name = f"output_{name}"
    return f"{name}_out" if name in inputs else name
