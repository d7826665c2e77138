"""Traces reach a receiver of OTLP, hold no secrets, and are nothing where nobody asks for them."""

import gzip
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from fleet_kit import until

from edge_contract.errors import MachineFault
from edge_fleet import tracing
from edge_fleet.api.server import Listen, running
from edge_fleet.store.sql import SqlStore

pytest.importorskip("opentelemetry.sdk", reason="no opentelemetry-sdk installed (extra otel)")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[Span]]]:
    """A receiver of OTLP over HTTP (opentelemetry-proto, binary): its address and its spans."""
    spans: list[Span] = []

    class Receives(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                named = {x.key: x.value.string_value for x in resource.resource.attributes}
                assert named["service.name"] == "edge-fleet" and named["edge.fleet"]
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receives)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_request_is_a_span_of_its_route_under_the_callers_trace(store: SqlStore) -> None:
    kept = InMemorySpanExporter()
    with tracing.exporting("plant", kept) as on:
        assert on
        with running(store, Listen("127.0.0.1", 0)) as url:
            for path in ("/health", "/api/v1/devices/pi-geheim?x=geheim"):
                asked = urllib.request.Request(url + path, headers={"traceparent": PARENT})
                try:
                    urllib.request.urlopen(asked, timeout=60).read()
                except urllib.error.HTTPError as refused:
                    assert refused.code == 401
                    refused.close()
    spans = {each.name: each for each in kept.get_finished_spans()}
    assert set(spans) == {"GET /health", "GET /api/v1/devices/{device}"}
    one = spans["GET /api/v1/devices/{device}"]
    assert format(one.context.trace_id, "032x") == PARENT.split("-")[1]
    assert one.parent is not None and format(one.parent.span_id, "016x") == PARENT.split("-")[2]
    assert one.attributes == {
        "http.request.method": "GET",
        "http.route": "/api/v1/devices/{device}",
        "http.response.status_code": 401,
    }
    assert "geheim" not in one.to_json()


def test_without_an_address_nothing_is_loaded_and_nothing_is_made(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom edge_fleet import tracing\n"
        "with tracing.exporting('plant') as on, tracing.span('x', n=1):\n    assert not on\n"
        "assert tracing.span('x') is tracing.span('y')\n"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=env)


def test_an_address_without_the_extra_says_which_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tracing.ENDPOINTS[0], "http://127.0.0.1:9/v1/traces")
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MachineFault, match="not installed") as caught, tracing.exporting("plant"):
        pass
    assert "edge-pack[otel]" in str(caught.value)


def test_serve_sends_its_batches_and_rounds_to_a_receiver(
    tmp_path: Path, receiver: tuple[str, list[Span]]
) -> None:
    url, spans = receiver
    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_fleet", "serve", "--fleet", "plant", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=env,
    )  # fmt: skip
    assert process.stdout is not None
    broker = next(line.split()[1] for line in process.stdout if line.startswith("broker "))
    next(line for line in process.stdout if line.startswith("collecting"))
    from edge_contract import broker_url
    from edge_contract.ports.mqtt import Link, LinkConfig
    from edge_contract.topics import Topics

    link = Link(LinkConfig(broker_url.parse(broker), "pi-1"))
    link.start(60)
    link.publish(Topics("plant").telemetry("pi-1"), b"no record").wait(60)
    until(lambda: {"collect", "rollouts"} <= {each.name for each in spans}, "spans", 60)
    link.stop()
    process.terminate()
    process.communicate(timeout=120)
    assert process.returncode == 0
    batch = next(each for each in spans if each.name == "collect")
    assert {x.key: x.value.int_value for x in batch.attributes}["messages"] >= 1
