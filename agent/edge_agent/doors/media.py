"""Pictures by Pillow and sounds by soundfile: bytes from anywhere, decoded within bounds.

Guards: how large something unpacks is known and bounded before it is unpacked; of the formats that
the libraries know only those that cameras and recorders write are tried; whatever a decoder raises
becomes one error. Both libraries are extras, imported when the first file comes.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.doors.frames import Picture, Sound
from edge_agent.media_rules import Rules
from edge_contract.errors import InputFault, MachineFault
from edge_contract.manifest import Manifest

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
SOUNDS = (".wav", ".flac", ".ogg")
PIXELS_MAX = 64 * 1024**2
"""Of one picture: 192 MB as RGB."""
SAMPLES_MAX = 64 * 1024**2
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")


class MissingExtra(MachineFault):
    """A library is not installed."""


class Images:
    """Pictures for one model. ``rows`` gives what ``Model.predict`` takes.

    Raises InputFault when the model takes none or the rules leave a question open, MissingExtra
    without Pillow.
    """

    def __init__(self, manifest: Manifest, rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self._plan = Picture(manifest, self._rules)
        try:
            from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise _missing("pictures", "images") from error
        self._image, self._ops = Image, ImageOps
        self._no_picture = UnidentifiedImageError

    def rows(self, picture: bytes | NDArray[np.uint8]) -> Any:
        """For an encoded file, or for pixels ``[height, width]`` or ``[height, width, 3]`` (RGB).

        Raises InputFault for what is no picture, is cut off, or is too large.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of bombs: the bound below is stricter
                image = (
                    self._opened(picture)
                    if isinstance(picture, bytes)
                    else self._image.fromarray(picture)
                )
                if image.mode[0] in "IF":  # would be cut at 255
                    raise InputFault("a picture of more than 8 bits a channel")
                fitted = self._fitted(image.convert("RGB" if self._plan.channels == 3 else "L"))
        except InputFault:
            raise
        except self._no_picture as error:  # its words name an address in memory
            raise InputFault(
                "not a picture that can be read: of no known form",
                advice=f"Known are: {', '.join(_FORMATS)}.",
            ) from error
        except (*_DECODING, self._image.DecompressionBombError) as error:
            raise InputFault(f"not a picture that can be read: {error or 'cut off'}") from error
        pixels = np.asarray(fitted, dtype=np.uint8)
        return self._plan.feeds(pixels.reshape(*pixels.shape[:2], -1))

    def _opened(self, data: bytes) -> Image:
        image: Image = self._image.open(io.BytesIO(data), formats=_FORMATS)
        width, height = image.size
        if width * height > PIXELS_MAX:
            raise InputFault(f"a picture of {width} x {height} pixels, over {PIXELS_MAX}")
        if self._plan.width and self._plan.height:  # a JPEG can be decoded at a part of its size
            image.draft(None, (self._plan.width, self._plan.height))
        image.load()
        turned: Image | None = self._ops.exif_transpose(image)
        return turned or image

    def _fitted(self, image: Image) -> Image:
        wanted = (self._plan.width or image.width, self._plan.height or image.height)
        if image.size == wanted:
            return image
        if self._rules.fit == "crop":
            return self._ops.fit(image, wanted)
        if self._rules.fit == "pad":
            return self._ops.pad(image, wanted)
        return image.resize(wanted, self._image.Resampling.BICUBIC)


class Sounds:
    """Sounds for one model; as ``Images``, by soundfile."""

    def __init__(self, manifest: Manifest, rules: Rules | None = None) -> None:
        self._plan = Sound(manifest, rules or Rules())
        try:
            import soundfile  # noqa: PLC0415 - an extra
        except (ModuleNotFoundError, OSError) as error:  # OSError: without libsndfile
            raise _missing("sounds", "audio") from error
        self._soundfile = soundfile

    def rows(self, data: bytes) -> list[Any]:
        """What ``Model.predict`` takes, one after the other, for an encoded file."""
        try:
            with self._soundfile.SoundFile(io.BytesIO(data)) as file:
                frames, channels = int(file.frames), int(file.channels)
                if frames * channels > SAMPLES_MAX:
                    raise InputFault(f"{frames} samples of {channels} channels: over {SAMPLES_MAX}")
                samples = file.read(dtype="float32", always_2d=True)
                rate_hz = int(file.samplerate)
        except InputFault:
            raise
        except (*_DECODING, self._soundfile.SoundFileError) as error:
            raise InputFault(f"not a sound that can be read: {error}") from error
        return self._plan.feeds(samples, rate_hz)


_DECODING = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, RuntimeError,
    OverflowError, MemoryError, ZeroDivisionError, struct.error,
)  # fmt: skip
"""What decoders raise on bytes that nobody meant for them."""


def _missing(what: str, extra: str) -> MissingExtra:
    return MissingExtra(
        f"{what} need a library that is not installed",
        advice=f"Install it: pip install 'edge-pack[{extra}]'.",
    )
