"""OpenTelemetry traces, as an option: what a request or a round took, and what it was part of.

Guards: without the extra ``otel`` or without an address nothing is loaded, and a span costs one
look at a global. Spans carry names of routes, counts and ids, never rows, tokens or queries.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from edge_contract.errors import MachineFault

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""As the OpenTelemetry specification names them ("OTLP exporter configuration")."""
FLUSH_MS = 3_000
"""What is not delivered so long after the end is dropped: a collector that hangs holds nobody."""

_tracer: Any = None
_NOTHING = nullcontext()


class _Request:
    """A request that is answered; nothing where nobody traces."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def answered(self, route: str, status: int) -> None:
        """Its route and its status (OpenTelemetry, semantic conventions for HTTP servers)."""
        if self._span is None:
            return
        self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        name = self._span.attributes.get("http.request.method", "")
        self._span.update_name(f"{name} {route}")


_NO_REQUEST = _Request()


def span(name: str, **attributes: str | int | float) -> AbstractContextManager[Any]:
    """A span around the ``with`` block; nothing where nobody traces."""
    if _tracer is None:
        return _NOTHING
    return _tracer.start_as_current_span(name, attributes=attributes)  # type: ignore[no-any-return]


@contextlib.contextmanager
def request(method: str, parent: str) -> Iterator[_Request]:
    """A span of an HTTP request. ``parent``: its ``traceparent`` (W3C Trace Context), or ""."""
    if _tracer is None:
        yield _NO_REQUEST
        return
    from opentelemetry.propagate import extract  # noqa: PLC0415 (an extra)
    from opentelemetry.trace import SpanKind  # noqa: PLC0415

    with _tracer.start_as_current_span(
        method,
        context=extract({"traceparent": parent} if parent else {}),
        kind=SpanKind.SERVER,
        attributes={"http.request.method": method},
    ) as found:
        yield _Request(found)


@contextlib.contextmanager
def exporting(fleet: str, exporter: SpanExporter | None = None) -> Iterator[bool]:
    """Trace within the ``with`` block, where the environment names an address.

    Args:
        exporter: where spans go; None: OTLP over HTTP to the address in the environment.

    Yields whether anything is traced. Raises MachineFault for an address without the extra.
    """
    global _tracer  # noqa: PLW0603 - one process, one tracer; off is the default
    if exporter is None and not any(os.environ.get(name) for name in ENDPOINTS):
        yield False
        return
    provider = _provider(fleet, exporter)
    _tracer = provider.get_tracer("edge_fleet", version("edge-pack"))
    try:
        yield True
    finally:
        _tracer = None
        provider.force_flush(FLUSH_MS)
        provider.shutdown()


def _provider(fleet: str, exporter: SpanExporter | None) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MachineFault(
            f"traces need a package that is not installed here: {error.name}",
            advice="Install it: pip install 'edge-pack[otel]', or unset OTEL_EXPORTER_OTLP_*.",
        ) from error
    resource = Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", "edge-fleet"),
            "service.version": version("edge-pack"),
            "edge.fleet": fleet,
        }
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    goes_to = exporter or OTLPSpanExporter(timeout=FLUSH_MS / 1000)
    provider.add_span_processor(BatchSpanProcessor(goes_to))
    return provider
