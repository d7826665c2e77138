"""What we teach skl2onnx holds for one conversion: its registries belong to the whole process.

Guards: who converts with skl2onnx beside a build gets skl2onnx's own converters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edge_pack.estimators.emit import PURPOSE
from edge_pack.extras import need


@contextmanager
def lent() -> Iterator[None]:
    """What is registered with skl2onnx inside is forgotten on the way out."""
    registries = _registries()
    before = [dict(registry) for registry in registries]
    try:
        yield
    finally:
        for registry, kept in zip(registries, before, strict=True):
            registry.clear()
            registry.update(kept)


def _registries() -> tuple[dict[Any, Any], ...]:
    """Converters, shape calculators, names of operators, parsers."""
    registration = need("skl2onnx.common._registration", PURPOSE)
    return (
        registration._converter_pool,
        registration._shape_calculator_pool,
        need("skl2onnx._supported_operators", PURPOSE).sklearn_operator_name_map,
        need("skl2onnx._parse", PURPOSE).sklearn_parsers_map,
    )
