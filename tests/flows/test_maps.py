"""Maps on a cluster: items, results, failures, retries and restarts."""

import re
from typing import Any

import anyio
import pytest

from flowkit import CoordinatorConfig
from flowkit.errors import TaskNotFound, TaskRefused
from flowkit.task import TaskView
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit_testing import Cluster
from tests.builders import DAY, graph, node

ITEM = {"input_inline": {"item": "${item}", "index": "${index}"}}
ONCE = {"retry_policy": {"max": 0}}


@handler("double")
async def double(item: Any) -> int:
    return int(item["item"]) * 2


@handler("seen")
async def seen(item: Any, ctx: RunContext) -> dict[str, Any]:
    return {"item": item, "node": ctx.node_id, "results": dict(ctx.results)}


@handler("rows")
async def rows(item: Any) -> Any:
    return item


class Flaky:
    """A handler that fails for the items that are ``broken``."""

    def __init__(self, *broken: int) -> None:
        self.broken = set(broken)
        self.ran: list[int] = []

    async def run(self, item: Any) -> int:
        number = item["item"]
        self.ran.append(number)
        if number in self.broken:
            raise RuntimeError(f"item {number} is broken")
        return int(number) * 2


def flaky(handled: Flaky) -> dict[str, Any]:
    return {"flaky": handler("flaky")(handled.run)}


def mapped(over: Any, type: str = "double", **fields: Any) -> dict[str, Any]:  # noqa: A002
    spec = {"over": over, **fields.pop("map", {})}
    return node("m", type, **{"io": ITEM, **fields, "map": spec})


async def result(cluster: Cluster, *nodes: dict[str, Any], **params: Any) -> Any:
    view = await cluster.run(graph(*nodes), params=params)
    assert view.status == "finished", view.error
    return view.result


async def failed(cluster: Cluster, *nodes: dict[str, Any], **params: Any) -> TaskView:
    view = await cluster.run(graph(*nodes), params=params)
    assert view.status == "failed"
    return view


async def test_the_result_of_a_map_has_the_results_of_its_children_in_order() -> None:
    async with Cluster(handlers=[double], workers=2) as cluster:
        assert await result(cluster, mapped([3, 1, 2])) == {"m": [6, 2, 4]}


async def test_the_items_of_a_map_are_the_value_of_an_expression() -> None:
    async with Cluster(handlers=[double, rows]) as cluster:
        above = node("r", "rows", io={"input_inline": {"found": [4, 5]}})
        below = mapped("${results.r.found.map(x, x + params.add)}", depends_on=["r"])
        assert await result(cluster, above, below, add=1) == {"m": [10, 12]}


async def test_a_list_of_items_may_contain_expressions() -> None:
    async with Cluster(handlers=[double]) as cluster:
        assert await result(cluster, mapped([1, "${params.x}"]), x=7) == {"m": [2, 14]}


async def test_a_child_sees_its_item_and_its_number_and_has_an_id_of_its_own() -> None:
    async with Cluster(handlers=[seen]) as cluster:
        inline = {"row": "${row.id} of ${index}"}
        m = mapped(
            [{"id": "a"}, {"id": "b"}], "seen", io={"input_inline": inline}, map={"as": "row"}
        )
        found = (await result(cluster, m))["m"]
    assert [(child["item"], child["node"]) for child in found] == [
        ({"row": "a of 0"}, "m[0]"),
        ({"row": "b of 1"}, "m[1]"),
    ]


async def test_children_see_the_results_of_parents_except_the_one_with_the_items() -> None:
    parents = (
        node("r", "rows", io={"input_inline": [1]}),
        node("other", "rows", io={"input_inline": "x"}),
    )
    async with Cluster(handlers=[seen, rows]) as cluster:
        m = mapped("${results.r}", "seen", depends_on=["r", "other"])
        found = (await result(cluster, *parents, m))["m"]
    assert found[0]["results"] == {"other": "x"}


async def test_children_see_the_results_that_their_input_names() -> None:
    above = node("r", "rows", io={"input_inline": [1, 2]})
    inline = {"item": "${item}", "all": "${size(results.r)}"}
    async with Cluster(handlers=[seen, rows]) as cluster:
        m = mapped("${results.r}", "seen", depends_on=["r"], io={"input_inline": inline})
        found = (await result(cluster, above, m))["m"]
    assert found[1]["item"] == {"item": 2, "all": 2}
    assert found[1]["results"] == {"r": [1, 2]}


async def test_an_empty_list_gives_an_empty_result() -> None:
    async with Cluster(handlers=[double]) as cluster:
        assert await result(cluster, mapped("${params.none}"), none=[]) == {"m": []}


@pytest.mark.parametrize("size", [201, 1_500])
async def test_a_large_map_is_evaluated_and_collected_beside_other_work(size: int) -> None:
    async with Cluster(handlers=[double]) as cluster:
        found = await result(cluster, mapped("${params.items}"), items=list(range(size)))
    assert found["m"] == [2 * number for number in range(size)]


async def test_a_map_calls_a_coordinator_function_for_each_item() -> None:
    counted = node(
        "m",
        "coordinator_fn",
        map={"over": [1, 2, 3], "max_parallel": 1},
        io={"fn": "vars.incr", "fn_args": {"key": "sum", "by": "${item}"}},
    )
    async with Cluster() as cluster:
        view = await cluster.run(graph(counted))
    assert view.vars == {"sum": 6}


async def test_a_value_that_is_not_a_list_fails_the_map() -> None:
    async with Cluster(handlers=[double]) as cluster:
        view = await failed(cluster, mapped("${params.x}"), x=3)
    assert view.error == "node 'm' failed: bad_map: map.over must be a list, not a number"


async def test_an_expression_that_cannot_be_evaluated_fails_the_map() -> None:
    async with Cluster(handlers=[double]) as cluster:
        view = await failed(cluster, mapped("${params.missing}"))
    assert view.nodes["m"].reason_code == "bad_expression"
    assert "/map/over" in (view.nodes["m"].error or "")


async def test_more_items_than_the_limit_fail_the_map() -> None:
    cfg = CoordinatorConfig(limits={"max_map_items": 2})
    async with Cluster(handlers=[double], coordinator_config=cfg) as cluster:
        view = await failed(cluster, mapped([1, 2, 3]))
    assert view.nodes["m"].reason_code == "map_too_large"


async def test_results_above_the_limit_fail_the_map() -> None:
    cfg = CoordinatorConfig(limits={"max_result_bytes": 5})
    async with Cluster(handlers=[double], coordinator_config=cfg) as cluster:
        view = await failed(cluster, mapped([1000, 2000, 3000]))
    assert view.nodes["m"].error == (
        "the results of the children have more than 5 bytes as JSON (limits.max_result_bytes);"
        " store them elsewhere, and return their places"
    )


async def test_one_result_above_the_limit_of_a_message_fails_the_map() -> None:
    @handler("large")
    async def large(size: int) -> str:
        return "x" * size

    async with Cluster(handlers=[large]) as cluster:
        m = mapped([1, 2_000_000], "large", io={"input_inline": "${item}"})
        view = await failed(cluster, m)
    assert view.nodes["m[1]"].reason_code == "result_too_large"
    assert "'m[1]' failed: result_too_large: the result has 2000002 bytes as JSON" in (
        view.error or ""
    )


async def test_a_child_that_fails_fails_the_map_and_is_named() -> None:
    async with Cluster(handlers=flaky(Flaky(2))) as cluster:
        view = await failed(cluster, mapped([1, 2, 3], "flaky", map={"max_parallel": 1}, **ONCE))
        explained = [await cluster.client.explain(view.id, f"m[{n}]") for n in (1, 2)]
    assert view.error == (
        "node 'm' failed: map_item_failed: 'm[1]' failed: unexpected_error: RuntimeError: item 2 is"
        " broken"
    )
    assert [view.nodes[f"m[{n}]"].status for n in (0, 1, 2)] == ["finished", "failed", "cancelled"]
    assert explained == [
        "'m[1]' failed after 1 attempt (unexpected_error: RuntimeError: item 2 is broken).",
        "'m[2]' was cancelled: another child of 'm' failed.",
    ]


async def test_with_continue_failed_children_leave_null_in_the_result() -> None:
    spec = {"on_item_failure": "continue"}
    async with Cluster(handlers=flaky(Flaky(2))) as cluster:
        found = await result(cluster, mapped([1, 2, 3], "flaky", map=spec, **ONCE))
    assert found == {"m": [2, None, 6]}


async def test_a_retry_runs_only_the_children_that_have_not_finished() -> None:
    handled = Flaky(2)
    async with Cluster(handlers=flaky(handled)) as cluster:
        view = await failed(cluster, mapped([1, 2, 3], "flaky", map={"max_parallel": 1}, **ONCE))
        handled.broken.clear()
        await cluster.client.retry(view.id)
        view = await cluster.client.wait(view.id, timeout=DAY)
    assert (view.status, view.result) == ("finished", {"m": [2, 4, 6]})
    assert handled.ran == [1, 2, 2, 3]


async def test_a_retry_of_one_child_runs_it_and_the_nodes_below_the_map() -> None:
    handled = Flaky(9)
    nodes = (
        mapped([1, 2, 3], "flaky"),
        node("z", "flaky", depends_on=["m"], io={"input_inline": {"item": 9}}, **ONCE),
    )
    async with Cluster(handlers=flaky(handled)) as cluster:
        view = await failed(cluster, *nodes)
        handled.broken.clear()
        await cluster.client.retry(view.id, from_nodes=["m[1]"])
        view = await cluster.client.wait(view.id, timeout=DAY)
    assert view.status == "finished"
    assert sorted(handled.ran) == [1, 2, 2, 3, 9, 9]


async def test_a_node_below_a_failed_map_is_retried_with_a_child_of_it() -> None:
    handled = Flaky(2)
    nodes = (
        mapped([1, 2], "flaky", **ONCE),
        node("z", "flaky", depends_on=["m"], io={"input_inline": {"item": 9}}),
    )
    async with Cluster(handlers=flaky(handled)) as cluster:
        view = await failed(cluster, *nodes)
        with pytest.raises(TaskRefused, match="'z' cannot run without node 'm'"):
            await cluster.client.retry(view.id, from_nodes=["z"])
        handled.broken.clear()
        await cluster.client.retry(view.id, from_nodes=["m[1]", "z"])
        view = await cluster.client.wait(view.id, timeout=DAY)
    assert (view.status, handled.ran) == ("finished", [1, 2, 2, 9])


async def test_a_retry_of_a_large_map_finds_the_records_of_its_children() -> None:
    handled = Flaky(450)
    items = list(range(600))
    async with Cluster(handlers=flaky(handled)) as cluster:
        view = await failed(cluster, mapped(items, "flaky", map={"max_parallel": 8}, **ONCE))
        handled.broken.clear()
        await cluster.client.retry(view.id)
        view = await cluster.client.wait(view.id, timeout=DAY)
    assert view.result == {"m": [2 * item for item in items]}
    assert sorted(set(handled.ran)) == items


async def test_the_dead_letter_of_a_child_runs_it_again() -> None:
    handled = Flaky(2)
    spec = {"on_item_failure": "continue"}
    async with Cluster(handlers=flaky(handled)) as cluster:
        view = await cluster.run(graph(mapped([1, 2], "flaky", map=spec, **ONCE)))
        letters = await cluster.client.dead_letters(task_id=view.id)
        assert [letter.node_id for letter in letters.items] == ["m[1]"]
        handled.broken.clear()
        await cluster.client.retry_dead_letters([letters.items[0].letter_id])
        view = await cluster.client.wait(view.id, timeout=DAY)
        left = await cluster.client.dead_letters(task_id=view.id)
    assert (view.result, left.items) == ({"m": [2, 4]}, [])


async def test_pages_of_nodes_have_all_children_of_a_map() -> None:
    async with Cluster(handlers=[double]) as cluster:
        view = await cluster.run(graph(mapped(list(range(1_005)))))
        assert len(view.nodes) == 1_001
        found, after = [], None
        while True:
            page = await cluster.client.nodes(view.id, map="m", limit=400, after=after)
            found += [one.node_id for one in page.items]
            after = page.next
            if after is None:
                break
        everything = await cluster.client.nodes(view.id, limit=2_000)
        ended = await cluster.client.nodes(view.id, map="m", status="finished", limit=3)
        none = await cluster.client.nodes(view.id, status="failed")
    assert found == [f"m[{number}]" for number in range(1_005)]
    assert [one.node_id for one in everything.items] == ["m", *found]
    assert [one.result for one in ended.items] == [0, 2, 4]
    assert ended.next is not None
    assert (none.items, none.next) == ([], None)


async def test_the_view_of_a_large_map_counts_all_its_children() -> None:
    handled, spec = Flaky(5), {"on_item_failure": "continue"}
    async with Cluster(handlers=flaky(handled)) as cluster:
        view = await cluster.run(graph(mapped(list(range(1_005)), "flaky", map=spec, **ONCE)))
        (one,) = (await cluster.client.nodes(view.id, limit=1)).items
    assert view.nodes["m"].children == {"finished": 1_004, "failed": 1}
    assert one.children == view.nodes["m"].children
    assert view.nodes["m[0]"].children == {}


async def test_children_have_the_reason_of_their_map_after_its_record_was_archived() -> None:
    @handler("long")
    async def long(item: Any, ctx: RunContext) -> None:
        await ctx.cancellable(anyio.sleep(DAY))

    nodes = (
        mapped([1, 2], "long", map={"max_parallel": 1}),
        node("a", "double", io={"input_inline": {"item": 1}}),
        node("z", "rows", depends_on=["m", "a"], fan_in="any", on_satisfied="cancel"),
        *(node(f"n{number}", "rows", depends_on=["z"]) for number in range(600)),
    )
    async with Cluster(handlers=[long, double, rows]) as cluster:
        view = await cluster.run(graph(*nodes))
        page = await cluster.client.nodes(view.id, map="m")
        explained = await cluster.client.explain(view.id, "m[1]")
    assert {(one.reason_code, one.error) for one in page.items} == {
        ("not_needed", "node 'z' needs no more parents")
    }
    assert view.nodes["m[1]"].reason_code == "not_needed"
    assert explained == "'m[1]' was cancelled: node 'z' needs no more parents."


async def test_a_child_that_is_not_in_the_list_any_more_is_not_found() -> None:
    above = node("r", "shrinks")
    broken = node("z", "flaky", depends_on=["m"], io={"input_inline": {"item": 9}}, **ONCE)
    sizes = iter([[1, 2, 3], [1], []])
    shrinks = handler("shrinks")(lambda: next(sizes))
    handlers = {"shrinks": shrinks, "double": double, **flaky(Flaky(9))}
    async with Cluster(handlers=handlers) as cluster:
        view = await failed(cluster, above, mapped("${results.r}", depends_on=["r"]), broken)
        client = cluster.client
        for why in ("the children of 'm' are 'm[0]' to 'm[0]'", "'m' has no children until its"):
            await client.retry(view.id, from_nodes=["r"])
            view = await client.wait(view.id, timeout=DAY)
            known = re.escape(f"has no node 'm[2]': {why}")
            with pytest.raises(TaskRefused, match=known):
                await client.retry(view.id, from_nodes=["m[2]"])
            with pytest.raises(TaskNotFound, match=known):
                await client.explain(view.id, "m[2]")


async def test_a_page_of_nodes_refuses_arguments_that_are_not_valid() -> None:
    async with Cluster(handlers=[double]) as cluster:
        view = await cluster.run(graph(mapped([1])))
        nodes = cluster.client.nodes
        for wrong in ({"limit": 0}, {"status": "odd"}, {"after": "x"}, {"map": "m[0]"}):
            with pytest.raises(ValueError, match=r"limit|odd|cursor|not a map"):
                await nodes(view.id, **wrong)
        with pytest.raises(TaskNotFound):
            await nodes(view.id, map="zzz")


async def test_a_cancelled_task_ends_with_its_children() -> None:
    @handler("long")
    async def long(item: Any, ctx: RunContext) -> None:
        await ctx.cancellable(anyio.sleep(DAY))

    async with Cluster(handlers=[long]) as cluster:
        task_id = await cluster.client.create_task(
            graph=graph(mapped([1, 2, 3], "long", map={"max_parallel": 1}))
        )
        await cluster.clock.sleep(1)
        assert await cluster.client.explain(task_id, "m") == (
            "'m' is running: 0 of its 3 children have ended."
        )
        assert await cluster.client.explain(task_id, "m[2]") == (
            "'m[2]' waits because max_parallel children of 'm' (1) are in flight."
        )
        await cluster.client.cancel(task_id, "not now")
        view = await cluster.client.wait(task_id, timeout=DAY)
    assert view.status == "cancelled"
    assert {one.status for one in view.nodes.values()} == {"cancelled"}
    assert view.nodes["m[2]"].error == "not now"


async def test_artifacts_of_children_are_read_by_the_id_of_the_child() -> None:
    class Stores(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            item = batch.payload["input_inline"]["item"]
            return BatchResult(success=True, artifacts_ref={"item": item})

    async with Cluster(handlers={"stores": Stores()}) as cluster:
        view = await cluster.run(graph(mapped([5, 6], "stores")))
        one = [item.meta async for item in cluster.client.artifacts(view.id, "m[1]")]
        every = sorted([item.node_id async for item in cluster.client.artifacts(view.id)])
    assert (one, every) == ([{"item": 6}], ["m[0]", "m[1]"])


async def test_the_history_of_a_task_has_the_events_of_its_children() -> None:
    async with Cluster(handlers=[double]) as cluster:
        view = await cluster.run(graph(mapped([1, 2])))
        events = [event async for event in cluster.client.watch(view.id)]
    ends = [event.node_id for event in events if event.status == "finished"]
    assert sorted(filter(None, ends)) == ["m", "m[0]", "m[1]"]


async def test_children_read_large_params_once_and_each_handler_has_its_own_copy() -> None:
    found: list[tuple[int, int]] = []

    @handler("adds")
    async def adds(item: Any, ctx: RunContext) -> int:
        found.append((item, len(ctx.params["items"])))
        ctx.params["items"].append("mine")
        return int(item)

    items = list(range(1_000))
    async with Cluster(handlers=[adds]) as cluster:
        m = mapped("${params.items}", "adds", io={"input_inline": "${item + size(params.items)}"})
        view = await cluster.run(graph(m), params={"items": items})
    assert view.result == {"m": [item + 1_000 for item in items]}
    assert {size for _, size in found} == {1_000}


async def test_the_output_of_a_task_reads_the_result_of_a_map() -> None:
    async with Cluster(handlers=[double]) as cluster:
        document = graph(mapped([1, 2])) | {"output": "${results[params.name].map(x, x + 1)}"}
        view = await cluster.run(document, params={"name": "m"})
    assert view.result == [3, 5]


async def test_a_map_in_finally_sees_the_end_of_its_task() -> None:
    reported = node("reported", "rows", map={"over": "${results.find}"})
    reported["io"] = {"input_inline": ["${item}", "${index}", "${task.status}"]}
    document = graph(node("find", "rows", io={"input_inline": ["x", "y"]}))
    async with Cluster(handlers=[rows]) as cluster:
        view = await cluster.run(document | {"finally": [reported]})
    assert view.status == "finished"
    assert view.nodes["reported"].result == [["x", 0, "finished"], ["y", 1, "finished"]]
    assert view.nodes["reported[1]"].phase == "finally"


async def test_the_list_that_is_the_input_of_a_child_may_be_divided() -> None:
    async with Cluster(handlers=[seen]) as cluster:
        io = {"input_inline": "${item}", "batching": {"size": 2}}
        view = await cluster.run(graph(mapped([[1, 2, 3], [4]], "seen", io=io)))
        items = {
            child: [one.meta["item"] async for one in cluster.client.artifacts(view.id, child)]
            for child in ("m[0]", "m[1]")
        }
    assert items == {"m[0]": [[1, 2], [3]], "m[1]": [[4]]}
    assert view.result == {"m": [None, None]}


async def test_a_pause_of_the_task_is_seen_in_the_children_that_it_holds_back() -> None:
    @handler("slow")
    async def slow(item: Any, ctx: RunContext) -> None:
        await ctx.clock.sleep(10)

    async with Cluster(handlers=[slow]) as cluster:
        client = cluster.client
        nodes = [mapped([1, 2, 3], "slow", map={"max_parallel": 1}), mapped([1], "slow")]
        nodes[1] |= {"node_id": "n", "depends_on": ["m"]}
        task_id = await client.create_task(graph=graph(*nodes))
        await cluster.clock.sleep(1)
        await client.pause(task_id)
        view = await client.get_task(task_id)
        statuses = {name: one.status for name, one in view.nodes.items()}
        assert statuses == {
            "m": "running",
            "n": "queued",
            "m[0]": "running",
            "m[1]": "paused",
            "m[2]": "paused",
        }
        assert view.nodes["m"].children == {"running": 1, "paused": 2}
        held_back = await client.nodes(task_id, map="m", status="paused")
        assert [one.node_id for one in held_back.items] == ["m[1]", "m[2]"]
        assert (await client.nodes(task_id, status="queued")).items == [view.nodes["n"]]
        await client.resume(task_id)
        assert (await client.wait(task_id)).status == "finished"
