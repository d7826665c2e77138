"""Parts that only some settings ask for: who asks for none imports none of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_agent.config import Config
from edge_agent.folder import Folder

if TYPE_CHECKING:
    from edge_agent.calibrating import Calibrating
    from edge_agent.privacy import Privacy
    from edge_agent.samples import Samples
    from edge_agent.telemetry.recorder import Instant


def privacy(config: Config, folder: Folder, now: Instant) -> Privacy | None:
    """What windows go through where counts leave with noise."""
    if config.privacy.noise is None:
        return None
    from edge_agent.privacy import Privacy  # noqa: PLC0415 - see the module's docstring

    return Privacy(config.privacy.noise, folder.private, now, window_s=config.telemetry.window_s)


def calibrating(config: Config, folder: Folder) -> Calibrating | None:
    """Who learns from labels."""
    if config.calibration is None:
        return None
    from edge_agent.calibrating import Calibrating  # noqa: PLC0415

    return Calibrating(config.calibration, folder.calibration)


def samples(
    config: Config, folder: Folder, now_s: Callable[[], float], rng: random.Random
) -> Samples | None:
    """Who sets rows aside. Raises MachineFault where they could not be sealed."""
    if config.sampling is None:
        return None
    from edge_agent.samples import Samples  # noqa: PLC0415

    return Samples(config.sampling, folder.samples, config.agent.device, now_s, rng)
