"""Whether the reference rows may be the very rows that the model was trained on.

An overfit model is surer of its training rows than of any others. A profile made of them holds
scores and errors that no device will see again, so that every device seems to have drifted on its
first day. Most models do not keep how many rows they were fitted to; some do. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

_COUNTS = ("n_samples_seen_", "n_samples_fit_", "_n_samples")
"""Of scalers and imputers, of neighbours, of forests; a tree has its root's count."""
_DEPTH_MAX = 6
_PARTS_MAX = 1000


def note(model: Any, rows: int) -> str:
    """What to tell the user of a model fitted to as many rows as there are here, or ""."""
    if rows not in fitted_to(model):
        return ""
    return (
        f"the model was fitted to {rows:,} rows, and --data has as many: if they are the same, "
        "its scores are better here than they will be on any device, and devices will seem to "
        "have drifted; give --data rows that it was not trained on"
    )


def fitted_to(model: Any) -> set[int]:
    """Numbers of rows that scikit-learn's estimators within ``model`` say they were fitted to."""
    found: set[int] = set()
    for part in _parts(model, _DEPTH_MAX, [_PARTS_MAX]):
        for name in _COUNTS:
            count = vars(part).get(name)
            if isinstance(count, int | np.number | np.ndarray) and np.size(count):
                found.add(int(np.max(count)))
        tree = getattr(part, "tree_", None)
        if tree is not None:
            found.add(int(tree.n_node_samples[0]))
    return found


def _parts(item: Any, depth: int, left: list[int]) -> Iterator[Any]:
    """The estimators within: steps of a pipeline, transformers, members of an ensemble."""
    if left[0] <= 0 or depth < 0:
        return
    if hasattr(item, "get_params") and hasattr(item, "__dict__"):
        left[0] -= 1
        yield item
        for value in vars(item).values():
            yield from _parts(value, depth - 1, left)
    elif isinstance(item, list | tuple) or (
        isinstance(item, np.ndarray) and item.dtype == object and item.size <= _PARTS_MAX
    ):
        for value in np.ravel(item).tolist() if isinstance(item, np.ndarray) else item:
            yield from _parts(value, depth - 1, left)
