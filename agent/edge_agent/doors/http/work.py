"""What is done with a model for one request: ``infer`` and ``predict``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from edge_agent import overload, tap
from edge_agent.doors import oip, oip_rows, plain
from edge_agent.doors.http.exchange import Request, Response
from edge_agent.doors.http.faults import Away
from edge_agent.doors.http.lane import ID_HEADER
from edge_agent.model import Model
from edge_agent.overload import Reason
from edge_contract import messages
from edge_contract.errors import InputFault

Work = Callable[[Model, oip_rows.Form, Request, int], Response]

_NUMBER = re.compile(r"[0-9]{1,12}")
_SECONDS = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")
_WAIT = re.compile(r"wait=\"?([0-9]{1,6})\"?", re.IGNORECASE)


def asks_time(request: Request) -> bool:
    """Whether the client says how long it waits."""
    return "request-timeout" in request.headers or "prefer" in request.headers


def timeout_s(request: Request) -> float:
    """How long the client waits, in seconds; 0: it does not say. The stricter of two headers.

    ``Request-Timeout: 0.25`` (draft-thomson-hybi-http-timeout-03, here with a fraction), and
    ``Prefer: wait=2`` (RFC 7240, 4.3).
    """
    found = []
    if (text := request.headers.get("request-timeout")) is not None:
        if not _SECONDS.fullmatch(text.strip()) or not float(text):
            raise InputFault(
                f"request-timeout is {text[:40]!r}, expected seconds over 0, such as 0.25"
            )
        found.append(float(text))
    for preference in request.headers.get("prefer", "").split(","):
        if match := _WAIT.fullmatch(preference.strip()):
            found.append(float(match[1]))
    return min((each for each in found if each), default=0.0)


def predict(model: Model, _form: oip_rows.Form, request: Request, values_max: int) -> Response:
    """Rows by feature name, as plain JSON."""
    try:
        rows = plain.rows_of(messages.decode_request(request.body))
        overload.check_size(rows, values_max)
    except InputFault:
        if model.observer is not None:
            model.observer.refused(1)
        raise
    manifest = model.manifest
    answer = plain.answer_of(manifest.name, manifest.version, tap.predict(model, rows))
    return Response(200, messages.encode(answer))


def infer(model: Model, form: oip_rows.Form, request: Request, values_max: int) -> Response:
    """Tensors, by the Open Inference Protocol."""
    length = request.headers.get(oip.HEADER_LENGTH)
    if length is not None and not _NUMBER.fullmatch(length):
        raise InputFault(f"{oip.HEADER_LENGTH} is {length[:40]!r}, expected a number of bytes")
    try:
        asked, rows = oip_rows.read(request.body, None if length is None else int(length), form)
        if asked.tensors or len(form.features) > values_max:
            overload.check_size(asked.tensors or rows, values_max)
    except InputFault:
        if model.observer is not None:
            model.observer.refused(1)
        raise
    waited_s = time.monotonic() - request.arrived_s if request.arrived_s else 0.0
    if asked.timeout_us and waited_s * 1e6 > asked.timeout_us:
        raise Away(Reason.LATE, 0)
    outputs = model.infer(rows)
    own = tap.claim(model)
    headers = ((ID_HEADER, own),) if own else ()
    body, json_size = oip.encode(model.manifest, asked, outputs, own)
    if json_size is None:
        return Response(200, body, headers=headers)
    headers = (*headers, (oip.HEADER_LENGTH, str(json_size)))
    return Response(200, body, "application/octet-stream", headers)


WORK: dict[str, Work] = {"infer": infer, "predict": predict}
