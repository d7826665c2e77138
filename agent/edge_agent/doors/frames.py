"""Pixels and samples become what one model takes. Pure.

Guards: nothing is guessed that the model does not say: a layout that could be read in two ways, or
a table of pixels of unknown width, wants a setting; colours and sample rates are never mixed up
silently.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.media_rules import Rules
from edge_contract.errors import InputFault
from edge_contract.manifest import Manifest, Tensor

COLOURS = (1, 3)
"""Channels that a picture has: grey, or red, green and blue."""
WINDOWS_MAX = 10_000


class Picture:
    """How pictures become the input of one model.

    Attributes:
        width, height: to bring pictures to; None: any. channels: 1 or 3.

    Raises InputFault when the model takes no pictures, or the rules leave a question open.
    """

    def __init__(self, manifest: Manifest, rules: Rules) -> None:
        for fault in rules.faults():
            raise InputFault(fault)
        self._rules = rules
        self._table = bool(manifest.features)
        self.height, self.width, self.channels = (
            _of_table(manifest, rules) if self._table else self._of_tensor(_only(manifest), rules)
        )
        self._mean = _by_channel(rules.mean, self.channels, "mean")
        self._std = _by_channel(rules.std, self.channels, "std")

    def _of_tensor(self, tensor: Tensor, rules: Rules) -> tuple[int | None, int | None, int]:
        self._tensor = tensor
        shape = tensor.shape[1:]
        if len(tensor.shape) not in (3, 4) or tensor.shape[0] not in (None, 1):
            raise _no_picture(tensor)
        self._planes = len(tensor.shape) == 4
        first = self._planes and _channels_first(tensor, rules.layout)
        self._first = first
        height, width = shape[1:] if first else shape[:2]
        channels = (shape[0] if first else shape[2]) if self._planes else 1
        if channels not in COLOURS:
            raise _no_picture(tensor)
        given = rules.size or (None, None)
        for name, own, said in (("height", height, given[1]), ("width", width, given[0])):
            if own is not None and said is not None and own != said:
                raise InputFault(f"size says a {name} of {said}, the model {own}")
        return height or given[1], width or given[0], channels or 1

    def feeds(self, pixels: NDArray[np.uint8]) -> Any:
        """What ``Model.predict`` takes, for pixels ``[height, width, channels]``."""
        values: NDArray[Any] = pixels
        integers = not self._table and self._tensor.dtype.startswith(("int", "uint"))
        if not integers:
            values = (pixels.astype(np.float64) * self._rules.scale - self._mean) / self._std
        if self._table:
            return values.ravel().tolist()
        if not self._planes:
            values = values[:, :, 0]
        elif self._first:
            values = values.transpose(2, 0, 1)
        return {self._tensor.name: values[np.newaxis].astype(self._tensor.dtype)}


class Sound:
    """How sounds become the input of one model: windows of its length, the last one padded.

    Raises InputFault when the model takes no sounds.
    """

    def __init__(self, manifest: Manifest, rules: Rules) -> None:
        if manifest.features:
            raise InputFault(f"{manifest.name} takes features, not samples of a sound")
        self._tensor = _only(manifest)
        shape = self._tensor.shape
        fits = len(shape) in (1, 2, 3) and self._tensor.dtype.startswith("float")
        if not fits or (len(shape) == 3 and shape[1] not in (None, 1)):
            raise InputFault(f"{_shown(self._tensor)} is no tensor of samples")
        self._rules = rules
        self._length = shape[-1]
        self._single = len(shape) == 1 or shape[0] is not None

    def feeds(self, samples: NDArray[np.float32], rate_hz: int) -> list[dict[str, NDArray[Any]]]:
        """What ``Model.predict`` takes, one after the other.

        Args:
            samples: ``[frames, channels]``, from -1 to 1; their mean is taken.
        """
        wanted = self._rules.rate_hz
        if wanted and rate_hz != wanted:
            raise InputFault(
                f"{rate_hz} samples a second, expected {wanted}",
                advice=f"Convert it: sox IN.wav -r {wanted} OUT.wav",
            )
        if not len(samples):
            raise InputFault("the sound has no samples")
        mono = samples.mean(axis=1)
        length = self._length or len(mono)
        count = math.ceil(len(mono) / length)
        if count > WINDOWS_MAX:
            raise InputFault(f"{count} windows of {length} samples, over {WINDOWS_MAX}")
        windows = np.zeros((count, length), self._tensor.dtype)
        windows.ravel()[: len(mono)] = mono
        parts = windows[:, np.newaxis] if self._single else windows[np.newaxis]
        rank = len(self._tensor.shape)
        return [{self._tensor.name: _shaped(part, rank)} for part in parts]


def _shaped(windows: NDArray[Any], rank: int) -> NDArray[Any]:
    """Windows ``[rows, length]`` in a tensor of ``rank`` extents."""
    length = windows.shape[1]
    return windows.reshape({1: (length,), 2: (-1, length), 3: (-1, 1, length)}[rank])


def _only(manifest: Manifest) -> Tensor:
    if len(manifest.inputs) != 1:
        raise InputFault(f"{manifest.name} takes {len(manifest.inputs)} tensors, expected one")
    return manifest.inputs[0]


def _of_table(manifest: Manifest, rules: Rules) -> tuple[int, int, int]:
    """A table whose features are pixels, row by row."""
    if any(feature.type != "number" for feature in manifest.features):
        raise InputFault(f"{manifest.name} takes text, not pixels alone")
    if len(rules.size) != 2:
        raise InputFault(
            f"{manifest.name} takes {len(manifest.features)} features: of which width?",
            advice="Set size = [WIDTH, HEIGHT].",
        )
    width, height = rules.size
    channels, rest = divmod(len(manifest.features), width * height)
    if rest or channels not in COLOURS:
        raise InputFault(
            f"{len(manifest.features)} features are no picture of {width} x {height} pixels"
        )
    return height, width, channels


def _channels_first(tensor: Tensor, layout: str) -> bool:
    first, last = tensor.shape[1] in COLOURS, tensor.shape[3] in COLOURS
    if layout:
        if not (first if layout == "nchw" else last):
            raise InputFault(f"{_shown(tensor)} is not {layout}")
        return layout == "nchw"
    if first and last:
        raise InputFault(f"{_shown(tensor)} can be read in two ways", advice='Set layout = "nchw".')
    if not first and not last:
        raise _no_picture(tensor)
    return first


def _by_channel(values: tuple[float, ...], channels: int, name: str) -> Any:
    if len(values) not in (0, 1, channels):
        raise InputFault(f"{name} holds {len(values)} numbers for {channels} channels")
    return np.array(values) if values else float(name == "std")


def _no_picture(tensor: Tensor) -> InputFault:
    return InputFault(
        f"{_shown(tensor)} is no picture: expected one of 1 or 3 channels at a time",
    )


def _shown(tensor: Tensor) -> str:
    extents = ", ".join("any" if extent is None else str(extent) for extent in tensor.shape)
    return f"input {tensor.name!r} [{extents}]"
