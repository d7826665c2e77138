"""One message that stops what is done with many is found and set aside.

Guards: whatever a device sends, and whatever mistake of this program it meets, what others send is
kept and counted; a store that fails is no fault of a message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from edge_contract.errors import MachineFault

log = logging.getLogger(__name__)

KIND = "poison"
"""Of the fault that is counted for a message that was set aside."""

T = TypeVar("T")


def apart(
    items: Sequence[T],
    keep: Callable[[Sequence[T]], None],
    set_aside: Callable[[T, Exception], None],
    *,
    through: tuple[type[Exception], ...] = (MachineFault,),
) -> None:
    """``keep`` all at once; where that fails, one by one, and set aside what fails alone.

    Args:
        keep: one transaction; whatever it raises, nothing of it stands. set_aside: another one.
        through: what is no item's fault, and is raised.
    """
    try:
        keep(items)
        return
    except through:
        raise
    except Exception as error:  # noqa: BLE001 - whose it is is found out one by one
        log.info("%d together: %s: %s; each by itself", len(items), type(error).__name__, error)
    for item in items:
        try:
            keep([item])
        except through:
            raise
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not stop the others
            set_aside(item, error)


def told(error: Exception) -> str:
    """The fault's detail."""
    return f"it could not be kept, and is left out: {type(error).__name__}: {error}"
