"""Maps whose children run child tasks, on a cluster in virtual time."""

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import anyio
import pytest

from flowkit import Client, CoordinatorConfig
from flowkit.errors import TaskRefused
from flowkit.task import TaskView
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import graph, node
from tests.counting_store import CountingStore


def mapped(inner: Any, over: Any, *after: str, **fields: Any) -> dict[str, Any]:
    """Return the node ``m``, a mapped sub-flow."""
    io = {"graph": inner, "params": fields.pop("params", {"n": "${item}"})}
    return node(
        "m", "subflow", *after, io=io, map={"over": over, **fields.pop("map", {})}, **fields
    )


def plus(number: int) -> dict[str, Any]:
    return node("x", "work", io={"input_inline": f"${{params.n + {number}}}"})


@handler("work")
async def work(item: Any) -> Any:
    return item


@handler("hang")
async def hang(item: Any) -> None:
    await anyio.sleep_forever()


@handler("echo")
async def echo(item: Any, ctx: RunContext) -> Any:
    return {"item": item, "params": ctx.params}


class Picky:
    """Handler that fails for some items until they are repaired."""

    def __init__(self, *broken: int) -> None:
        self.broken = set(broken)
        self.runs: list[tuple[str, int]] = []

    @property
    def handlers(self) -> list[Any]:
        @handler("pick")
        async def pick(item: int, ctx: RunContext) -> int:
            self.runs.append((ctx.node_id, item))
            if item in self.broken:
                raise ValueError(f"{item} is broken")
            return item * 10

        return [pick, work, hang]


def picking(node_id: str = "p", *after: str) -> dict[str, Any]:
    return node(node_id, "pick", *after, io={"input_inline": "${params.n}"})


HANGING = graph(node("h", "hang"))


async def children_of(client: Client, view: TaskView) -> dict[str, TaskView]:
    """Return the child tasks of a task, by the node that runs them."""
    ids = {
        node_id: one.child_task_id
        for node_id, one in view.nodes.items()
        if one.child_task_id is not None
    }
    return {node_id: await client.get_task(child_id) for node_id, child_id in ids.items()}


async def until_open(client: Client, number: int) -> None:
    """Wait until this number of tasks run, the parent among them."""
    while len((await client.list_tasks(status="running", limit=1_000)).items) < number:
        await client.clock.sleep(0.01)


# ---------------------------------------------------------------- results


async def test_each_item_has_a_child_task_and_the_results_keep_the_order() -> None:
    async with Cluster(handlers=[work], workers=2) as cluster:
        view = await cluster.run(graph(mapped(graph(plus(1)), [3, 1, 2], labels={"a": "b"})))
        children = await children_of(cluster.client, view)
    assert view.result == {"m": [{"x": 4}, {"x": 2}, {"x": 3}]}
    assert {
        node_id: (child.parent, child.parent_node, child.params, child.labels)
        for node_id, child in children.items()
    } == {f"m[{i}]": (view.id, f"m[{i}]", {"n": n}, {"a": "b"}) for i, n in enumerate([3, 1, 2])}
    assert len({child.id for child in children.values()}) == 3
    assert view.nodes["m"].child_task_id is None


async def test_the_params_of_a_child_task_see_its_item_and_its_number() -> None:
    inner = graph(node("x", "echo", io={"input_inline": "${params.name}"}))
    params = {"name": "${row.id} of ${index}", "all": "${results.r}", "fixed": 1}
    flow = graph(
        node("r", "work", io={"input_inline": [{"id": "a"}, {"id": "b"}]}),
        mapped(inner, "${results.r}", "r", params=params, map={"as": "row"}),
    )
    async with Cluster(handlers=[work, echo]) as cluster:
        view = await cluster.run(flow)
    rows = [{"id": "a"}, {"id": "b"}]
    assert view.result == {
        "m": [
            {"x": {"item": name, "params": {"name": name, "all": rows, "fixed": 1}}}
            for name in ("a of 0", "b of 1")
        ]
    }


async def test_params_that_do_not_fit_fail_the_child_of_that_item() -> None:
    typed = graph(plus(0), params={"properties": {"n": {"type": "integer"}}, "required": ["n"]})
    flow = graph(mapped(typed, [1, "two", None], map={"on_item_failure": "continue"}))
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(flow)
        listed = await cluster.client.list_tasks()
    assert view.result == {"m": [{"x": 1}, None, None]}
    assert [view.nodes[f"m[{i}]"].reason_code for i in range(3)] == [None, "bad_input", "bad_input"]
    assert len(listed.items) == 2


class WithoutItems(InMemoryStore):
    """A store that has lost the items of maps."""

    async def read_archive(self, task_id: str, names: Collection[str]) -> Mapping[str, bytes]:
        found = await super().read_archive(task_id, names)
        return {name: data for name, data in found.items() if not name.startswith("i")}


async def test_a_damaged_item_fails_its_child_once_and_says_so() -> None:
    async with Cluster(store=WithoutItems(), handlers=[work]) as cluster:
        view = await cluster.run(graph(mapped(graph(plus(0)), [1])))
    assert view.nodes["m[0]"].reason_code == "corrupt_record"
    assert "is missing or damaged" in str(view.nodes["m[0]"].error)


async def test_an_empty_list_makes_no_child_task() -> None:
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(graph(mapped(graph(plus(1)), [])))
        listed = await cluster.client.list_tasks()
    assert view.result == {"m": []}
    assert len(listed.items) == 1


async def test_maps_nest() -> None:
    innermost = graph(plus(0), output="${results.x}")
    middle = graph(mapped(innermost, "${params.row}"), output="${results.m}")
    flow = graph(mapped(middle, "${params.rows}", params={"row": "${item}"}))
    async with Cluster(handlers=[work], coordinators=2) as cluster:
        view = await cluster.run(flow, params={"rows": [[1, 2], [], [3]]})
        listed = await cluster.client.list_tasks()
    assert view.result == {"m": [[1, 2], [], [3]]}
    assert len(listed.items) == 7


async def test_a_map_of_a_role_is_in_each_child_task() -> None:
    times = node("t", "pick", map={"over": "${params.row}"}, io={"input_inline": "${item}"})
    flow = graph(mapped(graph(times), [[1, 2], [3]], params={"row": "${item}"}))
    async with Cluster(handlers=Picky().handlers) as cluster:
        view = await cluster.run(flow)
    assert view.result == {"m": [{"t": [10, 20]}, {"t": [30]}]}


async def test_a_loop_runs_for_each_item_in_a_mapped_subflow() -> None:
    rounds = {
        "graph": graph(node("x", io={"input_inline": "${params.n}"}), output="${results.x}"),
        "params": {"n": "${(previous == null ? 0 : previous) + params.n}"},
        "until": "previous >= 6",
    }
    flow = graph(mapped(graph(node("l", "loop", io=rounds), output="${results.l}"), [2, 4, 9]))
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(flow)
        listed = await cluster.client.list_tasks()
    assert view.result == {"m": [6, 8, 9]}
    assert len(listed.items) == 1 + 3 + (3 + 2 + 1)


async def test_five_hundred_child_tasks_finish_at_two_coordinators() -> None:
    flow = graph(mapped(graph(plus(0), output="${results.x}"), "${params.all}"))
    async with Cluster(handlers=[work], coordinators=2) as cluster:
        view = await cluster.run(flow, params={"all": list(range(500))})
        listed = await cluster.client.list_tasks(limit=1_000)
    assert view.result == {"m": list(range(500))}
    assert len(listed.items) == 501


async def test_a_child_task_runs_for_each_artifact_as_it_is_stored() -> None:
    @handler("source")
    async def source(ctx: RunContext) -> AsyncIterator[dict[str, int]]:
        for number in range(3):
            yield {"n": number}
            await ctx.clock.sleep(10)

    each = mapped(graph(plus(1)), {"artifacts": "p"}, "p", params={"n": "${item.n}"})
    async with Cluster(handlers=[work, source]) as cluster:
        view = await cluster.run(graph(node("p", "source"), each))
    assert view.result == {"m": [{"x": 1}, {"x": 2}, {"x": 3}]}
    starts = [view.nodes[f"m[{number}]"].started_at for number in range(3)]
    assert [round((at - view.created_at).total_seconds()) for at in starts if at] == [0, 10, 20]


async def test_max_parallel_bounds_the_open_child_tasks() -> None:
    most = 0
    nap = graph(node("x", "sleep", io={"for_sec": 10}))
    flow = graph(mapped(nap, list(range(7)), map={"max_parallel": 3}))
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=flow)
        while not (view := await client.get_task(task_id)).status.terminal:
            tasks = (await client.list_tasks()).items
            most = max(most, sum(not one.status.terminal for one in tasks if one.id != task_id))
            await client.clock.sleep(0.5)
        took = view.finished_at, view.started_at
    assert view.status == "finished"
    assert most == 3
    assert took[0] is not None
    assert took[1] is not None
    assert (took[0] - took[1]).total_seconds() >= 30


# ---------------------------------------------------------------- failures


async def test_a_failed_child_task_stops_the_others_and_fails_the_map() -> None:
    inner = graph(
        node("p", "pick", io={"input_inline": "${params.n}"}, retry_policy={"max": 0}),
        node("h", "hang", "p"),
    )
    flow = graph(mapped(inner, [1, 2, 3], map={"max_parallel": 2}))
    async with Cluster(handlers=Picky(2).handlers) as cluster:
        view = await cluster.run(flow)
        children = await children_of(cluster.client, view)
        said = await cluster.client.explain(view.id, "m[0]")
        listed = await cluster.client.list_tasks()
    failed = children["m[1]"]
    assert view.status == "failed"
    assert view.nodes["m"].reason_code == "map_item_failed"
    assert view.nodes["m"].error == (
        f"'m[1]' failed: subflow_failed: task {failed.id!r} failed: node 'p' failed: bad_input:"
        " ValueError: 2 is broken"
    )
    statuses = [view.nodes[f"m[{i}]"].status for i in range(3)]
    assert statuses == ["cancelled", "failed", "cancelled"]
    assert children["m[0]"].status == "cancelled"
    assert children["m[0]"].error == (
        "node 'm[0]' of the parent was stopped: another child of 'm' failed"
    )
    assert said == "'m[0]' was cancelled: another child of 'm' failed."
    assert len(listed.items) == 3
    assert view.finished_at is not None
    assert view.finished_at >= max(one.finished_at for one in children.values() if one.finished_at)


async def test_under_continue_a_failed_child_task_leaves_null() -> None:
    flow = graph(mapped(graph(picking()), [1, 2, 3], map={"on_item_failure": "continue"}))
    async with Cluster(handlers=Picky(2).handlers) as cluster:
        view = await cluster.run(flow)
    assert (view.status, view.result) == ("finished", {"m": [{"p": 10}, None, {"p": 30}]})
    assert view.nodes["m[1]"].reason_code == "subflow_failed"


async def test_a_child_task_that_is_cancelled_alone_fails_its_child() -> None:
    flow = graph(mapped(HANGING, [1, 2]))
    async with Cluster(handlers=[hang]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=flow)
        await until_open(client, 3)
        children = await children_of(client, await client.get_task(task_id))
        await client.cancel(children["m[0]"].id, "not this one")
        view = await client.wait(task_id)
        other = await client.get_task(children["m[1]"].id)
    assert view.nodes["m[0]"].reason_code == "subflow_failed"
    assert "not this one" in str(view.nodes["m"].error)
    assert other.status == "cancelled"


async def test_a_retry_policy_retries_the_child_task_of_the_item_alone() -> None:
    picky = Picky(2)
    policy = {"max": 2, "backoff_sec": 5, "jitter": 0}
    flow = graph(mapped(graph(picking()), [1, 2], retry_policy=policy))
    async with Cluster(handlers=picky.handlers) as cluster:
        view = await cluster.run(flow)
        listed = await cluster.client.list_tasks()
    assert [view.nodes[f"m[{i}]"].attempt for i in range(2)] == [1, 3]
    assert picky.runs == [("p", 1), ("p", 2), ("p", 2), ("p", 2)]
    assert len(listed.items) == 3


async def test_a_task_of_another_origin_is_never_taken_for_a_child_task() -> None:
    flow = graph(mapped(graph(plus(0)), [1, 2], map={"on_item_failure": "continue"}))
    async with Cluster(handlers=[work]) as cluster:
        first = await cluster.run(flow, task_id="known")
        child_id = first.nodes["m[1]"].child_task_id or ""
    async with Cluster(handlers=[work]) as cluster:
        await cluster.run(graph(node("own")), task_id=child_id)
        view = await cluster.run(flow, task_id="known")
    assert view.result == {"m": [{"x": 1}, None]}
    assert view.nodes["m[1]"].reason_code == "id_taken"


# ---------------------------------------------------------------- retries by hand


async def test_a_retry_goes_on_in_the_child_tasks_where_they_failed() -> None:
    picky = Picky(2)
    inner = graph(
        node("s", "work"),
        picking("a", "s"),
        node("b", "work", "a", io={"input_inline": "${results.a + 1}"}),
    )
    flow = graph(mapped(inner, [1, 2, 3], map={"max_parallel": 1}))
    async with Cluster(handlers=picky.handlers) as cluster:
        view = await cluster.run(flow)
        assert view.nodes["m[1]"].status == "failed"
        picky.broken.clear()
        await cluster.client.retry(view.id, from_nodes=["m[1]"])
        again = await cluster.client.wait(view.id)
        child = await cluster.client.get_task(again.nodes["m[1]"].child_task_id or "")
    assert again.result == {"m": [{"b": 11}, {"b": 21}, {"b": 31}]}
    assert again.nodes["m[1]"].child_task_id == view.nodes["m[1]"].child_task_id
    assert again.nodes["m[0]"].finished_at == view.nodes["m[0]"].finished_at
    assert picky.runs == [("a", 1), ("a", 2), ("a", 2), ("a", 3)]
    assert (child.nodes["s"].attempt, child.nodes["a"].attempt) == (1, 2)


async def test_a_finished_child_that_runs_again_has_a_new_child_task() -> None:
    picky = Picky(2)
    flow = graph(mapped(graph(picking()), [1, 3]), node("z", "pick", "m", io={"input_inline": 2}))
    async with Cluster(handlers=picky.handlers) as cluster:
        view = await cluster.run(flow)
        picky.broken.clear()
        await cluster.client.retry(view.id, from_nodes=["m[1]"])
        again = await cluster.client.wait(view.id)
    assert again.status == "finished"
    same = [
        again.nodes[f"m[{i}]"].child_task_id == view.nodes[f"m[{i}]"].child_task_id for i in (0, 1)
    ]
    assert same == [True, False]
    assert picky.runs == [("p", 1), ("p", 3), ("z", 2), ("p", 3), ("z", 2)]


async def test_failed_children_keep_their_child_tasks_when_a_finished_one_runs_again() -> None:
    picky = Picky(2)
    flow = graph(mapped(graph(picking()), [1, 2, 3], map={"max_parallel": 1}))
    async with Cluster(handlers=picky.handlers) as cluster:
        view = await cluster.run(flow)
        picky.broken.clear()
        await cluster.client.retry(view.id, from_nodes=["m[0]"])
        again = await cluster.client.wait(view.id)
    assert again.result == {"m": [{"p": 10}, {"p": 20}, {"p": 30}]}
    assert again.nodes["m[0]"].child_task_id != view.nodes["m[0]"].child_task_id
    assert again.nodes["m[1]"].child_task_id == view.nodes["m[1]"].child_task_id


async def test_a_map_that_runs_again_evaluates_its_items_for_new_child_tasks() -> None:
    picky = Picky(7)
    flow = graph(
        node("r", "pick", io={"input_inline": 1}),
        mapped(graph(picking()), "${[results.r, 5]}", "r"),
        node("z", "pick", "m", io={"input_inline": 7}),
    )
    async with Cluster(handlers=picky.handlers) as cluster:
        view = await cluster.run(flow)
        picky.broken.clear()
        await cluster.client.retry(view.id, from_nodes=["m"])
        again = await cluster.client.wait(view.id)
        listed = await cluster.client.list_tasks()
    assert again.status == "finished"
    first, second = ({one.nodes[f"m[{i}]"].child_task_id for i in (0, 1)} for one in (view, again))
    assert first.isdisjoint(second)
    assert len(listed.items) == 5


async def test_a_child_task_whose_child_has_ended_is_retried_through_its_parent() -> None:
    picky = Picky(1)
    async with Cluster(handlers=picky.handlers) as cluster:
        client = cluster.client
        view = await cluster.run(graph(mapped(graph(picking()), [1])))
        with pytest.raises(TaskRefused, match=f"retry the task '{view.id}'"):
            await client.retry(view.nodes["m[0]"].child_task_id or "")
        picky.broken.clear()
        letters = await client.dead_letters(task_id=view.id)
        assert [one.node_id for one in letters.items] == ["m[0]"]
        await client.retry_dead_letters([one.letter_id for one in letters.items])
        again = await client.wait(view.id)
    assert again.result == {"m": [{"p": 10}]}


async def test_the_dead_letter_of_a_child_fills_its_place_in_the_result() -> None:
    picky = Picky(2)
    flow = graph(
        mapped(graph(picking()), [1, 2, 3], map={"on_item_failure": "continue"}),
        node("z", "work", "m", io={"input_inline": "${results.m}"}),
    )
    async with Cluster(handlers=picky.handlers) as cluster:
        view = await cluster.run(flow)
        picky.broken.clear()
        letters = await cluster.client.dead_letters(task_id=view.id)
        await cluster.client.retry_dead_letters([one.letter_id for one in letters.items])
        again = await cluster.client.wait(view.id)
    assert view.result == {"z": [{"p": 10}, None, {"p": 30}]}
    assert again.result == {"z": [{"p": 10}, {"p": 20}, {"p": 30}]}
    assert sorted(picky.runs[:3]) == [("p", 1), ("p", 2), ("p", 3)]
    assert picky.runs[3:] == [("p", 2)]


async def test_a_retry_goes_down_through_maps_in_maps() -> None:
    picky = Picky(5)
    middle = graph(mapped(graph(picking()), "${params.row}"))
    flow = graph(mapped(middle, [[4], [5, 6]], params={"row": "${item}"}))
    async with Cluster(handlers=picky.handlers) as cluster:
        view = await cluster.run(flow)
        picky.broken.clear()
        await cluster.client.retry(view.id)
        again = await cluster.client.wait(view.id)
        listed = await cluster.client.list_tasks()
    assert view.status == "failed"
    assert again.result == {"m": [{"m": [{"p": 40}]}, {"m": [{"p": 50}, {"p": 60}]}]}
    assert len(listed.items) == 1 + 2 + 3


# ---------------------------------------------------------------- down


async def test_a_cancellation_goes_down_and_the_parent_ends_after_the_child_tasks() -> None:
    middle = graph(mapped(HANGING, [1, 2]))
    async with Cluster(handlers=[hang]) as cluster:
        client = cluster.client
        flow = graph(mapped(middle, [1, 2], map={"max_parallel": 1}))
        task_id = await client.create_task(graph=flow)
        await until_open(client, 4)
        await client.cancel(task_id, "enough")
        view = await client.wait(task_id)
        listed = (await client.list_tasks()).items
    assert [one.status for one in listed] == ["cancelled"] * 4
    assert view.error == "enough"
    assert all(one.finished_at <= view.finished_at for one in listed)
    assert [view.nodes[f"m[{i}]"].status for i in (0, 1)] == ["cancelled", "cancelled"]
    assert view.nodes["m[1]"].child_task_id is None


async def test_a_forced_cancellation_ends_what_the_child_tasks_do_at_their_end() -> None:
    stubborn = graph(node("x", "sleep", io={"for_sec": 10}), **{"finally": [node("f", "hang")]})
    async with Cluster(handlers=[hang]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=graph(mapped(stubborn, [1, 2])))
        await client.clock.sleep(1)
        await client.cancel(task_id)
        await client.clock.sleep(600)
        view = await client.get_task(task_id)
        assert (view.status, view.nodes["m[1]"].status) == ("cancelling", "cancelling")
        await client.cancel(task_id, force=True)
        assert (await client.wait(task_id)).status == "cancelled"


async def test_the_deadline_of_the_parent_stops_the_child_tasks() -> None:
    async with Cluster(handlers=[hang]) as cluster:
        view = await cluster.run(graph(mapped(HANGING, [1, 2]), deadline_sec=30))
        children = await children_of(cluster.client, view)
    assert (view.status, view.nodes["m[0]"].reason_code) == ("failed", "deadline_exceeded")
    assert {one.error for one in children.values()} == {
        f"node 'm[{i}]' of the parent was stopped: the task's deadline passed" for i in (0, 1)
    }


async def test_a_child_task_that_takes_too_long_is_stopped_and_tried_again() -> None:
    limits = {"timeouts": {"start_to_close_sec": 20}, "retry_policy": {"max": 1, "jitter": 0}}
    nap = graph(node("x", "sleep", io={"for_sec": "${params.n}"}))
    flow = graph(mapped(nap, [1, 90], map={"on_item_failure": "continue"}, **limits))
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(flow)
        child = await cluster.client.get_task(view.nodes["m[1]"].child_task_id or "")
    late = view.nodes["m[1]"]
    assert (late.reason_code, late.attempt) == ("start_to_close_timeout", 2)
    assert (view.nodes["m[0]"].attempt, child.status) == (1, "cancelled")


async def test_a_pause_and_its_end_go_down_and_no_child_begins_meanwhile() -> None:
    nap = graph(node("x", "sleep", io={"for_sec": 60}), node("y", "work", "x"))
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        flow = graph(mapped(nap, [1, 2, 3], map={"max_parallel": 2}))
        task_id = await client.create_task(graph=flow)
        await client.clock.sleep(7)
        await client.pause(task_id)
        await client.clock.sleep(1)  # before the next check of the child tasks
        listed = (await client.list_tasks()).items
        assert [one.status for one in listed] == ["paused"] * 3
        await client.clock.sleep(300)
        assert len((await client.list_tasks()).items) == 3
        await client.resume(task_id)
        view = await client.wait(task_id)
    assert view.result == {"m": [{"y": None}] * 3}


# ---------------------------------------------------------------- losses


QUICK = CoordinatorConfig(
    heartbeat_soft_sec=2, heartbeat_hard_sec=4, lease_ttl_sec=4, scheduler_tick_sec=2
)


@pytest.mark.parametrize("seconds", [0, 0.001, 0.1, 5])
async def test_another_coordinator_continues_a_map_and_its_child_tasks(seconds: float) -> None:
    nap = graph(node("x", "sleep", io={"for_sec": 60}), node("y", "work", "x"))
    async with Cluster(handlers=[work], coordinator_config=QUICK) as cluster:
        flow = graph(mapped(nap, [1, 2, 3], map={"max_parallel": 2}))
        task_id = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(seconds)
        await cluster.coordinators.pop().stop()
        await cluster.clock.sleep(120)
        await cluster.add_coordinator()
        view = await cluster.client.wait(task_id)
        listed = await cluster.client.list_tasks()
    assert view.status == "finished"
    assert len(listed.items) == 4


# ---------------------------------------------------------------- phases


async def test_a_mapped_subflow_of_finally_runs_at_each_end() -> None:
    picky = Picky(1)
    flow = graph(
        node("a", "pick", io={"input_inline": 1}),
        **{"finally": [mapped(graph(plus(0)), [7, 8])]},
    )
    async with Cluster(handlers=picky.handlers) as cluster:
        client = cluster.client
        view = await cluster.run(flow)
        assert (view.status, view.nodes["m"].result) == ("failed", [{"x": 7}, {"x": 8}])
        picky.broken.clear()
        await client.retry(view.id)
        again = await client.wait(view.id)
        listed = await client.list_tasks()
    assert (again.status, again.nodes["m"].result) == ("finished", [{"x": 7}, {"x": 8}])
    assert again.nodes["m[0]"].child_task_id != view.nodes["m[0]"].child_task_id
    assert len(listed.items) == 5


async def test_a_cancel_of_the_parent_does_not_reach_the_child_tasks_of_finally() -> None:
    nap = graph(node("x", "sleep", io={"for_sec": 60}))
    flow = graph(node("a", "work"), **{"finally": [mapped(nap, [1, 2])]})
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=flow)
        await client.clock.sleep(10)
        await client.cancel(task_id)
        view = await client.wait(task_id)
        children = await children_of(client, view)
    assert [one.status for one in children.values()] == ["finished", "finished"]


# ---------------------------------------------------------------- views


async def test_explain_names_the_child_task_of_a_child() -> None:
    async with Cluster(handlers=[hang]) as cluster:
        client = cluster.client
        flow = graph(mapped(HANGING, [1, 2], map={"max_parallel": 1}))
        task_id = await client.create_task(graph=flow)
        await until_open(client, 2)
        child_id = (await client.get_task(task_id)).nodes["m[0]"].child_task_id
        worker_id = (await client.get_task(child_id or "")).nodes["h"].worker_id
        said = [await client.explain(task_id, one) for one in ("m", "m[0]", "m[1]")]
    assert said[0] == "'m' is running: 0 of its 2 children have ended."
    assert said[1] == (
        f"'m[0]' runs as task '{child_id}', in which 'h' is running on {worker_id!r}."
    )
    assert said[2] == "'m[1]' waits because max_parallel children of 'm' (1) are in flight."


async def test_nodes_pages_the_children_with_their_child_tasks() -> None:
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(graph(mapped(graph(plus(0)), list(range(5)))))
        page = await cluster.client.nodes(view.id, map="m", limit=3)
    assert [one.node_id for one in page.items] == ["m[0]", "m[1]", "m[2]"]
    assert [one.child_task_id for one in page.items] == [
        view.nodes[f"m[{i}]"].child_task_id for i in range(3)
    ]


# ---------------------------------------------------------------- cost


async def test_the_cost_of_a_child_task_does_not_grow_with_their_number() -> None:
    """The second half of the child tasks begin one after the other, so each is checked at other
    times.
    """
    nap = graph(node("x", "sleep", io={"for_sec": "${params.n}"}))
    costs = []
    for size in (40, 400):
        store = CountingStore()
        async with Cluster(store=store, handlers=[work]) as cluster:
            half = size // 2
            naps = [*(50 * number / half for number in range(half)), *[600] * half]
            await cluster.run(graph(mapped(nap, naps, map={"max_parallel": half})))
        costs.append((store.loads.total() / size, store.committed / size))
    (read, committed), (read_of_many, committed_of_many) = costs
    assert read_of_many <= 1.1 * read
    assert committed_of_many <= 1.1 * committed
