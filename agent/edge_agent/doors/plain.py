"""Plain JSON by feature name, as people write it: the same over MQTT and HTTP. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.doors.tensors import shaped
from edge_agent.outputs import Prediction
from edge_contract.errors import InputFault, MachineFault
from edge_contract.messages import Answer, Outcome, Request, TensorData


def rows_of(request: Request) -> object:
    """What ``Model.predict`` takes. Raises InputFault where a tensor's shape and data differ."""
    if request.tensors:
        return {name: _tensor(name, given) for name, given in request.tensors.items()}
    return request.rows[0] if request.single else request.rows


def answer_of(name: str, version: str, found: Prediction | list[Prediction]) -> Answer:
    """The message for predictions. Raises MachineFault for numbers that JSON has not."""
    predictions = found if isinstance(found, list) else [found]
    return Answer(
        model=name,
        version=version,
        predictions=[_outcome(prediction) for prediction in predictions],
    )


def _tensor(name: str, given: TensorData) -> NDArray[Any]:
    if math.prod(given.shape) != len(given.data):
        raise InputFault(
            f"tensor {name[:80]!r}: {len(given.data)} elements for the shape {list(given.shape)}"
        )
    text = any(isinstance(item, str) for item in given.data)
    try:
        array = np.array(given.data, dtype=object if text else None)
    except OverflowError as error:
        raise InputFault(f"tensor {name[:80]!r} holds an integer that is too large") from error
    return shaped(array, given.shape, name)


def _outcome(prediction: Prediction) -> Outcome:
    return Outcome(
        label=prediction.label,
        probabilities=prediction.probabilities,
        value=prediction.value,
        outputs={name: _listed(name, array) for name, array in prediction.outputs.items()},
        id=prediction.id or "",
        calibrated=prediction.calibrated,
    )


def _listed(name: str, array: NDArray[Any]) -> TensorData:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise MachineFault(f"the model answered NaN or infinity in {name!r}, which JSON has not")
    data: Sequence[Any] = array.ravel().tolist()
    dtype = "string" if array.dtype.kind in "OUS" else array.dtype.name
    return TensorData(dtype=dtype, shape=array.shape, data=list(data))
