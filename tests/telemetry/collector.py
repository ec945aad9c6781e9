"""A collector of traces: a server that receives them by OTLP over HTTP."""

import gzip
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from flowkit import Client, Coordinator
from flowkit.worker import RunContext, Worker, handler
from flowkit_telemetry._config import TelemetryConfig
from flowkit_telemetry._provider import exporting_provider
from tests.builders import graph, node

WITHIN_SEC = 60
POLL_SEC = 0.01
"""Interval at which the server checks whether it has to end."""
PATH = "/v1/traces"
DECOMPRESSIONS = {None: bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}


class Collector(ThreadingHTTPServer):
    """Server that keeps the spans that it receives."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.compressions: list[str | None] = []
        """Those of the requests so far."""
        self.refusals = 0
        """Number of the next requests that fail for a moment."""

    @property
    def options(self) -> dict[str, Any]:
        """The ``options.telemetry`` of the processes that send their spans here."""
        return {"traces_endpoint": f"http://127.0.0.1:{self.server_port}{PATH}"}

    def flush(self) -> None:
        """Return when this has the spans that have ended in this process."""
        assert exporting_provider(TelemetryConfig(**self.options)).force_flush()

    def one(self, name: str, **attributes: Any) -> Any:
        """Return the only span with a name and with these attributes of FlowKit."""
        wanted = {f"flowkit.{key.replace('_', '.')}": value for key, value in attributes.items()}
        (span,) = [
            span
            for span in self.spans
            if span.name == name and wanted.items() <= _attributes(span).items()
        ]
        return span


def _attributes(span: Any) -> dict[str, Any]:
    return {one.key: one.value.int_value or one.value.string_value for one in span.attributes}


class _Request(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        compression = self.headers.get("Content-Encoding")
        self.server.compressions.append(compression)
        if self.server.refusals:
            self.server.refusals -= 1
            self._answer(503)
            return
        body = DECOMPRESSIONS[compression](body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.services.update(
                one.value.string_value
                for one in resource.resource.attributes
                if one.key == "service.name"
            )
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self._answer(200 if self.path == PATH else 404)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Retry-After", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever, args=(POLL_SEC,))
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


# ---------------------------------------------------------------- one trace


@handler("flaky")
async def flaky(item: Any, ctx: RunContext) -> None:
    if ctx.attempt == 1:
        raise RuntimeError("bad luck")


CHILD = graph(node("inner", "flaky", retry_policy={"max": 1, "backoff_sec": 0.01}))
FLOW = graph(node("child", "subflow", io={"graph": CHILD}))


async def check_one_trace(
    collector: Collector, coordinator: Coordinator, worker: Worker, client: Client
) -> None:
    """Run a task with a child task that retries a node, and find all of it in one trace."""
    async with coordinator, worker, client:
        task_id = await client.create_task(graph=FLOW)
        view = await client.wait(task_id, timeout=WITHIN_SEC)
        child_id = view.nodes["child"].child_task_id
    collector.flush()
    assert view.status == "finished"
    submit = collector.one("submit", task_id=task_id)
    task = collector.one("task", task_id=task_id)
    child = collector.one("task", task_id=child_id)
    first = collector.one("attempt flaky", node_id="inner", node_attempt=1)
    second = collector.one("attempt flaky", node_id="inner", node_attempt=2)
    assert {span.trace_id for span in collector.spans} == {submit.trace_id}
    above = {span.span_id: span.parent_span_id for span in collector.spans}
    assert above == {
        submit.span_id: b"",
        task.span_id: submit.span_id,
        child.span_id: task.span_id,
        first.span_id: child.span_id,
        second.span_id: child.span_id,
    }
    assert [link.span_id for link in second.links] == [first.span_id]
    assert [link.span_id for link in child.links] == [task.span_id]
    assert collector.services == {"flowkit"}
