"""Undos of the children of maps, over a coordinator and a worker."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from flowkit.errors import TaskNotFound, TaskRefused
from flowkit.task import TaskEvent
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import graph, node

pytestmark = pytest.mark.anyio

done: list[Any] = []


@handler("work")
async def work(item: Any, ctx: RunContext) -> Any:
    done.append(ctx.node_id)
    if item == "fail" or item == 13:
        raise ValueError("no such page")
    return {"made": item}


@handler("see")
async def see(item: Any, ctx: RunContext) -> Any:
    done.append(ctx.node_id)
    return {"item": item, "results": ctx.results}


@handler("pick")
async def pick(item: Any, ctx: RunContext) -> None:
    done.append(ctx.node_id)
    if item in (1, 2):
        raise ValueError("not now")


@handler("pages")
async def pages(item: Any) -> Any:
    for number in range(item):
        yield {"number": number}


@handler("wait")
async def wait(item: Any, ctx: RunContext) -> None:
    await ctx.clock.sleep(1000)


class Archive(InMemoryStore):
    """A store that counts the reads of archived records while undos run."""

    undo_reads = 0

    async def read_archive(self, task_id: str, names: Collection[str]) -> Mapping[str, bytes]:
        self.undo_reads += any(name.endswith("~undo") for name in done)
        return await super().read_archive(task_id, names)


HANDLERS = [work, see, pick, pages, wait]
FAILS = {"input_inline": "fail"}
ONCE = {"max": 0}


def mapped(over: Sequence[Any] = (0, 1, 2), **fields: Any) -> dict[str, Any]:
    """Return the map ``m``, whose item is ``n``, one child after the other."""
    undo = {"type": "work", "io": {"input_inline": "${n}"}, **fields.pop("undo", {})}
    spec = {"over": over, "as": "n", "max_parallel": 1, **fields.pop("map", {})}
    return node("m", **{"io": {"input_inline": "${n}"}} | fields, map=spec, undo=undo)


def failing(*nodes: dict[str, Any]) -> dict[str, Any]:
    """Return a graph of these nodes, whose last node fails."""
    return graph(*nodes, node("z", "work", *(one["node_id"] for one in nodes), io=FAILS))


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


async def test_the_undo_of_a_child_sees_its_result_its_item_and_what_other_undos_see() -> None:
    asked = {"made": "${result.made}", "n": "${n}", "i": "${index}", "a": "${results.a.made}"}
    undo = {"type": "see", "io": {"input_inline": {**asked, "all": "${results.m}"}}}
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(failing(node("a"), mapped([5, 6], depends_on=["a"], undo=undo)))
    made = [{"made": 5}, {"made": 6}]
    assert view.nodes["m[1]~undo"].result == {
        "item": {"made": 6, "n": 6, "i": 1, "a": None, "all": made},
        "results": {"m[1]": made[1], "a": {"made": None}, "m": made},
    }
    assert view.nodes["m~undo"].result is None
    assert done == ["a", "m[0]", "m[1]", "z", "m[1]~undo", "m[0]~undo"]


async def test_functions_and_handlers_without_expressions_undo_children() -> None:
    adds = {"type": "coordinator_fn", "io": {"fn": "vars.incr", "fn_args": {"key": "k${n}"}}}
    sees = node("s", map={"over": [1]}, undo={"type": "see"})
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(failing(mapped([3, 4]) | {"undo": adds}, sees))
    assert view.vars == {"k3": 1, "k4": 1}
    assert view.nodes["s[0]~undo"].result["results"] == {"s[0]": {"made": None}}


async def test_the_finished_children_of_a_map_that_failed_are_undone() -> None:
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(graph(mapped([0, 1, 13, 2])))
    assert view.nodes["m"].reason_code == "map_item_failed"
    assert done == ["m[0]", "m[1]", "m[2]", "m[1]~undo", "m[0]~undo"]
    assert view.nodes["m~undo"].children == {"finished": 2, "skipped": 2}
    assert view.nodes["m[2]~undo"].reason_code == "nothing_to_undo"


async def test_the_children_of_a_map_over_artifacts_are_undone_with_their_items() -> None:
    made = node("pages", "pages", io={"input_inline": 40})
    undo = {"io": {"input_inline": "${n.number}"}}
    seen = mapped({"artifacts": "pages"}, depends_on=["pages"], undo=undo)  # type: ignore[arg-type]
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(failing(made, seen))
    undos = [name for name in done if name.endswith("~undo")]
    assert undos == [f"m[{number}]~undo" for number in reversed(range(40))]
    assert view.nodes["m[7]~undo"].result == {"made": 7}


async def test_a_mapped_sub_flow_is_undone_by_the_undo_of_its_node() -> None:
    """The nodes of a child task are undone if that task itself fails."""
    inner = graph(
        node("x", undo={"type": "work"}), node("y", "work", "x", io={"input_inline": "${params.n}"})
    )
    m = node(
        "m",
        "subflow",
        io={"graph": inner, "params": {"n": "${item}"}},
        map={"over": [1, 13, 2], "on_item_failure": "continue", "max_parallel": 1},
        undo={"type": "see", "io": {"input_inline": "${result.y.made}"}},
    )
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(failing(m))
    assert done == ["x", "y", "x", "y", "x~undo", "x", "y", "z", "m[2]~undo", "m[0]~undo"]
    assert view.nodes["m[2]~undo"].result["item"] == 2


async def test_an_undo_that_fails_is_a_dead_letter_which_runs_it_again() -> None:
    undo = {"type": "pick", "retry_policy": ONCE}
    flow = failing(mapped(undo=undo)) | {"finally": [node("tidy")]}
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(flow)
        letters = {
            one.node_id: one.letter_id
            for one in (await cluster.client.dead_letters(task_id=view.id)).items
        }
        assert sorted(letters) == ["m[1]~undo", "m[2]~undo", "z"]
        sentence = await cluster.client.explain(view.id, "m[1]~undo")
        assert sentence.startswith("'m[1]~undo' failed after 1 attempt (bad_input: ValueError: not")
        done.clear()
        (outcome,) = await cluster.client.retry_dead_letters([letters["m[1]~undo"]])
        assert outcome.done, outcome.detail
        view = await cluster.client.wait(view.id)
    assert done == ["m[1]~undo", "tidy"]
    assert view.status == "failed"
    assert view.nodes["m~undo"].children == {"finished": 1, "failed": 2}


async def test_a_retry_runs_undone_children_again_with_new_letters() -> None:
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(graph(mapped([0, 13]), node("below", "work", "m")))
        first = list(done)
        for _ in range(2):
            done.clear()
            await cluster.client.retry(view.id)
            view = await cluster.client.wait(view.id)
            assert done == first == ["m[0]", "m[1]", "m[0]~undo"]
        letters = (await cluster.client.dead_letters(task_id=view.id)).items
    assert [one.node_id for one in letters] == ["m[1]"]


async def test_a_retry_after_a_forced_cancel_keeps_children_whose_undo_has_not_begun() -> None:
    undo = {"type": "wait"}
    async with Cluster(handlers=HANDLERS) as cluster:
        task_id = await cluster.client.create_task(graph=failing(mapped(undo=undo)))
        await cluster.clock.sleep(5)
        assert (await cluster.client.get_task(task_id)).nodes["m[2]~undo"].status == "running"
        await cluster.client.cancel(task_id, force=True)
        view = await cluster.client.wait(task_id)
        assert view.nodes["m~undo"].children == {"cancelled": 3}
        done.clear()
        await cluster.client.retry(task_id)
        await cluster.clock.sleep(5)
        await cluster.client.cancel(task_id, force=True)
        await cluster.client.wait(task_id)
    assert done == ["m[2]", "z"]


async def test_the_children_of_a_map_may_read_all_results_in_a_graph_with_undos() -> None:
    undo = {"type": "see", "io": {"input_inline": "${results}"}}
    m = mapped([1], depends_on=["a"], io={"input_inline": "${results}"}, undo=undo)
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(failing(node("a", undo={"type": "work"}), m))
    assert view.nodes["m[0]"].result == {"made": {"a": {"made": None}}}
    assert view.nodes["m[0]~undo"].result["item"].keys() >= {"a", "m"}


async def test_all_views_show_the_undos_of_children() -> None:
    async with Cluster(handlers=HANDLERS) as cluster:
        client = cluster.client
        view = await cluster.run(failing(mapped()))
        undos = await client.nodes(view.id, map="m~undo", limit=2)
        more = await client.nodes(view.id, map="m~undo", after=undos.next)
        names = [one.node_id for one in (*undos.items, *more.items)]
        assert names == ["m[0]~undo", "m[1]~undo", "m[2]~undo"]
        assert {one.phase for one in undos.items} == {"undo"}
        finished = await client.nodes(view.id, map="m~undo", status="finished")
        assert len(finished.items) == 3
        events: list[TaskEvent] = [event async for event in client.watch(view.id)]
        sentence = await client.explain(view.id, "m[1]~undo")
        with pytest.raises(TaskRefused, match="is an undo, and runs again by itself"):
            await client.retry(view.id, from_nodes=["m[1]~undo"])
        with pytest.raises(TaskNotFound, match=r"the children of 'm~undo' are 'm\[0\]~undo' to"):
            await client.explain(view.id, "m[3]~undo")
    assert sentence == "'m[1]~undo' has finished."
    ends = [one.node_id for one in events if one.status == "finished" and "~" in str(one.node_id)]
    assert ends == ["m[2]~undo", "m[1]~undo", "m[0]~undo", "m~undo"]
    (children,) = [one for one in events if one.node_id == "m~undo" and one.kind == "children"]
    assert children.data == {"number": 3, "added": 3}


async def test_a_large_map_is_undone_in_the_order_in_which_its_children_ended() -> None:
    """Most of the records and of the history are in the archive."""
    size = 700
    flow = failing(mapped(list(range(100, 100 + size)), map={"max_parallel": 50}))
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(flow)
        events = [event async for event in cluster.client.watch(view.id)]
    finished = [str(one.node_id) for one in events if one.status == "finished"]
    children = [name for name in finished if name.startswith("m[") and name[-1] == "]"]
    undos = [name for name in finished if name.startswith("m[") and name[-1] == "o"]
    assert len(children) == size
    assert undos == [f"{name}~undo" for name in reversed(children)]


async def test_the_results_of_children_are_read_from_the_archive_many_at_a_time() -> None:
    store = Archive()
    undo = {"type": "see", "io": {"input_inline": "${result.made}"}}
    async with Cluster(handlers=HANDLERS, store=store) as cluster:
        flow = failing(mapped(list(range(100, 700)), undo=undo, map={"max_parallel": 50}))
        view = await cluster.run(flow)
    assert view.nodes["m[7]~undo"].result["item"] == 107
    assert store.undo_reads < 60


@pytest.mark.parametrize("max_parallel", [1, 3])
async def test_the_undo_of_a_child_pulls_the_artifacts_of_this_child(max_parallel: int) -> None:
    pulled: dict[str, list[int]] = {}

    @handler("remove")
    async def remove(item: Any, ctx: RunContext) -> None:
        pulled.setdefault(ctx.node_id, []).append(item["number"])

    pull = {"input_adapter": "pull.from_artifacts"}
    undo = {"type": "remove", "io": {"input_inline": pull}}
    m = mapped([3, 0, 2], type="pages", undo=undo, map={"max_parallel": max_parallel})
    async with Cluster(handlers=[*HANDLERS, remove]) as cluster:
        view = await cluster.run(failing(m))
    assert pulled == {"m[0]~undo": [0, 1, 2], "m[2]~undo": [0, 1]}
    assert [view.nodes[f"m[{number}]~undo"].status for number in range(3)] == ["finished"] * 3
