"""Nodes that run a graph as a child task, on a cluster in virtual time."""

import contextlib
from typing import Any

import anyio
import pytest

from flowkit import Client, CoordinatorConfig, hookimpl
from flowkit._records.letter_records import park_letters
from flowkit.errors import GraphError, NodeFailure, TaskRefused
from flowkit.task import DeadLetter, TaskView
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.builders import graph, node
from tests.counting_store import CountingStore


def subflow(node_id: str, inner: Any, *after: str, **fields: Any) -> dict[str, Any]:
    params = {"params": fields.pop("params")} if "params" in fields else {}
    return node(node_id, "subflow", *after, io={"graph": inner, **params}, **fields)


@handler("work")
async def work(item: Any) -> Any:
    return item


@handler("hang")
async def hang(item: Any) -> None:
    await anyio.sleep_forever()


class Flaky:
    """Handlers of which ``bad`` fails until it is repaired."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.repaired = False

    @property
    def handlers(self) -> list[Any]:
        @handler("good")
        async def good(ctx: RunContext) -> str:
            self.runs.append(ctx.node_id)
            return "good"

        @handler("bad")
        async def bad(ctx: RunContext) -> str:
            self.runs.append(ctx.node_id)
            if not self.repaired:
                raise ValueError("broken")
            return "repaired"

        return [good, bad]


INNER = graph(
    node("x", io={"input_inline": "${params.n}"}),
    node("y", "work", "x", io={"input_inline": "${results.x + 1}"}),
)
HANGING = graph(subflow("s", graph(node("x", "hang"))))


async def until_running(client: Client, task_id: str, node_id: str) -> TaskView:
    """Wait until a node runs, and return its task."""
    async with contextlib.aclosing(client.watch(task_id)) as events:
        async for event in events:
            if (event.node_id, event.status) == (node_id, "running"):
                break
    return await client.get_task(task_id)


async def child_of(client: Client, task_id: str, node_id: str = "s") -> TaskView:
    """Wait until a sub-flow and the node x of its task run, and return the child task."""
    view = await until_running(client, task_id, node_id)
    child_id = view.nodes[node_id].child_task_id
    assert child_id is not None
    while True:
        with contextlib.suppress(LookupError):
            return await until_running(client, child_id, "x")
        await client.clock.sleep(0.01)


# ---------------------------------------------------------------- results


async def test_a_subflow_runs_its_graph_as_a_task_and_has_its_result() -> None:
    flow = graph(
        node("a", io={"input_inline": 4}),
        subflow("s", INNER, "a", params={"n": "${results.a}"}, labels={"team": "x"}),
        node("z", "work", "s", io={"input_inline": "${results.s.y}"}),
    )
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(flow)
        child = await cluster.client.get_task(view.nodes["s"].child_task_id or "")
    assert view.result == {"z": 5}
    assert view.nodes["s"].result == {"y": 5}
    assert (child.parent, child.parent_node, child.status) == (view.id, "s", "finished")
    assert (child.params, child.labels, view.parent) == ({"n": 4}, {"team": "x"}, None)


async def test_subflows_nest() -> None:
    flow = INNER
    for depth in range(5):
        flow = graph(subflow(f"s{depth}", flow, params={"n": "${params.n + 1}"}))
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(flow, params={"n": 1})
    result = view.result
    for depth in reversed(range(5)):
        assert result is not None
        result = result[f"s{depth}"]
    assert result == {"y": 7}


def deepest(flow: dict[str, Any]) -> dict[str, Any]:
    for _ in range(32):
        flow = graph(subflow("s", flow), output="${results.s}")
    return flow


async def test_subflows_nest_32_deep() -> None:
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(deepest(graph(node("x", io={"input_inline": 7}))))
        tasks = (await cluster.client.list_tasks()).items
    assert view.result == {"x": 7}
    assert [task.status for task in tasks] == ["finished"] * 33


async def test_a_cancellation_goes_down_to_the_deepest_subflow() -> None:
    async with Cluster(handlers=[hang]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=deepest(graph(node("x", "hang"))))
        await client.clock.sleep(30)
        assert len((await client.list_tasks(status="running")).items) == 33
        await client.cancel(task_id, "enough")
        assert (await client.wait(task_id)).status == "cancelled"
        tasks = (await client.list_tasks()).items
    assert [task.status for task in tasks] == ["cancelled"] * 33
    assert all(str(task.error).endswith("enough") for task in tasks)


async def test_a_thousand_subflows_of_one_task_finish() -> None:
    flow = graph(*(subflow(f"s{number}", graph(node("x"))) for number in range(1_000)))
    async with Cluster(handlers=[work], coordinators=2) as cluster:
        view = await cluster.run(flow)
        listed = await cluster.client.list_tasks(limit=2_000)
    assert view.status == "finished"
    assert len(listed.items) == 1_001


async def test_a_child_task_is_loaded_only_when_it_is_created() -> None:
    store = CountingStore()
    async with Cluster(handlers=[work], store=store) as cluster:
        view = await cluster.run(graph(subflow("s", INNER, params={"n": 1})))
    assert store.loads[view.nodes["s"].child_task_id or ""] == 1
    assert view.result == {"s": {"y": 2}}


async def test_a_child_task_that_begins_with_a_condition_or_a_map_begins_at_once() -> None:
    inner = graph(
        node("x", when="params.n == 1", io={"input_inline": 1}),
        node("m", map={"over": [1, 2]}, io={"input_inline": "${item}"}),
    )
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(graph(subflow("s", inner, params={"n": 1})))
    assert view.result == {"s": {"x": 1, "m": [1, 2]}}
    assert view.finished_at is not None
    assert (view.finished_at - view.created_at).total_seconds() < 1


async def test_expressions_in_the_graph_of_a_subflow_read_the_child_task() -> None:
    inner = graph(node("x", io={"input_inline": "${task.id}"}), params={"type": "object"})
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(graph(subflow("s", inner)))
    assert view.nodes["s"].result == {"x": view.nodes["s"].child_task_id}


# ---------------------------------------------------------------- params


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "unit": {"default": "kg"}},
    "required": ["n"],
}
TYPED = graph(node("x", io={"input_inline": "${string(params.n) + params.unit}"}), params=SCHEMA)


async def test_the_params_of_a_subflow_get_the_defaults_of_its_graph() -> None:
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(graph(subflow("s", TYPED, params={"n": 3})))
    assert view.nodes["s"].result == {"x": "3kg"}


async def test_params_that_do_not_fit_fail_the_node_when_it_starts() -> None:
    flow = graph(
        subflow("type", TYPED, params={"n": "${params.word}"}),
        subflow("lost", TYPED, params={"n": "${params.nothing}"}),
        on_node_failure="continue",
    )
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(flow, params={"word": "three"})
        listed = await cluster.client.list_tasks()
    assert {name: (one.reason_code, one.attempt) for name, one in view.nodes.items()} == {
        "type": ("bad_input", 1),
        "lost": ("bad_expression", 1),
    }
    assert [one.child_task_id for one in view.nodes.values()] == [None, None]
    assert len(listed.items) == 1


async def test_a_refused_child_task_is_not_named_and_is_created_by_a_later_attempt() -> None:
    class RefusesOnce:
        def __init__(self) -> None:
            self.asked = 0

        @hookimpl
        def flowkit_before_submit(self, task: Any) -> str | None:
            self.asked += "n" in task.params
            return "not yet" if self.asked == 1 else None

    async with Cluster(handlers=[work], plugins=[RefusesOnce()]) as cluster:
        refused = await cluster.run(graph(subflow("s", INNER, params={"n": 1})))
        assert (refused.nodes["s"].status, refused.nodes["s"].child_task_id) == ("failed", None)
        await cluster.client.retry(refused.id)
        view = await cluster.client.wait(refused.id)
        child = await cluster.client.get_task(view.nodes["s"].child_task_id or "")
    assert (view.result, child.parent) == ({"s": {"y": 2}}, refused.id)


async def test_faults_inside_a_subflow_are_found_at_submission() -> None:
    flow = graph(
        subflow("s", graph(node("x", "work", "nothing"), subflow("t", {"nodes": []}))),
        subflow("p", TYPED, params={"n": "three"}),
        subflow("f", graph(node("x", "coordinator_fn", io={"fn": "unknown"}))),
    )
    async with Cluster(handlers=[work]) as cluster:
        with pytest.raises(GraphError) as caught:
            await cluster.client.create_task(graph=flow)
        assert not (await cluster.client.list_tasks()).items
    faults = [str(fault) for fault in caught.value.faults]
    assert len(faults) == 4
    assert faults[0].startswith("node 's': io.graph: node 'x': ")
    assert faults[1].startswith("node 's': io.graph: node 't': io.graph: nodes is empty")
    assert faults[2].startswith("node 'p': io.params.n: ")
    assert faults[3].startswith("node 'f': io.graph: node 'x': io.fn")


# ---------------------------------------------------------------- failures


async def test_a_failed_child_fails_its_node_with_its_error() -> None:
    flow = graph(subflow("s", graph(node("x", "bad"))))
    async with Cluster(handlers=Flaky().handlers) as cluster:
        view = await cluster.run(flow)
    node_view = view.nodes["s"]
    assert (view.status, node_view.status, node_view.reason_code, node_view.attempt) == (
        "failed",
        "failed",
        "subflow_failed",
        1,
    )
    assert node_view.error == (
        f"task {node_view.child_task_id!r} failed: node 'x' failed: bad_input: ValueError: broken"
    )


async def test_the_error_of_a_nested_child_task_is_said_once_with_the_nodes_on_the_way() -> None:
    flow = graph(node("x", "bad"))
    for name in "dcb":
        flow = graph(subflow(name, flow))
    each = {"map": {"over": [1, 2], "max_parallel": 1}}
    flow = graph(subflow("a", graph(subflow("m", flow, **each))))
    async with Cluster(handlers=Flaky().handlers) as cluster:
        view = await cluster.run(flow)
    first = view.nodes["a"]
    why = "node 'm[0]' > 'b' > 'c' > 'd' > 'x' failed: bad_input: ValueError: broken"
    assert first.error == f"task {first.child_task_id!r} failed: {why}"
    assert view.error == f"node 'a' failed: subflow_failed: {first.error}"


async def test_the_nodes_on_the_way_to_a_child_task_that_was_cancelled_are_named() -> None:
    flow = graph(subflow("c", graph(node("x", "hang"))))
    for name in "ba":
        flow = graph(subflow(name, flow))
    async with Cluster(handlers=[hang]) as cluster:
        task_id = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(1)
        lowest = task_id
        while below := (await cluster.client.list_tasks(parent=lowest)).items:
            lowest = below[0].id
        await cluster.client.cancel(lowest, reason="enough")
        view = await cluster.client.wait(task_id)
    why = f"node 'b' > 'c' failed: subflow_failed: task {lowest!r} was cancelled: enough"
    assert view.nodes["a"].error == f"task {view.nodes['a'].child_task_id!r} failed: {why}"


async def test_a_child_that_is_cancelled_alone_fails_its_node() -> None:
    async with Cluster(handlers=[hang]) as cluster:
        task_id = await cluster.client.create_task(graph=HANGING)
        child = await child_of(cluster.client, task_id)
        await cluster.client.cancel(child.id, "not today")
        view = await cluster.client.wait(task_id)
    assert view.nodes["s"].reason_code == "subflow_failed"
    assert view.nodes["s"].error == f"task {child.id!r} was cancelled: not today"


async def test_a_retry_goes_on_in_the_child_where_it_failed() -> None:
    flaky = Flaky()
    inner = graph(node("a", "good"), node("b", "bad", "a"))
    async with Cluster(handlers=flaky.handlers) as cluster:
        view = await cluster.run(graph(subflow("s", inner)))
        assert view.status == "failed"
        flaky.repaired = True
        await cluster.client.retry(view.id)
        again = await cluster.client.wait(view.id)
    assert again.result == {"s": {"b": "repaired"}}
    assert again.nodes["s"].child_task_id == view.nodes["s"].child_task_id
    assert flaky.runs == ["a", "b", "b"]


async def test_a_finished_subflow_that_runs_again_has_a_new_child() -> None:
    flaky = Flaky()
    flow = graph(subflow("s", graph(node("a", "good"))), node("b", "bad", "s"))
    async with Cluster(handlers=flaky.handlers) as cluster:
        view = await cluster.run(flow)
        flaky.repaired = True
        await cluster.client.retry(view.id, from_nodes=["s"])
        again = await cluster.client.wait(view.id)
    assert again.status == "finished"
    assert again.nodes["s"].child_task_id != view.nodes["s"].child_task_id
    assert flaky.runs == ["a", "b", "a", "b"]


async def test_a_retry_policy_retries_the_child() -> None:
    flaky = Flaky()
    policy = {"max": 2, "backoff_sec": 5, "jitter": 0}
    flow = graph(subflow("s", graph(node("b", "bad")), retry_policy=policy))
    async with Cluster(handlers=flaky.handlers) as cluster:
        view = await cluster.run(flow)
        children = [task.id for task in (await cluster.client.list_tasks()).items]
    assert view.nodes["s"].attempt == 3
    assert flaky.runs == ["b", "b", "b"]
    assert sorted(children) == sorted([view.id, view.nodes["s"].child_task_id])


async def test_a_child_whose_node_has_ended_is_retried_through_its_parent() -> None:
    async with Cluster(handlers=Flaky().handlers) as cluster:
        view = await cluster.run(graph(subflow("s", graph(node("x", "bad")))))
        child_id = view.nodes["s"].child_task_id or ""
        with pytest.raises(TaskRefused, match=f"retry the task '{view.id}'"):
            await cluster.client.retry(child_id)
        letters = await cluster.client.dead_letters(task_id=child_id)
        outcomes = await cluster.client.retry_dead_letters([one.letter_id for one in letters.items])
        assert [(one.done, "retry the task" in one.detail) for one in outcomes] == [(False, True)]
        assert (await cluster.client.get_task(child_id)).status == "failed"


async def test_the_dead_letter_of_a_subflow_runs_its_child_again() -> None:
    flaky = Flaky()
    flow = graph(subflow("s", graph(node("x", "bad")), optional=True))
    async with Cluster(handlers=flaky.handlers) as cluster:
        view = await cluster.run(flow)
        assert view.status == "finished"
        flaky.repaired = True
        letters = await cluster.client.dead_letters(task_id=view.id)
        await cluster.client.retry_dead_letters([one.letter_id for one in letters.items])
        again = await cluster.client.wait(view.id)
    assert again.nodes["s"].result == {"x": "repaired"}
    assert flaky.runs == ["x", "x"]


# ---------------------------------------------------------------- down


async def test_a_cancellation_goes_down_and_the_parent_ends_after_its_children() -> None:
    flow = graph(subflow("s", HANGING))
    async with Cluster(handlers=[hang]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=flow)
        middle = await until_running(client, task_id, "s")
        child_id = middle.nodes["s"].child_task_id or ""
        while (await client.list_tasks(status="running")).items.__len__() < 3:
            await client.clock.sleep(0.01)
        lowest = await child_of(client, child_id)
        await client.cancel(task_id, "enough")
        views = [await client.wait(one) for one in (task_id, child_id, lowest.id)]
    assert [view.status for view in views] == ["cancelled"] * 3
    assert views[0].error == "enough"
    assert views[1].error == "node 's' of the parent was stopped: enough"
    ends = [view.finished_at for view in views]
    assert ends == sorted(ends, reverse=True)


async def test_the_deadline_of_the_parent_stops_the_child() -> None:
    async with Cluster(handlers=[hang]) as cluster:
        view = await cluster.run(graph(subflow("s", graph(node("x", "hang"))), deadline_sec=30))
        child = await cluster.client.get_task(view.nodes["s"].child_task_id or "")
    assert (view.status, view.nodes["s"].reason_code) == ("failed", "deadline_exceeded")
    assert child.status == "cancelled"
    assert child.error == "node 's' of the parent was stopped: the task's deadline passed"


async def test_a_subflow_that_takes_too_long_is_stopped_and_tried_again() -> None:
    limits = {"timeouts": {"start_to_close_sec": 20}, "retry_policy": {"max": 1, "jitter": 0}}
    flow = graph(subflow("s", graph(node("x", "hang")), **limits))
    async with Cluster(handlers=[hang]) as cluster:
        view = await cluster.run(flow)
        child = await cluster.client.get_task(view.nodes["s"].child_task_id or "")
    node_view = view.nodes["s"]
    assert (node_view.reason_code, node_view.attempt) == ("start_to_close_timeout", 2)
    assert node_view.error == "it ran longer than 20 s"
    assert (child.status, child.nodes["x"].attempt) == ("cancelled", 2)


async def test_a_pause_and_its_end_go_down_to_children_and_their_children() -> None:
    nap = node("x", "sleep", io={"for_sec": 60})
    inner = graph(subflow("t", graph(nap, node("y", "work", "x"))))
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=graph(subflow("s", inner)))
        await client.clock.sleep(10)
        await client.pause(task_id)
        await client.clock.sleep(300)
        listed = (await client.list_tasks()).items
        assert [view.status for view in listed] == ["paused"] * 3
        await client.resume(task_id)
        view = await client.wait(task_id)
    assert view.result == {"s": {"t": {"y": None}}}


async def test_a_child_that_is_paused_alone_stays_paused_until_the_parent_resumes() -> None:
    nap = graph(node("x", "sleep", io={"for_sec": 60}), node("y", "work", "x"))
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=graph(subflow("s", nap)))
        await client.clock.sleep(10)
        child_id = (await client.get_task(task_id)).nodes["s"].child_task_id or ""
        await client.pause(child_id)
        await client.clock.sleep(3600)
        assert (await client.get_task(child_id)).status == "paused"
        assert (await client.get_task(task_id)).status == "running"
        assert await client.explain(task_id, "s") == (
            f"'s' runs as task '{child_id}', which is paused: run `flowkit resume {child_id}`."
        )
        await client.resume(task_id)
        assert (await client.wait(task_id)).status == "finished"


NAP = graph(node("x", "sleep", io={"for_sec": 60}), node("y", "work", "x"))


@pytest.mark.parametrize("place", ["nodes", "finally"])
async def test_a_resume_reaches_tasks_two_levels_below_that_were_paused_alone(place: str) -> None:
    whole = {"nodes": [node("x", io={"input_inline": 1})], place: [subflow("t", NAP)]}
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        flow = {"nodes": [node("x", io={"input_inline": 1})], place: [subflow("s", whole)]}
        task_id = await client.create_task(graph=flow)
        await client.clock.sleep(10)
        middle = (await client.get_task(task_id)).nodes["s"].child_task_id or ""
        lowest = (await client.get_task(middle)).nodes["t"].child_task_id or ""
        await client.pause(lowest)
        await client.clock.sleep(3600)
        assert (await client.get_task(lowest)).status == "paused"
        await client.resume(task_id)
        assert (await client.wait(task_id)).status == "finished"


async def test_a_pause_reaches_a_child_that_was_resumed_alone() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=graph(subflow("s", NAP)))
        await client.clock.sleep(10)
        child_id = (await client.get_task(task_id)).nodes["s"].child_task_id or ""
        await client.pause(task_id)
        await client.clock.sleep(1)
        assert await client.explain(task_id, "s") == (
            f"'s' runs as task '{child_id}', which is paused: run `flowkit resume {task_id}`."
        )
        await client.resume(child_id)
        await client.pause(task_id)
        await client.clock.sleep(3600)
        assert (await client.get_task(child_id)).status == "paused"
        await client.resume(task_id)
        assert (await client.wait(task_id)).status == "finished"


async def test_a_resume_is_passed_on_by_a_child_that_runs_its_finally() -> None:
    whole = {"nodes": [node("x", io={"input_inline": 1})], "finally": [subflow("t", NAP)]}
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=graph(subflow("s", whole)))
        await client.clock.sleep(10)
        middle = (await client.get_task(task_id)).nodes["s"].child_task_id or ""
        lowest = (await client.get_task(middle)).nodes["t"].child_task_id or ""
        await client.pause(task_id)
        await client.clock.sleep(10)
        assert (await client.get_task(lowest)).status == "deferred"
        await client.pause(lowest)
        await client.resume(task_id)
        await client.clock.sleep(10)
        assert (await client.get_task(lowest)).status == "deferred"
        assert (await client.wait(task_id)).status == "finished"


# ---------------------------------------------------------------- losses

QUICK = CoordinatorConfig(
    heartbeat_soft_sec=2, heartbeat_hard_sec=4, lease_ttl_sec=4, scheduler_tick_sec=2
)


@pytest.mark.parametrize("seconds", [0, 0.001, 0.1, 5])
async def test_another_coordinator_continues_parent_and_child(seconds: float) -> None:
    nap = graph(node("x", "sleep", io={"for_sec": 60}), node("y", "work", "x"))
    async with Cluster(handlers=[work], coordinator_config=QUICK) as cluster:
        task_id = await cluster.client.create_task(graph=graph(subflow("s", nap)))
        await cluster.clock.sleep(seconds)
        await cluster.coordinators.pop().stop()
        await cluster.clock.sleep(120)
        await cluster.add_coordinator()
        view = await cluster.client.wait(task_id)
        listed = await cluster.client.list_tasks()
    assert view.status == "finished"
    assert len(listed.items) == 2


async def test_a_task_of_another_origin_is_never_taken_for_a_child() -> None:
    flow = graph(subflow("s", graph(node("x"))))
    async with Cluster(handlers=[work]) as cluster:
        first = await cluster.run(flow, task_id="known")
        child_id = first.nodes["s"].child_task_id or ""
    async with Cluster(handlers=[work]) as cluster:
        await cluster.run(graph(node("own")), task_id=child_id)
        view = await cluster.run(flow, task_id="known")
    assert view.nodes["s"].reason_code == "id_taken"
    assert child_id in str(view.nodes["s"].error)
    assert view.nodes["s"].child_task_id is None


async def test_a_child_that_was_deleted_is_not_created_again() -> None:
    nap = node("nap", "sleep", io={"for_sec": 60})
    flow = graph(subflow("s", graph(node("x", "bad"))), nap, on_node_failure="continue")
    async with Cluster(handlers=Flaky().handlers) as cluster:
        view = await cluster.run(flow)
        child_id = view.nodes["s"].child_task_id or ""
        await cluster.store.purge(finished_before=cluster.clock.now() - 30, limit=10)
        remaining = [one.id for one in (await cluster.client.list_tasks()).items]
        assert remaining == [view.id]
        await cluster.client.retry(view.id)
        again = await cluster.client.wait(view.id)
    assert again.nodes["s"].error == f"task {child_id!r} was deleted"


async def test_a_plugin_may_refuse_a_child_task() -> None:
    class NoChildren:
        @hookimpl
        def flowkit_before_submit(self, task: Any) -> str | None:
            return "no cats" if "cat" in task.params else None

    flow = graph(subflow("s", graph(node("x")), params={"cat": 1}))
    async with Cluster(handlers=[work], plugins=[NoChildren()]) as cluster:
        view = await cluster.run(flow)
    assert view.nodes["s"].reason_code == "subflow_failed"
    assert "no cats" in str(view.nodes["s"].error)


# ---------------------------------------------------------------- views


async def test_explain_names_the_child_task() -> None:
    async with Cluster(handlers=[hang]) as cluster:
        task_id = await cluster.client.create_task(graph=HANGING)
        child = await child_of(cluster.client, task_id)
        said = await cluster.client.explain(task_id, "s")
    worker_id = child.nodes["x"].worker_id
    assert said == f"'s' runs as task '{child.id}', in which 'x' is running on {worker_id!r}."


ASKS = graph(
    node("x", "sleep", io={"for_sec": 1}),
    node("ok", "approval", io={"prompt": "Ship?"}),
    node("y", "sleep", "ok", io={"for_sec": 1}),
)


@pytest.mark.parametrize("mapped", [False, True])
async def test_what_a_task_far_below_waits_for_is_named(mapped: bool) -> None:
    middle = subflow("t", ASKS, **({"map": {"over": [1]}} if mapped else {}))
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=graph(subflow("s", graph(middle))))
        await client.clock.sleep(30)
        child_id = (await client.get_task(task_id)).nodes["s"].child_task_id or ""
        name = "t[0]" if mapped else "t"
        lowest = (await client.get_task(child_id)).nodes[name].child_task_id or ""
        asks = (
            f"{name!r} runs as task {lowest!r}, in which 'ok' waits for a decision since"
            f" 2026-01-01T00:00:00+00:00. `flowkit decide {lowest} ok CHOICE` makes it: 'approve',"
            " 'reject'."
        )
        assert await client.explain(child_id, name) == asks
        assert (
            await client.explain(task_id, "s") == f"'s' runs as task {child_id!r}, in which {asks}"
        )
        for above, one in ((task_id, "s"), (child_id, "t"), (child_id, name)):
            said = f"takes no decision; node 'ok' of its child task '{lowest}' waits for one"
            with pytest.raises(TaskRefused, match=said):
                await client.decide(above, one, "approve", by="ann")
        await client.decide(lowest, "ok", "approve", by="ann")
        with pytest.raises(TaskRefused, match="takes no decision$"):
            await client.decide(task_id, "s", "approve", by="ann")


async def test_explain_says_that_a_child_task_was_quarantined() -> None:
    async with Cluster() as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=graph(subflow("s", ASKS)))
        await client.clock.sleep(30)
        child_id = (await client.get_task(task_id)).nodes["s"].child_task_id or ""
        at = client.clock.now()
        letter = DeadLetter(f"task-{child_id}-1", at, "task", "quarantined", "Error: no", child_id)
        await park_letters(cluster.store, [letter])
        said = await client.explain(task_id, "s")
    assert said.startswith(f"'s' runs as task {child_id!r}. The task was quarantined 0.0 s ago")


async def test_a_retry_runs_the_failed_node_of_a_large_child_task_again() -> None:
    """A record keeps 256 ended nodes. The others are in the archive, also those that failed."""
    runs = []

    @handler("counted")
    async def counted(item: Any, ctx: Any) -> None:
        runs.append(item)
        if item == "bad" and runs.count("bad") == 1:
            raise NodeFailure("it fails", reason_code="bad", permanent=True)

    names = ["bad", *(f"n{number}" for number in range(400))]
    many = [node(name, "counted", io={"input_inline": name}) for name in names]
    flow = graph(node("s", "subflow", io={"graph": graph(*many, on_node_failure="continue")}))
    async with Cluster(handlers=[counted]) as cluster:
        task_id = await cluster.client.create_task(graph=flow)
        assert (await cluster.client.wait(task_id)).status == "failed"
        await cluster.client.retry(task_id)
        view = await cluster.client.wait(task_id)
        assert view.status == "finished"
        assert runs.count("bad") == 2
        assert len(runs) == len(names) + 1
        child = await cluster.client.get_task(str(view.nodes["s"].child_task_id))
        assert child.nodes["bad"].attempt == 2
