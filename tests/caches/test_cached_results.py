"""Results of nodes that are shared by the tasks of the namespace."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from flowkit.task import TaskStatus, TaskView
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster

HOUR = {"ttl_sec": 3_600}
DAY = 86_400
KEYED = {"concurrency_key": "k"}


def fetch(name: str = "fetch", key: Any = "${params.url}", **fields: Any) -> dict[str, Any]:
    return {
        "node_id": name,
        "type": "fetch",
        "cache": {"key": key, **HOUR},
        "io": {"input_inline": {"url": "${params.url}"}},
        **fields,
    }


def flow(*nodes: Mapping[str, Any]) -> dict[str, Any]:
    return {"nodes": list(nodes)}


class Fetcher:
    """Handler that counts its runs: at most one of a url may run at a time."""

    def __init__(self, seconds: float = 10.0, failures: int = 0) -> None:
        self.runs: list[str] = []
        self._seconds = seconds
        self._failures = failures
        self._now: set[str] = set()

    @property
    def handlers(self) -> Sequence[Any]:
        async def run(item: Any, ctx: RunContext) -> str:
            url = str(item["url"])
            assert url not in self._now
            self._now.add(url)
            self.runs.append(url)
            try:
                await ctx.cancellable(ctx.clock.sleep(self._seconds))
            finally:
                self._now.discard(url)
            if len(self.runs) <= self._failures:
                raise ValueError("no answer")
            return f"{url}#{len(self.runs)}"

        return [handler("fetch")(run)]


async def submit(cluster: Cluster, *urls: Any, graph: Any = None) -> list[str]:
    return [
        await cluster.client.create_task(graph=graph or flow(fetch()), params={"url": url})
        for url in urls
    ]


async def ended(cluster: Cluster, ids: Sequence[str]) -> list[TaskView]:
    return [await cluster.client.wait(task_id, 10_000) for task_id in ids]


async def test_a_stored_result_is_taken_instead_of_running() -> None:
    fetcher = Fetcher()
    async with Cluster(coordinators=2, handlers=fetcher.handlers) as cluster:
        [first] = await ended(cluster, await submit(cluster, "a"))
        again, other = await ended(cluster, await submit(cluster, "a", "b"))
        events = [event async for event in cluster.client.watch(again.id)]
    assert fetcher.runs == ["a", "b"]
    assert [view.nodes["fetch"].cached for view in (first, again, other)] == [False, True, False]
    assert (again.result, again.nodes["fetch"].attempt) == (first.result, 0)
    assert [event.data for event in events if event.node_id == "fetch"] == [{"cached": True}]


async def test_of_several_that_begin_at_once_one_runs() -> None:
    fetcher = Fetcher()
    async with Cluster(coordinators=3, workers=2, handlers=fetcher.handlers) as cluster:
        ids = await submit(cluster, *["a"] * 30)
        await cluster.clock.sleep(1)
        waiting = await cluster.client.list_tasks(waiting="cache")
        said = {await cluster.client.explain(one.id, "fetch") for one in waiting.items}
        views = await ended(cluster, ids)
        await cluster.clock.sleep(1)
        assert not await cluster.store.records.scan("cache_queue")
    assert fetcher.runs == ["a"]
    assert {view.nodes["fetch"].result for view in views} == {"a#1"}
    assert sum(view.nodes["fetch"].cached for view in views) == 29
    assert len(waiting.items) == 29
    runs = next(view for view in views if not view.nodes["fetch"].cached)
    computes = f"node 'fetch' of task {runs.id!r}, which has the same cache key"
    worker = runs.nodes["fetch"].worker_id
    running = f"In that task, 'fetch' is running on {worker!r}."
    assert said == {f"'fetch' waits for the result of {computes}. {running}"}


async def test_explain_says_that_the_task_of_the_one_that_runs_is_paused() -> None:
    fetcher = Fetcher()
    inner = flow(fetch(), fetch("again", depends_on=["fetch"], cache=None))
    sub = {"node_id": "s", "type": "subflow", "io": {"graph": inner, "params": {"url": "a"}}}
    graph = {"nodes": [{**sub, "cache": {"key": "k", "ttl_sec": 60}}]}
    async with Cluster(handlers=fetcher.handlers) as cluster:
        [first] = await submit(cluster, "b", graph=graph)
        await cluster.clock.sleep(1)
        [second] = await submit(cluster, "b", graph=graph)
        await cluster.clock.sleep(1)
        await cluster.client.pause(first)
        await cluster.clock.sleep(1_000)
        child = (await cluster.client.get_task(first)).nodes["s"].child_task_id
        said = await cluster.client.explain(second, "s")
        await cluster.client.resume(first)
        views = await ended(cluster, [first, second])
    assert said == (
        f"'s' waits for the result of node 's' of task {first!r}, which has the same cache key. In"
        f" that task, 's' runs as task {child!r}, which is paused: run `flowkit resume {first}`."
    )
    assert [view.nodes["s"].cached for view in views] == [False, True]


def holding(holder: str, key: str, graph: Mapping[str, Any]) -> dict[str, Any]:
    """Return a graph of which the task or a sub-flow holds a key while the nodes run."""
    if holder == "task":
        return {**graph, "concurrency": {"key": key}}
    inner = {"graph": graph, "params": {"url": "${params.url}"}}
    return flow({"node_id": "s", "type": "subflow", "concurrency_key": key, "io": inner})


AFTER_ANOTHER = flow(fetch("before", cache=None), fetch(depends_on=["before"]))


@pytest.mark.parametrize("holder", ["task", "sub-flow"])
@pytest.mark.parametrize("is_held_too", [False, True])
async def test_a_node_that_waits_for_a_key_lets_one_in_the_place_of_the_key_compute(
    holder: str, is_held_too: bool
) -> None:
    fetcher = Fetcher()
    keyed = flow(fetch(concurrency_key="k"))
    async with Cluster(coordinators=2, workers=2, handlers=fetcher.handlers) as cluster:
        began = cluster.clock.now()
        [first] = await submit(cluster, "a", graph=holding(holder, "k", AFTER_ANOTHER))
        await cluster.clock.sleep(1)
        other = holding("task", "other", keyed) if is_held_too else keyed
        [second] = await submit(cluster, "a", graph=other)
        await cluster.clock.sleep(15)
        said = await cluster.client.explain(first, "fetch" if holder == "task" else "s")
        one, two = await ended(cluster, [first, second])
        took = cluster.clock.now() - began
    assert said.endswith("0 are ahead. It lets the other node run first after 30 s.")
    assert (one.status, two.nodes["fetch"].cached) == (TaskStatus.FINISHED, True)
    assert 40 < took < 80
    assert fetcher.runs == ["a", "a"]


async def test_a_node_that_runs_goes_on_while_one_in_the_place_of_a_key_waits() -> None:
    fetcher = Fetcher(100)
    async with Cluster(coordinators=2, workers=2, handlers=fetcher.handlers) as cluster:
        ids = await submit(cluster, "a", graph=flow(fetch(concurrency_key="other")))
        await cluster.clock.sleep(1)
        ids += await submit(cluster, "a", graph=holding("task", "k", flow(fetch())))
        views = await ended(cluster, ids)
    assert fetcher.runs == ["a"]
    assert [view.nodes["fetch"].cached for view in views] == [False, True]


async def test_nodes_that_wait_for_their_keys_take_turns_at_computing_a_result() -> None:
    fetcher = Fetcher(1_000)
    async with Cluster(coordinators=2, workers=3, handlers=fetcher.handlers) as cluster:
        for name in ("x", "y"):
            await submit(cluster, name, graph=flow(fetch(concurrency_key=name)))
        await cluster.clock.sleep(1)
        ids = [
            (await submit(cluster, "a", graph=holding("task", holds, flow(one))))[0]
            for holds, one in (("p", fetch(concurrency_key="x")), ("q", fetch(concurrency_key="y")))
        ]
        views = await ended(cluster, ids)
        turns = [
            [(event.data or {}).get("waiting") async for event in cluster.client.watch(one)]
            for one in ids
        ]
    assert {view.status for view in views} == {TaskStatus.FINISHED}
    assert sorted(fetcher.runs) == ["a", "x", "y"]
    assert all(10 < waits.count("key") < 40 for waits in turns)


async def test_explain_says_that_a_key_and_the_result_of_a_subflow_wait_for_each_other() -> None:
    fetcher = Fetcher()
    inner = {"graph": flow(fetch(cache=None, concurrency_key="k")), "params": {"url": "a"}}
    sub = {"node_id": "s", "type": "subflow", "io": inner, "cache": {"key": "k", **HOUR}}
    graph = {"nodes": [fetch("before", cache=None), sub | {"depends_on": ["before"]}]}
    async with Cluster(handlers=fetcher.handlers) as cluster:
        [first] = await submit(cluster, "a", graph={**graph, "concurrency": {"key": "k"}})
        await cluster.clock.sleep(1)
        [second] = await submit(cluster, "a", graph=flow(sub))
        await cluster.clock.sleep(1_000)
        said = await cluster.client.explain(first, "s")
        of_second = await cluster.client.explain(second, "s")
        child = (await cluster.client.get_task(second)).nodes["s"].child_task_id
        await cluster.client.cancel(child)
        [view] = await ended(cluster, [first])
    assert said.endswith(
        "0 are ahead. So the two nodes wait for each other: `flowkit cancel"
        f" {child}` lets the other one run."
    )
    assert of_second.endswith("; 0 are ahead.")
    assert view.status == "finished"


async def test_if_the_one_that_runs_fails_the_next_runs() -> None:
    fetcher = Fetcher(failures=1)
    async with Cluster(handlers=fetcher.handlers) as cluster:
        views = await ended(cluster, await submit(cluster, *["a"] * 3))
    assert fetcher.runs == ["a", "a"]
    assert sorted(view.status for view in views) == ["failed", "finished", "finished"]


async def test_if_the_one_that_runs_is_cancelled_the_next_runs() -> None:
    fetcher = Fetcher()
    async with Cluster(handlers=fetcher.handlers) as cluster:
        [first] = await submit(cluster, "a")
        await cluster.clock.sleep(5)
        [second] = await submit(cluster, "a")
        await cluster.clock.sleep(1)
        await cluster.client.cancel(first)
        views = await ended(cluster, [first, second])
    assert fetcher.runs == ["a", "a"]
    assert [view.status for view in views] == [TaskStatus.CANCELLED, TaskStatus.FINISHED]


async def test_the_next_runs_when_the_cancelled_one_is_known_to_have_ended() -> None:
    runs: list[str] = []

    async def slow_to_stop(item: Any, ctx: RunContext) -> str:
        runs.append("begin")
        try:
            await ctx.cancellable(ctx.clock.sleep(100))
        finally:
            await ctx.clock.sleep(5)
            runs.append("end")
        return "done"

    async with Cluster(workers=2, handlers=[handler("fetch")(slow_to_stop)]) as cluster:
        [first] = await submit(cluster, "a")
        await cluster.clock.sleep(5)
        [second] = await submit(cluster, "a")
        await cluster.clock.sleep(1)
        await cluster.client.cancel(first)
        await ended(cluster, [first, second])
    assert runs == ["begin", "end"] * 2


async def test_a_result_that_has_expired_is_gone() -> None:
    fetcher = Fetcher()
    async with Cluster(handlers=fetcher.handlers) as cluster:
        await ended(cluster, await submit(cluster, "a"))
        await cluster.clock.sleep(3_590)
        await ended(cluster, await submit(cluster, "a"))
        assert fetcher.runs == ["a"]
        await cluster.clock.sleep(DAY)
        assert not await cluster.store.records.scan("cache")
        await ended(cluster, await submit(cluster, "a"))
    assert fetcher.runs == ["a", "a"]


async def test_a_node_that_takes_a_result_takes_no_place_of_its_key() -> None:
    fetcher = Fetcher()
    keyed = flow(fetch(concurrency_key="k"))
    holds = flow({"node_id": "h", "type": "fetch", "io": {"input_inline": {"url": "h"}}} | KEYED)
    async with Cluster(handlers=fetcher.handlers) as cluster:
        await ended(cluster, await submit(cluster, "a", graph=keyed))
        await submit(cluster, "h", graph=holds)
        await cluster.clock.sleep(1)
        [again] = await submit(cluster, "a", graph=keyed)
        await cluster.clock.sleep(1)
        view = await cluster.client.get_task(again)
    assert (view.status, view.nodes["fetch"].cached) == (TaskStatus.FINISHED, True)


async def test_the_node_that_computes_a_result_waits_for_its_key_while_others_wait_for_it() -> None:
    fetcher = Fetcher()
    keyed = flow(fetch(concurrency_key="k"))
    holds = flow({"node_id": "h", "type": "fetch", "io": {"input_inline": {"url": "h"}}} | KEYED)
    async with Cluster(coordinators=2, handlers=fetcher.handlers) as cluster:
        await submit(cluster, "h", graph=holds)
        await cluster.clock.sleep(1)
        ids = await submit(cluster, "a", "a", graph=keyed)
        await cluster.clock.sleep(1)
        before = [await cluster.client.get_task(task_id) for task_id in ids]
        views = await ended(cluster, ids)
    assert sorted(str(view.nodes["fetch"].waiting) for view in before) == ["cache", "key"]
    assert [view.status for view in views] == [TaskStatus.FINISHED] * 2
    assert fetcher.runs == ["h", "a"]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({"a": 1, "b": [2.0]}, {"b": [2], "a": 1.0}, True),
        (1, "1", False),
        (1, True, False),
        ([1, 2], [2, 1], False),
    ],
)
async def test_equal_json_values_are_one_key(one: Any, other: Any, is_same: bool) -> None:
    fetcher = Fetcher()
    async with Cluster(handlers=fetcher.handlers) as cluster:
        for url in (one, other):
            await ended(cluster, await submit(cluster, url))
    assert len(fetcher.runs) == (1 if is_same else 2)


async def test_a_key_that_is_null_fails_the_node() -> None:
    async with Cluster(handlers=Fetcher().handlers) as cluster:
        [view] = await ended(cluster, await submit(cluster, None))
    node = view.nodes["fetch"]
    assert (node.reason_code, node.error) == (
        "bad_expression",
        "/cache/key: the value of the key is null",
    )


async def test_each_child_of_a_map_has_a_key_of_its_own() -> None:
    fetcher = Fetcher()
    mapped = flow(
        {
            "node_id": "m",
            "type": "fetch",
            "map": {"over": "${params.url}"},
            "io": {"input_inline": {"url": "${item}"}},
            "cache": {"key": {"url": "${item}"}, **HOUR},
        }
    )
    async with Cluster(coordinators=2, handlers=fetcher.handlers) as cluster:
        [view] = await ended(cluster, await submit(cluster, ["a", "b", "a", "b"], graph=mapped))
    assert sorted(fetcher.runs) == ["a", "b"]
    assert [result[0] for result in view.nodes["m"].result] == ["a", "b", "a", "b"]


async def test_a_key_reads_the_results_of_nodes_above() -> None:
    fetcher = Fetcher()
    graph = flow(
        fetch("first", key="first"),
        fetch("second", key=["${results.first}", "x"], depends_on=["first"]),
    )
    async with Cluster(handlers=fetcher.handlers) as cluster:
        for _ in range(2):
            [view] = await ended(cluster, await submit(cluster, "a", graph=graph))
    assert fetcher.runs == ["a", "a"]
    assert view.nodes["second"].cached


async def test_the_result_of_a_subflow_is_cached_apart_from_those_of_roles() -> None:
    fetcher = Fetcher()
    inner = flow({"node_id": "x", "type": "fetch", "io": {"input_inline": {"url": "inner"}}})
    nested = {"node_id": "s", "type": "subflow", "cache": {"key": "k", **HOUR}}
    async with Cluster(handlers=fetcher.handlers) as cluster:
        await cluster.client.put_flow("fetch", inner)
        named = flow(nested | {"io": {"flow": "fetch"}})
        own = flow(nested | {"io": {"graph": inner}})
        views = []
        for graph in (named, own, flow(fetch("s", key="k")), named, own):
            views += await ended(cluster, await submit(cluster, "a", graph=graph))
    assert [view.nodes["s"].cached for view in views] == [False, False, False, True, True]
    assert fetcher.runs == ["inner", "inner", "a"]
    assert views[3].nodes["s"].child_task_id is None


async def test_a_flow_that_calls_itself_does_not_wait_for_its_own_result() -> None:
    again = {
        "node_id": "s",
        "type": "subflow",
        "when": "params.depth > 0",
        "io": {"flow": "deep", "params": {"depth": "${params.depth - 1}"}},
        "cache": {"key": "k", **HOUR},
    }
    async with Cluster(handlers=Fetcher().handlers) as cluster:
        await cluster.client.put_flow("deep", flow(again))
        task_id = await cluster.client.create_task(flow="deep", params={"depth": 3})
        [view] = await ended(cluster, [task_id])
    assert view.status == TaskStatus.FINISHED


async def test_a_result_with_skipped_batches_is_not_stored() -> None:
    async def work(item: int) -> int:
        if item == 2:
            raise ValueError("bad")
        return item

    graph = flow(
        {
            "node_id": "n",
            "type": "work",
            "io": {"input_inline": [1, 2], "batching": {"size": 1}},
            "on_batch_failure": "skip",
            "cache": {"key": "k", **HOUR},
        }
    )
    async with Cluster(handlers=[handler("work")(work)]) as cluster:
        views = [await cluster.run(graph) for _ in range(2)]
        assert not await cluster.store.records.scan("cache")
    assert [view.nodes["n"].cached for view in views] == [False, False]


async def test_a_result_that_an_operator_gives_is_not_stored() -> None:
    fetcher = Fetcher()
    async with Cluster(handlers=fetcher.handlers) as cluster:
        [first] = await submit(cluster, "a")
        await cluster.clock.sleep(1)
        await cluster.client.resolve_node(first, "fetch", "finished", by="ann", result="given")
        await ended(cluster, [first])
        [view] = await ended(cluster, await submit(cluster, "a"))
    assert (view.nodes["fetch"].cached, fetcher.runs) == (False, ["a", "a"])


@pytest.mark.parametrize("mapped", [False, True])
async def test_a_node_that_took_a_result_is_not_undone(mapped: bool) -> None:
    undone: list[Any] = []

    async def take_back(item: Any) -> None:
        undone.append(item)

    async def fail(item: Any) -> None:
        raise ValueError("no")

    node = fetch("n", undo={"type": "take_back", "io": {"input_inline": "${result}"}})
    if mapped:
        node |= {
            "map": {"over": ["${params.url}", "other"]},
            "io": {"input_inline": {"url": "${item}"}},
        }
        node["cache"]["key"] = "${item}"
    graph = flow(node, {"node_id": "f", "type": "fail", "depends_on": ["n"]})
    handlers = [*Fetcher().handlers, handler("take_back")(take_back), handler("fail")(fail)]
    async with Cluster(handlers=handlers) as cluster:
        await ended(cluster, await submit(cluster, "a"))
        [view] = await ended(cluster, await submit(cluster, "a", graph=graph))
        [again] = await ended(cluster, await submit(cluster, "a", graph=graph))
    assert view.status == again.status == TaskStatus.FAILED
    assert undone == (["other#2"] if mapped else [])
    assert view.nodes["n~undo"].status == ("finished" if mapped else "skipped")


async def test_a_paused_task_lets_another_one_compute_the_result() -> None:
    fetcher = Fetcher()
    async with Cluster(handlers=fetcher.handlers) as cluster:
        first, second, third = await submit(cluster, "a", "a", "a")
        await cluster.clock.sleep(1)
        runs = next(
            view.id
            for view in [await cluster.client.get_task(one) for one in (first, second, third)]
            if view.nodes["fetch"].status == "running"
        )
        paused, other = (one for one in (first, second, third) if one != runs)
        await cluster.client.pause(paused)
        await cluster.client.cancel(runs)
        assert (await cluster.client.wait(other, 100)).nodes["fetch"].result == "a#2"
        await cluster.client.resume(paused)
        assert (await cluster.client.wait(paused, 100)).nodes["fetch"].cached


async def test_cached_results_are_deleted_by_role_and_key() -> None:
    fetcher = Fetcher()
    async with Cluster(handlers=fetcher.handlers) as cluster:
        client = cluster.client
        await ended(cluster, await submit(cluster, "a", "b", {"x": 1}))
        assert await client.delete_cached("fetch", key={"x": 1.0}) == 1
        assert await client.delete_cached("fetch", key="unknown") == 0
        assert await client.delete_cached("fet") == 0
        assert await client.delete_cached("fetch") == 2
        assert not await cluster.store.records.scan("cache")


async def test_a_result_that_was_being_computed_when_it_was_deleted_is_not_stored() -> None:
    fetcher = Fetcher()
    async with Cluster(handlers=fetcher.handlers) as cluster:
        ids = await submit(cluster, "a", "a", "a")
        await cluster.clock.sleep(1)
        assert await cluster.client.delete_cached("fetch", key="a") == 1
        views = await ended(cluster, ids)
    assert fetcher.runs == ["a", "a"]
    assert sum(view.nodes["fetch"].cached for view in views) == 1


async def test_what_is_deleted_is_named_by_a_role_or_a_flow() -> None:
    async with Cluster() as cluster:
        with pytest.raises(ValueError, match="a role or a flow, and not both"):
            await cluster.client.delete_cached()
        with pytest.raises(ValueError, match="a role or a flow, and not both"):
            await cluster.client.delete_cached("a", flow="b")
        with pytest.raises(ValueError, match="the cache key is not JSON"):
            await cluster.client.delete_cached("a", key=object())
