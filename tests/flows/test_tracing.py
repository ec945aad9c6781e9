"""Headers of messages: their format version, and the trace of their task."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from flowkit import Coordinator, hookimpl
from flowkit.messages import TaskTouched, decode
from flowkit.protocols import Delivery, Message
from flowkit.tracing import TraceContext, current_trace, trace_from, use_trace
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryBus
from tests.builders import plugin

TRACE = TraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=opaque")
OTHER = TraceContext("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
TOPICS = ("cmd.work", "events", "control")


def graph(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {
        "nodes": [
            {"node_id": f"n{index}", "type": "work", **node} for index, node in enumerate(nodes)
        ]
    }


def seen() -> dict[str, str] | None:
    """Return the current trace, as the result of a node."""
    trace = current_trace()
    return (
        None
        if trace is None
        else {"traceparent": trace.traceparent, "tracestate": trace.tracestate}
    )


@handler("work")
async def work(item: Any) -> Any:
    return seen()


class Listening(InMemoryBus):
    """A bus that records published messages."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[Message] = []

    async def publish(self, messages: Any) -> Any:
        self.published += messages
        return await super().publish(messages)

    def headers(self, topic: str) -> list[Mapping[str, bytes]]:
        return [
            message.headers for message in self.published if message.topic == f"flowkit.{topic}"
        ]


@pytest.fixture
def bus() -> Listening:
    return Listening()


@asynccontextmanager
async def cluster_on(bus: Listening, *handlers: Any, **fields: Any) -> AsyncIterator[Cluster]:
    async with Cluster(bus=bus, handlers=list(handlers) or [work], **fields) as cluster:
        yield cluster


# ---------------------------------------------------------------- on the bus


@handler("numbers")
async def numbers(item: Any) -> AsyncIterator[dict[str, int]]:
    for number in range(2):
        yield {"n": number}


@handler("work")
async def read(item: Any) -> None:
    """Read the artifacts that another node stores."""


STREAM = {
    "nodes": [
        {"node_id": "a", "type": "numbers"},
        {
            "node_id": "b",
            "type": "work",
            "depends_on": ["a"],
            "io": {
                "start_when": "first_batch",
                "input_inline": {"input_adapter": "pull.from_artifacts", "input_args": {}},
            },
        },
    ]
}


async def test_without_a_trace_every_message_says_its_version_and_no_more(bus: Listening) -> None:
    async with cluster_on(bus, numbers, read) as cluster:
        await cluster.run(STREAM)
    for topic in TOPICS:
        assert bus.headers(topic)
        assert all(headers == {"flowkit-version": b"1"} for headers in bus.headers(topic))


async def test_the_trace_of_a_submission_is_on_every_message_of_its_task(bus: Listening) -> None:
    expected = {
        "flowkit-version": b"1",
        "traceparent": TRACE.traceparent.encode(),
        "tracestate": b"vendor=opaque",
    }
    async with cluster_on(bus, numbers, read) as cluster:
        with use_trace(TRACE):
            task_id = await cluster.client.create_task(graph=STREAM)
        await cluster.client.wait(task_id)
    for topic in TOPICS:
        assert bus.headers(topic)
        assert all(headers == expected for headers in bus.headers(topic))


async def test_a_verb_that_changes_nothing_still_gives_a_hint(bus: Listening) -> None:
    async with cluster_on(bus) as cluster:
        task_id = await cluster.client.create_task(graph=graph({}))
        await cluster.client.wait(task_id)
        bus.published.clear()
        await cluster.client.cancel(task_id)
    assert bus.headers("events") == [{"flowkit-version": b"1"}]


async def test_a_cancel_belongs_to_the_trace_of_its_task(bus: Listening) -> None:
    @handler("work")
    async def hang(item: Any, ctx: RunContext) -> None:
        await ctx.cancellable(ctx.clock.sleep(1e6))

    async with cluster_on(bus, hang) as cluster:
        with use_trace(OTHER):
            task_id = await cluster.client.create_task(graph=graph({}))
        async for event in cluster.client.watch(task_id):
            if event.node_id and event.status == "running":
                await cluster.client.cancel(task_id)
    for topic in TOPICS:
        assert bus.headers(topic)
        assert all(
            trace_from(headers) == OTHER and "tracestate" not in headers
            for headers in bus.headers(topic)
        )


async def test_what_a_coordinator_is_asked_for_belongs_to_the_trace_of_the_task(
    bus: Listening,
) -> None:
    async with cluster_on(bus) as cluster:
        coordinator = cluster.coordinators[0]
        with use_trace(OTHER):
            await coordinator.create_task(graph=graph({}), task_id="chosen")
        # It sends the command itself, and needs no hint.
        assert [message.topic for message in bus.published] == ["flowkit.cmd.work"]
        await coordinator.pause("chosen")
        await coordinator.resume("chosen")
        await coordinator.wait("chosen")
    hints = [message for message in bus.published if isinstance(decode(message.value), TaskTouched)]
    assert len(hints) == 2
    assert {trace_from(message.headers) for message in bus.published} == {OTHER}


async def test_subscribers_get_the_headers(bus: Listening) -> None:
    found: list[Delivery] = []
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(cluster_on(bus))
        commands = await stack.enter_async_context(
            bus.subscribe(["flowkit.cmd.work"], group="lookers-on")
        )
        with use_trace(TRACE):
            await cluster.client.create_task(graph=graph({}))
        found += await commands.receive(max_messages=1)
    assert [trace_from(delivery.message.headers) for delivery in found] == [TRACE]


# ---------------------------------------------------------------- in handlers


def plain(item: Any) -> Any:
    return seen()


async def coroutine(item: Any) -> Any:
    return seen()


@pytest.mark.parametrize("function", [plain, coroutine])
async def test_a_handler_runs_in_the_trace_of_its_task(
    bus: Listening, function: Callable[..., Any]
) -> None:
    async with cluster_on(bus, handler("work")(function)) as cluster:
        with use_trace(TRACE):
            task_id = await cluster.client.create_task(graph=graph({}, {"depends_on": ["n0"]}))
        view = await cluster.client.wait(task_id)
    assert view.result == {"n1": {"traceparent": TRACE.traceparent, "tracestate": "vendor=opaque"}}


async def test_a_task_that_a_handler_submits_goes_on_with_the_trace(bus: Listening) -> None:
    @handler("submit")
    async def submit(item: Any) -> str:
        return await cluster.client.create_task(graph=graph({}))

    async with cluster_on(bus, submit, work) as cluster:
        with use_trace(TRACE):
            first = await cluster.client.create_task(graph=graph({"type": "submit"}))
        result = (await cluster.client.wait(first)).result
        assert result is not None
        view = await cluster.client.wait(str(result["n0"]))
    assert view.result == {"n0": {"traceparent": TRACE.traceparent, "tracestate": "vendor=opaque"}}


async def test_a_handler_of_a_task_without_a_trace_does_not_get_that_of_its_worker(
    bus: Listening,
) -> None:
    async with Cluster(bus=bus, workers=0, handlers=[]) as cluster:
        with use_trace(OTHER):
            await cluster.add_worker([work])
        task_id = await cluster.client.create_task(graph=graph({}))
        view = await cluster.client.wait(task_id)
    assert view.result == {"n0": None}


async def test_runs_side_by_side_have_each_their_own_trace(bus: Listening) -> None:
    @handler("work")
    async def slow(item: Any, ctx: RunContext) -> Any:
        await ctx.clock.sleep(10)
        return seen()

    async with cluster_on(bus, slow) as cluster:
        ids = []
        for trace in (TRACE, None, OTHER):
            with use_trace(trace):
                ids.append(await cluster.client.create_task(graph=graph({})))
        results = [(await cluster.client.wait(task_id)).result for task_id in ids]
    assert [result and result["n0"] and result["n0"]["traceparent"] for result in results] == [  # type: ignore[index, call-overload]
        TRACE.traceparent,
        None,
        OTHER.traceparent,
    ]


class Functions:
    @hookimpl
    def flowkit_register_functions(self, register: Any) -> None:
        async def look(ctx: Any) -> Any:
            return seen()

        register("look", look)


async def test_a_coordinator_function_runs_in_the_trace_of_its_task(bus: Listening) -> None:
    async with cluster_on(bus, plugins=[Functions()]) as cluster:
        with use_trace(TRACE):
            task_id = await cluster.client.create_task(
                graph=graph({"type": "coordinator_fn", "io": {"fn": "look"}})
            )
        with use_trace(OTHER):
            view = await cluster.client.wait(task_id)
    assert view.result == {"n0": {"traceparent": TRACE.traceparent, "tracestate": "vendor=opaque"}}


async def test_a_coordinator_that_never_saw_the_submission_goes_on_with_its_trace(
    bus: Listening,
) -> None:
    async with Cluster(bus=bus, coordinators=0, handlers=[work]) as cluster:
        with use_trace(TRACE):
            task_id = await cluster.client.create_task(graph=graph({}))
        coordinator: Coordinator = await cluster.add_coordinator()
        view = await coordinator.wait(task_id)
    assert view.result == {"n0": {"traceparent": TRACE.traceparent, "tracestate": "vendor=opaque"}}


# ---------------------------------------------------------------- the form


def test_a_trace_is_current_within_and_not_behind() -> None:
    assert current_trace() is None
    with use_trace(TRACE):
        with use_trace(None):
            assert current_trace() is None
        assert current_trace() == TRACE
    assert current_trace() is None


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "garbage",
        TRACE.traceparent.upper(),
        TRACE.traceparent + "\n",
        TRACE.traceparent + "-00",
        "ff" + TRACE.traceparent[2:],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
    ],
)
def test_a_traceparent_of_a_wrong_form_counts_for_none(wrong: str) -> None:
    assert trace_from({"traceparent": wrong, "tracestate": "a=b"}) is None
    assert trace_from({"traceparent": wrong.encode()}) is None
    with pytest.raises(ValueError, match="not a traceparent"):
        TraceContext(wrong)


@pytest.mark.parametrize("wrong", ["a=\n", "ä=1", "x" * 513])
def test_a_tracestate_of_a_wrong_form_is_left_out(wrong: str) -> None:
    assert trace_from({"traceparent": TRACE.traceparent, "tracestate": wrong}) == TraceContext(
        TRACE.traceparent
    )
    with pytest.raises(ValueError, match="not a tracestate"):
        TraceContext(TRACE.traceparent, wrong)


def test_headers_are_text_or_bytes_or_not_there() -> None:
    assert trace_from({"traceparent": TRACE.traceparent, "tracestate": TRACE.tracestate}) == TRACE
    assert (
        trace_from({"traceparent": TRACE.traceparent.encode(), "tracestate": b"vendor=opaque"})
        == TRACE
    )
    assert trace_from({"traceparent": b"\xff\xfe"}) is None
    assert trace_from({}) is None


# ---------------------------------------------------------------- traces of plugins


async def test_a_plugin_names_the_trace_of_a_submission() -> None:
    asked: list[tuple[str, str | None]] = []

    def name(task_id: str, pipeline: str | None) -> TraceContext:
        asked.append((task_id, pipeline))
        return TRACE

    tracer = plugin("tracer", flowkit_trace_submission=name)
    async with Cluster(handlers=[work], plugins=[tracer]) as cluster:
        with use_trace(OTHER):
            view = await cluster.run(graph({}), pipeline="shop")
    assert asked == [(view.id, "shop")]
    assert view.nodes["n0"].result["traceparent"] == TRACE.traceparent


@pytest.mark.parametrize("answer", [None, "00-1-2-3", RuntimeError("wrong")], ids=repr)
async def test_without_a_trace_of_a_plugin_the_current_one_counts(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def name(task_id: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    tracer = plugin("tracer", flowkit_trace_submission=name)
    async with Cluster(handlers=[work], plugins=[tracer]) as cluster:
        with use_trace(OTHER):
            view = await cluster.run(graph({}))
    assert view.nodes["n0"].result["traceparent"] == OTHER.traceparent
    expected = answer is not None
    assert ("Plugin tracer raised in flowkit_trace_submission" in caplog.text) == expected


async def test_observers_are_called_in_the_trace_of_the_task() -> None:
    seen: list[TraceContext | None] = []
    observer = plugin(
        "observer",
        flowkit_task_changed=lambda after: seen.append(current_trace()),
        flowkit_node_changed=lambda after: seen.append(current_trace()),
    )
    child = graph({"type": "subflow", "io": {"graph": graph({})}})
    async with Cluster(handlers=[work], plugins=[observer]) as cluster:
        with use_trace(TRACE):
            await cluster.run(child)
    assert set(seen) == {TRACE}


def test_the_parts_of_a_trace_context_are_those_of_its_header() -> None:
    assert TRACE.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert TRACE.span_id == "00f067aa0ba902b7"
    assert TRACE.sampled
    assert not OTHER.sampled
