"""What a model does not say of the pictures and sounds that it takes. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

SIDE_MAX = 16_384

Side = Annotated[int, Meta(ge=1, le=SIDE_MAX)]
Numbers = Annotated[tuple[float, ...], Meta(max_length=3)]


class Rules(Struct, frozen=True, kw_only=True):
    """How pixels and samples become numbers.

    Attributes:
        size: width and height, where the model leaves them open or takes a table of pixels.
        layout: of the model's tensor; "": as its extents say.
        fit: how a picture of other proportions gets there: ``stretch``, ``crop`` the middle, or
            ``pad`` with black.
        scale, mean, std: a number is ``(pixel * scale - mean) / std``, pixels from 0 to 255;
            ``mean`` and ``std`` one a channel, or one for all. A tensor of integers gets pixels.
        rate_hz: of sounds; another one is refused. 0: any.
    """

    size: Annotated[tuple[Side, ...], Meta(max_length=2)] = ()
    layout: Literal["", "nchw", "nhwc"] = ""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    scale: float = 1 / 255
    mean: Numbers = ()
    std: Numbers = ()
    rate_hz: Annotated[int, Meta(ge=0, le=10**6)] = 0

    def faults(self) -> list[str]:
        """What the types cannot say."""
        said = []
        if len(self.size) == 1:
            said.append("size: expected a width and a height")
        if any(value == 0 for value in self.std):
            said.append("std holds a zero")
        return said
