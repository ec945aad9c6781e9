"""The cost of metrics and traces: coordinator and worker in one process; nodes do nothing.

    python -m benchmarks.telemetry                 every workload, one JSON object a line
    python -m benchmarks.telemetry chain           only this one
    python -m benchmarks.telemetry --servers       on a real Kafka and MongoDB, which it starts

Processes without telemetry, with metrics, with traces of which every one or every tenth is sampled,
and with metrics and all traces run in turns, and the figures are medians. ``ratio`` is the time
compared with that without telemetry in the same turn; ``processor`` is the same by processor time,
which other programs of the machine disturb less, and ``least`` that of the least turns. The spans
are encoded for OTLP in the process, and dropped instead of sent. For comparison, the last lines
show what OpenTelemetry's SDK alone takes for a span like that of an attempt, without and with its
encoding.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Tracer

from benchmarks.embedded import ROLE, chain, fan, noop, run, say
from benchmarks.sqlite_overhead import Cost, cost
from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._runtime.garbage_collection import rare_collections
from flowkit.worker import Worker
from flowkit_telemetry._config import TelemetryConfig
from flowkit_telemetry._process_metrics import ProcessMetrics
from flowkit_telemetry._provider import Provider
from flowkit_telemetry._span_encoding import encoded
from flowkit_telemetry._traces import Traces
from tests.servers.kafka import KafkaServer
from tests.servers.mongod import MongoServers

LENGTH = 10
WIDTH = 1_000
WORKLOADS: Mapping[str, tuple[Callable[[], dict[str, Any]], int, int]] = {
    "chain": (lambda: chain(LENGTH), LENGTH, 20),
    "fan": (lambda: fan(WIDTH), WIDTH + 2, 1),
}
"""The graph of a task, the number of its nodes, and how many tasks run in a turn."""


class Encoding(SpanExporter):
    """Exporter that encodes spans and sends nothing."""

    def __init__(self, encode: Callable[[Sequence[ReadableSpan]], object]) -> None:
        self._encode = encode

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._encode(spans)
        return SpanExportResult.SUCCESS


def tracing(sample_ratio: float = 1.0) -> Provider:
    found = Provider(TelemetryConfig(sample_ratio=sample_ratio))
    found.add_span_processor(BatchSpanProcessor(Encoding(encoded)))
    return found


Addresses = tuple[str, str, str]
"""Those of a store and a bus, and a namespace."""


def embedded_at(address: str, number: int) -> Addresses:
    """Return addresses in memory or in a file, for one kind of telemetry."""
    return address.format(number), address.format(number), "telemetry"


def servers_at(kafka: str, mongo: str, number: int) -> Addresses:
    return mongo.replace("/?", f"/telemetry{number}?"), f"kafka://{kafka}", f"telemetry{number}"


async def open_all(
    stack: AsyncExitStack, place: Callable[[int], Addresses]
) -> dict[str, Coordinator]:
    """Open a coordinator and a worker for each kind of telemetry."""
    traces = Traces(tracing())
    kinds: dict[str, list[object]] = {
        "none": [],
        "metrics": [ProcessMetrics()],
        "traces": [traces],
        "every tenth trace": [Traces(tracing(0.1))],
        "both": [ProcessMetrics(), traces],
    }
    opened = {}
    for number, (kind, plugins) in enumerate(kinds.items()):
        db, bus, namespace = place(number)
        coordinating = CoordinatorConfig(bus=bus, namespace=namespace, worker_types=[ROLE])
        working = WorkerConfig(bus=bus, namespace=namespace, max_concurrency=256)
        opened[kind] = await stack.enter_async_context(
            Coordinator(db=db, cfg=coordinating, plugins=plugins)
        )
        await stack.enter_async_context(
            Worker(db=db, cfg=working, handlers={ROLE: noop}, plugins=plugins)
        )
    return opened


async def measure(title: str, place: Callable[[int], Addresses], name: str, rounds: int) -> None:
    graph, nodes, tasks = WORKLOADS[name]

    async def work(coordinator: Coordinator) -> None:
        for _ in range(tasks):
            await run(coordinator, graph())

    async with AsyncExitStack() as stack:
        opened = await open_all(stack, place)
        costs: dict[str, list[Cost]] = {kind: [] for kind in opened}
        for turn in range(rounds + 1):
            for kind, coordinator in opened.items():
                one = await cost(partial(work, coordinator))
                if turn:  # the first warms up
                    costs[kind].append(one)
    for kind, some in costs.items():
        turns = list(zip(some, costs["none"], strict=True))
        say(
            f"{name}, {title}, {kind}",
            microseconds_a_node=statistics.median(one.processor for one in some)
            / nodes
            / tasks
            * 1e6,
            ratio=statistics.median(one.wall / none.wall for one, none in turns),
            processor=statistics.median(one.processor / none.processor for one, none in turns),
            least=min(one.processor for one in some) / min(none.processor for _, none in turns),
        )


async def spans_of_the_sdk(rounds: int) -> None:
    """Measure spans without FlowKit."""
    attributes: dict[str, str | int] = {
        "flowkit.task.id": "0123456789abcdef0123456789abcdef",
        "flowkit.node.id": "node",
        "flowkit.node.role": ROLE,
        "flowkit.node.attempt": 1,
        "flowkit.worker.id": "worker",
    }

    dropping, encoding = Provider(TelemetryConfig()), Provider(TelemetryConfig())
    encoding.add_span_processor(
        BatchSpanProcessor(Encoding(lambda spans: encode_spans(spans).SerializeToString()))
    )
    for title, found in (("dropped", dropping), ("encoded", encoding)):
        tracer = found.get_tracer("benchmark")

        async def spans(tracer: Tracer = tracer, found: Provider = found) -> None:
            for _ in range(WIDTH):
                tracer.start_span("attempt", Context(), SpanKind.CONSUMER, attributes).end()
            found.force_flush()

        some = [await cost(spans) for _ in range(rounds)]
        middle = statistics.median(one.processor for one in some)
        say(f"span of the SDK, {title}", microseconds=middle / WIDTH * 1e6)


async def embedded(names: Sequence[str], rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="flowkit-telemetry-") as folder:
        places = {
            "memory": "memory://telemetry-{}",
            "file": f"sqlite:///{Path(folder).as_posix()}/{{}}.db",
        }
        for name in names:
            for title, place in places.items():
                await measure(title, partial(embedded_at, place), name, rounds)
    await spans_of_the_sdk(rounds)


async def on_servers(kafka: str, mongo: str, names: Sequence[str], rounds: int) -> None:
    for name in names:
        await measure("servers", partial(servers_at, kafka, mongo), name, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--servers", action="store_true", help="on a real Kafka and MongoDB")
    arguments = parser.parse_args()
    names = arguments.workloads or list(WORKLOADS)
    with rare_collections():
        if not arguments.servers:
            asyncio.run(embedded(names, arguments.rounds))
        else:
            with KafkaServer.start() as kafka, MongoServers() as mongo:
                asyncio.run(on_servers(kafka.address, mongo.address, names, arguments.rounds))
