"""What each path answers: the Open Inference Protocol, ``/predict``, ``/metrics``, a description.

Guards: every request gets one answer and is counted once; who may not ask learns nothing; a
model is asked in the loop only while it is known to be quick.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from edge_agent.doors import oip, oip_rows
from edge_agent.doors.http import describe, families, metrics
from edge_agent.doors.http.callers import check_caller
from edge_agent.doors.http.exchange import Lane, Request, Response
from edge_agent.doors.http.faults import StatusFault, answer_of, check_method, fault_of
from edge_agent.doors.http.lane import INLINE_MAX_BYTES, INLINE_MAX_NS, Known, RowLane
from edge_agent.doors.http.threads import Threads
from edge_agent.doors.http.work import WORK, Work, asks_time, infer, timeout_s
from edge_agent.live import Live
from edge_agent.model import Model
from edge_agent.overload import Rules
from edge_contract import messages
from edge_contract.messages import Label, LabelsTaken

LABELS_INLINE_BYTES = 4 * 1024
"""Of labels; more are taken in a thread."""
KNOWN_MAX = 256
PATH_KEPT_MAX = 256
SERVER = "edge-agent"
EXTENSIONS = ("binary_tensor_data",)

_encode = msgspec.json.Encoder().encode
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(infer|ready))?")
_PREDICT = re.compile(r"/predict/([^/]+)")
_FEEDBACK = re.compile(r"/feedback/([^/]+)")

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
        self._threads = Threads(config.rules, config.threads)
        self._known: dict[tuple[str, str], Known] = {}
        self._counts = {200: 0}
        self._latencies = metrics.Latencies()

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.close()

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
        work = WORK.get(place[2]) if place is not None else None
        if place is None or work is None or request.method != "POST" or asks_time(request):
            return None
        try:
            check_caller(request, self._config.token)
        except StatusFault:
            return None
        general = functools.partial(self._at_once, request._replace(body=b""), *place[:2], work)
        if work is not infer or oip.HEADER_LENGTH in request.headers:
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
        return self.counted(answer_of(status, what), time.perf_counter_ns())

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
        check_caller(request, self._config.token)
        place = _place(path) if len(path) <= PATH_KEPT_MAX else _place.__wrapped__(path)
        if place is not None:
            return self._model(request, *place)
        if match := _FEEDBACK.fullmatch(path):
            return self._feedback(request, unquote(match[1]))
        page = self._pages.get(path)
        if page is None:
            raise StatusFault(404, f"there is nothing at {path[:120]}; GET / lists what there is")
        check_method(request, "POST" if path == "/v2/repository/index" else "GET")
        return page()

    def _feedback(self, request: Request, name: str) -> Response | Awaitable[Response]:
        """Labels for answers that were given earlier."""
        check_method(request, "POST")
        if self._labels is None:
            raise StatusFault(404, "this agent takes no labels: [feedback] keep is 0 in agent.toml")
        self._seat(name)
        take, body = self._labels, request.body

        def work() -> Response:
            return Response(200, _encode(take(name, messages.decode_labels(body))))

        return (
            work()
            if len(body) <= LABELS_INLINE_BYTES
            else self._threads.answer(name, request, work)
        )

    @property
    def _pages(self) -> Mapping[str, Callable[[], Response]]:
        return {
            "/": lambda: Response(200, describe.page(self._live()), "text/html; charset=utf-8"),
            "/openapi.json": lambda: Response(200, _encode(self._document())),
            "/metrics": lambda: Response(200, self._figures(), metrics.CONTENT_TYPE),
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
        work = WORK.get(action)
        check_method(request, "POST" if work is not None else "GET")
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
            raise StatusFault(503, "too many connections")
        seat = self._seat(name)
        within_s = timeout_s(request) if asks_time(request) else 0.0
        if self._is_quick(name, version, request.body):
            return self._timed(seat, request, version, work)
        request = request._replace(arrived_s=time.monotonic())
        serve = functools.partial(self._timed, seat, request, version, work)
        return self._threads.answer(name, request, serve, within_s)

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
            oip_rows.form_of(model.manifest),
            oip_rows.RowWriter(model.manifest, model.tensors),
        )
        return known

    def _seat(self, name: str) -> Live:
        seat = self._models.get(name)
        if seat is None or seat.model is None:
            known = ", ".join(sorted(self._live())) or "none"
            raise StatusFault(404, f"this device has no model {name[:120]!r}; it has: {known}")
        return seat

    def _live(self) -> dict[str, Model]:
        found = {name: seat.model for name, seat in list(self._models.items())}
        return {name: model for name, model in found.items() if model is not None}

    # -- papers ------------------------------------------------------------------------------

    def _document(self) -> dict[str, Any]:
        return describe.document(
            self._live(), self._config.version, bearer=bool(self._config.token)
        )

    def _figures(self) -> bytes:
        own = families.families_of_door(self._counts, self._threads.counts, self._live())
        took = self._latencies.family(
            "edge_agent_http_request_seconds", "From a whole request to its answer."
        )
        return metrics.render([*own, *self._families()], took)


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
