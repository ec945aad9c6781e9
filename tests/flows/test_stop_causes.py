"""The reason why a task was cancelled or a node was stopped, in every view."""

from typing import Any

import anyio
import pytest

from flowkit import TaskView
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from flowkit_testing._cluster import DAY
from tests.builders import ended, node

FAILURE = "node 'bad' failed: bad_input: ValueError: no"


class Runs:
    """Handlers that end when they are cancelled, and the reasons that they were given."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.reasons: list[str | None] = []

    def handlers(self) -> dict[str, Any]:
        @handler("hang")
        async def hang(item: Any, ctx: RunContext) -> None:
            self.begun.set()
            try:
                await ctx.cancellable(anyio.sleep_forever())
            finally:
                self.reasons.append(ctx.cancel_reason)

        @handler("bad")
        async def bad(item: Any) -> None:
            await self.begun.wait()
            raise ValueError("no")

        @handler("quick")
        async def quick(item: Any) -> None:
            await self.begun.wait()

        return {"hang": hang, "bad": bad, "quick": quick}


async def explained(cluster: Cluster, view: TaskView) -> dict[str, str]:
    return {name: await cluster.client.explain(view.id, name) for name in view.nodes}


def causes(view: TaskView) -> dict[str, tuple[str | None, str | None]]:
    return {
        name: (node.reason_code, node.error)
        for name, node in view.nodes.items()
        if node.status == "cancelled"
    }


@pytest.mark.parametrize("reason", ["wrong month", ""])
async def test_the_reason_of_a_cancel_is_in_the_task_and_in_every_node_that_was_stopped(
    reason: str,
) -> None:
    runs = Runs()
    async with Cluster(handlers=runs.handlers()) as cluster:
        task_id = await cluster.client.create_task(
            graph={
                "nodes": [
                    node("a", "hang"),
                    node("b", "quick", "a"),
                    node("c", "quick", "b"),
                    node("d", "missing"),
                ]
            }
        )
        await runs.begun.wait()
        while (await cluster.client.get_task(task_id)).nodes["a"].status != "running":
            await cluster.clock.sleep(1)
        await cluster.client.cancel(task_id, reason)
        meanwhile = await cluster.client.get_task(task_id)
        assert (meanwhile.status, meanwhile.error) == ("cancelling", reason or None)
        assert (meanwhile.nodes["a"].reason_code, meanwhile.nodes["a"].error) == (
            "cancelled",
            reason or None,
        )
        view = await ended(cluster, task_id)
        assert (view.status, view.error) == ("cancelled", reason or None)
        assert causes(view) == dict.fromkeys("abcd", ("cancelled", reason or None))
        said = f": the task was cancelled{f', {reason!r}' if reason else ''}."
        assert await explained(cluster, view) == {
            name: f"{name!r} was cancelled{said}" for name in "abcd"
        }
    assert runs.reasons == [reason or "cancelled"]


async def test_a_node_that_is_stopped_by_a_failure_says_which_node_failed_and_how() -> None:
    runs = Runs()
    async with Cluster(handlers=runs.handlers()) as cluster:
        view = await cluster.run(
            {"nodes": [node("a", "hang"), node("bad", "bad"), node("later", "quick", "a")]},
            timeout=DAY,
        )
        assert (view.status, view.error) == ("failed", FAILURE)
        assert causes(view) == {"a": ("task_failed", FAILURE), "later": ("task_failed", FAILURE)}
        assert (await explained(cluster, view))["later"] == f"'later' was cancelled: {FAILURE}."
    assert runs.reasons == [FAILURE]


async def test_a_node_that_is_stopped_by_the_deadline_says_so() -> None:
    runs = Runs()
    async with Cluster(handlers=runs.handlers()) as cluster:
        task_id = await cluster.client.create_task(
            graph={"nodes": [node("a", "hang"), node("b", "quick", "a")]}, deadline_sec=60
        )
        view = await ended(cluster, task_id)
        assert causes(view) == dict.fromkeys(
            "ab", ("deadline_exceeded", "the task's deadline passed")
        )
    assert runs.reasons == ["the task's deadline passed"]


async def test_a_node_that_is_not_needed_says_for_which_node() -> None:
    runs = Runs()
    async with Cluster(handlers=runs.handlers()) as cluster:
        first = node("first", "quick", "a", "b", "later", fan_in="any", on_satisfied="cancel")
        view = await cluster.run(
            {"nodes": [node("a", "hang"), node("b", "quick"), node("later", "quick", "a"), first]},
            timeout=DAY,
        )
        cause = "node 'first' needs no more parents"
        assert (view.status, view.error) == ("finished", None)
        assert causes(view) == {"a": ("not_needed", cause), "later": ("not_needed", cause)}
        assert (await explained(cluster, view))["a"] == f"'a' was cancelled: {cause}."
    assert runs.reasons == [cause]


async def test_a_task_that_is_retried_says_nothing_of_the_cancel_before() -> None:
    async with Cluster(handlers=Runs().handlers()) as cluster:
        task_id = await cluster.client.create_task(graph={"nodes": [node("a", "missing")]})
        await cluster.client.cancel(task_id, "wrong month")
        await ended(cluster, task_id)
        await cluster.client.retry(task_id)
        view = await cluster.client.get_task(task_id)
        assert (view.error, view.nodes["a"].reason_code, view.nodes["a"].error) == (
            None,
            None,
            None,
        )
