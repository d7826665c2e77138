"""What a client is told when its request cannot be answered.

Guards: a fault of the client is a 4xx that says what and, where there is something to do, what to
do; of an error of our own it hears that there was one, and the log the rest.
"""

from __future__ import annotations

import logging

import msgspec

from edge_agent.doors.http.exchange import Request, Response
from edge_agent.live import NoSuchVersion
from edge_agent.overload import Reason
from edge_contract.errors import EdgeError, InputFault

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode


class StatusFault(InputFault):
    """A fault whose status is known."""

    def __init__(self, status: int, what: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(what)
        self.status = status
        self.headers = headers


class Away(StatusFault):
    """A request that was not computed. 504 is what DEADLINE_EXCEEDED becomes (google.rpc.Code)."""

    def __init__(self, reason: Reason, retry_s: int) -> None:
        status, what = _SAID[reason]
        super().__init__(status, what, (("retry-after", str(retry_s)),) if status == 503 else ())


_SAID = {
    Reason.FULL: (503, "overloaded: too many requests wait on this device; send fewer at once"),
    Reason.STOPPING: (503, "the agent is stopping; ask again when it is back"),
    Reason.LATE: (
        504,
        "the request was not computed: its time was up, or would be before its turn;"
        " give it longer, or send fewer at once",
    ),
}


def fault_of(error: Exception) -> Response:
    """The answer for an error: whose fault it is decides the status."""
    if isinstance(error, StatusFault):
        return answer_of(error.status, error.what, error.headers)
    if isinstance(error, EdgeError):
        if isinstance(error, NoSuchVersion):
            return answer_of(404, error.what)
        said = f"{error.what}. {error.advice}" if error.advice else error.what
        return answer_of(400 if isinstance(error, InputFault) else 500, said)
    log.error("a request could not be answered", exc_info=error)
    return answer_of(500, "an internal error of the agent; its log has the details")


def answer_of(status: int, what: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """An answer that says what is wrong."""
    if status == 503 and not headers:
        headers = (("retry-after", "1"),)
    return Response(status, _encode({"error": what}), headers=headers)


def check_method(request: Request, method: str) -> None:
    """Raises StatusFault where the path is for another one."""
    allowed = (method, "HEAD") if method == "GET" else (method,)
    if request.method not in allowed:
        raise StatusFault(
            405,
            f"{request.method} is not for {request.path[:120]}",
            (("allow", ", ".join(allowed)),),
        )
