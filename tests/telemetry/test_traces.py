"""Spans of submissions, tasks, attempts and batches."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry import trace as otel
from opentelemetry.trace import StatusCode

from flowkit import Client, Schedule
from flowkit.cli._log_output import JsonLines
from flowkit.tracing import TraceContext, current_trace, use_trace
from flowkit.worker import RunContext, handler
from flowkit_telemetry._span_ids import span_id_of_attempt
from flowkit_testing import Cluster
from tests.builders import ONE, TWO, graph, node, pages, pull, work
from tests.telemetry.spans import Recorded, links_of, parent_id, span_id

OUTER = TraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=opaque")
UNSAMPLED = TraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")


@handler("flaky", retry_policy={"max": 1, "backoff_sec": 0.01})
async def flaky(item: Any, ctx: RunContext) -> None:
    if ctx.attempt == 1:
        raise RuntimeError("the password is hunter2")


@handler("read")
async def read(item: Any) -> Any:
    return item


CHILD = node("child", "subflow", io={"graph": ONE})


async def test_a_task_and_its_attempts_are_below_its_submission() -> None:
    seen = Recorded()
    async with Cluster(handlers=[work], plugins=[seen.plugin]) as cluster:
        view = await cluster.run(TWO)
    submit, task = seen.one("submit"), seen.one("task", task_id=view.id)
    assert submit.parent is None
    assert parent_id(task) == span_id(submit)
    assert len({span.context.trace_id for span in seen.all()}) == 1
    for node_id in view.nodes:
        attempt = seen.one("attempt work", node_id=node_id, node_attempt=1)
        assert parent_id(attempt) == span_id(task)
        assert links_of(attempt) == []
    assert task.attributes["flowkit.task.status"] == "finished"
    assert task.status.status_code is StatusCode.UNSET
    assert task.end_time >= task.start_time


async def test_an_attempt_that_repeats_an_earlier_one_has_a_link_to_it() -> None:
    seen = Recorded()
    async with Cluster(handlers=[flaky], plugins=[seen.plugin]) as cluster:
        await cluster.run(graph(node("a", "flaky", retry_policy={"max": 1})))
    first = seen.one("attempt flaky", node_attempt=1)
    second = seen.one("attempt flaky", node_attempt=2)
    assert links_of(second) == [span_id(first)]
    assert first.status.status_code is StatusCode.ERROR
    assert first.attributes["error.type"] == "RuntimeError"
    assert second.status.status_code is StatusCode.UNSET


async def test_spans_contain_no_texts_of_errors_and_no_data() -> None:
    seen = Recorded()
    async with Cluster(handlers=[flaky], plugins=[seen.plugin]) as cluster:
        await cluster.run(
            graph(node("a", "flaky", retry_policy={"max": 0})), params={"key": "hunter2"}
        )
    assert seen.one("task").status.status_code is StatusCode.ERROR
    assert "hunter2" not in "".join(span.to_json() for span in seen.all())


async def test_a_child_task_is_in_the_trace_below_its_parent_and_has_a_link_to_it() -> None:
    seen = Recorded()
    async with Cluster(handlers=[work], plugins=[seen.plugin]) as cluster:
        view = await cluster.run(graph(CHILD))
        child_id = view.nodes["child"].child_task_id
    parent, child = seen.one("task", task_id=view.id), seen.one("task", task_id=child_id)
    attempt = seen.one("attempt work", task_id=child_id)
    assert parent_id(child) == span_id(parent)
    assert links_of(child) == [span_id(parent)]
    assert parent_id(attempt) == span_id(child)
    assert attempt.context.trace_id == parent.context.trace_id
    assert len(seen.named("submit")) == 1


async def test_a_submission_in_a_span_of_the_program_is_below_it() -> None:
    seen = Recorded()
    async with Cluster(handlers=[work], plugins=[seen.plugin]) as cluster:
        with seen.provider.get_tracer("shop").start_as_current_span("order") as order:
            await cluster.run(ONE)
    submit = seen.one("submit")
    assert parent_id(submit) == order.get_span_context().span_id
    assert seen.one("attempt work").context.trace_id == order.get_span_context().trace_id


async def test_a_submission_in_a_trace_of_a_request_is_below_it_with_its_state() -> None:
    seen = Recorded()
    async with Cluster(handlers=[work], plugins=[seen.plugin]) as cluster:
        with use_trace(OUTER):
            await cluster.run(ONE)
    submit = seen.one("submit")
    assert f"{submit.context.trace_id:032x}" == OUTER.trace_id
    assert f"{parent_id(submit):016x}" == OUTER.span_id
    assert seen.one("attempt work").context.trace_state == {"vendor": "opaque"}


async def test_a_handler_submits_below_its_attempt_or_its_own_span() -> None:
    seen = Recorded()

    @handler("submits")
    async def submits(item: Any) -> None:
        await cluster.client.create_task(graph=ONE, task_id="plain")
        with seen.provider.get_tracer("shop").start_as_current_span("own"):
            await cluster.client.create_task(graph=ONE, task_id="in own")

    async with Cluster(handlers=[work, submits], plugins=[seen.plugin]) as cluster:
        await cluster.run(graph(node("a", "submits")))
        for task_id in ("plain", "in own"):
            await cluster.client.wait(task_id)
    attempt, own = seen.one("attempt submits"), seen.one("own")
    assert parent_id(own) == span_id(attempt)
    assert not own.parent.is_remote
    assert parent_id(seen.one("submit", task_id="plain")) == span_id(attempt)
    assert parent_id(seen.one("submit", task_id="in own")) == span_id(own)


async def test_a_handler_in_a_thread_has_the_span_of_its_attempt() -> None:
    seen = Recorded()
    found: list[Any] = []

    @handler("thread")
    def thread(item: Any) -> None:
        found.extend([otel.get_current_span().get_span_context().span_id, current_trace()])

    async with Cluster(handlers=[thread], plugins=[seen.plugin]) as cluster:
        await cluster.run(graph(node("a", "thread")))
    attempt = span_id(seen.one("attempt thread"))
    assert found[0] == attempt
    assert found[1].span_id == f"{attempt:016x}"


async def test_each_batch_has_a_span_below_that_of_its_attempt() -> None:
    seen = Recorded()
    async with Cluster(handlers=[pages, read], plugins=[seen.plugin]) as cluster:
        await cluster.run(graph(node("a", "pages", io={"input_inline": 2}), pull("b", "read", "a")))
    spans = seen.named("batch", node_id="b")
    assert [parent_id(span) for span in spans] == [span_id(seen.one("attempt read"))] * 2
    assert len({span.attributes["flowkit.batch.uid"] for span in spans}) == 2


async def test_the_tasks_of_a_schedule_have_a_trace_each() -> None:
    seen = Recorded()
    async with Cluster(handlers=[work], plugins=[seen.plugin]) as cluster:
        await cluster.client.put_schedule(Schedule(id="s", every_sec=60, graph=graph(CHILD)))
        first = await cluster.client.trigger_schedule("s")
        await cluster.client.wait(first)
    (submit,) = seen.named("submit")
    assert {span.context.trace_id for span in seen.all()} == {submit.context.trace_id}
    assert seen.named("attempt work")


async def test_a_task_that_was_submitted_without_traces_has_a_trace_of_its_own() -> None:
    seen = Recorded()
    async with Cluster(handlers=[work], plugins=[seen.plugin]) as cluster:
        plain = Client(store=cluster.store, bus=cluster.bus, clock=cluster.clock)
        async with plain:
            for task_id in ("one", "other"):
                await plain.create_task(graph=ONE, task_id=task_id)
                await plain.wait(task_id)
    one, other = seen.one("task", task_id="one"), seen.one("task", task_id="other")
    assert one.parent is None
    assert one.context.trace_id != other.context.trace_id
    attempt = seen.one("attempt work", task_id="one")
    assert (attempt.context.trace_id, parent_id(attempt)) == (one.context.trace_id, span_id(one))


async def test_a_trace_that_is_not_recorded_has_no_spans() -> None:
    seen = Recorded()
    async with Cluster(handlers=[work], plugins=[seen.plugin]) as cluster:
        with use_trace(UNSAMPLED):
            await cluster.run(graph(CHILD))
    assert seen.all() == ()


async def test_no_new_trace_is_recorded_with_a_ratio_of_zero() -> None:
    seen = Recorded(sample_ratio=0)
    async with Cluster(handlers=[work], plugins=[seen.plugin]) as cluster:
        await cluster.run(graph(CHILD))
    assert seen.all() == ()


async def test_what_a_handler_of_a_trace_that_is_not_recorded_does_is_not_recorded_either() -> None:
    seen = Recorded(sample_ratio=0)
    found: list[tuple[str, bool]] = []

    @handler("own")
    async def own(item: Any) -> AsyncIterator[dict[str, int]]:
        for number in range(2):
            with seen.provider.get_tracer("own").start_as_current_span("own") as span:
                trace = current_trace()
                assert trace is not None
                assert int(trace.trace_id, 16) == span.get_span_context().trace_id
                found.append((trace.span_id, trace.sampled))
            yield {"number": number}

    async with Cluster(handlers=[own], plugins=[seen.plugin]) as cluster:
        task_id = (await cluster.run(graph(node("a", "own")))).id
    assert found == [(f"{span_id_of_attempt(task_id, 'a', 1):016x}", False)] * 2
    assert seen.all() == ()


@pytest.mark.parametrize("fails", [False, True])
async def test_lines_of_coordinators_have_the_trace_of_the_task_and_those_of_workers_the_attempt(
    fails: bool,
) -> None:
    seen = Recorded()
    traces: dict[str, TraceContext | None] = {}

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            traces[record.__dict__.get("action", "")] = current_trace()

    @handler("end")
    async def end(item: Any, ctx: RunContext) -> None:
        ctx.on_cleanup(lambda: logging.getLogger("flowkit").info("", extra={"action": "cleanup"}))
        if fails:
            raise RuntimeError

    root, kept = logging.getLogger("flowkit"), Kept()
    before = root.level
    root.addHandler(kept)
    root.setLevel(logging.INFO)
    try:
        async with Cluster(handlers=[end], plugins=[seen.plugin]) as cluster:
            await cluster.run(graph(node("a", "end", retry_policy={"max": 0})))
    finally:
        root.removeHandler(kept)
        root.setLevel(before)
    outcome = "failed" if fails else "finished"
    attempt = seen.one("attempt end").context
    for action in ("cleanup", f"node_{outcome}"):
        assert traces[action] is not None
        assert traces[action].span_id == f"{attempt.span_id:016x}"
    for action in ("task_started", f"task_{outcome}"):
        assert traces[action] is not None
        assert traces[action].trace_id == f"{attempt.trace_id:032x}"


async def test_log_lines_in_json_and_in_the_store_name_the_trace_and_the_span_of_their_attempt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = Recorded()
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(JsonLines().format(record))

    @handler("talk")
    async def talk(item: Any, ctx: RunContext) -> None:
        ctx.log.info("here")

    kept = Kept()
    logging.getLogger("flowkit.run").addHandler(kept)
    caplog.set_level(logging.INFO, "flowkit.run")
    try:
        async with Cluster(handlers=[talk], plugins=[seen.plugin]) as cluster:
            view = await cluster.run(graph(node("a", "talk")))
            (stored,) = [line async for line in cluster.client.logs(view.id)]
    finally:
        logging.getLogger("flowkit.run").removeHandler(kept)
    attempt = seen.one("attempt talk").context
    (line,) = [line for line in lines if "here" in line]
    assert f'"trace_id":"{attempt.trace_id:032x}"' in line
    assert f'"span_id":"{attempt.span_id:016x}"' in line
    assert stored.trace_id == f"{attempt.trace_id:032x}"
    assert stored.span_id == f"{attempt.span_id:016x}"
