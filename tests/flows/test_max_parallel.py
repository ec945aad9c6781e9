"""Tasks with a limit of nodes in flight, on a cluster."""

from typing import Any

import anyio

from flowkit.flows import flow
from flowkit.graph import Graph
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.builders import DAY, graph, node


class Gauge:
    """The number of nodes that run at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def run(self, item: Any, ctx: RunContext) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        await ctx.clock.sleep(1)
        self.now -= 1
        return ctx.node_id


async def test_no_more_nodes_run_than_max_parallel_allows() -> None:
    gauge = Gauge()
    async with Cluster(handlers={"work": handler("work")(gauge.run)}) as cluster:
        nodes = [node(f"n{number}") for number in range(7)]
        view = await cluster.run(graph(*nodes, max_parallel=3))
    assert (view.status, gauge.most) == ("finished", 3)


async def test_explain_says_that_a_node_waits_because_of_max_parallel() -> None:
    @handler("long")
    async def long(item: Any, ctx: RunContext) -> None:
        await ctx.cancellable(anyio.sleep(DAY))

    async with Cluster(handlers=[long]) as cluster:
        task_id = await cluster.client.create_task(
            graph=graph(node("a", "long"), node("b", "long"), max_parallel=1)
        )
        assert (
            await cluster.client.explain(task_id, "b")
            == "'b' waits because max_parallel nodes (1) are in flight."
        )
        await cluster.client.cancel(task_id)


def test_a_flow_and_a_graph_built_in_python_have_the_field_of_the_document() -> None:
    @flow(max_parallel=2)
    def described(g: Graph) -> None:
        g.node("a", "work", optional=True)

    built = Graph(max_parallel=2)
    built.node("a", "work", optional=True)
    document = {"nodes": [node("a", optional=True)], "max_parallel": 2}
    assert described() == built == Graph.parse(document)
    assert built.to_dict()["max_parallel"] == 2
    assert Graph.restore(built.source).plan.max_parallel == 2
