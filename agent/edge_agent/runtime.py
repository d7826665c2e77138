"""The only door to ONNX Runtime: bytes in, a session with plain tensors out.

Guards: usage telemetry of the runtime is off before it is imported (wheels from 1.29 on write a
device id and queued events into the user's cache otherwise); int8 results are the same to the
bit on x86 with and without VNNI; no thread spins between requests; none of the library's errors
escapes unwrapped.

No other module imports onnxruntime.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from edge_agent import loading
from edge_contract.errors import EdgeError, InputFault, MachineFault

FAILURES: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    *(
        kind
        for kind in vars(_state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
)
"""Everything that the library raises: its own classes have no common base but Exception."""

_DTYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(string)": "string",
}

BLOCK_BYTES = 1024**2
"""Blocks from this size on are mapped by themselves after ``free_at_once``."""
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Of glibc's ``malloc.h``."""

_X86 = ("x86_64", "AMD64", "i386", "i686")
_SEVERITY_FATAL = 4
"""The runtime prints what it also raises; once is enough."""

Runner = Callable[[Sequence[str], Mapping[str, Any], Any], list[NDArray[Any]]]


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model. ``dtype`` as numpy names it, or ``string``; None: any."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Session:
    """A loaded model on the CPU. Any number of threads may call ``run`` at once.

    Args:
        model: the ONNX file's bytes, or its path (then the file is never held in memory twice).
        threads: threads that work on one request. One is fastest for small models and leaves
            the other cores to the device's own work.
        gently: load at low priority, since requests are being answered meanwhile. Not with more
            than one thread: those that the runtime starts would be slow for ever.

    Raises:
        InputFault: the model cannot be loaded by this runtime.
        MachineFault: there is not enough memory for it.
    """

    def __init__(self, model: bytes | Path, *, threads: int = 1, gently: bool = False) -> None:
        source = str(model) if isinstance(model, Path) else model
        load = functools.partial(
            onnxruntime.InferenceSession,
            source,
            _options(threads),
            providers=["CPUExecutionProvider"],
        )
        try:
            session = loading.gently(load) if gently and threads == 1 else load()
        except MemoryError as error:
            raise MachineFault("not enough memory to load the model") from error
        except FAILURES as error:
            raise _not_loadable(error) from error
        self.inputs = tuple(_info(tensor, "input") for tensor in session.get_inputs())
        self.outputs = tuple(_info(tensor, "output") for tensor in session.get_outputs())
        self._names = [output.name for output in self.outputs]
        # The public `run` checks names in Python first: 2-3 us of 9. What it would find, the
        # runtime finds too, and `_blame` explains.
        self._run: Runner = getattr(session, "_sess", session).run
        self._binding = _Binding.of(session)
        self._options = onnxruntime.RunOptions()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output tensor by name.

        Raises:
            InputFault: a tensor is missing, unknown, or of the wrong type or shape.
            MachineFault: the model failed at run time, or the session is closed.
        """
        if len(feeds) != len(self.inputs):
            raise self._blame(feeds, "wrong number of input tensors")
        return dict(zip(self._names, self.call(feeds), strict=True))

    def call(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """As ``run``, in the order of ``outputs``, for feeds that hold every input."""
        try:
            return self._run(self._names, feeds, self._options)
        except MemoryError as error:
            raise MachineFault("not enough memory to run the model", code="memory") from error
        except FAILURES as error:
            raise self._blame(feeds, str(error)) from error

    def bind(self, tensor: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Binder | None:
        """What makes buffers for calls of one shape; None where the model does not allow it.

        A call with bound buffers costs 3 us less than ``call``: nothing is made or converted.
        Every output has to have a shape that depends on the input's alone.
        """
        if self._binding is None or [info.name for info in self.inputs] != [tensor]:
            return None
        if any(None in info.shape[1:] for info in self.outputs):
            return None
        try:
            sample = self.call({tensor: np.zeros(shape, dtype)})
        except EdgeError:
            return None
        if any(not array.flags.c_contiguous or not array.size for array in sample):
            return None
        forms = [(name, a.shape, a.dtype) for name, a in zip(self._names, sample, strict=True)]
        return functools.partial(self._bound, self._binding, (tensor, shape, dtype), forms)

    def interrupt(self) -> None:
        """End the runs that are under way, between two operators; they raise MachineFault.

        An endless run is one in a ``Loop`` or ``Scan``, whose body's operators are such places.
        """
        options, self._options = self._options, onnxruntime.RunOptions()
        options.terminate = True

    def close(self) -> None:
        """Give the model's memory back once running calls returned. May be called twice."""
        self._run = _closed
        self._binding = None

    def _bound(self, binding: _Binding, takes: Form, gives: Sequence[Form]) -> Bound:
        made = binding.make()
        name, shape, dtype = takes
        array = np.zeros(shape, dtype)
        made.bind_input(name, "cpu", 0, dtype.type, shape, array.ctypes.data)
        outputs = [np.zeros(shape, dtype) for _, shape, dtype in gives]
        texts = [at for at, output in enumerate(outputs) if output.dtype.hasobject]
        for (name, shape, dtype), output in zip(gives, outputs, strict=True):
            if dtype.hasobject:
                made.bind_output(name, "cpu")  # text: the runtime makes room, each time
            else:
                made.bind_output(name, "cpu", 0, dtype.type, shape, output.ctypes.data)
        inner, compute = made._iobinding, binding.run

        def run() -> Sequence[NDArray[Any]]:
            _ = array  # its memory is the input's
            try:
                compute(inner, self._options)
            except FAILURES as error:
                if _TERMINATED in str(error):
                    raise MachineFault(_INTERRUPTED, code="interrupted") from error
                raise
            for at in texts:
                outputs[at] = inner.get_outputs()[at].numpy()
            return outputs

        return Bound(array.data.cast("B"), run)

    def _blame(self, feeds: Mapping[str, NDArray[Any]], said: str) -> InputFault | MachineFault:
        """Whose fault a failed call is: the feeds' if they do not fit, else the machine's."""
        expected = {info.name: info for info in self.inputs}
        missing = [name for name in expected if name not in feeds]
        if missing:
            return InputFault(f"input tensor {missing[0]!r} is missing", code="missing")
        for name, value in feeds.items():
            info = expected.get(name)
            if info is None:
                return InputFault(
                    f"unknown input tensor {name!r}; the model has {', '.join(expected)}",
                    code="unknown",
                )
            finding = _unfit(info, value)
            if finding:
                return InputFault(f"input tensor {name!r} {finding}", code="shape")
            if value.dtype.kind in "OUS" and not _is_utf8(value):
                return InputFault(
                    f"input tensor {name!r} holds text that is no UTF-8", code="value"
                )
        if said.startswith(_CLOSED):
            return MachineFault(said)
        if any(words in said for words in _NO_MEMORY):
            return MachineFault("not enough memory to run the model", code="memory")
        if _TERMINATED in said:
            return MachineFault(_INTERRUPTED, code="interrupted")
        return MachineFault(f"the model failed at run time: {_first_line(said)}")


Form = tuple[str, tuple[int, ...], "np.dtype[Any]"]
"""A tensor's name, shape and type."""


class Bound(NamedTuple):
    """Buffers for one call at a time.

    Attributes:
        buffer: bytes of the input, to be written before each call.
        run: the outputs in the order of ``Session.outputs``; arrays of numbers are overwritten
            by the next call. Raises MachineFault when it was interrupted, else one of
            ``FAILURES``.
    """

    buffer: memoryview
    run: Callable[[], Sequence[NDArray[Any]]]


class _Binding(NamedTuple):
    """What this runtime offers below its checked calls."""

    make: Callable[[], Any]
    run: Callable[[Any, Any], None]

    @classmethod
    def of(cls, session: Any) -> _Binding | None:
        inner = getattr(session, "_sess", None)
        run = getattr(inner, "run_with_iobinding", None)
        return cls(session.io_binding, run) if run is not None else None


Binder = Callable[[], Bound]


def versions() -> dict[str, str]:
    """Versions of the libraries that compute: ``onnxruntime`` and ``numpy``."""
    return {"onnxruntime": str(onnxruntime.__version__), "numpy": np.__version__}


def free_at_once() -> bool:
    """Have large blocks go back to the system as soon as they are freed; say if it could be set.

    For a process whose work is serving: it holds for all of the process. glibc raises the size
    from which a block is mapped by itself to that of the largest one freed, up to 32 MiB
    (mallopt(3), M_MMAP_THRESHOLD). Weights then lie in the heap, where a load needs up to four
    times the model and half of it stays after the model is gone (decision 0021). A fixed size
    ends that; one that is over an image of 224 x 224 numbers costs requests nothing.

    All threads share one heap: glibc makes up to eight a core, each with leftovers of its own, 1 to
    2 MB at rest. Python asks malloc for large blocks only, so that threads seldom meet there.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_M_MMAP_THRESHOLD, BLOCK_BYTES) and mallopt(_M_ARENA_MAX, 1))
    return False


def trim_memory() -> bool:
    """Hand freed memory back to the system where the C library can (glibc); say if it did."""
    with contextlib.suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).malloc_trim(0))
    return False


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _SEVERITY_FATAL
    # Spinning burns 60-90 % of a core between calls at 100 calls a second.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if platform.machine() in _X86:
        # AVX2 without VNNI saturates int8 sums otherwise: up to 5 % of labels flipped.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _info(tensor: Any, what: str) -> TensorInfo:
    dtype = _DTYPES.get(tensor.type)
    if dtype is None:
        raise InputFault(
            f"{what} {tensor.name!r} of the model is a {tensor.type}, not a plain tensor",
            advice="Convert without ZipMap (skl2onnx: options={'zipmap': False}) and with "
            "dense tensors.",
        )
    shape = tuple(extent if isinstance(extent, int) else None for extent in tensor.shape)
    return TensorInfo(tensor.name, dtype, shape)


def _unfit(info: TensorInfo, value: object) -> str:
    """Why ``value`` cannot be the tensor ``info``, or ""."""
    if not isinstance(value, np.ndarray):
        return f"is a {type(value).__name__}, not an array"
    dtype = "string" if value.dtype.kind in "OUS" else value.dtype.name
    if dtype != info.dtype:
        return f"is {dtype}, the model expects {info.dtype}"
    fits = len(value.shape) == len(info.shape) and all(
        want is None or want == got for want, got in zip(info.shape, value.shape, strict=True)
    )
    return "" if fits else f"has shape {value.shape}, the model expects {info.shape}"


def _is_utf8(texts: NDArray[Any]) -> bool:
    """False for a lone surrogate, which Python's text may hold."""
    try:
        "".join(map(str, texts.ravel().tolist())).encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_loadable(error: Exception) -> InputFault | MachineFault:
    said = _first_line(str(error))
    if "bad_alloc" in said or "Failed to allocate" in said:
        return MachineFault(f"not enough memory to load the model: {said}")
    return InputFault(
        f"onnxruntime {onnxruntime.__version__} cannot load the model: {said}",
        advice="Check that it is an ONNX file and that this runtime knows its opsets.",
    )


_CLOSED = "the session is closed"
_NO_MEMORY = ("Failed to allocate memory", "std::bad_alloc")
"""What it says where memory runs out: of its arena, and of anything else."""
_TERMINATED = "terminate flag being set"
"""What ONNX Runtime says of a run that was ended by its ``RunOptions.terminate``."""
_INTERRUPTED = "the model did not come to an end, and was interrupted"


def _closed(_names: Sequence[str], _feeds: Mapping[str, Any], _options: Any) -> list[NDArray[Any]]:
    raise RuntimeError(_CLOSED)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:400] if text.strip() else "no reason given"
