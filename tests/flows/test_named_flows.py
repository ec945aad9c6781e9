"""Nodes that run registered flows as child tasks, on a cluster in virtual time."""

from typing import Any

import pytest

from flowkit import Client, FlowRef, GraphError, flow, loop, subflow
from flowkit._records.flow_records import VERSIONS
from flowkit.flows import iteration
from flowkit.protocols import RecordChange, RecordDeletion
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.builders import DAY, ONE, ended, graph, node, plugin
from tests.hooked_store import HookedStore


def runs(node_id: str, flow: str, *after: str, **io: Any) -> dict[str, Any]:
    """Return a node that runs a registered flow."""
    return node(node_id, "subflow", *after, io={"flow": flow, **io})


@handler("work")
async def work(item: Any) -> Any:
    return item


def answer(value: Any) -> dict[str, Any]:
    """Return a graph whose result is a value."""
    return graph(node("a", io={"input_inline": value}), output="${results.a}")


NEXT = graph(
    node("a", io={"input_inline": "${params.n + 1}"}),
    params={"required": ["n"], "properties": {"n": {"type": "integer"}}},
    output="${results.a}",
)


@pytest.fixture
async def cluster():
    async with Cluster(handlers=[work]) as cluster:
        yield cluster


async def test_a_subflow_runs_the_latest_version_of_a_flow(cluster: Cluster) -> None:
    await cluster.client.put_flow("next", answer(0))
    await cluster.client.put_flow("next", NEXT)
    view = await cluster.run(graph(runs("s", "next", params={"n": 1})))
    assert view.nodes["s"].result == 2
    child = await cluster.client.get_task(view.nodes["s"].child_task_id or "")
    assert (child.flow, child.version, child.pipeline) == ("next", 2, "next")
    assert (view.flow, view.version, view.pipeline) == (None, None, None)


async def test_a_subflow_runs_the_version_that_it_names(cluster: Cluster) -> None:
    await cluster.client.put_flow("one", answer("first"))
    await cluster.client.put_flow("one", answer("second"))
    view = await cluster.run(graph(runs("s", "one", version=1)))
    assert view.nodes["s"].result == "first"


async def test_a_loop_and_a_map_run_flows(cluster: Cluster) -> None:
    await cluster.client.put_flow("next", NEXT)
    view = await cluster.run(
        graph(
            node(
                "l",
                "loop",
                io={
                    "flow": "next",
                    "params": {"n": "${previous == null ? 0 : previous}"},
                    "until": "previous >= 3",
                },
            ),
            runs("m", "next", params={"n": "${item}"}) | {"map": {"over": [1, 2, 3]}},
        )
    )
    assert view.nodes["l"].result == 3
    assert view.nodes["m"].result == [2, 3, 4]
    rounds = [await cluster.client.get_task(one) for one in view.nodes["l"].rounds.values()]
    assert [(one.flow, one.version) for one in rounds] == [("next", 1)] * 3


async def test_versions_are_fixed_when_the_root_task_is_submitted() -> None:
    async with Cluster(coordinators=0) as cluster:
        put = cluster.client.put_flow
        await put("leaf", answer("old leaf"))
        await put("middle", graph(runs("s", "leaf"), output="${results.s}"))
        task_id = await cluster.client.create_task(
            graph=graph(
                runs("direct", "leaf"),
                runs("through", "middle"),
                node("inline", "subflow", io={"graph": graph(runs("s", "leaf"))}),
            )
        )
        await put("leaf", answer("new leaf"))
        await put("middle", answer("new middle"))
        await cluster.add_coordinator()
        await cluster.add_worker([work])
        view = await ended(cluster, task_id)
        assert {name: one.result for name, one in view.nodes.items()} == {
            "direct": "old leaf",
            "through": "old leaf",
            "inline": {"s": "old leaf"},
        }


async def test_a_flow_may_name_one_that_is_registered_later(cluster: Cluster) -> None:
    await cluster.client.put_flow("outer", graph(runs("s", "inner"), output="${results.s}"))
    await cluster.client.put_flow("inner", answer(7))
    assert (await cluster.run(flow="outer")).result == 7


COUNTDOWN = graph(
    node("a", io={"input_inline": "${params.n}"}),
    runs("again", "down", "a", params={"n": "${params.n - 1}"}) | {"when": "params.n > 0"},
    params={"properties": {"n": {"type": "integer"}}},
    output="${results.again == null ? [params.n] : results.again + [params.n]}",
)


async def test_a_flow_may_call_itself(cluster: Cluster) -> None:
    await cluster.client.put_flow("down", COUNTDOWN)
    assert (await cluster.run(flow="down", params={"n": 4})).result == [0, 1, 2, 3, 4]


async def test_the_name_of_a_flow_means_its_own_version_in_its_tasks(cluster: Cluster) -> None:
    await cluster.client.put_flow("down", COUNTDOWN)
    await cluster.client.put_flow("down", answer("another"))
    view = await cluster.run(flow="down", version=1, params={"n": 1})
    assert view.result == [0, 1]


async def test_child_tasks_are_at_most_32_deep(cluster: Cluster) -> None:
    await cluster.client.put_flow("down", COUNTDOWN)
    assert len((await cluster.run(flow="down", params={"n": 32})).result) == 33
    view = await cluster.run(flow="down", params={"n": 33})
    assert view.status == "failed"
    depth = 0
    while (child := view.nodes["again"].child_task_id) is not None:
        view, depth = await cluster.client.get_task(child), depth + 1
    assert depth == 32
    assert view.nodes["again"].reason_code == "subflow_limit"
    assert "33 tasks below the root task, above the limit of 32" in (
        view.nodes["again"].error or ""
    )


@pytest.mark.parametrize(
    ("nodes", "fault"),
    [
        ([runs("s", "none")], "node 's': io.flow: there is no flow 'none'"),
        ([runs("s", "next", version=9)], "node 's': io.flow: flow 'next' has no version 9"),
        (
            [runs("s", "outer")],
            (
                "node 's': io.flow: version 1 of flow 'outer': node 'x': io.flow: there is no flow"
                " 'none'"
            ),
        ),
        (
            [node("s", "subflow", io={"graph": graph(runs("s", "none"))})],
            "node 's': io.graph: node 's': io.flow: there is no flow 'none'",
        ),
        (
            [runs("s", "next", params={"n": 1.5})],
            (
                "node 's': io.params.n: 1.5 is not of type \"integer\", by the schema of version 1"
                " of flow 'next'"
            ),
        ),
    ],
)
async def test_a_flow_that_cannot_run_is_a_fault_of_the_submission(
    cluster: Cluster, nodes: list[dict[str, Any]], fault: str
) -> None:
    await cluster.client.put_flow("next", NEXT)
    await cluster.client.put_flow("outer", graph(runs("x", "none")))
    with pytest.raises(GraphError) as caught:
        await cluster.client.create_task(graph=graph(*nodes))
    assert [str(one) for one in caught.value.faults] == [fault]
    assert (await cluster.client.list_tasks()).items == []


class CountedReads(HookedStore):
    """Store that counts reads of keyed records."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    async def before_read(self, kind: str) -> None:
        self.reads += 1


async def test_a_flow_that_many_nodes_name_is_read_once() -> None:
    store = CountedReads()
    async with Cluster(coordinators=0, store=store) as cluster:
        await cluster.client.put_flow("next", NEXT)
        store.reads = 0
        nodes = [runs(f"a{number}", "next", params={"n": 1}) for number in range(50)]
        nodes += [runs(f"b{number}", "none") for number in range(50)]
        with pytest.raises(GraphError) as caught:
            await cluster.client.create_task(graph=graph(*nodes))
        assert len(caught.value.faults) == 50
        # The heads of both flows, the version of one, and names that are like that of the other.
        assert store.reads == 4


async def test_all_flows_that_cannot_run_are_listed_once(cluster: Cluster) -> None:
    await cluster.client.put_flow("outer", graph(runs("x", "none"), runs("y", "outer")))
    with pytest.raises(GraphError) as caught:
        await cluster.client.create_task(graph=graph(runs("s", "outer"), runs("t", "missing")))
    assert [one.node_id for one in caught.value.faults] == ["t", "s"]


async def test_a_flow_whose_function_is_not_registered_here_is_a_fault() -> None:
    def register(register: Any) -> None:
        register("odd", lambda context: None)

    async with (
        Cluster(
            coordinators=0, plugins=[plugin("odd", flowkit_register_functions=register)]
        ) as cluster,
        Client(store=cluster.store, bus=cluster.bus, clock=cluster.clock) as other,
    ):
        await cluster.client.put_flow("odd", graph(node("a", "coordinator_fn", io={"fn": "odd"})))
        with pytest.raises(
            GraphError, match="node 's': io.flow: version 1 of flow 'odd': node 'a'"
        ):
            await other.create_task(graph=graph(runs("s", "odd")))


async def test_a_node_whose_flow_was_deleted_fails_and_says_so() -> None:
    async with Cluster(coordinators=0) as cluster:
        await cluster.client.put_flow("one", ONE)
        task_id = await cluster.client.create_task(graph=graph(runs("s", "one")))
        (record,) = await cluster.store.records.scan(VERSIONS)
        await cluster.store.records.change(
            [RecordChange("x", delete=[RecordDeletion(VERSIONS, record.key)])]
        )
        await cluster.add_coordinator()
        view = await ended(cluster, task_id)
        assert view.nodes["s"].reason_code == "flow_not_found"
        assert view.nodes["s"].error == "flow 'one' has no version 1"


async def test_explain_says_which_version_of_a_flow_a_node_runs() -> None:
    async with Cluster(workers=0) as cluster:
        await cluster.client.put_flow("one", ONE)
        await cluster.client.put_flow("one", graph(node("other")))
        task_id = await cluster.client.create_task(
            graph=graph(
                runs("s", "one"),
                node("l", "loop", io={"flow": "one", "version": 1, "until": "true"}),
            )
        )
        await cluster.clock.sleep(1)
        said = await cluster.client.explain(task_id, "s")
        assert said.startswith("'s' runs version 2 of flow 'one' as task ")
        said = await cluster.client.explain(task_id, "l")
        assert said.startswith(
            "'l' waits for round 1 of at most 100, which runs version 1 of flow 'one' as task "
        )


async def test_flows_in_python_run_registered_flows(cluster: Cluster) -> None:
    @flow
    def calls() -> Any:
        grown = loop("next", n=iteration, until=iteration == 1, max_iterations=3)
        return [subflow("next", n=1), subflow(FlowRef("next", 1), n=1), grown]

    nodes = calls.build_graph().to_dict()["nodes"]
    assert [one["io"] | {"params": {}} for one in nodes] == [
        {"flow": "next", "params": {}, "until": "iteration == 1", "max_iterations": 3},
        {"flow": "next", "params": {}},
        {"flow": "next", "version": 1, "params": {}},
    ]
    for value in (1, 2):
        await cluster.client.put_flow("next", answer(value))
    view = await cluster.client.wait(await calls.submit(cluster.client), timeout=DAY)
    assert view.result == [2, 1, 2]
