"""What each path answers: the Open Inference Protocol, ``/predict``, ``/metrics``, a description.

Guards: a fault of the client is a 4xx that says what and, where there is something to do, what to
do; a page of a browser that comes from elsewhere is refused; a model that takes long never holds
up other requests; more work than can be done is turned away at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import ipaddress
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from edge_agent import overload, tap
from edge_agent.desk import Desk
from edge_agent.doors import oip, plain
from edge_agent.doors.http import describe, metrics
from edge_agent.doors.http.exchange import Lane, Request, Response
from edge_agent.doors.http.lane import (
    ID_HEADER,
    INLINE_MAX_BYTES,
    INLINE_MAX_NS,
    Known,
    RowLane,
)
from edge_agent.live import Live, NoSuchVersion
from edge_agent.model import Model
from edge_agent.overload import Reason, Rules, Waiting
from edge_contract import messages
from edge_contract.errors import EdgeError, InputFault
from edge_contract.messages import Label, LabelsTaken

log = logging.getLogger(__name__)

LABELS_INLINE_BYTES = 4 * 1024
"""Answered in the loop: a model that takes less than a millisecond, on a small request."""
KNOWN_MAX = 256
PATH_KEPT_MAX = 256
HOST_MAX = 255
"""RFC 1035, 2.3.4, and more than any address needs."""
SERVER = "edge-agent"
EXTENSIONS = ("binary_tensor_data",)

_encode = msgspec.json.Encoder().encode
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(infer|ready))?")
_PREDICT = re.compile(r"/predict/([^/]+)")
_FEEDBACK = re.compile(r"/feedback/([^/]+)")
_NUMBER = re.compile(r"[0-9]{1,12}")
_SECONDS = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")
_WAIT = re.compile(r"wait=\"?([0-9]{1,6})\"?", re.IGNORECASE)


Work = Callable[[Model, oip.Form, Request, int], Response]
TakeLabels = Callable[[str, list[Label]], LabelsTaken]
KEY_HEADER = "edge-key"
"""Names what a request is about: where a candidate answers a share, one key meets one side."""


class Config(NamedTuple):
    """What the API needs to know beside the models.

    Attributes:
        token: of the ``Authorization: Bearer`` header, "" for none.
        threads: models that take long run in so many. rules: for requests that wait for one.
    """

    version: str
    token: str = ""
    threads: int = 1
    rules: Rules = Rules()


class Api:
    """Answers requests. In one event loop.

    Args:
        models: the live models by name; looked up anew at each request.
        families: further figures for ``/metrics``.
        labels: takes labels for answers of a model; None: the agent takes none.
    """

    def __init__(
        self,
        config: Config,
        models: Mapping[str, Live],
        families: Callable[[], list[metrics.Family]] = list,
        labels: TakeLabels | None = None,
    ) -> None:
        self._labels = labels
        self._config = config
        self._models = models
        self._families = families
        self._desk = Desk("http-model", config.rules, config.threads)
        self._known: dict[tuple[str, str], Known] = {}
        self._counts = {200: 0}
        self._latencies = metrics.Latencies()

    def close(self) -> None:
        """Let go of the threads."""
        self._desk.stop(0)

    def handle(self, request: Request) -> Response | Awaitable[Response]:
        """Answer one request. Never raises."""
        begin = time.perf_counter_ns()
        try:
            found = self._route(request)
        except Exception as error:  # noqa: BLE001 - the client gets a word, the log the rest
            found = fault_of(error)
        if isinstance(found, Response):
            return self.counted(found, begin)
        return self._awaited(found, begin)

    def lane_of(self, request: Request) -> Lane | None:
        """Answers what differs from ``request`` in its body alone; None: by ``handle`` only.

        Who may ask, and for what, stands in the head: it is looked at once.
        """
        place = _place(request.path) if len(request.path) <= PATH_KEPT_MAX else None
        work = _WORK.get(place[2]) if place is not None else None
        if place is None or work is None or request.method != "POST" or _asks_time(request):
            return None
        try:
            self._check_caller(request)
        except _Status:
            return None
        general = functools.partial(self._at_once, request._replace(body=b""), *place[:2], work)
        if work is not _infer or oip.HEADER_LENGTH in request.headers:
            return general
        values_max = self._config.rules.values_max
        return RowLane(
            place[:2],
            models=self._models,
            every=self._known,
            books=self,
            otherwise=general,
            values_max=values_max,
        ).answer

    def _at_once(
        self, like: Request, name: str, version: str, work: Work, body: bytes
    ) -> Response | None:
        """As ``handle``, where the model is there and quick, else None."""
        begin = time.perf_counter_ns()
        seat = self._models.get(name)
        if seat is None or seat.model is None or not self._is_quick(name, version, body):
            return None
        try:
            request = Request(like.method, like.path, like.headers, body, like.local)
            response = self._timed(seat, request, version, work)
        except Exception as error:  # noqa: BLE001 - as in ``handle``
            response = fault_of(error)
        return self.counted(response, begin)

    def _is_quick(self, name: str, version: str, body: bytes) -> bool:
        known = self._known.get((name, version))
        quick = known is not None and known.took_ns <= INLINE_MAX_NS
        return quick and len(body) <= INLINE_MAX_BYTES

    def refusal(self, status: int, what: str) -> Response:
        """The answer for a request that could not be read."""
        return self.counted(_error(status, what), time.perf_counter_ns())

    def fault(self, error: Exception) -> Response:
        """As ``fault_of``."""
        return fault_of(error)

    async def _awaited(self, found: Awaitable[Response], begin: int) -> Response:
        try:
            response = await found
        except Exception as error:  # noqa: BLE001 - as in ``handle``
            response = fault_of(error)
        return self.counted(response, begin)

    def counted(self, response: Response, begin_ns: int) -> Response:
        """One answer, to a request that was whole at ``begin_ns``."""
        self._counts[response.status] = self._counts.get(response.status, 0) + 1
        self._latencies.add(time.perf_counter_ns() - begin_ns)
        return response

    def counted_ok(self, begin_ns: int) -> None:
        """One answer of status 200, to a request that was whole at ``begin_ns``."""
        self._counts[200] += 1
        self._latencies.add(time.perf_counter_ns() - begin_ns)

    # -- routes ------------------------------------------------------------------------------

    def _route(self, request: Request) -> Response | Awaitable[Response]:
        path = request.path
        if path in _OPEN and request.method in ("GET", "HEAD"):
            return self._health(path)
        self._check_caller(request)
        place = _place(path) if len(path) <= PATH_KEPT_MAX else _place.__wrapped__(path)
        if place is not None:
            return self._model(request, *place)
        if match := _FEEDBACK.fullmatch(path):
            return self._feedback(request, unquote(match[1]))
        page = self._pages.get(path)
        if page is None:
            raise _Status(404, f"there is nothing at {path[:120]}; GET / lists what there is")
        _check_method(request, "POST" if path == "/v2/repository/index" else "GET")
        return page()

    def _feedback(self, request: Request, name: str) -> Response | Awaitable[Response]:
        """Labels for answers that were given earlier."""
        _check_method(request, "POST")
        if self._labels is None:
            raise _Status(404, "this agent takes no labels: [feedback] keep is 0 in agent.toml")
        self._seat(name)
        take, body = self._labels, request.body

        def work() -> Response:
            return Response(200, _encode(take(name, messages.decode_labels(body))))

        return work() if len(body) <= LABELS_INLINE_BYTES else self._aside(name, request, work)

    async def _aside(
        self, model: str, request: Request, work: Callable[[], Response], timeout_s: float = 0.0
    ) -> Response:
        """Answer in a thread, in its turn, or not at all: see ``edge_agent.overload``."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Response] = loop.create_future()

        def settle(response: Response) -> None:
            if not answer.done():
                answer.set_result(response)

        def serve() -> None:
            if answer.cancelled():
                return  # the client is gone
            try:
                response = work()
            except Exception as error:  # noqa: BLE001 - as in ``handle``
                response = fault_of(error)
            with contextlib.suppress(RuntimeError):  # the door was closed meanwhile
                loop.call_soon_threadsafe(settle, response)

        def turned_away(reason: Reason) -> None:
            response = fault_of(_Away(reason, self._desk.retry_s(model)))
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, response)

        deadline_s = time.monotonic() + timeout_s if timeout_s else math.inf
        self._desk.submit(Waiting(model, serve, turned_away, deadline_s, len(request.body)))
        return await answer

    @property
    def _pages(self) -> Mapping[str, Callable[[], Response]]:
        return {
            "/": lambda: Response(200, describe.page(self._live()), "text/html; charset=utf-8"),
            "/openapi.json": lambda: Response(200, _encode(self._document())),
            "/metrics": lambda: Response(200, self._metrics(), metrics.CONTENT_TYPE),
            "/v2": self._server,
            "/v2/": self._server,
            "/v2/models": lambda: Response(200, _encode({"models": sorted(self._live())})),
            "/v2/repository/index": self._index,
        }

    def _health(self, path: str) -> Response:
        ready = path != "/v2/health/ready" or bool(self._live())
        key = "live" if path.endswith("live") else "ready"
        return Response(200 if ready else 503, _encode({key: ready}))

    def _server(self) -> Response:
        about = {"name": SERVER, "version": self._config.version, "extensions": EXTENSIONS}
        return Response(200, _encode(about))

    def _index(self) -> Response:
        every = [
            {"name": name, "version": version, "state": "READY", "reason": ""}
            for name in sorted(self._live())
            for version in self._models[name].loaded
        ]
        return Response(200, _encode(every))

    def _model(
        self, request: Request, name: str, version: str, action: str
    ) -> Response | Awaitable[Response]:
        work = _WORK.get(action)
        _check_method(request, "POST" if work is not None else "GET")
        if work is not None:
            return self._run(request, name, version, work)
        seat = self._seat(name)
        with seat.use(version) as model:
            if action == "ready":
                return Response(200, _encode({"name": name, "ready": True}))
            about = oip.metadata(model.manifest, model.outputs, tuple(seat.loaded))
            return Response(200, _encode(about))

    # -- work --------------------------------------------------------------------------------

    def _run(
        self, request: Request, name: str, version: str, work: Work
    ) -> Response | Awaitable[Response]:
        """Answer with a model: here when that is quick, else in a thread."""
        if request.spare:
            raise _Status(503, "too many connections")
        seat = self._seat(name)
        timeout_s = _timeout_s(request) if _asks_time(request) else 0.0
        if self._is_quick(name, version, request.body):
            return self._timed(seat, request, version, work)
        request = request._replace(arrived_s=time.monotonic())
        serve = functools.partial(self._timed, seat, request, version, work)
        return self._aside(name, request, serve, timeout_s)

    def _timed(self, seat: Live, request: Request, version: str, work: Work) -> Response:
        begin = time.perf_counter_ns()
        with seat.use(version, request.headers.get(KEY_HEADER, "")) as model:
            known = self._known.get((seat.name, version))
            if known is None or known.digest != model.digest:
                known = self._learn(seat.name, version, model)
            response = work(model, known.form, request, self._config.rules.values_max)
        known.add(time.perf_counter_ns() - begin)
        return response

    def _learn(self, name: str, version: str, model: Model) -> Known:
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()  # versions come and go; what answers is learnt again
        known = self._known[name, version] = Known(
            model.digest,
            oip.form_of(model.manifest),
            oip.RowWriter(model.manifest, model.tensors),
        )
        return known

    def _seat(self, name: str) -> Live:
        seat = self._models.get(name)
        if seat is None or seat.model is None:
            known = ", ".join(sorted(self._live())) or "none"
            raise _Status(404, f"this device has no model {name[:120]!r}; it has: {known}")
        return seat

    def _live(self) -> dict[str, Model]:
        found = {name: seat.model for name, seat in list(self._models.items())}
        return {name: model for name, model in found.items() if model is not None}

    # -- papers ------------------------------------------------------------------------------

    def _document(self) -> dict[str, Any]:
        return describe.document(
            self._live(), self._config.version, bearer=bool(self._config.token)
        )

    def _metrics(self) -> bytes:
        answers = [
            metrics.Sample(count, {"status": str(status)})
            for status, count in sorted(self._counts.items())
            if count
        ]
        models = [
            metrics.Sample(
                1, {"model": name, "version": model.manifest.version, "digest": model.digest}
            )
            for name, model in sorted(self._live().items())
        ]
        counts = self._desk.counts
        own = [
            metrics.Family(
                "edge_agent_http_responses_total", "counter", "Answers by status.", answers
            ),
            metrics.Family(
                "edge_agent_http_waiting", "gauge", "Requests that wait for or are with a model's "
                "thread.", [metrics.Sample(counts.waiting + counts.running)],
            ),
            metrics.Family(
                "edge_agent_http_turned_away_total", "counter", "Requests that were not computed: "
                "the line was full, or their time was up.", [
                    metrics.Sample(counts.full, {"reason": "full"}),
                    metrics.Sample(counts.late, {"reason": "late"}),
                ],
            ),
            metrics.Family("edge_agent_model_info", "gauge", "What answers.", models),
        ]  # fmt: skip
        took = self._latencies.family(
            "edge_agent_http_request_seconds", "From a whole request to its answer."
        )
        return metrics.render([*own, *self._families()], took)

    # -- who may -----------------------------------------------------------------------------

    def _check_caller(self, request: Request) -> None:
        origin = request.headers.get("origin", "")
        if origin and origin.partition("://")[2] != request.headers.get("host", ""):
            raise _Status(403, "a page from elsewhere may not ask this device")
        if request.local:
            return
        if not self._config.token:
            host = request.headers.get("host", "")
            if len(host) > HOST_MAX or not _is_address(host):
                raise _Status(403, "ask by address or as localhost: a name may be somebody else's")
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip().encode("latin-1")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            given, self._config.token.encode()
        ):
            raise _Status(401, "a bearer token is needed", (("www-authenticate", "Bearer"),))


_OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})
"""What a probe may ask without a token."""


@functools.lru_cache(maxsize=256)
def _place(path: str) -> tuple[str, str, str] | None:
    """Name, version and what is to be done, of a path that leads to a model."""
    if match := _MODEL.fullmatch(path):
        name, version, action = (unquote(part) if part else "" for part in match.groups())
        return name, version, action
    if match := _PREDICT.fullmatch(path):
        return unquote(match[1]), "", "predict"
    return None


@functools.lru_cache(maxsize=64)
def _is_address(host: str) -> bool:
    """Whether a Host field names this machine by what no name server can point elsewhere.

    A page whose own name was made to lead here (DNS rebinding) has that name in it.
    """
    name = urlsplit(f"//{host}").hostname or ""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return name in ("", "localhost") or name.endswith(".localhost")


class _Status(InputFault):
    """A fault whose status is known."""

    def __init__(self, status: int, what: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(what)
        self.status = status
        self.headers = headers


class _Away(_Status):
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
    if isinstance(error, _Status):
        return _error(error.status, error.what, error.headers)
    if isinstance(error, EdgeError):
        if isinstance(error, NoSuchVersion):
            return _error(404, error.what)
        said = f"{error.what}. {error.advice}" if error.advice else error.what
        return _error(400 if isinstance(error, InputFault) else 500, said)
    log.error("a request could not be answered", exc_info=error)
    return _error(500, "an internal error of the agent; its log has the details")


def _error(status: int, what: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    if status == 503 and not headers:
        headers = (("retry-after", "1"),)
    return Response(status, _encode({"error": what}), headers=headers)


def _check_method(request: Request, method: str) -> None:
    allowed = (method, "HEAD") if method == "GET" else (method,)
    if request.method not in allowed:
        raise _Status(
            405,
            f"{request.method} is not for {request.path[:120]}",
            (("allow", ", ".join(allowed)),),
        )


def _asks_time(request: Request) -> bool:
    return "request-timeout" in request.headers or "prefer" in request.headers


def _timeout_s(request: Request) -> float:
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


def _predict(model: Model, _form: oip.Form, request: Request, values_max: int) -> Response:
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


def _infer(model: Model, form: oip.Form, request: Request, values_max: int) -> Response:
    length = request.headers.get(oip.HEADER_LENGTH)
    if length is not None and not _NUMBER.fullmatch(length):
        raise InputFault(f"{oip.HEADER_LENGTH} is {length[:40]!r}, expected a number of bytes")
    try:
        infer, rows = oip.read(request.body, None if length is None else int(length), form)
        if infer.tensors or len(form.features) > values_max:
            overload.check_size(infer.tensors or rows, values_max)
    except InputFault:
        if model.observer is not None:
            model.observer.refused(1)
        raise
    waited_s = time.monotonic() - request.arrived_s if request.arrived_s else 0.0
    if infer.timeout_us and waited_s * 1e6 > infer.timeout_us:
        raise _Away(Reason.LATE, 0)
    outputs = model.infer(rows)
    own = tap.claim(model)
    headers = ((ID_HEADER, own),) if own else ()
    body, json_size = oip.encode(model.manifest, infer, outputs, own)
    if json_size is None:
        return Response(200, body, headers=headers)
    headers = (*headers, (oip.HEADER_LENGTH, str(json_size)))
    return Response(200, body, "application/octet-stream", headers)


_WORK: dict[str, Work] = {"infer": _infer, "predict": _predict}
