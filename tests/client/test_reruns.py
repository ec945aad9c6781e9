"""New tasks from old ones, on a cluster in virtual time."""

from typing import Any

import pytest

from flowkit.errors import CorruptRecord, FlowNotFound, GraphError, TaskNotFound, TaskRefused
from flowkit_testing import Cluster
from tests.builders import graph, node, work
from tests.store_records import task

FLOW = graph(
    node("a", io={"input_inline": {"x": "${params.x}", "y": "${params.y}"}}),
    params={
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer", "default": 2}},
        "required": ["x"],
    },
)


async def test_a_task_runs_again_as_a_new_one_with_changed_params() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        fields: dict[str, Any] = {"pipeline": "p", "labels": {"team": "a"}, "priority": 3}
        old = await cluster.run(FLOW, params={"x": 1}, **fields, deadline_sec=500)
        same = await client.wait(await client.rerun(old.id))
        changed = await client.wait(await cluster.coordinators[0].rerun(old.id, params={"y": 5}))
        assert same.id != old.id
        assert (same.rerun_of, same.pipeline, same.labels) == (old.id, "p", {"team": "a"})
        assert (same.params, same.result) == (old.params, old.result)
        assert changed.result == {"a": {"x": 1, "y": 5}}
        (stored,) = (await cluster.store.load([same.id])).values()
        assert b'"priority":3' in stored.spec
        assert b'"deadline_sec":500' in stored.spec
        assert old.rerun_of is None
        assert (await client.get_task(old.id)) == old
        again = await client.wait(await client.rerun(changed.id))
        assert (again.rerun_of, again.result) == (changed.id, changed.result)


async def test_the_task_of_a_flow_runs_again_with_its_version_or_with_another() -> None:
    def version(text: str) -> dict[str, Any]:
        return graph(node("a", io={"input_inline": text}))

    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        await client.put_flow("f", version("one"))
        old = await client.create_task(flow="f")
        await client.put_flow("f", version("two"))
        same = await client.wait(await client.rerun(old))
        other = await client.wait(await client.rerun(old, flow_version=2))
        assert (same.flow, same.version, same.result) == ("f", 1, {"a": "one"})
        assert (other.flow, other.version, other.result) == ("f", 2, {"a": "two"})
        assert same.pipeline == other.pipeline == "f"
        with pytest.raises(FlowNotFound):
            await client.rerun(old, flow_version=3)
        plain = await client.create_task(graph=version("own"))
        with pytest.raises(TaskRefused, match="has a graph of its own"):
            await client.rerun(plain, flow_version=1)


async def test_a_rerun_with_a_key_is_submitted_once() -> None:
    async with Cluster() as cluster:
        old = await cluster.client.create_task(graph=FLOW, params={"x": 1})
        first = await cluster.client.rerun(old, idempotency_key="k")
        assert await cluster.client.rerun(old, idempotency_key="k") == first
        with pytest.raises(TaskRefused, match="other params"):
            await cluster.client.rerun(old, params={"x": 2}, idempotency_key="k")


async def test_a_child_task_runs_again_without_its_parent() -> None:
    flow = graph(node("s", "subflow", io={"graph": FLOW, "params": {"x": 4}}))
    async with Cluster(handlers=[work]) as cluster:
        child = (await cluster.run(flow)).nodes["s"].child_task_id
        assert child is not None
        view = await cluster.client.wait(await cluster.client.rerun(child))
        assert (view.parent, view.rerun_of) == (None, child)
        assert view.result == {"a": {"x": 4, "y": 2}}


async def test_what_cannot_run_again_is_refused() -> None:
    async with Cluster() as cluster:
        old = await cluster.client.create_task(graph=FLOW, params={"x": 1})
        with pytest.raises(GraphError, match="params.x"):
            await cluster.client.rerun(old, params={"x": "no"})
        with pytest.raises(GraphError, match="params must be an object, not a list"):
            await cluster.client.rerun(old, params=[1])  # type: ignore[arg-type]
        with pytest.raises(TaskNotFound):
            await cluster.client.rerun("nothing")
        await cluster.store.create([task("damaged", spec=b"{}", status="failed")])
        with pytest.raises(CorruptRecord):
            await cluster.client.rerun("damaged")
