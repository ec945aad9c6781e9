"""Flows that run on coordinators and workers in memory, on virtual time, as users see them."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from flowkit import CoordinatorConfig, GraphError, TaskNotFound, TaskRefused, WorkerConfig, hookimpl
from flowkit._json.limits import LONGEST_SEC
from flowkit._records.worker_sessions import WorkerSession
from flowkit.errors import NodeFailure
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit_testing import Cluster
from tests.builders import DAY, graph, node, pull, work
from tests.store_records import put_session


@handler("fail")
async def fail(item: Any) -> None:
    raise ValueError("broken")


@handler("numbers")
async def numbers(item: int) -> AsyncIterator[dict[str, int]]:
    for number in range(item):
        yield {"n": number}


def statuses(view: Any) -> dict[str, str]:
    return {node_id: str(node.status) for node_id, node in view.nodes.items()}


async def test_results_are_those_of_the_nodes_without_children(flowkit_cluster: Cluster) -> None:
    view = await flowkit_cluster.run(
        graph(node("a"), node("b", "work", "a", io={"input_inline": 5})), handlers=[work]
    )
    assert view.status == "finished"
    assert view.result == {"b": 5}
    assert view.created_at <= view.started_at <= view.finished_at


async def test_a_node_sees_params_vars_and_the_results_of_its_parents(
    flowkit_cluster: Cluster,
) -> None:
    @handler("look")
    async def look(item: Any, ctx: RunContext) -> Any:
        return {
            "params": ctx.params,
            "vars": ctx.vars,
            "results": ctx.results,
            "attempt": ctx.attempt,
        }

    seed = node("seed", "coordinator_fn", io={"fn": "vars.set", "fn_args": {"kv": {"sla.days": 3}}})
    view = await flowkit_cluster.run(
        graph(seed, node("a", io={"input_inline": [1]}), node("z", "look", "seed", "a")),
        handlers=[work, look],
        params={"p": 1},
    )
    seen = view.result["z"]
    assert seen["params"] == {"p": 1}
    assert seen["vars"] == {"sla": {"days": 3}}
    assert seen["results"]["a"] == [1]
    assert seen["attempt"] == 1


async def test_a_backoff_of_thirty_days_passes_at_once(flowkit_cluster: Cluster) -> None:
    attempts: list[float] = []

    @handler("flaky")
    async def flaky(item: Any, ctx: RunContext) -> int:
        attempts.append(ctx.clock.now())
        if len(attempts) < 3:
            raise RuntimeError("not yet")
        return ctx.attempt

    policy = {
        "max": 2,
        "backoff_sec": 30 * DAY,
        "multiplier": 1,
        "max_backoff_sec": 30 * DAY,
        "jitter": 0,
    }
    view = await flowkit_cluster.run(
        graph(node("a", "flaky", retry_policy=policy)), handlers=[flaky]
    )
    assert view.result == {"a": 3}
    assert attempts[1] - attempts[0] == pytest.approx(30 * DAY, abs=1)


async def test_the_longest_pause_and_deadline_there_may_be_can_be_looked_at(
    flowkit_cluster: Cluster,
) -> None:
    """They end before the largest datetime."""

    @handler("work")
    async def refuse(item: Any) -> None:
        raise RuntimeError("not yet")

    await flowkit_cluster.add_worker(handlers=[refuse])
    policy = {"max": 1, "backoff_sec": LONGEST_SEC, "max_backoff_sec": LONGEST_SEC, "jitter": 0}
    task_id = await flowkit_cluster.client.create_task(
        graph=graph(node("a", retry_policy=policy)), deadline_sec=LONGEST_SEC
    )
    with pytest.raises(TimeoutError):
        await flowkit_cluster.client.wait(task_id, timeout=DAY)
    view = await flowkit_cluster.client.get_task(task_id)
    assert view.nodes["a"].next_retry_at.year - view.created_at.year in (99, 100)


@pytest.mark.parametrize(("retries", "expected"), [(0, 1), (1, 2), (3, 4)])
async def test_max_bounds_the_attempts_exactly(
    flowkit_cluster: Cluster, retries: int, expected: int
) -> None:
    attempts = []

    @handler("broken")
    async def broken(item: Any, ctx: RunContext) -> None:
        attempts.append(ctx.attempt)
        raise RuntimeError("always")

    view = await flowkit_cluster.run(
        graph(node("a", "broken", retry_policy={"max": retries})), handlers=[broken]
    )
    assert view.status == "failed"
    assert attempts == list(range(1, expected + 1))
    assert (view.nodes["a"].attempt, view.nodes["a"].reason_code) == (expected, "unexpected_error")
    assert "always" in view.error


async def test_a_failure_stops_the_task_and_what_has_not_begun_never_begins(
    flowkit_cluster: Cluster,
) -> None:
    view = await flowkit_cluster.run(
        graph(node("a", "fail"), node("b", "work", "a"), node("c", "work", "b")),
        handlers=[work, fail],
    )
    assert view.status == "failed"
    assert statuses(view) == {"a": "failed", "b": "cancelled", "c": "cancelled"}
    assert "'a'" in view.error


async def test_with_continue_what_does_not_depend_on_the_failure_runs_to_its_end(
    flowkit_cluster: Cluster,
) -> None:
    view = await flowkit_cluster.run(
        graph(
            node("a", "fail"),
            node("b", "work", "a"),
            node("x"),
            node("y", "work", "x"),
            on_node_failure="continue",
        ),
        handlers=[work, fail],
    )
    assert view.status == "failed"
    assert statuses(view) == {"a": "failed", "b": "skipped", "x": "finished", "y": "finished"}


async def test_a_failure_with_a_branch_is_handled(flowkit_cluster: Cluster) -> None:
    routing = {"on_success": ["good"], "on_failure": ["bad"]}
    view = await flowkit_cluster.run(
        graph(node("a", "fail", routing=routing), node("good"), node("bad")), handlers=[work, fail]
    )
    assert view.status == "finished"
    assert statuses(view) == {"a": "failed", "good": "skipped", "bad": "finished"}


async def test_conditions_are_evaluated_over_params_vars_and_results(
    flowkit_cluster: Cluster,
) -> None:
    document = graph(
        node("count", io={"input_inline": {"n": 4}}),
        node("gold", "work", "count", when="params.sla == 'gold' && results.count.n > 3"),
        node("lead", "work", "count", when="params.sla == 'lead'"),
        node("after", "work", "lead"),
        node("wrong", "work", "count", when="results.count.nothing > 3"),
        on_node_failure="continue",
    )
    view = await flowkit_cluster.run(document, handlers=[work], params={"sla": "gold"})
    assert statuses(view) == {
        "count": "finished",
        "gold": "finished",
        "lead": "skipped",
        "after": "skipped",
        "wrong": "failed",
    }
    assert view.nodes["wrong"].reason_code == "bad_condition"


async def test_a_consumer_starts_on_the_first_batch_while_its_producer_runs(
    flowkit_cluster: Cluster,
) -> None:
    seen: list[tuple[str, int]] = []
    go_on = asyncio.Event()

    @handler("produce")
    async def produce(item: Any) -> AsyncIterator[dict[str, int]]:
        for number in range(4):
            seen.append(("produced", number))
            yield {"n": number}
            if number == 0:
                await go_on.wait()

    @handler("consume")
    async def consume(item: dict[str, int]) -> dict[str, int]:
        seen.append(("consumed", item["n"]))
        go_on.set()
        return {"twice": item["n"] * 2}

    view = await flowkit_cluster.run(
        graph(node("p", "produce"), pull("c", "consume", "p")), handlers=[produce, consume]
    )
    assert view.status == "finished"
    assert seen.index(("consumed", 0)) < seen.index(("produced", 2))
    assert [artifact.meta async for artifact in flowkit_cluster.client.artifacts(view.id, "c")] == [
        {"twice": 2 * n} for n in range(4)
    ]


async def test_a_long_stream_is_read_to_its_end_and_counted_once(flowkit_cluster: Cluster) -> None:
    @handler("count")
    async def count(item: dict[str, int]) -> None:
        total.append(item["n"])

    total: list[int] = []
    view = await flowkit_cluster.run(
        graph(node("p", "numbers", io={"input_inline": 1000}), pull("c", "count", "p")),
        handlers=[numbers, count],
    )
    assert view.status == "finished"
    assert total == list(range(1000))


async def test_an_upstream_without_data_is_no_error(flowkit_cluster: Cluster) -> None:
    view = await flowkit_cluster.run(
        graph(node("p", "numbers", io={"input_inline": 0}), pull("c", "work", "p")),
        handlers=[numbers, work],
    )
    assert statuses(view) == {"p": "finished", "c": "finished"}


async def test_a_wide_fan_and_a_deep_chain_come_to_their_end(flowkit_cluster: Cluster) -> None:
    wide = graph(
        node("s"),
        *(node(f"f{i}", "work", "s") for i in range(1500)),
        node("z", "work", *(f"f{i}" for i in range(1500))),
    )
    view = await flowkit_cluster.run(wide, handlers=[work])
    assert set(statuses(view).values()) == {"finished"}
    deep = graph(node("n0"), *(node(f"n{i}", "work", f"n{i - 1}") for i in range(1, 700)))
    view = await flowkit_cluster.run(deep, handlers=[work])
    assert set(statuses(view).values()) == {"finished"}
    events = [event async for event in flowkit_cluster.client.watch(view.id)]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert sum(event.status == "finished" and event.node_id is not None for event in events) == 700


async def test_watch_tells_every_change_in_order_until_the_end(flowkit_cluster: Cluster) -> None:
    view = await flowkit_cluster.run(graph(node("a")), handlers=[work])
    events = [
        (event.seq, event.node_id, event.status)
        async for event in flowkit_cluster.client.watch(view.id)
    ]
    assert events == [
        (1, None, "queued"),
        (2, "a", "queued"),
        (3, "a", "running"),
        (4, "a", "finished"),
        (5, None, "finished"),
    ] or events == [
        (1, None, "queued"),
        (2, "a", "queued"),
        (3, "a", "running"),
        (4, None, "running"),
        (5, "a", "finished"),
        (6, None, "finished"),
    ]


async def test_the_same_key_or_id_gives_the_first_task(flowkit_cluster: Cluster) -> None:
    client = flowkit_cluster.client
    first = await client.create_task(graph=graph(node("a")), idempotency_key="order-7")
    assert await client.create_task(graph=graph(node("a")), idempotency_key="order-7") == first
    assert await client.create_task(graph=graph(node("a")), task_id=first) == first
    assert list((await client.get_task(first)).nodes) == ["a"]


async def test_tasks_are_listed_newest_first_in_stable_pages(flowkit_cluster: Cluster) -> None:
    client = flowkit_cluster.client
    ids = []
    for number in range(7):
        flowkit_cluster.clock.jump(1)
        ids.append(
            await client.create_task(
                graph=graph(node("a")),
                pipeline="p" if number % 2 else None,
                labels={"odd": str(number % 2)},
            )
        )
    page = await client.list_tasks(limit=3)
    await client.create_task(graph=graph(node("a")))
    rest = await client.list_tasks(limit=10, after=page.next)
    assert [view.id for view in [*page.items, *rest.items]] == ids[::-1]
    assert rest.next is None
    assert [view.id for view in (await client.list_tasks(pipeline="p")).items] == [
        ids[5],
        ids[3],
        ids[1],
    ]
    assert [
        view.id for view in (await client.list_tasks(labels={"odd": "0"}, status="queued")).items
    ] == [ids[6], ids[4], ids[2], ids[0]]
    assert (await client.list_tasks(status=["finished"])).items == []


async def test_what_is_not_there_is_said(flowkit_cluster: Cluster) -> None:
    client = flowkit_cluster.client
    for verb in (
        client.get_task,
        client.wait,
        client.cancel,
        client.pause,
        client.resume,
        client.retry,
    ):
        with pytest.raises(TaskNotFound, match="nothing"):
            await verb("nothing")
    task_id = await client.create_task(graph=graph(node("a")))
    with pytest.raises(TaskNotFound, match="has no node .b.$"):
        await client.explain(task_id, "b")


async def test_waiting_gives_up_in_time(flowkit_cluster: Cluster) -> None:
    task_id = await flowkit_cluster.client.create_task(graph=graph(node("a")))
    with pytest.raises(TimeoutError, match="is still queued after 60 s"):
        await flowkit_cluster.client.wait(task_id, timeout=60)


async def test_a_graph_with_faults_leaves_nothing_behind(flowkit_cluster: Cluster) -> None:
    with pytest.raises(GraphError, match="'extrat'"):
        await flowkit_cluster.client.create_task(
            graph=graph(node("extract"), node("b", "work", "extrat"))
        )
    for wrong in (
        {"deadline_sec": 0},
        {"deadline_sec": 1e12},
        {"params": {"x": float("nan")}},
        {"params": {1: 2}},
        {"labels": {"a": 1}},
        {"pipeline": ""},
    ):
        with pytest.raises(GraphError, match=next(iter(wrong))):
            await flowkit_cluster.client.create_task(graph=graph(node("a")), **wrong)  # type: ignore[arg-type]
    assert (await flowkit_cluster.client.list_tasks()).items == []


async def test_a_running_task_is_cancelled_within_its_grace(flowkit_cluster: Cluster) -> None:
    client = flowkit_cluster.client

    @handler("nap")
    async def sleep(item: Any, ctx: RunContext) -> None:
        await ctx.clock.sleep(10 * DAY)

    await flowkit_cluster.add_worker([sleep, work])
    task_id = await client.create_task(graph=graph(node("a", "nap"), node("b", "work", "a")))
    async for event in client.watch(task_id):
        if event.node_id == "a" and event.status == "running":
            await client.cancel(task_id, "changed my mind")
    view = await client.get_task(task_id)
    assert view.status == "cancelled"
    assert statuses(view) == {"a": "cancelled", "b": "cancelled"}
    assert (view.finished_at - view.created_at).total_seconds() < 60
    await client.cancel(task_id)
    assert (await client.get_task(task_id)) == view


async def test_a_paused_task_begins_nothing_until_it_is_resumed(flowkit_cluster: Cluster) -> None:
    client = flowkit_cluster.client
    task_id = await client.create_task(graph=graph(node("a"), node("b", "work", "a")))
    await client.pause(task_id)
    await flowkit_cluster.add_worker([work])
    with pytest.raises(TimeoutError):
        await client.wait(task_id, timeout=3600)
    view = await client.get_task(task_id)
    assert view.status == "paused"
    assert statuses(view) == {"a": "paused", "b": "queued"}
    assert "paused" in await client.explain(task_id, "a")
    await client.resume(task_id)
    assert (await client.wait(task_id, timeout=3600)).status == "finished"


async def test_retry_runs_what_failed_and_keeps_what_is_finished(flowkit_cluster: Cluster) -> None:
    client = flowkit_cluster.client
    calls: list[str] = []
    broken = True

    @handler("step")
    async def step(item: Any, ctx: RunContext) -> str:
        calls.append(ctx.node_id)
        if broken and ctx.node_id == "b":
            raise ValueError("no")
        return ctx.node_id

    await flowkit_cluster.add_worker([step])
    task_id = await client.create_task(
        graph=graph(node("a", "step"), node("b", "step", "a"), node("c", "step", "b"))
    )
    assert (await client.wait(task_id, timeout=DAY)).status == "failed"
    broken = False
    await client.retry(task_id)
    view = await client.wait(task_id, timeout=DAY)
    assert (view.status, view.error, view.result) == ("finished", None, {"c": "c"})
    assert calls == ["a", "b", "b", "c"]
    with pytest.raises(TaskRefused, match="finished"):
        await client.retry(task_id)


async def test_retry_from_nodes_runs_them_and_all_below_them_from_nothing(
    flowkit_cluster: Cluster,
) -> None:
    client = flowkit_cluster.client
    broken = True
    seen: list[int] = []

    @handler("sum")
    async def add(item: dict[str, int]) -> dict[str, int]:
        seen.append(item["n"])
        return item

    @handler("last")
    async def last(item: Any) -> str:
        if broken:
            raise ValueError("no")
        return "ok"

    await flowkit_cluster.add_worker([numbers, add, last])
    task_id = await client.create_task(
        graph=graph(
            node("p", "numbers", io={"input_inline": 3}),
            pull("c", "sum", "p"),
            node("z", "last", "c"),
        )
    )
    assert (await client.wait(task_id, timeout=DAY)).status == "failed"
    broken = False
    with pytest.raises(TaskRefused, match="'q'"):
        await client.retry(task_id, from_nodes=["q"])
    await client.retry(task_id, from_nodes=["c"])
    assert (await client.wait(task_id, timeout=DAY)).status == "finished"
    assert seen == [0, 1, 2, 0, 1, 2]
    assert len([artifact async for artifact in client.artifacts(task_id, "c")]) == 3


async def test_explain_says_why_a_node_does_not_run(flowkit_cluster: Cluster) -> None:
    client = flowkit_cluster.client
    task_id = await client.create_task(graph=graph(node("a"), node("b", "work", "a")))
    with pytest.raises(TimeoutError):
        await client.wait(task_id, timeout=3)
    assert "no live worker serves the role 'work'" in await client.explain(task_id, "a")
    assert "waits for 'a'" in await client.explain(task_id, "b")


async def test_explain_counts_only_workers_whose_heartbeat_is_renewed() -> None:
    @handler("work")
    async def hold(item: Any, ctx: RunContext) -> None:
        await ctx.clock.sleep(DAY)

    async with Cluster() as cluster:
        client, clock = cluster.client, cluster.clock
        await put_session(cluster.store, WorkerSession("killed", ("work",), 7, clock.now()))
        task_id = await client.create_task(graph=graph(node("a"), node("b")))
        with pytest.raises(TimeoutError):
            await client.wait(task_id, timeout=10)
        assert (
            ", and waits for a worker: no heartbeat of killed, which serves the role 'work': a"
            " handler blocks the event loop, or the process has ended."
        ) in await client.explain(task_id, "a")
        await cluster.add_worker([hold], WorkerConfig(max_concurrency=1, hb_interval_sec=1))
        with pytest.raises(TimeoutError):
            await client.wait(task_id, timeout=10)
        began = clock.monotonic()
        explained = [await client.explain(task_id, name) for name in "ab"]
        assert clock.monotonic() == began  # the times of the last heartbeats are in the store
        await client.cancel(task_id)
    assert sorted(text.split()[1] for text in explained) == ["is", "was"]
    (waits,) = [text for text in explained if "was issued" in text]
    assert re.search(
        r"waits until a worker that serves the role 'work' has a free slot\."
        r" Slots in use at the last heartbeat: '[^']+' 1 of 1\.$",
        waits,
    )


async def test_a_deadline_fails_the_task(flowkit_cluster: Cluster) -> None:
    task_id = await flowkit_cluster.client.create_task(graph=graph(node("a")), deadline_sec=60)
    view = await flowkit_cluster.client.wait(task_id, timeout=DAY)
    assert view.status == "failed"
    assert "deadline" in view.error
    assert (view.finished_at - view.created_at).total_seconds() == pytest.approx(60, abs=10)


async def test_time_limits_fail_attempts_with_their_reason(flowkit_cluster: Cluster) -> None:
    @handler("nap")
    async def sleep(item: Any, ctx: RunContext) -> None:
        await ctx.clock.sleep(10 * DAY)

    once = {"max": 0}
    for timeouts, reason in (
        ({"start_to_close_sec": 60}, "start_to_close_timeout"),
        ({"heartbeat_sec": 60}, "heartbeat_timeout"),
    ):
        view = await flowkit_cluster.run(
            graph(node("a", "nap", timeouts=timeouts, retry_policy=once)), handlers=[sleep]
        )
        assert (view.status, view.nodes["a"].reason_code) == ("failed", reason)
    view = await flowkit_cluster.run(
        graph(node("a", "missing", timeouts={"schedule_to_start_sec": 60}, retry_policy=once))
    )
    assert view.nodes["a"].reason_code == "schedule_to_start_timeout"


async def test_a_worker_that_stops_hands_its_work_back_and_another_takes_it_over() -> None:
    ran: list[str] = []

    @handler("slow")
    async def slow(item: Any, ctx: RunContext) -> int:
        ran.append(ctx.worker_id)
        await ctx.clock.sleep(3600)
        return ctx.attempt

    async with Cluster() as cluster:
        first = await cluster.add_worker([slow])
        task_id = await cluster.client.create_task(graph=graph(node("a", "slow")))
        async for event in cluster.client.watch(task_id):
            if event.status == "running" and event.node_id == "a" and len(ran) == 1:
                await cluster.stop_worker(first, grace=0)
                await cluster.add_worker([slow])
            if event.node_id is None and event.status == "finished":
                break
        view = await cluster.client.get_task(task_id)
    assert view.result == {"a": 1}
    assert len(set(ran)) == 2


async def test_several_coordinators_and_workers_share_the_work_and_nothing_runs_twice() -> None:
    runs: dict[str, int] = {}

    @handler("step")
    async def step(item: Any, ctx: RunContext) -> None:
        runs[f"{ctx.task_id}.{ctx.node_id}"] = runs.get(f"{ctx.task_id}.{ctx.node_id}", 0) + 1

    document = graph(
        node("a", "step"),
        node("b", "step", "a"),
        node("c", "step", "a"),
        node("d", "step", "b", "c"),
    )
    async with Cluster(coordinators=3, workers=3, handlers=[step]) as cluster:
        ids = [await cluster.client.create_task(graph=document) for _ in range(50)]
        views = [await cluster.client.wait(task_id, timeout=DAY) for task_id in ids]
    assert {str(view.status) for view in views} == {"finished"}
    assert len(runs) == 200
    assert set(runs.values()) == {1}


async def test_a_coordinator_that_stops_is_replaced_by_the_others() -> None:
    @handler("slow")
    async def slow(item: Any, ctx: RunContext) -> None:
        await ctx.clock.sleep(600)

    async with Cluster(coordinators=2, workers=2, handlers=[slow]) as cluster:
        ids = [
            await cluster.client.create_task(graph=graph(node("a", "slow"), node("b", "slow", "a")))
            for _ in range(20)
        ]
        await cluster.clock.advance(300)
        await cluster.coordinators.pop(0).stop()
        views = [await cluster.client.wait(task_id, timeout=30 * DAY) for task_id in ids]
    assert {str(view.status) for view in views} == {"finished"}


async def test_events_sent_while_no_coordinator_was_there_are_all_applied() -> None:
    async with Cluster(coordinators=0, handlers=[work]) as cluster:
        ids = [
            await cluster.client.create_task(graph=graph(node("a"), node("b", "work", "a")))
            for _ in range(20)
        ]
        await cluster.clock.advance(3600)
        await cluster.add_coordinator()
        views = [await cluster.client.wait(task_id, timeout=DAY) for task_id in ids]
    assert {str(view.status) for view in views} == {"finished"}


async def test_a_coordinator_function_that_refuses_its_arguments_fails_its_node(
    flowkit_cluster: Cluster,
) -> None:
    bad = node("v", "coordinator_fn", io={"fn": "vars.incr", "fn_args": {"key": "n", "by": "much"}})
    view = await flowkit_cluster.run(graph(bad))
    assert (view.status, view.nodes["v"].reason_code, view.nodes["v"].attempt) == (
        "failed",
        "bad_input",
        1,
    )


class Choosy(Handler):
    """A handler that classifies its own errors."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        raise ValueError("no")

    def classify_error(self, exc: BaseException) -> tuple[str, bool]:
        return "mine", True


@pytest.mark.parametrize(
    ("policy", "attempts"),
    [
        ({}, {"handler": 1, "function": 1, "subclass": 3, "own": 1, "verdict": 1, "args": 1}),
        (
            {"permanent_on": []},
            {"handler": 3, "function": 3, "subclass": 3, "own": 1, "verdict": 1, "args": 1},
        ),
        (
            {"permanent_on": ["quota"]},
            {"handler": 3, "function": 3, "subclass": 3, "own": 1, "verdict": 1, "args": 1},
        ),
        (
            {"permanent_on": ["bad_input"]},
            {"handler": 1, "function": 1, "subclass": 3, "own": 1, "verdict": 1, "args": 1},
        ),
        (
            {"permanent_on": ["unexpected_error"]},
            {"handler": 3, "function": 3, "subclass": 1, "own": 1, "verdict": 1, "args": 1},
        ),
    ],
)
async def test_permanent_on_replaces_the_default_classification_alone(
    policy: dict[str, Any], attempts: dict[str, int]
) -> None:
    @handler("wrong")
    async def wrong(item: Any) -> None:
        raise ValueError("no")

    @handler("undecodable")
    async def undecodable(item: Any) -> None:
        raise UnicodeError("no")

    @handler("odd")
    async def odd(item: Any) -> Any:
        return object()

    class Functions:
        @hookimpl
        def flowkit_register_functions(self, register: Callable[..., None]) -> None:
            def fail(ctx: Any) -> None:
                raise KeyError("no")

            register("fail", fail)

    nodes = [
        node("handler", "wrong"),
        node("function", "coordinator_fn", io={"fn": "fail"}),
        node("subclass", "undecodable"),
        node("own", "choosy"),
        node("verdict", "odd"),
        node("args", "coordinator_fn", io={"fn": "fail", "fn_args": {"x": 1}}),
    ]
    for one in nodes:
        one["retry_policy"] = policy
    async with Cluster(plugins=[Functions()]) as cluster:
        served = {"wrong": wrong, "undecodable": undecodable, "odd": odd, "choosy": Choosy()}
        view = await cluster.run({"nodes": nodes, "on_node_failure": "continue"}, handlers=served)
    assert {name: one.attempt for name, one in view.nodes.items()} == attempts


async def test_a_handler_may_choose_reason_and_permanence(flowkit_cluster: Cluster) -> None:
    @handler("choosy")
    async def choosy(item: Any) -> None:
        raise NodeFailure("quota used up", reason_code="quota", permanent=True)

    view = await flowkit_cluster.run(graph(node("a", "choosy")), handlers=[choosy])
    assert (view.nodes["a"].reason_code, view.nodes["a"].attempt) == ("quota", 1)


async def test_a_task_with_large_inputs_and_many_parents_reads_them_from_the_store() -> None:
    @handler("sum")
    async def add(item: Any, ctx: RunContext) -> int:
        return sum(ctx.results.values()) + len(ctx.params["text"])

    parents = [node(f"n{i}", io={"input_inline": i}) for i in range(300)]
    document = graph(*parents, node("z", "sum", *(f"n{i}" for i in range(300))))
    async with Cluster() as cluster:
        view = await cluster.run(document, handlers=[work, add], params={"text": "x" * 200_000})
    assert view.result == {"z": sum(range(300)) + 200_000}


async def test_a_lost_workers_node_runs_elsewhere() -> None:
    """A hanging worker does not renew its session, so its node is attempted elsewhere."""
    started: list[str] = []

    @handler("stuck")
    async def stuck(item: Any, ctx: RunContext) -> int:
        started.append(ctx.worker_id)
        if len(started) == 1:
            await ctx.clock.sleep(365 * DAY)
        return ctx.attempt

    config = CoordinatorConfig(
        heartbeat_soft_sec=5, heartbeat_hard_sec=10, lease_ttl_sec=10, scheduler_tick_sec=DAY
    )
    async with Cluster(coordinator_config=config) as cluster:
        # A worker with a heartbeat interval above the coordinator's timeout counts as dead.
        await cluster.add_worker([stuck], WorkerConfig(hb_interval_sec=DAY, worker_id="dead"))
        task_id = await cluster.client.create_task(
            graph=graph(node("a", "stuck", retry_policy={"max": 1, "backoff_sec": 0}))
        )
        while not started:
            await cluster.clock.sleep(0.1)
        await cluster.add_worker(
            [stuck], WorkerConfig(hb_interval_sec=3, worker_id="alive", max_concurrency=4)
        )
        await cluster.clock.sleep(1)
        dead = cluster.workers[0]
        view_task = asyncio.create_task(cluster.client.wait(task_id, timeout=120))
        await cluster.clock.sleep(60)
        await cluster.stop_worker(dead, grace=0)
        view = await view_task
    assert view.status == "finished"
    assert view.result == {"a": 2}


async def test_a_node_may_pull_from_any_node_that_its_arguments_name(
    flowkit_cluster: Cluster,
) -> None:
    arguments = {"input_adapter": "pull.from_artifacts", "input_args": {"from_node": "p"}}
    seen: list[int] = []

    @handler("read")
    async def read(item: dict[str, int]) -> None:
        seen.append(item["n"])

    document = graph(
        node("p", "numbers", io={"input_inline": 3}),
        node("m", "work", "p"),
        node("c", "read", "m", io={"input_inline": arguments}),
    )
    view = await flowkit_cluster.run(document, handlers=[numbers, work, read])
    assert view.status == "finished"
    assert seen == [0, 1, 2]


async def test_a_stream_that_is_handed_back_goes_on_where_it_was() -> None:
    processed: list[int] = []

    @handler("slowly")
    async def slowly(item: dict[str, int], ctx: RunContext) -> dict[str, int]:
        processed.append(item["n"])
        await ctx.clock.sleep(60)
        return item

    async with Cluster() as cluster:
        first = await cluster.add_worker([numbers, slowly])
        task_id = await cluster.client.create_task(
            graph=graph(node("p", "numbers", io={"input_inline": 6}), pull("c", "slowly", "p"))
        )
        while len(processed) < 4:
            await cluster.clock.sleep(1)
        await cluster.stop_worker(first, grace=0)
        await cluster.add_worker([numbers, slowly])
        view = await cluster.client.wait(task_id, timeout=DAY)
    assert view.status == "finished"
    assert view.nodes["c"].attempt == 1
    # Only the batch in progress when the worker stopped is processed again.
    assert processed == [0, 1, 2, 3, 3, 4, 5]


@pytest.mark.parametrize("batching", [None, {"size": 9, "max_wait_sec": 500}])
async def test_a_reader_that_waits_for_artifacts_sends_heartbeats(
    flowkit_cluster: Cluster, batching: dict[str, int] | None
) -> None:
    seen: list[Any] = []

    @handler("seldom")
    async def seldom(item: Any, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
        for number in range(3):
            yield {"n": number}
            await ctx.clock.sleep(200)

    @handler("read")
    async def read(item: Any) -> None:
        seen.append(item)

    reader = node(
        "c",
        "read",
        "p",
        io={"start_when": "first_batch", "batching": batching},
        timeouts={"heartbeat_sec": 30},
        retry_policy={"max": 0},
    )
    view = await flowkit_cluster.run(graph(node("p", "seldom"), reader), handlers=[seldom, read])
    assert view.status == "finished", view.nodes["c"].error
    assert len(seen) == (1 if batching else 3)


async def test_labels_of_nodes_are_shown_with_them(flowkit_cluster: Cluster) -> None:
    view = await flowkit_cluster.run(graph(node("a", labels={"team": "blue"})), handlers=[work])
    assert view.nodes["a"].labels == {"team": "blue"}
